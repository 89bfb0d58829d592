//! What an operator is promised: over real sockets, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_policy::credentials::key::Pepper;
use tollgate_policy::directory::{CredentialRef, Revoked};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Acceptance, Announcement, Answer, AuditRecord, Question};
use world::{PEPPER, World, files};

const DEADLINE: Duration = Duration::from_secs(20);

fn reference(secret: &str) -> CredentialRef {
    CredentialRef::Key(Pepper::new(PEPPER).digest(secret))
}

/// A project, a plan with terms, and a consumer on it.
async fn shop(world: &World) {
    let made = [
        (
            "/v1/organisations",
            json!({ "name": "acme", "title": "Acme" }),
        ),
        (
            "/v1/projects",
            json!({ "name": "web", "organisation": "acme" }),
        ),
        ("/v1/terms", json!({ "name": "usage", "title": "Fair use" })),
        (
            "/v1/terms/usage/versions",
            json!({ "text": "Be fair.", "purpose_required": true,
            "effective": "2026-01-01T00:00:00Z" }),
        ),
        (
            "/v1/plans",
            json!({ "name": "basic", "terms": ["usage"],
            "apis": [{ "api": "books", "operations": ["listBooks"] }] }),
        ),
        (
            "/v1/consumers",
            json!({ "name": "shop", "project": "web",
            "subscriptions": [{ "api": "books", "plan": "basic" }] }),
        ),
    ];
    for (path, body) in made {
        let (status, answer) = world.post(path, body).await;
        assert_eq!(status, 201, "{path}: {answer}");
    }
}

