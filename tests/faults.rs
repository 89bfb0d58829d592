//! A service that is away, slow or out of its mind costs its own calls, within limits, and nobody else anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use world::http2::{self, GrpcService};
use world::service::{chunk, ok};
use world::{Broken, Client, Plan, Service, Then, eventually};

/// An API with short limits.
const IMPATIENT: &str = "
openapi: 3.1.0
info: { title: Impatient, version: '1' }
x-tollgate:
  timeouts: { first_byte: 300ms, idle: 300ms }
  retries: 0
paths:
  /slow:
    get: { operationId: slow, responses: { '200': { description: fine } } }
    post: { operationId: slowPost, responses: { '200': { description: fine } } }
";

#[test]
fn a_service_that_is_down_is_answered_502() {
    let world = Plan::before(&Service::nowhere()).start();
    for _ in 0..3 {
        let answer = world.get("/v1/books");
        assert!([502, 503].contains(&answer.status), "{answer:?}");
        let kind = answer.json()["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            kind.ends_with("upstream_failed") || kind.ends_with("no_endpoint"),
            "{kind}"
        );
    }
}

#[test]
fn a_reset_is_answered_502() {
    let service = Service::resetting();
    let world = Plan::bookstore(&service).start();
    world.get("/v1/books").is_problem(502, "upstream_failed");
    let answer = world.ask("POST", "/v1/books/1/reviews", &[], b"{}");
    answer.is_problem(502, "upstream_failed");
}

#[test]
fn a_service_that_closes_without_an_answer_is_answered_502() {
    let service = Service::saying(b"", Then::Close);
    let world = Plan::bookstore(&service).start();
    world.get("/v1/books").is_problem(502, "upstream_failed");
}

#[test]
fn a_call_that_may_have_taken_effect_is_not_repeated() {
    let service = Service::saying(b"", Then::Close);
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("POST", "/v1/books/1/reviews", &[], b"{}");
    answer.is_problem(502, "upstream_failed");
    assert_eq!(service.calls().len(), 1);
}

#[test]
fn a_kept_connection_the_service_closed_costs_no_call() {
    let service = Service::answering(|_, stream| {
        ok(stream, "ok");
        Then::Close
    });
    let world = Plan::bookstore(&service).start();
    for number in 0..20 {
        assert_eq!(world.get(&format!("/v1/books/{number}")).status, 200);
    }
}

#[test]
fn a_stalled_service_is_answered_504() {
    let service = Service::stalling();
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    let begun = Instant::now();
    world.get("/slow").is_problem(504, "upstream_timeout");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_service_that_stalls_after_reading_is_answered_504() {
    let service = Service::saying(b"", Then::Hold);
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    world
        .ask("POST", "/slow", &[], b"hello")
        .is_problem(504, "upstream_timeout");
    assert_eq!(service.calls().len(), 1, "not repeated");
}

#[test]
fn half_a_head_is_answered_504() {
    let service = Service::saying(b"HTTP/1.1 200 OK\r\ncontent-le", Then::Hold);
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    let answer = world.get("/slow");
    assert!([502, 504].contains(&answer.status), "{answer:?}");
}

#[test]
fn garbage_is_answered_502() {
    let garbage: [&'static [u8]; 4] = [
        b"\x00\x01\x02 this is no HTTP\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
    ];
    for bytes in garbage {
        let service = Service::saying(bytes, Then::Close);
        let world = Plan::bookstore(&service).start();
        let answer = world.get("/v1/books");
        assert_eq!(
            answer.status,
            502,
            "{:?}: {answer:?}",
            String::from_utf8_lossy(bytes)
        );
        assert!(
            !answer.text().contains("OpenSSH"),
            "nothing of it is passed on"
        );
    }
}

/// Answers that end too early, or in nonsense.
const TORN: [&[u8]; 5] = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
];

#[test]
fn a_truncated_body_never_ends_cleanly() {
    for bytes in TORN {
        let service = Service::saying(bytes, Then::Close);
        let world = Plan::bookstore(&service).start();
        for (method, path, body) in [
            ("GET", "/v1/books", ""),
            ("POST", "/v1/books/1/reviews", "{}"),
        ] {
            let mut client = world.client();
            client.request(method, path, &[], body.as_bytes());
            match client.answer() {
                Err(Broken::Torn(_) | Broken::NoHead(_)) => (),
                Ok(answer) => assert_eq!(answer.status, 502, "{answer:?}"),
            }
        }
    }
}

