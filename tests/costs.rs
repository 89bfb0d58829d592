//! What a call costs: fixed, read from the call, told by the service; counted against limits, and billed where there is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::Write as _;

use serde_json::{Value, json};
use world::shop::{self, Key, shop_with};
use world::{Plan, Service, Then, World, eventually};

/// The shop with such costs and limits.
fn shop_of(service: &Service, costs: &str, limits: &str) -> Plan {
    shop_with(service, costs)
        .file("plans.yaml", &shop::plans(limits))
        .file("consumers.yaml", shop::CONSUMERS)
}

/// Statuses of so many calls.
fn calls(world: &World, key: &Key, number: usize) -> Vec<u16> {
    let call = |_| world.get_with(key, "/v1/books").status;
    (0..number).map(call).collect()
}

/// Calls, cost units and money of a consumer, by the command line.
fn usage(world: &World) -> (u64, u64, u64) {
    let rows = world.cli(&["usage", "--consumer", "desk", "--by", "operation", "--json"]);
    let rows = rows.json();
    let sum = |name: &str| {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row[name].as_u64().unwrap_or_default()).sum()
    };
    (sum("calls"), sum("units"), sum("money"))
}

#[test]
fn a_cost_the_service_tells_is_charged_and_not_shown() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-rows: 40\r\n\r\nok");
        Then::Continue
    });
    let costs = "operations:\n  listBooks: { cost: { rows: { from: response_header, name: x-rows, reserve: 1 } } }\n";
    let limits = "[{ name: rows, metric: rows, amount: 100, window: lifetime }]";
    let world = shop_of(&service, costs, limits).start();
    let key = world.key("desk");
    let first = world.get_with(&key, "/v1/books");
    assert_eq!((first.status, first.header("x-rows")), (200, None));
    // 40, 80, 120: the third call passed, and what it came to is owed.
    assert_eq!(calls(&world, &key, 4), [200, 200, 429, 429]);
}

#[test]
fn money_that_is_spent_answers_402() {
    let service = Service::new();
    let costs = "operations:\n  listBooks: { cost: { money: 0.40 } }\n";
    let limits = "[{ name: cap, metric: money, amount: 1.00, window: month }]";
    let world = shop_of(&service, costs, limits).start();
    let key = world.key("desk");
    assert_eq!(calls(&world, &key, 2), [200, 200]);
    let problem = world.get_with(&key, "/v1/books");
    problem.is_problem(402, "spend_cap_reached");
    assert!(
        problem
            .text()
            .contains("the spend cap `cap` of 1.00 per month")
    );
}

#[test]
fn what_did_not_reach_the_service_counts_only_where_the_limit_says_so() {
    let deny = "operations:\n  createBook: { acl: [{ name: closed, effect: deny }] }\n";
    for (counts, used) in [("reached", 0), ("tried", 3)] {
        let limits = format!("[{{ name: daily, amount: 3, window: 1d, counts: {counts} }}]");
        let world = shop::bare(&Service::nowhere(), deny)
            .file("plans.yaml", &shop::plans(&limits))
            .file("consumers.yaml", shop::CONSUMERS)
            .start();
        let key = world.key("desk");
        let headers = [("x-api-key", &*key.secret)];
        for _ in 0..2 {
            let refused = world.ask("POST", "/v1/books", &headers, b"{}");
            refused.is_problem(403, "not_permitted");
        }
        let failed = world.get_with(&key, "/v1/books").status;
        assert!(matches!(failed, 502 | 503), "{failed}");
        eventually("it is counted", || {
            let quota: Value = world.cli(&["quota", "--consumer", "desk", "--json"]).json();
            quota.get(0).map_or(0, |row| row["used"].as_u64().unwrap()) == used
        });
        // What was counted is gone, and what was not is there.
        let fourth = world.get_with(&key, "/v1/books").status;
        let expected = if used == 3 { 429..=429 } else { 502..=503 };
        assert!(expected.contains(&fourth), "{counts}: {fourth}");
    }
}

