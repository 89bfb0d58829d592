//! What is counted: bytes, what the caller names, what the answer weighs, what a description of Google's kind says; buckets that refill;
//! and who is told when a limit comes to an end.
//!
//! The limits here have no window that could end meanwhile, but for months and a bucket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::Write as _;

use serde_json::{Value, json};
use world::shop::{self, Key};
use world::{Answer, Plan, Service, Then, World, eventually};

/// The shop with such costs, for the consumers of two organisations, whose plan has these limits.
fn counting(service: &Service, costs: &str, limits: &str) -> Plan {
    shop::bare(&service.url(), costs)
        .file("plans.yaml", &shop::plans(limits))
        .file("consumers.yaml", shop::ORGANISATIONS)
}

/// The consumer of this key sees whose counter of the only limit is its own, what is used of it, and what is left.
fn sees(world: &World, key: &Key, expected: (&str, &str, u64, u64)) {
    // What is handed out in advance counts as used for a moment.
    eventually(&format!("a limit stands at {expected:?}"), || {
        let rows = world.own_quota("/v1", &[("x-api-key", &key.secret)]);
        let (limit, whose, used, left) = &rows[0];
        rows.len() == 1 && (limit.as_str(), whose.as_str(), *used, *left) == expected
    });
}

#[test]
fn bytes_of_bodies_count_both_ways_and_the_call_after_the_last_is_refused() {
    let service = Service::new();
    let limits = "[{ name: traffic, metric: bytes, amount: 20, window: lifetime }]";
    let world = counting(&service, "", limits).start();
    let key = world.key("desk");
    let fields = [("x-api-key", &*key.secret)];
    // Eight there and two back, which are known in the end; until then a call is one byte.
    let sent = [(); 3].map(|()| world.ask("POST", "/v1/books", &fields, b"12345678"));
    let policy = "\"traffic\";q=20;qu=\"content-bytes\"";
    let spent = sent.each_ref().map(|answer| answer.passed_leaving(policy));
    assert_eq!(spent, [Some(19), Some(9), None]);
    let problem = sent[2].json();
    assert_eq!(
        problem["detail"],
        "the limit `traffic` of 20 bytes in all is reached"
    );
    // Without a body it is refused as well.
    let refused = world.get_with(&key, "/v1/books");
    assert_eq!(refused.passed_leaving(policy), None);
    assert_eq!(refused.left_of(policy), 0);
    assert_eq!(service.calls().len(), 2);
    sees(&world, &key, ("plan/all/traffic", "consumer:desk", 20, 0));
}

#[test]
fn a_cost_the_caller_names_is_taken_before_the_call() {
    let service = Service::new();
    let costs = "operations:\n  \
        listBooks: { cost: { weight: { from: header, name: x-weight, reserve: 2 } } }\n  \
        getBook: { cost: { rows: { from: query, name: rows, reserve: 2 } } }\n";
    let limits = "[{ name: by-header, metric: weight, amount: 10, window: lifetime }, \
                  { name: by-query, metric: rows, amount: 10, window: lifetime }]";
    let world = counting(&service, costs, limits).start();
    let key = world.key("desk");
    let by_header = |weight: Option<&str>| -> Answer {
        let mut fields = vec![("x-api-key", &*key.secret)];
        fields.extend(weight.map(|weight| ("x-weight", weight)));
        world.ask("GET", "/v1/books", &fields, b"")
    };
    let by_query = |rows: Option<&str>| -> Answer {
        let query = rows.map_or(String::new(), |rows| format!("?rows={rows}"));
        world.get_with(&key, &format!("/v1/books/moby{query}"))
    };
    // What is missing or no number costs what is reserved, and naming nothing is not free.
    let named = [Some("5"), None, Some("0"), Some("many"), Some("1")];
    let expected = [Some(5), Some(3), Some(2), Some(0), None];
    let policy = "\"by-header\";q=10;qu=\"weight\"";
    let spent = named.map(|weight| by_header(weight).passed_leaving(policy));
    assert_eq!(spent, expected);
    let policy = "\"by-query\";q=10;qu=\"rows\"";
    let spent = named.map(|rows| by_query(rows).passed_leaving(policy));
    assert_eq!(spent, expected);
    assert_eq!(service.calls().len(), 8);
    eventually("what was named is billed", || {
        let rows = world.cli(&["usage", "--consumer", "desk", "--by", "operation", "--json"]);
        let rows = rows.json();
        let mut units: Vec<_> = rows.as_array().unwrap().iter().collect();
        units.sort_by_key(|row| row["operation"].to_string());
        let told = units.iter().map(|row| (&row["operation"], &row["units"]));
        told.eq([
            (&json!("getBook"), &json!(10)),
            (&json!("listBooks"), &json!(10)),
        ])
    });
}

