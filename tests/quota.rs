//! What was sold is what passes: exactly so much, told with every answer, explained when it is used up, and still right after the
//! process was killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod issuer;
mod world;

use std::sync::{Arc, Barrier};

use issuer::{ISSUER, SHARED, bearer, coded, with};
use serde_json::{Value, json};
use world::disk::Disk;
use world::service::ok;
use world::shop::{self, Key, shop, shop_with};
use world::store::Store;
use world::{Answer, Plan, Service, Then, World, eventually};

/// The shop, whose plan `all` has these limits.
fn limited(service: &Service, limits: &str) -> Plan {
    shop(service).file("plans.yaml", &shop::plans(limits))
}

/// Statuses of so many calls.
fn calls(world: &World, key: &Key, number: usize) -> Vec<u16> {
    let call = |_| world.get_with(key, "/v1/books").status;
    (0..number).map(call).collect()
}

fn passed(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status == 200).count()
}

/// What a counter says, by the command line.
fn used(world: &World, consumer: &str) -> Vec<(String, u64, u64)> {
    let listed = world
        .cli(&["quota", "--consumer", consumer, "--json"])
        .json();
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let rows = listed.as_array().unwrap().iter();
    rows.map(|row| {
        let limit = row["limit"].as_str().unwrap().to_owned();
        (limit, number(row, "used"), number(row, "left"))
    })
    .collect()
}

#[test]
fn exactly_what_was_sold_passes_and_every_answer_says_what_is_left() {
    let service = Service::new();
    let limits = "[{ name: all-time, amount: 5, window: lifetime }, { name: daily, amount: 1000, window: 1d }]";
    let world = limited(&service, limits).start();
    let (desk, web) = (world.key("desk"), world.key("web"));
    for left in (0..5).rev() {
        let answer = world.get_with(&desk, "/v1/books");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"all-time\";q=5"));
        let state = format!("\"all-time\";r={left}");
        assert_eq!(answer.header("ratelimit"), Some(&*state));
    }
    let refused = world.get_with(&desk, "/v1/books");
    let problem = refused.is_problem(429, "quota_exceeded").json();
    assert_eq!(problem["violated-policies"], json!(["all-time"]));
    assert_eq!(
        problem["detail"],
        "the limit `all-time` of 5 calls in all is reached"
    );
    assert_eq!(refused.header("ratelimit"), Some("\"all-time\";r=0"));
    assert_eq!(refused.header("retry-after"), None, "it never comes back");
    // Another consumer, whose plan has no limits, is not told of any.
    let other = world.get_with(&web, "/v1/books");
    assert_eq!((other.status, other.header("ratelimit")), (200, None));
    service.has_calls(6);
    assert_eq!(
        service.calls().len(),
        6,
        "no refused call reached the service"
    );
    let mut counted = used(&world, "desk");
    counted.sort();
    assert_eq!(
        counted,
        [
            ("plan/all/all-time".to_owned(), 5, 0),
            ("plan/all/daily".to_owned(), 5, 995)
        ]
    );
}

#[test]
fn a_refusal_says_when_to_come_back_and_explains_itself() {
    let service = Service::new();
    let more = shop::CONSUMERS.replace(
        "          guest: {}\n",
        "          desk-two:\n            subscriptions: { shop: all }\n",
    );
    let world = limited(&service, "[{ name: daily, amount: 1, window: 1d }]")
        .file("consumers.yaml", &more)
        .start();
    let key = world.key("desk");
    assert_eq!(calls(&world, &key, 1), [200]);
    let headers = [("x-api-key", &*key.secret), ("x-tollgate-explain", "1")];
    let refused = world.ask("GET", "/v1/books", &headers, b"");
    refused.is_problem(429, "quota_exceeded");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_410).contains(&seconds), "{seconds}");
    let explained = refused.header("x-tollgate-explain").unwrap();
    let rule = "limit plan/all/daily: refused (0 of 1 calls left)";
    assert!(explained.contains(rule), "{explained}");
    assert!(explained.contains("plans.yaml:4:"), "{explained}");
    // Asking why costs nothing, and says the same.
    let key_field = format!("x-api-key: {}", key.secret);
    let told = world.cli(&["explain", "GET", "/v1/books", "-H", &key_field]);
    assert!(told.out.contains("0 of 1 calls left"), "{told:?}");
    assert_eq!(told.status.code(), Some(1), "it would be refused");
    // One that was never counted is not refused for that.
    let other = world.key("desk-two");
    let key_field = format!("x-api-key: {}", other.secret);
    let told = world.cli(&["explain", "GET", "/v1/books", "-H", &key_field]);
    assert!(told.status.success(), "{told:?}");
}

