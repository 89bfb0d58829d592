//! Mistakes in `cost` and their messages; what costs mean, and which of them hold for an operation.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use super::super::tests::{Files, Row};
use super::*;
use crate::openapi;

#[test]
fn a_mistake_in_a_cost_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        (
            "defaults: {cost: many}",
            3,
            18,
            "bad-value",
            &["`defaults.cost`", "no whole number"],
        ),
        (
            "defaults: {cost: [5]}",
            3,
            18,
            "wrong-shape",
            &["found a list"],
        ),
        (
            "defaults: {cost: {bytes: 5}}",
            3,
            19,
            "bad-value",
            &["is seen, not written"],
        ),
        (
            "defaults: {cost: {'a b': 5}}",
            3,
            19,
            "bad-value",
            &["cannot be a metric"],
        ),
        (
            "defaults: {cost: {money: 0.0000001}}",
            3,
            26,
            "bad-value",
            &["`defaults.cost.money`", "at most six digits"],
        ),
    ];
    Files::new().expect_api(table);
}

#[test]
fn a_mistake_in_where_a_cost_is_taken_from_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        (
            "defaults: {cost: {rows: {name: x}}}",
            3,
            25,
            "missing-field",
            &["`from`"],
        ),
        (
            "defaults: {cost: {rows: {from: reponse_header, name: x}}}",
            3,
            32,
            "bad-value",
            &["did you mean `response_header`?"],
        ),
        (
            "defaults: {cost: {rows: {from: query}}}",
            3,
            32,
            "bad-value",
            &["`defaults.cost.rows.name`: is missing", "name: limit"],
        ),
        (
            "defaults: {cost: {rows: {from: header, name: 'x y'}}}",
            3,
            46,
            "bad-value",
            &["cannot be a header field"],
        ),
        (
            "defaults: {cost: {rows: {from: header, name: x, per: 1KiB}}}",
            3,
            54,
            "bad-value",
            &["means nothing with `from: header`"],
        ),
        (
            "defaults: {cost: {rows: {from: response_bytes}}}",
            3,
            32,
            "bad-value",
            &["`defaults.cost.rows.per`: is missing", "per: 1KiB"],
        ),
        (
            "defaults: {cost: {rows: {from: response_bytes, per: 0}}}",
            3,
            53,
            "bad-value",
            &["more than zero"],
        ),
        (
            "defaults: {cost: {rows: {from: query, name: x, reserve: -1}}}",
            3,
            57,
            "bad-value",
            &["`defaults.cost.rows.reserve`"],
        ),
        (
            "defaults: {cost: {money: {from: query, name: x}}}",
            3,
            33,
            "bad-value",
            &["`defaults.cost.money.reserve`: is missing", "free"],
        ),
    ];
    Files::new().expect_api(table);
}

fn cost(metric: &str, reserve: u64, source: CostSource) -> Cost {
    let metric = Metric::named(metric);
    Cost {
        metric,
        reserve,
        source,
    }
}

#[test]
fn what_is_written_is_what_is_meant() {
    let api = Files::new().meant(
        "defaults: { cost: 5 }
operations:
  listBooks:
    cost:
      money: 0.002
      calls: 2
      rows: { from: response_header, name: X-Rows, reserve: 10 }
      page: { from: query, name: limit, reserve: 20 }
      weight: { from: header, name: x-weight }
      share: { from: path, name: share }
      units: { from: response_bytes, per: 1KiB }",
    );
    let fixed = CostSource::Fixed;
    assert_eq!(
        api.defaults.costs,
        Some(vec![cost("units", 5, fixed.clone())])
    );
    let mut costs = api.operations["listBooks"].costs.clone().unwrap();
    costs.sort_by(|one, other| one.metric.cmp(&other.metric));
    let expected = [
        cost("calls", 2, fixed.clone()),
        cost("money", 2_000, fixed),
        cost("page", 20, CostSource::Query("limit".into())),
        cost("rows", 10, CostSource::ResponseHeader("x-rows".into())),
        cost("share", 1, CostSource::Path("share".into())),
        cost("units", 1, CostSource::ResponseBytes { per: 1024 }),
        cost("weight", 1, CostSource::Header("x-weight".into())),
    ];
    assert_eq!(costs, expected);
}

#[test]
fn each_metric_counts_as_said_in_the_innermost_place_that_has_it() {
    let text = "openapi: 3.1.0
x-tollgate: {cost: {units: 1, a: 1, money: 0.1}}
paths:
  /a:
    x-tollgate: {cost: {units: 2, a: 2}}
    get:
      operationId: getA
      x-tollgate: {cost: 3}
      x-google-quota: {metricCosts: {units: 7, read-requests: 4, write-requests: '6'}}
    put: {operationId: putA}
  /b:
    get: {operationId: getB, x-google-quota: {metricCosts: {read-requests: many}}}
    put: {operationId: putB, x-google-quota: {}}
";
    let description = openapi::load_text("spec.yaml", text).unwrap();
    let warned: Vec<_> = description
        .findings
        .iter()
        .map(|it| (it.code, it.place.line))
        .collect();
    assert_eq!(warned, [("bad-quota", 12), ("bad-quota", 13)]);
    let costs = |text: &str, operation: usize| -> Vec<(String, u64)> {
        let api = Files::new().meant(text);
        let settings = api.settings_for(&description.operations[operation]);
        let costs = settings.costs.unwrap_or_default().into_iter();
        let mut costs: Vec<_> = costs
            .map(|it| (it.metric.as_str().to_owned(), it.reserve))
            .collect();
        costs.sort();
        costs
    };
    let expect = |text: &str, operation: usize, expected: &[(&str, u64)]| {
        let found = costs(text, operation);
        let found: Vec<_> = found
            .iter()
            .map(|(metric, cost)| (metric.as_str(), *cost))
            .collect();
        assert_eq!(found, expected, "{text} {operation}");
    };
    let ours = [
        ("a", 2),
        ("money", 100_000),
        ("read-requests", 4),
        ("units", 3),
        ("write-requests", 6),
    ];
    expect("", 0, &ours);
    expect("", 1, &[("a", 2), ("money", 100_000), ("units", 2)]);
    expect("", 2, &[("a", 1), ("money", 100_000), ("units", 1)]);
    expect(
        "defaults: {cost: {a: 9}}",
        1,
        &[("a", 9), ("money", 100_000), ("units", 2)],
    );
    let own = "defaults: {cost: {a: 9}}\noperations: {putA: {cost: 0}}";
    expect(own, 1, &[("a", 9), ("money", 100_000), ("units", 0)]);
}
