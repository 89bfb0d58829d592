//! What serving costs is told by API and by consumer: all of the process's CPU time is somebody's, and an API that is called beside
//! another one costs what it costs alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use world::shop::{Key, shop};
use world::{Plan, Service, Then, World, api_file, eventually};

const CHEAP: &str = "cheap";
const COSTLY: &str = "costly";

/// One API answers little, the other much.
fn two_apis(service: &Service) -> Plan {
    service.now(|call, stream| {
        let length = if call.target().starts_with("/costly") {
            600_000
        } else {
            20
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&vec![b'x'; length]);
        Then::Continue
    });
    let spec = "openapi: 3.1.0\ninfo: { title: t, version: '1' }\npaths: { /it: { get: { operationId: it } } }\n";
    let plan = Plan::bookstore(service).file("it.yaml", spec);
    [CHEAP, COSTLY].into_iter().fold(plan, |plan, name| {
        let base = format!("base_path: /{name}\n");
        let file = api_file("../it.yaml".as_ref(), &service.url(), &base);
        plan.api(name, file)
    })
}

/// CPU seconds: of an API, or with `process_cpu_seconds_total` of the process.
fn cpu(world: &World, series: &str) -> f64 {
    let page = world.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.expect(series).trim().parse().unwrap()
}

fn of_api(world: &World, api: &str) -> f64 {
    cpu(
        world,
        &format!("tollgate_api_cpu_seconds_total{{api=\"{api}\"}}"),
    )
}

fn of_process(world: &World) -> f64 {
    cpu(world, "process_cpu_seconds_total")
}

fn call(world: &World, api: &str, calls: u32) {
    let path = format!("/{api}/it");
    let mut client = world.client();
    for _ in 0..calls {
        client.request("GET", &path, &[], b"");
        assert_eq!(client.answer().unwrap().status, 200);
    }
}

/// CPU is divided once a second.
fn divided() {
    thread::sleep(Duration::from_millis(2_100));
}

#[test]
fn an_api_costs_beside_another_what_it_costs_alone() {
    let service = Service::new();
    let world = two_apis(&service).start();
    let (cheap_calls, costly_calls) = (3_000, 600);
    // What the same calls cost alone differs by two fifths from round to round where others share the processor's caches, and calls that
    // wait together cost less than alone, on one worker as on two: each call of both then needs fewer wake-ups. The claim of 15 % has to
    // be seen once, or at least thrice that.
    let mut nearest = f64::MAX;
    for _ in 0..6 {
        let alone = |api, calls| {
            let before = of_process(&world);
            call(&world, api, calls);
            divided();
            of_process(&world) - before
        };
        let alone = [alone(CHEAP, cheap_calls), alone(COSTLY, costly_calls)];
        let before = [CHEAP, COSTLY].map(|api| of_api(&world, api));
        thread::scope(|scope| {
            scope.spawn(|| call(&world, CHEAP, cheap_calls));
            scope.spawn(|| call(&world, COSTLY, costly_calls));
        });
        divided();
        let after = [CHEAP, COSTLY].map(|api| of_api(&world, api));
        let beside = [0, 1].map(|it| after[it] - before[it]);
        let part = |of: [f64; 2], it: usize| of[it] / (of[0] + of[1]);
        let shares = [0, 1].map(|it| part(beside, it) / part(alone, it));
        println!("alone {alone:.2?} s, beside each other {beside:.2?} s, shares {shares:.2?}");
        let off = shares.map(|share| (share - 1.0).abs());
        nearest = nearest.min(off[0].max(off[1]));
        if nearest <= 0.15 {
            break;
        }
    }
    assert!(nearest <= 0.45, "shares are {nearest:.2} off");
    let sum = of_api(&world, CHEAP) + of_api(&world, COSTLY) + of_api(&world, "none");
    let whole = of_process(&world);
    assert!(
        sum >= 0.95 * whole && sum <= 1.01 * whole + 0.05,
        "{sum} of {whole}"
    );
}

#[test]
fn a_consumer_is_told_the_cpu_time_of_its_calls() {
    let service = Service::new();
    let world = shop(&service).start();
    let key: Key = world.key("desk");
    for _ in 0..400 {
        assert_eq!(world.get_with(&key, "/v1/books").status, 200);
    }
    let shown = || {
        let rows = world.cli(&["usage", "--consumer", "desk", "--by", "operation", "--json"]);
        let rows = rows.json();
        let row = rows.as_array().unwrap().first()?;
        let number = |name: &str| row[name].as_u64().unwrap();
        (number("calls") == 400).then(|| number("cpu_nanos"))
    };
    eventually("all is stored", || shown().is_some());
    let (nanos, whole) = (shown().unwrap(), of_process(&world) * 1e9);
    assert!(
        nanos > 400 * 1_000 && (nanos as f64) < whole,
        "{nanos} of {whole}"
    );
    assert!(
        world
            .metrics()
            .contains("tollgate_api_connections{api=\"shop\"}")
    );
}
