//! Streams flow as they come: events, WebSockets, gRPC with its trailers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use world::http2::{self, GrpcService};
use world::service::chunk;
use world::shop::{shop, shop_with};
use world::{Answer, Broken, HOST, PATIENCE, Plan, Service, Then, World, eventually};

const GRPC: &str = "
openapi: 3.1.0
info: { title: Echo, version: '1' }
paths:
  /echo.v1.Echo/Say:
    post: { operationId: say, responses: { '200': { description: fine } } }
";

#[test]
fn events_arrive_one_by_one() {
    let (next, wanted) = mpsc::channel::<()>();
    let wanted = Arc::new(Mutex::new(wanted));
    let service = Service::answering(move |_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
              transfer-encoding: chunked\r\n\r\n",
        );
        for number in 0..3 {
            // The next event exists only once the client has seen the one before.
            let _ = wanted.lock().unwrap().recv_timeout(PATIENCE);
            chunk(stream, format!("data: {number}\n\n").as_bytes());
        }
        chunk(stream, b"");
        Then::Continue
    });
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/events", &[("accept", "text/event-stream")], b"");
    let head = client.head().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    for number in 0..3 {
        next.send(()).unwrap();
        let event = client.chunk().expect("an event");
        assert_eq!(
            String::from_utf8_lossy(&event),
            format!("data: {number}\n\n")
        );
    }
    assert_eq!(client.chunk().as_deref(), Some(b"".as_slice()));
}

const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Accepts upgrades and sends back what it gets.
fn echoing() -> Service {
    Service::answering(|call, stream| {
        if call.header("upgrade").is_none() {
            return world::service::ok(stream, "plain");
        }
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            let _ = stream.write_all(&bytes[..read]);
        }
        Then::Close
    })
}

#[test]
fn websockets_open_where_the_operation_allows_it() {
    let service = echoing();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/chat", &UPGRADE, b"");
    let answer = client.answer().unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(
        answer.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for message in [b"\x81\x05hello".as_slice(), b"\x82\x03\x00\xff\x7f"] {
        client.send(message);
        assert_eq!(client.exactly(message.len()).as_deref(), Some(message));
    }
}

/// How a chat is asked for with the key in this place, by a page of this origin.
fn chat(world: &World, shown: (&str, &str), origin: Option<&str>) -> Answer {
    let mut fields = UPGRADE.to_vec();
    fields.push(shown);
    fields.extend(origin.map(|origin| ("origin", origin)));
    let mut client = world.client();
    client.request("GET", "/v1/chat", &fields, b"");
    client.answer().unwrap()
}

#[test]
fn a_page_of_another_site_opens_no_websocket_with_what_a_browser_adds() {
    let service = echoing();
    let world = shop(&service).start();
    let key = world.key("desk").secret;
    let own = format!("https://{HOST}");
    let cookie = format!("session={key}");
    let basic = format!("Basic {}", STANDARD.encode(format!("{key}:")));
    for shown in [("cookie", &*cookie), ("authorization", &basic)] {
        for (origin, status) in [
            (None, 101),
            (Some(&*own), 101),
            (Some("https://evil.example"), 403),
            (Some("null"), 403),
        ] {
            let answer = chat(&world, shown, origin);
            assert_eq!(answer.status, status, "{shown:?} {origin:?}: {answer:?}");
            if status == 403 {
                answer.is_problem(403, "origin_not_allowed");
            }
        }
    }
    assert_eq!(service.calls().len(), 4, "the refused reach nobody");
    // What a script has to be given by its page is no trap; and without an upgrade the page cannot read the answer.
    let header = ("x-api-key", &*key);
    assert_eq!(
        chat(&world, header, Some("https://evil.example")).status,
        101
    );
    let fields = [("cookie", &*cookie), ("origin", "https://evil.example")];
    assert_eq!(world.ask("GET", "/v1/chat", &fields, b"").status, 200);
}

#[test]
fn where_origins_are_named_every_websocket_is_judged_by_them() {
    let service = echoing();
    let world = shop_with(&service, "websocket_origins: ['https://app.example']\n").start();
    let key = world.key("desk").secret;
    let cookie = format!("session={key}");
    for shown in [("cookie", &*cookie), ("x-api-key", &key)] {
        for (origin, status) in [
            (None, 101),
            (Some("https://app.example"), 101),
            (Some("https://other.example"), 403),
        ] {
            let answer = chat(&world, shown, origin);
            assert_eq!(answer.status, status, "{shown:?} {origin:?}: {answer:?}");
        }
    }
}

#[test]
fn websockets_open_nowhere_else() {
    let service = echoing();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/books", &UPGRADE, b"");
    let answer = client.answer().unwrap();
    // Refused, or served as the plain call it is without the upgrade.
    assert!(
        answer.status == 200 || (400..500).contains(&answer.status),
        "{answer:?}"
    );
    assert!(
        service
            .calls()
            .iter()
            .all(|call| call.header("upgrade").is_none())
    );
}

#[test]
fn other_protocols_are_not_switched_to() {
    let service = echoing();
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    let headers = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
    ];
    client.request("GET", "/v1/chat", &headers, b"");
    assert_ne!(client.answer().unwrap().status, 101);
    assert!(
        service
            .calls()
            .iter()
            .all(|call| call.header("upgrade").is_none())
    );
}

