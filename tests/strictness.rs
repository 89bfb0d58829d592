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

/// Requests over HTTP/2 that the HTTP library lets through and we do not.
fn bad_http2_requests() -> Vec<(&'static str, Request<()>, u16, &'static str)> {
    let get = |uri: &str| Request::get(uri.to_owned());
    let fine = format!("http://{HOST}/v1/books");
    let odd = |request: hyper::http::request::Builder| request.body(()).unwrap();
    vec![
        (
            "another Host",
            odd(get(&fine).header("host", "other.test")),
            400,
            "malformed_request",
        ),
        (
            "two Hosts",
            odd(get(&fine).header("host", HOST).header("host", HOST)),
            400,
            "malformed_request",
        ),
        (
            "user in :authority",
            odd(get(&format!("http://me@{HOST}/v1/books"))),
            400,
            "malformed_request",
        ),
        (
            "the same length twice",
            odd(Request::post(format!("http://{HOST}/v1/books/1/reviews"))
                .header("content-length", "0")
                .header("content-length", "0")),
            400,
            "malformed_request",
        ),
        (
            "CONNECT",
            odd(Request::connect("example.com:443")),
            405,
            "method_not_served",
        ),
        (
            "TRACE",
            odd(Request::trace(fine.clone())),
            405,
            "method_not_served",
        ),
    ]
}

#[test]
fn http2_refusals_are_told_and_recorded_like_any_other() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for (name, request, status, code) in bad_http2_requests() {
        let answer = http2::block_on(http2::call(world.address, request, b""))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        answer.is_problem(status, code);
        let record = world.record(answer.request_id());
        assert_eq!(record["status"], status, "{name}: {record}");
        assert_eq!(record["denial"], code, "{name}: {record}");
    }
    assert_eq!(service.calls().len(), 0);
    let metrics = world.metrics();
    let counted = |cause: &str, count: usize| {
        let series = format!(
            "tollgate_denials_total{{api=\"none\",operation=\"unmatched\",cause=\"{cause}\"}} {count}"
        );
        assert!(metrics.contains(&series), "no {series} in {metrics}");
    };
    counted("malformed_request", 4);
    counted("method_not_served", 2);
    still_serves(&world);
}

#[test]
fn the_record_of_a_refusal_has_the_id_that_the_client_was_told() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.raw(b"GET / HTTP/1.1\r\n\r\n").expect("an answer");
    let id = answer.header("x-request-id").expect("an id");
    assert_eq!(world.record(id)["denial"], "malformed_request");
}

/// The parser has limits of its own; what only it refuses is known all the same.
#[test]
fn what_only_the_parser_refuses_is_recorded() {
    let service = Service::new();
    let world = Plan::bookstore(&service)
        .api(
            "books",
            world::api_file(&world::bookstore(), &service.url(), ""),
        )
        .process("listeners: [{ address: 127.0.0.1:0 }]\nlimits: { head_fields: 1000 }\n")
        .start();
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let request = format!("GET /v1/books HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    assert_eq!(world.raw(request.as_bytes()).unwrap().status, 400);
    assert_eq!(world.access_log(1)[0]["denial"], "malformed_request");
    assert_eq!(world.access_log(1)[0]["status"], 400);
    assert!(world.metrics().contains("cause=\"malformed_request\"} 1"));
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn odd_chunks_are_refused() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for chunks in [
        "\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";x\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloxx0\r\n\r\n",
        "5\r\nhello\n\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
    ] {
        let mut client = world.client();
        let head =
            "POST /v1/books/1/reviews HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(head.as_bytes());
        client.send(chunks.as_bytes());
        client.send(b"GET /v1/books/smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client
            .answer()
            .unwrap_or_else(|broken| panic!("{chunks:?}: {broken:?}"));
        assert_eq!(answer.status, 400, "{chunks:?}: {answer:?}");
        answer.is_problem(400, "malformed_request");
        assert!(client.is_closed(), "{chunks:?}: the connection stays open");
    }
    assert_eq!(service.calls().len(), 0, "{:?}", service.calls());
    still_serves(&world);
}

#[test]
fn what_the_server_can_do_at_all_may_be_asked() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let request = b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = world.client();
    client.send(request);
    let answer = client.answer_to("OPTIONS").unwrap();
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(answer.header("allow").unwrap().contains("PATCH"));
    client.request("GET", "/v1/books", &[], b"");
    assert_eq!(client.answer().unwrap().status, 200, "the connection stays");
    assert_eq!(service.calls().len(), 1);
}

/// Whatever a service says about a body that cannot be there, the next answer is the next call's.
#[test]
fn a_body_where_none_may_be_is_not_the_next_answer() {
    let odd: [&'static [u8]; 7] = [
        b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nHTTP/",
        b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    ];
    for said in odd {
        let shown = String::from_utf8_lossy(said).into_owned();
        let service = Service::answering(move |call, stream| {
            if call.target().ends_with("/odd") {
                let _ = std::io::Write::write_all(stream, said);
                // Without a length we can read, only the end of the connection ends it.
                return match said.windows(4).any(|it| it == b"gzip") {
                    true => world::Then::Close,
                    false => world::Then::Continue,
                };
            }
            world::service::ok(stream, "mine")
        });
        let world = Plan::bookstore(&service).start();
        for headers in [&[][..], &[("x-pump", "1"), ("te", "trailers")][..]] {
            let mut client = world.client();
            client.request("GET", "/v1/books/odd", headers, b"");
            match client.answer() {
                Ok(answer) if matches!(answer.status, 204 | 304) => {
                    assert!(
                        answer.header("transfer-encoding").is_none(),
                        "{shown}: {answer:?}"
                    );
                }
                Ok(answer) => assert!(
                    answer.status == 502 || matches!(answer.text().as_str(), "hello" | "ok"),
                    "{shown}: {answer:?}"
                ),
                Err(_torn) => client = world.client(),
            }
            client.request("GET", "/v1/books/next", headers, b"");
            let next = client
                .answer()
                .unwrap_or_else(|_closed| world.get("/v1/books/next"));
            assert_eq!(next.text(), "mine", "{shown}: {next:?}");
            for _ in 0..3 {
                assert_eq!(world.get("/v1/books/next").text(), "mine", "{shown}");
            }
        }
    }
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