#[test]
fn a_truncated_body_never_ends_cleanly_for_an_http_2_client() {
    for bytes in TORN {
        let service = Service::saying(bytes, Then::Close);
        let world = Plan::bookstore(&service).start();
        let request = http::Request::get(format!("http://{}/v1/books", world::HOST));
        let request = request.body(()).unwrap();
        if let Ok(answer) = http2::block_on(http2::call(world.address, request, b"")) {
            assert_eq!(answer.status, 502, "{answer:?}");
        }
    }
}

#[test]
fn a_stream_the_service_resets_never_ends_cleanly() {
    let service = GrpcService::new();
    let world = Plan::before(&service.url()).start();
    let mut client = world.client();
    client.request("POST", "/v1/books/1/reviews", &[("x-torn", "yes")], b"{}");
    assert!(
        matches!(client.answer(), Err(Broken::Torn(_) | Broken::NoHead(_))),
        "to an HTTP/1.1 client"
    );
    let request = http::Request::post(format!("http://{}/v1/books/1/reviews", world::HOST));
    let request = request.header("x-torn", "yes").body(()).unwrap();
    let answer = http2::block_on(http2::call(world.address, request, b"{}"));
    assert!(answer.is_err(), "to an HTTP/2 client: {answer:?}");
}

#[test]
fn a_body_that_stops_is_given_up() {
    let service = Service::saying(
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        Then::Hold,
    );
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    let mut client = world.client();
    client.request("GET", "/slow", &[], b"");
    let begun = Instant::now();
    assert!(
        matches!(client.answer(), Err(Broken::Torn(_))),
        "it never was complete"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn more_than_was_announced_is_nobodys_answer() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\
              content-length: 4\r\n\r\nevil",
        );
        Then::Continue
    });
    let world = Plan::bookstore(&service).start();
    for number in 0..10 {
        let answer = world.get(&format!("/v1/books/{number}"));
        assert!(answer.status == 502 || answer.text() == "ok", "{answer:?}");
    }
}

#[test]
fn answers_are_never_mixed_up() {
    let service = Service::answering(|call, stream| ok(stream, call.target()));
    let world = Plan::bookstore(&service).start();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let world = &world;
            scope.spawn(move || {
                let mut client = world.client();
                for number in 0..200 {
                    let path = format!("/v1/books/{thread}-{number}");
                    client.request("GET", &path, &[], b"");
                    assert_eq!(client.answer().unwrap().text(), path);
                }
            });
        }
    });
}

/// Misbehaves in turn, each time in another way; where it answers well, it says what it was asked for.
fn flapping() -> Service {
    let turn = AtomicUsize::new(0);
    Service::answering(move |call, stream| {
        let asked = call.target();
        match turn.fetch_add(1, Ordering::SeqCst) % 11 {
            0 => Then::Close,
            1 => {
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{asked}"
                );
                Then::Close
            }
            2 => {
                // With an answer nobody asked for, which the next caller must not get. In one piece: what comes after the
                // next request was sent is an answer to that as far as anybody can tell.
                let answer = |text: &str| {
                    format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
                        text.len()
                    )
                };
                let both = answer(asked) + &answer("somebody else's");
                let _ = stream.write_all(both.as_bytes());
                Then::Continue
            }
            3 => {
                std::thread::sleep(Duration::from_millis(30));
                ok(stream, asked)
            }
            4 => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                chunk(stream, asked.as_bytes());
                Then::Close
            }
            5 => {
                let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
                Then::Close
            }
            6 => {
                let _ = ok(stream, asked);
                Then::Close
            }
            _ => ok(stream, asked),
        }
    })
}

#[test]
fn answers_are_never_mixed_up_however_the_service_misbehaves() {
    const CLIENTS: usize = 8;
    const CALLS: usize = 400;
    let service = flapping();
    let world = Plan::bookstore(&service).start();
    let address = world.address;
    let ask = move |thread: usize| {
        let mut client = Client::connect(address);
        let mut good = 0;
        for number in 0..CALLS {
            let own = format!("{thread}-{number}");
            // By both ways to the service.
            let (method, path, body) = match number % 3 {
                0 => ("POST", format!("/v1/books/{own}/reviews"), "{}"),
                _ => ("GET", format!("/v1/books/{own}"), ""),
            };
            client.request(method, &path, &[], body.as_bytes());
            match client.answer() {
                Ok(answer) if answer.status == 200 => {
                    assert_eq!(answer.text(), path);
                    good += 1;
                    if answer.header("connection") != Some("close") {
                        continue;
                    }
                }
                Ok(answer) => assert!([502, 503].contains(&answer.status), "{answer:?}"),
                Err(Broken::Torn(answer)) => assert!(path.contains(&answer.text())),
                Err(Broken::NoHead(bytes)) => assert!(bytes.is_empty(), "{bytes:?}"),
            }
            client = Client::connect(address);
        }
        good
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|thread| std::thread::spawn(move || ask(thread)))
        .collect();
    let good: usize = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    assert!(good > CLIENTS * CALLS / 2, "{good} answered");
    eventually("no call is left behind", || {
        let metrics = world.metrics();
        let mut counts = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("tollgate_requests_in_flight"))
            .filter_map(|line| line.split_once("} "));
        counts.all(|(_, count)| count == "0")
    });
}

