//! The HTTP API and its OpenAPI file say the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;
use tollgate_policy::source::{Document, Node};
use world::World;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../openapi-specs/control.yaml"
);

#[test]
fn every_operation_is_served_and_every_route_described() {
    let description = tollgate_policy::openapi::load(Path::new(FILE)).unwrap();
    assert!(
        description.findings.is_empty(),
        "{:?}",
        description.findings
    );
    let described = description.operations.iter().map(|operation| {
        let id = operation.id.as_deref().unwrap().to_owned();
        (
            id,
            operation.method.to_string(),
            operation.template.to_string(),
        )
    });
    let described: BTreeSet<_> = described.collect();
    let served = tollgate_control::http::served().into_iter();
    let served: BTreeSet<_> = served
        .map(|(id, m, path)| (id, m, path.to_owned()))
        .collect();
    let missing: Vec<_> = described.difference(&served).collect();
    assert!(missing.is_empty(), "described, not served: {missing:?}");
    let missing: Vec<_> = served.difference(&described).collect();
    assert!(missing.is_empty(), "served, not described: {missing:?}");
}

fn at<'n>(node: &'n Node, path: &[&str]) -> &'n Node {
    path.iter().fold(node, |node, key| {
        node.get(key)
            .unwrap_or_else(|| panic!("no {key} in {path:?}"))
    })
}

fn texts(node: Option<&Node>) -> BTreeSet<String> {
    let items = node.and_then(Node::as_list).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Every required member is there, and every member is described.
fn fits(document: &Document, schema: &str, shown: &serde_json::Value) {
    let schema_node = at(&document.root, &["components", "schemas", schema]);
    let required = texts(schema_node.get("required"));
    let properties = at(schema_node, &["properties"]).as_map().unwrap();
    let described: BTreeSet<String> = properties
        .iter()
        .map(|entry| entry.key.to_string())
        .collect();
    let members: BTreeSet<String> = shown.as_object().unwrap().keys().cloned().collect();
    assert!(
        required.is_subset(&members),
        "{schema}: {shown} lacks what is required"
    );
    assert!(
        members.is_subset(&described),
        "{schema}: {shown} has more than described"
    );
}

#[tokio::test]
async fn answers_have_the_described_shape() {
    let text = std::fs::read_to_string(FILE).unwrap();
    let document = Document::parse_yaml("control.yaml", &text).unwrap();
    let world = World::new().await;
    for (path, body, schema) in [
        ("/v1/organisations", json!({ "name": "a" }), "Organisation"),
        (
            "/v1/projects",
            json!({ "name": "p", "organisation": "a" }),
            "Project",
        ),
        ("/v1/terms", json!({ "name": "t" }), "Terms"),
        ("/v1/terms/t/versions", json!({ "text": "x" }), "Terms"),
        (
            "/v1/plans",
            json!({ "name": "n", "apis": [{ "api": "*" }] }),
            "Plan",
        ),
        (
            "/v1/consumers",
            json!({ "name": "c", "project": "p" }),
            "Consumer",
        ),
        ("/v1/consumers/c/keys", json!({}), "NewKeyShown"),
        (
            "/v1/terms/t/acceptances",
            json!({ "consumer": "c", "version": 1 }),
            "Recorded",
        ),
        (
            "/v1/revocations",
            json!({ "kind": "certificate", "name": "x" }),
            "Revocation",
        ),
        (
            "/v1/plans",
            json!({ "name": "m", "apis": [{ "api": "*" }], "price": { "version": 2 },
                "limits": [{ "name": "calls", "amount": 5, "window": "1d", "operations": ["a"] }] }),
            "Plan",
        ),
        (
            "/v1/usage/records",
            json!({
                "source": "s",
                "run": "0123456789abcdef0123456789abcdef",
                "first": 1,
                "records": [{ "at": "2026-11-21T16:00:00Z", "consumer": "c", "api": "a", "operation": "o" }],
            }),
            "UsageReceipt",
        ),
        ("/v1/nothing", json!({}), "Problem"),
    ] {
        fits(&document, schema, &world.post(path, body).await.1);
    }
    for (path, page, item) in [
        ("/v1/organisations", "OrganisationPage", "Organisation"),
        ("/v1/consumers", "ConsumerPage", "Consumer"),
        ("/v1/consumers/c/keys", "KeyPage", "Key"),
        ("/v1/plans", "PlanPage", "Plan"),
        ("/v1/terms", "TermsPage", "Terms"),
        ("/v1/terms/t/acceptances", "AcceptancePage", "Acceptance"),
        ("/v1/revocations", "RevocationPage", "Revocation"),
        ("/v1/audit", "AuditPage", "AuditRecord"),
        ("/v1/usage", "UsagePage", "Usage"),
        ("/v1/usage/senders", "UsageSenderPage", "UsageSender"),
        ("/v1/usage/gaps", "UsageGapPage", "UsageGap"),
    ] {
        let (_, shown) = world.get(path).await;
        fits(&document, page, &shown);
        fits(&document, item, &shown["items"][0]);
    }
    let path = "/v1/consumers/c/overrides/m/calls";
    let body = json!({ "extra": 5, "owner": "ada", "reason": "launch",
        "expires": "2999-01-01T00:00:00Z" });
    let (_, shown) = world.call("PUT", path, Some(body)).await;
    fits(&document, "Override", &shown);
    let (_, shown) = world.get("/v1/consumers/c/overrides").await;
    fits(&document, "OverridePage", &shown);
    let (_, shown) = world.get("/v1/overrides").await;
    fits(&document, "OverridePage", &shown);
    let (_, shown) = world.get("/v1/plans/m").await;
    fits(&document, "Limit", &shown["limits"][0]);
    fits(&document, "Price", &shown["price"]);
    fits(&document, "Health", &world.get("/v1/health").await.1);
    fits(
        &document,
        "UsageBalance",
        &world.get("/v1/usage/balance").await.1,
    );
    fits(&document, "Verdict", &world.get("/v1/audit/verify").await.1);
    fits(
        &document,
        "Reloaded",
        &world.post("/v1/reload", json!({})).await.1,
    );
}
