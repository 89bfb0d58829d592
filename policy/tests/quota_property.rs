//! No sequence of asks, spends, restarts of the grantor, deaths of holders and steps of the clock admits more than a limit: proptest
//! looks for one, and makes it short.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tollgate_policy::directory::Defined;
use tollgate_policy::quota::cell::Cell;
use tollgate_policy::quota::{
    Counter, CounterKey, Counts, Grantor, HolderId, LeaseAsk, Limit, Metric, OnUnavailable, Scope,
    Standing, Subject, Window,
};
use tollgate_policy::time::Timestamp;

const HOLDERS: usize = 3;
const MINUTE: u64 = 60_000;

#[derive(Clone, Debug)]
enum Step {
    /// A call at a holder, of so many tokens.
    Call(usize, u64),
    /// A holder asks for what it lacks, and is answered.
    Renew(usize, u64),
    /// The same, and the answer is lost.
    RenewUnheard(usize, u64),
    /// What was asked last comes again.
    Again(usize),
    /// Milliseconds pass.
    Wait(u64),
    /// The wall clock steps, in milliseconds.
    Clock(i64),
    /// The grantor dies; what it stored is there.
    Restart,
    /// A holder dies with what it held.
    Death(usize),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let holder = 0..HOLDERS;
    prop_oneof![
        6 => (holder.clone(), 1..4u64).prop_map(|(it, tokens)| Step::Call(it, tokens)),
        5 => (holder.clone(), 0..6u64).prop_map(|(it, tokens)| Step::Renew(it, tokens)),
        1 => (holder.clone(), 0..6u64).prop_map(|(it, tokens)| Step::RenewUnheard(it, tokens)),
        1 => holder.clone().prop_map(Step::Again),
        2 => (1..MINUTE).prop_map(Step::Wait),
        1 => prop_oneof![Just(3_600_000), Just(-3_600_000), Just(-20_000), Just(400 * 86_400_000)]
            .prop_map(Step::Clock),
        1 => Just(Step::Restart),
        1 => holder.prop_map(Step::Death),
        1 => Just(Step::Sweep),
    ]
}

struct Holder {
    id: HolderId,
    cell: Cell,
    last: Option<LeaseAsk>,
}

struct World {
    limit: Arc<Limit>,
    counters: Arc<[Counter]>,
    grantor: Grantor,
    term: u32,
    disk: HashMap<CounterKey, Standing>,
    holders: Vec<Holder>,
    born: u64,
    now: u64,
    offset: i64,
    /// Turns back of the grantor's window, and where it is.
    window: (u64, i64),
    /// The grantor has not been asked in this life.
    reborn: bool,
    leased_in: HashMap<(HolderId, u64), (u64, i64)>,
    spent: HashMap<(u64, i64), u64>,
}

impl World {
    fn new(amount: u64) -> Self {
        let limit = Arc::new(Limit {
            id: "plan/p/l".into(),
            name: "l".into(),
            metric: Metric::Calls,
            amount,
            window: Window::Span(Duration::from_millis(MINUTE)),
            burst: None,
            subject: Subject::Consumer,
            scope: Scope::Api,
            operations: None,
            on_unavailable: OnUnavailable::FailClosed,
            counts: Counts::Reached,
            shadow: false,
            origin: Defined::Store,
        });
        let key = CounterKey {
            limit: limit.id.clone(),
            api: "a".into(),
            operation: "".into(),
            subject: "consumer:c".into(),
        };
        let mut world = Self {
            counters: Arc::new([Counter {
                key,
                limit: limit.clone(),
            }]),
            limit,
            grantor: Grantor::new(0),
            term: 0,
            disk: HashMap::new(),
            holders: Vec::new(),
            born: 0,
            now: 1,
            offset: 1_800_000_000_000,
            window: (0, 0),
            reborn: false,
            leased_in: HashMap::new(),
            spent: HashMap::new(),
        };
        for _ in 0..HOLDERS {
            let holder = world.holder();
            world.holders.push(holder);
        }
        world
    }

    fn holder(&mut self) -> Holder {
        self.born += 1;
        Holder {
            id: HolderId(self.born),
            cell: Cell::new(1, self.counters.clone()),
            last: None,
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.offset + i64::try_from(self.now).unwrap())
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Call(holder, tokens) => self.call(holder, tokens),
            Step::Renew(holder, needed) => self.renew(holder, needed, true),
            Step::RenewUnheard(holder, needed) => self.renew(holder, needed, false),
            Step::Again(holder) => {
                if let Some(ask) = self.holders[holder].last.clone() {
                    self.ask(holder, &ask);
                }
            }
            Step::Wait(millis) => self.now += millis,
            Step::Clock(by) => self.offset += by,
            Step::Restart => {
                self.term += 1;
                self.grantor = Grantor::new(self.term);
                self.reborn = true;
            }
            Step::Death(holder) => self.holders[holder] = self.holder(),
            Step::Sweep => self.grantor.sweep(self.wall()),
        }
    }

    fn call(&mut self, holder: usize, tokens: u64) {
        let holder = &self.holders[holder];
        if holder.cell.take(tokens, self.now).is_ok() {
            let lease = (holder.id, holder.cell.lease());
            let window = self.leased_in[&lease];
            *self.spent.entry(window).or_default() += tokens;
        }
    }

    fn renew(&mut self, holder: usize, needed: u64, heard: bool) {
        let Some(ask) = self.holders[holder].cell.ask(needed, self.now) else {
            return;
        };
        let grant = self.ask(holder, &ask);
        self.holders[holder].last = Some(ask);
        if heard {
            self.holders[holder].cell.answered(&grant, needed);
        }
    }

    fn ask(&mut self, holder: usize, ask: &LeaseAsk) -> tollgate_policy::quota::LeaseGrant {
        let (wall, id) = (self.wall(), self.holders[holder].id);
        let begin = self.limit.window.at(wall).begin;
        let minute = i64::try_from(MINUTE).unwrap();
        if std::mem::take(&mut self.reborn) && self.window.1 - begin > minute {
            // Born with a clock that was set back, it counts what is gone in the window it shows; the next ones come again.
            self.window = (self.window.0 + 1, begin);
        }
        for counter in ask.counters.iter() {
            if let Some(standing) = self.disk.get(&counter.key)
                && !self.grantor.knows(&counter.key)
            {
                self.grantor
                    .restore(wall, &counter.key, &counter.limit, *standing);
            }
        }
        let grant = self.grantor.ask(wall, id, ask);
        for (counter, standing) in self.grantor.take_changes() {
            self.disk.insert(counter.key, standing);
        }
        if let Some(Standing::Window { window, .. }) = self.disk.values().next() {
            let turns = self.window.0 + u64::from(window.begin < self.window.1);
            self.window = (turns, window.begin);
        }
        self.leased_in
            .entry((id, grant.lease))
            .or_insert(self.window);
        grant
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (window, spent) in &self.spent {
            prop_assert!(*spent <= self.limit.amount, "{spent} in {window:?}");
        }
        for balance in self.grantor.balances(self.wall()) {
            prop_assert!(balance.used <= self.limit.amount);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_admits_more_than_the_limit(
        amount in 1..30u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(amount);
        for step in &steps {
            world.take(step);
            world.check()?;
        }
    }
}
