//! What is revoked counts no more within a second: for new calls, for calls under way, after a restart, and whatever files say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use world::http2;
use world::service::chunk;
use world::shop::{self, Key, shop};
use world::{Client, HOST, Plan, Service, Then, World, eventually};

/// What is promised.
const SOON: Duration = Duration::from_secs(1);

/// Sends an event every few moments, for ever; takes WebSockets and sends back what it gets.
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
        if !call.target().starts_with("/v1/events") {
            return world::service::ok(stream, "ok");
        }
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head);
        loop {
            chunk(stream, b"data: still here\n\n");
            if stream.write_all(b"").is_err() || stream.flush().is_err() {
                return Then::Close;
            }
            std::thread::sleep(Duration::from_millis(50));
            if stream.take_error().is_ok_and(|error| error.is_some()) {
                return Then::Close;
            }
        }
    })
}

/// A stream of events that is open, and the id of its request.
struct Open {
    client: Client,
    request_id: String,
}

impl Open {
    fn events(world: &World, key: &Key) -> Self {
        let mut client = world.client();
        client.request("GET", "/v1/events", &[("x-api-key", &key.secret)], b"");
        let head = client.head().expect("a head");
        assert_eq!(head.status, 200, "{head:?}");
        let request_id = head.header("x-request-id").unwrap().to_owned();
        let mut open = Self { client, request_id };
        assert!(open.goes_on(), "an event comes");
        open
    }

    /// Another event comes.
    fn goes_on(&mut self) -> bool {
        self.client.chunk().is_some_and(|event| !event.is_empty())
    }

    /// Reads to the end: how long after `begun` it came, and whether it looked like a complete answer.
    fn ends(&mut self, begun: Instant) -> (Duration, bool) {
        loop {
            match self.client.chunk() {
                Some(event) if event.is_empty() => return (begun.elapsed(), true),
                Some(_) => assert!(begun.elapsed() < world::PATIENCE, "it goes on and on"),
                None => return (begun.elapsed(), false),
            }
        }
    }

    /// It ends soon, torn, and the access record says why and who.
    fn is_cut(&mut self, world: &World, begun: Instant, consumer: &str) {
        let (after, complete) = self.ends(begun);
        assert!(after < SOON, "it took {after:?}");
        assert!(!complete, "a stream that is cut does not look complete");
        let record = world.record(&self.request_id);
        assert_eq!(record["denial"], "credential_revoked", "{record}");
        assert_eq!(record["consumer"], consumer, "{record}");
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.contains("revoked"), "{record}");
    }
}

fn revoke(world: &World, key: &Key) -> Instant {
    let path = format!("/v1/keys/{}/revoke", key.id);
    let done = world.ask_control("POST", &path, &json!({ "reason": "leaked" }));
    assert_eq!(done.status, 200, "{done:?}");
    Instant::now()
}

#[test]
fn a_revoked_key_is_refused_within_a_second() {
    let service = talking();
    let world = shop(&service).start();
    let (key, other) = (world.key("web"), world.key("web"));
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
    let mut kept = world.client();
    kept.request("GET", "/v1/books", &[("x-api-key", &key.secret)], b"");
    assert_eq!(kept.answer().unwrap().status, 200);
    let begun = revoke(&world, &key);
    world
        .get_with(&key, "/v1/books")
        .is_problem(401, "credential_invalid");
    kept.request("GET", "/v1/books", &[("x-api-key", &key.secret)], b"");
    kept.answer().unwrap().is_problem(401, "credential_invalid");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(world.get_with(&other, "/v1/books").status, 200);
    // By the command line, twice: the second time it is done already.
    world
        .cli(&["keys", "revoke", &other.id, "--reason", "lost"])
        .good();
    world.cli(&["keys", "revoke", &other.id]).good();
    world
        .get_with(&other, "/v1/books")
        .is_problem(401, "credential_invalid");
}

#[test]
fn an_open_stream_ends_within_a_second_and_others_go_on() {
    let service = talking();
    let world = shop(&service).start();
    let (key, other) = (world.key("desk"), world.key("desk"));
    let (mut first, mut second) = (Open::events(&world, &key), Open::events(&world, &key));
    let mut bystander = Open::events(&world, &other);
    let begun = revoke(&world, &key);
    first.is_cut(&world, begun, "desk");
    second.is_cut(&world, begun, "desk");
    for _ in 0..5 {
        assert!(bystander.goes_on(), "another key's stream");
    }
}

