//! REST calls of a gRPC service: messages, errors, streams, metadata, deadlines, and what happens to a caller that gets it wrong or leaves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use hyper::Request;
use library::{Library, before, plan_before};
use serde_json::{Value, json};
use world::{Answer, Broken, HOST, World, http2};

fn call(world: &World, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut client = world.client();
    client.request(method, path, fields, body);
    client.answer_to(method).expect("a whole answer")
}

fn get(world: &World, path: &str) -> Answer {
    call(world, "GET", path, &[], b"")
}

/// Asserts that this is an error in the shape of `google.rpc.Status`.
fn is_error(answer: &Answer, http: u16, code: u64) -> Value {
    assert_eq!(answer.status, http, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("grpc-status").is_none());
    assert!(answer.header("x-request-id").is_some());
    let error = answer.json();
    assert_eq!(error["code"], code, "{error}");
    assert!(
        error["message"].is_string() && error["details"].is_array(),
        "{error}"
    );
    error
}

#[test]
fn a_get_is_a_call_and_its_answer_is_json() {
    let library = Library::new();
    let world = library.world("");
    let answer = get(&world, "/v1/shelves/a/books/b");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.json(),
        json!({"name": "shelves/a/books/b", "title": "Walden", "pages": "352", "tags": ["a", "b"]})
    );
    assert_eq!(answer.header("x-initial"), Some("yes"));
    for name in ["grpc-status", "grpc-encoding", "grpc-accept-encoding"] {
        assert_eq!(answer.header(name), None);
    }
    let head = call(&world, "HEAD", "/v1/shelves/a/books/b", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_caller_that_asks_before_it_sends_its_body_is_told_to_go_on() {
    let library = Library::new();
    let world = library.world("");
    let mut client = world.client();
    let body = br#"{"title": "Emma"}"#;
    client.send(
        format!(
            "POST /v1/shelves/a/books HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    assert_eq!(client.head().unwrap().status, 100);
    client.send(body);
    assert_eq!(client.answer().unwrap().json()["title"], "Emma");
}

#[test]
fn body_path_and_query_make_one_message() {
    let library = Library::new();
    let world = library.world("");
    let body = br#"{"title": "Emma", "pages": "100"}"#;
    let answer = call(
        &world,
        "POST",
        "/v1/shelves/a/books?dry_run=true",
        &[],
        body,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({"name": "shelves/a/books/new", "title": "Emma", "pages": "100", "tags": ["dry"]})
    );
    let answer = call(
        &world,
        "PATCH",
        "/v1/shelves/a/books/b?updateMask=title",
        &[],
        br#"{"title": "Emma"}"#,
    );
    assert_eq!(answer.json()["updateMask"], "title", "{answer:?}");
    let answer = call(
        &world,
        "POST",
        "/library.v1.Library/Ping",
        &[],
        br#"{"text": "hi"}"#,
    );
    assert_eq!(answer.json(), json!({"text": "hi"}));
}

#[test]
fn connections_are_kept_and_shared_by_all_callers() {
    let library = Library::new();
    let world = library.world("").client();
    drop(world);
    let world = library.world("");
    let mut client = world.client();
    for _ in 0..20 {
        client.request("GET", "/v1/shelves/a/books/b", &[], b"");
        assert_eq!(client.answer().unwrap().status, 200);
        assert_eq!(get(&world, "/v1/shelves/a/books/b").status, 200);
    }
    // One connection to each of the gateway's workers at most, and those of one other gateway.
    assert!(library.connections() <= 8, "{}", library.connections());
}

/// Must-have: HttpBody as request and answer, and `response_body` of a single field.
#[test]
fn a_single_field_or_raw_bytes_may_be_the_body() {
    let library = Library::new();
    let world = library.world("");
    assert_eq!(
        get(&world, "/v1/shelves/a/books/b:title").text(),
        "\"Walden\""
    );
    let answer = get(&world, "/v1/shelves/a/books/b:download");
    assert_eq!(answer.header("content-type"), Some("text/csv"));
    assert_eq!(answer.text(), "name\nshelves/a/books/b\n");
    let answer = get(&world, "/v1/shelves/a/books/b:pages");
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.text(), "one\ntwo\n");
    let fields = [("content-type", "image/png")];
    let answer = call(
        &world,
        "POST",
        "/v1/shelves/a/books/b:upload",
        &fields,
        b"\x89PNG",
    );
    assert_eq!(
        answer.json(),
        json!({"name": "shelves/a/books/b", "title": "image/png", "pages": "4"})
    );
}

/// Must-have: HttpBody in a stream.
#[test]
fn raw_bytes_of_any_length_are_a_stream_to_a_service_that_takes_one() {
    let library = Library::new();
    let world = library.world("");
    for length in [0, 3, 1_000_000] {
        let fields = [("content-type", "image/png")];
        let body = vec![0xff; length];
        let answer = call(
            &world,
            "POST",
            "/v1/shelves/a/books/b:store",
            &fields,
            &body,
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        let stored = answer.json();
        assert_eq!(stored["name"], "shelves/a/books/b");
        if length > 0 {
            assert_eq!(stored["title"], "image/png", "{stored}");
            assert_eq!(stored["pages"], length.to_string());
        }
    }
}

#[test]
fn raw_bytes_that_break_off_are_seen_to_break_off() {
    let library = Library::new();
    let world = library.world("");
    let mut client = world.client();
    client.request("GET", "/v1/shelves/a/books/broken:pages", &[], b"");
    let torn = client.answer().expect_err("torn");
    assert!(matches!(torn, Broken::Torn(_)), "{torn:?}");
}

/// Must-have: the status, message and details of the service, in either shape.
#[test]
fn an_error_of_the_service_has_its_status_message_and_details() {
    let library = Library::new();
    let world = library.world("");
    let answer = get(&world, "/v1/shelves/a/books/gone");
    let error = is_error(&answer, 404, 5);
    assert_eq!(error["message"], "no \u{201c}such\u{201d} book: 100%");
    assert_eq!(answer.header("x-why"), Some("burnt"));
    let error = is_error(&get(&world, "/v1/faults/details"), 400, 9);
    assert_eq!(
        error["details"],
        json!([
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "BURNTS", "domain": "library.org"},
            {"@type": "type.googleapis.com/x.Unknown", "value": "CAE="},
        ])
    );
    let aip = before(&library.url(), "  profile: {errors: aip193}\n");
    let answer = get(&aip, "/v1/shelves/a/books/gone");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["status"], "NOT_FOUND");
    assert_eq!(answer.json()["error"]["code"], 404);
    // The gateway's own are of the same shape, also where no method was found.
    for (method, path, http, status) in [
        ("GET", "/v1/nothing", 404, "UNIMPLEMENTED"),
        ("PUT", "/v1/shelves/a/books", 405, "UNIMPLEMENTED"),
        (
            "GET",
            "/v1/shelves/a/books/b?colour=red",
            400,
            "INVALID_ARGUMENT",
        ),
    ] {
        let answer = call(&aip, method, path, &[], b"");
        assert_eq!(answer.status, http, "{path}");
        assert_eq!(answer.json()["error"]["status"], status, "{path}");
        assert_eq!(answer.json()["error"]["code"], http, "{path}");
    }
}

/// Must-have: a single answer is complete before its status, so every fault is a clean error.
#[test]
fn whatever_the_service_does_wrong_is_a_clean_error_and_hurts_no_other_call() {
    let library = Library::new();
    let world = library.world("");
    let table = [
        ("garbage", 500, 13),
        ("html", 500, 2),
        ("503", 503, 14),
        ("no-trailers", 500, 2),
        ("large", 429, 8),
        ("bomb", 429, 8),
        ("snappy", 500, 13),
        ("reset", 500, 13),
        ("cut", 500, 13),
        ("status-99", 500, 2),
        ("bad-message", 404, 5),
        ("bad-details", 404, 5),
        ("two", 500, 13),
        ("none", 500, 13),
        ("no-message", 500, 13),
    ];
    for (kind, http, code) in table {
        let answer = get(&world, &format!("/v1/faults/{kind}"));
        let error = is_error(&answer, http, code);
        if kind == "bad-message" {
            assert_eq!(error["message"], "100% %zz \u{20ac}");
        }
        assert_eq!(
            get(&world, "/v1/shelves/a/books/b").status,
            200,
            "after {kind}"
        );
    }
}

/// Must-have: compressed frames are read though nobody asked for them; a coded request is decoded or 415.
#[test]
fn compressed_answers_are_read_and_passed_on_compressed_to_who_reads_that() {
    let library = Library::new();
    let world = library.world("");
    for kind in ["gzip", "gzip-unsaid"] {
        let answer = get(&world, &format!("/v1/faults/{kind}"));
        assert_eq!(answer.json()["title"], "x".repeat(2000));
        let fields = [("accept-encoding", "br, gzip")];
        let answer = call(&world, "GET", &format!("/v1/faults/{kind}"), &fields, b"");
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        assert!(answer.body.len() < 500);
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, br#"{"title": "Emma"}"#).unwrap();
    let body = encoder.finish().unwrap();
    let fields = [("content-encoding", "gzip")];
    let answer = call(&world, "POST", "/v1/shelves/a/books", &fields, &body);
    assert_eq!(answer.json()["title"], "Emma");
    let answer = call(
        &world,
        "POST",
        "/v1/shelves/a/books",
        &[("content-encoding", "br")],
        b"{}",
    );
    is_error(&answer, 415, 3);
}

/// Must-have: JSON errors in one shape with the path of the field.
#[test]
fn a_mistake_of_the_caller_is_a_json_error_that_names_the_field() {
    let library = Library::new();
    let world = library.world("");
    let deep = format!(
        "{{\"chapters\": [{}1{}]}}",
        "{\"inner\":".repeat(150),
        "}".repeat(150)
    );
    let table: [(&[u8], &str); 9] = [
        (br#"{"pages": "many"}"#, "pages"),
        (br#"{"tags": [1]}"#, "tags[0]"),
        (br#"{"titel": "x"}"#, "titel"),
        (br#"{"title": "a", "title": "b"}"#, "title"),
        (b"{\"title\": \"\xff\"}", ""),
        (br#"{"title": "#, ""),
        (br#"{} {}"#, ""),
        (br#"[]"#, ""),
        (deep.as_bytes(), "chapters"),
    ];
    for (body, field) in table {
        let answer = call(&world, "POST", "/v1/shelves/a/books", &[], body);
        let error = is_error(&answer, 400, 3);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(field), "{message} does not name {field}");
        assert_eq!(error["details"][0]["reason"], "INVALID_MESSAGE", "{error}");
        if !field.is_empty() {
            let violated = &error["details"][1]["fieldViolations"][0]["field"];
            assert!(violated.as_str().unwrap().contains(field), "{error}");
        }
    }
    is_error(&get(&world, "/v1/shelves/a/books/b?colour=red"), 400, 3);
    is_error(&get(&world, "/v1/nothing"), 404, 12);
    let answer = call(&world, "DELETE", "/v1/shelves/a/books/b", &[], b"");
    is_error(&answer, 405, 12);
    let large = format!("{{\"title\": \"{}\"}}", "x".repeat(300 * 1024));
    is_error(
        &call(&world, "POST", "/v1/shelves/a/books", &[], large.as_bytes()),
        413,
        8,
    );
    assert!(
        library.reached().is_empty(),
        "nothing of this reached the service"
    );
}

#[test]
fn a_body_whose_framing_breaks_or_that_breaks_off_reaches_nobody() {
    let library = Library::new();
    let world = library.world("");
    let head = format!("POST /v1/shelves/a/books HTTP/1.1\r\nhost: {HOST}\r\n");
    for broken in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n",
        "2\r\n{}xx0\r\n\r\n",
    ] {
        let mut client = world.client();
        client.send(format!("{head}transfer-encoding: chunked\r\n\r\n{broken}").as_bytes());
        is_error(&client.answer().expect(broken), 400, 3);
        assert!(client.is_closed(), "{broken}");
    }
    for half in [
        "content-length: 100\r\n\r\n{}",
        "transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ] {
        let mut client = world.client();
        client.send(format!("{head}{half}").as_bytes());
        drop(client);
    }
    // All six have ended, and their records are written.
    assert_eq!(world.access_log(6).len(), 6);
    assert!(library.reached().is_empty());
    assert_eq!(get(&world, "/v1/shelves/a/books/b").status, 200);
}

#[test]
fn a_body_that_never_ends_is_refused_at_its_limit() {
    let library = Library::new();
    let world = plan_before(&library.url(), "defaults: {max_body: 64KiB}\n").start();
    let mut client = world.client();
    client.send(
        format!(
            "POST /v1/shelves/a/books HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        .as_bytes(),
    );
    for _ in 0..100 {
        client.send(b"1000\r\n");
        client.send(&[b'['; 0x1000]);
        client.send(b"\r\n");
    }
    is_error(&client.answer().unwrap(), 413, 8);
    assert!(library.reached().is_empty());
    // A stream of small elements, and a stream that is one endless element.
    let stream = format!("[{}", "{\"pages\":1},".repeat(10_000));
    let element = format!("[\"{}", "x".repeat(300_000));
    let wide = before(&library.url(), "");
    for (world, body, http, code) in [(&world, stream, 413, 8), (&wide, element, 413, 8)] {
        let mut client = world.client();
        client.send(
            format!(
                "POST /v1/books:add HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n\
                 {:x}\r\n{body}\r\n",
                body.len()
            )
            .as_bytes(),
        );
        is_error(&client.answer().unwrap(), http, code);
    }
}

/// Must-have: header hygiene, both ways.
#[test]
fn metadata_passes_both_ways_and_the_protocols_own_fields_do_not() {
    let library = Library::new();
    let world = library.world("");
    let fields = [
        ("x-custom", "1"),
        ("x-data-bin", "AAEC"),
        ("grpc-encoding", "br"),
        ("grpc-status", "5"),
        ("te", "gzip"),
        ("accept", "application/json"),
        ("connection", "keep-alive, x-hop"),
    ];
    let answer = call(&world, "GET", "/v1/shelves/a/books/b", &fields, b"");
    assert_eq!(answer.header("x-seen-custom"), Some("1"), "{answer:?}");
    let reached = library.reached();
    let seen = &reached[0].fields;
    assert_eq!(reached[0].path, "/library.v1.Library/GetBook");
    assert_eq!(seen["x-data-bin"], "AAEC");
    assert_eq!(seen["te"], "trailers");
    assert_eq!(seen["content-type"], "application/grpc");
    assert!(seen.contains_key("traceparent") && seen.contains_key("x-request-id"));
    for name in [
        "grpc-encoding",
        "grpc-status",
        "accept",
        "connection",
        "host",
        "content-length",
    ] {
        assert!(!seen.contains_key(name), "{name}");
    }
    let answer = call(
        &world,
        "GET",
        "/v1/shelves/a/books/b",
        &[("x-data-bin", "?")],
        b"",
    );
    is_error(&answer, 400, 3);
}

/// Must-have: grpc-timeout validated, capped by the operation, passed on.
#[test]
fn a_deadline_is_checked_capped_and_passed_on() {
    let library = Library::new();
    let world = before(&library.url(), "defaults: {timeouts: {total: 3s}}\n");
    for malformed in ["5", "5s", "123456789S", "-1S", ""] {
        let fields = [("grpc-timeout", malformed)];
        is_error(
            &call(&world, "GET", "/v1/shelves/a/books/b", &fields, b""),
            400,
            3,
        );
    }
    assert!(library.reached().is_empty());
    for (asked, most) in [("1000m", 1_000_000), ("10H", 3_000_000)] {
        let fields = [("grpc-timeout", asked)];
        assert_eq!(
            call(&world, "GET", "/v1/shelves/a/books/b", &fields, b"").status,
            200
        );
        let reached = library.reached();
        let passed = reached.last().unwrap().fields["grpc-timeout"]
            .to_str()
            .unwrap();
        let micros: u64 = passed.strip_suffix('u').unwrap().parse().unwrap();
        assert!(micros <= most && micros > most / 2, "{passed}");
    }
    let fields = [("grpc-timeout", "100m")];
    let answer = call(&world, "GET", "/v1/shelves/a/books/slow", &fields, b"");
    is_error(&answer, 504, 4);
    library.gave_up(1);
}

#[test]
fn a_caller_that_leaves_cancels_its_call() {
    let library = Library::new();
    let world = library.world("");
    let mut client = world.client();
    client.request("GET", "/v1/shelves/a/books/slow", &[], b"");
    world::eventually("the call has arrived", || library.reached().len() == 1);
    drop(client);
    library.gave_up(1);
    let mut client = world.client();
    client.request("GET", "/v1/shelves/endless/books?count=1", &[], b"");
    client.head().unwrap();
    client.chunk().unwrap();
    drop(client);
    assert_eq!(get(&world, "/v1/shelves/a/books/b").status, 200);
}

#[test]
fn a_service_that_is_away_is_told_of_in_the_same_shape() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let world = before(&format!("grpc://{address}"), "");
    let answer = get(&world, "/v1/shelves/a/books/b");
    let error = is_error(&answer, 502, 14);
    assert_eq!(error["details"][0]["reason"], "UPSTREAM_FAILED");
}

const NDJSON: (&str, &str) = ("accept", "application/x-ndjson");
const EVENTS: (&str, &str) = ("accept", "text/event-stream");

/// Must-have: stream forms chosen by `Accept`: JSON array, NDJSON, SSE.
#[test]
fn a_stream_is_an_array_lines_or_events_as_the_caller_likes() {
    let library = Library::new();
    let world = library.world("");
    let path = "/v1/shelves/a/books?count=3";
    let answer = get(&world, path);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let books = answer.json();
    assert_eq!(books.as_array().unwrap().len(), 3);
    assert_eq!(books[2], json!({"name": "shelves/a/books/2", "pages": "2"}));
    let answer = call(&world, "GET", path, &[NDJSON], b"");
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(answer.text().lines().count(), 3);
    let answer = call(&world, "GET", path, &[EVENTS], b"");
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(
        answer
            .text()
            .starts_with("data: {\"name\":\"shelves/a/books/0\""),
        "{answer:?}"
    );
    assert_eq!(answer.text().matches("\n\n").count(), 3);
    assert_eq!(get(&world, "/v1/shelves/a/books").text(), "[]");
    let lines = before(&library.url(), "  profile: {streams: ndjson}\n");
    assert_eq!(
        get(&lines, path).header("content-type"),
        Some("application/x-ndjson")
    );
}

/// Must-have: flushed per message.
#[test]
fn messages_of_a_stream_arrive_one_by_one() {
    let library = Library::new();
    let world = library.world("");
    let mut client = world.client();
    client.request("GET", "/v1/shelves/endless/books?count=2", &[NDJSON], b"");
    client.head().unwrap();
    let mut seen = String::new();
    while seen.lines().count() < 2 {
        seen += &String::from_utf8(client.chunk().expect("a chunk")).unwrap();
    }
    assert!(seen.ends_with('\n'), "{seen}");
    let head = call(
        &world,
        "HEAD",
        "/v1/shelves/endless/books?count=2",
        &[NDJSON],
        b"",
    );
    assert_eq!(head.header("content-type"), Some("application/x-ndjson"));
}

/// Must-have: late errors are visible in each stream form, and an array is not closed as if all were well.
#[test]
fn an_error_in_a_stream_is_clean_before_the_first_message_and_visible_after_it() {
    let library = Library::new();
    let world = library.world("");
    is_error(&get(&world, "/v1/shelves/none/books"), 403, 7);
    let path = "/v1/shelves/broken/books?count=2";
    let error = json!({"code": 15, "message": "the shelf fell", "details": []});
    let answer = get(&world, path);
    assert_eq!(answer.status, 200);
    assert!(
        serde_json::from_slice::<Value>(&answer.body).is_err(),
        "no whole array"
    );
    let closed: Value = serde_json::from_str(&(answer.text() + "]")).unwrap();
    assert_eq!(closed[2], json!({"error": error}));
    let answer = call(&world, "GET", path, &[NDJSON], b"");
    let last: Value = serde_json::from_str(answer.text().lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"error": error}));
    let answer = call(&world, "GET", path, &[EVENTS], b"");
    let text = answer.text();
    let (_, last) = text
        .split_once("event: error\ndata: ")
        .expect("an event of its own");
    assert_eq!(
        serde_json::from_str::<Value>(last).unwrap(),
        json!({"error": error})
    );
    let answer = get(&world, "/v1/faults/reset:stream");
    assert!(
        answer.text().contains(",{\"error\":{\"code\":13,"),
        "{answer:?}"
    );
}

/// Must-have: client streams from a JSON array or NDJSON.
#[test]
fn a_callers_stream_is_read_element_by_element() {
    let library = Library::new();
    let world = library.world("");
    let add =
        |fields: &[(&str, &str)], body: &[u8]| call(&world, "POST", "/v1/books:add", fields, body);
    let sum = json!({"books": 3, "pages": "6"});
    let list = br#" [{"pages": 1}, {"pages": "2"} ,{"pages":3}] "#;
    assert_eq!(add(&[], list).json(), sum);
    let lines = b"{\"pages\": 1}\n{\"pages\": 2}\n\n{\"pages\": 3}";
    assert_eq!(
        add(&[("content-type", "application/x-ndjson")], lines).json(),
        sum
    );
    assert_eq!(add(&[], b"[]").json(), json!({}));
    for (body, part) in [
        (&br#"[{"pages": 1}, {"pages": "x"}]"#[..], "pages"),
        (br#"[{"pages": 1}"#, "list"),
        (br#"[{"pages": 1},]"#, "value"),
        (br#"[{"pages": 1}] x"#, "follows"),
    ] {
        let error = is_error(&add(&[], body), 400, 3);
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    let many = format!("[{}{{}}]", "{\"pages\":1},".repeat(20_000));
    assert_eq!(
        add(&[], many.as_bytes()).json(),
        json!({"books": 20_001, "pages": "20000"})
    );
}

/// Must-have: both directions in one exchange.
#[test]
fn both_directions_of_a_stream_work_in_one_exchange() {
    let library = Library::new();
    let world = library.world("");
    let body = b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
    let answer = call(&world, "POST", "/v1/talk", &[NDJSON], body);
    assert_eq!(
        answer.text(),
        "{\"text\":\"you said a\"}\n{\"text\":\"you said b\"}\n{\"text\":\"goodbye\"}\n"
    );
}

#[test]
fn callers_over_http2_are_served_alike_and_one_refused_hurts_no_other() {
    let library = Library::new();
    let world = library.world("");
    let ask = |path: &str| {
        let request = Request::get(format!("http://{HOST}{path}"))
            .body(())
            .unwrap();
        http2::block_on(http2::call(world.address, request, b""))
    };
    let answer = ask("/v1/shelves/a/books/b").unwrap();
    assert_eq!(answer.status, 200);
    let book: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(book["title"], "Walden");
    let answer = ask("/v1/shelves/broken/books?count=1").unwrap();
    assert!(String::from_utf8_lossy(&answer.body).contains("{\"error\":"));
    assert_eq!(ask("/v1/shelves/a/books/gone").unwrap().status, 404);
    assert!(ask("/v1/shelves/a/books/broken:pages").is_err(), "reset");
    assert_eq!(ask("/v1/shelves/a/books/b").unwrap().status, 200);
}

/// Must-have: native gRPC on the same port.
#[test]
fn native_grpc_passes_through_and_its_deadline_is_checked_too() {
    let library = Library::new();
    let world = before(&library.url(), "defaults: {timeouts: {total: 3s}}\n");
    let ask = |timeout: Option<&str>| {
        let mut request = Request::post(format!("http://{HOST}/library.v1.Library/Ping"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let body = b"\0\0\0\0\x04\x0a\x02hi";
        http2::block_on(http2::call(world.address, request.body(()).unwrap(), body)).unwrap()
    };
    for timeout in [None, Some("1H")] {
        let answer = ask(timeout);
        assert_eq!(answer.body, b"\0\0\0\0\x04\x0a\x02hi");
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
        let passed = library.reached().last().unwrap().fields["grpc-timeout"].clone();
        assert!(passed.to_str().unwrap().ends_with('u'), "{passed:?}");
    }
    let refused = ask(Some("nonsense"));
    assert_eq!(refused.headers["grpc-status"], "3");
    assert!(refused.headers.contains_key("grpc-status-details-bin"));
    assert_eq!(library.reached().len(), 2);
}

#[test]
fn the_access_record_tells_of_the_call() {
    let library = Library::new();
    let world = library.world("");
    let answer = get(&world, "/v1/shelves/a/books/gone");
    let record = world.record(answer.header("x-request-id").unwrap());
    assert_eq!(
        record["operation"], "library.v1.Library/GetBook",
        "{record}"
    );
    assert_eq!(record["attempts"], 1, "{record}");
    assert_eq!(record["reason"], "NOT_FOUND", "{record}");
}

#[test]
fn what_never_reached_the_service_is_not_charged_and_a_used_up_limit_is_told_with_its_details() {
    let library = Library::new();
    let limits = "limits:\n  - { name: daily, amount: 3, window: 1d, per: address }\n";
    let world = before(&library.url(), limits);
    for _ in 0..5 {
        is_error(
            &call(&world, "POST", "/v1/shelves/a/books", &[], b"{"),
            400,
            3,
        );
    }
    for left in (0..3).rev() {
        let answer = get(&world, "/v1/shelves/a/books/b");
        assert_eq!(answer.status, 200, "{answer:?}");
        let state = answer.header("ratelimit").unwrap();
        assert!(state.starts_with(&format!("\"daily\";r={left}")), "{state}");
    }
    let refused = get(&world, "/v1/shelves/a/books/b");
    let error = is_error(&refused, 429, 8);
    let kinds: Vec<&str> = error["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| detail["@type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["ErrorInfo", "QuotaFailure", "RetryInfo"]
            .map(|name| format!("type.googleapis.com/google.rpc.{name}"))
    );
    assert!(refused.header("retry-after").is_some());
    assert_eq!(library.reached().len(), 3);
}

const CONSUMERS: &str = "\
organisations:
  bookshop:
    projects:
      floor:
        consumers:
          desk:
            subscriptions: { shop: all }
";

#[test]
fn a_revoked_key_ends_its_streams_and_they_say_why() {
    let library = Library::new();
    let file = format!(
        "upstream: {}\ngrpc:\n  protos: [{}]\n  callers: [key]\n",
        library.url(),
        library::proto().display()
    );
    let world = world::Plan::before("")
        .api("shop", file)
        .file("plans.yaml", "plans:\n  all:\n    apis: { shop: all }\n")
        .file("consumers.yaml", CONSUMERS)
        .start();
    let key = world.key("desk");
    let mut client = world.client();
    let fields = [NDJSON, ("x-api-key", &*key.secret)];
    client.request("GET", "/v1/shelves/endless/books?count=1", &fields, b"");
    assert_eq!(client.head().unwrap().status, 200);
    client.chunk().unwrap();
    let path = format!("/v1/keys/{}/revoke", key.id);
    assert_eq!(world.ask_control("POST", &path, &json!({})).status, 200);
    let last = client.chunk().expect("the reason");
    let last: Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(last["error"]["code"], 16, "{last}");
    assert!(
        last["error"]["message"]
            .as_str()
            .unwrap()
            .contains("revoked")
    );
}

/// Must-have: strict by default, and every leniency and every way of printing is a setting of an API or of one method.
#[test]
fn a_profile_changes_how_json_is_read_and_printed_and_the_default_is_strict() {
    let library = Library::new();
    let named = |more: Value| {
        let mut book = json!({"name": "shelves/a/books/new"});
        let book_fields = book.as_object_mut().unwrap();
        book_fields.extend(more.as_object().unwrap().clone());
        book
    };
    let unset = json!({"title": "", "pages": "0", "tags": [], "chapters": [], "format": "FORMAT_UNSPECIFIED"});
    // What the file says, what is sent, and the answer; `null`: the default refuses it.
    let table = [
        ("", r#"{"titel": "x"}"#, Value::Null),
        (
            "unknown_fields: ignore",
            r#"{"titel": "x"}"#,
            named(json!({})),
        ),
        ("", "{}", named(json!({}))),
        ("print_unset: primitives", "{}", named(unset)),
        (
            "",
            r#"{"format": 1}"#,
            named(json!({"format": "FORMAT_AUDIO"})),
        ),
        (
            "enums: number",
            r#"{"format": "FORMAT_AUDIO"}"#,
            named(json!({"format": 1})),
        ),
        ("", r#"{"format": "AUDIO"}"#, Value::Null),
        (
            "strip_enum_prefix: on",
            r#"{"format": "AUDIO"}"#,
            named(json!({"format": "AUDIO"})),
        ),
        ("", r#"{"format": "format_audio"}"#, Value::Null),
        (
            "enums_any_case: on",
            r#"{"format": "format_audio"}"#,
            named(json!({"format": "FORMAT_AUDIO"})),
        ),
        ("", r#"{"pages": 7}"#, named(json!({"pages": "7"}))),
        (
            "int64: number",
            r#"{"pages": "7"}"#,
            named(json!({"pages": 7})),
        ),
    ];
    let mut plan = world::Plan::before("");
    for (number, (profile, _, _)) in table.iter().enumerate() {
        let file = format!(
            "base_path: /p{number}\nupstream: {}\ngrpc:\n  protos: [{}]\n  callers: anyone\n  profile: {{ {profile} }}\n",
            library.url(),
            library::proto().display()
        );
        plan = plan.api(&format!("p{number}"), file);
    }
    let of_one_method = format!(
        "base_path: /one\nupstream: {}\ngrpc:\n  protos: [{}]\n  callers: anyone\n  methods:\n    \
         library.v1.Library/CreateBook: {{ unknown_fields: ignore }}\n    \
         library.v1.Library/UpdateBook: {{ names: proto, update_mask: derive }}\n",
        library.url(),
        library::proto().display()
    );
    let world = plan.api("one", of_one_method).start();
    for (number, (profile, body, expected)) in table.iter().enumerate() {
        let path = format!("/p{number}/v1/shelves/a/books");
        let answer = call(&world, "POST", &path, &[], body.as_bytes());
        match expected {
            Value::Null => drop(is_error(&answer, 400, 3)),
            expected => assert_eq!(&answer.json(), expected, "{profile} {body}"),
        }
    }
    let unknown = br#"{"title": "T", "titel": "x"}"#;
    let lenient = call(&world, "POST", "/one/v1/shelves/a/books", &[], unknown);
    assert_eq!(lenient.status, 200, "{lenient:?}");
    let path = "/one/v1/shelves/a/books/b";
    is_error(&call(&world, "PATCH", path, &[], unknown), 400, 3);
    let derived = call(&world, "PATCH", path, &[], br#"{"title": "T"}"#);
    assert_eq!(derived.json()["update_mask"], "title", "{derived:?}");
}
