//! A call reaches the service as it was made, and the answer comes back as it was given.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use hyper::Request;
use world::service::{chunk, ok};
use world::{HOST, Plan, Service, Then, http2};

#[test]
fn path_query_and_fields_arrive_unchanged() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let path = "/v1/books?limit=2&author=O%27Brian%20%C3%A9&empty=";
    let answer = world.ask(
        "GET",
        path,
        &[("accept", "text/plain"), ("x-own", "a, b")],
        b"",
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let call = service.last();
    assert_eq!(call.line(), format!("GET {path} HTTP/1.1"));
    assert_eq!(call.header("accept"), Some("text/plain"));
    assert_eq!(call.header("x-own"), Some("a, b"));
    assert_eq!(call.all("host"), [HOST]);
}

#[test]
fn encoded_values_are_forwarded_as_they_were_classified() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for target in [
        "/v1/books/caf%C3%A9",
        "/v1/books/a%20b",
        "/v1/books/a:b",
        "/v1/books/a%3Ab",
    ] {
        assert_eq!(world.get(target).status, 200, "{target}");
        assert_eq!(service.last().target(), target);
    }
}

#[test]
fn hop_by_hop_fields_stop_at_the_gateway() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let headers = [
        ("connection", "keep-alive, x-named"),
        ("x-named", "by connection"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic eDp5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("x-stays", "1"),
    ];
    assert_eq!(world.ask("GET", "/v1/books", &headers, b"").status, 200);
    let call = service.last();
    for name in [
        "x-named",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
    ] {
        assert_eq!(call.header(name), None, "{name} in {}", call.head);
    }
    assert_eq!(call.header("x-stays"), Some("1"));
}

#[test]
fn hop_by_hop_fields_of_the_service_stop_as_well() {
    let service = Service::saying(
        b"HTTP/1.1 200 OK\r\nconnection: x-named\r\nx-named: 1\r\nkeep-alive: timeout=5\r\n\
          x-stays: 1\r\ncontent-length: 2\r\n\r\nok",
        Then::Continue,
    );
    let world = Plan::bookstore(&service).start();
    let answer = world.get("/v1/books");
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.header("x-named"), None);
    assert_eq!(answer.header("x-stays"), Some("1"));
}

#[test]
fn identity_fields_of_clients_never_arrive() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let headers = [
        ("x-tollgate-consumer", "root"),
        ("X-Tollgate-Plan", "gold"),
        ("x-tollgate-operation", "forged"),
        ("x_tollgate_consumer", "root"),
        ("under_score", "1"),
    ];
    assert_eq!(world.ask("GET", "/v1/books", &headers, b"").status, 200);
    let head = service.last().head;
    for forged in ["root", "gold", "forged", "under_score"] {
        assert!(!head.contains(forged), "{forged} in {head}");
    }
}

#[test]
fn forwarding_fields_are_written_by_the_gateway_alone() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let headers = [
        ("forwarded", "for=203.0.113.9;proto=https"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.test"),
        ("x-real-ip", "203.0.113.9"),
    ];
    assert_eq!(world.ask("GET", "/v1/books", &headers, b"").status, 200);
    let call = service.last();
    assert!(!call.head.contains("203.0.113.9"), "{}", call.head);
    assert!(!call.head.contains("evil.test"), "{}", call.head);
    assert_eq!(call.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(call.all("x-forwarded-proto"), ["http"]);
    assert_eq!(call.all("x-forwarded-host"), [HOST]);
    let forwarded = call
        .header("forwarded")
        .expect("RFC 7239")
        .to_ascii_lowercase();
    assert!(forwarded.contains("for=127.0.0.1") || forwarded.contains("for=\"127.0.0.1"));
    assert!(forwarded.contains("proto=http"), "{forwarded}");
}

#[test]
fn bodies_of_known_length_arrive_whole() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("POST", "/v1/books/1/reviews", &[], br#"{"stars":5}"#);
    assert_eq!(answer.status, 200);
    let call = service.last();
    assert_eq!(call.body, br#"{"stars":5}"#);
    assert_eq!(call.all("content-length"), ["11"]);
    assert_eq!(call.all("transfer-encoding"), [""; 0]);
}

#[test]
fn chunked_bodies_arrive_whole() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.send(b"POST /v1/books/1/reviews HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n");
    client.send(b"\r\n5\r\n{\"sta\r\n6;ext=1\r\nrs\":5}\r\n0\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(service.last().body, br#"{"stars":5}"#);
    // The connection is in step: the next call is the next call.
    client.request("GET", "/v1/books", &[], b"");
    assert_eq!(client.answer().unwrap().text(), "ok");
    assert_eq!(service.last().target(), "/v1/books");
}

#[test]
fn chunked_answers_arrive_whole() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        chunk(stream, b"one ");
        chunk(stream, b"two");
        chunk(stream, b"");
        Then::Continue
    });
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    for _ in 0..3 {
        client.request("GET", "/v1/books", &[], b"");
        assert_eq!(client.answer().unwrap().text(), "one two");
    }
}

