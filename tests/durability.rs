//! How well the record of a call is kept is said by operation: not at all, past the process, past a power cut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use hyper::Request;
use world::http2::{self, block_on};
use world::shop::{self, Key, shop_with};
use world::{Service, World, eventually};

const OPERATIONS: &str = "operations:
  listBooks: { durability: disk }
  createBook: { durability: disk }
  getBook: { durability: metric }
";

fn start(service: &Service) -> World {
    shop_with(service, OPERATIONS)
        .file("consumers.yaml", shop::CONSUMERS)
        .start()
}

/// A number of the page of metrics.
fn number(world: &World, name: &str) -> u64 {
    let page = world.metrics();
    let line = page
        .lines()
        .find(|line| line.starts_with(name))
        .expect(name);
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn recorded(world: &World) -> u64 {
    number(world, "tollgate_usage_records_total{")
}

fn waited(world: &World) -> u64 {
    number(world, "tollgate_usage_disk_waits_total{")
}

fn get(world: &World, key: &Key, path: &str) {
    assert_eq!(world.get_with(key, path).status, 200, "{path}");
}

#[test]
fn an_answer_waits_for_the_disk_where_that_is_asked_for_whichever_way_it_comes() {
    let service = Service::new();
    let world = start(&service);
    let key = world.key("desk");
    // The short way, the pump (a request body), HTTP/2.
    get(&world, &key, "/v1/books");
    assert_eq!((recorded(&world), waited(&world)), (1, 1));
    let headers = [("x-api-key", &*key.secret)];
    let added = world.ask("POST", "/v1/books", &headers, b"{}");
    assert_eq!(added.status, 200);
    assert_eq!((recorded(&world), waited(&world)), (2, 2));
    let request = Request::get("http://localhost/v1/books").header("x-api-key", &key.secret);
    let answer = block_on(http2::call(world.address, request.body(()).unwrap(), b""));
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!((recorded(&world), waited(&world)), (3, 3));
    assert_eq!(number(&world, "tollgate_usage_unsynced_total{"), 0);
}

#[test]
fn a_call_that_metrics_are_enough_for_leaves_no_record() {
    let service = Service::new();
    let world = start(&service);
    let key = world.key("desk");
    get(&world, &key, "/v1/books/moby");
    get(&world, &key, "/v1/books");
    assert_eq!(recorded(&world), 1);
    eventually("what is recorded is stored", || {
        let rows = world.cli(&["usage", "--by", "operation", "--json"]).json();
        let rows = rows.as_array().unwrap();
        rows.len() == 1 && rows[0]["operation"] == "listBooks"
    });
}
