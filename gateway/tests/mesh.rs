//! What an upstream that is a service of the installation promises: its instances are followed, mutual TLS tells who they are, and a
//! certificate is exchanged while calls go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod installation;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use installation::{Authority, Instance, Plane, Setup, eventually, get, post, print, service_id};
use tollgate_policy::settings::ServiceInstance;

/// Ways to the service: the short one, and the pump.
async fn both_ways(plane: &Plane, path: &str) -> [installation::Answer; 2] {
    [
        get(plane.inbound, path, "localhost").await,
        post(plane.inbound, path, "localhost", "hello").await,
    ]
}

async fn served(plane: &Plane, path: &str) {
    let what = format!("{path} is served");
    eventually(&what, async || plane.get(path).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_who_they_are_and_a_wrong_one_is_refused_by_name() {
    let authority = Authority::new();
    let plane = Setup::new()
        .api("orders", "service://orders")
        .api("streams", "service+grpc://orders")
        .api("rogue", "service://rogue")
        .start()
        .await;
    let ours = authority.issue(&"spiffe://shop.example/gateway/edge".parse().unwrap());
    let shown = print(&ours.chain[0]);
    let orders = Instance::of("orders", &authority.issue(&service_id("orders"))).await;
    let mut rogue = Instance::of("rogue", &authority.issue(&service_id("billing"))).await;
    rogue.id = Some(service_id("rogue"));
    plane.locate("orders", &[&orders]);
    plane.locate("rogue", &[&rogue]);

    // Without an identity nobody is reached, least of all in cleartext.
    let answer = plane.get("/orders/hello").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("no_endpoint"));

    plane.identity.replace(ours);
    served(&plane, "/orders/hello").await;
    for path in ["/orders/hello", "/streams/hello"] {
        for answer in both_ways(&plane, path).await {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(
                answer.body.contains(&format!("orders {shown}")),
                "{answer:?}"
            );
        }
    }
    for answer in both_ways(&plane, "/rogue/hello").await {
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.body.contains("upstream_failed"));
    }
    assert_eq!(rogue.calls(), 0);
    eventually("the records say why", async || {
        let records = plane.records();
        let refused: Vec<_> = records.iter().filter(|it| it["api"] == "rogue").collect();
        let told = |it: &&serde_json::Value| {
            it["upstream"] == format!("rogue@{}", rogue.address)
                && it["attempts"].as_u64().is_some_and(|tried| tried <= 2)
                && it["reason"]
                    .as_str()
                    .is_some_and(|why| why.contains("rogue.service.shop.example"))
        };
        refused.len() == 2 && refused.iter().all(told)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_exchanged_while_calls_go_on() {
    let authority = Authority::new();
    let plane = Setup::new()
        .api("orders", "service://orders")
        .api("streams", "service+h2://orders")
        .start()
        .await;
    let edge = "spiffe://shop.example/gateway/edge".parse().unwrap();
    let orders = Instance::of("orders", &authority.issue(&service_id("orders"))).await;
    plane.locate("orders", &[&orders]);
    plane.identity.replace(authority.issue(&edge));
    served(&plane, "/orders/hello").await;
    for _ in 0..3 {
        let new = authority.issue(&edge);
        let shown = print(&new.chain[0]);
        plane.identity.replace(new);
        for path in ["/orders/hello", "/streams/hello"] {
            eventually("the new certificate is shown", async || {
                let answers = both_ways(&plane, path).await;
                assert!(answers.iter().all(|it| it.status == 200), "{answers:?}");
                answers.iter().all(|it| it.body.contains(&shown))
            })
            .await;
            // No connection of the old one is used again.
            for answer in both_ways(&plane, path).await {
                assert!(answer.body.contains(&shown), "{answer:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_come_and_go_and_no_call_is_lost() {
    let plane = Arc::new(Setup::new().api("orders", "service://orders").start().await);
    let (first, second) = (
        Instance::plain("first").await,
        Instance::plain("second").await,
    );
    assert_eq!(plane.get("/orders/hello").await.status, 503);
    plane.locate("orders", &[&first]);
    served(&plane, "/orders/hello").await;

    let (over, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (plane, over, failed) = (plane.clone(), over.clone(), failed.clone());
            tokio::spawn(async move {
                while !over.load(SeqCst) {
                    let answers = both_ways(&plane, "/orders/hello").await;
                    failed.fetch_add(answers.iter().filter(|it| it.status != 200).count(), SeqCst);
                }
            })
        })
        .collect();
    let slow = tokio::spawn({
        let plane = plane.clone();
        async move { plane.get("/orders/slow").await }
    });
    first.slow().await;
    for round in 0..10 {
        let new: Vec<&Instance> = match round % 4 {
            0 => vec![&first, &second],
            1 => vec![&second],
            2 => vec![&second, &first],
            _ => vec![&first],
        };
        plane.locate("orders", &new);
        let newest = if round % 4 < 2 { &second } else { &first };
        let before = newest.calls();
        eventually("it is called", async || newest.calls() > before).await;
    }
    plane.locate("orders", &[&second]);
    eventually("only the second is called", async || {
        let before = (first.calls(), second.calls());
        for _ in 0..10 {
            plane.get("/orders/hello").await;
        }
        first.calls() == before.0 && second.calls() > before.1
    })
    .await;
    // Gone from the list, it still answers the call that it had.
    first.go();
    let answer = slow.await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "first -"));
    over.store(true, SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(failed.load(SeqCst), 0);

    plane.locate("orders", &[]);
    eventually("nobody is left", async || {
        let answer = plane.get("/orders/hello").await;
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        answer.status == 503
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_says_of_a_service_holds() {
    let (ours, theirs) = (
        Instance::plain("ours").await,
        Instance::plain("theirs").await,
    );
    let mut setup = Setup::new().api("orders", "{ url: 'service://orders', retries: 0 }");
    let fixed = ServiceInstance {
        address: ours.address,
        id: None,
    };
    setup.process.services.insert("orders".into(), vec![fixed]);
    let plane = setup.start().await;
    plane.locate("orders", &[&theirs]);
    let answer = plane.get("/orders/hello").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ours -"));
    assert_eq!(theirs.connections(), 0);
}