#[test]
fn a_service_that_takes_no_connection_is_answered_504() {
    // A queue that is full drops what arrives, as a machine does that vanished.
    let full = http2::block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        socket.listen(1).unwrap().into_std().unwrap()
    });
    let address = full.local_addr().unwrap();
    let waiting: Vec<TcpStream> = (0..64)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok())
        .collect();
    if waiting.len() == 64 {
        eprintln!("skipped: this kernel's queues do not become full");
        return;
    }
    let world = Plan::before(&format!("http://{address}")).start();
    let begun = Instant::now();
    world.get("/v1/books").is_problem(504, "upstream_timeout");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "one second each for two attempts: {:?}",
        begun.elapsed()
    );
}

#[test]
fn a_client_that_stalls_its_own_upload_is_not_blamed_on_the_service() {
    let service = Service::new();
    let world = Plan::bookstore(&service).spec(IMPATIENT).start();
    // More than it takes to eject.
    let mut silent: Vec<Client> = (0..10).map(|_| world.client()).collect();
    for client in &mut silent {
        client.send(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf");
    }
    for client in &mut silent {
        match client.answer() {
            Ok(answer) => {
                answer.is_problem(408, "body_too_slow");
            }
            Err(broken) => assert!(matches!(broken, Broken::NoHead(_)), "{broken:?}"),
        }
    }
    assert_eq!(world.get("/slow").status, 200);
    assert!(!world.log().contains("ejected"), "{}", world.log());
}

#[test]
fn an_endpoint_still_busy_with_its_answers_gets_fewer_new_calls() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let quick = Service::saying(head, Then::Hold);
    let slow = Service::answering(move |_, stream| {
        std::thread::sleep(Duration::from_millis(10));
        let _ = stream.write_all(head);
        Then::Hold
    });
    let file = format!(
        "spec: {}\nupstream:\n  endpoints: [{}, {}]\n",
        world::bookstore().display(),
        quick.url(),
        slow.url()
    );
    let world = Plan::bookstore(&quick).api("books", file).start();
    for (method, path, body) in [
        ("GET", "/v1/books", ""),
        ("POST", "/v1/books/1/reviews", "{}"),
    ] {
        let before = slow.calls().len();
        let mut held = Vec::new();
        for _ in 0..60 {
            let mut client = world.client();
            client.request(method, path, &[], body.as_bytes());
            assert_eq!(client.head().unwrap().status, 200);
            held.push(client);
        }
        // The quick one answers sooner, but what it has to finish counts against it.
        let slow_calls = slow.calls().len() - before;
        assert!(
            (4..=40).contains(&slow_calls),
            "{method}: {slow_calls} of 60"
        );
    }
}

#[test]
fn a_client_that_goes_away_harms_nobody() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for _ in 0..50 {
        let mut client = world.client();
        client.send(b"PUT /v1/uploads/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf");
        drop(client);
        let mut client = world.client();
        client.request("GET", "/v1/books", &[], b"");
        drop(client);
    }
    assert_eq!(world.get("/v1/books").status, 200);
    assert!(
        service.calls().iter().all(|call| call.method() != "PUT"),
        "none came whole"
    );
}

#[test]
fn an_early_answer_reaches_the_client() {
    let service = Service::new();
    service.now(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        Then::Close
    });
    let world = Plan::bookstore(&service).start();
    let answer = world.ask("POST", "/v1/books/1/reviews", &[], b"{}");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[test]
fn errors_of_the_service_are_its_own() {
    let service = Service::saying(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nretry-after: 7\r\n\r\nbusy",
        Then::Continue,
    );
    let world = Plan::bookstore(&service).start();
    let answer = world.get("/v1/books");
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    assert_eq!(answer.header("retry-after"), Some("7"));
}
