//! Mistakes in `limits` and `price` and their messages; what limits mean, in files, descriptions and the store.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "tests"
)]

use super::super::read_directory;
use super::super::tests::{Files, environment, expect};
use super::*;
use crate::finding::Severity;
use crate::openapi;
use crate::quota::{Counts, OnUnavailable};

/// A minute, where nothing else is of interest.
fn whole(text: &str) -> String {
    format!("limits: [{{name: a, {text}}}]")
}

#[test]
fn a_mistake_in_a_limit_is_told_with_its_place_and_a_remedy() {
    let table: &[(&str, &str, u32, &str, &[&str])] = &[
        ("limits: {}", "", 9, "wrong-shape", &["expected a list"]),
        (
            "limits: [{amount: 1, window: 1m}]",
            "",
            10,
            "missing-field",
            &["`name` is missing"],
        ),
        ("", "window: 1m", 10, "missing-field", &["`amount`"]),
        (
            "",
            "amount: 5",
            17,
            "bad-value",
            &["`limits.window`: is missing", "window: 1m"],
        ),
        (
            "",
            "amount: 1, window: 1m, brst: 1",
            43,
            "unknown-field",
            &["did you mean `burst`?"],
        ),
        (
            "",
            "amount: -1, window: 1m",
            28,
            "bad-value",
            &["`limits.amount`", "no whole number"],
        ),
        (
            "",
            "amount: 1.5, window: 1m",
            28,
            "bad-value",
            &["no whole number"],
        ),
        (
            "",
            "amount: 10MiB, window: 1m",
            28,
            "bad-value",
            &["no whole number"],
        ),
        (
            "",
            "amount: 10MB, window: 1m, metric: bytes",
            28,
            "bad-value",
            &["no size", "KiB, MiB or GiB"],
        ),
        (
            "",
            "amount: 12.5000001, window: 1m, metric: money",
            28,
            "bad-value",
            &["no amount of money", "at most six digits"],
        ),
        (
            "",
            "amount: 1, window: 1m, metric: 'a b'",
            51,
            "bad-value",
            &["cannot be a metric"],
        ),
        (
            "",
            "amount: 1, window: 500ms",
            39,
            "bad-value",
            &["shorter than a second"],
        ),
        (
            "",
            "amount: 1, window: 1500ms",
            39,
            "bad-value",
            &["no whole number of seconds"],
        ),
        (
            "",
            "amount: 1, window: 400d",
            39,
            "bad-value",
            &["longer than a year", "lifetime"],
        ),
        (
            "",
            "amount: 1, window: monthly",
            39,
            "bad-value",
            &["`monthly` is no window", "month"],
        ),
        (
            "",
            "amount: 1, window: month, timezone: Europe/Belrin",
            56,
            "bad-value",
            &[
                "no time zone `Europe/Belrin`",
                "did you mean `Europe/Berlin`?",
            ],
        ),
        (
            "",
            "amount: 1, window: 1h, timezone: UTC",
            53,
            "bad-value",
            &["`limits.timezone`", "follows no calendar", "window: 1d"],
        ),
        (
            "",
            "amount: 1, window: 1m, metric: concurrent",
            39,
            "bad-value",
            &[
                "`limits.window`",
                "under way at the same time have no window",
            ],
        ),
        (
            "",
            "amount: 1, window: 1m, burst: 0",
            50,
            "bad-value",
            &["`limits.burst`", "more than zero"],
        ),
        (
            "",
            "amount: 1, window: month, burst: 5",
            53,
            "bad-value",
            &["starts anew as a whole"],
        ),
        (
            "",
            "amount: 1, window: 1m, per: user",
            48,
            "bad-value",
            &["`limits.per`", "end_user"],
        ),
        (
            "",
            "amount: 1, window: 1m, per: consmer",
            48,
            "bad-value",
            &["did you mean `consumer`?"],
        ),
        (
            "",
            "amount: 1, window: 1m, scope: op",
            50,
            "bad-value",
            &["did you mean `operation`?"],
        ),
        (
            "",
            "amount: 1, window: 1m, scope: everything",
            50,
            "bad-value",
            &["this API alone", "a plan"],
        ),
        (
            "",
            "amount: 1, window: 1m, on_unavailable: open",
            59,
            "bad-value",
            &["`limits.on_unavailable`", "fail_open"],
        ),
        (
            "",
            "amount: 1, window: 1m, operations: []",
            17,
            "bad-value",
            &["`limits.operations`: is empty"],
        ),
        (
            "",
            "amount: 1, window: 1m, shadow: maybe",
            51,
            "bad-value",
            &["`limits.shadow`", "no switch"],
        ),
        (
            "limits: [{name: A, amount: 1, window: 1m}]",
            "",
            17,
            "bad-value",
            &["cannot be a name"],
        ),
        (
            "limits: [{name: a, amount: 1, window: 1m}, {name: a, amount: 2, window: 1h}]",
            "",
            51,
            "bad-value",
            &["`a` stands twice, first in line 3"],
        ),
    ];
    let files = Files::new();
    for (line, limit, column, code, words) in table {
        let line = if line.is_empty() {
            whole(limit)
        } else {
            (*line).to_owned()
        };
        let text = format!("spec: spec.yaml\nupstream: http://a:1\n{line}\n");
        expect((&text, 3, *column, code, words), files.api(&text));
    }
}

