//! A control plane, gateways and sidecars as processes of their own: policy reaches them, one hop charges, and they go on deciding while
//! the control plane is away, slow, killed or empty.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_gateway::node::{Membership, NodeIdentity, channel};
use tollgate_proto::stream::sent;
use tollgate_proto::wire;
use tollgate_proto::wire::control_client::ControlClient;
use tonic::transport::Channel;
use world::fleet::Fleet;
use world::load::Load;
use world::{Client, Service, eventually};

const BOOKS: &str = "/v1/books";

#[test]
fn a_call_through_gateway_and_sidecar_is_charged_once_and_its_key_goes_no_further() {
    let fleet = Fleet::start("");
    let app = Service::new();
    let sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (_, key) = fleet.key("desk");
    eventually("it is served", || edge.status(BOOKS, &key) == 200);
    let before = app.calls().len();
    for _ in 0..9 {
        assert_eq!(edge.status(BOOKS, &key), 200);
    }
    let calls = app.calls();
    assert_eq!(calls.len() - before, 9);
    for call in &calls {
        assert_eq!(call.header("x-tollgate-consumer"), Some("desk"));
        assert_eq!(call.header("x-tollgate-plan"), Some("all"));
        assert_eq!(call.header("x-api-key"), None);
        assert_eq!(call.header("x-tollgate-admission"), None);
        let from = call.header("x-forwarded-for").unwrap();
        assert!(from.starts_with("127.0.0.1"), "{from}");
        // As the client reached the gateway, not as that reached the sidecar.
        assert_eq!(call.header("x-forwarded-proto"), Some("http"));
    }
    eventually("all of it is billed", || fleet.calls("desk") >= 10);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(fleet.calls("desk"), 10, "and nothing twice");
    let metrics = sidecar.metrics();
    assert!(
        metrics.contains("tollgate_admissions_total{result=\"believed\"} 10"),
        "{metrics}"
    );
    assert!(
        metrics.contains("source=\"gateway/edge\",destination=\"shop\""),
        "{metrics}"
    );
}

#[test]
fn who_is_no_gateway_of_the_installation_admits_nobody() {
    let fleet = Fleet::start("");
    let app = Service::new();
    let sidecar = fleet.sidecar("shop-1", "shop", &app);
    let (_, key) = fleet.key("desk");
    // A key counts at the sidecar as at the edge.
    eventually("the key counts", || sidecar.status(BOOKS, &key) == 200);
    for forged in ["AQ", "", "x", &"A".repeat(4000)] {
        let answer = sidecar.call("GET", BOOKS, &[("x-tollgate-admission", forged)]);
        answer.unwrap().is_problem(401, "credential_required");
    }
    assert_eq!(app.calls().len(), 1);
    assert_eq!(
        sidecar.status(BOOKS, "tg_live_7FDEL8T1cel14i4aXt9adq2wwGoh"),
        401
    );
}