#[test]
fn an_open_stream_ends_by_the_general_pump_as_well() {
    let service = talking();
    let world = shop(&service).pump(true).start();
    let (key, other) = (world.key("desk"), world.key("desk"));
    let (mut open, mut bystander) = (Open::events(&world, &key), Open::events(&world, &other));
    let begun = revoke(&world, &key);
    open.is_cut(&world, begun, "desk");
    assert!(bystander.goes_on());
}

/// Sends as fast as it is read, for ever.
fn flooding() -> Service {
    Service::answering(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let piece = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
        let mut sent = stream.write_all(head);
        while sent.is_ok() {
            sent = stream.write_all(&piece);
        }
        Then::Close
    })
}

#[test]
fn a_stream_that_never_pauses_ends_too() {
    let service = flooding();
    for pump in [false, true] {
        let world = shop(&service).pump(pump).start();
        let key = world.key("desk");
        let mut open = Open::events(&world, &key);
        let (stop, stopped) = std::sync::mpsc::channel();
        let path = format!("/v1/keys/{}/revoke", key.id);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let begun: Instant = stopped.recv().unwrap();
                open.ends(begun)
            });
            assert_eq!(world.ask_control("POST", &path, &json!({})).status, 200);
            stop.send(Instant::now()).unwrap();
            let (after, complete) = reader.join().unwrap();
            assert!(after < SOON, "pump {pump}: {after:?}");
            assert!(!complete);
        });
    }
}

#[test]
fn a_stream_that_nobody_reads_ends_too() {
    let service = flooding();
    for pump in [false, true] {
        let world = shop(&service).pump(pump).start();
        let key = world.key("desk");
        let open = Open::events(&world, &key);
        let begun = revoke(&world, &key);
        let record = world.record(&open.request_id);
        assert!(begun.elapsed() < SOON, "pump {pump}: {:?}", begun.elapsed());
        assert_eq!(
            record["denial"], "credential_revoked",
            "pump {pump}: {record}"
        );
        assert_eq!(record["consumer"], "desk", "pump {pump}: {record}");
    }
}

#[test]
fn an_upload_ends_within_a_second() {
    let service = talking();
    let world = shop(&service).start();
    let key = world.key("desk");
    let mut client = world.client();
    let head = format!(
        "POST /v1/books HTTP/1.1\r\nhost: {HOST}\r\nx-api-key: {}\r\n\
         content-length: 1000000\r\n\r\nonly a beginning",
        key.secret
    );
    client.send(head.as_bytes());
    // It is under way once the service was connected to.
    eventually("the upload is under way", || service.connections() > 0);
    let begun = revoke(&world, &key);
    let answer = client.answer_to("POST").expect("told why");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    answer.is_problem(401, "credential_revoked");
}

/// Whatever was announced between admission and revocation: the stream is found.
#[test]
fn a_stream_whose_caller_was_changed_meanwhile_ends_too() {
    let service = talking();
    let world = shop(&service).start();
    world
        .cli(&[
            "consumers",
            "create",
            "partner",
            "--project",
            "floor",
            "--subscribe",
            "shop=all",
        ])
        .good();
    let (key, other) = (world.key("partner"), world.key("partner"));
    let (mut open, mut bystander) = (Open::events(&world, &key), Open::events(&world, &other));
    // Makes the gateway forget what it holds of this consumer, then of everybody.
    world
        .cli(&["consumers", "subscribe", "partner", "shop", "reader"])
        .good();
    let reloaded = world.ask_control("POST", "/v1/reload", &json!({}));
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    assert!(open.goes_on());
    let begun = revoke(&world, &key);
    open.is_cut(&world, begun, "partner");
    assert!(bystander.goes_on());
}

