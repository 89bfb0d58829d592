//! Too much of anything: a flood costs the API it is aimed at and nobody else, a source that asks or fails too often is told to wait, and
//! a saturated gateway serves nearly as much as one that is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use world::{Answer, Client, Plan, Service, World, api_file, bookstore, eventually};

/// One worker, behind whom a queue of five milliseconds counts: a debug build reaches that with few clients.
const SOON: &str = "
listeners: [{ address: 127.0.0.1:0 }]
workers: 1
overload: { queue_delay: 5ms }
";

/// A gateway with two APIs before one service.
fn two_apis(service: &Service) -> World {
    let api = |base: &str| {
        let more = format!("base_path: {base}\nsecurity: off\n");
        api_file(&bookstore(), &service.url(), &more)
    };
    Plan::bookstore(service)
        .api("flooded", api("/flooded"))
        .api("other", api("/other"))
        .process(SOON)
        .start()
}

/// Clients that ask for one path without a pause, each on a connection it keeps.
struct Flood {
    stopped: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    /// What was neither, and refusals that closed the connection or did not say when to come back.
    odd: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Flood {
    fn on(address: SocketAddr, path: &'static str, clients: usize) -> Self {
        let mut flood = Self {
            stopped: Arc::default(),
            served: Arc::default(),
            refused: Arc::default(),
            odd: Arc::default(),
            clients: Vec::new(),
        };
        for _ in 0..clients {
            let (stopped, served) = (flood.stopped.clone(), flood.served.clone());
            let (refused, odd) = (flood.refused.clone(), flood.odd.clone());
            let mut client = Client::connect(address);
            let asks = move || {
                while !stopped.load(SeqCst) {
                    client.request("GET", path, &[], b"");
                    let Ok(answer) = client.answer() else {
                        odd.fetch_add(1, SeqCst);
                        return;
                    };
                    let count = match answer.status {
                        200 => &served,
                        _ if is_saturated(&answer) => &refused,
                        _ => &odd,
                    };
                    count.fetch_add(1, SeqCst);
                }
            };
            let builder = std::thread::Builder::new().stack_size(256 * 1024);
            flood.clients.push(builder.spawn(asks).unwrap());
        }
        flood
    }

    /// How many are served and refused from now on, for this long.
    fn counted(&self, period: Duration) -> (usize, usize) {
        let count = || (self.served.load(SeqCst), self.refused.load(SeqCst));
        let before = count();
        std::thread::sleep(period);
        let after = count();
        (after.0 - before.0, after.1 - before.1)
    }

    fn end(self) {
        self.stopped.store(true, SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
        assert_eq!(self.odd.load(SeqCst), 0, "answers that are neither");
    }
}

fn is_saturated(answer: &Answer) -> bool {
    let wait: Option<u32> = answer.header("retry-after").and_then(|it| it.parse().ok());
    let kept = answer.header("connection") != Some("close");
    answer.status == 503
        && kept
        && wait.is_some_and(|wait| (1..=10).contains(&wait))
        && answer.text().contains("urn:tollgate:problem:saturated")
}

/// Sum of the counts of a family, where the labels hold this.
fn counted(world: &World, family: &str, label: &str) -> u64 {
    let metrics = world.metrics();
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with(family) && line.contains(label));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

#[test]
fn a_flood_on_one_api_leaves_the_calls_of_another_alone() {
    let service = Service::new();
    let world = two_apis(&service);
    let flood = Flood::on(world.address, "/flooded/books", 250);
    eventually("calls of the flooded API are turned away", || {
        flood.refused.load(SeqCst) > 0
    });
    // 1,000 calls by eight clients, while the flood goes on.
    let calls = |_| {
        let mut client = world.client();
        let mut failures = Vec::new();
        for _ in 0..125 {
            client.request("GET", "/other/books", &[], b"");
            let answer = client.answer().expect("an answer");
            if answer.status != 200 {
                failures.push(answer);
            }
        }
        failures
    };
    let failures: Vec<Answer> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|it| scope.spawn(move || calls(it))).collect();
        let ended = clients.into_iter().map(|client| client.join().unwrap());
        ended.flatten().collect()
    });
    assert!(
        failures.len() <= 1,
        "{} of 1,000: {:?}",
        failures.len(),
        failures[0]
    );
    let (served, refused) = flood.counted(Duration::from_secs(1));
    assert!(served > 0, "the flooded API is served as well");
    assert!(refused > 0, "the flood went on all the time");
    flood.end();
    let turned_away = "api=\"flooded\",operation=\"listBooks\",cause=\"saturated\"";
    assert!(counted(&world, "tollgate_denials_total", turned_away) > 0);
    let metrics = world.metrics();
    for family in ["lag_seconds", "calls_in_flight", "calls_per_second_limit"] {
        let line = format!("tollgate_worker_{family}{{worker=\"0\"}} ");
        assert!(metrics.contains(&line), "{metrics}");
    }
    eventually("the limit ends when the flood does", || {
        let calm = "tollgate_worker_calls_per_second_limit{worker=\"0\"} +Inf";
        world.metrics().contains(calm)
    });
    assert_eq!(world.get("/flooded/books").status, 200);
}

