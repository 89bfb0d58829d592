//! Mistakes in `overrides` and their messages; what becomes of a limit under one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use super::super::read_directory;
use super::super::tests::{Files, environment};
use super::*;
use crate::finding::Severity;
use crate::settings::stored_limits;

fn directory(overrides: &str) -> Files {
    let files = Files::new();
    files.write(
        "plans.yaml",
        "plans:
  basic:
    apis: { '*': all }
    limits:
      - { name: calls, amount: 100, window: 1m, burst: 50 }
      - { name: spend, metric: money, amount: 10, window: month }
      - { name: shared, amount: 10, window: 1d, per: project }
  other: { apis: { '*': all }, limits: [{ name: calls, amount: 1, window: 1m }] }
",
    );
    let text = format!(
        "organisations: {{a: {{projects: {{b: {{consumers: {{c: {{subscriptions: {{x: basic}}, overrides: [\n{overrides}]}}}}}}}}}}}}\n"
    );
    files.write("consumers.yaml", &text);
    files
}

#[test]
fn a_mistake_in_an_override_is_told_with_its_place_and_a_remedy() {
    let why = "owner: ada, reason: launch";
    let table = [
        (
            "{amount: 1, owner: a, reason: b}".to_owned(),
            "`limit` is missing",
        ),
        (
            "{limit: plan/basic/calls, amount: 1, reason: b}".to_owned(),
            "`owner` is missing",
        ),
        (
            "{limit: plan/basic/calls, amount: 1, owner: a}".to_owned(),
            "`reason` is missing",
        ),
        (
            format!("{{limit: calls, amount: 1, {why}}}"),
            "`calls` is no limit of a plan or an API",
        ),
        (
            format!("{{limit: apis/basic/calls, amount: 1, {why}}}"),
            "is no limit of a plan or an API",
        ),
        (
            format!("{{limit: plan/basic/cals, amount: 1, {why}}}"),
            "did you mean `plan/basic/calls`?",
        ),
        (
            format!("{{limit: plan/basic/shared, amount: 1, {why}}}"),
            "override it for the project",
        ),
        (
            format!("{{limit: plan/basic/calls, {why}}}"),
            "`consumers.overrides.amount`: is missing",
        ),
        (
            format!("{{limit: plan/basic/calls, amount: 1, extra: 1, {why}}}"),
            "stands beside `amount`",
        ),
        (
            format!("{{limit: plan/basic/calls, extra: 0, {why}}}"),
            "adds nothing",
        ),
        (
            format!("{{limit: plan/basic/calls, extra: 1, cap: on, {why}}}"),
            "not to an `extra`",
        ),
        (
            format!("{{limit: plan/basic/calls, amount: many, {why}}}"),
            "`many` is no amount",
        ),
        (
            format!("{{limit: plan/basic/calls, amount: 2.5, {why}}}"),
            "counts calls, and this is no amount",
        ),
        (
            format!("{{limit: plan/basic/calls, amount: 1, expires: soon, {why}}}"),
            "`soon` is no time",
        ),
        (
            format!(
                "{{limit: plan/basic/calls, amount: 1, {why}}}, {{limit: plan/basic/calls, amount: 2, {why}}}"
            ),
            "`plan/basic/calls` stands twice",
        ),
    ];
    for (text, words) in table {
        let files = directory(&text);
        let findings = read_directory(files.path(), &environment).expect_err(&text);
        let told = findings[0].to_string();
        assert!(told.contains(words), "{text}: {told}");
        assert_eq!(findings[0].place.line, 2, "{told}");
        assert_eq!(findings[0].severity, Severity::Error);
    }
}

#[test]
fn the_higher_of_plan_and_override_counts_unless_it_caps() {
    let why = "owner: ada, reason: launch";
    let table = [
        ("amount: 500", 500, 50),
        ("amount: 20", 100, 50),
        ("amount: 20, cap: on", 20, 20),
        ("amount: 70, cap: on", 70, 50),
        ("amount: 500, cap: on", 500, 50),
        ("amount: 0, cap: on", 0, 0),
        ("extra: 30", 130, 50),
    ];
    for (text, amount, burst) in table {
        let files = directory(&format!("{{limit: plan/basic/calls, {text}, {why}}}"));
        let (directory, _) = read_directory(files.path(), &environment).unwrap();
        let plan = &directory.plans[0];
        let told = directory.consumers[0].overrides[0].told(Grantee::Consumer);
        let limits = overridden(&plan.limits, &[told]);
        assert_eq!(
            (limits[0].amount, limits[0].burst),
            (amount, Some(burst)),
            "{text}"
        );
        assert_eq!(
            (&limits[0].id, &limits[1]),
            (&plan.limits[0].id, &plan.limits[1])
        );
    }
}