#[test]
fn streams_of_a_suspended_a_deleted_and_a_revoked_consumer_end() {
    let service = talking();
    let world = shop(&service).start();
    let made = |name: &str| {
        let verb = [
            "consumers",
            "create",
            name,
            "--project",
            "floor",
            "--subscribe",
            "shop=all",
        ];
        world.cli(&verb).good();
        Open::events(&world, &world.key(name))
    };
    let mut bystander = Open::events(&world, &world.key("desk"));
    let table: [(&str, &[&str]); 3] = [
        ("one", &["consumers", "suspend", "one"]),
        ("two", &["consumers", "delete", "two"]),
        ("three", &["revocations", "create", "consumer", "three"]),
    ];
    for (name, verb) in table {
        let mut open = made(name);
        let begun = Instant::now();
        world.cli(verb).good();
        let (after, complete) = open.ends(begun);
        assert!(!complete);
        assert!(after < SOON + Duration::from_secs(1), "{name}: {after:?}");
        let record = world.record(&open.request_id);
        assert_eq!(record["denial"], "credential_revoked", "{record}");
    }
    assert!(bystander.goes_on());
}

#[test]
fn streams_of_a_deleted_and_of_a_replaced_key_end() {
    let service = talking();
    let world = shop(&service).start();
    let (deleted, replaced) = (world.key("desk"), world.key("desk"));
    let (mut first, mut second) = (
        Open::events(&world, &deleted),
        Open::events(&world, &replaced),
    );
    world.cli(&["keys", "delete", &deleted.id]).good();
    first.is_cut(&world, Instant::now(), "desk");
    assert!(second.goes_on());
    let rotated = world.cli(&["keys", "rotate", &replaced.id, "--overlap", "0s", "--json"]);
    let successor = Key::shown(&rotated.json());
    second.is_cut(&world, Instant::now(), "desk");
    assert!(Open::events(&world, &successor).goes_on());
}

#[test]
fn a_websocket_ends_within_a_second() {
    let service = talking();
    let world = shop(&service).start();
    let (key, other) = (world.key("desk"), world.key("desk"));
    let open = |key: &Key| {
        let mut client = world.client();
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("x-api-key", &*key.secret),
        ];
        client.request("GET", "/v1/chat", &headers, b"");
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 101, "{answer:?}");
        client.send(b"\x81\x05hello");
        assert_eq!(
            client.exactly(7).as_deref(),
            Some(b"\x81\x05hello".as_slice())
        );
        (client, answer.header("x-request-id").unwrap().to_owned())
    };
    let ((mut first, id), (mut second, _)) = (open(&key), open(&other));
    let begun = revoke(&world, &key);
    let rest = first.rest();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(
        rest, b"\x88\x14\x03\xf0credential revoked",
        "1008, with the reason"
    );
    let record = world.record(&id);
    assert_eq!(record["denial"], "credential_revoked", "{record}");
    assert_eq!(record["consumer"], "desk", "{record}");
    second.send(b"\x81\x02on");
    assert_eq!(second.exactly(4).as_deref(), Some(b"\x81\x02on".as_slice()));
}

#[test]
fn a_stream_over_http2_ends_within_a_second_and_its_neighbours_go_on() {
    let service = talking();
    let world = shop(&service).start();
    let (key, other) = (world.key("desk"), world.key("desk"));
    http2::block_on(async {
        // Both on one connection: a revocation ends streams, not connections.
        let send = http2::connect(world.address).await;
        let open = async |key: &Key| {
            let request = Request::get(format!("http://{HOST}/v1/events"))
                .header("x-api-key", &key.secret)
                .body(())
                .unwrap();
            let mut send = send.clone().ready().await.unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            let (head, mut body) = response.await.unwrap().into_parts();
            assert_eq!(head.status, 200);
            let event: Bytes = body.data().await.unwrap().unwrap();
            let _ = body.flow_control().release_capacity(event.len());
            let id = head.headers["x-request-id"].to_str().unwrap().to_owned();
            (body, id)
        };
        let ((mut first, id), (mut second, _)) = (open(&key).await, open(&other).await);
        let path = format!("/v1/keys/{}/revoke", key.id);
        let done = world.ask_control("POST", &path, &json!({}));
        assert_eq!(done.status, 200, "{done:?}");
        let begun = Instant::now();
        let ended = loop {
            match first.data().await {
                Some(Ok(event)) => {
                    let _ = first.flow_control().release_capacity(event.len());
                }
                Some(Err(reset)) => break Err(reset),
                None => break Ok(()),
            }
        };
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(
            ended.is_err(),
            "a stream that is cut does not look complete"
        );
        for _ in 0..3 {
            let event = second.data().await.expect("it goes on").unwrap();
            let _ = second.flow_control().release_capacity(event.len());
        }
        let record = world.record(&id);
        assert_eq!(record["denial"], "credential_revoked", "{record}");
        assert_eq!(record["consumer"], "desk", "{record}");
    });
}

