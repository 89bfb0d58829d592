//! Limits of plans, and what single consumers are granted beside them: over real sockets, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tollgate_policy::credentials::key::Pepper;
use tollgate_policy::directory::{CredentialRef, Defined};
use tollgate_policy::quota::Limit;
use tollgate_policy::settings::{stored_limits, stored_override};
use tollgate_policy::time::Timestamp;
use tollgate_proto::Announcement;
use world::{DEADLINE, PEPPER, World, files};

const OVERRIDE: &str = "/v1/consumers/shop/overrides/basic/calls";

/// A plan with two limits, a consumer on it, and the consumer's key.
async fn shop(world: &World) -> CredentialRef {
    let plan = json!({ "name": "basic", "apis": [{ "api": "*" }],
        "limits": [
            { "name": "calls", "amount": 100, "window": "1m", "burst": 40 },
            { "name": "spend", "metric": "money", "amount": "12.50", "window": "month", "per": "project" },
        ],
        "price": { "version": 4, "currency": "CHF" } });
    let consumer = json!({ "name": "shop", "project": "web",
        "subscriptions": [{ "api": "books", "plan": "basic" }] });
    for (path, body) in [
        ("/v1/organisations", json!({ "name": "acme" })),
        (
            "/v1/projects",
            json!({ "name": "web", "organisation": "acme" }),
        ),
        ("/v1/plans", plan),
        ("/v1/consumers", consumer),
    ] {
        let (status, answer) = world.post(path, body).await;
        assert_eq!(status, 201, "{path}: {answer}");
    }
    let (status, key) = world.post("/v1/consumers/shop/keys", json!({})).await;
    assert_eq!(status, 201, "{key}");
    CredentialRef::Key(Pepper::new(PEPPER).digest(key["secret"].as_str().unwrap()))
}

/// The limits a caller has at `books`.
async fn limits(world: &World, key: &CredentialRef) -> Vec<Arc<Limit>> {
    let caller = world.resolve(key.clone()).await.unwrap();
    caller
        .consumer
        .subscription("books")
        .unwrap()
        .limits
        .clone()
}

async fn put(world: &World, body: Value) -> (u16, Value) {
    world.call("PUT", OVERRIDE, Some(body)).await
}

#[tokio::test]
async fn a_plan_of_the_store_has_limits_and_a_price_also_after_a_restart() {
    let world = World::new().await;
    let key = shop(&world).await;
    let before = limits(&world, &key).await;
    assert_eq!(
        (&*before[0].id, before[0].amount),
        ("plan/basic/calls", 100)
    );
    assert_eq!(
        (&*before[1].id, before[1].amount),
        ("plan/basic/spend", 12_500_000)
    );
    let (_, plan) = world.get("/v1/plans/basic").await;
    assert_eq!(plan["limits"][0]["window"], "60s");
    assert_eq!(plan["limits"][1]["amount"], "12.50");
    assert_eq!(plan["price"], json!({ "version": 4, "currency": "CHF" }));
    let world = world.restart().await;
    assert_eq!(limits(&world, &key).await, before);
    let caller = world.resolve(key).await.unwrap();
    let price = &caller.consumer.subscription("books").unwrap().plan.price;
    assert_eq!((price.version, &*price.currency), (4, "CHF"));
}

#[tokio::test]
async fn a_plan_made_again_is_the_same_only_with_the_same_limits() {
    let world = World::new().await;
    let plan = |amount: u32| {
        json!({ "name": "a", "apis": [{ "api": "*" }],
            "limits": [{ "name": "calls", "amount": amount, "window": "1m" }] })
    };
    assert_eq!(world.post("/v1/plans", plan(5)).await.0, 201);
    assert_eq!(world.post("/v1/plans", plan(5)).await.0, 200);
    assert_eq!(world.post("/v1/plans", plan(6)).await.0, 409);
}

