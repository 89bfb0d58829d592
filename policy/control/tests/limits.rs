//! Limits of plans and APIs, and what organisations, projects and consumers are granted beside them: over real sockets, on real files.
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
use tollgate_policy::settings::{stored_limits, stored_override, under};
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

/// Limits of the API `books`: one of each project, of each consumer, and of all addresses.
fn api_limits(world: &World) -> Vec<Arc<Limit>> {
    let limits = r#"[{"name": "shared", "amount": 10, "window": "1d", "per": "project"},
        {"name": "own", "amount": 10, "window": "1d"},
        {"name": "all", "amount": 10, "window": "1d", "per": "address"}]"#;
    let limits = stored_limits("books", limits).unwrap();
    let named = |limit: Arc<Limit>| {
        let id = format!("api/books/{}", limit.name).into();
        Arc::new(Limit {
            id,
            ..(*limit).clone()
        })
    };
    let limits: Vec<_> = limits.into_iter().map(named).collect();
    let known = limits.clone();
    let of = move |api: &str| (api == "books").then(|| known.clone());
    world.control.knows_apis(Arc::new(of));
    limits
}

/// Another consumer of the shop's project, and its key.
async fn second(world: &World) -> CredentialRef {
    let body = json!({ "name": "desk", "project": "web",
        "subscriptions": [{ "api": "books", "plan": "basic" }] });
    assert_eq!(world.post("/v1/consumers", body).await.0, 201);
    let (_, key) = world.post("/v1/consumers/desk/keys", json!({})).await;
    CredentialRef::Key(Pepper::new(PEPPER).digest(key["secret"].as_str().unwrap()))
}

/// What the API's limits come to for a caller.
async fn at_the_api(world: &World, limits: &[Arc<Limit>], key: &CredentialRef) -> Vec<u64> {
    let caller = world.resolve(key.clone()).await.unwrap();
    let granted = &caller.consumer.overrides;
    limits.iter().map(|it| under(it, granted).amount).collect()
}

