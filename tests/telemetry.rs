//! What happened is told: by operation, in bounded series, and without secrets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use world::{HOST, Plan, SECRET, Service, eventually};

#[test]
fn calls_are_measured_by_operation() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for number in 0..5 {
        assert_eq!(world.get(&format!("/v1/books/{number}")).status, 200);
    }
    assert_eq!(world.get("/v1/books").status, 200);
    assert_eq!(world.get("/v1/admin/stats").status, 401);
    let counted = |operation: &str, number: f64| {
        let label = format!("operation=\"{operation}\"");
        eventually(&format!("{operation} is counted"), || {
            let metrics = world.metrics();
            let mut lines = metrics.lines().filter(|line| {
                line.starts_with("tollgate_") && line.contains("_total{") && line.contains(&label)
            });
            lines.any(|line| line.rsplit(' ').next().and_then(|n| n.parse().ok()) == Some(number))
        });
    };
    counted("getBook", 5.0);
    counted("listBooks", 1.0);
    counted("getStats", 1.0);
    assert!(
        world.metrics().contains("credential_required"),
        "the cause of the denial"
    );
}

#[test]
fn strangers_cannot_create_series() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let ask = |number: usize| {
        let host = format!("host-{number}.test");
        let mut client = world.client();
        let request = format!(
            "M{number} /v1/random-{number} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
        client.send(request.as_bytes());
        client.answer().expect("an answer");
        world.get(&format!("/random-{number}"));
        world.get(&format!("/v1/books/random-{number}"));
    };
    ask(0);
    world.access_log(3);
    let before = world.metrics().lines().count();
    for number in 1..=100 {
        ask(number);
    }
    world.access_log(303);
    let metrics = world.metrics();
    let after = metrics.lines().count();
    assert!(after <= before + 20, "{before} lines became {after}");
    for word in ["random-", "host-", "M50"] {
        assert!(!metrics.contains(word), "{word} in the metrics");
    }
}

#[test]
fn each_request_is_one_line() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.get("/v1/books/1?page=2");
    // Workers write in their own time: the first line is there before the second call is made.
    world.access_log(1);
    world.get("/v1/nothing");
    let lines = world.access_log(2);
    assert_eq!(lines.len(), 2);
    let line = &lines[0];
    assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(line["method"], "GET");
    assert_eq!(line["host"], HOST);
    assert_eq!(line["path"], "/v1/books/1");
    assert_eq!(line["operation"], "getBook");
    assert_eq!(line["status"], 200);
    assert_eq!(line["trace_id"].as_str().map(str::len), Some(32));
    assert!(!line["api"].as_str().unwrap().is_empty());
    assert_eq!(lines[1]["status"], 404);
    assert_eq!(lines[1]["denial"], "unknown_operation");
}

#[test]
fn requests_the_parser_refuses_are_counted_as_well() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world
        .raw(b"GET /v1/books HTTP/1.1\nHost: x\n\n")
        .expect("an answer");
    assert_eq!(answer.status, 400);
    eventually("it is counted", || {
        world.metrics().contains("malformed_request")
    });
}

#[test]
fn secrets_are_told_to_nobody() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let bearer = format!("Bearer {SECRET}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-api-key", SECRET),
        ("cookie", SECRET),
        ("x-own", SECRET),
    ];
    world.ask("GET", &format!("/v1/books?key={SECRET}"), &headers, b"");
    world.ask("POST", "/v1/books/1/reviews", &headers, SECRET.as_bytes());
    world.ask("GET", "/v1/admin/stats", &headers, b"");
    world.access_log(3);
    let log = std::fs::read_to_string(world.file("access.log")).unwrap();
    let places = [
        log,
        world.log(),
        world.metrics(),
        world.admin_get("/config"),
    ];
    for place in places {
        assert!(!place.contains(SECRET), "{place}");
    }
}

#[test]
fn the_admin_port_is_not_for_browsers_of_strangers() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut client = world::Client::connect(world.admin);
    client.send(b"GET /config HTTP/1.1\r\nhost: rebound.evil.test\r\n\r\n");
    let answer = client.answer().expect("an answer");
    assert!((400..500).contains(&answer.status), "{answer:?}");
}