#[test]
fn without_the_control_plane_known_callers_are_served_through_every_restart_and_strangers_are_not()
{
    let mut fleet = Fleet::start("");
    let app = Service::new();
    let mut sidecar = fleet.sidecar("shop-1", "shop", &app);
    let mut edge = fleet.gateway("edge-1");
    let (id, key) = fleet.key("desk");
    let (_, unknown) = fleet.key("web");
    let (_, unlimited) = fleet.key("web");
    let mut served = 0;
    let mut ask = |edge: &world::fleet::Member, path: &str| {
        let status = edge.status(path, &key);
        served += u64::from(status == 200);
        status
    };
    eventually("it is served", || ask(&edge, BOOKS) == 200);
    assert_eq!(edge.status(BOOKS, &unlimited), 200);
    // What is known is on the disk.
    eventually("callers are kept", || edge.state.join("callers").exists());
    eventually("callers are kept", || {
        sidecar.state.join("callers").exists()
    });
    std::thread::sleep(Duration::from_secs(3));
    fleet.control.kill();
    assert_eq!(ask(&edge, BOOKS), 200);
    sidecar.node.start_again();
    sidecar.is_ready();
    eventually("the sidecar is found again", || ask(&edge, BOOKS) == 200);
    edge.node.start_again();
    edge.is_ready();
    eventually(
        "the gateway knows its callers, and where the service is",
        || edge.status(BOOKS, &unlimited) == 200,
    );
    assert_eq!(ask(&edge, BOOKS), 200, "of its emergency share");
    assert_eq!(edge.status(BOOKS, &unknown), 503, "whom nobody knows");
    assert_eq!(edge.status(BOOKS, "nonsense"), 401);
    // Back again: a revocation arrives at once.
    fleet.control.start_again();
    eventually("the control plane answers", || {
        fleet.try_cli(&["keys", "list", "desk"]).0
    });
    eventually("the lane is heard", || {
        edge.metrics().contains("tollgate_control_connected 1")
    });
    eventually("quota is handed out again", || ask(&edge, BOOKS) == 200);
    fleet.cli(&["keys", "revoke", &id]);
    let revoked = Instant::now();
    eventually("it is refused", || ask(&edge, BOOKS) == 401);
    assert!(
        revoked.elapsed() < Duration::from_secs(5),
        "{:?}",
        revoked.elapsed()
    );
    eventually("the other key is known now", || {
        edge.status(BOOKS, &unknown) == 200
    });
    eventually("usage is complete", || fleet.calls("desk") == served);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(fleet.calls("desk"), served, "to the record");
}

#[test]
fn gateways_killed_again_and_again_lose_and_double_no_usage() {
    let fleet = Fleet::start("");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let mut edge = fleet.gateway("edge-1");
    let (_, key) = fleet.key("desk");
    let mut answered = 0;
    for _ in 0..4 {
        eventually("it is served", || {
            let status = edge.status(BOOKS, &key);
            answered += u64::from(status == 200);
            status == 200
        });
        for _ in 0..40 {
            assert_eq!(edge.status(BOOKS, &key), 200);
            answered += 1;
        }
        edge.node.start_again();
        edge.is_ready();
    }
    eventually("usage is complete", || fleet.calls("desk") >= answered);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(fleet.calls("desk"), answered);
}

#[test]
fn a_broken_file_hurts_no_other_api_and_a_good_one_arrives_while_calls_go_on() {
    let fleet = Fleet::start("");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (_, key) = fleet.key("desk");
    eventually("it is served", || edge.status(BOOKS, &key) == 200);
    let other = "spec: ../shop-spec.yaml\nservice: shop\nbase_path: /other\nupstream: service://shop\nsecurity: off\n";
    std::fs::write(fleet.config("apis/other.yaml"), other).unwrap();
    eventually("the second API arrives", || {
        edge.status("/other/books", "") == 200
    });
    // The one is broken, the other changed, in the same moment.
    std::fs::write(fleet.config("apis/other.yaml"), "spec: nowhere.yaml\n").unwrap();
    let public =
        "spec: ../shop-spec.yaml\nservice: shop\nupstream: service://shop\nsecurity: off\n";
    std::fs::write(fleet.config("apis/shop.yaml"), public).unwrap();
    eventually("the change arrives", || edge.status(BOOKS, "") == 200);
    assert_eq!(
        edge.status("/other/books", ""),
        200,
        "what was good is served"
    );
    let bundles = fleet.cli(&["bundles", "list"]);
    assert!(bundles.contains("nowhere.yaml"), "{bundles}");
    let members = fleet.members().to_string();
    assert!(
        members.contains("shop-1") && members.contains("edge-1"),
        "{members}"
    );
}

/// A second API, of a service of its own.
fn publish_orders(fleet: &Fleet) {
    let spec = "openapi: 3.1.0\ninfo: { title: Orders, version: '1' }\npaths: { /orders: { get: { operationId: listOrders, responses: { '200': { description: fine } } } } }\n";
    std::fs::write(fleet.config("orders-spec.yaml"), spec).unwrap();
    let api =
        "spec: ../orders-spec.yaml\nservice: orders\nupstream: service://orders\nsecurity: off\n";
    std::fs::write(fleet.config("apis/orders.yaml"), api).unwrap();
}

