//! Admission lives from memory: whatever happens to the store, callers that are known are served, and a change that cannot be kept is
//! refused with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::{Value, json};
use world::disk::{Disk, Sealed};
use world::shop::{self, shop};
use world::store::Store;
use world::{Plan, Service, World, eventually};

const FILE_KEY: &str = "a-key-that-stands-in-a-file";

fn with_file_key(service: &Service) -> Plan {
    let consumers = shop::CONSUMERS.replace(
        "            subscriptions: { shop: reader }\n",
        "            subscriptions: { shop: reader }\n            keys:\n              - { name: ci, secret: \"${SHOP_KEY}\" }\n",
    );
    shop(service)
        .file("consumers.yaml", &consumers)
        .environment("SHOP_KEY", FILE_KEY)
}

fn by_file(world: &World) -> u16 {
    world
        .ask("GET", "/v1/books", &[("x-api-key", FILE_KEY)], b"")
        .status
}

#[test]
fn while_the_store_is_locked_callers_are_served_and_changes_are_refused() {
    let service = Service::new();
    let terms = "terms:\n  usage:\n    versions:\n      - { version: 1, text: terms/usage.md, effective: 2026-01-01T00:00:00Z }\n";
    let world = with_file_key(&service)
        .file("terms.yaml", terms)
        .file("terms/usage.md", "# Usage\n")
        .start();
    let (known, unseen) = (world.key("web"), world.key("desk"));
    assert_eq!(world.get_with(&known, "/v1/books").status, 200);
    let store = Store::of(&world);
    let lock = store.lock();
    assert_eq!(world.get_with(&known, "/v1/books").status, 200);
    assert_eq!(
        world.get_with(&unseen, "/v1/books").status,
        200,
        "never seen before"
    );
    assert_eq!(by_file(&world), 200);
    world
        .get("/v1/books")
        .is_problem(401, "credential_required");
    let refused = world.cli(&["keys", "create", "web"]);
    assert!(refused.failed().contains("locked"), "{refused:?}");
    let answer = world.ask_control("POST", "/v1/organisations", &json!({ "name": "late" }));
    assert_eq!(answer.status, 503, "{answer:?}");
    // Nothing is wrong with what the consumer said: it is told to come again.
    let accept = |world: &World| {
        let headers = [("x-api-key", &*known.secret)];
        let path = "/v1/.tollgate/terms/usage/acceptance";
        world.ask("POST", path, &headers, b"{\"version\":1}")
    };
    let waits = accept(&world);
    if waits.status != 404 {
        waits.is_problem(503, "policy_unavailable");
    }
    drop(lock);
    assert!(world.cli(&["keys", "create", "web"]).status.success());
    // What was decided meanwhile was kept back, not lost.
    eventually("the denial is recorded", || {
        let records = world
            .cli(&["audit", "list", "--limit", "500", "--json"])
            .json();
        let mut records = records.as_array().unwrap().iter();
        records.any(|it| it["detail"]["verdict"] == "credential_required")
    });
    world.cli(&["audit", "verify"]).good();
}

#[test]
fn started_with_a_damaged_store_nobody_is_identified_and_nothing_is_made_anew() {
    let service = Service::new();
    let world = with_file_key(&service).start();
    let made = world.key("desk");
    let home = world.kill();
    let path = home.path().join("state/control.db");
    let _written_ahead = std::fs::remove_file(home.path().join("state/control.db-wal"));
    std::fs::write(&path, b"this is no database at all, whatever its name says").unwrap();
    let world = with_file_key(&service).start_again(home.path());
    assert!(world.log().contains("damaged"), "{}", world.log());
    // Whether the key of the file was revoked is in the store alone.
    assert_eq!(by_file(&world), 503);
    world
        .get_with(&made, "/v1/books")
        .is_problem(503, "policy_unavailable");
    let refused = world.cli(&["keys", "create", "web"]);
    assert!(refused.failed().contains("damaged"), "{refused:?}");
    let answer = world.ask_control("POST", "/v1/organisations", &json!({ "name": "x" }));
    assert_eq!(answer.status, 503, "{answer:?}");
    let health = world
        .ask_control_as("", "GET", "/v1/health", &Value::Null)
        .json();
    assert_eq!(health["store"], "unavailable", "{health}");
    let kept = std::fs::read(&path).unwrap();
    assert!(
        kept.starts_with(b"this is no database"),
        "it is left as it was"
    );
}

