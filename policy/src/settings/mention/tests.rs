//! What `check` says of a directory whose files do not fit one another.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "tests"
)]

use super::super::check::check;
use super::super::tests::{Files, LONG, environment};
use super::*;

const SPEC: &str = "openapi: 3.1.0
components:
  securitySchemes: {jwt: {type: http, scheme: bearer}}
security: [{jwt: []}]
paths:
  /books:
    get: {operationId: listBooks}
";

fn directory() -> Files {
    let files = Files::new();
    files.write("spec.yaml", SPEC);
    files.write(
        "plans.yaml",
        "plans: {free: {apis: {books: [listBooks, 'GET /books'], '*': all}}}",
    );
    files.write(
        "apis/books.yaml",
        "spec: ../spec.yaml\nupstream: http://a:1\nauth: {issuers: {id: {issuer: 'https://id.example.com', audiences: [b]}}}\n",
    );
    files
}

/// Severity, code, file, line, and the whole message.
fn said(files: &Files) -> Vec<(Severity, &'static str, String, u32, String)> {
    let report = check(
        files.path(),
        &environment,
        &crate::settings::tests::described,
    );
    let findings = report.findings.iter();
    findings
        .map(|it| {
            let file = it.place.file.rsplit('/').next().unwrap().to_owned();
            (it.severity, it.code, file, it.place.line, it.to_string())
        })
        .collect()
}

#[test]
fn files_that_fit_one_another_are_right() {
    assert_eq!(said(&directory()), []);
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let api = "spec: ../spec.yaml\nupstream: http://a:1\nauth: {issuers: {id: {issuer: 'https://id.example.com', audiences: [b]}}}\n";
    let spec = SPEC;
    let consumer = |text: &str| {
        format!("organisations: {{a: {{projects: {{b: {{consumers: {{c:\n{text}}}}}}}}}}}")
    };
    let table: &[(&str, &str, u32, Severity, &str, &str)] = &[
        (
            "plans.yaml",
            "plans:\n  free: {apis: {bookz: all}}",
            2,
            Severity::Warning,
            "unknown-api",
            "did you mean `books`?",
        ),
        (
            "plans.yaml",
            "plans:\n  free:\n    apis:\n      books:\n        - listBook",
            5,
            Severity::Warning,
            "unknown-operation",
            "did you mean `listBooks`?",
        ),
        (
            "terms.yaml",
            "terms:\n  t:\n    apis: [zzz]\n    versions: [{version: 1, text: spec.yaml, effective: '2026-01-01T00:00:00Z'}]",
            3,
            Severity::Warning,
            "unknown-api",
            "write its file in apis/",
        ),
        (
            "consumers.yaml",
            &consumer("{subscriptions: {bookz: free}}"),
            2,
            Severity::Warning,
            "unknown-api",
            "did you mean `books`?",
        ),
        (
            "consumers.yaml",
            &consumer("{logins: [{issuer: 'https://id.example.org', client: c}]}"),
            1,
            Severity::Warning,
            "unknown-issuer",
            "did you mean `https://id.example.com`?",
        ),
        (
            "apis/books.yaml",
            &format!("{api}acl:\n  - {{name: r, effect: allow, operations: [listBoks]}}"),
            5,
            Severity::Error,
            "unknown-operation",
            "did you mean `listBooks`?",
        ),
        (
            "apis/books.yaml",
            &format!("{api}acl:\n  - {{name: r, effect: allow, plans: [fre]}}"),
            5,
            Severity::Note,
            "unknown-name",
            "did you mean `free`?",
        ),
        (
            "apis/books.yaml",
            &format!(
                "{api}operations:\n  listBooks: {{acl: [{{name: r, effect: deny, consumers: [c]}}]}}"
            ),
            5,
            Severity::Note,
            "unknown-name",
            "denies nobody",
        ),
        (
            "apis/books.yaml",
            &api.replace("auth: {", "auth: {schemes: {jwts: {}}, "),
            3,
            Severity::Warning,
            "unknown-scheme",
            "did you mean `jwt`?",
        ),
        (
            "apis/books.yaml",
            &format!("{api}acl:\n  - {{name: r, effect: allow, when: path.id.matches('(')}}"),
            5,
            Severity::Error,
            "bad-condition",
            "unclosed group",
        ),
        (
            "apis/books.yaml",
            &api.replace(", audiences: [b]", ""),
            3,
            Severity::Warning,
            "no-audience",
            "issuer `id` has no `audiences`",
        ),
        (
            "spec.yaml",
            &format!(
                "{spec}    x-tollgate: {{acl: [{{name: r, effect: deny, when: pth.id == '1'}}]}}\n"
            ),
            8,
            Severity::Error,
            "bad-condition",
            "did you mean `path`?",
        ),
        (
            "spec.yaml",
            &format!(
                "{spec}    x-tollgate: {{acl: [{{name: r, effect: allow, consumers: [shop]}}]}}\n"
            ),
            8,
            Severity::Note,
            "unknown-name",
            "allows nobody",
        ),
        (
            "spec.yaml",
            &spec.replace(
                "scheme: bearer",
                "scheme: bearer, x-google-issuer: 'https://a.example.com'",
            ),
            3,
            Severity::Warning,
            "no-audience",
            "the issuer of scheme `jwt`",
        ),
        (
            "spec.yaml",
            &spec.replace(
                "type: http, scheme: bearer",
                "type: openIdConnect, openIdConnectUrl: 'https://a.example.com/openid'",
            ),
            3,
            Severity::Warning,
            "no-issuer",
            "does not tell who issues its tokens",
        ),
        (
            "apis/books.yaml",
            "spec: ../spec.yaml\nupstream: http://a:1\n",
            0,
            Severity::Note,
            "no-issuer",
            "only keys of Tollgate",
        ),
    ];
    for (name, text, line, severity, code, words) in table {
        let files = directory();
        files.write(name, text);
        let said = said(&files);
        let [(found, told, file, at, message)] = &*said else {
            panic!("{text}\n{said:#?}")
        };
        assert_eq!((*found, *told, *at), (*severity, *code, *line), "{message}");
        assert!(
            name.ends_with(file.as_str()) && message.contains(words),
            "{message}"
        );
    }
}