#[test]
fn head_204_and_304_have_no_body_and_keep_the_connection_in_step() {
    let service = Service::answering(|call, stream| {
        let answer: &[u8] = match (call.method(), call.target()) {
            ("HEAD", _) => b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-which: head\r\n\r\n",
            (_, "/v1/books/1") => b"HTTP/1.1 204 No Content\r\nx-which: 204\r\n\r\n",
            (_, "/v1/books/2") => b"HTTP/1.1 304 Not Modified\r\netag: \"2\"\r\n\r\n",
            _ => return ok(stream, "ok"),
        };
        let _ = stream.write_all(answer);
        Then::Continue
    });
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("HEAD", "/v1/books", &[], b"");
    let answer = client.answer_to("HEAD").unwrap();
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("1234"))
    );
    client.request("GET", "/v1/books/1", &[], b"");
    assert_eq!(client.answer().unwrap().status, 204);
    client.request("GET", "/v1/books/2", &[("if-none-match", "\"2\"")], b"");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.header("etag")), (304, Some("\"2\"")));
    client.request("GET", "/v1/books/3", &[], b"");
    assert_eq!(client.answer().unwrap().text(), "ok");
}

#[test]
fn ten_mebibytes_pass_both_ways() {
    let service = Service::answering(|call, stream| {
        let length = call.body.len();
        let _ = write!(
            stream,
            "HTTP/1.1 201 Created\r\ncontent-length: {length}\r\n\r\n"
        );
        let _ = stream.write_all(&call.body);
        Then::Continue
    });
    let world = Plan::bookstore(&service).start();
    let body: Vec<u8> = (0..10 * 1024 * 1024_u32).map(|i| (i % 251) as u8).collect();
    let answer = world.ask("PUT", "/v1/uploads/novel", &[], &body);
    assert_eq!(answer.status, 201);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
}

#[test]
fn connections_are_kept_on_both_sides() {
    let service = Service::new();
    let world = Plan::bookstore(&service)
        .argument("--workers")
        .argument("1")
        .start();
    let mut client = world.client();
    for number in 0..20 {
        client.request("GET", &format!("/v1/books/{number}"), &[], b"");
        assert_eq!(client.answer().unwrap().status, 200);
    }
    assert_eq!(service.calls().len(), 20);
    assert!(
        service.connections() <= 2,
        "{} connections",
        service.connections()
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let service = Service::answering(|call, stream| ok(stream, call.target()));
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    let one = |n| format!("GET /v1/books/{n} HTTP/1.1\r\nhost: x\r\n\r\n");
    client.send(format!("{}{}{}", one(1), one(2), one(3)).as_bytes());
    for number in 1..=3 {
        assert_eq!(
            client.answer().unwrap().text(),
            format!("/v1/books/{number}")
        );
    }
}

#[test]
fn connection_close_is_honoured() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/books", &[("connection", "close")], b"");
    assert_eq!(client.answer().unwrap().status, 200);
    assert!(client.is_closed());
}