async fn key(world: &World) -> (String, String) {
    let (status, key) = world.post("/v1/consumers/shop/keys", json!({})).await;
    assert_eq!(status, 201, "{key}");
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

#[tokio::test]
async fn nothing_administrative_is_answered_without_the_credential() {
    let world = World::new().await;
    let (status, health) = world.anonymous("GET", "/v1/health", &[]).await;
    assert_eq!((status, health["store"].as_str()), (200, Some("ok")));
    for (_, method, path) in tollgate_control::http::served() {
        if path == "/v1/health" {
            continue;
        }
        let path = path.replace(['{', '}'], "x");
        let wrong = [(
            "authorization",
            "Bearer tg_admin_0000000000000000000000000000",
        )];
        let (status, answer) = world.anonymous(&method, &path, &wrong).await;
        assert!(
            status == 401 || status == 429,
            "{method} {path}: {status} {answer}"
        );
    }
    let (_, log) = world.get("/v1/audit").await;
    let refused = |record: &Value| record["action"] == "admin.refused";
    assert!(
        log["items"].as_array().unwrap().iter().any(refused),
        "{log}"
    );
}

#[tokio::test]
async fn a_foreign_page_gets_no_answer() {
    let world = World::new().await;
    let (status, _) = world.raw_host("evil.example.com", "/v1/health").await;
    assert_eq!(status, 403);
    let origin = [("origin", "http://evil.example.com")];
    let (status, _) = world.anonymous("GET", "/v1/health", &origin).await;
    assert_eq!(status, 403);
    assert_eq!(world.raw_host("localhost", "/v1/health").await.0, 200);
}

#[tokio::test]
async fn a_key_is_shown_once_rotated_and_revoked_before_the_answer() {
    let world = World::new().await;
    shop(&world).await;
    let (id, secret) = key(&world).await;
    assert!(secret.starts_with("tg_test_"), "{secret}");
    let caller = world.resolve(reference(&secret)).await.unwrap();
    assert_eq!(&*caller.consumer.name, "shop");
    assert_eq!(&*caller.consumer.organisation, "acme");
    assert_eq!(*caller.credential.id, *id);
    assert_eq!(
        caller.consumer.subscription("books").unwrap().duties[0].accepted,
        0
    );

    let rotated = world
        .post(&format!("/v1/keys/{id}/rotate"), json!({ "overlap": "1h" }))
        .await;
    assert_eq!(rotated.0, 201, "{}", rotated.1);
    let next = rotated.1["secret"].as_str().unwrap().to_owned();
    let old = world.resolve(reference(&secret)).await.unwrap();
    assert!(
        old.credential.expires.is_some(),
        "the old one ends after the overlap"
    );
    assert!(world.resolve(reference(&next)).await.is_some());

    let mut heard = world.client.announcements();
    let (status, answer) = world
        .post(&format!("/v1/keys/{id}/revoke"), json!({}))
        .await;
    assert_eq!(
        (status, &answer["revoked"]),
        (200, &Value::Bool(true)),
        "{answer}"
    );
    // Without waiting: it was announced before the answer.
    let Ok(Announcement::Revoked { what, .. }) = heard.try_recv() else {
        panic!("not announced");
    };
    let CredentialRef::Key(digest) = reference(&secret) else {
        unreachable!()
    };
    assert_eq!(*what, [Revoked::Key(digest)]);
    assert!(world.resolve(reference(&secret)).await.is_none());
    let (_, keys) = world.get("/v1/consumers/shop/keys").await;
    assert_eq!(keys["items"].as_array().unwrap().len(), 2, "{keys}");
    // What was revoked stays so in the next life.
    let world = world.restart().await;
    assert!(world.resolve(reference(&secret)).await.is_none());
    assert!(world.resolve(reference(&next)).await.is_some());
}

#[tokio::test]
async fn an_acceptance_is_recorded_and_announced_before_it_is_answered() {
    let world = World::new().await;
    shop(&world).await;
    let (_, secret) = key(&world).await;
    let accept = |version, hash: Option<&str>, purpose: &str| {
        Question::Accept(Acceptance {
            consumer: Arc::from("shop"),
            credential: Arc::from("key_1"),
            terms: Arc::from("usage"),
            version,
            text_hash: hash.map(Arc::from),
            purpose: purpose.to_owned(),
            at: Timestamp::from_seconds(1_800_000_000),
            from: Some([192, 0, 2, 1].into()),
        })
    };
    let ask = |question| world.client.ask(question, DEADLINE);
    for wrong in [
        accept(2, None, "x"),
        accept(1, Some("00"), "x"),
        accept(1, None, " "),
    ] {
        assert!(matches!(ask(wrong).await, Ok(Answer::Refused(_))));
    }
    let texts = Question::Terms {
        consumer: Arc::from("shop"),
        api: Arc::from("books"),
    };
    let Ok(Answer::Terms(texts)) = ask(texts).await else {
        panic!()
    };
    assert_eq!(
        (texts.len(), &*texts[0].text, texts[0].accepted),
        (1, "Be fair.", 0)
    );

    let mut heard = world.client.announcements();
    let right = accept(1, Some(&texts[0].text_hash), "a shop window");
    assert!(matches!(ask(right).await, Ok(Answer::Accepted)));
    let Ok(Announcement::Changed {
        consumers,
        generation,
    }) = heard.try_recv()
    else {
        panic!("not announced");
    };
    assert_eq!(*consumers, [Arc::from("shop")]);
    let Ok(Answer::Resolved(resolved)) = ask(Question::Resolve(reference(&secret))).await else {
        panic!()
    };
    assert!(resolved.generation >= generation);
    let caller = resolved.caller.unwrap();
    assert_eq!(
        caller.consumer.subscription("books").unwrap().duties[0].accepted,
        1
    );
    let (_, list) = world.get("/v1/terms/usage/acceptances").await;
    assert_eq!(list["items"][0]["purpose"], "a shop window");
    let overview = Question::Overview {
        consumer: Arc::from("shop"),
    };
    let Ok(Answer::Overview(view)) = ask(overview).await else {
        panic!()
    };
    assert_eq!(
        view["subscriptions"][0]["terms"][0]["accepted"], true,
        "{view}"
    );
    assert_eq!(view["keys"].as_array().unwrap().len(), 1);
    let world = world.restart().await;
    let caller = world.resolve(reference(&secret)).await.unwrap();
    assert_eq!(
        caller.consumer.subscription("books").unwrap().duties[0].accepted,
        1
    );
}

#[tokio::test]
async fn a_name_used_again_begins_with_nothing_accepted() {
    let world = World::new().await;
    shop(&world).await;
    let accepted = |caller: &tollgate_policy::directory::Caller| {
        caller.consumer.subscription("books").unwrap().duties[0].accepted
    };
    let body = json!({ "consumer": "shop", "version": 1, "purpose": "on paper" });
    let (status, answer) = world.post("/v1/terms/usage/acceptances", body).await;
    assert_eq!(status, 201, "{answer}");
    let (_, secret) = key(&world).await;
    assert_eq!(
        accepted(&world.resolve(reference(&secret)).await.unwrap()),
        1
    );
    assert_eq!(
        world.call("DELETE", "/v1/consumers/shop", None).await.0,
        204
    );
    assert!(world.resolve(reference(&secret)).await.is_none());
    let again = json!({ "name": "shop", "project": "web",
        "subscriptions": [{ "api": "books", "plan": "basic" }] });
    assert_eq!(world.post("/v1/consumers", again).await.0, 201);
    let (_, secret) = key(&world).await;
    assert_eq!(
        accepted(&world.resolve(reference(&secret)).await.unwrap()),
        0
    );
    let world = world.restart().await;
    assert_eq!(
        accepted(&world.resolve(reference(&secret)).await.unwrap()),
        0
    );
}

#[tokio::test]
async fn what_a_file_defines_is_changed_in_the_file_and_restricted_here() {
    let world = World::with_files(files()).await;
    let secret = "a key from a file";
    let caller = world.resolve(reference(secret)).await.unwrap();
    assert_eq!(
        (&*caller.consumer.name, caller.consumer.suspended),
        ("filed", false)
    );
    let (status, answer) = world.call("DELETE", "/v1/consumers/filed", None).await;
    assert_eq!(status, 409, "{answer}");
    assert_eq!(answer["type"], "urn:tollgate:problem:defined_in_file");
    assert_eq!(
        (answer["file"].as_str(), answer["line"].as_u64()),
        (Some("consumers.yaml"), Some(7))
    );
    let again = json!({ "name": "filed", "project": "web" });
    assert_eq!(world.post("/v1/consumers", again).await.0, 409);
    // A key of the store for a consumer of a file.
    let (status, made) = world
        .post("/v1/consumers/filed/keys", json!({ "name": "more" }))
        .await;
    assert_eq!(status, 201, "{made}");
    assert!(
        world
            .resolve(reference(made["secret"].as_str().unwrap()))
            .await
            .is_some()
    );
    // Suspending and revoking restrict, so they win.
    assert_eq!(
        world.post("/v1/consumers/filed/suspend", json!({})).await.0,
        200
    );
    assert!(
        world
            .resolve(reference(secret))
            .await
            .unwrap()
            .consumer
            .suspended
    );
    assert_eq!(
        world.post("/v1/consumers/filed/resume", json!({})).await.0,
        200
    );
    assert!(
        !world
            .resolve(reference(secret))
            .await
            .unwrap()
            .consumer
            .suspended
    );
    let (status, _) = world
        .post(
            "/v1/keys/key_filed.ci/revoke",
            json!({ "reason": "leaked" }),
        )
        .await;
    assert_eq!(status, 200);
    assert!(world.resolve(reference(secret)).await.is_none());
    assert_eq!(world.post("/v1/reload", json!({})).await.0, 200);
    assert!(
        world.resolve(reference(secret)).await.is_none(),
        "no file undoes it"
    );
}

#[tokio::test]
async fn creating_again_is_the_same_or_a_conflict() {
    let world = World::new().await;
    shop(&world).await;
    let same = json!({ "name": "shop", "project": "web",
        "subscriptions": [{ "api": "books", "plan": "basic" }] });
    assert_eq!(world.post("/v1/consumers", same).await.0, 200);
    let other = json!({ "name": "shop", "project": "web" });
    let (status, answer) = world.post("/v1/consumers", other).await;
    assert_eq!(
        (status, answer["type"].as_str()),
        (409, Some("urn:tollgate:problem:exists"))
    );
    for (path, body, expected) in [
        (
            "/v1/consumers",
            json!({ "name": "Shop!", "project": "web" }),
            422,
        ),
        (
            "/v1/consumers",
            json!({ "name": "x", "project": "none" }),
            422,
        ),
        (
            "/v1/consumers",
            json!({ "name": "x", "project": "web", "rolls": [] }),
            400,
        ),
        (
            "/v1/plans",
            json!({ "name": "p", "apis": [], "terms": ["none"] }),
            422,
        ),
        (
            "/v1/terms/usage/versions",
            json!({ "version": 9, "text": "x" }),
            422,
        ),
        (
            "/v1/revocations",
            json!({ "kind": "token", "issuer": "i" }),
            422,
        ),
        (
            "/v1/organisations",
            json!({ "name": "a", "title": "x".repeat(70_000) }),
            413,
        ),
    ] {
        let (status, answer) = world.post(path, body).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    assert_eq!(
        world.call("DELETE", "/v1/plans/basic", None).await.0,
        409,
        "in use"
    );
    assert_eq!(world.get("/v1/nothing").await.0, 404);
    assert_eq!(world.call("DELETE", "/v1/audit", None).await.0, 405);
    assert_eq!(
        world.call("DELETE", "/v1/consumers/shop", None).await.0,
        204
    );
    assert_eq!(world.call("DELETE", "/v1/plans/basic", None).await.0, 204);
}

#[tokio::test]
async fn nobody_is_told_of_a_token_that_ended_by_itself() {
    let world = World::new().await;
    let revoke = |id: &str, expires: &str| {
        let body = json!({ "kind": "token", "issuer": "https://id", "id": id, "expires": expires });
        world.post("/v1/revocations", body)
    };
    let (status, made) = revoke("new", "2999-01-01T00:00:00Z").await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["expires"], "2999-01-01T00:00:00Z", "{made}");
    assert_eq!(revoke("old", "2001-01-01T00:00:00Z").await.0, 201);
    assert_eq!(revoke("bad", "soon").await.0, 422);
    let (status, answer) = world
        .post(
            "/v1/revocations",
            json!({ "kind": "certificate", "name": "c", "expires": "2999-01-01T00:00:00Z" }),
        )
        .await;
    assert_eq!(status, 422, "{answer}");
    let world = world.restart().await;
    let told = world.client.ask(Question::Revocations, DEADLINE).await;
    let Ok(Answer::Revocations(told)) = told else {
        panic!("{told:?}")
    };
    let [Revoked::Token { id, .. }] = &*told else {
        panic!("{told:?}")
    };
    assert_eq!(&**id, "new");
    // The record stays.
    let (_, listed) = world.get("/v1/revocations").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    for n in 0..5 {
        let made = world
            .post("/v1/organisations", json!({ "name": format!("o{n}") }))
            .await;
        assert_eq!(made.0, 201);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let (_, page) = world
            .get(&format!("/v1/organisations?limit=2{after}"))
            .await;
        for item in page["items"].as_array().unwrap() {
            seen.push(item["name"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ["o0", "o1", "o2", "o3", "o4"]);
    assert_eq!(world.get("/v1/organisations?limit=0").await.0, 422);
    assert_eq!(world.get("/v1/organisations?colour=red").await.0, 400);
}

#[tokio::test]
async fn decisions_of_data_planes_enter_the_audit_log() {
    let world = World::new().await;
    let record = AuditRecord {
        at: Timestamp::from_seconds(1_800_000_000),
        request_id: "r1".to_owned(),
        api: Arc::from("books"),
        generation: 3,
        operation: Arc::from("listBooks"),
        consumer: Arc::from("shop"),
        credential: Arc::from("key_1"),
        client: None,
        verdict: "not_permitted".into(),
        rule: "x".repeat(10_000),
    };
    let asked = world
        .client
        .ask(Question::Audit(vec![record; 1500]), DEADLINE)
        .await;
    assert!(matches!(asked, Ok(Answer::Noted)), "{asked:?}");
    let (_, log) = world.get("/v1/audit?limit=1").await;
    assert_eq!(log["items"][0]["detail"]["verdict"], "not_permitted");
    assert_eq!(
        log["items"][0]["detail"]["rule"].as_str().unwrap().len(),
        256
    );
    let (_, rest) = world.get("/v1/audit?after=1000").await;
    assert_eq!(rest["items"][0]["action"], "decisions.omitted");
    assert_eq!(rest["items"][0]["subject"], "500");
    let (_, verdict) = world.get("/v1/audit/verify").await;
    assert_eq!(
        (verdict["records"].as_u64(), &verdict["broken"]),
        (Some(1001), &Value::Null)
    );
}

#[tokio::test]
async fn no_secret_is_found_anywhere() {
    let world = World::new().await;
    shop(&world).await;
    let (id, secret) = key(&world).await;
    let user = json!({ "name": "basic-user", "project": "web",
        "users": [{ "name": "u", "password_hash": "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaHNlY3JldA" }] });
    assert_eq!(world.post("/v1/consumers", user).await.0, 201);
    world
        .post(&format!("/v1/keys/{id}/revoke"), json!({}))
        .await;
    let mut seen = String::new();
    for path in [
        "/v1/consumers",
        "/v1/consumers/shop/keys",
        "/v1/consumers/basic-user",
        "/v1/audit",
        "/v1/revocations",
    ] {
        seen.push_str(&world.get(path).await.1.to_string());
    }
    let CredentialRef::Key(digest) = reference(&secret) else {
        unreachable!()
    };
    let digest: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
    for hidden in [&*secret, &*digest, "aGFzaHNlY3JldA", &*world.credential] {
        assert!(!seen.contains(hidden), "an answer shows {hidden}");
    }
    for file in std::fs::read_dir(world.state.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds the key", path.display());
    }
}
