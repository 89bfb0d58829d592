//! Whatever ends a gateway, calls in flight are finished, and a successor takes over without a gap.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use world::load::Load;
use world::service::ok;
use world::{Client, PATIENCE, Plan, Service, eventually};

/// A service that answers when told to.
fn gated() -> (Service, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let service = Service::answering(move |_, stream| {
        let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
        ok(stream, "late")
    });
    (service, open)
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    let (service, open) = gated();
    let mut world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/books", &[], b"");
    service.has_calls(1);
    world.signal("TERM");
    eventually("no new connection is accepted", || {
        Client::try_connect(world.address).is_none()
    });
    assert!(!world.has_ended());
    open.send(()).unwrap();
    let answer = client.answer().expect("the answer in flight");
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    let said = answer
        .header("connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    assert!(said.contains("close"), "{answer:?}");
    assert!(world.ended().success());
    assert_eq!(world.access_log(1).len(), 1, "the log was flushed");
}

#[test]
fn sigterm_ends_at_once_where_nothing_is_in_flight() {
    let service = Service::new();
    let mut world = Plan::bookstore(&service).start();
    let mut idle = world.client();
    idle.request("GET", "/v1/books", &[], b"");
    assert_eq!(idle.answer().unwrap().status, 200);
    let begun = Instant::now();
    world.signal("TERM");
    assert!(world.ended().success());
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert!(idle.is_closed());
}

#[test]
fn a_second_sigterm_ends_now() {
    let (service, _open) = gated();
    let mut world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/books", &[], b"");
    service.has_calls(1);
    world.signal("TERM");
    eventually("it drains", || Client::try_connect(world.address).is_none());
    let begun = Instant::now();
    world.signal("TERM");
    world.ended();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_second_instance_fails_with_one_clear_line() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let said = world.rival(Plan::bookstore(&service));
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    let clear = ["already", "another", "lock"]
        .iter()
        .any(|word| said.contains(word));
    assert!(clear, "{said}");
    assert_eq!(world.get("/v1/books").status, 200, "the first is unharmed");
}

#[test]
fn a_second_instance_with_all_ports_the_same_names_the_first() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let rival = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("gateway")
        .arg("--spec")
        .arg(world::bookstore())
        .args(["--upstream", &service.url()])
        .args(["--listen", &world.address.to_string()])
        .args(["--admin", &world.admin.to_string()])
        .args(["--control-api", &world.control.to_string()])
        .arg("--state-dir")
        .arg(world.file("state"))
        .output()
        .unwrap();
    assert!(!rival.status.success());
    let said = String::from_utf8(rival.stderr).unwrap();
    assert!(said.contains("is already served by process"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
}

#[test]
fn hand_overs_under_load_lose_nothing() {
    let service = Service::new();
    let mut world = Plan::bookstore(&service).start();
    // Its directory has to outlive the first gateway.
    let load = Load::on(world.address, "/v1/books");
    let kept = Load::kept(world.address, "/v1/books");
    let mut retired = Vec::new();
    for _ in 0..20 {
        let successor = world.successor(Plan::bookstore(&service));
        assert_eq!(successor.address, world.address);
        load.goes_on();
        kept.goes_on();
        assert!(
            world.ended().success(),
            "the old one drained: {}",
            world.log()
        );
        retired.push(std::mem::replace(&mut world, successor));
    }
    load.lost_nothing();
    kept.lost_nothing();
    assert_eq!(world.get("/v1/books").status, 200);
}

#[test]
fn a_call_in_flight_survives_the_hand_over() {
    let (service, open) = gated();
    let mut world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/books", &[], b"");
    service.has_calls(1);
    let successor = world.successor(Plan::bookstore(&service));
    open.send(()).unwrap();
    assert_eq!(
        client.answer().expect("the answer in flight").text(),
        "late"
    );
    assert!(world.ended().success());
    open.send(()).unwrap();
    assert_eq!(successor.get("/v1/books").text(), "late");
}
