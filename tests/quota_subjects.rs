//! Who shares a limit, and over which calls: whoever does counts it down together, and nobody else is held up.
//!
//! The limits here have no window that could end meanwhile, and each operation is under one of them, so that every number is exact.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod issuer;
mod world;

use std::path::Path;

use issuer::{ISSUER, SHARED, bearer, coded, with};
use serde_json::json;
use world::shop::{self, Key, shop_with};
use world::{Plan, Service, World, api_file, eventually};

const LIST: (&str, &str) = ("GET", "/v1/books");
const READ: (&str, &str) = ("GET", "/v1/books/moby");
const DELETE: (&str, &str) = ("DELETE", "/v1/books/moby");
const EVENTS: (&str, &str) = ("GET", "/v1/events");

/// One limit for each kind of subject, each about an operation of its own.
const LIMITS: &str = "[\
    { name: by-organisation, amount: 3, window: lifetime, per: organisation, operations: [listBooks] }, \
    { name: by-project, amount: 2, window: lifetime, per: project, operations: [getBook] }, \
    { name: by-key, amount: 2, window: lifetime, per: credential, operations: [deleteBook] }, \
    { name: by-all, amount: 4, window: lifetime, per: everybody, operations: [streamEvents] }]";

/// The shop for the consumers of two organisations, whose plan has these limits.
fn sold(service: &Service, limits: &str) -> World {
    shop::bare(&service.url(), "")
        .file("plans.yaml", &shop::plans(limits))
        .file("consumers.yaml", shop::ORGANISATIONS)
        .start()
}

/// What this call leaves of the limit that `policy` tells of; `None` where the limit refused it.
fn left(world: &World, key: &Key, (method, path): (&str, &str), policy: &str) -> Option<u64> {
    let fields = [("x-api-key", &*key.secret)];
    let answer = world.ask(method, path, &fields, b"");
    answer.passed_leaving(policy)
}

/// A caller with these fields sees whose counter of this limit is its own, what is used of it, and what is left.
fn sees(world: &World, fields: &[(&str, &str)], limit: &str, expected: (&str, u64, u64)) {
    // What is handed out in advance counts as used for a moment.
    eventually(&format!("{limit} stands at {expected:?}"), || {
        let rows = world.own_quota("/v1", fields);
        rows.iter().any(|(name, whose, used, left)| {
            name == limit && (whose.as_str(), *used, *left) == expected
        })
    });
}

#[test]
fn an_organisation_shares_over_its_projects_and_with_no_other() {
    let service = Service::new();
    let world = sold(&service, LIMITS);
    let [desk, till, loft, lender] = ["desk", "till", "loft", "lender"].map(|it| world.key(it));
    let policy = "\"by-organisation\";q=3";
    let spent = [&desk, &loft, &till, &desk, &loft].map(|key| left(&world, key, LIST, policy));
    assert_eq!(spent, [Some(2), Some(1), Some(0), None, None]);
    let refused = world.get_with(&till, "/v1/books");
    assert_eq!(refused.left_of(policy), 0);
    let problem = refused.is_problem(429, "quota_exceeded").json();
    assert_eq!(problem["violated-policies"], json!(["by-organisation"]));
    assert_eq!(left(&world, &lender, LIST, policy), Some(2));
    assert_eq!(service.calls().len(), 4);
    let limit = "plan/all/by-organisation";
    let theirs = ("organisation:bookshop", 3, 0);
    for key in [&desk, &loft] {
        sees(&world, &[("x-api-key", &key.secret)], limit, theirs);
    }
    let fields = [("x-api-key", &*lender.secret)];
    sees(&world, &fields, limit, ("organisation:library", 1, 2));
}