#[test]
fn what_is_written_is_what_is_meant() {
    let files = Files::new();
    let api = files.meant(
        "limits:
  - name: rows
    metric: rows
    amount: 1000
    window: 1m
    burst: 2000
    per: end_user
    scope: operation
    operations: [listBooks]
    on_unavailable: fail_closed
    counts: tried
    shadow: on
  - { name: traffic, metric: bytes, amount: 10MiB, window: 1d, timezone: Europe/Berlin }
  - { name: spend, metric: money, amount: 12.50, window: month, per: project }
  - { name: at-once, metric: concurrent, amount: 10 }
  - { name: ever, amount: 7, window: lifetime, per: everybody }",
    );
    let [rows, traffic, spend, at_once, ever] = &*api.limits else {
        panic!("{:?}", api.limits)
    };
    let expected = Limit {
        id: "api/api/rows".into(),
        name: "rows".into(),
        metric: Metric::Units("rows".into()),
        amount: 1000,
        window: Window::Span(Duration::from_secs(60)),
        burst: Some(2000),
        subject: Subject::EndUser,
        scope: Scope::Operation,
        operations: Some(vec!["listBooks".into()]),
        on_unavailable: OnUnavailable::FailClosed,
        counts: Counts::Tried,
        shadow: true,
        origin: rows.origin.clone(),
    };
    assert_eq!(**rows, expected);
    assert!(matches!(&rows.origin, Defined::File(at) if (at.line, at.column) == (4, 11)));
    assert_eq!(
        (&traffic.metric, traffic.amount),
        (&Metric::Bytes, 10 << 20)
    );
    assert_eq!(traffic.window, Window::Day(Tz::Europe__Berlin));
    assert_eq!(
        (traffic.subject, traffic.scope),
        (Subject::Consumer, Scope::Api)
    );
    assert_eq!((&spend.metric, spend.amount), (&Metric::Money, 12_500_000));
    assert_eq!(
        (spend.window, spend.subject),
        (Window::Month(Tz::UTC), Subject::Project)
    );
    assert_eq!(
        (&at_once.metric, at_once.window),
        (&Metric::Concurrent, Window::Gauge)
    );
    assert_eq!(
        (ever.window, ever.metric.clone()),
        (Window::Lifetime, Metric::Calls)
    );
    assert_eq!(ever.on_unavailable, OnUnavailable::Degraded);
}

