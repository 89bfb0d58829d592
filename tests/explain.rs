//! Why a call is answered as it is can be asked: by describing it, by its request id, and by a header for those who may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::Value;
use world::shop::{shop, shop_with};
use world::{HOST, Service};

const ACL: &str = "\
acl:
  - name: lockdown
    effect: deny
    operations: [deleteBook]
    networks: [192.0.2.0/24]
";

/// The rule of this kind in an explanation.
fn rule<'e>(explained: &'e Value, kind: &str) -> &'e Value {
    let rules = explained["rules"].as_array().expect("a list of rules");
    let found = rules.iter().find(|rule| rule["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {explained:#}"))
}

fn place(rule: &Value) -> &str {
    rule["place"].as_str().unwrap_or_default()
}

#[test]
fn a_described_call_is_explained_rule_by_rule_and_goes_nowhere() {
    let service = Service::new();
    let world = shop_with(&service, ACL).start();
    let key = world.key("desk");
    let field = format!("x-api-key: {}", key.secret);
    let url = format!("http://{HOST}/v1/books/1?api_key={}", key.secret);
    let ask = |client: &str| {
        world.cli(&[
            "explain", "DELETE", &url, "-H", &field, "--client", client, "--json",
        ])
    };
    let good = ask("127.0.0.1");
    let explained = good.json();
    assert_eq!(explained["verdict"], "allow", "{explained:#}");
    assert_eq!(explained["api"], "shop");
    assert_eq!(explained["operation"], "deleteBook");
    assert_eq!(explained["consumer"], "desk");
    assert_eq!(explained["credential"], key.id.as_str());
    assert_eq!(explained["plan"], "all");
    assert!(
        explained["held_for_ms"].is_u64(),
        "the cache's age: {explained:#}"
    );
    assert!(explained["generation"].is_u64());
    assert_eq!(rule(&explained, "security")["outcome"], "passed");
    let consumer = place(rule(&explained, "consumer"));
    assert!(consumer.contains("consumers.yaml:6:"), "{consumer}");
    let plan = rule(&explained, "plan");
    assert!(place(plan).contains("plans.yaml:2:"), "{plan}");
    assert_eq!(plan["detail"], "opens deleteBook");
    let acl = rule(&explained, "acl");
    assert_eq!(acl["outcome"], "not_applicable", "{acl}");
    assert!(place(acl).contains("apis/shop.yaml:5:"), "{acl}");
    assert!(
        acl["detail"].as_str().unwrap().contains("127.0.0.1"),
        "{acl}"
    );
    let bad = ask("192.0.2.7");
    assert_eq!(bad.status.code(), Some(1), "it would be refused: {bad:?}");
    let explained: Value = serde_json::from_str(&bad.out).unwrap();
    assert_eq!(explained["verdict"], "not_permitted", "{explained:#}");
    assert_eq!(explained["status"], 403);
    assert_eq!(rule(&explained, "acl")["outcome"], "refused");
    for ran in [&good, &bad] {
        assert!(!ran.out.contains(&key.secret), "{}", ran.out);
    }
    // Asking is no call.
    assert_eq!(service.calls().len(), 0);
    let log = std::fs::read_to_string(world.file("access.log")).unwrap_or_default();
    assert!(!log.contains("deleteBook"), "{log}");
}