#[test]
fn a_store_that_is_restored_is_found_without_a_word() {
    let service = Service::new();
    let world = with_file_key(&service).start();
    let made = world.key("desk");
    let copy = world.file("copy.db");
    world.cli(&["backup", copy.to_str().unwrap()]).good();
    let mode = std::fs::metadata(&copy).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    let again = world.cli(&["backup", copy.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1), "never over a file: {again:?}");
    let home = world.kill();
    let state = home.path().join("state");
    for name in ["control.db-wal", "control.db-shm"] {
        let _not_there = std::fs::remove_file(state.join(name));
    }
    std::fs::write(state.join("control.db"), vec![b'x'; 8192]).unwrap();
    let world = with_file_key(&service).start_again(home.path());
    assert_ne!(world.get_with(&made, "/v1/books").status, 200);
    std::fs::copy(&copy, state.join("control.db")).unwrap();
    eventually("the restored store is read", || {
        world.get_with(&made, "/v1/books").status == 200
    });
    assert!(world.cli(&["keys", "create", "web"]).status.success());
}

#[test]
fn with_a_store_that_cannot_be_written_callers_are_served() {
    let service = Service::new();
    let world = with_file_key(&service).start();
    let made = world.key("desk");
    assert_eq!(world.get_with(&made, "/v1/books").status, 200);
    // The superuser writes whatever the mode says; the database's own word holds for everybody.
    let store = Store::of(&world);
    let guard =
        "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END";
    store.run(guard).unwrap();
    let refused = world.cli(&["keys", "create", "web"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let listed = world.cli(&["keys", "list", "web", "--json"]).json();
    assert_eq!(
        listed.as_array().unwrap().len(),
        1,
        "nothing half done: {listed}"
    );
    assert_eq!(world.get_with(&made, "/v1/books").status, 200);
    assert_eq!(by_file(&world), 200);
    let revoked = world.cli(&["keys", "revoke", &made.id]);
    assert_eq!(
        revoked.status.code(),
        Some(1),
        "not done, and said so: {revoked:?}"
    );
    store.run("DROP TRIGGER no_more").unwrap();
    world.cli(&["keys", "revoke", &made.id]).good();
    world
        .get_with(&made, "/v1/books")
        .is_problem(401, "credential_invalid");
}

#[test]
fn on_a_full_disk_callers_are_served_and_changes_refused_until_there_is_room() {
    let service = Service::new();
    let Some(disk) = Disk::new() else { return };
    // What is used cannot be recorded on so small a disk; here that is not to refuse anybody.
    let process = "listeners: [{ address: 127.0.0.1:0 }]\nusage: { on_full: serve_unmetered }\n";
    let world = with_file_key(&service)
        .process(process)
        .state(disk.path())
        .start();
    let (known, unseen) = (world.key("web"), world.key("desk"));
    assert_eq!(world.get_with(&known, "/v1/books").status, 200);
    disk.fill();
    let make = |number: usize| {
        let body = json!({ "name": format!("late-{number}"), "title": "x".repeat(200) });
        world.ask_control("POST", "/v1/organisations", &body)
    };
    // Room the store has already is used up first.
    let mut asked = (0..2000).map(|number| (number, make(number)));
    let (made, refused) = asked
        .find(|(_, answer)| answer.status != 201)
        .expect("the disk is full");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("full"), "{refused:?}");
    assert_eq!(world.get_with(&known, "/v1/books").status, 200);
    assert_eq!(world.get_with(&unseen, "/v1/books").status, 200);
    assert_eq!(by_file(&world), 200);
    let refused = world.cli(&["keys", "revoke", &known.id]);
    assert!(refused.failed().contains("full"), "{refused:?}");
    assert_eq!(
        world.get_with(&known, "/v1/books").status,
        200,
        "as was said"
    );
    world
        .get("/v1/books")
        .is_problem(401, "credential_required");
    disk.clear();
    // Nothing that was answered is lost, nothing that was refused is half there.
    assert_eq!(make(made).status, 201);
    for number in 0..=made {
        let path = format!("/v1/organisations/late-{number}");
        let shown = world.ask_control("GET", &path, &Value::Null);
        assert_eq!(shown.status, 200, "{path}");
    }
    world.cli(&["keys", "revoke", &known.id]).good();
    world
        .get_with(&known, "/v1/books")
        .is_problem(401, "credential_invalid");
    world.cli(&["audit", "verify"]).good();
}

#[test]
fn a_store_that_is_read_only_identifies_callers_and_refuses_changes() {
    let service = Service::new();
    let world = with_file_key(&service).start();
    let made = world.key("desk");
    let home = world.kill();
    let Some(sealed) = Sealed::new(&home.path().join("state/control.db")) else {
        return;
    };
    let world = with_file_key(&service).start_again(home.path());
    assert_eq!(
        world.get_with(&made, "/v1/books").status,
        200,
        "{}",
        world.log()
    );
    assert_eq!(by_file(&world), 200);
    let refused = world.cli(&["keys", "create", "web"]);
    assert!(
        refused.failed().contains("cannot be written"),
        "{refused:?}"
    );
    let home = world.kill();
    drop(sealed);
    let world = with_file_key(&service).start_again(home.path());
    assert!(world.cli(&["keys", "create", "web"]).status.success());
    assert_eq!(world.get_with(&made, "/v1/books").status, 200);
}
