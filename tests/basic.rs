//! Users with passwords: verified by Argon2id away from the request threads, so that guessing neither succeeds nor stops the others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod issuer;
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use issuer::{Gateway, Setting, basic};
use tollgate_policy::credentials::basic::hash_password;
use world::Service;

const SPEC: &str = r#"{
  "openapi": "3.1.0",
  "info": {"title": "Books", "version": "1"},
  "paths": {
    "/public": {"get": {"operationId": "public", "security": [], "responses": {"200": {"description": "ok"}}}},
    "/plain": {"get": {"operationId": "plain", "security": [{"user": []}], "responses": {"200": {"description": "ok"}}}}
  },
  "components": {"securitySchemes": {"user": {"type": "http", "scheme": "basic"}}}
}"#;

const CONSUMERS: &str = "organisations:\n  shops:\n    projects:\n      web:\n        consumers:\n          one:\n            \
    users:\n              - {name: ann, password_hash: 'file:hash-ann'}\n              - {name: bob, password_hash: 'file:hash-bob'}\n";

fn start(service: &Service) -> Gateway {
    let hash = |password, salt| hash_password(password, [salt; 16]).unwrap();
    let (ann, bob) = (hash("correct horse", 1), hash("battery: staple", 2));
    let setting = Setting {
        spec: SPEC,
        api: "auth: {subscription: off}\n",
        consumers: CONSUMERS,
    };
    setting.start_with(
        service,
        &[("hash-ann", ann.reveal()), ("hash-bob", bob.reveal())],
    )
}

fn show(gateway: &Gateway, user: &str, password: &str) -> world::Answer {
    gateway.get("/plain", &[("authorization", &basic(user, password))])
}

#[test]
fn the_right_password_passes_and_no_other_does() {
    let service = Service::new();
    let gateway = start(&service);
    for (user, password, expected) in [
        ("ann", "correct horse", 200),
        ("ann", "correct horse", 200),
        ("bob", "battery: staple", 200),
        ("ann", "battery: staple", 401),
        ("ann", "correct horse ", 401),
        ("ann", "", 401),
        ("Ann", "correct horse", 401),
        ("carol", "correct horse", 401),
        ("", "", 401),
        ("ann", "correct horse", 200),
    ] {
        let answer = show(&gateway, user, password);
        assert_eq!(answer.status, expected, "{user}:{password}: {answer:?}");
        if expected == 401 {
            answer.is_problem(401, "credential_invalid");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Basic"), "{challenge}");
        }
    }
    gateway
        .get("/plain", &[])
        .is_problem(401, "credential_required");
    let call = service.last();
    assert_eq!(call.header("authorization"), None);
    assert_eq!(call.header("x-tollgate-consumer"), Some("one"));
    let log = std::fs::read_to_string(gateway.world.file("access.log")).unwrap();
    assert!(!(log + &gateway.world.log()).contains("correct horse"));
}

#[test]
fn odd_credentials_are_refused() {
    let service = Service::new();
    let gateway = start(&service);
    for shown in [
        "Basic",
        "Basic ",
        "Basic %%%",
        "Basic YW5u",
        "Basic YW5uOmNvcnJlY3QgaG9yc2U",
        "Bearer YW5uOmI=",
    ] {
        let answer = gateway.get("/plain", &[("authorization", shown)]);
        assert_eq!(answer.status, 401, "{shown}: {answer:?}");
    }
    let right = basic("ann", "correct horse");
    let twice = [("authorization", &*right), ("authorization", &*right)];
    assert_eq!(gateway.get("/plain", &twice).status, 401);
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn many_wrong_passwords_stop_nobody_else() {
    let service = Service::new();
    let gateway = start(&service);
    assert_eq!(show(&gateway, "ann", "correct horse").status, 200);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for guesser in 0..8 {
            let (gateway, over) = (&gateway, &over);
            scope.spawn(move || {
                for number in 0..20 {
                    let user = if number % 2 == 0 { "ann" } else { "nobody" };
                    let answer = show(gateway, user, &format!("guess-{guesser}-{number}"));
                    assert!(matches!(answer.status, 401 | 429 | 503), "{answer:?}");
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let begun = Instant::now();
            assert_eq!(gateway.get("/public", &[]).status, 200);
            assert_eq!(show(&gateway, "ann", "correct horse").status, 200);
            slowest = slowest.max(begun.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    });
}

#[test]
fn a_wrong_password_stays_wrong_and_the_right_one_right() {
    let service = Service::new();
    let gateway = start(&service);
    for _ in 0..20 {
        show(&gateway, "ann", "guess").is_problem(401, "credential_invalid");
        show(&gateway, "nobody", "guess").is_problem(401, "credential_invalid");
    }
    assert_eq!(show(&gateway, "ann", "correct horse").status, 200);
    assert_eq!(service.calls().len(), 1);
}
