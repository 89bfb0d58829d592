//! A call that one side gives up is given up on the other too: cancelled by the service, by a caller that leaves, by a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Bytes;
use library::proto;
use world::frames::{CANCEL, FrameService};
use world::{Client, HOST, PATIENCE, Plan, World, eventually, http2};

/// `Book { name: "b" }`.
const BOOK: &[u8] = b"\x0a\x01b";
/// The same in the frame that gRPC has around a message.
const FRAMED: &[u8] = b"\0\0\0\0\x03\x0a\x01b";
/// A message without a field, likewise.
const EMPTY: &[u8] = b"\0\0\0\0\0";

const CREATE: &str = "/library.v1.Library/CreateBook";
const LIST: &str = "/library.v1.Library/ListBooks";

type Fields = &'static [(&'static str, &'static str)];

/// A gateway of one worker, so that calls meet on its connections.
fn one_worker(upstream: &str) -> World {
    let file = format!(
        "upstream: {upstream}\ngrpc:\n  protos: [{}]\n  callers: anyone\n",
        proto().display()
    );
    Plan::before("")
        .api("library", file)
        .argument("--workers")
        .argument("1")
        .start()
}

/// One way to have books listed.
struct Listing {
    method: &'static str,
    path: &'static str,
    fields: Fields,
    body: &'static [u8],
    /// The first message as it comes.
    first: &'static [u8],
    /// What stands in place of a late error: `CODE` is its number, `NAME` is what Connect calls it.
    error: &'static str,
}

const LISTINGS: [Listing; 4] = [
    Listing {
        method: "GET",
        path: "/v1/shelves/a/books",
        fields: &[],
        body: b"",
        first: br#"[{"name":"b"}"#,
        error: r#",{"error":{"code":CODE,"#,
    },
    Listing {
        method: "GET",
        path: "/v1/shelves/a/books",
        fields: &[("accept", "application/x-ndjson")],
        body: b"",
        first: b"{\"name\":\"b\"}\n",
        error: r#"{"error":{"code":CODE,"#,
    },
    Listing {
        method: "POST",
        path: LIST,
        fields: &[("content-type", "application/grpc-web+proto")],
        body: EMPTY,
        first: FRAMED,
        error: "grpc-status: CODE\r\n",
    },
    Listing {
        method: "POST",
        path: LIST,
        fields: &[("content-type", "application/connect+json")],
        body: b"\0\0\0\0\x02{}",
        first: b"\0\0\0\0\x0c{\"name\":\"b\"}",
        error: r#"{"error":{"code":"NAME""#,
    },
];

impl Listing {
    /// Asks, with these fields more, and reads the first message.
    fn begin(&self, world: &World, more: &[(&str, &str)]) -> Client {
        let mut client = world.client();
        let fields = [self.fields, more].concat();
        client.request(self.method, self.path, &fields, self.body);
        let head = client.head().unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(client.chunk().expect("a message"), self.first);
        client
    }

    /// Reads to the end of the body, which has to tell of this error.
    fn ends_with(&self, client: &mut Client, code: &str, name: &str) {
        let mut rest = Vec::new();
        loop {
            let chunk = client.chunk().expect("the body itself ends in order");
            if chunk.is_empty() {
                break;
            }
            rest.extend(chunk);
        }
        let told = String::from_utf8_lossy(&rest);
        let error = self.error.replace("CODE", code).replace("NAME", name);
        assert!(told.contains(&error), "{error} is not in {told}");
    }
}

/// How a book is added by REST, Connect and gRPC-Web; the status and a part of the answer where that is cancelled.
const CALLERS: [(&str, Fields, &[u8], u16, &str); 3] = [
    (
        "/v1/shelves/a/books",
        &[("content-type", "application/json")],
        b"{}",
        499,
        r#"{"code":1,"#,
    ),
    (
        CREATE,
        &[
            ("content-type", "application/json"),
            ("connect-protocol-version", "1"),
        ],
        b"{}",
        499,
        r#"{"code":"canceled""#,
    ),
    (
        CREATE,
        &[("content-type", "application/grpc-web+proto")],
        EMPTY,
        200,
        "grpc-status: 1\r\n",
    ),
];

#[test]
fn a_call_that_the_service_cancels_is_told_as_cancelled_and_not_held_against_it() {
    let service = FrameService::new(|frames| {
        while let Some(stream) = frames.call() {
            frames.reset(stream, CANCEL);
        }
    });
    let world = one_worker(&service.url());
    // More than it takes to eject.
    for round in 1..=5 {
        for (path, fields, body, status, told) in CALLERS {
            let answer = world.ask("POST", path, fields, body);
            assert_eq!(answer.status, status, "{path} {round}: {answer:?}");
            assert!(answer.text().contains(told), "{path} {round}: {answer:?}");
            let record = world.record(answer.header("x-request-id").unwrap());
            assert_eq!(record["attempts"], 1, "{path}: {record}");
        }
        assert_eq!(service.asked().len(), 3 * round, "none was made again");
    }
    assert!(!world.log().contains("ejected"), "{}", world.log());
}