#[test]
fn plans_carry_limits_and_a_price() {
    let files = Files::new();
    files.write(
        "plans.yaml",
        "plans:
  basic:
    apis: { '*': all }
    limits:
      - { name: calls-per-minute, amount: 100, window: 1m, scope: everything }
    price: { version: 3, currency: USD }
  free: { apis: { '*': all } }
",
    );
    let (directory, _) = read_directory(files.path(), &environment).unwrap();
    let [basic, free] = &*directory.plans else {
        panic!("{:?}", directory.plans)
    };
    assert_eq!(&*basic.limits[0].id, "plan/basic/calls-per-minute");
    assert_eq!(basic.limits[0].scope, Scope::Everything);
    assert_eq!((basic.price.version, &*basic.price.currency), (3, "USD"));
    assert_eq!(
        (&free.limits, &free.price),
        (&Vec::new(), &Price::default())
    );
    for (price, words) in [
        ("{version: 0}", "`plans.a.price.version`"),
        ("{currency: euro}", "`plans.a.price.currency`"),
        ("{amount: 1}", "fields here: version, currency"),
    ] {
        let text = format!("plans: {{a: {{apis: {{'*': all}}, price: {price}}}}}\n");
        files.write("plans.yaml", &text);
        let findings = read_directory(files.path(), &environment).unwrap_err();
        assert!(findings[0].to_string().contains(words), "{findings:?}");
    }
}

#[test]
fn more_limits_than_a_call_should_be_counted_against_are_refused() {
    let mut text = "limits:\n".to_owned();
    for number in 0..=MAX_LIMITS {
        text.push_str(&format!(
            "  - {{ name: l{number}, amount: 1, window: 1m }}\n"
        ));
    }
    let text = format!("spec: spec.yaml\nupstream: http://a:1\n{text}");
    let findings = Files::new().api(&text).unwrap_err();
    assert!(
        findings[0].what.contains("more than 64 limits"),
        "{findings:?}"
    );
}

#[test]
fn the_limits_of_a_file_win_over_those_of_the_description_and_google_s_come_last() {
    let text = "openapi: 3.1.0
x-tollgate:
  timeouts: {total: 3s}
  limits:
    - { name: mine, amount: 1, window: 1m }
    - { name: both, amount: 2, window: 1m }
x-google-management:
  metrics: [{name: read-requests, metricKind: DELTA, valueType: INT64}]
  quota:
    limits:
      - { name: both, metric: read-requests, unit: '1/min/{project}', values: {STANDARD: 3} }
      - { name: readLimit, metric: read-requests, unit: '1/d/{project}', values: {STANDARD: '4'} }
      - { name: none, metric: read-requests, unit: '1/min/{project}', values: {STANDARD: -1} }
paths:
  /a: {get: {operationId: getA}}
";
    let description = openapi::load_text("spec.yaml", text).unwrap();
    assert_eq!(description.findings, []);
    assert_eq!(description.settings.total, Some(Duration::from_secs(3)));
    let api = Files::new().meant("limits: [{name: mine, amount: 9, window: 1h}]");
    let limits = api.limits_for(&description);
    let told: Vec<_> = limits.iter().map(|it| (&*it.id, it.amount)).collect();
    let expected = [
        ("api/api/mine", 9),
        ("api/api/both", 2),
        ("api/api/readlimit", 4),
    ];
    assert_eq!(told, expected);
    let google = &limits[2];
    assert_eq!(google.metric, Metric::Units("read-requests".into()));
    assert_eq!(
        (google.window, google.subject),
        (Window::Day(Tz::UTC), Subject::Project)
    );
}

#[test]
fn a_bad_limit_of_a_description_is_a_warning_and_costs_nothing_else() {
    let text = "openapi: 3.1.0
x-tollgate:
  retries: 2
  acl: [{name: r, effect: deny, roles: [x]}]
  limits: [{name: a, amount: lots, window: 1m}]
paths:
  /a: {get: {operationId: getA}}
";
    let description = openapi::load_text("spec.yaml", text).unwrap();
    let [finding] = &*description.findings else {
        panic!("{:?}", description.findings)
    };
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        finding.what.contains("`x-tollgate.limits.amount`"),
        "{finding}"
    );
    assert_eq!((finding.place.line, finding.place.column), (5, 30));
    assert_eq!(description.settings.retries, Some(2));
    assert_eq!(&*description.settings.acl.as_ref().unwrap()[0].name, "r");
    assert_eq!(description.limits, []);
}

