//! Connections to gRPC services: shared by calls that do not hurt each other, made anew when they break, by TLS where it is asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use std::net::{SocketAddr, TcpListener};

use library::{Library, proto};
use serde_json::Value;
use world::tls::NAME;
use world::{Plan, World, eventually};

/// A gateway of one worker, so that calls meet on its connections.
fn one_worker(upstream: &str, more: &str) -> World {
    let file = format!(
        "upstream: {upstream}\ngrpc:\n  protos: [{}]\n  callers: anyone\n{more}",
        proto().display()
    );
    Plan::before("")
        .api("library", file)
        .argument("--workers")
        .argument("1")
        .start()
}

fn book(world: &World) -> u16 {
    world.get("/v1/shelves/a/books/b").status
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[test]
fn readers_that_stop_hold_up_no_other_call_on_the_connection() {
    let library = Library::new();
    let world = one_worker(&library.url(), "");
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut client = world.client();
        let fields = [("accept", "application/x-ndjson")];
        // Far more than all buffers between the service and this client hold.
        client.request("GET", "/v1/shelves/a/books?count=2000000", &fields, b"");
        assert_eq!(client.head().unwrap().status, 200);
        stalled.push(client);
    }
    for _ in 0..5 {
        assert_eq!(book(&world), 200);
        let books = world.get("/v1/shelves/a/books?count=300").json();
        assert_eq!(books.as_array().unwrap().len(), 300);
    }
    // Streams apart from single answers, and no more connections than that.
    assert!(library.connections() <= 2, "{}", library.connections());
    drop(stalled);
    assert_eq!(book(&world), 200);
}

#[test]
fn a_call_goes_to_another_endpoint_where_the_first_took_nothing() {
    let library = Library::new();
    let upstream = format!(
        "{{endpoints: [\"grpc://{}\", \"{}\"]}}",
        nobody(),
        library.url()
    );
    let world = one_worker(&upstream, "");
    for _ in 0..20 {
        assert_eq!(book(&world), 200);
        let answer = world.ask("POST", "/v1/shelves/a/books", &[], b"{}");
        assert_eq!(answer.status, 200, "{answer:?}");
        let added = world.ask("POST", "/v1/books:add", &[], b"[{}]");
        assert_eq!(added.status, 200, "{added:?}");
    }
}

#[test]
fn a_service_that_dies_under_its_calls_is_an_error_and_its_successor_is_found() {
    let library = Library::new();
    let address: SocketAddr = library.url().trim_start_matches("grpc://").parse().unwrap();
    let world = one_worker(&library.url(), "");
    assert_eq!(book(&world), 200);
    let mut slow = world.client();
    slow.request(
        "POST",
        "/library.v1.Library/GetBook",
        &[("content-type", "application/json")],
        br#"{"name": "a/slow"}"#,
    );
    let mut stream = world.client();
    stream.request("GET", "/v1/shelves/endless/books?count=1", &[], b"");
    stream.head().unwrap();
    eventually("both calls are there", || library.reached().len() == 3);
    drop(library);
    let answer = slow.answer().expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["code"], "unavailable");
    let mut text = Vec::new();
    while let Some(chunk) = stream.chunk().filter(|chunk| !chunk.is_empty()) {
        text.extend(chunk);
    }
    let text = String::from_utf8(text).unwrap() + "]";
    let books: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(books[1]["error"]["code"], 14, "{books}");
    assert_eq!(world.get("/v1/shelves/a/books/b").status, 502);
    let _successor = Library::at(address);
    eventually("the successor is found", || book(&world) == 200);
}

#[test]
fn a_service_is_called_by_tls_and_its_certificate_is_judged() {
    let (library, ca) = Library::by_tls();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca).unwrap();
    let trusting = format!(
        "{{url: \"{}\", tls: {{ca: {}, server_name: {NAME}}}}}",
        library.url(),
        file.path().display()
    );
    let world = one_worker(&trusting, "");
    assert_eq!(book(&world), 200);
    let world = one_worker(&format!("{{url: \"{}\"}}", library.url()), "");
    let answer = world.get("/v1/shelves/a/books/b");
    assert_eq!((answer.status, &answer.json()["code"]), (502, &14.into()));
}