#[test]
fn an_answer_costs_one_for_each_kibibyte_begun() {
    let service = Service::answering(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2500\r\n\r\n";
        let _ = stream.write_all(head);
        let _ = stream.write_all(&[b'x'; 2500]);
        Then::Continue
    });
    let costs =
        "operations:\n  listBooks: { cost: { units: { from: response_bytes, per: 1KiB } } }\n";
    let limits = "[{ name: size, metric: units, amount: 7, window: lifetime }]";
    let world = counting(&service, costs, limits).start();
    let key = world.key("desk");
    // Three each, of which one is held before. The third call comes to more than there is: it is owed, and stops the next one.
    let policy = "\"size\";q=7;qu=\"units\"";
    let spent = [(); 4].map(|()| world.get_with(&key, "/v1/books").passed_leaving(policy));
    assert_eq!(spent, [Some(6), Some(3), Some(0), None]);
    sees(&world, &key, ("plan/all/size", "consumer:desk", 9, 0));
}

/// A description with limits and costs as Google's service management has them; the rest depends on the version.
const GOOGLE: &str = "\
info: { title: Shop, version: '1' }
security: [{ header: [] }]
x-google-management:
  metrics: [{ name: read-requests, metricKind: DELTA, valueType: INT64 }]
  quota:
    limits:
      - { name: readLimit, metric: read-requests, unit: '1/mo/{project}', values: { STANDARD: 5 } }
paths:
  /books:
    get:
      operationId: listBooks
      x-google-quota: { metricCosts: { read-requests: 2 } }
      responses: { '200': { description: fine } }
  /books/first:
    get:
      operationId: getBook
      x-google-quota: { metricCosts: { read-requests: '1' } }
      responses: { '200': { description: fine } }
  /events:
    get: { operationId: streamEvents, responses: { '200': { description: fine } } }
";

#[test]
fn limits_and_costs_of_google_s_descriptions_count_by_project() {
    let header = "header: { type: apiKey, in: header, name: X-API-Key }";
    let versions = [
        format!("swagger: '2.0'\nbasePath: /v1\nsecurityDefinitions: {{ {header} }}\n"),
        format!(
            "openapi: 3.0.3\nservers: [{{ url: /v1 }}]\ncomponents: {{ securitySchemes: {{ {header} }} }}\n"
        ),
    ];
    for version in versions {
        let service = Service::new();
        let world = counting(&service, "", "[]")
            .file("../shop.yaml", &format!("{version}{GOOGLE}"))
            .start();
        let [desk, till, loft] = ["desk", "till", "loft"].map(|it| world.key(it));
        let policy = "\"readlimit\";q=5;w=2592000;qu=\"read-requests\"";
        let left = |key: &Key, path: &str| world.get_with(key, path).passed_leaving(policy);
        let spent = [&desk, &till, &desk].map(|key| left(key, "/v1/books"));
        assert_eq!(spent, [Some(3), Some(1), None], "{version}");
        // One is left, and that is what this one costs.
        assert_eq!(world.get_with(&till, "/v1/books").left_of(policy), 1);
        assert_eq!(left(&till, "/v1/books/first"), Some(0));
        assert_eq!(left(&desk, "/v1/books/first"), None);
        assert_eq!(left(&loft, "/v1/books"), Some(3));
        let free = world.get_with(&desk, "/v1/events");
        assert_eq!((free.status, free.header("ratelimit")), (200, None));
        let limit = "api/shop/readlimit";
        sees(&world, &desk, (limit, "project:floor", 5, 0));
        sees(&world, &loft, (limit, "project:attic", 2, 3));
    }
}

