//! An installation that is killed under load, and its books.
#![allow(unreachable_pub, missing_docs, reason = "for tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking"
)]

mod calls;
pub mod two_steps;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tollgate_policy::time::Timestamp;

use crate::world::fleet::{Fleet, Member, Node};
use crate::world::service::ok;
use crate::world::{Client, Service, eventually};
use calls::{Callers, consumers, key, of_target, shop};
pub use calls::{OPERATIONS, units};

/// Segments of the journal as small as they may be.
const PROCESS: &str = "workers: 4\nusage: { max_bytes: 8MiB }\n";

/// The longest anything may take to be stored.
const SETTLED: Duration = Duration::from_secs(120);

pub fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// Calls by life and operation.
type Calls = BTreeMap<(usize, usize), u64>;

/// A gateway, its control plane, the service behind it and the callers before it.
pub struct Site {
    pub fleet: Fleet,
    /// `None`: gateway and control plane are one process.
    gateway: Option<Member>,
    /// What reached the service.
    seen: Arc<Mutex<Calls>>,
    service: Service,
    /// The key of each life.
    keys: Vec<String>,
    callers: Option<Callers>,
    life: usize,
    answered: Calls,
    pub began: Instant,
}

/// What was compared.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub struct Books {
    answered: u64,
    seen: u64,
    billed: u64,
    lives: usize,
}

impl Site {
    pub fn alone(kills: u64) -> Self {
        Self::begin(kills, |shop, consumers| {
            (Fleet::alone(shop, consumers, PROCESS), None)
        })
    }

    pub fn apart(kills: u64) -> Self {
        Self::begin(kills, |shop, consumers| {
            let fleet = Fleet::start_with(shop, consumers);
            let gateway = fleet.gateway("edge-1");
            (fleet, Some(gateway))
        })
    }

    fn begin(kills: u64, start: impl FnOnce(&str, &str) -> (Fleet, Option<Member>)) -> Self {
        let seen = Arc::<Mutex<Calls>>::default();
        let heard = Arc::clone(&seen);
        let service = Service::answering(move |call, stream| {
            *heard.lock().unwrap().entry(of_target(call)).or_default() += 1;
            ok(stream, "ok")
        });
        let lives = usize::try_from(kills).unwrap() + 1;
        let (fleet, gateway) = start(&shop(&service), &consumers(lives));
        let keys = (0..lives).map(|life| key(&fleet, life)).collect();
        let mut site = Self {
            fleet,
            gateway,
            seen,
            service,
            keys,
            callers: None,
            life: 0,
            answered: Calls::new(),
            began: Instant::now(),
        };
        site.call();
        site.is_served();
        site.ends_trial();
        site
    }

    /// What a node was told to serve is on trial for a minute, and put aside where processes die of it. Here they die of something else.
    fn ends_trial(&self) {
        let Some(gateway) = &self.gateway else { return };
        let generations = std::fs::read_dir(gateway.state.join("bundles/shop")).unwrap();
        let trials = generations.map(|it| it.unwrap().path().join("trial"));
        for trial in trials.filter(|it| it.exists()) {
            std::fs::remove_file(trial).unwrap();
        }
    }

    fn address(&self) -> SocketAddr {
        self.gateway
            .as_ref()
            .map_or(self.fleet.nodes, |it| it.address)
    }

    /// Where the control plane keeps its state.
    pub fn state(&self) -> PathBuf {
        self.fleet.state("control")
    }

    /// The process of the gateway.
    fn node(&mut self) -> &mut Node {
        match &mut self.gateway {
            Some(gateway) => &mut gateway.node,
            None => &mut self.fleet.control,
        }
    }

    /// Begins to call the gateway in its present life.
    fn call(&mut self) {
        let callers = Callers::start(self.address(), &self.keys[self.life], self.life);
        self.callers = Some(callers);
    }

    /// Kills the gateway, and begins another life of it.
    pub fn kill_gateway(&mut self) {
        self.gateway_ends();
        self.gateway_begins();
    }

    pub fn gateway_ends(&mut self) {
        self.node().kill();
        self.calls_end();
    }

    pub fn gateway_begins(&mut self) {
        self.node().start_again();
        self.life += 1;
        self.call();
    }

    fn calls_end(&mut self) {
        let callers = self.callers.take().unwrap();
        callers.over.store(true, Ordering::SeqCst);
        for (operation, caller) in callers.threads.into_iter().enumerate() {
            let answered = caller.join().unwrap();
            self.answered.insert((self.life, operation), answered);
        }
        self.service.forget();
    }

    /// Waits until calls are answered.
    pub fn is_served(&self) {
        let callers = self.callers.as_ref().unwrap();
        let before = callers.answered.load(Ordering::SeqCst);
        let begun = Instant::now();
        while callers.answered.load(Ordering::SeqCst) == before {
            assert!(begun.elapsed() < SETTLED, "nothing is served");
            sleep(Duration::from_millis(1));
        }
    }

    /// Lets the gateway serve for a moment; now and then it does not even come to begin.
    pub fn moment(&self) {
        let longest = match random(50) {
            0 => 3_000,
            1..10 => return sleep(Duration::from_millis(random(300))),
            _ => 300,
        };
        self.is_served();
        sleep(Duration::from_micros(random(longest * 1_000)));
    }

