//! A rule in shadow is evaluated, counted and reported, and refuses nobody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::Value;
use world::Service;
use world::shop::{shop, shop_with};

const SHADOWS: &str = "\
acl:
  - name: partners
    effect: allow
    operations: [getBook]
    consumers: [desk]
    shadow: true
  - name: no-deletes
    effect: deny
    operations: [deleteBook]
    shadow: true
networks:
  deny: [127.0.0.0/8]
  shadow: true
";

#[test]
fn who_would_be_refused_is_served_counted_and_reported() {
    let service = Service::new();
    let world = shop_with(&service, SHADOWS).start();
    let none = world.cli(&["shadow-report"]);
    assert!(none.good().contains("no rule in shadow"), "{none:?}");
    let (desk, web) = (world.key("desk"), world.key("web"));
    for _ in 0..3 {
        assert_eq!(world.get_with(&web, "/v1/books/1").status, 200);
    }
    assert_eq!(world.get_with(&desk, "/v1/books/1").status, 200);
    let deleted = world.ask("DELETE", "/v1/books/1", &[("x-api-key", &desk.secret)], b"");
    assert_eq!(deleted.status, 200);
    let report = world.cli(&["shadow-report", "--json"]).json();
    let calls = |rule: &str, consumer: &str| {
        let lines = report.as_array().unwrap().iter();
        let mut found = lines.filter(|it| it["rule"] == rule && it["consumer"] == consumer);
        found.next().map(|it| it["calls"].clone())
    };
    assert_eq!(calls("partners", "web"), Some(Value::from(3)), "{report:#}");
    assert_eq!(calls("partners", "desk"), None, "{report:#}");
    assert_eq!(
        calls("no-deletes", "desk"),
        Some(Value::from(1)),
        "{report:#}"
    );
    let networks = report
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["kind"] == "network");
    let networks: u64 = networks.map(|it| it["calls"].as_u64().unwrap()).sum();
    assert_eq!(networks, 5, "{report:#}");
    let text = world.cli(&["shadow-report"]);
    for part in ["partners", "3 calls", "web", "apis/shop.yaml:5:"] {
        assert!(text.good().contains(part), "{part}: {text:?}");
    }
}

#[test]
fn a_shadow_is_named_by_explanations_and_refuses_once_it_is_enforced() {
    let service = Service::new();
    let world = shop_with(&service, SHADOWS).start();
    let web = world.key("web");
    let field = format!("x-api-key: {}", web.secret);
    let ran = world.cli(&["explain", "GET", "/v1/books/1", "-H", &field]);
    assert!(ran.status.success(), "{ran:?}");
    assert!(ran.out.contains("acl partners"), "{}", ran.out);
    assert!(ran.out.contains("shadow"), "{}", ran.out);
    let report = world.cli(&["shadow-report", "--json"]).json();
    assert_eq!(
        report.as_array().unwrap().len(),
        0,
        "asking is no call: {report}"
    );
    let file = world.file("config/apis/shop.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("    shadow: true\n", "", 1)).unwrap();
    world::eventually("the rule is enforced", || {
        world.get_with(&web, "/v1/books/1").status == 403
    });
    world
        .get_with(&web, "/v1/books/1")
        .is_problem(403, "not_permitted");
}

#[test]
fn a_shadow_hides_no_rule_that_is_enforced() {
    let service = Service::new();
    let more = SHADOWS.to_owned() + "auth:\n  subscription: required\n";
    let world = shop_with(&service, &more).start();
    let (web, guest) = (world.key("web"), world.key("guest"));
    let refused = world.ask("DELETE", "/v1/books/1", &[("x-api-key", &web.secret)], b"");
    refused.is_problem(403, "not_in_plan");
    world
        .get_with(&guest, "/v1/books")
        .is_problem(403, "not_subscribed");
    world
        .get("/v1/books")
        .is_problem(401, "credential_required");
    assert_eq!(service.calls().len(), 0);
    let world = shop(&service).start();
    let report = world.cli(&["shadow-report", "--json"]).json();
    assert_eq!(report, serde_json::json!([]));
}
