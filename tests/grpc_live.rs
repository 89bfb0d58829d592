//! Connections to a gRPC service are shared by all dialects, and calls go on while the definition they were made by changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Request;
use library::{Library, proto};
use serde_json::json;
use world::frames::FrameService;
use world::{Client, HOST, Plan, World, eventually, http2};

/// A gateway of one worker, so that calls meet on its connections. Its services may take their time.
fn one_worker(upstream: &str, proto: &Path) -> World {
    let file = format!(
        "upstream: {{url: {upstream}, timeouts: {{first_byte: 60s}}}}\n\
         grpc:\n  protos: [{}]\n  callers: anyone\n",
        proto.display()
    );
    Plan::before("")
        .api("shop", file)
        .argument("--workers")
        .argument("1")
        .start()
}

const GET_BOOK: &str = "/library.v1.Library/GetBook";
const LIST: &str = "/library.v1.Library/ListBooks";

type Fields = &'static [(&'static str, &'static str)];

/// A book is asked for by REST, Connect (in its three ways) and gRPC-Web.
const SINGLE: [(&str, &str, Fields, &[u8]); 5] = [
    ("GET", "/v1/shelves/a/books/b", &[], b""),
    (
        "POST",
        GET_BOOK,
        &[
            ("content-type", "application/json"),
            ("connect-protocol-version", "1"),
        ],
        br#"{"name": "a"}"#,
    ),
    (
        "POST",
        GET_BOOK,
        &[("content-type", "application/proto")],
        b"\x0a\x01a",
    ),
    (
        "GET",
        "/library.v1.Library/GetBook?encoding=json&message=%7B%7D",
        &[],
        b"",
    ),
    (
        "POST",
        GET_BOOK,
        &[("content-type", "application/grpc-web+proto")],
        b"\0\0\0\0\x03\x0a\x01a",
    ),
];

/// A shelf is listed by REST, Connect and gRPC-Web.
const STREAMS: [(&str, &str, Fields, &[u8]); 3] = [
    ("GET", "/v1/shelves/a/books?count=1", &[], b""),
    (
        "POST",
        LIST,
        &[("content-type", "application/connect+json")],
        b"\0\0\0\0\x18{\"parent\":\"a\",\"count\":1}",
    ),
    (
        "POST",
        LIST,
        &[("content-type", "application/grpc-web+proto")],
        b"\0\0\0\0\x05\x0a\x01a\x10\x01",
    ),
];

/// Must-have: callers of REST, Connect and gRPC-Web share connections, one for single answers and one for streams. Native gRPC goes
/// to the service by the general pump, which keeps connections of its own.
#[test]
fn callers_in_every_dialect_share_the_connections_to_the_service() {
    let library = Library::new();
    let world = one_worker(&library.url(), &proto());
    // As long as these are open, a connection that others use is shared, and not only used again.
    let mut waiting = world.client();
    waiting.request("GET", "/v1/shelves/a/books/slow", &[], b"");
    eventually("it waits at the service", || library.reached().len() == 1);
    for (method, path, fields, body) in SINGLE {
        let answer = world.ask(method, path, fields, body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.text().contains("Walden"), "{path}: {answer:?}");
    }
    let request = Request::get(format!("http://{HOST}/v1/shelves/a/books/b"))
        .body(())
        .unwrap();
    let answer = http2::block_on(http2::call(world.address, request, b"")).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(library.connections(), 1, "for single answers");
    let mut open = world.client();
    open.request("GET", "/v1/shelves/endless/books?count=1", &[], b"");
    assert_eq!(open.head().unwrap().status, 200);
    open.chunk().unwrap();
    for (method, path, fields, body) in STREAMS {
        let answer = world.ask(method, path, fields, body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.text().contains("a/books/0"), "{path}: {answer:?}");
    }
    assert_eq!(library.connections(), 2, "and one more for streams");
    assert_eq!(library.reached().len(), 11);
    drop((waiting, open));
    library.gave_up(1);
}

