//! gRPC-Web, Connect and WebSockets on the port and path of the gRPC method, and Tollgate's refusals in each of these languages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use library::{Library, keyed};
use serde_json::{Value, json};
use world::{Answer, Client, HOST, World, http2};

const GET_BOOK: &str = "/library.v1.Library/GetBook";
const LIST: &str = "/library.v1.Library/ListBooks";
const TALK: &str = "/library.v1.Library/Talk";

fn post(world: &World, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut client = world.client();
    client.request("POST", path, fields, body);
    client.answer().expect("a whole answer")
}

fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[flags], &length[..], payload].concat()
}

/// Takes frames apart.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let (payload, rest) = rest.split_at(usize::try_from(length).unwrap());
        frames.push((head[0], payload.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    frames
}

/// A message whose first field is this text.
fn named(name: &str) -> Vec<u8> {
    [&[0x0a, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Must-have: gRPC-Web on the same port.
#[test]
fn grpc_web_is_served_in_binary_and_as_text() {
    let library = Library::new();
    let world = library.world("");
    let body = frame(0, &named("shelves/a/books/b"));
    let fields = [
        ("content-type", "application/grpc-web+proto"),
        ("x-grpc-web", "1"),
    ];
    let answer = post(&world, GET_BOOK, &fields, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/grpc-web+proto")
    );
    let binary = frames(&answer.body);
    assert_eq!(binary.len(), 2);
    assert!(text(&binary[0].1).contains("Walden"));
    assert_eq!(binary[1].0, 0x80);
    assert!(
        text(&binary[1].1).starts_with("grpc-status: 0\r\n"),
        "{binary:?}"
    );
    let fields = [("content-type", "application/grpc-web-text")];
    let coded = STANDARD.encode(&body);
    let answer = post(&world, GET_BOOK, &fields, coded.as_bytes());
    assert_eq!(
        answer.header("content-type"),
        Some("application/grpc-web-text+proto")
    );
    // Each frame is padded for itself.
    let mut bytes = Vec::new();
    for group in answer.body.chunks(4) {
        bytes.extend(STANDARD.decode(group).unwrap());
    }
    assert_eq!(frames(&bytes), binary);
}

#[test]
fn grpc_web_streams_and_tells_errors_in_its_trailers() {
    let library = Library::new();
    let world = library.world("");
    for (kind, said, status) in [
        (
            "application/grpc-web+json",
            frame(0, b"{}"),
            "grpc-status: 3\r\n",
        ),
        // Announced to be larger than any message may be.
        (
            "application/grpc-web",
            b"\0\xff\xff\xff\xff".to_vec(),
            "grpc-status: 8\r\n",
        ),
    ] {
        let answer = post(&world, LIST, &[("content-type", kind)], &said);
        let told = text(&frames(&answer.body)[0].1);
        assert!(told.starts_with(status), "{kind}: {told}");
    }
    assert!(library.reached().is_empty());
    let fields = [("content-type", "application/grpc-web")];
    let asked = [named("shelves/broken"), vec![0x10, 2]].concat();
    let answer = post(&world, LIST, &fields, &frame(0, &asked));
    let told = frames(&answer.body);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(text(&told[2].1).starts_with("grpc-status: 15\r\ngrpc-message: the shelf fell\r\n"));
    let answer = post(
        &world,
        GET_BOOK,
        &fields,
        &frame(0, &named("shelves/a/books/gone")),
    );
    let told = text(&frames(&answer.body)[0].1);
    assert!(
        told.contains("grpc-status: 5\r\n") && told.contains("100%25"),
        "{told}"
    );
    assert!(told.contains("x-why: burnt\r\n"), "{told}");
    let two = [frame(0, b""), frame(0, b"")].concat();
    for body in [&b"garbage"[..], &frame(0, &[])[..3], &two] {
        let answer = post(&world, GET_BOOK, &fields, body);
        let told = text(&frames(&answer.body)[0].1);
        assert!(told.contains("grpc-status: 3\r\n"), "{told}");
    }
}

const CONNECT: (&str, &str) = ("connect-protocol-version", "1");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Must-have: Connect on the same port.
#[test]
fn connect_calls_are_served_as_json_proto_and_get() {
    let library = Library::new();
    let world = library.world("");
    let body = br#"{"name": "shelves/a/books/b"}"#;
    let answer = post(&world, GET_BOOK, &[CONNECT, JSON, ("x-custom", "1")], body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["title"], "Walden");
    assert_eq!(answer.header("x-seen-custom"), Some("1"));
    let proto = ("content-type", "application/proto");
    let message = named("shelves/a/books/b");
    let answer = post(&world, GET_BOOK, &[CONNECT, proto], &message);
    assert_eq!(answer.header("content-type"), Some("application/proto"));
    assert!(text(&answer.body).contains("Walden"));
    // The same call without a word about Connect: the method has an HTTP rule elsewhere.
    assert_eq!(
        post(&world, GET_BOOK, &[JSON], body).json()["title"],
        "Walden"
    );
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&message);
    for query in [
        format!("connect=v1&encoding=proto&base64=1&message={base64}"),
        "encoding=json&message=%7B%22name%22%3A%22shelves%2Fa%2Fbooks%2Fb%22%7D".to_owned(),
    ] {
        let answer = world.ask("GET", &format!("{GET_BOOK}?{query}"), &[], b"");
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert!(text(&answer.body).contains("Walden"));
    }
    let path = "/library.v1.Library/CreateBook?encoding=json&message=%7B%7D";
    assert_eq!(world.ask("GET", path, &[], b"").status, 405);
    let request = Request::post(format!("http://{HOST}{GET_BOOK}"))
        .header("content-type", "application/proto")
        .body(())
        .unwrap();
    let answer = http2::block_on(http2::call(world.address, request, &message)).unwrap();
    assert!(text(&answer.body).contains("Walden"), "{answer:?}");
}

#[test]
fn errors_of_connect_have_its_form_and_status() {
    let library = Library::new();
    let world = library.world("");
    let ask = |body: &[u8]| post(&world, GET_BOOK, &[CONNECT, JSON], body);
    let answer = ask(br#"{"name": "shelves/a/books/gone"}"#);
    assert_eq!(answer.status, 404, "{answer:?}");
    assert_eq!(answer.json()["code"], "not_found");
    assert_eq!(answer.header("trailer-x-why"), Some("burnt"));
    let answer = ask(br#"{"nome": 1}"#);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["code"], "invalid_argument");
    assert!(answer.json()["message"].as_str().unwrap().contains("nome"));
    let answer = post(
        &world,
        GET_BOOK,
        &[CONNECT, JSON, ("connect-timeout-ms", "1s")],
        b"{}",
    );
    assert_eq!(answer.json()["code"], "invalid_argument");
    let fields = [CONNECT, JSON, ("connect-timeout-ms", "100")];
    let answer = post(
        &world,
        GET_BOOK,
        &fields,
        br#"{"name": "shelves/a/books/slow"}"#,
    );
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (504, &json!("deadline_exceeded"))
    );
    let answer = post(&world, LIST, &[CONNECT, JSON], b"{}");
    assert_eq!(answer.status, 415, "{answer:?}");
}

#[test]
fn connect_streams_in_envelopes_and_ends_with_one() {
    let library = Library::new();
    let world = library.world("");
    let json_stream = [CONNECT, ("content-type", "application/connect+json")];
    let asked = frame(0, br#"{"parent": "shelves/broken", "count": 2}"#);
    let answer = post(&world, LIST, &json_stream, &asked);
    assert_eq!(
        answer.header("content-type"),
        Some("application/connect+json")
    );
    let told = frames(&answer.body);
    assert_eq!(told.len(), 3, "{answer:?}");
    assert_eq!(told[2].0, 2);
    let end: Value = serde_json::from_slice(&told[2].1).unwrap();
    assert_eq!(
        end["error"],
        json!({"code": "data_loss", "message": "the shelf fell"})
    );
    let mut body = Vec::new();
    for pages in ["1", "2"] {
        body.extend(frame(0, format!("{{\"pages\": {pages}}}").as_bytes()));
    }
    let answer = post(&world, "/library.v1.Library/AddBooks", &json_stream, &body);
    let told = frames(&answer.body);
    assert_eq!(
        serde_json::from_slice::<Value>(&told[0].1).unwrap(),
        json!({"books": 2, "pages": "3"})
    );
    assert_eq!(told[1], (2, b"{}".to_vec()));
    let proto_stream = [("content-type", "application/connect+proto")];
    let answer = post(&world, TALK, &proto_stream, &frame(0, &named("hi")));
    let told = frames(&answer.body);
    assert_eq!(told[0].1, named("you said hi"));
    let answer = post(&world, LIST, &json_stream, &frame(0, b"{\"parent\": 1}"));
    let end: Value = serde_json::from_slice(&frames(&answer.body)[0].1).unwrap();
    assert_eq!(end["error"]["code"], "invalid_argument");
}

/// A client's frame of a WebSocket, with a mask of zeros.
fn said(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// The next frame of the gateway.
fn hear(client: &mut Client) -> (u8, Vec<u8>) {
    let head = client.exactly(2).expect("a frame");
    let length = match head[1] {
        126 => u16::from_be_bytes(client.exactly(2).unwrap().try_into().unwrap()).into(),
        length => usize::from(length),
    };
    (head[0] & 0x0f, client.exactly(length).unwrap())
}

const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a_page_of_another_site_opens_no_websocket() {
    let library = Library::new();
    let world = library.world("");
    for (origin, status) in [
        (format!("http://{HOST}"), 101),
        ("https://evil.example".to_owned(), 403),
        (format!("https://evil.example/{HOST}"), 403),
        ("null".to_owned(), 403),
    ] {
        let mut fields = UPGRADE.to_vec();
        fields.push(("origin", &origin));
        let mut client = world.client();
        client.request("GET", "/v1/talk", &fields, b"");
        assert_eq!(client.head().unwrap().status, status, "{origin}");
    }
}

#[test]
fn pages_of_other_sites_open_a_websocket_where_the_api_file_names_them() {
    let library = Library::new();
    let world =
        library.world("websocket_origins: ['https://app.example', 'https://*.shop.example']\n");
    for (origin, status) in [
        (format!("http://{HOST}"), 101),
        ("https://app.example".to_owned(), 101),
        ("https://de.shop.example".to_owned(), 101),
        ("https://shop.example".to_owned(), 403),
        ("http://app.example".to_owned(), 403),
        ("https://app.example.evil.example".to_owned(), 403),
    ] {
        let mut fields = UPGRADE.to_vec();
        fields.push(("origin", &origin));
        let mut client = world.client();
        client.request("GET", "/v1/talk", &fields, b"");
        assert_eq!(client.head().unwrap().status, status, "{origin}");
    }
    // Two are told as one: the worse.
    let mut fields = UPGRADE.to_vec();
    fields.extend([
        ("origin", "https://app.example"),
        ("origin", "https://evil.example"),
    ]);
    let mut client = world.client();
    client.request("GET", "/v1/talk", &fields, b"");
    assert_eq!(client.head().unwrap().status, 403);
}

fn open(world: &World, path: &str) -> Client {
    let mut client = world.client();
    client.request("GET", path, &UPGRADE, b"");
    let answer = client.answer().unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(
        answer.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    client
}

/// Must-have: both directions of a stream at once, by WebSocket.
#[test]
fn a_websocket_carries_both_directions_of_a_stream() {
    let library = Library::new();
    let world = library.world("");
    for path in ["/v1/talk", TALK] {
        let mut client = open(&world, path);
        for word in ["a", "b"] {
            client.send(&said(1, format!("{{\"text\": \"{word}\"}}").as_bytes()));
            let answer = format!("{{\"text\":\"you said {word}\"}}");
            assert_eq!(hear(&mut client), (1, answer.into_bytes()));
        }
        client.send(&said(9, b"there?"));
        assert_eq!(hear(&mut client), (10, b"there?".to_vec()));
        // An empty message: that was all.
        client.send(&said(1, b""));
        assert_eq!(hear(&mut client), (1, b"{\"text\":\"goodbye\"}".to_vec()));
        assert_eq!(hear(&mut client), (8, 1000_u16.to_be_bytes().to_vec()));
    }
}

#[test]
fn a_websocket_tells_errors_in_a_message_and_its_closing_code() {
    let library = Library::new();
    let world = library.world("");
    for (message, code, part) in [
        (&br#"{"text": "stop"}"#[..], 4010_u16, "as you like"),
        (br#"{"text": 5}"#, 4003, "text"),
        (b"{", 4003, ""),
    ] {
        let mut client = open(&world, "/v1/talk");
        client.send(&said(1, message));
        let (_, error) = hear(&mut client);
        let error: Value = serde_json::from_slice(&error).unwrap();
        assert!(
            error["error"]["message"].as_str().unwrap().contains(part),
            "{error}"
        );
        let (opcode, closing) = hear(&mut client);
        assert_eq!((opcode, &closing[..2]), (8, &code.to_be_bytes()[..]));
    }
}

/// Libraries of clients ping for as long as they listen.
#[test]
fn a_websocket_of_a_method_that_only_tells_answers_pings_and_goes_on() {
    let library = Library::new();
    let world = library.world("");
    let mut client = open(&world, "/v1/shelves/a/books?count=2");
    for pages in ["", ",\"pages\":\"1\""] {
        let number = usize::from(!pages.is_empty());
        let book = format!("{{\"name\":\"shelves/a/books/{number}\"{pages}}}");
        assert_eq!(hear(&mut client), (1, book.into_bytes()));
    }
    assert_eq!(hear(&mut client), (8, 1000_u16.to_be_bytes().to_vec()));
    // On the path of the method itself the one message is a text; an empty one asks for nothing.
    for (message, books) in [
        (&b""[..], 0),
        (br#"{"parent": "shelves/a", "count": 1}"#, 1),
    ] {
        let mut client = open(&world, LIST);
        client.send(&said(1, message));
        for _ in 0..books {
            assert_eq!(hear(&mut client).0, 1);
        }
        assert_eq!(hear(&mut client), (8, 1000_u16.to_be_bytes().to_vec()));
    }
    let mut client = open(&world, "/v1/shelves/endless/books?count=1");
    assert_eq!(hear(&mut client).0, 1);
    for _ in 0..3 {
        client.send(&said(9, b"there?"));
        assert_eq!(hear(&mut client), (10, b"there?".to_vec()));
    }
    client.send(&said(1, b"{}"));
    assert_eq!(hear(&mut client).0, 1, "the error");
    let (opcode, closing) = hear(&mut client);
    assert_eq!((opcode, &closing[..2]), (8, &4003_u16.to_be_bytes()[..]));
}

#[test]
fn a_websocket_that_is_left_cancels_its_call() {
    let library = Library::new();
    let world = library.world("");
    let mut client = open(&world, "/v1/talk");
    client.send(&said(1, br#"{"text": "a"}"#));
    hear(&mut client);
    client.send(&said(8, &1001_u16.to_be_bytes()));
    library.gave_up(1);
    let mut client = open(&world, "/v1/talk");
    client.send(&said(1, br#"{"text": "a"}"#));
    hear(&mut client);
    drop(client);
    library.gave_up(2);
}

/// Must-have: refusals are native gRPC errors for gRPC clients, and their own for the others.
#[test]
fn each_caller_is_refused_in_its_own_language() {
    let library = Library::new();
    let world = keyed(&library.url());
    let answer = world.ask("GET", "/v1/shelves/a/books/b", &[], b"");
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.json()["code"], 16);
    assert!(answer.header("www-authenticate").is_some());
    let answer = post(&world, GET_BOOK, &[CONNECT, JSON], b"{}");
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (401, &json!("unauthenticated"))
    );
    let answer = post(
        &world,
        LIST,
        &[("content-type", "application/connect+json")],
        b"",
    );
    let end: Value = serde_json::from_slice(&frames(&answer.body)[0].1).unwrap();
    assert_eq!(end["error"]["code"], "unauthenticated");
    let answer = post(
        &world,
        GET_BOOK,
        &[("content-type", "application/grpc-web")],
        b"",
    );
    assert!(text(&frames(&answer.body)[0].1).contains("grpc-status: 16\r\n"));
    let request = Request::post(format!("http://{HOST}{GET_BOOK}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let answer = http2::block_on(http2::call(world.address, request, b"")).unwrap();
    assert_eq!(answer.headers["grpc-status"], "16");
    assert!(answer.headers.contains_key("grpc-status-details-bin"));
    assert!(library.reached().is_empty());
}
