//! Streams are judged again while they go on, charged as they go, and counted by their time and their messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tollgate_policy::time::Timestamp;
use world::service::chunk;
use world::shop::{CONSUMERS, Key, bare};
use world::{Client, Plan, Service, Then, World, eventually};

const PLANS: &str = "\
plans:
  all:
    apis: { shop: all }
    limits: [LIMITS]
  reader:
    apis: { shop: [listBooks, getBook] }
";

/// Sends events for ever; takes WebSockets and sends back what it gets.
fn talking() -> Service {
    Service::answering(|call, stream| {
        if call.header("upgrade").is_some() {
            let _ = stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            );
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                let _ = stream.write_all(&bytes[..read]);
            }
            return Then::Close;
        }
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head);
        chunk(stream, b"data: first\n\n");
        // What comes now is the gateway's.
        Then::Hold
    })
}

fn shop(service: &Service, more: &str, limits: &str) -> Plan {
    let more = format!("defaults: {{ recheck: {{ every: 1s }} }}\n{more}");
    bare(&service.url(), &more)
        .file("plans.yaml", &PLANS.replace("LIMITS", limits))
        .file("consumers.yaml", CONSUMERS)
}

/// Nobody may listen or chat from so many seconds on.
fn until(seconds: u64) -> String {
    let end = Timestamp::from(SystemTime::now() + Duration::from_secs(seconds));
    format!(
        "acl:\n  - {{ name: over, effect: deny, operations: [streamEvents, chat], not_before: '{end}' }}\n"
    )
}

fn socket(world: &World, key: &Key) -> (Client, String) {
    let mut client = world.client();
    let fields = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("x-api-key", key.secret.as_str()),
    ];
    client.request("GET", "/v1/chat", &fields, b"");
    let answer = client.answer().unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    let id = answer.header("x-request-id").unwrap().to_owned();
    (client, id)
}

fn says_and_hears(client: &mut Client, text: &str) {
    let frame = [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    client.send(&frame);
    assert_eq!(client.exactly(frame.len()).unwrap(), frame);
}

fn used(world: &World, consumer: &str, metric: &str) -> u64 {
    let used = world
        .cli(&["usage", "--consumer", consumer, "--json"])
        .json();
    let rows = used.as_array().cloned().unwrap_or_else(|| vec![used]);
    rows.iter()
        .filter_map(|row: &Value| row[metric].as_u64())
        .sum()
}

#[test]
fn a_stream_ends_with_the_reason_once_its_caller_may_not_call_any_more() {
    let service = talking();
    for pump in [false, true] {
        let world = shop(&service, &until(4), "").pump(pump).start();
        let key = world.key("desk");
        let mut events = world.client();
        events.request("GET", "/v1/events", &[("x-api-key", &key.secret)], b"");
        let head = events.head().unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(events.chunk().unwrap(), b"data: first\n\n");
        let (mut chat, id) = socket(&world, &key);
        says_and_hears(&mut chat, "hello");
        let told = String::from_utf8(events.chunk().expect("why it ends")).unwrap();
        assert!(told.starts_with("event: error\ndata: {"), "{told}");
        assert!(told.contains("not_permitted"), "{told}");
        assert!(events.chunk().is_none(), "it does not look complete");
        let record = world.record(head.header("x-request-id").unwrap());
        assert_eq!(record["denial"], "not_permitted", "{record}");
        assert!(
            record["reason"].as_str().unwrap().contains("over"),
            "{record}"
        );
        // A WebSocket is closed with 1008, policy violation.
        let farewell = b"\x88\x0f\x03\xf0not_permitted";
        assert_eq!(chat.exactly(farewell.len()).as_deref(), Some(&farewell[..]));
        assert!(chat.is_closed());
        assert_eq!(world.record(&id)["denial"], "not_permitted");
    }
}

#[test]
fn a_stream_is_charged_as_it_goes_and_ends_when_nothing_is_left() {
    let service = talking();
    let limit = "{ name: talk, metric: messages, amount: 9, window: 1d, operations: [chat] }";
    let world = shop(&service, "", limit).start();
    let key = world.key("desk");
    let (mut chat, id) = socket(&world, &key);
    for text in ["one", "two", "three", "four", "five", "six"] {
        says_and_hears(&mut chat, text);
    }
    let farewell = b"\x88\x10\x03\xf0quota_exceeded";
    assert_eq!(chat.exactly(farewell.len()).as_deref(), Some(&farewell[..]));
    assert_eq!(world.record(&id)["denial"], "quota_exceeded");
    eventually("what was said is counted", || {
        used(&world, "desk", "request_messages") == 6
            && used(&world, "desk", "response_messages") == 6
            && used(&world, "desk", "stream_seconds") >= 1
    });
    assert_eq!(used(&world, "desk", "calls"), 1);
    let answer = world.get_with(&key, "/v1/chat");
    answer.is_problem(429, "quota_exceeded");
}

#[test]
fn the_time_a_stream_is_open_counts_against_a_limit_on_it() {
    let service = talking();
    let limit =
        "{ name: time, metric: stream_seconds, amount: 2, window: 1d, operations: [streamEvents] }";
    let world = shop(&service, "", limit).start();
    let key = world.key("desk");
    let mut events = world.client();
    events.request("GET", "/v1/events", &[("x-api-key", &key.secret)], b"");
    assert_eq!(events.head().unwrap().status, 200);
    assert_eq!(events.chunk().unwrap(), b"data: first\n\n");
    let told = String::from_utf8(events.chunk().expect("why it ends")).unwrap();
    assert!(told.contains("quota_exceeded"), "{told}");
    eventually("its time is counted", || {
        (3..6).contains(&used(&world, "desk", "stream_seconds"))
            && used(&world, "desk", "response_messages") == 1
    });
}

/// A judge that answers so from now on.
fn says(judge: &Service, status: u16) {
    judge.now(move |_, stream| {
        let answer = format!("HTTP/1.1 {status} Judged\r\ncontent-length: 0\r\n\r\n");
        let _gone = stream.write_all(answer.as_bytes());
        Then::Continue
    });
}

#[test]
fn an_authoriser_that_changes_its_mind_ends_a_stream_and_one_that_is_silent_does_not() {
    let (service, judge) = (talking(), Service::new());
    says(&judge, 200);
    let authoriser = format!(
        "authoriser: {{ http: '{}/check', deadline: 300ms, failure: degraded, stale_ok: 1s, vary: [consumer] }}\n",
        judge.url()
    );
    let world = shop(&service, &authoriser, "").start();
    let key = world.key("desk");
    let (mut chat, id) = socket(&world, &key);
    let begun = judge.calls().len();
    judge.has_calls(begun + 1);
    judge.now(|_, _| Then::Hold);
    let silent = judge.calls().len();
    judge.has_calls(silent + 2);
    says_and_hears(&mut chat, "still here");
    says(&judge, 403);
    let farewell = b"\x88\x14\x03\xf0authoriser_refused";
    assert_eq!(chat.exactly(farewell.len()).as_deref(), Some(&farewell[..]));
    assert_eq!(world.record(&id)["denial"], "authoriser_refused");
}
