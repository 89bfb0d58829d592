//! A clock that is set wrong while the gateway runs: an hour on, an hour back, four hundred days on. Nothing that is over counts again,
//! nobody gets more than was sold, and what was served is counted. Needs libfaketime (Debian's package `faketime`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod issuer;
mod world;

use std::thread;
use std::time::Duration;

use issuer::{ISSUER, SHARED, bearer, coded, now, with};
use serde_json::{Value, json};
use world::clock::Clock;
use world::shop::{self, Key, shop_with};
use world::{Plan, Service, World, eventually};

/// The plan, by this clock.
fn hang_on(clock: &Clock, plan: Plan) -> Plan {
    let variables = clock.environment().into_iter();
    variables.fold(plan, |plan, (name, value)| plan.environment(&name, &value))
}

/// The shop, which also takes tokens of an issuer, and whose plan `all` has these limits.
fn plan(service: &Service, limits: &str) -> Plan {
    let auth = format!(
        "auth:\n  subscription: off\n  issuers:\n    id: {{ issuer: '{ISSUER}', audiences: [books], algorithms: [HS256], \
         secret: 'file:../shared', leeway: 1s }}\n"
    );
    let all = "    apis: { shop: all }\n";
    let plans = shop::PLANS.replace(all, &format!("{all}    limits: {limits}\n"));
    shop_with(service, &auth)
        .file("shared", SHARED)
        .file("plans.yaml", &plans)
        .file("consumers.yaml", shop::CONSUMERS)
}

/// A token that ends then.
fn token(expires: i64) -> String {
    let claims = with("exp", json!(expires));
    bearer(&coded(SHARED.as_bytes(), &json!({"alg": "HS256"}), &claims))
}

fn show(world: &World, token: &str) -> u16 {
    let fields = [("authorization", token)];
    world.ask("GET", "/v1/books", &fields, b"").status
}

fn calls(world: &World, key: &Key, number: usize) -> usize {
    let passes = |_: &usize| world.get_with(key, "/v1/books").status == 200;
    (0..number).filter(passes).count()
}

#[test]
fn a_clock_set_back_extends_no_token_and_one_set_forward_ends_them() {
    let Some(clock) = Clock::new() else { return };
    let service = Service::new();
    let world = hang_on(&clock, plan(&service, "[]")).start();
    let (short, long) = (token(now() + 2), token(now() + 600));
    assert_eq!((show(&world, &short), show(&world, &long)), (200, 200));
    eventually("it is over", || show(&world, &short) == 401);
    for off in ["-1h", "-400d"] {
        clock.set(off);
        assert_eq!(show(&world, &short), 401, "{off}: it is over all the same");
        assert_eq!(show(&world, &token(now() - 30)), 401, "{off}");
        assert_eq!(show(&world, &long), 200, "{off}");
    }
    for off in ["+1h", "+400d"] {
        clock.set(off);
        assert_eq!(show(&world, &long), 401, "{off}");
    }
    clock.set("+0");
    assert_eq!(show(&world, &long), 200, "it was the clock");
}

#[test]
fn quota_and_usage_stay_right_whatever_the_clock_shows() {
    let Some(clock) = Clock::new() else { return };
    let service = Service::new();
    let limits =
        "[{ name: hourly, amount: 6, window: 1h }, { name: daily, amount: 100, window: 1d }]";
    let world = hang_on(&clock, plan(&service, limits)).start();
    let key = world.key("desk");
    assert_eq!(calls(&world, &key, 2), 2);
    let mut passed = 2;
    for off in ["+1h", "-1h", "+400d", "+0"] {
        clock.set(off);
        passed += calls(&world, &key, 2);
        assert!(passed <= 6, "{off}: {passed}");
        // Leases are renewed, windows looked at.
        thread::sleep(Duration::from_millis(700));
    }
    passed += calls(&world, &key, 10);
    assert_eq!(passed, 6, "what was sold, no more and no less");
    eventually("all of it is stored", || {
        let rows = world.cli(&["usage", "--consumer", "desk", "--by", "consumer", "--json"]);
        let rows = rows.json();
        let calls = |row: &Value| row["calls"].as_u64().unwrap();
        rows.as_array().unwrap().iter().map(calls).sum::<u64>() == 6
    });
    world.cli(&["audit", "verify"]).good();
}
