//! What is promised while the store is locked, damaged, gone or tampered with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::path::Path;

use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tollgate_control::StoreError;
use tollgate_policy::credentials::key::Pepper;
use tollgate_policy::directory::CredentialRef;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Announcement, Answer, AuditRecord, Question};
use world::{PEPPER, World, files};

async fn open(state: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(state.join("control.db"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

fn filed() -> CredentialRef {
    CredentialRef::Key(Pepper::new(PEPPER).digest("a key from a file"))
}

#[tokio::test]
async fn a_locked_store_leaves_admission_alone_and_refuses_changes_until_it_is_free() {
    let world = World::with_files(files()).await;
    let mut other = open(world.state.path()).await;
    sqlx::query("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    assert!(world.resolve(filed()).await.is_some());
    let (status, answer) = world
        .post("/v1/organisations", json!({ "name": "late" }))
        .await;
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer["detail"].as_str().unwrap().contains("locked"),
        "{answer}"
    );
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(
        world
            .post("/v1/organisations", json!({ "name": "late" }))
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn while_a_store_was_never_read_nobody_is_identified() {
    let world = World::with_files(files()).await;
    let path = world.state.path().join("control.db");
    world.control.stop().await;
    // Nobody else writes while it is not opened.
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[..64].fill(b'x');
    std::fs::write(&path, &damaged).unwrap();
    let world = world.restart().await;
    assert!(world.control.store_problem().unwrap().contains("damaged"));
    // Whether the key was revoked is in the store alone.
    for question in [Question::Resolve(filed()), Question::Revocations] {
        let answer = world.client.ask(question, world::DEADLINE).await;
        assert!(matches!(answer, Ok(Answer::Refused(_))), "{answer:?}");
    }
    let (status, answer) = world
        .post("/v1/organisations", json!({ "name": "x" }))
        .await;
    assert_eq!(status, 503, "{answer}");
    let (_, health) = world.anonymous("GET", "/v1/health", &[]).await;
    assert_eq!(health["store"], "unavailable");
    assert_eq!(std::fs::read(&path).unwrap(), damaged, "never made anew");
    // The backup is put back, and found at the next reload.
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(world.post("/v1/reload", json!({})).await.0, 200);
    assert!(world.resolve(filed()).await.is_some());
    assert_eq!(
        world
            .post("/v1/organisations", json!({ "name": "x" }))
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn a_store_that_vanished_is_not_made_anew() {
    let world = World::new().await;
    assert_eq!(
        world
            .post("/v1/organisations", json!({ "name": "a" }))
            .await
            .0,
        201
    );
    world.control.stop().await;
    std::fs::write(world.state.path().join("control.db"), b"").unwrap();
    let world = world.restart().await;
    assert!(
        world
            .control
            .store_problem()
            .unwrap()
            .contains("missing or empty")
    );
}

#[tokio::test]
async fn facts_cannot_be_changed_and_tampering_is_found() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        assert_eq!(
            world
                .post("/v1/organisations", json!({ "name": name }))
                .await
                .0,
            201
        );
    }
    let mut other = open(world.state.path()).await;
    for statement in ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"] {
        let refused = sqlx::query(statement)
            .execute(&mut other)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
    assert_eq!(world.control.verify_audit().await.unwrap().broken, None);
    for statement in [
        "DROP TRIGGER audit_stands",
        "DROP TRIGGER audit_is_kept",
        "UPDATE audit SET actor = 'nobody' WHERE seq = 2",
    ] {
        sqlx::query(statement).execute(&mut other).await.unwrap();
    }
    assert_eq!(
        world
            .control
            .verify_audit()
            .await
            .unwrap()
            .broken
            .unwrap()
            .seq,
        2
    );
    sqlx::query("UPDATE audit SET actor = 'admin' WHERE seq = 2")
        .execute(&mut other)
        .await
        .unwrap();
    assert_eq!(world.control.verify_audit().await.unwrap().broken, None);
    // Cut off at the end: the rest is whole, but audit-head knows better.
    sqlx::query("DELETE FROM audit WHERE seq = 3")
        .execute(&mut other)
        .await
        .unwrap();
    assert_eq!(
        world
            .control
            .verify_audit()
            .await
            .unwrap()
            .broken
            .unwrap()
            .seq,
        3
    );
    // And goes on knowing after a restart, although records are added again.
    drop(other);
    let world = world.restart().await;
    assert_eq!(
        world
            .post("/v1/organisations", json!({ "name": "d" }))
            .await
            .0,
        201
    );
    let broken = world.control.verify_audit().await.unwrap().broken.unwrap();
    assert_eq!(
        (broken.seq, broken.why.contains("cut off")),
        (3, true),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_backup_is_whole_and_private_and_replaces_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    assert_eq!(
        world
            .post("/v1/organisations", json!({ "name": "a" }))
            .await
            .0,
        201
    );
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("control.db");
    let body = json!({ "file": copy.to_str().unwrap() });
    let (status, answer) = world.post("/v1/backup", body.clone()).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(world.post("/v1/backup", body).await.0, 422);
    assert_eq!(
        world
            .post("/v1/backup", json!({ "file": "relative.db" }))
            .await
            .0,
        422
    );
    let mut other = open(directory.path()).await;
    let name: String = sqlx::query_scalar("SELECT name FROM organisations")
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!(name, "a");
}

#[tokio::test]
async fn the_state_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    assert_eq!(
        world
            .post("/v1/organisations", json!({ "name": "a" }))
            .await
            .0,
        201
    );
    for name in ["control.db", "admin-credential", "audit-head"] {
        let found = world.state.path().join(name).metadata().unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    // A file system of a few pages needs root: without, the database's own bound stands in for the disk's.
    let state = tempfile::tempdir().unwrap();
    let mut connection = {
        let options = SqliteConnectOptions::new()
            .filename(state.path().join("small.db"))
            .create_if_missing(true)
            .pragma("max_page_count", "2");
        SqliteConnection::connect_with(&options).await.unwrap()
    };
    sqlx::query("CREATE TABLE t (x TEXT)")
        .execute(&mut connection)
        .await
        .unwrap();
    let full = sqlx::query("INSERT INTO t VALUES ($1)")
        .bind("x".repeat(100_000))
        .execute(&mut connection)
        .await
        .unwrap_err();
    assert!(matches!(StoreError::from(full), StoreError::Full));
}

#[tokio::test]
async fn of_two_processes_on_one_store_each_hears_of_the_other() {
    let world = World::with_files(files()).await;
    let (successor, client) = world.beside().await;
    let asked = async || match client
        .ask(Question::Resolve(filed()), world::DEADLINE)
        .await
    {
        Ok(Answer::Resolved(resolved)) => resolved.caller.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(asked().await);
    let mut heard = client.announcements();
    // Both add to the audit log, neither knowing what the other added.
    for client in [&world.client, &client, &world.client] {
        let record = AuditRecord {
            at: Timestamp::from_seconds(1),
            request_id: "r".to_owned(),
            api: "a".into(),
            generation: 1,
            operation: "o".into(),
            consumer: "".into(),
            credential: "".into(),
            client: None,
            verdict: "allow".into(),
            rule: String::new(),
        };
        let noted = client
            .ask(Question::Audit(vec![record]), world::DEADLINE)
            .await;
        assert!(matches!(noted, Ok(Answer::Noted)), "{noted:?}");
    }
    let (_, keys) = world.get("/v1/consumers/filed/keys").await;
    let id = keys["items"][0]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{keys}"));
    let path = format!("/v1/keys/{id}/revoke");
    assert_eq!(
        world.post(&path, json!({ "reason": "leaked" })).await.0,
        200
    );
    let announced =
        async { while !matches!(heard.recv().await.unwrap(), Announcement::Revoked { .. }) {} };
    tokio::time::timeout(world::DEADLINE, announced)
        .await
        .unwrap();
    assert!(!asked().await, "the successor knows");
    assert_eq!(successor.verify_audit().await.unwrap().broken, None);
}

#[tokio::test]
async fn a_change_the_database_gave_up_by_itself_stands_in_no_later_ones_way() {
    let world = World::with_files(files()).await;
    let mut other = open(world.state.path()).await;
    // As it does on a full disk, only that this needs none.
    let guard = "CREATE TRIGGER no_more BEFORE INSERT ON organisations BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    sqlx::query(guard).execute(&mut other).await.unwrap();
    for _ in 0..8 {
        let (status, answer) = world
            .post("/v1/organisations", json!({ "name": "x" }))
            .await;
        assert_eq!(status, 503, "{answer}");
    }
    sqlx::query("DROP TRIGGER no_more")
        .execute(&mut other)
        .await
        .unwrap();
    let (status, answer) = world
        .post("/v1/organisations", json!({ "name": "x" }))
        .await;
    assert_eq!(status, 201, "{answer}");
}