    /// The same for the intake.
    pub fn moment_of_intake(&self) {
        if random(5) > 0 {
            let shipped = self.shipped();
            let begun = Instant::now();
            while self.shipped() <= shipped && begun.elapsed() < Duration::from_secs(5) {
                sleep(Duration::from_millis(5));
            }
        }
        sleep(Duration::from_micros(random(300_000)));
    }

    /// Records that the gateway knows to be stored.
    fn shipped(&self) -> u64 {
        let page = self.gateway.as_ref().unwrap().metrics();
        let line = page
            .lines()
            .find(|it| it.starts_with("tollgate_usage_shipped_total{"));
        line.map_or(0, |it| it.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// The last callers go, and all that was recorded is stored.
    pub fn settles(&mut self) {
        self.is_served();
        self.calls_end();
        let state = match &self.gateway {
            Some(gateway) => &gateway.state,
            None => &self.state(),
        };
        // The directory of a run goes when all of it is stored; the gateway that lives keeps its own.
        let runs = || {
            let entries = std::fs::read_dir(state.join("usage")).unwrap().flatten();
            entries.filter(|it| it.path().is_dir()).count()
        };
        let last = |billed: &BTreeMap<_, Billed>| {
            let answered = self.answered.range((self.life, 0)..);
            answered.fold(true, |all, (call, answered)| {
                all && billed.get(call).map_or(0, |it| it.records) >= *answered
            })
        };
        let begun = Instant::now();
        while (runs() > 1 || !last(&self.billed())) && begun.elapsed() < SETTLED {
            sleep(Duration::from_millis(200));
        }
    }
}

/// What is billed of a life and an operation.
#[derive(Debug, Default)]
struct Billed {
    records: u64,
    calls: u64,
    units: u64,
}

impl Site {
    /// By `tollgate usage`.
    fn billed(&self) -> BTreeMap<(usize, usize), Billed> {
        let day = Duration::from_secs(86_400);
        let yesterday = Timestamp::from(SystemTime::now() - day).millis();
        let midnight = Timestamp::from_millis(yesterday - yesterday.rem_euclid(86_400_000));
        let from = midnight.to_string();
        let rows = self.listed(&["usage", "--by", "consumer,operation", "--from", &from]);
        let billed = rows.iter().map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            let sum = |name: &str| row[name].as_u64().unwrap();
            let life = text("consumer").strip_prefix("life").unwrap();
            let operation = OPERATIONS.iter().position(|it| it.0 == text("operation"));
            let billed = Billed {
                records: sum("records"),
                calls: sum("calls"),
                units: sum("units"),
            };
            ((life.parse().unwrap(), operation.unwrap()), billed)
        });
        billed.collect()
    }

    fn listed(&self, arguments: &[&str]) -> Vec<Value> {
        eventually("the control plane is there", || {
            Client::try_connect(self.fleet.api).is_some()
        });
        let text = self.fleet.cli(&[arguments, &["--json"]].concat());
        let listed: Value = serde_json::from_str(&text).unwrap();
        listed.as_array().unwrap().clone()
    }

    /// What does not fit, while calls may go on: more cannot be billed than reached the service.
    pub fn wrong(&self) -> Vec<String> {
        let billed = self.billed();
        let seen = self.seen.lock().unwrap();
        let mut wrong = Vec::new();
        for (call, billed) in &billed {
            let seen = seen.get(call).copied().unwrap_or_default();
            if billed.records > seen {
                wrong.push(format!("billed twice: {call:?}: {seen} seen, {billed:?}"));
            }
        }
        wrong
    }

    /// What does not fit in the end.
    pub fn compare(&self) -> (Books, Vec<String>) {
        let mut wrong = self.wrong();
        let billed = self.billed();
        let none = Billed::default();
        for (call, answered) in &self.answered {
            let billed = billed.get(call).unwrap_or(&none);
            let records = billed.records;
            let sum: u64 = (0..records).map(units).sum();
            let mut check = |holds: bool, what: &str| {
                if !holds {
                    wrong.push(format!("{what}: {call:?}: {answered} answered, {billed:?}"));
                }
            };
            check(records >= *answered, "lost");
            check(
                (billed.calls, billed.units) == (records, sum),
                "billed wrongly",
            );
        }
        let books = Books {
            answered: self.answered.values().sum(),
            seen: self.seen.lock().unwrap().values().sum(),
            billed: billed.values().map(|it| it.records).sum(),
            lives: self.life + 1,
        };
        (books, wrong)
    }

    pub fn assert_right(&self, kills: u64) {
        let (books, wrong) = self.compare();
        println!("{kills} kills, {:?}: {books:?}", self.began.elapsed());
        assert_eq!(wrong, Vec::<String>::new());
        let gaps = self.listed(&["usage", "gaps"]);
        assert!(
            gaps.iter().all(|gap| !gap["closed_at"].is_null()),
            "{gaps:?}"
        );
        assert!(books.answered > 5 * kills, "there was no load");
    }
}
