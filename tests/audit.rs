//! Every administrative act and every denial is recorded, in a chain that shows whether somebody changed it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::Value;
use world::shop::shop;
use world::store::Store;
use world::{Service, World, eventually};

/// All records, oldest first.
fn records(world: &World) -> Vec<Value> {
    let page = world
        .cli(&["audit", "list", "--limit", "500", "--json"])
        .json();
    page.as_array().expect("a list").clone()
}

/// Waits until so many records satisfy `wanted`; gives them.
fn found(world: &World, what: &str, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut found = Vec::new();
    eventually(what, || {
        found = records(world);
        found.retain(&wanted);
        found.len() >= count
    });
    found
}

#[test]
fn administrative_acts_are_recorded_with_what_they_changed() {
    let service = Service::new();
    let world = shop(&service).start();
    let text = world.file("usage.md");
    std::fs::write(&text, "# Usage\n").unwrap();
    let acts: [&[&str]; 13] = [
        &["organisations", "create", "acme"],
        &["projects", "create", "tools", "--organisation", "acme"],
        &["plans", "create", "basic", "--api", "shop"],
        &["consumers", "create", "robot", "--project", "tools"],
        &["consumers", "subscribe", "robot", "shop", "basic"],
        &["consumers", "suspend", "robot"],
        &["consumers", "resume", "robot"],
        &["consumers", "unsubscribe", "robot", "shop"],
        &["terms", "create", "usage", "--title", "Usage"],
        &["terms", "version", "usage", text.to_str().unwrap()],
        &[
            "terms",
            "accept",
            "usage",
            "--consumer",
            "robot",
            "--version",
            "1",
        ],
        &[
            "revocations",
            "create",
            "token",
            "https://id.example",
            "7",
            "--reason",
            "stolen",
        ],
        &["plans", "delete", "basic"],
    ];
    for act in acts {
        world.cli(act).good();
    }
    let key = world.key("robot");
    world
        .cli(&["keys", "revoke", &key.id, "--reason", "leaked"])
        .good();
    world.cli(&["consumers", "delete", "robot"]).good();
    let records = records(&world);
    let by_admin = records.iter().filter(|it| it["actor"] == "admin");
    assert_eq!(by_admin.count(), acts.len() + 3, "{records:#?}");
    for record in &records {
        assert!(record["at"].as_str().unwrap().starts_with("20"), "{record}");
        assert!(!record["action"].as_str().unwrap().is_empty(), "{record}");
        assert!(!record.to_string().contains(&key.secret), "{record}");
    }
    let of = |action: &str| {
        let found = records.iter().find(|it| it["action"] == action);
        found.unwrap_or_else(|| panic!("no {action} in {records:#?}"))
    };
    assert_eq!(of("key.revoke")["subject"], key.id.as_str());
    assert_eq!(of("key.revoke")["detail"]["reason"], "leaked");
    assert_eq!(of("key.revoke")["from"], "127.0.0.1");
    assert_eq!(of("consumer.delete")["subject"], "robot");
    let verdict = world.cli(&["audit", "verify", "--json"]).json();
    assert_eq!(verdict["broken"], Value::Null, "{verdict}");
    assert_eq!(verdict["records"], records.len(), "{verdict}");
}

#[test]
fn denials_are_recorded_with_who_what_and_by_which_rule() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    let headers = [("x-api-key", &*key.secret)];
    let refused = world.ask("DELETE", "/v1/books/1", &headers, b"");
    refused.is_problem(403, "not_in_plan");
    world
        .get("/v1/books")
        .is_problem(401, "credential_required");
    let wrong = [("x-api-key", "tg_live_wrong-wrong-wrong")];
    world
        .ask("GET", "/v1/books", &wrong, b"")
        .is_problem(401, "credential_invalid");
    assert_eq!(world.get("/v1/nowhere").status, 404);
    let decisions = found(&world, "three denials are recorded", 3, |it| {
        it["action"] == "decision" && it["detail"]["verdict"] != "allow"
    });
    assert_eq!(
        decisions.len(),
        3,
        "a path that is not there is no decision: {decisions:#?}"
    );
    let of = |verdict: &str| {
        let found = decisions
            .iter()
            .find(|it| it["detail"]["verdict"] == verdict);
        found.unwrap_or_else(|| panic!("no {verdict} in {decisions:#?}"))
    };
    let denial = of("not_in_plan");
    assert_eq!(denial["subject"], refused.header("x-request-id").unwrap());
    assert_eq!(denial["detail"]["api"], "shop", "{denial}");
    assert_eq!(denial["detail"]["operation"], "deleteBook", "{denial}");
    assert_eq!(denial["detail"]["consumer"], "web", "{denial}");
    assert_eq!(denial["detail"]["credential"], key.id.as_str(), "{denial}");
    assert!(
        denial["detail"]["rule"]
            .as_str()
            .unwrap()
            .contains("plans.yaml:4:"),
        "{denial}"
    );
    assert!(denial["detail"]["generation"].is_u64(), "{denial}");
    assert_eq!(denial["from"], "127.0.0.1", "{denial}");
    let unknown = of("credential_invalid");
    assert!(!unknown.to_string().contains("wrong-wrong"), "{unknown}");
    let _also = of("credential_required");
}

