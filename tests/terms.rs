//! Terms stand between a consumer and an API until they are accepted: read, accepted and passed on the API itself, with a time of grace
//! for new versions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tollgate_policy::time::Timestamp;
use world::shop::{Key, shop};
use world::{Answer, Plan, Service, World, eventually};

const HOUR: Duration = Duration::from_secs(3600);

const FIRST: &str = "# Fair use\n\nBe fair.\n";
const SECOND: &str = "# Fair use\n\nBe fairer.\n";

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_millis(i64::try_from(since.unwrap().as_millis()).unwrap())
}

/// `terms.yaml` with the first version, and what else is given.
fn terms_file(more: &str) -> String {
    format!(
        "terms:\n  fair-use:\n    title: Fair use\n    apis: [shop]\n{more}    versions:\n      \
         - {{ version: 1, text: terms/fair-use-1.md, effective: 2026-01-01T00:00:00Z, purpose: required }}\n"
    )
}

/// A second version that took effect an hour ago.
fn with_second(grace: &str) -> String {
    let effective = now().minus(HOUR);
    terms_file("")
        + &format!(
            "      - {{ version: 2, text: terms/fair-use-2.md, effective: {effective}, grace: {grace} }}\n"
        )
}

fn plan(service: &Service, terms: &str) -> Plan {
    shop(service)
        .file("terms.yaml", terms)
        .file("terms/fair-use-1.md", FIRST)
        .file("terms/fair-use-2.md", SECOND)
}

fn accept(world: &World, key: &Key, link: &str, body: &Value) -> Answer {
    let headers = [
        ("x-api-key", &*key.secret),
        ("content-type", "application/json"),
    ];
    let body = body.to_string();
    world.ask(
        "POST",
        &format!("{link}/acceptance"),
        &headers,
        body.as_bytes(),
    )
}

#[test]
fn refused_with_a_link_read_accepted_and_served() {
    let service = Service::new();
    let world = plan(&service, &terms_file("")).start();
    let key = world.key("web");
    let refused = world.get_with(&key, "/v1/books");
    refused.is_problem(403, "terms_not_accepted");
    let terms = &refused.json()["terms"];
    assert_eq!(terms["name"], "fair-use", "{refused:?}");
    assert_eq!(terms["version"], 1, "{refused:?}");
    let link = terms["link"].as_str().unwrap();
    assert_eq!(link, "/v1/.tollgate/terms/fair-use");
    let field = refused.header("link").unwrap();
    assert!(field.contains(link), "{field}");
    let text = world.get_with(&key, link);
    assert_eq!((text.status, &*text.text()), (200, FIRST));
    assert!(
        text.header("content-type")
            .unwrap()
            .starts_with("text/markdown")
    );
    let listed = world.get_with(&key, "/v1/.tollgate/terms").json();
    assert_eq!(listed["terms"][0]["accepted"], false, "{listed}");
    assert_eq!(listed["terms"][0]["purpose_required"], true, "{listed}");
    let hash = listed["terms"][0]["text_hash"].clone();
    let done = accept(
        &world,
        &key,
        link,
        &json!({ "version": 1, "purpose": "a shop window", "text_hash": hash }),
    );
    assert_eq!(done.status, 201, "{done:?}");
    let begun = Instant::now();
    let served = world.get_with(&key, "/v1/books");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(served.status, 200, "{served:?}");
    assert_eq!(served.header("x-tollgate-terms-due"), None);
    assert_eq!(service.calls().len(), 1, "nothing else reached the service");
    let own = world.get_with(&key, "/v1/.tollgate/").json();
    assert_eq!(own["consumer"], "web", "{own}");
    assert_eq!(
        own["subscriptions"][0]["terms"][0]["accepted"], true,
        "{own}"
    );
    assert!(!own.to_string().contains(&key.secret));
    // The record: who, when, from where, with which key, what for.
    let kept = world
        .cli(&["terms", "acceptances", "fair-use", "--json"])
        .json();
    assert_eq!(kept[0]["consumer"], "web", "{kept}");
    assert_eq!(kept[0]["version"], 1, "{kept}");
    assert_eq!(kept[0]["purpose"], "a shop window", "{kept}");
    assert_eq!(kept[0]["from"], "127.0.0.1", "{kept}");
    assert_eq!(kept[0]["credential"], key.id.as_str(), "{kept}");
    // Accepted by one, not by another.
    let other = world.key("desk");
    world
        .get_with(&other, "/v1/books")
        .is_problem(403, "terms_not_accepted");
}