#[test]
fn a_project_shares_and_another_of_the_organisation_does_not() {
    let service = Service::new();
    let world = sold(&service, LIMITS);
    let [desk, till, loft] = ["desk", "till", "loft"].map(|it| world.key(it));
    let policy = "\"by-project\";q=2";
    let spent = [&desk, &till, &desk, &till, &loft].map(|key| left(&world, key, READ, policy));
    assert_eq!(spent, [Some(1), Some(0), None, None, Some(1)]);
    let limit = "plan/all/by-project";
    for (key, expected) in [
        (&desk, ("project:floor", 2, 0)),
        (&till, ("project:floor", 2, 0)),
        (&loft, ("project:attic", 1, 1)),
    ] {
        sees(&world, &[("x-api-key", &key.secret)], limit, expected);
    }
}

#[test]
fn each_key_of_one_consumer_counts_for_itself() {
    let service = Service::new();
    let world = sold(&service, LIMITS);
    let (one, other) = (world.key("desk"), world.key("desk"));
    let policy = "\"by-key\";q=2";
    let spent = [&one, &one, &one, &other].map(|key| left(&world, key, DELETE, policy));
    assert_eq!(spent, [Some(1), Some(0), None, Some(1)]);
    let limit = "plan/all/by-key";
    for (key, used) in [(&one, 2), (&other, 1)] {
        let whose = format!("credential:{}", key.id);
        let expected = (whose.as_str(), used, 2 - used);
        sees(&world, &[("x-api-key", &key.secret)], limit, expected);
    }
}

#[test]
fn what_everybody_shares_is_gone_for_everybody_and_shown_to_operators_alone() {
    let service = Service::new();
    let world = sold(&service, LIMITS);
    let [desk, till, loft, lender] = ["desk", "till", "loft", "lender"].map(|it| world.key(it));
    let policy = "\"by-all\";q=4";
    let spent = [&desk, &lender, &till, &loft].map(|key| left(&world, key, EVENTS, policy));
    assert_eq!(spent, [Some(3), Some(2), Some(1), Some(0)]);
    for key in [&desk, &till, &loft, &lender] {
        assert_eq!(left(&world, key, EVENTS, policy), None);
    }
    eventually("operators see what is used", || {
        let rows = world.cli(&["quota", "--subject", "everybody", "--json"]);
        let rows = rows.json();
        let row = &rows[0];
        (&row["limit"], &row["used"], &row["left"])
            == (&json!("plan/all/by-all"), &json!(4), &json!(0))
    });
    let own = world.own_quota("/v1", &[("x-api-key", &desk.secret)]);
    let shown: Vec<&str> = own.iter().map(|row| row.0.as_str()).collect();
    let expected = ["by-organisation", "by-project", "by-key"].map(|it| format!("plan/all/{it}"));
    assert_eq!(shown, expected);
}

/// `Authorization` of a user, as a client of the issuer sends it.
fn token(client: &str, user: &str) -> String {
    let mut claims = with("client_id", json!(client));
    claims["sub"] = json!(user);
    bearer(&coded(SHARED.as_bytes(), &json!({"alg": "HS256"}), &claims))
}

