//! Objects are changed where that is safe, and deleted where nobody would miss them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::{Value, json};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Acceptance, Answer, Question};
use world::{World, files};

async fn made(world: &World, objects: &[(&str, Value)]) {
    for (path, body) in objects {
        let (status, answer) = world.post(path, body.clone()).await;
        assert_eq!(status, 201, "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_consumer_is_changed_in_what_is_said_and_keeps_the_rest() {
    let world = World::with_files(files()).await;
    made(
        &world,
        &[
            ("/v1/organisations", json!({ "name": "o" })),
            ("/v1/projects", json!({ "name": "p", "organisation": "o" })),
            ("/v1/projects", json!({ "name": "q", "organisation": "o" })),
            (
                "/v1/plans",
                json!({ "name": "basic", "apis": [{ "api": "books" }] }),
            ),
            (
                "/v1/consumers",
                json!({ "name": "c", "project": "p", "roles": ["a", "b"],
                    "subscriptions": [{ "api": "books", "plan": "basic" }] }),
            ),
        ],
    )
    .await;
    let path = "/v1/consumers/c";
    let change = async |body: Value| world.call("PATCH", path, Some(body)).await;
    let (status, first) = change(json!({ "project": "q" })).await;
    assert_eq!((status, &first["project"]), (200, &json!("q")), "{first}");
    assert_eq!(first["roles"], json!(["a", "b"]));
    let (_, second) = change(json!({ "roles": [], "explains": true })).await;
    assert_eq!(second["project"], "q", "{second}");
    assert_eq!(
        (&second["roles"], &second["explains"]),
        (&json!([]), &json!(true))
    );
    assert_eq!(second["subscriptions"][0]["plan"], "basic");
    assert_eq!(change(json!({ "project": "none" })).await.0, 422);
    assert_eq!(change(json!({ "name": "d" })).await.0, 400);
    let defined = world
        .call("PATCH", "/v1/consumers/filed", Some(json!({})))
        .await;
    assert_eq!(defined.0, 409, "{}", defined.1);
    let world = world.restart().await;
    assert_eq!(world.get(path).await.1, second);
}

#[tokio::test]
async fn terms_are_deleted_that_nobody_requires_and_nobody_accepted() {
    let world = World::with_files(files()).await;
    let version = json!({ "text": "Be fair.", "effective": "2026-01-01T00:00:00Z" });
    made(
        &world,
        &[
            (
                "/v1/terms",
                json!({ "name": "everywhere", "apis": ["books"] }),
            ),
            ("/v1/terms", json!({ "name": "planned" })),
            ("/v1/terms", json!({ "name": "accepted" })),
            ("/v1/terms/accepted/versions", version.clone()),
            ("/v1/terms", json!({ "name": "idle" })),
            ("/v1/terms/idle/versions", version),
            (
                "/v1/plans",
                json!({ "name": "basic", "apis": [], "terms": ["planned"] }),
            ),
        ],
    )
    .await;
    let acceptance = Acceptance {
        consumer: "filed".into(),
        credential: "key".into(),
        terms: "accepted".into(),
        version: 1,
        text_hash: None,
        purpose: String::new(),
        at: Timestamp::from_seconds(1),
        from: None,
    };
    let question = Question::Accept(acceptance);
    let answer = world.client.ask(question, world::DEADLINE).await;
    assert!(
        !matches!(answer, Ok(Answer::Refused(_)) | Err(_)),
        "{answer:?}"
    );
    let delete = async |name: &str| {
        let path = format!("/v1/terms/{name}");
        world.call("DELETE", &path, None).await
    };
    for (name, by) in [
        ("everywhere", "API `books`"),
        ("planned", "plan `basic`"),
        ("accepted", "consumer `filed`"),
    ] {
        let (status, answer) = delete(name).await;
        assert_eq!(status, 409, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(by), "{answer}");
    }
    assert_eq!(delete("idle").await.0, 204);
    assert_eq!(delete("idle").await.0, 404);
    let world = world.restart().await;
    assert_eq!(world.get("/v1/terms/idle").await.0, 404);
    assert_eq!(world.get("/v1/terms/accepted").await.0, 200);
}
