//! Long streams of a gRPC service: each message goes on as it comes, and none is kept.
//!
//! What is printed with `--nocapture` are the figures of `benches/README.md`, which are of the release build (`TOLLGATE_BINARY`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use std::time::{Duration, Instant};

use library::{Library, plan_before};
use serde_json::Value;
use world::{Client, HOST, World};

const MESSAGES: usize = 10_000;
/// Letters of each message, so that all together are many times what may be held.
const LETTERS: usize = 3_000;
/// What the process may grow by while some 30 MB pass through it: windows and buffers of a connection, pages of its program.
const GROWTH_KIB: u64 = 12 * 1024;

/// What a stream took.
struct Taken<'w> {
    world: &'w World,
    begun: Instant,
    cpu: Duration,
    peak: u64,
}

impl<'w> Taken<'w> {
    fn begin(world: &'w World) -> Self {
        Self {
            world,
            begun: Instant::now(),
            cpu: world.cpu_time(),
            peak: world.peak_kib(),
        }
    }

    fn end(self, what: &str) {
        let (took, grown) = (self.begun.elapsed(), self.world.peak_kib() - self.peak);
        let cpu = (self.world.cpu_time() - self.cpu).as_micros() / MESSAGES as u128;
        let rate = MESSAGES as f64 / took.as_secs_f64();
        println!(
            "{what}: {rate:.0} messages/s of {LETTERS} bytes, {cpu} µs of CPU each, {grown} KiB more at most"
        );
        assert!(grown <= GROWTH_KIB, "{what}: {grown} KiB more");
    }
}

/// A gateway whose code for streams has been used once, so that its pages do not count.
fn warm(library: &Library) -> World {
    let plan = plan_before(&library.url(), "defaults: {max_body: 64MiB}\n");
    let world = plan.argument("--workers").argument("1").start();
    assert_eq!(world.get("/v1/shelves/a/books?count=100").status, 200);
    let books = format!("[{{}}{}]", ",{}".repeat(100));
    let added = world.ask("POST", "/v1/books:add", &[], books.as_bytes());
    assert_eq!(added.json()["books"], 101);
    let mut client = talk(&world);
    say(&mut client, "hello");
    hear(&mut client);
    world
}

#[test]
fn ten_thousand_messages_of_a_service_are_not_kept() {
    let library = Library::new();
    let world = warm(&library);
    let shelf = "x".repeat(LETTERS);
    let taken = Taken::begin(&world);
    let mut client = world.client();
    let path = format!("/v1/shelves/{shelf}/books?count={MESSAGES}");
    client.request("GET", &path, &[("accept", "application/x-ndjson")], b"");
    assert_eq!(client.head().unwrap().status, 200);
    let (mut lines, mut last) = (0, Vec::new());
    loop {
        let chunk = client.chunk().expect("a whole answer");
        if chunk.is_empty() {
            break;
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count();
        last = chunk;
    }
    assert_eq!(lines, MESSAGES);
    assert!(last.ends_with(b"/books/9999\",\"pages\":\"9999\"}\n"));
    taken.end("service to caller");
}

#[test]
fn ten_thousand_messages_of_a_caller_are_not_kept() {
    let library = Library::new();
    let world = warm(&library);
    let book = format!("{{\"title\":\"{}\",\"pages\":1}},", "x".repeat(LETTERS));
    let taken = Taken::begin(&world);
    let mut client = world.client();
    client.send(
        format!("POST /v1/books:add HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n")
            .as_bytes(),
    );
    let chunk = format!("{:x}\r\n{book}\r\n", book.len());
    for _ in 1..MESSAGES {
        client.send(chunk.as_bytes());
    }
    client.send(b"b\r\n{\"pages\":1}\r\n1\r\n]\r\n0\r\n\r\n");
    let sum = client.answer().unwrap().json();
    assert_eq!(sum["books"], MESSAGES);
    assert_eq!(sum["pages"], MESSAGES.to_string());
    taken.end("caller to service");
}

#[test]
fn ten_thousand_messages_both_ways_are_not_kept() {
    let library = Library::new();
    let world = warm(&library);
    let mut client = talk(&world);
    let text = "x".repeat(LETTERS);
    let taken = Taken::begin(&world);
    for _ in 0..MESSAGES {
        say(&mut client, &text);
        assert_eq!(hear(&mut client).len(), LETTERS + "you said ".len());
    }
    taken.end("both ways, one by one");
}

/// A WebSocket.
fn talk(world: &World) -> Client {
    let mut client = world.client();
    let fields = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    client.request("GET", "/v1/talk", &fields, b"");
    assert_eq!(client.answer().unwrap().status, 101);
    client
}

/// A text message, with a mask of zeros.
fn say(client: &mut Client, text: &str) {
    let message = format!("{{\"text\":\"{text}\"}}");
    let length = u16::try_from(message.len()).unwrap();
    let head = match length {
        0..126 => vec![0x81, 0x80 | u8::try_from(length).unwrap()],
        _ => [&[0x81, 0x80 | 126], &length.to_be_bytes()[..]].concat(),
    };
    client.send(&[&head[..], &[0; 4], message.as_bytes()].concat());
}

fn hear(client: &mut Client) -> String {
    let head = client.exactly(2).expect("a message");
    let length = match head[1] {
        126 => u16::from_be_bytes(client.exactly(2).unwrap().try_into().unwrap()).into(),
        length => usize::from(length),
    };
    let message: Value = serde_json::from_slice(&client.exactly(length).unwrap()).unwrap();
    message["text"].as_str().unwrap().to_owned()
}
