//! A service that is away, slow or out of its mind costs its own calls, within limits, and nobody else anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::Write as _;
use std::time::{Duration, Instant};

use world::service::ok;
use world::{Broken, Plan, Service, Then};

/// An API with short limits.
const IMPATIENT: &str = "
openapi: 3.1.0
info: { title: Impatient, version: '1' }
x-tollgate:
  timeouts: { first_byte: 300ms, idle: 300ms }
  retries: 0
paths:
  /slow:
    get: { operationId: slow, responses: { '200': { description: fine } } }
    post: { operationId: slowPost, responses: { '200': { description: fine } } }
";

#[test]
fn a_service_that_is_down_is_answered_502() {
    let world = Plan::before(&Service::nowhere()).start();
    for _ in 0..3 {
        let answer = world.get("/v1/books");
        assert!([502, 503].contains(&answer.status), "{answer:?}");
        let kind = answer.json()["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            kind.ends_with("upstream_failed") || kind.ends_with("no_endpoint"),
            "{kind}"
        );
    }
}

#[test]
fn a_reset_is_answered_502() {
    let service = Service::resetting();
    let world = Plan::bookstore(&service).start();
    world.get("/v1/books").is_problem(502, "upstream_failed");
    let answer = world.ask("POST", "/v1/books/1/reviews", &[], b"{}");
    answer.is_problem(502, "upstream_failed");
}

#[test]
fn a_service_that_closes_without_an_answer_is_answered_502() {
    let service = Service::saying(b"", Then::Close);
    let world = Plan::bookstore(&service).start();
    world.get("/v1/books").is_problem(502, "upstream_failed");
}

#[test]
fn a_call_that_may_have_taken_effect_is_not_repeated() {
    let service = Service::saying(b"", Then::Close);
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("POST", "/v1/books/1/reviews", &[], b"{}");
    answer.is_problem(502, "upstream_failed");
    assert_eq!(service.calls().len(), 1);
}

#[test]
fn a_kept_connection_the_service_closed_costs_no_call() {
    let service = Service::answering(|_, stream| {
        ok(stream, "ok");
        Then::Close
    });
    let world = Plan::bookstore(&service).start();
    for number in 0..20 {
        assert_eq!(world.get(&format!("/v1/books/{number}")).status, 200);
    }
}

#[test]
fn a_stalled_service_is_answered_504() {
    let service = Service::stalling();
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    let begun = Instant::now();
    world.get("/slow").is_problem(504, "upstream_timeout");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_service_that_stalls_after_reading_is_answered_504() {
    let service = Service::saying(b"", Then::Hold);
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    world
        .ask("POST", "/slow", &[], b"hello")
        .is_problem(504, "upstream_timeout");
    assert_eq!(service.calls().len(), 1, "not repeated");
}

#[test]
fn half_a_head_is_answered_504() {
    let service = Service::saying(b"HTTP/1.1 200 OK\r\ncontent-le", Then::Hold);
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    let answer = world.get("/slow");
    assert!([502, 504].contains(&answer.status), "{answer:?}");
}

#[test]
fn garbage_is_answered_502() {
    let garbage: [&'static [u8]; 4] = [
        b"\x00\x01\x02 this is no HTTP\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
    ];
    for bytes in garbage {
        let service = Service::saying(bytes, Then::Close);
        let world = Plan::bookstore(&service).start();
        let answer = world.get("/v1/books");
        assert_eq!(
            answer.status,
            502,
            "{:?}: {answer:?}",
            String::from_utf8_lossy(bytes)
        );
        assert!(
            !answer.text().contains("OpenSSH"),
            "nothing of it is passed on"
        );
    }
}

#[test]
fn a_truncated_body_never_ends_cleanly() {
    let torn: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    ];
    for bytes in torn {
        let service = Service::saying(bytes, Then::Close);
        let world = Plan::bookstore(&service).start();
        let mut client = world.client();
        client.request("GET", "/v1/books", &[], b"");
        match client.answer() {
            Err(Broken::Torn(_) | Broken::NoHead(_)) => (),
            Ok(answer) => assert_eq!(answer.status, 502, "{answer:?}"),
        }
    }
}

#[test]
fn a_body_that_stops_is_given_up() {
    let service = Service::saying(
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        Then::Hold,
    );
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    let mut client = world.client();
    client.request("GET", "/slow", &[], b"");
    let begun = Instant::now();
    assert!(
        matches!(client.answer(), Err(Broken::Torn(_))),
        "it never was complete"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn more_than_was_announced_is_nobodys_answer() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\
              content-length: 4\r\n\r\nevil",
        );
        Then::Continue
    });
    let world = Plan::bookstore(&service).start();
    for number in 0..10 {
        let answer = world.get(&format!("/v1/books/{number}"));
        assert!(answer.status == 502 || answer.text() == "ok", "{answer:?}");
    }
}

#[test]
fn answers_are_never_mixed_up() {
    let service = Service::answering(|call, stream| ok(stream, call.target()));
    let world = Plan::bookstore(&service).start();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let world = &world;
            scope.spawn(move || {
                let mut client = world.client();
                for number in 0..200 {
                    let path = format!("/v1/books/{thread}-{number}");
                    client.request("GET", &path, &[], b"");
                    assert_eq!(client.answer().unwrap().text(), path);
                }
            });
        }
    });
}

#[test]
fn a_client_that_goes_away_harms_nobody() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for _ in 0..50 {
        let mut client = world.client();
        client.send(b"PUT /v1/uploads/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf");
        drop(client);
        let mut client = world.client();
        client.request("GET", "/v1/books", &[], b"");
        drop(client);
    }
    assert_eq!(world.get("/v1/books").status, 200);
    assert!(
        service.calls().iter().all(|call| call.method() != "PUT"),
        "none came whole"
    );
}

#[test]
fn an_early_answer_reaches_the_client() {
    let service = Service::new();
    service.now(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        Then::Close
    });
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("POST", "/v1/books/1/reviews", &[], b"{}");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[test]
fn errors_of_the_service_are_its_own() {
    let service = Service::saying(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nretry-after: 7\r\n\r\nbusy",
        Then::Continue,
    );
    let world = Plan::bookstore(&service).start();
    let answer = world.get("/v1/books");
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    assert_eq!(answer.header("retry-after"), Some("7"));
}