#[test]
fn a_stream_that_the_service_cancels_ends_with_a_visible_error() {
    for listing in &LISTINGS {
        let (next, wanted) = mpsc::channel::<()>();
        let wanted = Mutex::new(wanted);
        let service = FrameService::new(move |frames| {
            let Some(stream) = frames.call() else { return };
            frames.answer(stream, BOOK);
            // A reset may take with it what nobody has read yet.
            let _ = wanted.lock().unwrap().recv_timeout(PATIENCE);
            frames.reset(stream, CANCEL);
            frames.serve(BOOK);
        });
        let world = one_worker(&service.url());
        let mut client = listing.begin(&world, &[]);
        next.send(()).unwrap();
        listing.ends_with(&mut client, "1", "canceled");
        assert_eq!(service.asked().len(), 1, "it is not made again");
    }
}

/// A service that begins every answer with a book and then says no more, and notes how the call is given up.
struct Silent {
    service: FrameService,
    given_up: Arc<Mutex<Vec<u32>>>,
}

impl Silent {
    fn new() -> Self {
        let given_up = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&given_up);
        let service = FrameService::new(move |frames| {
            while let Some(stream) = frames.call() {
                frames.answer(stream, BOOK);
                let code = frames.given_up(stream);
                kept.lock().unwrap().extend(code);
            }
        });
        Self { service, given_up }
    }

    /// Whether so many calls were given up so far, each by CANCEL.
    fn was_left(&self, calls: usize) -> bool {
        let given_up = self.given_up.lock().unwrap();
        assert!(given_up.iter().all(|code| *code == CANCEL), "{given_up:?}");
        given_up.len() == calls
    }
}

#[test]
fn a_caller_that_leaves_a_stream_cancels_the_call_at_the_service() {
    let silent = Silent::new();
    let world = one_worker(&silent.service.url());
    for (left, listing) in LISTINGS.iter().enumerate() {
        let client = listing.begin(&world, &[]);
        assert!(silent.was_left(left), "as long as the caller listens");
        drop(client);
        eventually("the service is told", || silent.was_left(left + 1));
    }
}

#[test]
fn a_caller_over_http2_that_resets_its_stream_cancels_the_call_at_the_service() {
    let silent = Silent::new();
    let world = one_worker(&silent.service.url());
    let table: [(&str, &'static [u8], &[u8]); 3] = [
        ("application/grpc", EMPTY, FRAMED),
        ("application/grpc-web+proto", EMPTY, FRAMED),
        (
            "application/connect+json",
            b"\0\0\0\0\x02{}",
            b"\0\0\0\0\x0c{\"name\":\"b\"}",
        ),
    ];
    for (left, (kind, body, first)) in table.into_iter().enumerate() {
        let request = Request::post(format!("http://{HOST}{LIST}"))
            .header("content-type", kind)
            .header("te", "trailers")
            .body(())
            .unwrap();
        http2::block_on(async {
            let mut send = http2::connect(world.address).await.ready().await.unwrap();
            let (response, mut sender) = send.send_request(request, false).unwrap();
            sender.send_data(Bytes::from_static(body), true).unwrap();
            let mut answer = response.await.unwrap().into_body();
            let data = answer.data().await.expect("a message").unwrap();
            assert_eq!(&data[..], first, "{kind}");
            assert!(silent.was_left(left), "as long as the caller listens");
            // The connection stays: only the call is left.
            sender.send_reset(h2::Reason::CANCEL);
            while !silent.was_left(left + 1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

/// What callers give a stream here: enough for its first message on a machine that is busy, and far from every other limit.
const TIMEOUT_MS: u64 = 800;

#[test]
fn a_stream_over_its_deadline_ends_with_a_visible_error_and_is_cancelled_at_the_service() {
    let silent = Silent::new();
    let world = one_worker(&silent.service.url());
    for (left, listing) in LISTINGS.iter().enumerate() {
        let by_connect = listing.error.contains("NAME");
        let (name, value) = match by_connect {
            true => ("connect-timeout-ms", TIMEOUT_MS.to_string()),
            false => ("grpc-timeout", format!("{TIMEOUT_MS}m")),
        };
        let begun = Instant::now();
        let mut client = listing.begin(&world, &[(name, &value)]);
        listing.ends_with(&mut client, "4", "deadline_exceeded");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(TIMEOUT_MS / 2), "{took:?}");
        assert!(took < PATIENCE / 4, "{took:?}");
        eventually("the service is told", || silent.was_left(left + 1));
    }
}