#[test]
fn a_bucket_gives_its_burst_and_then_what_refills() {
    let service = Service::new();
    // One more every four seconds: time enough for the first calls.
    let limits = "[{ name: bucket, amount: 900, window: 1h, burst: 3 }]";
    let world = counting(&service, "", limits).start();
    let key = world.key("desk");
    let books = || world.get_with(&key, "/v1/books");
    let policy = "\"bucket\";q=3;w=3600";
    let spent = [(); 3].map(|()| books().passed_leaving(policy));
    assert_eq!(spent, [Some(2), Some(1), Some(0)]);
    let refused = books();
    let problem = refused.is_problem(429, "quota_exceeded").json();
    assert_eq!(
        problem["detail"],
        "the limit `bucket` of 900 calls per hour (3 at once) is reached"
    );
    assert_eq!(refused.left_of(policy), 0);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    // Four seconds at most, and one more so that not all come back at once.
    assert!((1..=5).contains(&wait), "{wait}");
    let mut again = None;
    eventually("one has refilled", || {
        again = books().passed_leaving(policy);
        again.is_some()
    });
    assert_eq!(again, Some(0), "one, and not the burst");
    assert_eq!(books().passed_leaving(policy), None);
    assert_eq!(service.calls().len(), 4);
}

/// The event that tells of a share of the limit below.
fn event(percent: u8) -> Value {
    json!({
        "specversion": "1.0",
        "type": "tollgate.quota.threshold",
        "source": "/tollgate/quota",
        "id": format!("plan/all/all-time/project:floor/shop//0/{percent}"),
        "subject": "project:floor",
        "datacontenttype": "application/json",
        "data": {
            "limit": "plan/all/all-time",
            "subject": "project:floor",
            "api": "shop",
            "operation": "",
            "percent": percent,
            "window_begins": "1970-01-01T00:00:00Z",
            "window_ends": null,
        },
    })
}

#[test]
fn log_metric_and_webhook_tell_once_of_half_of_four_fifths_and_of_all() {
    let (service, hook) = (Service::new(), Service::new());
    let process = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nquota: {{ webhook: \"{}/alerts\" }}\n",
        hook.url()
    );
    let limits = "[{ name: all-time, amount: 10, window: lifetime, per: project }]";
    let world = counting(&service, "", limits).process(&process).start();
    let keys = ["desk", "till"].map(|it| world.key(it));
    let policy = "\"all-time\";q=10";
    for number in 0..10 {
        let answer = world.get_with(&keys[number % 2], "/v1/books");
        let left = u64::try_from(9 - number).unwrap();
        assert_eq!(answer.passed_leaving(policy), Some(left));
    }
    for key in &keys {
        assert_eq!(
            world.get_with(key, "/v1/books").passed_leaving(policy),
            None
        );
    }
    hook.has_calls(3);
    let told = hook.calls();
    let kind = told
        .iter()
        .map(|call| (call.target(), call.header("content-type")));
    let expected = ("/alerts", Some("application/cloudevents+json"));
    assert!(kind.eq([expected; 3]), "{told:?}");
    let events: Vec<Value> = told
        .iter()
        .map(|call| {
            let mut event: Value = serde_json::from_slice(&call.body).unwrap();
            let time = event.as_object_mut().unwrap().remove("time").unwrap();
            assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
            event
        })
        .collect();
    assert_eq!(events, [50, 80, 100].map(event));
    eventually("the log has all of it", || {
        world.log().contains("a limit is used to 100 %")
    });
    let (metrics, log) = (world.metrics(), world.log());
    for percent in [50, 80, 100] {
        let series = format!("tollgate_quota_alerts_total{{percent=\"{percent}\"}} 1");
        assert!(metrics.lines().any(|line| line == series), "{metrics}");
        let words = format!("a limit is used to {percent} %");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&words)).collect();
        let [line] = *lines else {
            panic!("{words}: {lines:?}")
        };
        assert!(line.contains("WARN"), "{line}");
        assert!(line.contains("limit=\"plan/all/all-time\""), "{line}");
        assert!(line.contains("subject=\"project:floor\""), "{line}");
    }
    assert_eq!(hook.calls().len(), 3, "each once");
}