#[test]
fn each_user_of_a_consumer_counts_alone_and_calls_without_a_user_by_their_key() {
    let service = Service::new();
    let auth = format!(
        "auth:\n  issuers:\n    id: {{ issuer: '{ISSUER}', audiences: [books], algorithms: [HS256], secret: 'file:../shared' }}\n"
    );
    let login = |name: &str| {
        format!("{name}: {{ logins: [{{ issuer: '{ISSUER}', client: {name} }}], subscriptions:")
    };
    let consumers = ["desk", "loft"]
        .into_iter()
        .fold(shop::ORGANISATIONS.to_owned(), |text, name| {
            text.replace(&format!("{name}: {{ subscriptions:"), &login(name))
        });
    let limits = "[{ name: by-user, amount: 2, window: lifetime, per: end_user }]";
    let world = shop::bare(&service.url(), &auth)
        .file("plans.yaml", &shop::plans(limits))
        .file("consumers.yaml", &consumers)
        .file("shared", SHARED)
        .start();
    let policy = "\"by-user\";q=2";
    let by_user = |client: &str, user: &str| {
        let token = token(client, user);
        let answer = world.ask("GET", "/v1/books", &[("authorization", &token)], b"");
        answer.passed_leaving(policy)
    };
    let ann = [(); 3].map(|()| by_user("desk", "ann"));
    assert_eq!(ann, [Some(1), Some(0), None]);
    assert_eq!(by_user("desk", "bob"), Some(1));
    // Of the same name, at another consumer.
    assert_eq!(by_user("loft", "ann"), Some(1));
    let key = world.key("desk");
    let keyed = [(); 3].map(|()| left(&world, &key, LIST, policy));
    assert_eq!(keyed, [Some(1), Some(0), None]);
    let limit = "plan/all/by-user";
    for (client, user, used) in [("desk", "ann", 2), ("desk", "bob", 1), ("loft", "ann", 1)] {
        let (token, whose) = (token(client, user), format!("user:{client}:{user}"));
        let expected = (whose.as_str(), used, 2 - used);
        sees(&world, &[("authorization", &token)], limit, expected);
    }
    let whose = format!("credential:{}", key.id);
    let fields = [("x-api-key", &*key.secret)];
    sees(&world, &fields, limit, (&whose, 2, 0));
}

/// The shop behind so many proxies that are believed, with two calls for each address.
fn behind(service: &Service, hops: u8) -> World {
    let limits = "limits:\n  - { name: by-address, amount: 2, window: lifetime, per: address, operations: [readPublic] }\n";
    let process = format!("listeners: [{{ address: 127.0.0.1:0 }}]\ntrusted_hops: {hops}\n");
    shop_with(service, limits).process(&process).start()
}

/// What a call leaves that was forwarded, as its sender says, for this client.
fn forwarded(world: &World, client: &str) -> Option<u64> {
    let fields = [("x-forwarded-for", client)];
    let answer = world.ask("GET", "/v1/public", &fields, b"");
    answer.passed_leaving("\"by-address\";q=2")
}

#[test]
fn an_address_counts_by_itself_and_ipv6_by_its_64() {
    let service = Service::new();
    let world = behind(&service, 1);
    let clients = [
        ("203.0.113.7", Some(1)),
        // What stands before the hop that is believed is anybody's claim.
        ("198.51.100.1, 203.0.113.7", Some(0)),
        ("203.0.113.7", None),
        ("203.0.113.8", Some(1)),
        ("2001:db8:1:2::1", Some(1)),
        ("2001:db8:1:2:ffff::9", Some(0)),
        ("2001:db8:1:2:8000::", None),
        ("2001:db8:1:3::1", Some(1)),
    ];
    for (client, expected) in clients {
        assert_eq!(forwarded(&world, client), expected, "{client}");
    }
    assert_eq!(service.calls().len(), 6);
    // Whoever has a key sees the counter of the address it asks from.
    let key = world.key("desk");
    for (client, expected) in [
        ("203.0.113.7", ("address:203.0.113.7", 2, 0)),
        ("203.0.113.8", ("address:203.0.113.8", 1, 1)),
        ("2001:db8:1:2::77", ("address:2001:db8:1:2::", 2, 0)),
        ("2001:db8:1:3::77", ("address:2001:db8:1:3::", 1, 1)),
    ] {
        let fields = [("x-api-key", &*key.secret), ("x-forwarded-for", client)];
        sees(&world, &fields, "api/shop/by-address", expected);
    }
}

#[test]
fn where_no_proxy_is_believed_nobody_gets_more_by_naming_another_address() {
    let service = Service::new();
    let world = behind(&service, 0);
    let claimed = ["203.0.113.7", "203.0.113.8", "2001:db8::1"];
    let spent = claimed.map(|client| forwarded(&world, client));
    assert_eq!(spent, [Some(1), Some(0), None]);
}

