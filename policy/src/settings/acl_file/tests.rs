//! Mistakes in `acl` and `networks` and their messages; what rules mean, and which of them hold for an operation.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "tests"
)]

use super::super::tests::{Files, Row};
use super::*;
use crate::finding::Severity;
use crate::openapi;

#[test]
fn a_mistake_in_a_rule_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        ("acl: {}", 3, 6, "wrong-shape", &["`acl`: expected a list"]),
        (
            "acl: [{effect: allow}]",
            3,
            7,
            "missing-field",
            &["`name` is missing"],
        ),
        (
            "acl: [{name: a}]",
            3,
            7,
            "missing-field",
            &["`effect` is missing"],
        ),
        (
            "acl: [{name: a, effect: permit}]",
            3,
            25,
            "bad-value",
            &["`acl.effect`", "neither allow nor deny"],
        ),
        (
            "acl: [{name: A, effect: allow}]",
            3,
            14,
            "bad-value",
            &["`acl.name`: `A` cannot be a name"],
        ),
        (
            "acl: [{name: a, effect: allow, role: [x]}]",
            3,
            32,
            "unknown-field",
            &["did you mean `roles`?"],
        ),
        (
            "acl: [{name: a, effect: allow, roles: []}]",
            3,
            14,
            "bad-value",
            &["`acl.roles`: is empty", "any"],
        ),
        (
            "acl: [{name: a, effect: allow, operations: []}]",
            3,
            14,
            "bad-value",
            &["`acl.operations`: is empty"],
        ),
        (
            "acl: [{name: a, effect: allow, networks: []}]",
            3,
            14,
            "bad-value",
            &["`acl.networks`: is empty"],
        ),
        (
            "acl: [{name: a, effect: allow, roles: ['a b']}]",
            3,
            40,
            "bad-value",
            &["no single word"],
        ),
        (
            "acl: [{name: a, effect: allow, plans: [Gold]}]",
            3,
            40,
            "bad-value",
            &["`Gold` cannot be a name"],
        ),
        (
            "acl: [{name: a, effect: allow, networks: [10.0.0.1/8]}]",
            3,
            43,
            "bad-value",
            &["bits beyond its prefix"],
        ),
        (
            "acl: [{name: a, effect: allow, hours: 8-18}]",
            3,
            39,
            "bad-value",
            &["`8-18` are no hours", "08:00-18:00"],
        ),
        (
            "acl: [{name: a, effect: allow, hours: '08:00-08:00'}]",
            3,
            39,
            "bad-value",
            &["no time at all"],
        ),
        (
            "acl: [{name: a, effect: allow, not_before: 2026-01-01}]",
            3,
            44,
            "bad-value",
            &["RFC 3339"],
        ),
        (
            "acl: [{name: a, effect: allow, not_before: '2026-01-02T00:00:00Z', not_after: '2026-01-01T00:00:00Z'}]",
            3,
            79,
            "bad-value",
            &["never matches"],
        ),
        (
            "acl: [{name: a, effect: allow, when: ''}]",
            3,
            38,
            "bad-value",
            &["no condition"],
        ),
        (
            "acl: [{name: a, effect: allow, shadow: dark}]",
            3,
            40,
            "bad-value",
            &["no switch"],
        ),
        (
            "acl: [{name: a, effect: allow}, {name: a, effect: deny}]",
            3,
            40,
            "bad-value",
            &["`a` stands twice, first in line 3"],
        ),
        (
            "networks: [10.0.0.0/8]",
            3,
            11,
            "wrong-shape",
            &["`networks`", "allow, deny, shadow"],
        ),
        (
            "networks: {allow: []}",
            3,
            1,
            "bad-value",
            &["`networks.allow`: is empty"],
        ),
        (
            "networks: {deny: [everybody]}",
            3,
            19,
            "bad-value",
            &["no network"],
        ),
        (
            "networks: {block: [10.0.0.0/8]}",
            3,
            12,
            "unknown-field",
            &["fields here: allow, deny, shadow"],
        ),
        (
            "defaults: {acl: [{name: a, effect: allow, operations: [b]}]}",
            3,
            25,
            "bad-value",
            &["the operation it hangs on"],
        ),
        (
            "operations: {listBooks: {acl: [{name: a, effect: no}]}}",
            3,
            50,
            "bad-value",
            &["`operations.listBooks.acl.effect`"],
        ),
    ];
    Files::new().expect_api(table);
}

#[test]
fn too_many_rules_and_too_long_conditions_are_refused() {
    let files = Files::new();
    let rules: String = (0..=MAX_RULES)
        .map(|at| format!("  - {{name: r{at}, effect: allow}}\n"))
        .collect();
    let last = u32::try_from(MAX_RULES).unwrap() + 4;
    files.expect_api(&[(
        &format!("acl:\n{rules}"),
        last,
        12,
        "bad-value",
        &["more than 1000 rules"],
    )]);
    let long = format!(
        "acl: [{{name: a, effect: allow, when: '{}'}}]",
        "a".repeat(LONGEST_EXPRESSION + 1)
    );
    files.expect_api(&[(&long, 3, 38, "bad-value", &["at most 2048 bytes"])]);
}