#[test]
fn an_acceptance_survives_a_restart() {
    let service = Service::new();
    let world = plan(&service, &terms_file("")).start();
    let key = world.key("web");
    let body = json!({ "version": 1, "purpose": "x" });
    let done = accept(&world, &key, "/v1/.tollgate/terms/fair-use", &body);
    assert_eq!(done.status, 201, "{done:?}");
    let home = world.kill();
    let world = plan(&service, &terms_file("")).start_again(home.path());
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
}

#[test]
fn an_acceptance_is_for_what_was_read_and_says_what_for() {
    let service = Service::new();
    let world = plan(&service, &terms_file("")).start();
    let key = world.key("web");
    let link = "/v1/.tollgate/terms/fair-use";
    let table = [
        ("no purpose", json!({ "version": 1 })),
        ("an empty purpose", json!({ "version": 1, "purpose": "  " })),
        ("another version", json!({ "version": 7, "purpose": "x" })),
        (
            "another text",
            json!({ "version": 1, "purpose": "x", "text_hash": "00" }),
        ),
        (
            "unknown members",
            json!({ "version": 1, "purpose": "x", "who": "desk" }),
        ),
        (
            "a long purpose",
            json!({ "version": 1, "purpose": "x".repeat(2000) }),
        ),
        ("no object", json!("yes")),
    ];
    for (what, body) in table {
        let answer = accept(&world, &key, link, &body);
        answer.is_problem(400, "malformed_request");
        assert!(
            answer.json()["detail"].as_str().unwrap().len() > 10,
            "{what}: {answer:?}"
        );
    }
    let endless = json!({ "version": 1, "purpose": "x".repeat(10_000) });
    assert_eq!(accept(&world, &key, link, &endless).status, 413);
    let other = "/v1/.tollgate/terms/other";
    assert_eq!(
        accept(&world, &key, other, &json!({ "version": 1 })).status,
        404
    );
    assert_eq!(world.get_with(&key, other).status, 404);
    assert_eq!(world.get_with(&key, "/v1/.tollgate/unknown").status, 404);
    assert_eq!(
        world.get_with(&key, &format!("{link}/acceptance")).status,
        405
    );
    world
        .get_with(&key, "/v1/books")
        .is_problem(403, "terms_not_accepted");
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn only_consumers_are_told_about_themselves() {
    let service = Service::new();
    let world = plan(&service, &terms_file("")).start();
    let key = world.key("web");
    for path in [
        "/v1/.tollgate",
        "/v1/.tollgate/",
        "/v1/.tollgate/terms/fair-use",
    ] {
        world.get(path).is_problem(401, "credential_required");
        let wrong = [("x-api-key", "x-x-x-x-x-x-x-x-x-x")];
        world
            .ask("GET", path, &wrong, b"")
            .is_problem(401, "credential_invalid");
        // A browser sends cookies whoever wrote the form.
        let cookie = format!("session={}", key.secret);
        let answer = world.ask("GET", path, &[("cookie", &cookie)], b"");
        answer.is_problem(401, "credential_required");
    }
    world.cli(&["keys", "revoke", &key.id]).good();
    world
        .get_with(&key, "/v1/.tollgate/")
        .is_problem(401, "credential_invalid");
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn whoever_may_not_call_may_not_accept_either() {
    let service = Service::new();
    let world = plan(&service, &terms_file("")).start();
    let body = json!({ "version": 1, "purpose": "none" });
    let link = "/v1/.tollgate/terms/fair-use";
    let expired = world.key_with("web", &["--expires", "2026-01-01T00:00:00Z"]);
    accept(&world, &expired, link, &body).is_problem(401, "credential_invalid");
    let elsewhere = world.key_with("web", &["--network", "192.0.2.0/24"]);
    accept(&world, &elsewhere, link, &body).is_problem(403, "credential_restricted");
    let banned = world.key("banned");
    accept(&world, &banned, link, &body).is_problem(403, "consumer_suspended");
    world
        .get_with(&banned, "/v1/.tollgate/")
        .is_problem(403, "consumer_suspended");
    let key = world.key("web");
    assert_eq!(accept(&world, &key, link, &body).status, 201);
}

#[test]
fn a_new_version_warns_during_its_grace_and_then_refuses() {
    let service = Service::new();
    let world = plan(&service, &terms_file("")).start();
    let key = world.key("web");
    let link = "/v1/.tollgate/terms/fair-use";
    let body = json!({ "version": 1, "purpose": "x" });
    assert_eq!(accept(&world, &key, link, &body).status, 201);
    let rewrite = |text: &str| std::fs::write(world.file("config/terms.yaml"), text).unwrap();
    rewrite(&with_second("30d"));
    eventually("the new version is asked for", || {
        let answer = world.get_with(&key, "/v1/books");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-tollgate-terms-due").is_some()
    });
    let warned = world.get_with(&key, "/v1/books");
    let due = warned.header("x-tollgate-terms-due").unwrap();
    assert!(due.starts_with("fair-use; version=2; enforced=\""), "{due}");
    assert!(warned.header("link").unwrap().contains(link), "{warned:?}");
    // The grace is over.
    rewrite(&with_second("1s"));
    eventually("calls are refused", || {
        world.get_with(&key, "/v1/books").status == 403
    });
    let refused = world.get_with(&key, "/v1/books");
    refused.is_problem(403, "terms_not_accepted");
    assert_eq!(refused.json()["terms"]["version"], 2, "{refused:?}");
    assert_eq!(world.get_with(&key, link).text(), SECOND);
    let again = accept(&world, &key, link, &json!({ "version": 1, "purpose": "x" }));
    assert!(again.status < 500, "{again:?}");
    world
        .get_with(&key, "/v1/books")
        .is_problem(403, "terms_not_accepted");
    assert_eq!(
        accept(&world, &key, link, &json!({ "version": 2 })).status,
        201
    );
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
}

#[test]
fn terms_of_a_plan_bind_those_on_it_alone() {
    let service = Service::new();
    let plans = world::shop::PLANS.replace(
        "    apis: { shop: all }\n",
        "    apis: { shop: all }\n    terms: [fair-use]\n",
    );
    let terms = terms_file("").replace("    apis: [shop]\n", "");
    let world = plan(&service, &terms).file("plans.yaml", &plans).start();
    let (desk, web) = (world.key("desk"), world.key("web"));
    world
        .get_with(&desk, "/v1/books")
        .is_problem(403, "terms_not_accepted");
    assert_eq!(world.get_with(&web, "/v1/books").status, 200);
}

#[test]
fn terms_in_shadow_refuse_nobody() {
    let service = Service::new();
    let world = plan(&service, &terms_file("    shadow: true\n")).start();
    let key = world.key("web");
    let answer = world.get_with(&key, "/v1/books");
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = world.cli(&["shadow-report", "--json"]).json();
    assert_eq!(report[0]["kind"], "terms", "{report}");
    assert_eq!(report[0]["rule"], "fair-use", "{report}");
    assert_eq!(report[0]["consumer"], "web", "{report}");
    assert_eq!(report[0]["calls"], 1, "{report}");
}

#[test]
fn an_operator_records_what_was_accepted_elsewhere() {
    let service = Service::new();
    let world = plan(&service, &terms_file("")).start();
    let key = world.key("web");
    let verb = [
        "terms",
        "accept",
        "fair-use",
        "--consumer",
        "web",
        "--version",
        "1",
    ];
    let refused = world.cli(&verb);
    assert!(
        refused.failed().contains("what the API is used for"),
        "{refused:?}"
    );
    world
        .get_with(&key, "/v1/books")
        .is_problem(403, "terms_not_accepted");
    world
        .cli(&[&verb[..], &["--purpose", "signed on paper"]].concat())
        .good();
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
    let audit = world.cli(&["audit", "list", "--json"]).json();
    let noted = audit.as_array().unwrap().iter();
    let noted = noted.filter(|it| it["action"] == "terms.accept").count();
    assert_eq!(noted, 1, "{audit}");
}

#[test]
fn terms_made_by_the_command_line_bind_as_well() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
    let text = world.file("usage.md");
    std::fs::write(&text, "# Usage\n").unwrap();
    world
        .cli(&[
            "terms", "create", "usage", "--title", "Usage", "--api", "shop",
        ])
        .good();
    assert_eq!(
        world.get_with(&key, "/v1/books").status,
        200,
        "no version yet"
    );
    world
        .cli(&["terms", "version", "usage", text.to_str().unwrap()])
        .good();
    world
        .get_with(&key, "/v1/books")
        .is_problem(403, "terms_not_accepted");
    let link = "/v1/.tollgate/terms/usage";
    assert_eq!(
        accept(&world, &key, link, &json!({ "version": 1 })).status,
        201
    );
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
}