#[tokio::test]
async fn limits_that_mean_nothing_are_refused_with_the_remedy() {
    let world = World::new().await;
    for (limits, price, field, words) in [
        (
            json!([{ "name": "a", "amuont": 5 }]),
            json!({}),
            "limits",
            "did you mean `amount`?",
        ),
        (
            json!([{ "name": "a", "amount": 5 }]),
            json!({}),
            "limits",
            "write `window: 1m`",
        ),
        (json!({}), json!({}), "limits", "expected a list"),
        (
            json!([]),
            json!({ "currency": "Euro" }),
            "price",
            "three capital letters",
        ),
    ] {
        let body =
            json!({ "name": "p", "apis": [{ "api": "*" }], "limits": limits, "price": price });
        let (status, answer) = world.post("/v1/plans", body).await;
        assert_eq!(
            (status, answer["field"].as_str()),
            (422, Some(field)),
            "{answer}"
        );
        assert!(
            answer["detail"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
    assert_eq!(world.get("/v1/plans/p").await.0, 404);
}

#[tokio::test]
async fn an_override_counts_at_once_and_after_a_restart_and_until_it_is_removed() {
    let world = World::new().await;
    let key = shop(&world).await;
    assert_eq!(limits(&world, &key).await[0].amount, 100);
    let mut heard = world.client.announcements();
    let body = json!({ "amount": 500, "owner": "ada", "reason": "launch week" });
    let (status, shown) = put(&world, body.clone()).await;
    assert_eq!(status, 200, "{shown}");
    assert_eq!(
        (shown["limit"].as_str(), shown["amount"].as_str()),
        (Some("plan/basic/calls"), Some("500"))
    );
    let announced = tokio::time::timeout(DEADLINE, heard.recv())
        .await
        .unwrap()
        .unwrap();
    let Announcement::Changed { consumers, .. } = announced else {
        panic!("{announced:?}")
    };
    assert_eq!(*consumers, [Arc::from("shop")]);
    assert_eq!(limits(&world, &key).await[0].amount, 500);
    let (_, again) = put(&world, body).await;
    assert_eq!(again, shown);
    let world = world.restart().await;
    assert_eq!(limits(&world, &key).await[0].amount, 500);
    let (_, listed) = world.get("/v1/consumers/shop/overrides").await;
    assert_eq!(listed["items"], json!([shown]));
    let capped = json!({ "amount": 7, "cap": true, "owner": "ada", "reason": "unpaid" });
    assert_eq!(put(&world, capped).await.0, 200);
    let now = limits(&world, &key).await;
    assert_eq!((now[0].amount, now[0].burst), (7, Some(7)));
    assert_eq!(world.call("DELETE", OVERRIDE, None).await.0, 204);
    assert_eq!(world.call("DELETE", OVERRIDE, None).await.0, 404);
    assert_eq!(limits(&world, &key).await[0].amount, 100);
    let (_, log) = world.get("/v1/audit").await;
    let acts = log["items"].as_array().unwrap().iter();
    let acts: Vec<_> = acts
        .filter(|it| it["subject"] == "shop")
        .map(|it| it["action"].clone())
        .collect();
    let puts = acts.iter().filter(|it| **it == "override.put").count();
    assert_eq!(
        (puts, acts.iter().any(|it| it == "override.delete")),
        (2, true),
        "{acts:?}"
    );
}

#[tokio::test]
async fn an_override_ends_at_its_time_and_who_holds_the_consumer_is_told() {
    let world = World::new().await;
    let key = shop(&world).await;
    let expires = Timestamp::from(SystemTime::now()).plus(Duration::from_millis(1_500));
    let body =
        json!({ "extra": 20, "owner": "ada", "reason": "test", "expires": expires.to_string() });
    let (status, shown) = put(&world, body).await;
    assert_eq!(status, 200, "{shown}");
    let mut heard = world.client.announcements();
    assert_eq!(limits(&world, &key).await[0].amount, 120);
    let announced = tokio::time::timeout(DEADLINE, heard.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(Timestamp::from(SystemTime::now()) >= expires);
    assert!(
        matches!(&announced, Announcement::Changed { consumers, .. } if *consumers[0] == *"shop")
    );
    assert_eq!(limits(&world, &key).await[0].amount, 100);
    let world = world.restart().await;
    assert_eq!(limits(&world, &key).await[0].amount, 100);
    let (_, listed) = world.get("/v1/consumers/shop/overrides").await;
    assert_eq!(listed["items"], json!([]));
}

#[tokio::test]
async fn an_override_of_nothing_is_refused() {
    let world = World::new().await;
    shop(&world).await;
    let why = |mut body: Value| {
        body["owner"] = json!("ada");
        body["reason"] = json!("test");
        body
    };
    for (path, body, expected) in [
        (
            "/v1/consumers/none/overrides/basic/calls",
            json!({ "extra": 5 }),
            404,
        ),
        (
            "/v1/consumers/shop/overrides/none/calls",
            json!({ "extra": 5 }),
            404,
        ),
        (
            "/v1/consumers/shop/overrides/basic/none",
            json!({ "extra": 5 }),
            404,
        ),
        (OVERRIDE, json!({ "extra": "2.50" }), 422),
        (OVERRIDE, json!({ "extra": 5, "amount": 5 }), 422),
        (OVERRIDE, json!({}), 422),
        (
            OVERRIDE,
            json!({ "extra": 5, "expires": "2020-01-01T00:00:00Z" }),
            422,
        ),
        (
            OVERRIDE,
            json!({ "extra": 5, "limit": "plan/basic/spend" }),
            422,
        ),
    ] {
        let (status, answer) = world.call("PUT", path, Some(why(body))).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    let (status, answer) = put(&world, json!({ "extra": 5 })).await;
    assert_eq!(status, 422);
    assert!(
        answer["detail"].as_str().unwrap().contains("owner"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_override_of_a_file_counts_before_the_store_s_and_is_changed_in_the_file_alone() {
    let mut found = files();
    let mut one = stored_override(
        r#"{"limit": "plan/basic/calls", "extra": 1, "owner": "ada", "reason": "test"}"#,
    )
    .unwrap();
    let place = found.consumers[0].place.clone();
    one.origin = Defined::File(place);
    found.consumers[0].overrides = vec![one.clone()];
    found.consumers[0].subscriptions = vec![("books".into(), "basic".into())];
    let world = World::with_files(found).await;
    let limits_sent = r#"[{"name": "calls", "amount": 100, "window": "1m"}, {"name": "other", "amount": 1, "window": "1h"}]"#;
    stored_limits("basic", limits_sent).unwrap();
    let limits_sent: Value = serde_json::from_str(limits_sent).unwrap();
    let plan = json!({ "name": "basic", "apis": [{ "api": "*" }], "limits": limits_sent });
    assert_eq!(world.post("/v1/plans", plan).await.0, 201);
    let body = json!({ "extra": 9, "owner": "ada", "reason": "test" });
    let path = "/v1/consumers/filed/overrides/basic/calls";
    for (method, body) in [("PUT", Some(body.clone())), ("DELETE", None)] {
        let (status, answer) = world.call(method, path, body).await;
        assert_eq!(status, 409, "{answer}");
        assert!(
            answer["detail"]
                .as_str()
                .unwrap()
                .contains("consumers.yaml:7"),
            "{answer}"
        );
    }
    // Another limit of the same consumer may be overridden here.
    let path = "/v1/consumers/filed/overrides/basic/other";
    assert_eq!(world.call("PUT", path, Some(body)).await.0, 200);
    let key = CredentialRef::Key(Pepper::new(PEPPER).digest("a key from a file"));
    let amounts: Vec<_> = limits(&world, &key)
        .await
        .iter()
        .map(|it| it.amount)
        .collect();
    assert_eq!(amounts, [101, 10]);
    let (status, _) = world.post("/v1/reload", json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(limits(&world, &key).await.len(), 2);
}