#[test]
fn a_grpc_stream_ends_with_a_status() {
    let service = http2::Endless::new();
    let world = shop::bare(&service.url(), "")
        .file("plans.yaml", shop::PLANS)
        .file("consumers.yaml", shop::CONSUMERS)
        .start();
    let key = world.key("desk");
    http2::block_on(async {
        let send = http2::connect(world.address).await;
        let request = Request::post(format!("http://{HOST}/v1/books"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-api-key", &key.secret)
            .body(())
            .unwrap();
        let mut send = send.ready().await.unwrap();
        let (response, mut sender) = send.send_request(request, false).unwrap();
        sender
            .send_data(Bytes::from_static(b"\0\0\0\0\0"), false)
            .unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        let event: Bytes = body.data().await.unwrap().unwrap();
        let _ = body.flow_control().release_capacity(event.len());
        let path = format!("/v1/keys/{}/revoke", key.id);
        assert_eq!(world.ask_control("POST", &path, &json!({})).status, 200);
        let begun = Instant::now();
        while let Some(event) = body.data().await {
            let event = event.expect("a status, no reset");
            let _ = body.flow_control().release_capacity(event.len());
        }
        let trailers = body.trailers().await.unwrap().expect("a status");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(trailers["grpc-status"], "16", "{trailers:?}");
        let message = trailers["grpc-message"].to_str().unwrap();
        assert!(message.contains("revoked"), "{message}");
        let record = world.record(head.headers["x-request-id"].to_str().unwrap());
        assert_eq!(record["denial"], "credential_revoked", "{record}");
    });
}

fn with_file_key(service: &Service) -> Plan {
    let consumers = shop::CONSUMERS.replace(
        "            subscriptions: { shop: reader }\n",
        "            subscriptions: { shop: reader }\n            keys:\n              - { name: ci, secret: \"${SHOP_KEY}\" }\n",
    );
    shop::bare(&service.url(), "")
        .file("plans.yaml", shop::PLANS)
        .file("consumers.yaml", &consumers)
        .environment("SHOP_KEY", "a-key-that-stands-in-a-file")
}

#[test]
fn no_file_and_no_restart_brings_a_revoked_key_back() {
    let service = Service::new();
    let world = with_file_key(&service).start();
    let made = world.key("desk");
    let filed = Key {
        id: {
            let listed: Value = world.cli(&["keys", "list", "web", "--json"]).json();
            listed[0]["id"].as_str().unwrap().to_owned()
        },
        secret: "a-key-that-stands-in-a-file".to_owned(),
    };
    for key in [&filed, &made] {
        assert_eq!(world.get_with(key, "/v1/books").status, 200);
        revoke(&world, key);
        world
            .get_with(key, "/v1/books")
            .is_problem(401, "credential_invalid");
    }
    world
        .cli(&["revocations", "create", "consumer", "banned"])
        .good();
    // The file is read again, with the key still in it.
    world.signal("HUP");
    eventually("the files are read again", || {
        world.log().contains("directory read again")
    });
    world
        .get_with(&filed, "/v1/books")
        .is_problem(401, "credential_invalid");
    let home = world.kill();
    let world = with_file_key(&service).start_again(home.path());
    for key in [&filed, &made] {
        world
            .get_with(key, "/v1/books")
            .is_problem(401, "credential_invalid");
    }
    let listed = world.cli(&["keys", "list", "web", "--json"]).json();
    assert_eq!(listed[0]["revoked"], true, "{listed}");
    let fresh = world.key("web");
    assert_eq!(world.get_with(&fresh, "/v1/books").status, 200);
    let kinds = world.cli(&["revocations", "list", "--json"]).json();
    assert_eq!(kinds.as_array().unwrap().len(), 3, "{kinds}");
}