#[test]
fn http2_clients_reach_http1_services() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let request = Request::post(format!("http://{HOST}/v1/books/1/reviews?a=b"))
        .header("x-own", "1")
        .body(())
        .unwrap();
    let answer = http2::block_on(http2::call(world.address, request, b"{\"stars\":1}")).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, b"ok");
    assert!(answer.headers.contains_key("x-request-id"));
    let call = service.last();
    assert_eq!(call.line(), "POST /v1/books/1/reviews?a=b HTTP/1.1");
    assert_eq!(call.all("host"), [HOST]);
    assert_eq!(call.header("x-own"), Some("1"));
    assert_eq!(call.body, b"{\"stars\":1}");
}

#[test]
fn every_call_has_one_request_id() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.get("/v1/books");
    let id = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(service.last().all("x-request-id"), [id.as_str()]);
    let own = [("x-request-id", "my-own-id.42")];
    let answer = world.ask("GET", "/v1/books", &own, b"");
    assert_eq!(answer.header("x-request-id"), Some("my-own-id.42"));
    let odd = [("x-request-id", "<script>")];
    let answer = world.ask("GET", "/v1/books", &odd, b"");
    assert_ne!(answer.header("x-request-id"), Some("<script>"));
    assert!(!service.last().head.contains("<script>"));
}

#[test]
fn traces_are_continued_or_started() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    assert_eq!(world.get("/v1/books").status, 200);
    let started = service
        .last()
        .header("traceparent")
        .expect("a trace")
        .to_owned();
    assert_eq!(started.len(), 55, "{started}");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "a=b")];
    assert_eq!(world.ask("GET", "/v1/books", &headers, b"").status, 200);
    let call = service.last();
    let passed = call.header("traceparent").unwrap();
    assert!(
        passed.starts_with(&format!("00-{trace}-")) && passed.ends_with("-01"),
        "{passed}"
    );
    assert_ne!(passed, parent, "a span of our own");
    assert_eq!(call.header("tracestate"), Some("a=b"));
    let headers = [("traceparent", "00-zz-zz-01"), ("tracestate", "a=b")];
    assert_eq!(world.ask("GET", "/v1/books", &headers, b"").status, 200);
    assert_eq!(
        service.last().header("tracestate"),
        None,
        "of no trace of ours"
    );
}

#[test]
fn expect_continue_is_served() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    let headers = [("expect", "100-continue"), ("content-length", "11")];
    client.request("POST", "/v1/books/1/reviews", &headers, b"");
    let interim = client.head().unwrap();
    assert_eq!(interim.status, 100);
    client.send(b"{\"stars\":2}");
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(service.last().body, b"{\"stars\":2}");
}

#[test]
fn a_streamed_http2_body_ends_once() {
    // What stands behind the last chunk would be the next caller's request.
    let service = Service::answering(|_, stream| {
        let mut stray = [0; 64];
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let found = stream.read(&mut stray).unwrap_or(0);
        stream.set_read_timeout(Some(world::PATIENCE)).unwrap();
        world::service::ok(stream, if found == 0 { "clean" } else { "stray bytes" })
    });
    let world = Plan::bookstore(&service).start();
    let bodies: [&[&[u8]]; 3] = [&[b"{}", b""], &[b""], &[b"{", b"}", b""]];
    for pieces in bodies {
        let request = Request::post("http://books.test/v1/books/moby-dick:reserve")
            .body(())
            .unwrap();
        let answer = http2::call_in_pieces(world.address, request, pieces);
        let answer = http2::block_on(answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.body), "clean", "{pieces:?}");
    }
    assert_eq!(service.calls().len(), bodies.len());
}

#[test]
fn http10_clients_get_no_coding() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        );
        Then::Continue
    });
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.send(b"GET /v1/books HTTP/1.0\r\nhost: x\r\n\r\n");
    let answer = client.rest();
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(!text.contains("transfer-encoding"), "{text}");
    assert!(text.ends_with("\r\n\r\nok"), "{text}");
}
