//! A hundred thousand consumers with keys: memory, start and answers, printed. Times are of the build they run in.
//! `cargo test -p tollgate-control --test scale -- --ignored --nocapture`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::time::Instant;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tollgate_policy::credentials::key::Pepper;
use tollgate_policy::directory::CredentialRef;
use world::{PEPPER, World};

const CONSUMERS: usize = 100_000;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn fill(state: &std::path::Path, pepper: &Pepper) {
    let options = SqliteConnectOptions::new().filename(state.join("control.db"));
    let mut store = SqliteConnection::connect_with(&options).await.unwrap();
    let mut filling = store.begin().await.unwrap();
    for statement in [
        "INSERT INTO organisations VALUES ('acme', '', 0)",
        "INSERT INTO projects VALUES ('web', 'acme', '', 0)",
        "INSERT INTO plans (name, roles, terms, created_at) VALUES ('basic', '[]', '[]', 0)",
        "INSERT INTO plan_apis VALUES ('basic', '*', NULL)",
    ] {
        sqlx::query(statement).execute(&mut *filling).await.unwrap();
    }
    for n in 0..CONSUMERS {
        let name = format!("consumer-{n}");
        let digest = pepper.digest(&format!("key {n}")).0;
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        sqlx::query("INSERT INTO consumers VALUES ($1, 'web', '[]', FALSE, 0)")
            .bind(&name)
            .execute(&mut *filling)
            .await
            .unwrap();
        sqlx::query("INSERT INTO subscriptions VALUES ($1, 'books', 'basic')")
            .bind(&name)
            .execute(&mut *filling)
            .await
            .unwrap();
        sqlx::query("INSERT INTO keys VALUES ($1, $2, 'k', $3, 0, NULL, NULL, NULL, '[]', '[]')")
            .bind(format!("key_{n:016x}"))
            .bind(&name)
            .bind(digest)
            .execute(&mut *filling)
            .await
            .unwrap();
    }
    filling.commit().await.unwrap();
}

#[tokio::test]
#[ignore = "takes a minute; prints figures"]
async fn a_hundred_thousand_consumers_with_keys() {
    let pepper = Pepper::new(PEPPER);
    let world = World::new().await;
    fill(world.state.path(), &pepper).await;
    let before = resident_kib();
    let begun = Instant::now();
    let world = world.restart().await;
    let started = begun.elapsed();
    let after = resident_kib();
    println!(
        "start: {started:?}; memory: {} KiB more",
        after.saturating_sub(before)
    );

    let mut slowest = std::time::Duration::ZERO;
    let begun = Instant::now();
    for n in 0..CONSUMERS {
        let asked = Instant::now();
        let reference = CredentialRef::Key(pepper.digest(&format!("key {n}")));
        let caller = world.resolve(reference).await.unwrap();
        assert!(caller.consumer.subscription("books").is_some());
        slowest = slowest.max(asked.elapsed());
    }
    let all = begun.elapsed();
    println!(
        "each resolved once: {:?} on average with the way there and back, slowest {slowest:?}; memory: {} KiB more",
        all / u32::try_from(CONSUMERS).unwrap(),
        resident_kib().saturating_sub(before)
    );
}