#[test]
fn limits_at_an_operation_are_said_to_count_nothing_and_cost_nothing_else() {
    let text = "openapi: 3.1.0
paths:
  /a:
    get:
      operationId: getA
      x-tollgate: { retries: 2, limits: [{ name: a, amount: 1, window: 1m }] }
";
    let description = openapi::load_text("spec.yaml", text).unwrap();
    let [finding] = &*description.findings else {
        panic!("{:?}", description.findings)
    };
    assert_eq!((finding.code, finding.place.line), ("misplaced-limits", 6));
    assert_eq!(description.operations[0].settings.retries, Some(2));
    assert_eq!(description.limits, []);
}

#[test]
fn limits_of_the_store_are_written_as_they_are_read() {
    let json = r#"[
        {"name": "a", "amount": 100, "window": "1m", "burst": 20, "operations": ["listBooks"]},
        {"name": "b", "metric": "money", "amount": "12.50", "window": "month", "timezone": "Europe/Berlin"},
        {"name": "c", "metric": "concurrent", "amount": 4, "shadow": true, "per": "address"},
        {"name": "d", "metric": "bytes", "amount": "1GiB", "window": "lifetime", "scope": "everything"},
        {"name": "e", "metric": "rows", "amount": 0, "window": "1d", "on_unavailable": "fail_open", "counts": "tried"}]"#;
    let limits = stored_limits("gold", json).unwrap();
    assert_eq!(limits.len(), 5);
    assert_eq!(
        (&*limits[0].id, &limits[0].origin),
        ("plan/gold/a", &Defined::Store)
    );
    let again = stored_limits("gold", &written_limits(&limits).to_string()).unwrap();
    assert_eq!(again, limits);
    let findings = stored_limits("gold", r#"[{"name": "a", "amuont": 1}]"#).unwrap_err();
    assert!(
        findings[0].remedy.contains("did you mean `amount`?"),
        "{findings:?}"
    );
    let price = stored_price(r#"{"version": 2, "currency": "CHF"}"#).unwrap();
    assert_eq!((price.version, &*price.currency), (2, "CHF"));
    stored_price(r#"{"version": 0}"#).unwrap_err();
    stored_price(r#"{"extra": 0}"#).unwrap_err();
}

#[test]
fn what_counters_are_asked_for_by_is_read_strictly() {
    use crate::settings::{parse_limit_id, parse_name, parse_operation, parse_subject};
    for (text, meant) in [
        ("1m", "60s"),
        ("60s", "60s"),
        ("24h", "86400s"),
        ("1d", "1d"),
        ("month", "month"),
        ("lifetime", "lifetime"),
    ] {
        assert_eq!(parse_window(text).as_deref(), Ok(meant));
    }
    type Parse = fn(&str) -> Result<String, String>;
    let table: [(Parse, &[&str], &[&str]); 5] = [
        (parse_window, &[], &["", "soon", "0s", "10ms", "400d"]),
        (parse_name, &["shop", "a-1"], &["", "Shop", "a/b", "a b"]),
        (
            parse_operation,
            &["listBooks", "GET./books/{id}"],
            &["", "a b", "ä"],
        ),
        (
            parse_subject,
            &["everybody", "consumer:shop", "user:shop:a b", "address:::1"],
            &["", "shop", "consumer:", "plan:a"],
        ),
        (
            parse_limit_id,
            &["plan/a/b", "api/a/b"],
            &["", "a/b", "plan/a", "plan/a/b/c", "term/a/b", "api//b"],
        ),
    ];
    for (parse, good, bad) in table {
        for text in good {
            assert_eq!(parse(text).as_deref(), Ok(*text));
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