/// The shop as two APIs, `one` and `two`, which are sold by one plan with these limits.
fn two_apis(service: &Service, limits: &str) -> World {
    let api = |name: &str| {
        let base = format!("base_path: /{name}\n");
        api_file(Path::new("../../shop.yaml"), &service.url(), &base)
    };
    let plans = format!("plans:\n  all:\n    apis: {{ '*': all }}\n    limits: {limits}\n");
    let consumers = shop::ORGANISATIONS.replace("shop: all", "one: all, two: all");
    Plan::before(&service.url())
        .api("one", api("one"))
        .api("two", api("two"))
        .file("../shop.yaml", shop::SPEC)
        .file("plans.yaml", &plans)
        .file("consumers.yaml", &consumers)
        .start()
}

#[test]
fn a_limit_over_everything_is_one_for_all_apis() {
    let service = Service::new();
    let limits = "[{ name: over-all, amount: 3, window: lifetime, scope: everything }]";
    let world = two_apis(&service, limits);
    let key = world.key("desk");
    let policy = "\"over-all\";q=3";
    let paths = [
        "/one/books",
        "/two/books",
        "/one/books/moby",
        "/two/books",
        "/one/books",
    ];
    let spent = paths.map(|path| left(&world, &key, ("GET", path), policy));
    assert_eq!(spent, [Some(2), Some(1), Some(0), None, None]);
    let (limit, whose) = ("plan/all/over-all".to_owned(), "consumer:desk".to_owned());
    let expected = [(limit, whose, 3_u64, 0_u64)];
    for base in ["/one", "/two"] {
        eventually("both APIs tell of the same counter", || {
            world.own_quota(base, &[("x-api-key", &key.secret)]) == expected
        });
    }
}

#[test]
fn a_limit_over_an_api_counts_each_api_apart() {
    let service = Service::new();
    let limits = "[{ name: over-api, amount: 2, window: lifetime, scope: api }]";
    let world = two_apis(&service, limits);
    let key = world.key("desk");
    let policy = "\"over-api\";q=2";
    for used in [
        ["/one/books", "/one/books/moby"],
        ["/two/books", "/two/books"],
    ] {
        let spent = used.map(|path| left(&world, &key, ("GET", path), policy));
        assert_eq!(spent, [Some(1), Some(0)], "{used:?}");
        assert_eq!(left(&world, &key, ("GET", used[0]), policy), None);
    }
    assert_eq!(service.calls().len(), 4);
}

#[test]
fn operations_count_apart_or_together_as_the_limit_says() {
    let service = Service::new();
    let limits = "[\
        { name: each, amount: 2, window: lifetime, scope: operation, operations: [listBooks, getBook] }, \
        { name: together, amount: 3, window: lifetime, operations: [deleteBook, streamEvents] }]";
    let world = sold(&service, limits);
    let key = world.key("desk");
    let policy = "\"each\";q=2";
    for operation in [LIST, READ] {
        let spent = [(); 3].map(|()| left(&world, &key, operation, policy));
        assert_eq!(spent, [Some(1), Some(0), None], "{operation:?}");
    }
    let policy = "\"together\";q=3";
    let group = [DELETE, EVENTS, DELETE, EVENTS, DELETE];
    let spent = group.map(|operation| left(&world, &key, operation, policy));
    assert_eq!(spent, [Some(2), Some(1), Some(0), None, None]);
    // The one that no limit names is not counted.
    let fields = [("x-api-key", &*key.secret)];
    let free = world.ask("POST", "/v1/books", &fields, b"{}");
    assert_eq!((free.status, free.header("ratelimit")), (200, None));
    let row = |limit: &str, used: u64| {
        let limit = format!("plan/all/{limit}");
        (limit, "consumer:desk".to_owned(), used, 0_u64)
    };
    eventually("each operation has its counter, and the group one", || {
        world.own_quota("/v1", &fields) == [row("each", 2), row("each", 2), row("together", 3)]
    });
}
