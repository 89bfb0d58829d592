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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Request;
use library::{Library, proto};
use serde_json::Value;
use world::frames::{
    FrameService, Frames, HEAD, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, TRAILERS,
};
use world::tls::NAME;
use world::{Answer, HOST, Plan, World, eventually, http2};

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

/// `Book { name: "b" }`.
const BOOK: &[u8] = b"\x0a\x01b";

/// A service that does something of its own to the first call it gets, and answers all others.
fn first(what: impl Fn(&mut Frames, u32) + Send + Sync + 'static) -> FrameService {
    let done = AtomicBool::new(false);
    FrameService::new(move |frames| {
        if !done.swap(true, Ordering::SeqCst) {
            let Some(stream) = frames.call() else { return };
            return what(frames, stream);
        }
        frames.serve(BOOK);
    })
}

const CREATE: &str = "/library.v1.Library/CreateBook";

/// A path, fields and a body.
type Asking = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [u8],
);

/// How a book is added by REST, Connect and gRPC-Web: a call that changes something.
const CALLERS: [Asking; 3] = [
    (
        "/v1/shelves/a/books",
        &[("content-type", "application/json")],
        b"{}",
    ),
    (
        CREATE,
        &[
            ("content-type", "application/json"),
            ("connect-protocol-version", "1"),
        ],
        b"{}",
    ),
    (
        CREATE,
        &[("content-type", "application/grpc-web+proto")],
        b"\0\0\0\0\0",
    ),
];

/// Whether the answer is the book, in whatever form.
fn has_book(answer: &Answer) -> bool {
    let told = answer.text();
    let web = told.contains("\n\u{1}b") && told.contains("grpc-status: 0\r\n");
    answer.status == 200 && (told == r#"{"name":"b"}"# || web)
}

/// The code of an error, in whatever form.
fn code(answer: &Answer) -> String {
    let told = answer.text();
    if let Some((_, rest)) = told.split_once("grpc-status: ") {
        return rest.split('\r').next().unwrap().to_owned();
    }
    match &answer.json()["code"] {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}

#[test]
fn a_call_that_the_service_did_not_look_at_is_made_again_whoever_made_it() {
    type Fault = fn(&mut Frames, u32);
    let faults: [(&str, Fault); 3] = [
        ("refused", |frames, stream| {
            frames.reset(stream, REFUSED_STREAM);
            frames.serve(BOOK);
        }),
        ("goodbye", |frames, _| {
            frames.go_away(0, NO_ERROR);
            frames.serve(BOOK);
        }),
        ("goodbye and closed", |frames, _| {
            frames.go_away(0, INTERNAL_ERROR);
        }),
    ];
    for (name, fault) in faults {
        for (path, fields, body) in CALLERS {
            let service = first(fault);
            let world = one_worker(&service.url(), "");
            let answer = world.ask("POST", path, fields, body);
            assert!(has_book(&answer), "{name} {path}: {answer:?}");
            assert_eq!(service.asked().len(), 2, "{name} {path}");
            let record = world.record(answer.header("x-request-id").unwrap());
            assert_eq!(record["attempts"], 2, "{name}: {record}");
        }
    }
}

#[test]
fn a_call_that_the_service_may_have_begun_is_made_again_only_where_that_changes_nothing() {
    // Nothing is lost to say goodbye to; then the connection ends without an answer.
    let breaks = |frames: &mut Frames, stream| frames.go_away(stream, NO_ERROR);
    for (path, fields, body) in CALLERS {
        let service = first(breaks);
        let world = one_worker(&service.url(), "");
        let answer = world.ask("POST", path, fields, body);
        let code = code(&answer);
        assert!(
            ["14", "unavailable"].contains(&&*code),
            "{path}: {answer:?}"
        );
        assert_eq!(service.asked().len(), 1, "{path}");
        let again = world.ask("POST", path, fields, body);
        assert!(has_book(&again), "{path}: {again:?}");
    }
    let service = first(breaks);
    let world = one_worker(&service.url(), "");
    assert_eq!(world.get("/v1/shelves/a/books/b").json()["name"], "b");
    assert_eq!(service.asked().len(), 2);
}

#[test]
fn a_service_that_says_goodbye_finishes_what_it_has_begun_and_gets_no_more() {
    let service = first(|frames, stream| {
        frames.go_away(stream, NO_ERROR);
        frames.answer(stream, BOOK);
        frames.end(stream);
        frames.serve(b"");
    });
    let world = one_worker(&service.url(), "");
    for _ in 0..3 {
        assert_eq!(world.get("/v1/shelves/a/books/b").json()["name"], "b");
    }
    assert_eq!(service.asked(), [(0, 1), (1, 1), (1, 3)]);
}

#[test]
fn a_stream_that_a_goodbye_cuts_ends_with_a_visible_error() {
    type Fault = fn(&mut Frames, u32);
    // It is said to be finished, and is not; or not to have been looked at, though it was answered.
    let faults: [Fault; 2] = [
        |frames, stream| frames.go_away(stream, INTERNAL_ERROR),
        |frames, _| {
            frames.go_away(0, NO_ERROR);
            frames.serve(BOOK);
        },
    ];
    for fault in faults {
        let service = first(move |frames, stream| {
            frames.answer(stream, BOOK);
            // What is sent together is read together.
            std::thread::sleep(std::time::Duration::from_millis(50));
            fault(frames, stream);
        });
        let world = one_worker(&service.url(), "");
        let answer = world.get("/v1/shelves/a/books");
        let closed: Value = serde_json::from_str(&(answer.text() + "]")).unwrap();
        assert_eq!(closed[0]["name"], "b", "{closed}");
        assert_eq!(closed[1]["error"]["code"], 14, "{closed}");
        assert_eq!(service.asked().len(), 1);
        assert_eq!(book(&world), 200);
    }
}

#[test]
fn a_connection_that_breaks_the_protocol_ends_its_calls_cleanly_and_is_not_used_again() {
    let both = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&both);
    let service = first(move |frames, _| {
        // Only where both wait does nonsense hurt both.
        frames.call();
        seen.store(true, Ordering::SeqCst);
        frames.nonsense();
    });
    let world = one_worker(&service.url(), "");
    let ask = || {
        let mut client = world.client();
        client.request("POST", "/v1/shelves/a/books", &[], b"{}");
        client
    };
    for mut client in [ask(), ask()] {
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, &*code(&answer)), (503, "14"), "{answer:?}");
    }
    assert!(both.load(Ordering::SeqCst));
    assert_eq!(book(&world), 200);
}