#[test]
fn people_read_the_same() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    let field = format!("x-api-key: {}", key.secret);
    let ran = world.cli(&["explain", "DELETE", "/v1/books/1", "-H", &field]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    for part in [
        "deleteBook",
        "web",
        &key.id,
        "reader",
        "held for",
        "security header: passed",
        "plans.yaml:4:",
        "plan reader: refused (does not open deleteBook)",
        "not_in_plan (403)",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    assert!(!ran.out.contains(&key.secret), "{}", ran.out);
}

#[test]
fn what_is_wrong_with_a_credential_is_said_to_the_operator_alone() {
    let service = Service::new();
    let world = shop(&service).start();
    let expired = world.key_with("web", &["--not-before", "2999-01-01T00:00:00Z"]);
    let revoked = world.key("web");
    world.cli(&["keys", "revoke", &revoked.id]).good();
    let table = [
        ("x-api-key: tg_live_nonsense".to_owned(), "malformed"),
        (format!("x-api-key: {}", revoked.secret), "not known"),
        (format!("x-api-key: {}", expired.secret), "valid from 2999"),
        ("accept: */*".to_owned(), "no credential of this kind"),
    ];
    for (field, why) in table {
        let ran = world.cli(&["explain", "GET", "/v1/books/1", "-H", &field]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.out.contains(why), "{why}: {}", ran.out);
        assert!(!ran.out.contains(&revoked.secret) && !ran.out.contains(&expired.secret));
    }
    let answer = world.get_with(&expired, "/v1/books/1");
    answer.is_problem(401, "credential_invalid");
    assert!(!answer.text().contains("2999"), "{answer:?}");
}

#[test]
fn a_recent_call_is_explained_by_its_request_id() {
    let service = Service::new();
    let world = shop_with(&service, ACL).start();
    let (web, desk) = (world.key("web"), world.key("desk"));
    let secret = &web.secret;
    let refused = world.ask(
        "DELETE",
        &format!("/v1/books/1?x=1&api_key={secret}"),
        &[("x-api-key", secret)],
        b"",
    );
    refused.is_problem(403, "not_in_plan");
    let served = world.get_with(&desk, "/v1/books/1");
    let unknown = world.get("/v1/books");
    let explain = |answer: &world::Answer| {
        let id = answer.header("x-request-id").unwrap();
        let _written = world.record(id);
        let ran = world.cli(&["explain", "--request-id", id, "--json"]);
        assert!(!ran.out.contains(secret) && !ran.out.contains(&desk.secret));
        let explained: Value = serde_json::from_str(&ran.out).expect("JSON");
        (ran.status.code(), explained)
    };
    let (code, explained) = explain(&refused);
    assert_eq!(code, Some(1));
    assert_eq!(explained["verdict"], "not_in_plan", "{explained:#}");
    assert_eq!(explained["status"], 403);
    assert_eq!(explained["consumer"], "web");
    assert_eq!(explained["credential"], web.id.as_str());
    assert_eq!(explained["plan"], "reader");
    assert!(explained["held_for_ms"].is_u64());
    let plan = rule(&explained, "plan");
    assert_eq!(plan["outcome"], "refused");
    assert!(place(plan).contains("plans.yaml:4:"), "{plan}");
    assert!(explained["at"].as_str().unwrap().starts_with("20"));
    let (code, explained) = explain(&served);
    assert_eq!(code, Some(0));
    assert_eq!(explained["verdict"], "allow", "{explained:#}");
    assert_eq!(rule(&explained, "plan")["outcome"], "passed");
    let (_, explained) = explain(&unknown);
    assert_eq!(explained["verdict"], "credential_required", "{explained:#}");
    let none = world.cli(&["explain", "--request-id", "0123456789abcdef"]);
    assert!(none.failed().contains("no recent call"), "{none:?}");
}

#[test]
fn a_call_before_a_change_is_explained_as_it_was_decided() {
    let service = Service::new();
    let world = shop(&service).start();
    world
        .cli(&[
            "consumers",
            "create",
            "one",
            "--project",
            "floor",
            "--subscribe",
            "shop=all",
        ])
        .good();
    let key = world.key("one");
    let served = world.get_with(&key, "/v1/books");
    assert_eq!(served.status, 200);
    let id = served.header("x-request-id").unwrap();
    let _written = world.record(id);
    world
        .cli(&["consumers", "unsubscribe", "one", "shop"])
        .good();
    let explained = world.cli(&["explain", "--request-id", id, "--json"]).json();
    assert_eq!(explained["verdict"], "allow", "{explained:#}");
    assert_eq!(rule(&explained, "plan")["outcome"], "passed");
}

#[test]
fn the_header_answers_those_who_may_see_it() {
    let service = Service::answering(|_, stream| {
        use std::io::Write as _;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-tollgate-explain: mine\r\n\r\nok";
        let _ = stream.write_all(answer);
        world::Then::Continue
    });
    let world = shop_with(&service, ACL).start();
    let (desk, web) = (world.key("desk"), world.key("web"));
    let ask = |key: &world::shop::Key, method: &str| {
        let headers = [("x-api-key", &*key.secret), ("x-tollgate-explain", "1")];
        world.ask(method, "/v1/books/1", &headers, b"")
    };
    let told = ask(&desk, "DELETE");
    assert_eq!(told.status, 200);
    assert_eq!(
        told.headers
            .iter()
            .filter(|(name, _)| name == "x-tollgate-explain")
            .count(),
        1
    );
    let text = told.header("x-tollgate-explain").unwrap();
    for part in [
        "plan all: passed",
        "plans.yaml:2:",
        "acl lockdown: not applicable",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(&desk.secret), "{text}");
    assert_eq!(service.last().header("x-tollgate-explain"), None);
    let silent = ask(&web, "DELETE");
    silent.is_problem(403, "not_in_plan");
    assert_eq!(silent.header("x-tollgate-explain"), None, "{silent:?}");
    let silent = world.ask("GET", "/v1/books/1", &[("x-tollgate-explain", "1")], b"");
    assert_eq!(silent.header("x-tollgate-explain"), None, "{silent:?}");
    let plain = world.get_with(&desk, "/v1/books/1");
    assert_ne!(
        plain.header("x-tollgate-explain").map(str::len),
        Some(text.len())
    );
    // A refusal is explained in the same way.
    let only = world.key_with("desk", &["--operation", "getBook"]);
    let refused = ask(&only, "DELETE");
    refused.is_problem(403, "credential_restricted");
    let text = refused.header("x-tollgate-explain").unwrap();
    assert!(text.contains("refused (not for this operation)"), "{text}");
}