#[test]
fn what_was_used_is_used_after_a_kill_and_not_a_call_more() {
    let service = Service::new();
    let plan = || {
        limited(
            &service,
            "[{ name: all-time, amount: 20, window: lifetime }]",
        )
    };
    let world = plan().start();
    let key = world.key("desk");
    assert_eq!(passed(&calls(&world, &key, 6)), 6);
    let home = world.kill();
    let world = plan().start_again(home.path());
    let more = passed(&calls(&world, &key, 30));
    // What was handed out and not used when it died may be lost, never given twice.
    assert!((10..=14).contains(&more), "{more}");
    let home = world.kill();
    let world = plan().start_again(home.path());
    assert_eq!(passed(&calls(&world, &key, 3)), 0);
}

#[test]
fn many_at_once_get_no_more_than_one_would() {
    let service = Service::new();
    let world = limited(
        &service,
        "[{ name: all-time, amount: 100, window: lifetime }]",
    )
    .start();
    let key = world.key("desk");
    let begin = Barrier::new(8);
    let passed: usize = std::thread::scope(|scope| {
        let (world, key, begin) = (&world, &key, &begin);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    begin.wait();
                    passed(&calls(world, key, 40))
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(passed, 100);
}

#[test]
fn a_call_that_never_reached_the_service_is_not_charged() {
    let nowhere = shop::bare(&Service::nowhere(), "")
        .file(
            "plans.yaml",
            &shop::plans("[{ name: all-time, amount: 2, window: lifetime }]"),
        )
        .file("consumers.yaml", shop::CONSUMERS);
    let world = nowhere.start();
    let key = world.key("desk");
    for status in calls(&world, &key, 6) {
        assert!(matches!(status, 502 | 503), "{status}");
    }
}

#[test]
fn a_client_that_leaves_early_has_spent_its_call() {
    let service = Service::answering(|_, _| Then::Hold);
    let world = limited(
        &service,
        "[{ name: all-time, amount: 2, window: lifetime }]",
    )
    .start();
    let key = world.key("desk");
    for call in 1..=2 {
        let mut client = world.client();
        client.request("GET", "/v1/books", &[("x-api-key", &key.secret)], b"");
        service.has_calls(call);
        drop(client);
    }
    world
        .get_with(&key, "/v1/books")
        .is_problem(429, "quota_exceeded");
}

#[test]
fn so_many_at_a_time_and_the_next_when_one_has_ended() {
    let gate = Arc::new(Barrier::new(3));
    let inside = gate.clone();
    let service = Service::answering(move |_, stream| {
        inside.wait();
        ok(stream, "ok")
    });
    let world = limited(
        &service,
        "[{ name: at-once, metric: concurrent, amount: 2 }]",
    )
    .start();
    let key = world.key("desk");
    let mut under_way: Vec<_> = (0..2)
        .map(|_| {
            let mut client = world.client();
            client.request("GET", "/v1/books", &[("x-api-key", &key.secret)], b"");
            client
        })
        .collect();
    service.has_calls(2);
    world
        .get_with(&key, "/v1/books")
        .is_problem(429, "quota_exceeded");
    gate.wait();
    for client in &mut under_way {
        assert_eq!(client.answer().unwrap().status, 200);
    }
    service.now(|_, stream| ok(stream, "ok"));
    eventually("a place becomes free", || calls(&world, &key, 1) == [200]);
}

#[test]
fn a_shadow_limit_refuses_nobody_and_names_whom_it_would() {
    let service = Service::new();
    let world = limited(
        &service,
        "[{ name: soon, amount: 1, window: 1d, shadow: true }]",
    )
    .start();
    let key = world.key("desk");
    assert_eq!(passed(&calls(&world, &key, 4)), 4);
    let reported = world.cli(&["shadow-report"]).out;
    assert!(
        reported.contains("plan/all/soon") && reported.contains("desk"),
        "{reported}"
    );
}

#[test]
fn callers_without_a_name_share_what_their_address_has() {
    let service = Service::new();
    let limits = "limits:\n  - { name: per-address, amount: 3, window: 1d, per: address, operations: [readPublic] }\n";
    let world = shop_with(&service, limits).start();
    let statuses: Vec<u16> = (0..5).map(|_| world.get("/v1/public").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let key = world.key("desk");
    assert_eq!(
        passed(&calls(&world, &key, 5)),
        5,
        "other operations are not counted"
    );
}

#[test]
fn where_nobody_can_count_each_limit_does_as_it_says() {
    for (policy, expected) in [("fail_open", 200), ("fail_closed", 503)] {
        let service = Service::new();
        let limits =
            format!("[{{ name: daily, amount: 1000, window: 1d, on_unavailable: {policy} }}]");
        let world = limited(&service, &limits).start();
        let key = world.key("desk");
        assert_eq!(calls(&world, &key, 1), [200]);
        let ledger = Store::named(&world.file("state"), "quota.db");
        let lock = ledger.lock();
        eventually("what is at hand is used up", || {
            calls(&world, &key, 1) == [expected]
        });
        assert_eq!(calls(&world, &key, 3), [expected; 3], "{policy}");
        drop(lock);
        eventually("it counts again", || {
            let answer = world.get_with(&key, "/v1/books");
            answer.status == 200 && answer.header("ratelimit").is_some()
        });
    }
}

#[test]
fn shares_of_a_limit_are_told_to_a_webhook_and_old_clients_get_their_fields() {
    let service = Service::new();
    let hook = Service::new();
    let process = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nquota: {{ webhook: \"{}/alerts\", legacy_fields: on }}\n",
        hook.url()
    );
    let world = limited(&service, "[{ name: daily, amount: 4, window: 1d }]")
        .process(&process)
        .start();
    let key = world.key("desk");
    let answer = world.get_with(&key, "/v1/books");
    assert_eq!(answer.header("x-ratelimit-limit"), Some("4"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("3"));
    assert_eq!(passed(&calls(&world, &key, 5)), 3);
    let refused = world.get_with(&key, "/v1/books");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    hook.has_calls(1);
    eventually("all of it is told", || {
        let told = hook.calls();
        let whole = told.iter().filter(|call| {
            let event: Value = serde_json::from_slice(&call.body).unwrap();
            assert_eq!(event["specversion"], "1.0");
            assert_eq!(event["data"]["limit"], "plan/all/daily");
            event["data"]["percent"] == 100
        });
        whole.count() == 1
    });
    assert!(
        world
            .metrics()
            .contains("tollgate_quota_alerts_total{percent=\"100\"} 1")
    );
}

#[test]
fn what_cannot_be_recorded_is_refused_until_there_is_room() {
    let service = Service::new();
    let Some(disk) = Disk::new() else { return };
    let world = shop(&service).state(disk.path()).start();
    let key = world.key("desk");
    world
        .get_with(&key, "/v1/books")
        .is_problem(503, "usage_not_recordable");
    assert_eq!(
        world.get("/v1/public").status,
        200,
        "nobody is billed for it"
    );
    disk.grow();
    eventually("there is room again, without a restart", || {
        world.get_with(&key, "/v1/books").status == 200
    });
}

#[test]
fn what_is_served_without_a_journal_is_counted_exactly() {
    let service = Service::new();
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("usage"), "in the way").unwrap();
    let process = "listeners: [{ address: 127.0.0.1:0 }]\nusage: { on_full: serve_unmetered }\n";
    let world = shop(&service).process(process).state(state.path()).start();
    let key = world.key("desk");
    assert_eq!(calls(&world, &key, 3), [200, 200, 200]);
    assert_eq!(world.get("/v1/public").status, 200);
    let metrics = world.metrics();
    let told = metrics
        .lines()
        .find(|line| line.starts_with("tollgate_usage_unopened_total{"));
    assert!(told.unwrap().ends_with("} 3"), "{metrics}");
}

#[test]
fn a_full_disk_that_has_room_again_counts_again() {
    let service = Service::new();
    let Some(disk) = Disk::new() else { return };
    let process = "listeners: [{ address: 127.0.0.1:0 }]\nusage: { on_full: serve_unmetered }\n";
    let limits = "[{ name: daily, amount: 100000, window: 1d, on_unavailable: fail_closed }]";
    let world = limited(&service, limits)
        .process(process)
        .state(disk.path())
        .start();
    let key = world.key("desk");
    assert_eq!(calls(&world, &key, 2), [200, 200]);
    disk.fill();
    // What is held is spent; more cannot be stored, and is not handed out.
    let mut passed = 2;
    let refused = (0..5_000).find_map(|_| {
        let answer = world.get_with(&key, "/v1/books");
        passed += u64::from(answer.status == 200);
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.expect("the ledger is full");
    refused.is_problem(503, "quota_unavailable");
    disk.clear();
    eventually("it counts again", || {
        let status = world.get_with(&key, "/v1/books").status;
        passed += u64::from(status == 200);
        status == 200
    });
    let (_, gone, left) = used(&world, "desk").remove(0);
    assert!(
        gone >= passed && gone + left == 100_000,
        "{gone} of {passed}"
    );
}

/// Calls by operation, by the command line.
fn listed(world: &World) -> Vec<(String, u64)> {
    let rows = world
        .cli(&["usage", "--consumer", "desk", "--by", "operation", "--json"])
        .json();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| {
        let operation = row["operation"].as_str().unwrap().to_owned();
        (operation, row["calls"].as_u64().unwrap())
    })
    .collect()
}

fn own(world: &World, key: &Key, what: &str) -> Answer {
    world.get_with(key, &format!("/v1/.tollgate/{what}"))
}

#[test]
fn callers_see_what_is_counted_for_their_key_their_user_and_their_address() {
    let service = Service::new();
    let limits = "[{ name: per-key, amount: 100, window: 1d, per: credential }, \
                  { name: per-user, amount: 200, window: 1d, per: end_user }, \
                  { name: all-of-us, amount: 300, window: 1d, per: everybody }]";
    let here = "limits:\n  - { name: per-address, amount: 400, window: 1d, per: address }\n";
    let auth = format!(
        "auth:\n  issuers:\n    id: {{ issuer: '{ISSUER}', audiences: [books], algorithms: [HS256], secret: 'file:../shared' }}\n"
    );
    let logins =
        "          desk:\n            logins: [{ issuer: 'https://id.test', client: till }]\n";
    let world = shop_with(&service, &format!("{here}{auth}"))
        .file("plans.yaml", &shop::plans(limits))
        .file(
            "consumers.yaml",
            &shop::CONSUMERS.replace("          desk:\n", logins),
        )
        .file("shared", SHARED)
        .start();
    let (one, other) = (world.key("desk"), world.key("desk"));
    let mut claims = with("client_id", json!("till"));
    claims["sub"] = json!("ann");
    let token = bearer(&coded(SHARED.as_bytes(), &json!({"alg": "HS256"}), &claims));
    let ann = [("authorization", &*token)];
    assert_eq!(passed(&calls(&world, &one, 3)), 3);
    assert_eq!(world.ask("GET", "/v1/books", &ann, b"").status, 200);
    assert_eq!(world.ask("GET", "/v1/books", &ann, b"").status, 200);
    let address = "address:127.0.0.1".to_owned();
    let expected = |key: &str, user: &str, used: [u64; 3]| {
        let [keys, users, all] = used;
        let row = |limit: &str, whose: &str, used: u64, amount: u64| {
            (limit.to_owned(), whose.to_owned(), used, amount - used)
        };
        vec![
            row("plan/all/per-key", key, keys, 100),
            row("plan/all/per-user", user, users, 200),
            row("api/shop/per-address", &address, all, 400),
        ]
    };
    let (first, second) = (
        format!("credential:{}", one.id),
        format!("credential:{}", other.id),
    );
    // What is handed out in advance counts as used for a moment.
    eventually("the first key sees its calls", || {
        world.own_quota("/v1", &[("x-api-key", &one.secret)]) == expected(&first, &first, [3, 3, 5])
    });
    let seen = world.own_quota("/v1", &[("x-api-key", &other.secret)]);
    assert_eq!(seen, expected(&second, &second, [0, 0, 5]));
    let seen = world.own_quota("/v1", &ann);
    assert_eq!(seen[1], expected("", "user:desk:ann", [0, 2, 0])[1]);
    assert_eq!((seen[0].2, seen[2].2), (2, 5), "{seen:?}");
}

#[test]
fn usage_is_listed_by_operation_and_stays_right_after_a_kill() {
    let service = Service::new();
    let plan = || limited(&service, "[{ name: daily, amount: 100, window: 1d }]");
    let world = plan().start();
    let key = world.key("desk");
    assert_eq!(passed(&calls(&world, &key, 7)), 7);
    for _ in 0..3 {
        assert_eq!(world.get_with(&key, "/v1/books/moby").status, 200);
    }
    // At once: some of it was not sent yet.
    let home = world.kill();
    let world = plan().start_again(home.path());
    assert_eq!(world.get_with(&key, "/v1/books/moby").status, 200);
    let expected = [("getBook".to_owned(), 4), ("listBooks".to_owned(), 7)];
    eventually("all of it is stored", || {
        let mut rows = listed(&world);
        rows.sort();
        rows == expected
    });
    let seen = own(&world, &key, "usage").json();
    let calls = seen["today"]["total"]["calls"].as_u64();
    assert!(calls.is_none_or(|calls| calls == 11), "{seen}");
    let quota = own(&world, &key, "quota").json();
    assert_eq!(quota["quota"][0]["limit"], "plan/all/daily", "{quota}");
    let admin = world.admin.to_string();
    let told = world.cli(&["usage", "reconcile", "--admin", &admin]);
    assert!(told.status.success(), "{told:?}");
}

/// Subjects of the counters these filters leave, by the command line.
fn filtered(world: &World, filters: &[&str]) -> Vec<String> {
    let asked = [&["quota", "--json"][..], filters].concat();
    let listed = world.cli(&asked).json();
    let rows = listed.as_array().unwrap().iter();
    let named = |row: &Value| {
        let part = |name: &str| row[name].as_str().unwrap().to_owned();
        format!("{} {}", part("limit"), part("subject"))
    };
    let mut rows: Vec<String> = rows.map(named).collect();
    rows.sort();
    rows
}

#[test]
fn counters_are_shown_by_whose_they_are_what_they_count_and_their_window() {
    let service = Service::new();
    let plans = shop::plans(
        "[{ name: minute, amount: 100, window: 1m }, { name: key, amount: 100, window: month, per: credential }, { name: one, amount: 100, window: 1d, per: project, scope: operation }]",
    );
    let more = "limits:\n  - { name: firm, amount: 100, window: 1d, per: organisation }\n";
    let elsewhere = "  other: { projects: { cellar: { consumers: { store: { subscriptions: { shop: all } } } } } }\n";
    let world = shop_with(&service, more)
        .file("plans.yaml", &plans)
        .file("consumers.yaml", &format!("{}{elsewhere}", shop::CONSUMERS))
        .start();
    let (desk, store) = (world.key("desk"), world.key("store"));
    assert_eq!(calls(&world, &desk, 1), [200]);
    assert_eq!(calls(&world, &store, 1), [200]);
    let key = format!("plan/all/key credential:{}", desk.id);
    let of_desk = [&*key, "plan/all/minute consumer:desk"];
    let project = "plan/all/one project:floor";
    eventually("all is counted", || filtered(&world, &[]).len() == 8);
    assert_eq!(filtered(&world, &["--consumer", "desk"]), of_desk);
    let floor = [of_desk[0], of_desk[1], project];
    assert_eq!(filtered(&world, &["--project", "floor"]), floor);
    let firm = [
        "api/shop/firm organisation:bookshop",
        floor[0],
        floor[1],
        project,
    ];
    assert_eq!(filtered(&world, &["--organisation", "bookshop"]), firm);
    assert_eq!(
        filtered(&world, &["--organisation", "bookshop", "--window", "60s"]),
        [of_desk[1]]
    );
    assert_eq!(
        filtered(&world, &["--window", "1m", "--consumer", "desk"]),
        [of_desk[1]]
    );
    assert_eq!(
        filtered(&world, &["--window", "1d", "--project", "floor"]),
        [project]
    );
    assert_eq!(
        filtered(
            &world,
            &["--operation", "listBooks", "--organisation", "bookshop"]
        ),
        [project]
    );
    assert_eq!(
        filtered(
            &world,
            &[
                "--api",
                "shop",
                "--consumer",
                "desk",
                "--limit",
                "plan/all/key"
            ]
        ),
        [&*key]
    );
    for nothing in [
        &["--consumer", "nobody"][..],
        &["--api", "none"],
        &["--operation", "getBook"],
        &["--window", "lifetime"],
        &["--organisation", "other", "--consumer", "desk"],
    ] {
        assert!(filtered(&world, nothing).is_empty(), "{nothing:?}");
    }
    for (flag, value, field) in [
        ("--consumer", "No One", "consumer"),
        ("--window", "soon", "window"),
        ("--operation", "a b", "operation"),
        ("--subject", "shop", "subject"),
        ("--limit", "calls", "quota_limit"),
    ] {
        let refused = world.cli(&["quota", flag, value]);
        assert_eq!(refused.status.code(), Some(2), "{flag}: {refused:?}");
        let path = format!("/v1/quotas?{field}={}", value.replace(' ', "%20"));
        let answer = world.ask_control("GET", &path, &Value::Null);
        let problem = answer.json();
        let kind = problem["type"].as_str().unwrap();
        assert!(
            answer.status == 400 && kind.ends_with("bad_query"),
            "{problem}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(field), "{detail}");
    }
}