#[test]
fn a_head_beyond_the_limit_ends_its_call_alone_and_trailers_are_cut_there() {
    type Fault = fn(&mut Frames, u32);
    // Some 130 KiB as HTTP/2 counts them, where 64 are taken. A status behind the cut is none.
    let faults: [(Fault, (u16, &str)); 4] = [
        (
            |frames, stream| frames.fields(stream, HEAD, 1000),
            (500, "13"),
        ),
        (
            |frames, stream| {
                frames.answer(stream, BOOK);
                frames.fields(stream, b"", 1000);
            },
            (500, "2"),
        ),
        (
            |frames, stream| {
                frames.answer(stream, BOOK);
                frames.fields(stream, TRAILERS, 1000);
            },
            (200, "null"),
        ),
        (
            |frames, stream| {
                frames.answer(stream, BOOK);
                frames.fields(stream, TRAILERS, 100);
            },
            (200, "null"),
        ),
    ];
    for (number, (fault, expected)) in faults.into_iter().enumerate() {
        let service = first(move |frames, stream| {
            fault(frames, stream);
            frames.serve(BOOK);
        });
        let world = one_worker(&service.url(), "");
        let (path, fields, body) = CALLERS[0];
        let answer = world.ask("POST", path, fields, body);
        let told = code(&answer);
        assert_eq!((answer.status, &*told), expected, "{number}");
        let passed: usize = answer.headers.iter().map(|(_, value)| value.len()).sum();
        assert!(passed < 64 * 1024, "{number}: {passed} bytes");
        assert_eq!(book(&world), 200, "{number}");
        assert_eq!(service.asked(), [(0, 1), (0, 3)], "{number}");
    }
}

#[test]
fn a_service_that_does_not_speak_http2_is_told_of() {
    let service = world::Service::saying(
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        world::Then::Close,
    );
    let url = service.url().replace("http://", "grpc://");
    let world = one_worker(&url, "");
    let answer = world.get("/v1/shelves/a/books/b");
    assert_eq!(code(&answer), "14", "{answer:?}");
    assert!([502, 503].contains(&answer.status), "{answer:?}");
}

#[test]
fn native_grpc_survives_a_goodbye_of_its_service_too() {
    let ask = |world: &World| {
        let request = Request::post(format!("http://{HOST}{CREATE}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let answered = http2::call(world.address, request, b"\0\0\0\0\0");
        let answer = http2::block_on(answered).unwrap();
        let trailers = answer.trailers.unwrap_or_else(|| answer.headers.clone());
        trailers["grpc-status"].to_str().unwrap().to_owned()
    };
    // Answered in full after the goodbye; then not at all.
    let service = first(|frames, stream| {
        frames.go_away(stream, NO_ERROR);
        frames.answer(stream, BOOK);
        frames.end(stream);
        frames.serve(b"");
    });
    let world = one_worker(&service.url(), "");
    assert_eq!((ask(&world), ask(&world)), ("0".into(), "0".into()));
    let service = first(|frames, stream| frames.go_away(stream, NO_ERROR));
    let world = one_worker(&service.url(), "");
    assert_eq!((ask(&world), ask(&world)), ("14".into(), "0".into()));
    assert_eq!(
        service.asked().len(),
        2,
        "what may have begun is not made again"
    );
}
