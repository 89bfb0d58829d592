//! What a deleted consumer was known by is not set free: it would be a caller that needs no plan.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::{Value, json};
use tollgate_policy::directory::CredentialRef;
use tollgate_proto::Announcement;
use world::World;

fn login() -> CredentialRef {
    CredentialRef::Login {
        issuer: "https://id.test".into(),
        client: "app".into(),
    }
}

fn certificate() -> CredentialRef {
    CredentialRef::Certificate("spiffe://test/app".into())
}

fn consumer(name: &str) -> Value {
    json!({ "name": name, "project": "web",
        "logins": [{ "issuer": "https://id.test", "client": "app" }],
        "certificates": ["spiffe://test/app"] })
}

async fn with_consumer() -> World {
    let world = World::new().await;
    for (path, body) in [
        ("/v1/organisations", json!({ "name": "acme" })),
        (
            "/v1/projects",
            json!({ "name": "web", "organisation": "acme" }),
        ),
        ("/v1/consumers", consumer("first")),
    ] {
        assert_eq!(world.post(path, body).await.0, 201);
    }
    world
}

/// Consumer and whether it is suspended, by login and by certificate.
async fn found(world: &World) -> [Option<(String, bool)>; 2] {
    let mut found = [None, None];
    for (place, reference) in found.iter_mut().zip([login(), certificate()]) {
        let caller = world.resolve(reference).await;
        *place = caller.map(|it| (it.consumer.name.to_string(), it.consumer.suspended));
    }
    found
}

fn both(name: &str, suspended: bool) -> [Option<(String, bool)>; 2] {
    [(); 2].map(|()| Some((name.to_owned(), suspended)))
}

#[tokio::test]
async fn logins_and_certificates_of_a_deleted_consumer_stay_refused_also_after_a_restart() {
    let world = with_consumer().await;
    assert_eq!(found(&world).await, both("first", false));
    let (status, _) = world.call("DELETE", "/v1/consumers/first", None).await;
    assert_eq!(status, 204);
    assert_eq!(found(&world).await, both("first", true));
    assert_eq!(world.get("/v1/consumers/first").await.0, 404);
    let world = world.restart().await;
    assert_eq!(found(&world).await, both("first", true));
    // One of its name begins anew, and has no part in what it was known by.
    let fresh = json!({ "name": "first", "project": "web" });
    assert_eq!(world.post("/v1/consumers", fresh).await.0, 201);
    assert_eq!(found(&world).await, both("first", true));
}

#[tokio::test]
async fn another_consumer_may_have_them_and_whoever_keeps_the_refusal_hears_of_it() {
    let world = with_consumer().await;
    assert_eq!(
        world.call("DELETE", "/v1/consumers/first", None).await.0,
        204
    );
    let mut heard = world.client.announcements();
    assert_eq!(world.post("/v1/consumers", consumer("second")).await.0, 201);
    assert_eq!(found(&world).await, both("second", false));
    let announced = tokio::time::timeout(world::DEADLINE, heard.recv()).await;
    let Ok(Ok(Announcement::Changed { consumers, .. })) = announced else {
        panic!("{announced:?}");
    };
    assert!(
        consumers.iter().any(|name| &**name == "first"),
        "{consumers:?}"
    );
    let world = world.restart().await;
    assert_eq!(found(&world).await, both("second", false));
    assert_eq!(
        world.call("DELETE", "/v1/consumers/second", None).await.0,
        204
    );
    assert_eq!(found(&world).await, both("second", true));
    let world = world.restart().await;
    assert_eq!(found(&world).await, both("second", true));
}