#[test]
fn calls_to_no_operation_count_only_where_the_limit_says_so_and_cost_nobody_else() {
    let service = Service::new();
    for (counts, used) in [("reached", 0), ("tried", 4)] {
        let limits = format!(
            "[{{ name: daily, amount: 4, window: 1d, counts: {counts} }}, \
              {{ name: named, amount: 4, window: 1d, counts: {counts}, operations: [listBooks] }}]"
        );
        let world = shop_of(&service, "", &limits).start();
        let key = world.key("desk");
        let ask = |method: &str, path: &str, key: &str| {
            let answer = world.ask(method, path, &[("x-api-key", key)], b"");
            answer.status
        };
        for _ in 0..3 {
            assert_eq!(ask("GET", "/v1/nothing", &key.secret), 404);
        }
        assert_eq!(ask("PATCH", "/v1/books", &key.secret), 405);
        // A 404 says no more to who shows a wrong key, or none.
        assert_eq!(ask("GET", "/v1/nothing", "tg_live_nobody"), 404);
        assert_eq!(world.get("/v1/nothing").status, 404);
        let by_limit = || {
            let quota: Value = world.cli(&["quota", "--consumer", "desk", "--json"]).json();
            let rows = quota.as_array().unwrap().iter();
            let used = |row: &Value| row["used"].as_u64().unwrap();
            let named = |row: &Value| row["limit"].as_str().unwrap().to_owned();
            rows.map(|row| (named(row), used(row))).collect::<Vec<_>>()
        };
        let counted = vec![("plan/all/daily".to_owned(), 4)];
        let expected = if used == 0 { Vec::new() } else { counted };
        // Told without a call that draws from it.
        eventually("it is counted", || by_limit() == expected);
        let fifth = world.get_with(&key, "/v1/books").status;
        assert_eq!(fifth, if used == 0 { 200 } else { 429 }, "{counts}");
        // Of the caller it is known who it was.
        let record = world.access_log(1).remove(0);
        assert_eq!(
            (&record["status"], &record["consumer"]),
            (&json!(404), &json!("desk"))
        );
    }
}

#[test]
fn what_no_limit_counts_is_billed_all_the_same() {
    let service = Service::new();
    let costs = "operations:\n  listBooks: { cost: { money: 0.40, rows: 3 } }\n";
    let world = shop_of(&service, costs, "[]").start();
    let key = world.key("desk");
    assert_eq!(calls(&world, &key, 3), [200, 200, 200]);
    eventually("it is stored", || usage(&world) == (3, 9, 1_200_000));
}

#[test]
fn usage_tells_cost_units_by_name_and_money_by_currency() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-tokens: 40\r\n\r\nok");
        Then::Continue
    });
    let costs = "operations:\n  listBooks: { cost: { money: 0.40, pages: 3, tokens: { from: response_header, name: x-tokens, reserve: 1 } } }\n";
    let apis = "    apis: { shop: all }\n";
    let plans = shop::PLANS.replace(
        apis,
        &format!("{apis}    price: {{ version: 2, currency: CHF }}\n"),
    );
    let world = shop_with(&service, costs)
        .file("plans.yaml", &plans)
        .file("consumers.yaml", shop::CONSUMERS)
        .start();
    let key = world.key("desk");
    assert_eq!(calls(&world, &key, 3), [200, 200, 200]);
    let by_plan = ["usage", "--consumer", "desk", "--by", "plan,price_version"];
    let row = || {
        let rows: Value = world.cli(&[&by_plan[..], &["--json"]].concat()).json();
        rows[0].clone()
    };
    eventually("it is stored", || row()["calls"] == 3);
    let row = row();
    assert_eq!(
        row["units_by_name"],
        json!({ "pages": 9, "tokens": 120 }),
        "{row}"
    );
    assert_eq!(
        row["money_by_currency"],
        json!({ "CHF": 1_200_000 }),
        "{row}"
    );
    assert_eq!(
        (&row["plan"], &row["price_version"]),
        (&json!("all"), &json!(2))
    );
    let ran = world.cli(&by_plan);
    let table = ran.good();
    assert!(table.contains("pages=9 tokens=120"), "{table}");
    assert!(table.contains("1.20 CHF"), "{table}");
    let ran = world.cli(&[&by_plan[..], &["--format", "csv"]].concat());
    let csv = ran.good();
    assert!(csv.contains(",pages=9 tokens=120,CHF=1200000"), "{csv}");
    world
        .cli(&["usage", "reconcile", "--admin", &world.admin.to_string()])
        .good();
    let own = world.get_with(&key, "/v1/.tollgate/usage");
    let own: Value = serde_json::from_str(&own.text()).unwrap();
    let own = &own["today"]["total"];
    assert_eq!(
        own["units_by_name"],
        json!({ "pages": 9, "tokens": 120 }),
        "{own}"
    );
    assert_eq!(
        own["money_by_currency"],
        json!({ "CHF": 1_200_000 }),
        "{own}"
    );
}

#[test]
fn a_call_that_costs_more_than_a_limit_ever_holds_takes_nothing_from_it() {
    let service = Service::new();
    let costs =
        "operations:\n  listBooks: { cost: { rows: { from: query, name: rows, reserve: 1 } } }\n";
    let limits = "[{ name: rows, metric: rows, amount: 10, window: 1d }]";
    let world = shop_of(&service, costs, limits).start();
    let key = world.key("desk");
    let take = |rows: u64| world.get_with(&key, &format!("/v1/books?rows={rows}"));
    for _ in 0..3 {
        take(11).is_problem(429, "quota_exceeded");
        take(u64::MAX).is_problem(429, "quota_exceeded");
    }
    assert_eq!(take(10).status, 200, "all of it is there");
    take(1).is_problem(429, "quota_exceeded");
    let quota: Value = world.cli(&["quota", "--consumer", "desk", "--json"]).json();
    assert_eq!(quota[0]["used"], 10, "{quota}");
}