#[test]
fn a_plan_that_opens_nothing_of_what_it_is_sold_for_is_a_warning() {
    let files = directory();
    files.write("plans.yaml", "plans: {free: {apis: {books: all}}}");
    files.write(
        "consumers.yaml",
        "organisations: {a: {projects: {b: {consumers: {c: {subscriptions: {other: free}}}}}}}",
    );
    let codes: Vec<_> = said(&files).iter().map(|it| it.1).collect();
    assert_eq!(codes, ["useless-subscription", "unknown-api"]);
}

#[test]
fn an_api_that_is_broken_is_named_all_the_same() {
    let files = directory();
    files.write("apis/books.yaml", "spec: ../spec.yaml\n");
    let codes: Vec<_> = said(&files).iter().map(|it| it.1).collect();
    assert_eq!(codes, ["missing-field"]);
}

#[test]
fn one_of_the_three_files_stands_for_all() {
    let files = directory();
    files.write("consumers.yaml", "organisations: {A: }");
    for name in ["plans.yaml", "consumers.yaml"] {
        let report = check(
            &files.path().join(name),
            &environment,
            &crate::settings::tests::described,
        );
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    }
    let right = directory();
    assert!(
        check(
            &right.path().join("plans.yaml"),
            &environment,
            &crate::settings::tests::described
        )
        .findings
        .is_empty()
    );
}

#[test]
fn a_description_alone_is_checked_as_it_is_served() {
    let files = directory();
    let told = |text: &str| {
        let report = check(
            &files.write("alone.yaml", text),
            &environment,
            &crate::settings::tests::described,
        );
        let findings = report.findings.iter();
        findings
            .map(|it| (it.severity, it.code, it.place.line))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(SPEC), []);
    let rule = "    x-tollgate: {acl: [{name: r, effect: deny, when: '('}]}\n";
    let expected = [(Severity::Error, "bad-condition", 8)];
    assert_eq!(told(&format!("{SPEC}{rule}")), expected);
}

#[test]
fn what_is_wrong_with_a_rule_is_told_once_wherever_it_hangs() {
    let files = directory();
    let put = "    put: {operationId: putBooks}\n";
    let acl = "x-tollgate: {acl: [{name: r, effect: deny, plans: [none], when: '('}]}\n";
    files.write("spec.yaml", &format!("{SPEC}{put}{acl}"));
    let told: Vec<_> = said(&files)
        .into_iter()
        .map(|it| (it.1, it.2, it.3))
        .collect();
    let spec = || "spec.yaml".to_owned();
    assert_eq!(
        told,
        [("bad-condition", spec(), 9), ("unknown-name", spec(), 9)]
    );
}

#[test]
fn the_configurations_that_come_with_tollgate_are_right() {
    let environment = |name: &str| {
        let value = if name.ends_with("PORT") { "8081" } else { LONG };
        Some(value.to_owned())
    };
    for name in ["demo", "gateway"] {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/");
        let report = check(
            &std::path::Path::new(path).join(name),
            &environment,
            &crate::settings::tests::described,
        );
        let failed: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(
            !report.failed() && !report.summaries.is_empty(),
            "{failed:#?}"
        );
    }
}