/// The same machine serves clients, gateway and service, so that only a loss far beyond noise is told from it.
#[test]
fn ten_times_as_many_clients_are_served_as_much_in_sum() {
    let service = Service::new();
    let world = two_apis(&service);
    let period = Duration::from_secs(2);
    let (mut before, mut during, mut refused) = (0, 0, 0);
    for _ in 0..2 {
        let few = Flood::on(world.address, "/flooded/books", 50);
        before += few.counted(period).0;
        few.end();
        let many = Flood::on(world.address, "/flooded/books", 500);
        eventually("calls are turned away", || many.refused.load(SeqCst) > 0);
        let counted = many.counted(period);
        (during, refused) = (during + counted.0, refused + counted.1);
        many.end();
    }
    println!("served {before} without flood, {during} with it; {refused} refused");
    assert!(during * 2 > before, "{during} of {before} served");
    assert!(refused > 0);
    // 500 clients that were told at once would have been refused more often than others were served.
    assert!(refused < during, "{refused} refused beside {during} served");
}

/// Believes whoever connects about the client's address.
fn believing(service: &Service, overload: &str) -> World {
    let api = api_file(&bookstore(), &service.url(), "security: off\n");
    let process = format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol_from: [127.0.0.0/8] }}]\noverload: {overload}\n"
    );
    Plan::bookstore(service)
        .api("books", api)
        .process(&process)
        .start()
}

/// A connection of a client at this address.
fn from(world: &World, client: &str) -> Client {
    let mut connection = world.client();
    let family = if client.contains(':') {
        "TCP6 "
    } else {
        "TCP4 "
    };
    connection.send(format!("PROXY {family}{client} {client} 1234 80\r\n").as_bytes());
    connection
}

fn ask(connection: &mut Client, path: &str) -> Answer {
    connection.request("GET", path, &[], b"");
    connection.answer().expect("an answer on a kept connection")
}

#[test]
fn a_source_that_asks_too_often_is_told_to_wait_and_others_are_not() {
    let service = Service::new();
    let world = believing(&service, "{ requests_per_address: 5 }");
    let begun = Instant::now();
    let mut greedy = from(&world, "203.0.113.9");
    let answers: Vec<Answer> = (0..50).map(|_| ask(&mut greedy, "/v1/books")).collect();
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.status == 200);
    // Ten at once, and five for each second it took.
    let most = 10 + 5 * (1 + usize::try_from(begun.elapsed().as_secs()).unwrap());
    assert!(
        (10..=most).contains(&served.len()),
        "{} served",
        served.len()
    );
    let first = refused[0];
    first.is_problem(429, "too_many_requests");
    let wait: u32 = first.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    assert_eq!(service.calls().len(), served.len());
    for other in ["203.0.113.10", "2001:db8::1"] {
        let mut other = from(&world, other);
        assert!((0..8).all(|_| ask(&mut other, "/v1/books").status == 200));
    }
    // Both are in the /64 that has asked eight times.
    let mut same_home = from(&world, "2001:db8::ffff:2");
    assert!((0..20).any(|_| ask(&mut same_home, "/v1/books").status == 429));
    // Not public, as load tests and balancers are.
    let mut near = from(&world, "10.1.2.3");
    assert!((0..50).all(|_| ask(&mut near, "/v1/books").status == 200));
    assert!(
        counted(
            &world,
            "tollgate_denials_total",
            "cause=\"too_many_requests\""
        ) > 0
    );
}

#[test]
fn a_scanner_is_slowed_and_the_good_client_beside_it_is_not() {
    let service = Service::new();
    let world = believing(&service, "{ failures_per_address: 20 }");
    let mut scanner = from(&world, "203.0.113.9");
    let mut good = from(&world, "203.0.113.10");
    let mut statuses = Vec::new();
    for number in 0..100 {
        statuses.push(ask(&mut scanner, &format!("/admin/{number}.php")).status);
        assert_eq!(ask(&mut good, "/v1/books").status, 200);
    }
    let found = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!(found(404) + found(429), 100, "{statuses:?}");
    // Twenty, and one more every three seconds the test took.
    assert!((20..=40).contains(&found(404)), "{statuses:?}");
    // What it asks for makes no difference now.
    let mut refused = ask(&mut scanner, "/v1/books");
    if refused.status == 200 {
        refused = ask(&mut scanner, "/v1/nothing");
        refused = match refused.status {
            404 => ask(&mut scanner, "/v1/books"),
            _ => refused,
        };
    }
    refused.is_problem(429, "too_many_failures");
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn an_office_that_mistypes_now_and_then_is_not_shut_out() {
    let service = Service::new();
    let world = believing(&service, "{ failures_per_address: 20 }");
    let mut office = from(&world, "203.0.113.9");
    for number in 0..100 {
        let missing = ask(&mut office, &format!("/v1/nothing/{number}"));
        assert_eq!(missing.status, 404, "attempt {number}");
        assert_eq!(ask(&mut office, "/v1/books").status, 200);
    }
}

#[test]
fn what_is_off_limits_nobody() {
    let service = Service::new();
    let off = "{ requests_per_address: off, failures_per_address: off, queue_delay: off }";
    let world = believing(&service, off);
    let mut client = from(&world, "203.0.113.9");
    assert!((0..300).all(|number| ask(&mut client, &format!("/nothing/{number}")).status == 404));
    assert!(!world.metrics().contains("worker=\"0\""));
}