#[test]
fn what_is_written_of_rules_is_what_is_meant() {
    let api = Files::new().meant(
        "acl:
  - name: staff
    effect: allow
    operations: [listBooks]
    consumers: [shop-web]
    projects: [shop]
    organisations: [acme]
    plans: [gold]
    scopes: ['books:write']
    roles: [staff]
    networks: [10.0.0.0/8]
    not_before: 2026-01-01T00:00:00Z
    not_after: 2027-01-01T00:00:00Z
    hours: 22:00-06:00
    when: |
      path.book == claims.book
    shadow: on
networks: { allow: [10.0.0.0/8], deny: [10.1.0.0/16], shadow: on }",
    );
    let [rule] = &*api.acl else {
        panic!("{:?}", api.acl)
    };
    assert_eq!(
        (&*rule.name, rule.effect, rule.shadow),
        ("staff", Effect::Allow, true)
    );
    let lists = [
        (&rule.operations, "listBooks"),
        (&rule.consumers, "shop-web"),
        (&rule.projects, "shop"),
        (&rule.organisations, "acme"),
        (&rule.plans, "gold"),
        (&rule.scopes, "books:write"),
        (&rule.roles, "staff"),
    ];
    for (list, expected) in lists {
        assert_eq!(*list, [Arc::<str>::from(expected)]);
    }
    assert_eq!((rule.networks.len(), rule.hours), (1, Some((1_320, 360))));
    assert_eq!(rule.not_after.unwrap().to_string(), "2027-01-01T00:00:00Z");
    assert_eq!(rule.when.as_deref(), Some("path.book == claims.book"));
    assert_eq!((rule.place.line, rule.place.column), (4, 11));
    let place = api.networks.place.as_ref().unwrap();
    assert_eq!((api.networks.allow.len(), api.networks.deny.len()), (1, 1));
    assert!(api.networks.shadow && (place.line, place.column) == (20, 1));
}

#[test]
fn networks_that_exclude_one_another_are_a_warning() {
    let files = Files::new();
    let text = "networks: {allow: [10.1.0.0/16, 10.2.0.1], deny: [10.0.0.0/8]}";
    files.meant(text);
    assert_eq!(files.checked(text), [(Severity::Warning, "never-matches")]);
    assert_eq!(
        files.checked("networks: {allow: [10.1.0.0/16], deny: [10.1.1.0/24]}"),
        []
    );
}

#[test]
fn the_rules_of_the_innermost_place_count_for_an_operation() {
    let description = openapi::load_text(
        "spec.yaml",
        "openapi: 3.1.0
x-tollgate: {acl: [{name: document, effect: deny}]}
paths:
  /a:
    get: {operationId: getA}
    put: {operationId: putA, x-tollgate: {acl: []}}
  /b:
    x-tollgate: {acl: [{name: path, effect: deny}]}
    get: {operationId: getB}
    put: {operationId: putB, x-tollgate: {acl: [{name: operation, effect: deny, roles: [x]}]}}
",
    )
    .unwrap();
    assert_eq!(description.findings.len(), 0, "{:?}", description.findings);
    let files = Files::new();
    let rules = |text: &str| {
        let api = files.meant(text);
        let rules = description.operations.iter().map(|operation| {
            let settings = api.settings_for(operation);
            let rules = settings.acl.unwrap();
            assert!(
                rules
                    .iter()
                    .all(|it| *it.operations == [operation.name.clone()])
            );
            let names: Vec<_> = rules.iter().map(|it| it.name.to_string()).collect();
            names.join(" ")
        });
        rules.collect::<Vec<_>>()
    };
    assert_eq!(rules(""), ["document", "", "path", "operation"]);
    let entry = "operations: {putB: {acl: [{name: file, effect: allow}]}}";
    assert_eq!(rules(entry), ["document", "", "path", "file"]);
    let defaults = "defaults: {acl: [{name: file, effect: allow}]}\noperations: {getA: {acl: []}}";
    assert_eq!(rules(defaults), ["", "file", "file", "file"]);
    let put = &description.operations[3].settings.acl.as_ref().unwrap()[0];
    assert_eq!((&*put.place.file, put.place.line), ("spec.yaml", 10));
}

#[test]
fn rules_that_cannot_be_read_are_found_and_let_nobody_pass() {
    let description = |own: &str| {
        let text = format!(
            "openapi: 3.1.0\npaths:\n  /a:\n    get:\n      operationId: a\n      x-tollgate: {own}\n"
        );
        openapi::load_text("spec.yaml", &text).unwrap()
    };
    for own in [
        "{acl: [{name: a, effect: allow, operations: [b]}]}",
        "{acl: [{name: a, effect: deny, consumer: [b]}]}",
        "{acl: [{name: a, effect: deny, consumers: [b]}], retries: 99}",
        "{acl: deny}",
    ] {
        let description = description(own);
        let finding = &description.findings[0];
        assert_eq!(finding.place.line, 6, "{own}");
        let rules = description.operations[0].settings.acl.as_deref().unwrap();
        let [rule] = rules else { panic!("{own}") };
        let nothing = RuleConfig {
            name: "unreadable".into(),
            place: finding.place.clone(),
            ..every_call()
        };
        assert_eq!(*rule, nothing, "it is about every call: {own}");
    }
    let description = description("{retries: 99}");
    assert_eq!(description.findings.len(), 1);
    assert_eq!(description.operations[0].settings.acl, None);
}

/// A denial without any field.
fn every_call() -> RuleConfig {
    let files = Files::new();
    let api = files.meant("acl: [{name: a, effect: deny}]");
    api.acl[0].clone()
}
