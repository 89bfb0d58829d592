//! Requests that two readers could understand in two ways are refused at the door, and never reach the service.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use hyper::Request;
use world::{Broken, HOST, Plan, Service, World, http2};

/// Each is refused with this status and problem, the connection is closed, the service hears nothing.
fn are_refused(cases: &[(&str, &[u8])], status: u16, code: &str) {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for (name, bytes) in cases {
        let mut client = world.client();
        client.send(bytes);
        let answer = client
            .answer()
            .unwrap_or_else(|broken| panic!("{name}: {broken:?}"));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        answer.is_problem(status, code);
        assert!(client.is_closed(), "{name}: the connection stays open");
        assert_eq!(service.calls().len(), 0, "{name} reached the service");
    }
    still_serves(&world);
}

fn still_serves(world: &World) {
    assert_eq!(world.get("/v1/books").status, 200);
}

#[test]
fn ambiguous_framing_is_refused() {
    let cases: &[(&str, &[u8])] = &[
        (
            "length with chunked",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
              Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
              Content-Length: 6\r\n\r\nhello",
        ),
        (
            "the same length twice",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
              Content-Length: 5\r\n\r\nhello",
        ),
        (
            "a list of lengths",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello",
        ),
        (
            "signed length",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            "negative length",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
        ),
        (
            "hexadecimal length",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello",
        ),
        (
            "empty length",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nhello",
        ),
        (
            "overflowing length",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\n\
              Content-Length: 18446744073709551621\r\n\r\nhello",
        ),
        (
            "identity",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\n\
              Transfer-Encoding: identity\r\n\r\nhello",
        ),
        (
            "gzip, chunked",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\n\
              Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
              Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "obscured chunked",
            b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\n\
              Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked in HTTP/1.0",
            b"POST /v1/books/1/reviews HTTP/1.0\r\nHost: x\r\n\
              Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ];
    are_refused(cases, 400, "malformed_request");
}

#[test]
fn ambiguous_heads_are_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("bare LF", b"GET /v1/books HTTP/1.1\nHost: x\n\n"),
        (
            "bare LF in fields",
            b"GET /v1/books HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        ),
        (
            "bare CR",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        ),
        (
            "obs-fold",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        ),
        (
            "fold before the first field",
            b"GET /v1/books HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n",
        ),
        (
            "space before colon",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
        ),
        (
            "empty name",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        ),
        (
            "no colon",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n",
        ),
        (
            "NUL in a value",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        ),
        (
            "odd name",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nX(y): z\r\n\r\n",
        ),
        ("no Host", b"GET /v1/books HTTP/1.1\r\nX: y\r\n\r\n"),
        (
            "two Hosts",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        ),
        (
            "the same Host twice",
            b"GET /v1/books HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        ),
        ("odd Host", b"GET /v1/books HTTP/1.1\r\nHost: x/y\r\n\r\n"),
        (
            "user in Host",
            b"GET /v1/books HTTP/1.1\r\nHost: me@x\r\n\r\n",
        ),
        ("two spaces", b"GET  /v1/books HTTP/1.1\r\nHost: x\r\n\r\n"),
        (
            "space in the target",
            b"GET /v1/books a HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        (
            "tab in the line",
            b"GET\t/v1/books HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        ("odd method", b"G@T /v1/books HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("no version", b"GET /v1/books\r\nHost: x\r\n\r\n"),
        ("odd version", b"GET /v1/books HTTP/1.7x\r\nHost: x\r\n\r\n"),
        ("no slash", b"GET v1/books HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"),
    ];
    are_refused(cases, 400, "malformed_request");
}

#[test]
fn ambiguous_paths_are_refused() {
    let paths: &[&[u8]] = &[
        b"/v1/../v1/books",
        b"/v1/books/..",
        b"/v1/./books",
        b"/v1/books/.",
        b"/v1/%2e%2e/v1/books",
        b"/v1/books/%2E",
        b"/v1/books/.%2e",
        b"/v1/files/a/../b",
        b"/v1/files/a/%2e%2e/b",
        b"//v1/books",
        b"/v1//books",
        b"/v1/files/a//b",
        b"/v1/books/a%2Fb",
        b"/v1/books/a%2fb",
        b"/v1/books/a\\b",
        b"/v1/books/a%5cb",
        b"/v1/books/a%00b",
        b"/v1/books/a;b",
        b"/v1/books/a%252Fb",
        b"/v1/books/%",
        b"/v1/books/%2",
        b"/v1/books/%zz",
        b"/v1/books/caf\xc3\xa9",
        b"/v1/books/a\x01b",
        b"/v1/books/a\x7fb",
        b"/v1/books#fragment",
    ];
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for path in paths {
        let name = String::from_utf8_lossy(path);
        let request = [b"GET ".as_slice(), path, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        match world.raw(&request) {
            Ok(answer) => {
                assert_eq!(answer.status, 400, "{name}: {answer:?}");
                answer.is_problem(400, "malformed_request");
            }
            Err(broken) => panic!("{name}: {broken:?}"),
        }
        assert_eq!(service.calls().len(), 0, "{name} reached the service");
    }
    still_serves(&world);
}

#[test]
fn an_encoded_slash_is_data_where_the_operation_takes_many_segments() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    assert_eq!(world.get("/v1/files/a%2Fb/c").status, 200);
    assert_eq!(service.last().target(), "/v1/files/a%2Fb/c");
}

#[test]
fn connect_and_trace_are_not_served() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let requests: [&[u8]; 3] = [
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        b"CONNECT /v1/books HTTP/1.1\r\nHost: x\r\n\r\n",
        b"TRACE /v1/books HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for request in requests {
        let answer = world.raw(request).expect("an answer");
        assert!([400, 405, 501].contains(&answer.status), "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(service.calls().len(), 0);
    }
    still_serves(&world);
}

#[test]
fn what_follows_a_refusal_is_not_a_request() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.send(
        b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/books/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(client.answer().unwrap().status, 400);
    assert!(matches!(client.answer(), Err(Broken::NoHead(rest)) if rest.is_empty()));
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn large_heads_are_refused() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let large = "a".repeat(40 * 1024);
    let request = format!("GET /v1/books HTTP/1.1\r\nHost: x\r\nX: {large}\r\n\r\n");
    let answer = world.raw(request.as_bytes()).expect("an answer");
    assert!([400, 431].contains(&answer.status), "{answer:?}");
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    let request = format!("GET /v1/books HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    let answer = world.raw(request.as_bytes()).expect("an answer");
    assert!([400, 431].contains(&answer.status), "{answer:?}");
    assert_eq!(service.calls().len(), 0);
    still_serves(&world);
}

#[test]
fn large_bodies_are_refused() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    // createReview takes 64 KiB.
    let declared = b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n";
    world
        .raw(declared)
        .expect("an answer")
        .is_problem(413, "body_too_large");
    assert_eq!(service.calls().len(), 0);
    let mut client = world.client();
    client.send(
        b"POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..17 {
        client.send(format!("1000\r\n{}\r\n", "a".repeat(0x1000)).as_bytes());
    }
    client.send(b"0\r\n\r\n");
    match client.answer() {
        Ok(answer) => assert_eq!(answer.status, 413),
        // Refused while it was still sending: the reset may overtake the answer.
        Err(broken) => assert!(matches!(broken, Broken::NoHead(_)), "{broken:?}"),
    }
    assert!(
        service.calls().iter().all(|call| call.body.is_empty()),
        "it never came whole"
    );
    still_serves(&world);
}

#[test]
fn http2_is_as_strict() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for path in [
        "/v1/books/%2e%2e",
        "/v1//books",
        "/v1/books/a%2Fb",
        "/v1/books/%zz",
    ] {
        let Ok(request) = Request::get(format!("http://{HOST}{path}")).body(()) else {
            continue;
        };
        if let Ok(answer) = http2::block_on(http2::call(world.address, request, b"")) {
            assert_eq!(answer.status, 400, "{path}");
        }
    }
    let request = Request::get(format!("http://{HOST}/v1/books"))
        .header("host", "other.test")
        .body(())
        .unwrap();
    if let Ok(answer) = http2::block_on(http2::call(world.address, request, b"")) {
        assert_eq!(answer.status, 400, "Host against :authority");
    }
    assert_eq!(service.calls().len(), 0);
    still_serves(&world);
}

#[test]
fn many_resets_cut_the_connection_off_and_nothing_else() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let cut = http2::block_on(async {
        let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        for _ in 0..20_000 {
            let request = Request::get(format!("http://{HOST}/v1/books"))
                .body(())
                .unwrap();
            let Ok(ready) = send.ready().await else {
                return true;
            };
            send = ready;
            let Ok((response, mut stream)) = send.send_request(request, false) else {
                return true;
            };
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
            tokio::task::yield_now().await;
        }
        driver.is_finished() || send.ready().await.is_err()
    });
    assert!(cut, "20,000 resets were tolerated");
    still_serves(&world);
}