#[test]
fn nothing_passes_before_the_service_agreed_to_switch() {
    let service = Service::answering(|_, stream| world::service::ok(stream, "no"));
    let world = Plan::bookstore(&service).start();
    let mut client = world.client();
    client.request("GET", "/v1/chat", &UPGRADE, b"");
    client.send(b"GET /v1/admin/stats HTTP/1.1\r\nhost: x\r\n\r\n");
    // Bytes sent before the switch was agreed to break the protocol: the call may be refused, or answered and no more.
    let first = client.answer().unwrap();
    assert!(first.status == 400 || first.text() == "no", "{first:?}");
    if let Ok(answer) = client.answer() {
        assert_eq!(
            answer.status, 401,
            "the second request is judged like any other"
        );
    }
    let smuggled = service
        .calls()
        .iter()
        .any(|call| call.target().contains("admin"));
    assert!(!smuggled, "raw bytes reached the service");
}

#[test]
fn grpc_calls_keep_their_trailers() {
    let service = GrpcService::new();
    let world = Plan::before(&service.url()).spec(GRPC).start();
    let request = Request::post(format!("http://{HOST}/echo.v1.Echo/Say"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let message = b"\0\0\0\0\x05hello";
    let answer = http2::block_on(http2::call(world.address, request, message)).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-seen-path"], "/echo.v1.Echo/Say");
    assert_eq!(answer.body, message);
    let trailers = answer.trailers.expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-late"], "yes");
}

#[test]
fn grpc_callers_are_refused_in_their_own_language() {
    let service = GrpcService::new();
    let world = Plan::before(&service.url()).spec(GRPC).start();
    let request = Request::post(format!("http://{HOST}/echo.v1.Echo/Nothing"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let answer = http2::block_on(http2::call(world.address, request, b"\0\0\0\0\0")).unwrap();
    assert_eq!(answer.status, 200);
    let in_trailers = answer
        .trailers
        .as_ref()
        .and_then(|trailers| trailers.get("grpc-status"));
    let status = answer.headers.get("grpc-status").or(in_trailers);
    assert_eq!(status.expect("a grpc-status"), "12");
}

/// The bookstore's reviews with these timeouts, in `x-tollgate` of the operation.
fn impatient(timeouts: &str) -> String {
    format!(
        "
openapi: 3.1.0
info: {{ title: Slow, version: '1' }}
security: []
paths:
  /reviews:
    x-tollgate: {{ timeouts: {timeouts} }}
    post: {{ operationId: review, responses: {{ '200': {{ description: fine }} }} }}
    get: {{ operationId: read, responses: {{ '200': {{ description: fine }} }} }}
"
    )
}

fn review() -> Request<()> {
    let request = Request::post(format!("http://{HOST}/reviews"));
    request.body(()).unwrap()
}

/// A POST that announces more than it sends, over either protocol: what it is answered, and by which id.
fn unfinished(world: &World) -> [(u16, serde_json::Value, String); 2] {
    let mut client = world.client();
    client.send(b"POST /reviews HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhello");
    let first = client.answer().expect("an answer over HTTP/1.1");
    assert!(
        client.is_closed(),
        "nobody knows where the next request begins"
    );
    let id = first.header("x-request-id").expect("an id").to_owned();
    let request = review();
    let second = http2::block_on(http2::call_unfinished(world.address, request, b"hello"));
    let second = second.expect("an answer over HTTP/2");
    let problem = serde_json::from_slice(&second.body).unwrap();
    let second_id = second.request_id().to_owned();
    [
        (first.status, first.json(), id),
        (second.status.as_u16(), problem, second_id),
    ]
}

fn are_told(world: &World, status: u16, code: &str) {
    for (answered, problem, id) in unfinished(world) {
        assert_eq!(answered, status, "{problem}");
        assert!(
            problem["type"].as_str().unwrap().ends_with(code),
            "{problem}"
        );
        let record = world.record(&id);
        assert_eq!(record["status"], status, "{record}");
        assert_eq!(record["denial"], code, "{record}");
    }
    let cause = format!("cause=\"{code}\"}} 2");
    assert!(world.metrics().contains(&cause), "{}", world.metrics());
    nothing_is_in_flight(world);
}

fn nothing_is_in_flight(world: &World) {
    eventually("nothing is in flight", || {
        let metrics = world.metrics();
        let mut gauges = metrics
            .lines()
            .filter(|line| line.starts_with("tollgate_requests_in_flight{"));
        gauges.all(|line| line.ends_with(" 0"))
    });
}

#[test]
fn a_body_that_stops_coming_is_answered_408() {
    let service = Service::new();
    let world = Plan::bookstore(&service)
        .spec(&impatient("{ first_byte: 300ms }"))
        .start();
    are_told(&world, 408, "body_too_slow");
}

#[test]
fn a_body_that_trickles_is_answered_408() {
    let service = Service::new();
    let world = Plan::bookstore(&service)
        .spec(&impatient("{ first_byte: 60s }"))
        .start();
    are_told(&world, 408, "body_too_slow");
}

#[test]
fn an_exchange_over_its_total_time_is_answered_504() {
    let service = Service::new();
    let world = Plan::bookstore(&service)
        .spec(&impatient("{ total: 500ms }"))
        .start();
    are_told(&world, 504, "upstream_timeout");
}

/// Both ways over HTTP/1.1, and HTTP/2: a call the service does not answer.
#[test]
fn a_service_that_says_nothing_is_answered_504_in_time() {
    for timeouts in ["{ first_byte: 300ms }", "{ total: 300ms }"] {
        let service = Service::answering(|_, _| Then::Hold);
        let world = Plan::bookstore(&service).spec(&impatient(timeouts)).start();
        world
            .ask("POST", "/reviews", &[], b"hello")
            .is_problem(504, "upstream_timeout");
        world.get("/reviews").is_problem(504, "upstream_timeout");
        let request = review();
        http2::block_on(http2::call(world.address, request, b"hello"))
            .unwrap()
            .is_problem(504, "upstream_timeout");
        nothing_is_in_flight(&world);
    }
}

/// The limit on the head of the answer is none on its body.
#[test]
fn a_body_may_pause_longer_than_its_head_may_take() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        chunk(stream, b"first");
        // The pause is what is tested.
        std::thread::sleep(std::time::Duration::from_millis(1200));
        chunk(stream, b"second");
        chunk(stream, b"");
        Then::Continue
    });
    let world = Plan::bookstore(&service)
        .spec(&impatient("{ first_byte: 400ms, idle: 20s }"))
        .start();
    let answer = world.ask("POST", "/reviews", &[], b"hello");
    assert_eq!(answer.text(), "firstsecond");
    assert_eq!(world.get("/reviews").text(), "firstsecond");
    let request = review();
    let answer = http2::block_on(http2::call(world.address, request, b"hello")).unwrap();
    assert_eq!(answer.body, b"firstsecond");
}

/// Once an answer has begun, a limit can only end it, and never cleanly.
#[test]
fn an_answer_over_its_total_time_is_torn() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        chunk(stream, b"first");
        Then::Hold
    });
    let world = Plan::bookstore(&service)
        .spec(&impatient("{ total: 500ms }"))
        .start();
    let mut client = world.client();
    client.request("POST", "/reviews", &[], b"hello");
    assert!(matches!(client.answer(), Err(Broken::Torn(answer)) if answer.status == 200));
    let request = review();
    let torn = http2::block_on(http2::call(world.address, request, b"hello"));
    assert!(torn.is_err(), "{torn:?}");
    nothing_is_in_flight(&world);
    for record in world.access_log(2) {
        assert_eq!(record["denial"], "upstream_timeout", "{record}");
        assert_eq!(record["status"], 200, "{record}");
        assert_eq!(record["aborted"], true, "{record}");
    }
}
