//! Calls of a gRPC service are charged and recorded alike, whichever way they come.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use library::{Library, sold};
use serde_json::Value;
use world::shop::Key;
use world::{Answer, World, eventually};

fn ask(world: &World, key: &Key, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
    let fields = [("x-api-key", &*key.secret), ("content-type", kind)];
    world.ask(method, path, &fields, body)
}

/// Records by operation and outcome, with calls and bytes of answers.
fn usage(world: &World) -> Vec<(String, u64, u64)> {
    let rows = world.cli(&["usage", "--consumer", "desk", "--by", "operation", "--json"]);
    let rows = rows.json();
    let read = |row: &Value| {
        let number = |name: &str| row[name].as_u64().unwrap();
        let operation = row["operation"].as_str().unwrap().to_owned();
        (operation, number("calls"), number("response_bytes"))
    };
    rows.as_array().unwrap().iter().map(read).collect()
}

#[test]
fn one_method_is_one_operation_whichever_way_it_is_called() {
    let library = Library::new();
    let world = sold(&library.url(), 4);
    let key = world.key("desk");
    let rest = ask(&world, &key, "GET", "/v1/shelves/a/books/b", "", b"");
    assert_eq!(rest.status, 200, "{rest:?}");
    assert_eq!(rest.header("ratelimit"), Some("\"all-time\";r=3"));
    let connect = |body: &[u8]| {
        let path = "/library.v1.Library/GetBook";
        ask(&world, &key, "POST", path, "application/json", body)
    };
    assert_eq!(connect(b"{\"name\": \"shelves/a/books/b\"}").status, 200);
    // What is no message never reached the service, and costs nothing.
    assert_eq!(connect(b"{\"nmae\": 1}").status, 400);
    let stream = ask(&world, &key, "GET", "/v1/shelves/a/books", "", b"");
    assert_eq!(stream.status, 200, "{stream:?}");
    let missing = ask(&world, &key, "GET", "/v1/shelves/a/books/missing", "", b"");
    assert!(missing.status < 500, "{missing:?}");
    let refused = ask(&world, &key, "GET", "/v1/shelves/a/books/b", "", b"");
    assert_eq!((refused.status, &refused.json()["code"]), (429, &8.into()));
    let sent = [&rest, &missing].map(|it| u64::try_from(it.body.len()).unwrap());
    eventually("all is stored", || {
        let rows = usage(&world);
        let of = |method: &str| rows.iter().find(|row| row.0.ends_with(method)).cloned();
        let streamed = u64::try_from(stream.body.len()).unwrap();
        let listed = of("ListBooks").is_some_and(|row| (row.1, row.2) == (1, streamed));
        listed && of("GetBook").is_some_and(|row| row.1 == 3 && row.2 > sent[0] + sent[1])
    });
}