#[tokio::test]
async fn what_a_project_is_granted_all_its_consumers_have_and_no_other() {
    let world = World::new().await;
    let (shop, desk) = (shop(&world).await, second(&world).await);
    let limits_of_api = api_limits(&world);
    let mut heard = world.client.announcements();
    let why = json!({ "extra": 5, "owner": "ada", "reason": "launch week" });
    for path in ["plan/basic/spend", "api/books/shared"] {
        let path = format!("/v1/overrides/project%3Aweb/{path}");
        let (status, shown) = world.call("PUT", &path, Some(why.clone())).await;
        assert_eq!((status, &shown["subject"]), (200, &json!("project:web")));
        let announced = tokio::time::timeout(DEADLINE, heard.recv()).await;
        let Announcement::Changed { consumers, .. } = announced.unwrap().unwrap() else {
            panic!("of its consumers alone");
        };
        assert_eq!(*consumers, [Arc::from("desk"), Arc::from("shop")]);
    }
    let world = world.restart().await;
    api_limits(&world);
    for key in [&shop, &desk] {
        assert_eq!(limits(&world, key).await[1].amount, 17_500_000);
        assert_eq!(at_the_api(&world, &limits_of_api, key).await, [15, 10, 10]);
    }
    // Who leaves the project leaves it behind.
    let other = json!({ "name": "other", "organisation": "acme" });
    assert_eq!(world.post("/v1/projects", other).await.0, 201);
    let moved = json!({ "project": "other" });
    let (status, answer) = world.call("PATCH", "/v1/consumers/desk", Some(moved)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(limits(&world, &desk).await[1].amount, 12_500_000);
    assert_eq!(at_the_api(&world, &limits_of_api, &desk).await, [10; 3]);
    let path = "/v1/overrides/project%3Aweb/api/books/shared";
    assert_eq!(world.call("DELETE", path, None).await.0, 204);
    assert_eq!(world.call("DELETE", path, None).await.0, 404);
    assert_eq!(at_the_api(&world, &limits_of_api, &shop).await, [10; 3]);
}

#[tokio::test]
async fn overrides_of_an_organisation_and_of_a_consumer_at_an_api_count_each_where_it_should() {
    let world = World::new().await;
    let (shop, desk) = (shop(&world).await, second(&world).await);
    let limits_of_api = api_limits(&world);
    let plan = json!({ "name": "wide", "apis": [{ "api": "*" }],
        "limits": [{ "name": "calls", "amount": 100, "window": "1m", "per": "organisation" }] });
    assert_eq!(world.post("/v1/plans", plan).await.0, 201);
    for consumer in ["shop", "desk"] {
        let path = format!("/v1/consumers/{consumer}/subscriptions/books");
        let put = world
            .call("PUT", &path, Some(json!({ "plan": "wide" })))
            .await;
        assert!(put.0 < 300, "{put:?}");
    }
    let capped = json!({ "amount": 7, "cap": true, "owner": "ada", "reason": "unpaid" });
    for path in [
        "/v1/overrides/organisation%3Aacme/plan/wide/calls",
        "/v1/overrides/consumer%3Ashop/api/books/own",
    ] {
        let (status, answer) = world.call("PUT", path, Some(capped.clone())).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(limits(&world, &shop).await[0].amount, 7);
    assert_eq!(limits(&world, &desk).await[0].amount, 7);
    assert_eq!(at_the_api(&world, &limits_of_api, &shop).await, [10, 7, 10]);
    assert_eq!(at_the_api(&world, &limits_of_api, &desk).await, [10; 3]);
    let (_, all) = world.get("/v1/overrides?limit=1").await;
    assert_eq!(all["items"][0]["subject"], "organisation:acme");
    let next = all["next"].as_str().unwrap().replace(['"', '[', ']'], "");
    let next: Vec<&str> = next.split(',').collect();
    let after = format!("%5B%22{}%22%2C%22{}%22%5D", next[0], next[1]);
    let (_, rest) = world
        .get(&format!("/v1/overrides?limit=5&after={after}"))
        .await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 1, "{rest}");
    assert_eq!(rest["items"][0]["limit"], "api/books/own");
    let (_, none) = world.get("/v1/overrides?subject=project%3Aweb").await;
    assert_eq!(none["items"], json!([]));
}

#[tokio::test]
async fn a_limit_is_overridden_only_for_those_whose_counter_it_is() {
    let world = World::new().await;
    shop(&world).await;
    let why = json!({ "extra": 5, "owner": "ada", "reason": "test" });
    let put = async |path: &str| {
        let path = format!("/v1/overrides/{path}");
        world.call("PUT", &path, Some(why.clone())).await
    };
    // Before APIs are loaded nobody knows their limits.
    assert_eq!(put("consumer%3Ashop/api/books/own").await.0, 503);
    api_limits(&world);
    for (path, status, words) in [
        (
            "consumer%3Ashop/plan/basic/spend",
            422,
            "override it for the project",
        ),
        (
            "consumer%3Ashop/api/books/shared",
            422,
            "override it for the project",
        ),
        (
            "consumer%3Ashop/api/books/all",
            422,
            "change the limit itself",
        ),
        (
            "project%3Aweb/plan/basic/calls",
            422,
            "override it for the consumer",
        ),
        (
            "organisation%3Aacme/api/books/shared",
            422,
            "override it for the project",
        ),
        ("project%3Anone/api/books/shared", 404, "no project `none`"),
        ("project%3Aweb/api/none/shared", 404, "no API `none`"),
        (
            "project%3Aweb/api/books/none",
            404,
            "no limit `api/books/none`",
        ),
        (
            "project%3Aweb/bundle/books/shared",
            422,
            "of a plan or of an api",
        ),
        ("user%3Aweb/api/books/shared", 422, "project:NAME"),
    ] {
        let (answered, answer) = put(path).await;
        assert_eq!(answered, status, "{path}: {answer}");
        let told = answer["detail"].as_str().unwrap();
        assert!(told.contains(words), "{path}: {told}");
    }
    let (status, answer) = put("project%3Aweb/api/books/shared").await;
    assert_eq!(status, 200, "{answer}");
    // It goes with the project, and does not wait for another of its name.
    assert_eq!(
        world.call("DELETE", "/v1/consumers/shop", None).await.0,
        204
    );
    assert_eq!(world.call("DELETE", "/v1/projects/web", None).await.0, 204);
    let again = json!({ "name": "web", "organisation": "acme" });
    assert_eq!(world.post("/v1/projects", again).await.0, 201);
    let world = world.restart().await;
    assert_eq!(world.get("/v1/overrides").await.1["items"], json!([]));
}

#[tokio::test]
async fn a_file_s_override_of_a_project_counts_and_one_that_is_not_its_own_is_remarked() {
    let mut found = files();
    let one = |limit: &str| {
        let text = format!(r#"{{"limit": "{limit}", "extra": 1, "owner": "a", "reason": "b"}}"#);
        stored_override(&text).unwrap()
    };
    found.projects[0].overrides = vec![one("plan/basic/shared"), one("plan/basic/own")];
    found.consumers[0].subscriptions = vec![("books".into(), "basic".into())];
    let world = World::with_files(found).await;
    let plan = json!({ "name": "basic", "apis": [{ "api": "*" }], "limits": [
        { "name": "own", "amount": 100, "window": "1m" },
        { "name": "shared", "amount": 100, "window": "1m", "per": "project" }] });
    assert_eq!(world.post("/v1/plans", plan).await.0, 201);
    let key = CredentialRef::Key(Pepper::new(PEPPER).digest("a key from a file"));
    let amounts = limits(&world, &key).await;
    let amounts: Vec<_> = amounts.iter().map(|it| it.amount).collect();
    assert_eq!(amounts, [100, 101]);
    let (_, reloaded) = world.post("/v1/reload", json!({})).await;
    let remarks = reloaded["remarks"].to_string();
    assert!(
        remarks.contains("plan/basic/own for project web changes nothing"),
        "{remarks}"
    );
    assert!(!remarks.contains("plan/basic/shared"), "{remarks}");
}
