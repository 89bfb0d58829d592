//! What `check` says of limits and the operations they are about.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use super::super::check::check;
use super::super::tests::{Files, environment};
use crate::finding::Severity;

const SPEC: &str = "openapi: 3.1.0
info: { title: Books, version: '1' }
x-tollgate: { limits: [{ name: described, metric: page, amount: 5, window: 1m }] }
paths:
  /books:
    get: { operationId: listBooks, x-tollgate: { cost: { page: { from: query, name: limit, reserve: 9 } } } }
    post: { operationId: createBook, x-tollgate: { cost: { units: 20, money: 0.5 } } }
  /books/{id}:
    get: { operationId: getBook, parameters: [{ name: id, in: path, required: true, schema: { type: string } }], x-tollgate: { cost: { calls: 3 } } }
";

/// A configuration directory of one API, with lines of it and the limits of a plan.
fn directory(api: &str, apis: &str, limits: &str) -> Files {
    let files = Files::new();
    files.write("spec.yaml", SPEC);
    let text = format!("spec: ../spec.yaml\nupstream: http://a:1\nsecurity: off\n{api}\n");
    files.write("apis/books.yaml", &text);
    let text = format!("plans:\n  basic:\n    apis: {apis}\n    limits:\n      - {limits}\n");
    files.write("plans.yaml", &text);
    files
}

/// Severity, code, line and text of what is found.
fn found(files: &Files) -> Vec<(Severity, &'static str, u32, String)> {
    let findings = check(
        files.path(),
        &environment,
        &crate::settings::tests::described,
    )
    .findings;
    let told = |it: &crate::finding::Finding| (it.severity, it.code, it.place.line, it.to_string());
    findings.iter().map(told).collect()
}

const FINE: &str = "{ name: fine, amount: 100, window: 1m }";

#[test]
fn limits_that_can_be_reached_and_passed_are_no_finding() {
    let api = "limits:
  - { name: units, metric: units, amount: 20, window: 1h, burst: 20 }
  - { name: traffic, metric: bytes, amount: 1GiB, window: 1d, operations: [listBooks, 'POST /books'] }
  - { name: at-once, metric: concurrent, amount: 5, scope: operation }
  - { name: page, metric: page, amount: 1, window: 1m }";
    let limits =
        "{ name: spend, metric: money, amount: 10, window: month, operations: [createBook] }";
    for apis in ["{ books: all }", "{ '*': all }", "{ books: [createBook] }"] {
        assert_eq!(found(&directory(api, apis, limits)), [], "{apis}");
    }
}

#[test]
fn limits_that_are_not_what_their_author_expects_are_warnings() {
    let table = [
        (
            "{ name: a, metric: units, amount: 19, window: 1h }",
            "never-passes",
            "`createBook` costs 20",
        ),
        (
            "{ name: a, metric: units, amount: 100, window: 1m, burst: 10 }",
            "never-passes",
            "more than `burst` of limit `a` (10)",
        ),
        (
            "{ name: a, amount: 2, window: 1m }",
            "never-passes",
            "`getBook` costs 3 in `calls`",
        ),
        (
            "{ name: a, metric: money, amount: 0.25, window: 1m }",
            "never-passes",
            "costs 0.50 in `money`",
        ),
        (
            "{ name: a, metric: rows, amount: 5, window: 1m }",
            "unreachable-limit",
            "cost: { rows: 1 }",
        ),
        (
            "{ name: a, metric: unit, amount: 5, window: 1m }",
            "unreachable-limit",
            "did you mean `units`?",
        ),
        (
            "{ name: a, metric: call, amount: 5, window: 1m }",
            "unreachable-limit",
            "did you mean `calls`?",
        ),
        (
            "{ name: a, metric: money, amount: 5, window: 1m, operations: [listBooks] }",
            "unreachable-limit",
            "cost: { money: 0.002 }",
        ),
        (
            "{ name: a, amount: 5, window: 1m, operations: [listBook] }",
            "unknown-operation",
            "did you mean `listBooks`?",
        ),
        (
            "{ name: a, amount: 0, window: 1m }",
            "allows-nothing",
            "limit `a` allows nothing",
        ),
    ];
    for (limit, code, words) in table {
        let everywhere = [
            (directory("", "{ books: all }", limit), 5),
            (
                directory(&format!("limits:\n  - {limit}"), "{ books: all }", FINE),
                5,
            ),
        ];
        for (files, line) in everywhere {
            let found = found(&files);
            let [(severity, found_code, at, told)] = &*found else {
                panic!("{limit}: {found:?}")
            };
            assert_eq!(
                (*severity, *found_code, *at),
                (Severity::Warning, code, line),
                "{told}"
            );
            assert!(told.contains(words), "{limit}: {told}");
        }
    }
}

#[test]
fn what_a_plan_does_not_open_is_not_what_its_limits_are_about() {
    let limit = "{ name: a, metric: units, amount: 100, window: 1m }";
    let found_of = |apis| found(&directory("", apis, limit));
    assert_eq!(found_of("{ books: [createBook] }"), []);
    assert_eq!(found_of("{ books: [listBooks] }")[0].1, "unreachable-limit");
    let limit = "{ name: a, amount: 100, window: 1m, operations: [createBook] }";
    let found = found(&directory("", "{ books: [listBooks] }", limit));
    assert_eq!(found[0].1, "unknown-operation");
    assert!(found[0].3.contains("that plan `basic` opens"), "{found:?}");
}

#[test]
fn of_an_api_that_could_not_be_read_nothing_is_judged() {
    let files = directory(
        "upstrem: x",
        "{ books: all }",
        "{ name: a, metric: rows, amount: 1, window: 1m }",
    );
    let codes: Vec<_> = found(&files).iter().map(|it| it.1).collect();
    assert_eq!(codes, ["unknown-field"]);
}

#[test]
fn limits_of_a_description_are_judged_without_an_api_file_too() {
    let files = Files::new();
    let text = SPEC.replace("metric: page", "metric: pages");
    let report = check(
        &files.write("spec.yaml", &text),
        &environment,
        &crate::settings::tests::described,
    );
    let [finding] = &*report.findings else {
        panic!("{:?}", report.findings)
    };
    assert_eq!((finding.code, finding.place.line), ("unreachable-limit", 3));
    assert!(finding.remedy.contains("did you mean `page`?"), "{finding}");
}