#[test]
fn a_call_that_was_cut_short_is_recorded_with_its_caller() {
    let service = Service::answering(|_, stream| {
        use std::io::Write as _;
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
        world::Then::Hold
    });
    let world = shop(&service).start();
    let key = world.key("desk");
    let mut client = world.client();
    client.request("GET", "/v1/events", &[("x-api-key", &key.secret)], b"");
    assert_eq!(client.head().unwrap().status, 200);
    world.cli(&["keys", "revoke", &key.id]).good();
    let _torn = client.rest();
    let noted = found(&world, "the end is recorded", 1, |it| {
        it["detail"]["verdict"] == "credential_revoked"
    });
    assert_eq!(noted[0]["detail"]["consumer"], "desk", "{noted:?}");
    assert_eq!(
        noted[0]["detail"]["credential"],
        key.id.as_str(),
        "{noted:?}"
    );
}

#[test]
fn tries_without_the_credential_are_recorded() {
    let service = Service::new();
    let world = shop(&service).start();
    let answer = world.ask_control_as("", "DELETE", "/v1/consumers/web", &Value::Null);
    assert_eq!(answer.status, 401);
    let _noted = found(&world, "the try is recorded", 1, |it| {
        it["action"] == "admin.refused"
    });
}

#[test]
fn what_was_decided_before_the_end_is_not_lost_by_it() {
    let service = Service::new();
    let mut world = shop(&service).start();
    for _ in 0..50 {
        world
            .get("/v1/books")
            .is_problem(401, "credential_required");
    }
    world.signal("TERM");
    assert!(world.ended().success());
    let home = world.kill();
    let world = shop(&service).start_again(home.path());
    let denials = records(&world);
    let denials = denials.iter().filter(|it| it["action"] == "decision");
    assert_eq!(denials.count(), 50);
}

#[test]
fn a_log_that_somebody_changed_is_found() {
    let service = Service::new();
    let tampering = [
        (
            "changed",
            "UPDATE audit SET subject = 'nobody' WHERE seq = 2",
        ),
        ("a record taken out", "DELETE FROM audit WHERE seq = 2"),
        ("cut off", "DELETE FROM audit WHERE seq >= 3"),
    ];
    for (what, statement) in tampering {
        let world = shop(&service).start();
        for name in ["a", "b", "c", "d"] {
            world.cli(&["organisations", "create", name]).good();
        }
        world.cli(&["audit", "verify"]).good();
        let store = Store::of(&world);
        assert!(
            store.run(statement).is_err(),
            "{what}: the database itself refuses"
        );
        // Whoever can write the file can take the guards away.
        for guard in ["audit_is_kept", "audit_stands"] {
            store.run(&format!("DROP TRIGGER {guard}")).unwrap();
        }
        store.run(statement).unwrap();
        let verdict = world.cli(&["audit", "verify", "--json"]);
        assert_eq!(verdict.status.code(), Some(1), "{what}: {verdict:?}");
        let verdict: Value = serde_json::from_str(&verdict.out).unwrap();
        let seq = verdict["broken"]["seq"].as_u64().unwrap();
        assert!((2..=4).contains(&seq), "{what}: {verdict}");
        assert!(verdict["broken"]["why"].is_string(), "{what}: {verdict}");
    }
}
