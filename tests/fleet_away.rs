//! A gateway that admitted a call and a sidecar that cannot look its caller up: what the gateway's word is worth, and who pays for what
//! the sidecar turned away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::Write as _;
use std::time::{Duration, Instant};

use world::fleet::{Fleet, Member};
use world::{Service, Then, eventually};

const BOOKS: &str = "/v1/books";

/// A key of `web` that the gateway has looked up and the sidecar has not; then the control plane dies.
fn met_by_the_gateway_alone(fleet: &mut Fleet, edge: &Member) -> String {
    let (_, other) = fleet.key("desk");
    let (_, key) = fleet.key("web");
    eventually("it is served", || edge.status(BOOKS, &other) == 200);
    eventually("the gateway knows the caller", || {
        edge.status("/v1/.tollgate/quota", &key) == 200
    });
    fleet.control.kill();
    key
}

/// An app that says of every call that it never saw it.
fn forging() -> Service {
    Service::answering(|_, stream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nx-tollgate-unsent: 1\r\ncontent-length: 2\r\n\r\nok");
        Then::Continue
    })
}

#[test]
fn what_a_sidecar_turns_away_costs_nothing_and_an_app_cannot_say_so() {
    let mut fleet = Fleet::start("");
    let app = forging();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let key = met_by_the_gateway_alone(&mut fleet, &edge);
    let before = app.calls().len();
    for _ in 0..3 {
        let refused = edge.call("GET", BOOKS, &[("x-api-key", &key)]).unwrap();
        refused.is_problem(503, "policy_unavailable");
        assert_eq!(refused.header("x-tollgate-unsent"), None);
    }
    assert_eq!(app.calls().len(), before, "the app saw none of them");
    fleet.control.start_again();
    let mut served = 0;
    eventually("it is served again", || {
        let answer = edge.call("GET", BOOKS, &[("x-api-key", &key)]);
        let answer = answer.filter(|answer| answer.status == 200);
        served += u64::from(answer.is_some());
        answer.is_some_and(|answer| answer.header("x-tollgate-unsent").is_none())
    });
    eventually("what was served is billed", || {
        fleet.try_cli(&["keys", "list", "web"]).0 && fleet.calls("web") >= served
    });
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(fleet.calls("web"), served, "and nothing else");
}

#[test]
fn a_gateways_word_suffices_while_nobody_can_be_asked_where_the_api_says_so() {
    let mut fleet = Fleet::start(
        "defaults: { on_unavailable: degraded }\noperations: { createBook: { on_unavailable: fail_closed } }\n",
    );
    let app = Service::new();
    let sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let key = met_by_the_gateway_alone(&mut fleet, &edge);
    assert_eq!(edge.status(BOOKS, &key), 200);
    let seen = app.calls().pop().unwrap();
    assert_eq!(seen.header("x-tollgate-consumer"), Some("web"));
    assert_eq!(seen.header("x-tollgate-plan"), Some("free"));
    let metrics = sidecar.metrics();
    assert!(
        metrics.contains("tollgate_admissions_on_word_total 1"),
        "{metrics}"
    );
    eventually("the record says so", || {
        let log = std::fs::read_to_string(fleet.state("shop-1.log")).unwrap_or_default();
        log.lines()
            .any(|line| line.contains("on the gateway's word") && line.contains("\"web\""))
    });
    let closed = edge.call("POST", BOOKS, &[("x-api-key", &key)]).unwrap();
    closed.is_problem(503, "policy_unavailable");
    // Without a gateway's word it is a stranger's key.
    assert_eq!(sidecar.status(BOOKS, &key), 503);
}

#[test]
fn each_window_that_begins_while_nobody_grants_brings_a_twentieth() {
    let mut fleet = Fleet::start("");
    let limits =
        "amount: 200, window: 2s, burst: 400 }, { name: monthly, amount: 1000000, window: month";
    let plans = world::fleet::PLANS.replace("amount: 100000, window: 1d", limits);
    std::fs::write(fleet.config("plans.yaml"), plans).unwrap();
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (_, key) = fleet.key("desk");
    eventually("it is served", || edge.status(BOOKS, &key) == 200);
    fleet.control.kill();
    let begun = Instant::now();
    // What leases hold is over after a moment, however fast it is asked for.
    let settled = Duration::from_secs(3);
    let mut served = 0;
    while begun.elapsed() < settled + Duration::from_secs(8) {
        match edge.status(BOOKS, &key) {
            200 if begun.elapsed() > settled => served += 1,
            200 | 429 | 503 => {}
            other => panic!("{other}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Ten of two hundred in each of four windows, and one begun.
    assert!((20..=50).contains(&served), "{served}");
}

#[test]
fn the_control_plane_tells_a_webhook_of_its_own() {
    let mut fleet = Fleet::start("");
    let (app, hook) = (Service::new(), Service::new());
    let settings = format!("quota: {{ webhook: \"{}/alerts\" }}\n", hook.url());
    std::fs::write(fleet.config("tollgate.yaml"), settings).unwrap();
    let plans = world::fleet::PLANS.replace("amount: 100000", "amount: 10");
    std::fs::write(fleet.config("plans.yaml"), plans).unwrap();
    fleet.control.start_again();
    fleet.control.address("nodes connect to ");
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (_, key) = fleet.key("desk");
    eventually("the limit is used up", || edge.status(BOOKS, &key) == 429);
    hook.has_calls(3);
    let percents = hook.calls().into_iter().map(|call| {
        let event: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        event["data"]["percent"].as_u64().unwrap()
    });
    assert_eq!(percents.collect::<Vec<_>>(), [50, 80, 100]);
}