#[test]
fn an_override_of_the_store_is_written_as_it_is_read() {
    for text in [
        r#"{"limit": "plan/basic/spend", "extra": "2.50", "owner": "ada", "reason": "launch",
            "expires": "2027-01-01T00:00:00Z"}"#,
        r#"{"limit": "plan/basic/spend", "amount": 5, "cap": true, "owner": "ada", "reason": "late"}"#,
    ] {
        let found = stored_override(text).unwrap();
        let again = stored_override(&found.written().to_string()).unwrap();
        assert_eq!(found, again);
    }
    let limits = r#"[{"name": "spend", "metric": "money", "amount": 10, "window": "month"}]"#;
    let limits = stored_limits("basic", limits).unwrap();
    let found = r#"{"limit": "plan/basic/spend", "extra": 2.5, "owner": "a", "reason": "b"}"#;
    let found = stored_override(found).unwrap();
    let told = found.told(Grantee::Consumer);
    assert_eq!(overridden(&limits, &[told])[0].amount, 12_500_000);
    let findings = stored_override(r#"{"limit": "plan/a/b", "amunt": 5}"#).unwrap_err();
    assert!(
        findings.iter().any(|it| it.remedy.contains("`amount`")),
        "{findings:?}"
    );
}

/// Directories with overrides where each grantee has its own.
#[test]
fn organisations_projects_and_consumers_have_overrides_of_their_own() {
    let one = |limit: &str| format!("[{{limit: {limit}, extra: 1, owner: a, reason: b}}]");
    let files = directory("");
    let text = format!(
        "organisations:\n  a:\n    overrides: {}\n    projects:\n      b:\n        overrides: {}\n        consumers:\n          c: {{subscriptions: {{x: basic}}, overrides: {}}}\n",
        one("api/x/all"),
        one("plan/basic/shared"),
        one("api/x/own"),
    );
    files.write("consumers.yaml", &text);
    let (found, _) = read_directory(files.path(), &environment).unwrap();
    let organisation = &found.organisations[0].overrides[0];
    assert_eq!(
        (&*organisation.limit, organisation.api()),
        ("api/x/all", Some("x"))
    );
    assert_eq!(&*found.projects[0].overrides[0].limit, "plan/basic/shared");
    assert_eq!(found.projects[0].overrides[0].api(), None);
    assert_eq!(&*found.consumers[0].overrides[0].limit, "api/x/own");
    // A limit of each consumer is nothing a project can have more of.
    files.write(
        "consumers.yaml",
        &text.replace("plan/basic/shared", "plan/basic/calls"),
    );
    let findings = read_directory(files.path(), &environment).unwrap_err();
    let told = findings[0].to_string();
    assert!(told.contains("override it for the consumer"), "{told}");
}

#[test]
fn a_limit_is_changed_for_those_alone_who_share_its_counter() {
    let table = [
        ("organisation", Some(Grantee::Organisation)),
        ("project", Some(Grantee::Project)),
        ("consumer", Some(Grantee::Consumer)),
        ("credential", Some(Grantee::Consumer)),
        ("end_user", Some(Grantee::Consumer)),
        ("address", None),
        ("everybody", None),
    ];
    for (per, owner) in table {
        let limits = format!(r#"[{{"name": "n", "amount": 5, "window": "1d", "per": "{per}"}}]"#);
        let limits = stored_limits("p", &limits).unwrap();
        let one = r#"{"limit": "plan/p/n", "extra": 2, "owner": "a", "reason": "b"}"#;
        let one = stored_override(one).unwrap();
        for grantee in Grantee::ALL {
            let amount = overridden(&limits, &[one.told(grantee)])[0].amount;
            let refused = grantee.is_none_of(&limits[0]);
            match owner == Some(grantee) {
                true => assert_eq!((amount, refused), (7, None), "{per}"),
                false => assert_eq!((amount, refused.is_some()), (5, true), "{per}"),
            }
        }
    }
}
