//! Every call is one operation of the file, or none and told so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::collections::BTreeSet;

use world::{Answer, Plan, Service};

fn allowed(answer: &Answer) -> BTreeSet<String> {
    let allow = answer.header("allow").expect("an Allow field");
    allow
        .split(',')
        .map(|method| method.trim().to_owned())
        .collect()
}

fn set(methods: &[&str]) -> BTreeSet<String> {
    methods.iter().map(|method| (*method).to_owned()).collect()
}

#[test]
fn calls_are_counted_under_their_operation() {
    let service = Service::new();
    let world = Plan::bookstore(&service)
        .argument("--security")
        .argument("off")
        .start();
    let calls = [
        ("GET", "/v1/books", "listBooks"),
        ("GET", "/v1/books/new-arrivals", "listNewArrivals"),
        ("GET", "/v1/books/1", "getBook"),
        ("HEAD", "/v1/books/1", "getBook"),
        ("DELETE", "/v1/books/new-arrivals", "deleteBook"),
        ("POST", "/v1/books/1:reserve", "reserveBook"),
        ("GET", "/v1/covers/123.png", "getCover"),
        ("GET", "/v1/files/a/b/c.txt", "getFile"),
        ("GET", "/v1/admin/stats", "getStats"),
    ];
    for (method, path, _) in calls {
        let answer = world.ask(method, path, &[], b"");
        assert_eq!(answer.status, 200, "{method} {path}");
    }
    let lines = world.access_log(calls.len());
    // Workers write in their own time: lines are found by what they tell of, not by their order.
    for (method, path, operation) in calls {
        let told = |line: &&_| is_of(line, method, path);
        let line = lines.iter().find(told).expect("a line for each call");
        assert_eq!(line["operation"], operation, "{method} {path}: {line}");
    }
}

fn is_of(line: &serde_json::Value, method: &str, path: &str) -> bool {
    line["method"] == method && line["path"] == path
}

#[test]
fn unknown_paths_are_answered_404() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let paths = [
        "/v1/nothing",
        "/v1/books/",
        "/v1/books/1/2/3",
        "/v1/covers/nodot",
        "/v1/Books",
    ];
    for path in paths {
        world.get(path).is_problem(404, "unknown_operation");
    }
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn paths_outside_every_api_are_answered_404() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for path in ["/", "/books", "/v2/books", "/v1x/books"] {
        let answer = world.get(path);
        assert_eq!(answer.status, 404, "{path}");
        let kind = answer.json()["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            kind.ends_with("unknown_api") || kind.ends_with("unknown_operation"),
            "{kind}"
        );
    }
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn other_methods_are_answered_405_with_allow() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("PATCH", "/v1/books", &[], b"");
    answer.is_problem(405, "method_not_allowed");
    assert_eq!(allowed(&answer), set(&["GET", "HEAD", "POST"]));
    // All templates that match have a say: the literal and the parameter beside it.
    let answer = world.ask("PATCH", "/v1/books/new-arrivals", &[], b"");
    assert_eq!(allowed(&answer), set(&["DELETE", "GET", "HEAD"]));
    let answer = world.ask("get", "/v1/books", &[], b"");
    assert_eq!(answer.status, 405, "methods are case-sensitive");
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn options_are_answered_with_what_is_allowed() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("OPTIONS", "/v1/books/1", &[], b"");
    assert_eq!(answer.status, 204);
    let mut methods = allowed(&answer);
    methods.remove("OPTIONS");
    assert_eq!(methods, set(&["DELETE", "GET", "HEAD"]));
    assert_eq!(world.ask("OPTIONS", "/v1/nothing", &[], b"").status, 404);
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn head_is_served_by_get() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("HEAD", "/v1/books", &[], b"");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(service.last().method(), "HEAD");
}

#[test]
fn a_refusal_leaves_the_connection_usable() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/nothing", &[], b"");
    client
        .answer()
        .unwrap()
        .is_problem(404, "unknown_operation");
    client.request("GET", "/v1/books", &[], b"");
    assert_eq!(client.answer().unwrap().text(), "ok");
}

#[test]
fn the_command_line_explains_the_same_decision() {
    let spec = world::bookstore();
    let spec = spec.to_str().unwrap();
    let arguments = ["classify", "--spec", spec, "GET", "/v1/books/new-arrivals"];
    let (status, out, err) = world::run(&arguments);
    assert!(status.success(), "{out}{err}");
    assert!(out.contains("listNewArrivals"), "{out}");
    let (status, out, err) = world::run(&["check", spec]);
    assert!(status.success(), "{out}{err}");
}