/// `Book { name: "b" }`, and one called `c`.
const BOOK: &[u8] = b"\x0a\x01b";
const OTHER: &[u8] = b"\x0a\x01c";

/// A shop with one method more, or something that is none.
fn definition(more: &str) -> String {
    format!(
        "syntax = \"proto3\";
package shop.v1;
import \"google/api/annotations.proto\";
message Book {{ string name = 1; }}
service Shop {{
  rpc ListBooks(Book) returns (stream Book) {{ option (google.api.http) = {{ get: \"/v1/books\" }}; }}
  rpc AddBook(Book) returns (Book) {{ option (google.api.http) = {{ post: \"/v1/books\" body: \"*\" }}; }}
  {more}
}}
"
    )
}

/// Replaced in one step, as editors and deployments do.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

/// A service whose first two connections have a call each that ends only once it is let: a stream that has begun, and a single one
/// that has not.
fn patient() -> (FrameService, Arc<AtomicBool>) {
    let let_go = Arc::new(AtomicBool::new(false));
    let goes = Arc::clone(&let_go);
    let service = FrameService::new(move |frames| {
        let begins = frames.number == 0;
        if frames.number < 2 {
            let Some(stream) = frames.call() else { return };
            if begins {
                frames.answer(stream, BOOK);
            }
            eventually("the calls may end", || goes.load(Ordering::SeqCst));
            if begins {
                frames.message(stream, OTHER);
            } else {
                frames.answer(stream, OTHER);
            }
            frames.end(stream);
        }
        frames.serve(BOOK);
    });
    (service, let_go)
}

/// The rest of a body that ends in order.
fn rest(client: &mut Client) -> String {
    let mut bytes = Vec::new();
    loop {
        let chunk = client.chunk().expect("it ends in order");
        if chunk.is_empty() {
            return String::from_utf8(bytes).unwrap();
        }
        bytes.extend(chunk);
    }
}

/// Must-have: a change of the definition drops no call, and a broken one leaves the last that worked in service.
#[test]
fn calls_go_on_while_their_definition_changes_and_while_it_is_broken() {
    let (service, let_go) = patient();
    let home = tempfile::tempdir().unwrap();
    let proto = home.path().join("shop.proto");
    std::fs::write(&proto, definition("")).unwrap();
    let world = one_worker(&service.url(), &proto);
    assert_eq!(world.get("/v1/late").status, 404);
    let mut list = world.client();
    list.request("GET", "/v1/books", &[], b"");
    assert_eq!(list.head().unwrap().status, 200);
    assert_eq!(list.chunk().unwrap(), br#"[{"name":"b"}"#);
    let mut add = world.client();
    add.request("POST", "/v1/books", &[], b"{}");
    eventually("both calls are there", || service.asked().len() == 2);
    let late =
        "rpc Late(Book) returns (Book) { option (google.api.http) = { get: \"/v1/late\" }; }";
    replace(&proto, &definition(late));
    eventually("there is a method more", || {
        world.api("shop")["operations"] == 3
    });
    replace(&proto, &definition("rpc Late(Nothing) returns (Book);"));
    eventually("the error is shown", || {
        world.api("shop")["state"] == "serving_previous"
    });
    let error = world.api("shop")["last_error"].to_string();
    assert!(error.contains("shop.proto:8:"), "{error}");
    let told = world.cli(&["status"]);
    assert!(told.out.contains("serving_previous"), "{told:?}");
    let_go.store(true, Ordering::SeqCst);
    assert_eq!(rest(&mut list), r#",{"name":"c"}]"#);
    assert_eq!(add.answer().unwrap().json(), json!({"name": "c"}));
    let answer = world.get("/v1/late");
    assert_eq!(answer.json(), json!({"name": "b"}), "{answer:?}");
    assert_eq!(service.asked().len(), 3, "none was made twice");
    replace(&proto, &definition(""));
    eventually("the repair takes effect", || {
        world.get("/v1/late").status == 404
    });
    assert_eq!(world.api("shop")["state"], "serving");
}