#[test]
fn the_app_reaches_other_services_by_name_and_is_known_there() {
    let fleet = Fleet::start("");
    let (shop, orders) = (Service::new(), Service::new());
    let beside_shop = fleet.sidecar("shop-1", "shop", &shop);
    publish_orders(&fleet);
    let beside_orders = fleet.sidecar("orders-1", "orders", &orders);
    eventually("the shop reaches the orders", || {
        let mut client = Client::try_connect(beside_shop.outbound).unwrap();
        client.send(b"GET http://orders/orders HTTP/1.1\r\nhost: orders\r\n\r\n");
        client.answer().is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(orders.calls().last().unwrap().target(), "/orders");
    let known = "source=\"shop\",destination=\"orders\"";
    eventually("the shop is known", || {
        beside_orders.metrics().contains(known)
    });
    let mut client = Client::connect(beside_shop.outbound);
    client.send(b"GET http://example.com/ HTTP/1.1\r\nhost: example.com\r\n\r\n");
    client.answer().unwrap().is_problem(404, "unknown_service");
}

#[test]
fn a_control_plane_that_begins_anew_takes_nothing_from_the_nodes() {
    let mut fleet = Fleet::start("");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (id, revoked) = fleet.key("web");
    let (_, key) = fleet.key("desk");
    eventually("it is served", || edge.status(BOOKS, &key) == 200);
    eventually("it is served", || edge.status(BOOKS, &revoked) == 200);
    fleet.cli(&["keys", "revoke", &id]);
    eventually("it is refused", || edge.status(BOOKS, &revoked) == 401);
    fleet.control.kill();
    // All but who it is, and the keyed hashes' key: the store, with the log and what was published, is gone.
    for entry in std::fs::read_dir(fleet.state("control")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("control.db") || name.starts_with("audit-head") {
            std::fs::remove_file(path).unwrap();
        }
    }
    fleet.control.start_again();
    eventually("the gateway notices", || {
        edge.node.log().contains("began anew")
    });
    for _ in 0..20 {
        let answer = edge.call("GET", BOOKS, &[("x-api-key", &key)]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(edge.status(BOOKS, &revoked), 401);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_control_plane_that_stands_still_holds_up_nobody_who_is_known() {
    let fleet = Fleet::start("");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (_, key) = fleet.key("desk");
    let (_, unknown) = fleet.key("web");
    eventually("it is served", || edge.status(BOOKS, &key) == 200);
    let signal = |name: &str| {
        let id = fleet.control.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([name, &id])
            .status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    for _ in 0..30 {
        let asked = Instant::now();
        assert_eq!(edge.status(BOOKS, &key), 200);
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let asked = Instant::now();
    assert_eq!(edge.status(BOOKS, &unknown), 503);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    eventually("the silence is noticed", || {
        edge.metrics().contains("tollgate_control_connected 0")
    });
    assert_eq!(edge.status(BOOKS, &key), 200);
    signal("-CONT");
    eventually("it is known again", || edge.status(BOOKS, &unknown) == 200);
}

#[test]
fn an_operation_that_must_not_be_stale_is_refused_once_nobody_was_heard_for_too_long() {
    let mut fleet = Fleet::start("operations: { createBook: { stale_ok: 1s } }\n");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (_, key) = fleet.key("web");
    let create = || {
        let answer = edge.call("POST", BOOKS, &[("x-api-key", &key)]);
        answer.map_or(0, |answer| answer.status)
    };
    eventually("it is served", || create() == 200);
    assert_eq!(edge.status(BOOKS, &key), 200);
    fleet.control.kill();
    eventually("what must not be stale is refused", || create() == 503);
    assert_eq!(edge.status(BOOKS, &key), 200);
    fleet.control.start_again();
    eventually("it is served again", || create() == 200);
}

#[test]
fn gateways_that_share_a_limit_never_exceed_it_and_by_a_twentieth_while_nobody_grants() {
    let mut fleet = Fleet::start("");
    let plans = world::fleet::PLANS.replace("amount: 100000", "amount: 200");
    std::fs::write(fleet.config("plans.yaml"), plans).unwrap();
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edges = [fleet.gateway("edge-1"), fleet.gateway("edge-2")];
    let keys = [fleet.key("desk").1, fleet.key("desk").1];
    eventually("the plan is as it was changed", || {
        let answer = edges[0].call("GET", BOOKS, &[("x-api-key", &keys[0])]);
        let policy = answer.filter(|it| it.status == 200);
        policy.is_some_and(|it| it.header("ratelimit-policy").unwrap().contains("q=200;"))
    });
    let exhaust = |key: &str| {
        let mut refused = 0;
        // Refused for longer than a lease lives: nothing is left anywhere.
        while refused < 100 {
            for edge in &edges {
                match edge.status(BOOKS, key) {
                    200 => refused = 0,
                    429 | 503 => refused += 1,
                    other => panic!("{other}"),
                }
            }
            if refused > 0 {
                std::thread::sleep(Duration::from_millis(40));
            }
        }
        app.calls().len()
    };
    fleet.control.kill();
    let without = exhaust(&keys[0]);
    assert!(without <= 210, "{without}");
    fleet.control.start_again();
    eventually("the control plane answers", || {
        fleet.try_cli(&["keys", "list", "desk"]).0
    });
    // The other key was never shown: it is looked up again, and draws from the same limit.
    eventually("both are heard", || {
        let heard =
            |edge: &world::fleet::Member| edge.metrics().contains("tollgate_control_connected 1");
        edges.iter().all(heard)
    });
    let all = exhaust(&keys[1]);
    assert!(all <= 210, "{all}");
    // What a sidecar refused that could not look its caller up was on its way all the same.
    eventually("all of it is billed", || {
        fleet.calls("desk") >= u64::try_from(all).unwrap()
    });
}

#[test]
fn a_control_plane_that_starts_again_and_again_under_load_costs_no_call() {
    let mut fleet = Fleet::start("");
    let apps = [Service::new(), Service::new()];
    let _beside = [
        fleet.sidecar("shop-1", "shop", &apps[0]),
        fleet.sidecar("shop-2", "shop", &apps[1]),
    ];
    let edges = [fleet.gateway("edge-1"), fleet.gateway("edge-2")];
    let (_, key) = fleet.key("web");
    for edge in &edges {
        eventually("it is served", || edge.status(BOOKS, &key) == 200);
    }
    let loads = edges
        .each_ref()
        .map(|edge| Load::keyed(edge.address, BOOKS, &key));
    for _ in 0..4 {
        fleet.control.start_again();
        eventually("all are back", || {
            let (known, nodes, _) = fleet.try_cli(&["nodes", "--json"]);
            let back = |name| nodes.contains(name);
            known
                && ["shop-1", "shop-2", "edge-1", "edge-2"]
                    .into_iter()
                    .all(back)
        });
        loads.iter().for_each(Load::goes_on);
    }
    loads.into_iter().for_each(Load::lost_nothing);
}

#[test]
fn two_thousand_callers_seen_for_the_first_time_are_asked_for_in_few_frames() {
    const CALLERS: usize = 2000;
    // As many as a source may have looked up at once, less a few.
    const CLIENTS: usize = 32;
    let fleet = Fleet::start("");
    let secret = |number: usize| format!("a-key-from-elsewhere-{number:05}");
    let keys = (0..CALLERS).map(|number| {
        let path = fleet.state(&format!("secret-{number}"));
        std::fs::write(&path, secret(number)).unwrap();
        format!("{{ name: k{number}, secret: \"file:{}\" }}", path.display())
    });
    let keys = keys.collect::<Vec<_>>().join(", ");
    let known = "desk: { subscriptions: { shop: all }";
    let consumers = world::fleet::CONSUMERS.replace(known, &format!("{known}, keys: [{keys}]"));
    std::fs::write(fleet.config("consumers.yaml"), consumers).unwrap();
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    eventually("the keys count", || edge.status(BOOKS, &secret(0)) == 200);
    let frames = || {
        let metrics = edge.metrics();
        let line = metrics
            .lines()
            .find_map(|it| it.strip_prefix("tollgate_control_frames_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    let is_late = |why: &str| {
        ["saturated", "policy_unavailable"]
            .iter()
            .any(|it| why.contains(it))
    };
    let (before, begun) = (frames(), Instant::now());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (edge, secret, is_late) = (&edge, &secret, &is_late);
            scope.spawn(move || {
                let mut numbers = (1..CALLERS).filter(|number| number % CLIENTS == client);
                let mut next = numbers.next();
                while let Some(number) = next {
                    let key = secret(number);
                    let answer = edge.call("GET", BOOKS, &[("x-api-key", &key)]).unwrap();
                    match answer.status {
                        200 => next = numbers.next(),
                        // A machine that is busy with other tests: it is asked for once more.
                        503 if is_late(&answer.text()) => {}
                        other => panic!("{number}: {other} {}", answer.text()),
                    }
                }
            });
        }
    });
    let (frames, took) = (frames() - before, begun.elapsed().as_secs_f64());
    println!("{frames} frames in {took:.2} s");
    // Three may go at once after a rest. Frames full of usage come on top: here those of two thousand calls.
    assert!(frames <= 20.0 * took + 3.0 + 3.0, "{frames} in {took} s");
}

#[test]
fn an_emergency_share_lasts_over_restarts_and_is_spent_once() {
    let mut fleet = Fleet::start("");
    let plans = world::fleet::PLANS.replace("amount: 100000", "amount: 200");
    std::fs::write(fleet.config("plans.yaml"), plans).unwrap();
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let mut edge = fleet.gateway("edge-1");
    let keys = [fleet.key("desk").1, fleet.key("desk").1];
    let (_, unlimited) = fleet.key("web");
    for key in [&keys[0], &unlimited] {
        eventually("it is served", || edge.status(BOOKS, key) == 200);
    }
    eventually("both callers are kept", || {
        let kept = std::fs::read(edge.state.join("callers")).unwrap_or_default();
        let kept = String::from_utf8_lossy(&kept);
        kept.contains("desk") && kept.contains("web")
    });
    let file = edge.state.join("shares");
    eventually("the share is kept", || {
        edge.status(BOOKS, &keys[0]);
        let kept = std::fs::read(&file).unwrap_or_default();
        String::from_utf8_lossy(&kept).contains("\"credit\":10,")
    });
    let restart = |edge: &mut world::fleet::Member| {
        edge.node.start_again();
        edge.is_ready();
        eventually("the service is found", || {
            edge.status(BOOKS, &unlimited) == 200
        });
    };
    // Until nothing is had for longer than leases live; how much there was.
    let exhaust = |edge: &world::fleet::Member, key: &str| {
        let (mut served, mut refused) = (0, 0);
        while refused < 80 {
            match edge.status(BOOKS, key) {
                200 => (served, refused) = (served + 1, 0),
                429 | 503 => refused += 1,
                other => panic!("{other}"),
            }
            if refused > 0 {
                std::thread::sleep(Duration::from_millis(40));
            }
        }
        served
    };
    let limited = |edge: &world::fleet::Member| {
        let answer = edge.call("GET", BOOKS, &[("x-api-key", &keys[0])]).unwrap();
        answer.is_problem(503, "quota_unavailable");
    };
    fleet.control.kill();
    restart(&mut edge);
    assert_eq!(edge.status(BOOKS, &keys[0]), 200, "of its share");
    // A part was drawn, and one call of it made.
    restart(&mut edge);
    let more = exhaust(&edge, &keys[0]);
    assert!((7..=9).contains(&more), "{more}");
    limited(&edge);
    restart(&mut edge);
    assert_eq!(exhaust(&edge, &keys[0]), 0, "it was spent");
    limited(&edge);
    fleet.control.start_again();
    eventually("quota is handed out again", || {
        edge.status(BOOKS, &keys[0]) == 200
    });
    // In the same window neither contact nor a restart brings another.
    fleet.control.kill();
    exhaust(&edge, &keys[0]);
    limited(&edge);
    fleet.control.start_again();
    eventually("the control plane answers", || {
        fleet.try_cli(&["keys", "list", "desk"]).0
    });
    eventually("the other key counts", || {
        matches!(edge.status(BOOKS, &keys[1]), 200 | 429)
    });
    exhaust(&edge, &keys[1]);
    let calls = app.calls();
    let by_desk = |call: &&world::Call| call.header("x-tollgate-consumer") == Some("desk");
    let served = calls.iter().filter(by_desk).count();
    assert!(served <= 210, "{served}");
    // What a sidecar refused that could not look its caller up was on its way all the same.
    let billed = || usize::try_from(fleet.calls("desk")).unwrap();
    eventually("all of it is billed", || billed() >= served);
    std::thread::sleep(Duration::from_millis(600));
    assert!(billed() <= 210, "{}", billed());
}

/// Asks as a node, with its certificate.
fn speaking_as(member: &world::fleet::Member) -> ControlClient<Channel> {
    let membership = Membership::load(&member.state).unwrap().unwrap();
    let identity = NodeIdentity::none();
    identity.replace(membership.held().unwrap());
    ControlClient::new(channel(&membership.control, Arc::clone(&identity)).unwrap())
}

/// One message on a stream of a node; what the control plane says to it.
async fn say<Up, Down>(
    message: Up,
    open: impl AsyncFnOnce(
        tollgate_proto::stream::Sent<Up>,
    ) -> Result<tonic::Response<tonic::Streaming<Down>>, tonic::Status>,
) -> Result<Down, tonic::Status> {
    let (to, from) = sent(1);
    to.try_send(message).ok().unwrap();
    let mut answers = open(from).await?.into_inner();
    answers.message().await.map(|answer| answer.unwrap())
}

#[tokio::test]
async fn a_node_speaks_for_no_other() {
    let fleet = Fleet::start("");
    let (shop, orders) = (Service::new(), Service::new());
    publish_orders(&fleet);
    let _beside_shop = fleet.sidecar("shop-1", "shop", &shop);
    let beside_orders = fleet.sidecar("orders-1", "orders", &orders);
    let edge = fleet.gateway("edge-1");
    let (mut gateway, mut node) = (speaking_as(&edge), speaking_as(&beside_orders));
    // Usage of another.
    let batch = |of: &str| wire::UsageBatch {
        run: vec![7; 16],
        shard: 0,
        first: 0,
        records: Vec::new(),
        closing: false,
        node: of.to_owned(),
    };
    let receipt = say(batch("edge-1"), async |from| node.report(from).await).await;
    let receipt = receipt.unwrap();
    assert_eq!(receipt.next, None);
    let why = "the node `edge-1` is spiffe://tollgate.internal/gateway/edge";
    assert!(receipt.refused.contains(why), "{}", receipt.refused);
    let own = say(batch("orders-1"), async |from| node.report(from).await).await;
    assert_eq!(own.unwrap().refused, "");
    // Leases of another.
    let asks = || wire::LeasesRequest {
        number: 1,
        holder: 7,
        asks: Vec::new(),
    };
    let granted = say(asks(), async |from| gateway.leases(from).await).await;
    assert_eq!(granted.unwrap().refused, "");
    let refused = say(asks(), async |from| node.leases(from).await).await;
    let why = refused.unwrap().refused;
    assert!(why.contains("held by another node"), "{why}");
    // The name of another.
    let described = |name: &str, verdict| wire::PolicyReport {
        node: Some(wire::NodeDescription {
            node: name.to_owned(),
            version: "1".to_owned(),
            run: "r".to_owned(),
        }),
        verdict,
        ..wire::PolicyReport::default()
    };
    let refused = say(described("edge-1", None), async |from| {
        node.watch_policy(from).await
    })
    .await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(status.message().contains("`edge-1`"), "{status}");
    // What became of a bundle that is none of its own.
    let (to, from) = sent(2);
    let died = wire::Verdict {
        kind: wire::verdict::Kind::RolledBack.into(),
        api: "shop".to_owned(),
        generation: 1,
        reason: "it died".to_owned(),
    };
    to.try_send(described("orders-1", None)).unwrap();
    to.try_send(wire::PolicyReport {
        verdict: Some(died),
        ..wire::PolicyReport::default()
    })
    .unwrap();
    let _events = node.watch_policy(from).await.unwrap();
    eventually("it is refused", || {
        let log = fleet.control.log();
        log.contains("of API `shop`, which is none of spiffe://tollgate.internal/service/orders")
    });
    let bundles = fleet.cli(&["bundles", "list"]);
    assert!(!bundles.contains("quarantined"), "{bundles}");
}
