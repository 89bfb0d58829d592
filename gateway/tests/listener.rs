//! What the listener promises to clients, over real sockets, with a small application of our own behind it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora_core::apps::{
    HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream,
};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tollgate_gateway::denial::Denial;
use tollgate_gateway::listener::{self, Bound, Door, Drain, TlsKeys, handover};
use tollgate_gateway::telemetry::Metrics;
use tollgate_policy::settings::{DoorLimits, ListenAddress, ListenerTls, Network};

/// Answers with path, client address and length of the body. `/slow` waits for `go`.
struct Echo {
    limits: DoorLimits,
    options: HttpServerOptions,
    requests: AtomicUsize,
    go: Notify,
    arrived: Notify,
}

#[async_trait]
impl HttpServerApp for Echo {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let ServerSession::H1(session) = &mut session {
            session.respect_keepalive();
        }
        let mut body = 0;
        while let Some(bytes) = session.read_request_body().await.ok()? {
            body += bytes.len();
        }
        let path = session.req_header().uri.path().to_owned();
        if path == "/slow" {
            self.arrived.notify_one();
            tokio::select! {
                () = self.go.notified() => {}
                // What the proxy does to learn of a client that leaves.
                left = session.read_body_or_idle(true) => { left.ok()?; }
            }
        }
        let client = session
            .client_addr()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = format!("{path} {client} {body}\n");
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        let mut header = ResponseHeader::build(200, None).unwrap();
        header
            .insert_header("content-length", text.len().to_string())
            .unwrap();
        session.write_response_header(Box::new(header)).await.ok()?;
        session
            .write_response_body(Bytes::from(text), true)
            .await
            .ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let reused = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reused, settings))
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(listener::h2_options(&self.limits))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

type Refusals = Arc<Mutex<Vec<(Option<SocketAddr>, Denial)>>>;

/// A listener that is served on the test's runtime.
struct World {
    app: Arc<Echo>,
    door: Arc<Door>,
    drain: Drain,
    refusals: Refusals,
    address: ListenAddress,
}

#[derive(Default)]
struct Setting {
    limits: DoorLimits,
    tls: Option<Arc<TlsKeys>>,
    proxies: Vec<Network>,
    unix: Option<PathBuf>,
}

impl World {
    fn start(setting: Setting) -> Self {
        let address = match &setting.unix {
            Some(path) => ListenAddress::Unix(path.clone()),
            None => ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()),
        };
        Self::start_on(Bound::bind(&address).unwrap(), setting)
    }

    fn start_on(bound: Bound, setting: Setting) -> Self {
        let address = bound.local_address().clone();
        let limits = setting.limits;
        let refusals = Refusals::default();
        let refuse = |denial: &Denial| {
            let status = match denial {
                Denial::HeadTimeout => "408 Request Timeout",
                Denial::HeadTooLarge => "431 Request Header Fields Too Large",
                _ => "400 Bad Request",
            };
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .into_bytes()
        };
        let told = Arc::clone(&refusals);
        let hook = move |peer, denial: &Denial| {
            told.lock().push((peer, denial.clone()));
            refuse(denial)
        };
        let door = Door::new(
            limits.clone(),
            Metrics::new(),
            Arc::default(),
            Arc::new(hook),
        );
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.keep_alive);
        let app = Arc::new(Echo {
            limits,
            options,
            requests: AtomicUsize::new(0),
            go: Notify::new(),
            arrived: Notify::new(),
        });
        let (door, drain) = (Arc::new(door), Drain::new());
        tokio::spawn(listener::serve(
            bound.into_listener().unwrap(),
            Arc::from("test"),
            setting.tls,
            setting.proxies,
            Arc::clone(&app),
            Arc::clone(&door),
            drain.clone(),
        ));
        Self {
            app,
            door,
            drain,
            refusals,
            address,
        }
    }

    fn tcp(&self) -> SocketAddr {
        let ListenAddress::Tcp(address) = self.address else {
            panic!("not TCP")
        };
        address
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.tcp()).await.unwrap()
    }
}

fn loopback() -> Vec<Network> {
    vec![Network {
        address: "127.0.0.0".parse().unwrap(),
        prefix: 8,
    }]
}

/// Reads one answer with content-length; empty when the connection ended.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut bytes = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            if let Some(head) = text.find("\r\n\r\n") {
                let length = text.split("content-length: ").nth(1).unwrap();
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                if bytes.len() >= head + 4 + length {
                    return;
                }
            }
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => return,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("an answer in time");
    String::from_utf8(bytes).unwrap()
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

/// Whether the other side closes within the time, sending nothing.
async fn closes_silently<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let world = World::start(Setting::default());
    let mut client = world.connect().await;
    for path in ["/a", "/b", "/c"] {
        assert!(
            ask(&mut client, path)
                .await
                .contains(&format!("\r\n\r\n{path} 127.0.0.1:"))
        );
    }
    let body = "POST /d HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n";
    client.write_all(body.as_bytes()).await.unwrap();
    client.write_all(&vec![b'x'; 100_000]).await.unwrap();
    assert!(answer(&mut client).await.ends_with(" 100000\n"));
    assert!(ask(&mut client, "/e").await.contains("/e"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::start(Setting::default());
    let mut client = world.connect().await;
    let all = concat!(
        "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        "POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "\r\nGET /d HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /e HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
    );
    client.write_all(all.as_bytes()).await.unwrap();
    world.app.arrived.notified().await;
    world.app.go.notify_one();
    let expected = [
        ("/slow ", " 0\n"),
        ("/b ", " 5\n"),
        ("/c ", " 3\n"),
        ("/d ", " 0\n"),
    ];
    for (path, length) in expected {
        let answer = answer(&mut client).await;
        assert!(
            answer.contains(path) && answer.ends_with(length),
            "{answer}"
        );
    }
    assert!(
        answer(&mut client).await.starts_with("HTTP/1.1 400"),
        "pipelined heads are judged"
    );
    assert!(closes_silently(&mut client).await);
}

#[tokio::test]
async fn a_request_that_comes_while_another_is_served_waits_its_turn() {
    let world = World::start(Setting::default());
    let mut client = world.connect().await;
    client
        .write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    world.app.arrived.notified().await;
    client
        .write_all(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    tokio::task::yield_now().await;
    world.app.go.notify_one();
    assert!(answer(&mut client).await.contains("/slow"));
    assert!(answer(&mut client).await.contains("/next"));
}

#[tokio::test]
async fn a_slow_head_is_answered_408_and_a_big_one_431() {
    let limits = DoorLimits {
        head_timeout: Duration::from_millis(100),
        head_bytes: 1000,
        ..DoorLimits::default()
    };
    let world = World::start(Setting {
        limits,
        ..Setting::default()
    });
    let mut slow = world.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert!(answer(&mut slow).await.starts_with("HTTP/1.1 408"));
    assert!(closes_silently(&mut slow).await);
    let mut big = world.connect().await;
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(60_000)
    );
    big.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut big).await.starts_with("HTTP/1.1 431"));
    let mut pieces = world.connect().await;
    pieces.write_all(b"GET /whole HTT").await.unwrap();
    tokio::task::yield_now().await;
    pieces.write_all(b"P/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(answer(&mut pieces).await.contains("/whole"));
    let told: Vec<Denial> = world
        .refusals
        .lock()
        .iter()
        .map(|(_, why)| why.clone())
        .collect();
    assert_eq!(told, [Denial::HeadTimeout, Denial::HeadTooLarge]);
}

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_word() {
    let limits = DoorLimits {
        keep_alive: Duration::from_millis(100),
        ..DoorLimits::default()
    };
    let world = World::start(Setting {
        limits,
        ..Setting::default()
    });
    let mut silent = world.connect().await;
    assert!(closes_silently(&mut silent).await);
    let mut kept = world.connect().await;
    assert!(ask(&mut kept, "/a").await.contains("/a"));
    assert!(closes_silently(&mut kept).await);
    assert!(world.refusals.lock().is_empty());
    assert_eq!(world.app.requests.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_address_gets_no_more_connections_than_permitted() {
    let limits = DoorLimits {
        connections_per_address: 2,
        ..DoorLimits::default()
    };
    let world = World::start(Setting {
        limits,
        ..Setting::default()
    });
    let (mut first, mut second) = (world.connect().await, world.connect().await);
    assert!(ask(&mut first, "/a").await.contains("/a"));
    assert!(ask(&mut second, "/b").await.contains("/b"));
    assert!(closes_silently(&mut world.connect().await).await);
    drop((first, second));
    while world.drain.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(ask(&mut world.connect().await, "/c").await.contains("/c"));
    assert_eq!(world.door.limits.connections_per_address, 2);
}

#[tokio::test]
async fn the_last_request_of_a_connection_closes_it() {
    let limits = DoorLimits {
        requests_per_connection: 2,
        ..DoorLimits::default()
    };
    let world = World::start(Setting {
        limits,
        ..Setting::default()
    });
    let mut client = world.connect().await;
    assert!(
        !ask(&mut client, "/a")
            .await
            .to_lowercase()
            .contains("connection: close")
    );
    assert!(
        ask(&mut client, "/b")
            .await
            .to_lowercase()
            .contains("connection: close")
    );
    assert!(closes_silently(&mut client).await);
}

#[tokio::test]
async fn a_trusted_proxy_tells_the_client_and_a_stranger_does_not() {
    let world = World::start(Setting {
        proxies: loopback(),
        ..Setting::default()
    });
    let mut one = world.connect().await;
    one.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n")
        .await
        .unwrap();
    assert!(ask(&mut one, "/a").await.contains("/a 192.0.2.7:12345 "));
    let mut two = world.connect().await;
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x09\x0a\0\0\x01\x30\x39\0\x50";
    let request = [header.as_slice(), b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
    two.write_all(&request).await.unwrap();
    assert!(answer(&mut two).await.contains("/b 198.51.100.9:12345 "));
    let mut check = world.connect().await;
    check
        .write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
        .await
        .unwrap();
    assert!(ask(&mut check, "/c").await.contains("/c 127.0.0.1:"));
    let mut without = world.connect().await;
    without
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(
        closes_silently(&mut without).await,
        "the header is demanded"
    );

    let open = World::start(Setting::default());
    let mut liar = open.connect().await;
    let lie = b"PROXY TCP4 192.0.2.7 10.0.0.1 1 80\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    liar.write_all(lie).await.unwrap();
    assert!(!answer(&mut liar).await.contains("192.0.2.7"));
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_finishes_the_others() {
    let world = World::start(Setting::default());
    let (mut idle, mut busy) = (world.connect().await, world.connect().await);
    assert!(ask(&mut idle, "/a").await.contains("/a"));
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    world.app.arrived.notified().await;
    world.drain.start();
    assert!(closes_silently(&mut idle).await);
    assert!(!world.drain.wait_idle(Duration::from_millis(10)).await);
    world.app.go.notify_one();
    assert!(
        answer(&mut busy)
            .await
            .to_lowercase()
            .contains("connection: close")
    );
    assert!(world.drain.wait_idle(Duration::from_secs(5)).await);
    assert!(TcpStream::connect(world.tcp()).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_is_served() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("gateway.sock");
    let _world = World::start(Setting {
        unix: Some(path.clone()),
        ..Setting::default()
    });
    let mut client = UnixStream::connect(&path).await.unwrap();
    assert!(ask(&mut client, "/a").await.contains("/a"));
    assert!(ask(&mut client, "/b").await.contains("/b"));
}

/// Writes a new certificate for `name` (with its key), and returns its DER.
fn certificate(dir: &Path, file: &str, name: &str) -> ((PathBuf, PathBuf), Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let paths = (
        dir.join(format!("{file}.pem")),
        dir.join(format!("{file}.key")),
    );
    std::fs::write(&paths.0, made.cert.pem()).unwrap();
    std::fs::write(&paths.1, made.signing_key.serialize_pem()).unwrap();
    (paths, made.cert.der().to_vec())
}

/// Connects with TLS, trusting whatever `trusted` says; returns the stream.
async fn tls(
    world: &World,
    name: &str,
    trusted: &[Vec<u8>],
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone().into()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector
        .connect(name.to_owned().try_into().unwrap(), world.connect().await)
        .await
}

#[tokio::test]
async fn the_certificate_fits_the_name_and_is_swapped_while_serving() {
    let dir = tempfile::tempdir().unwrap();
    let (first, first_der) = certificate(dir.path(), "first", "one.example");
    let (second, second_der) = certificate(dir.path(), "second", "two.example");
    let settings = ListenerTls {
        certificates: vec![first, second.clone()],
        tls12: true,
        ..ListenerTls::default()
    };
    let keys = listener::load(&settings).unwrap();
    let world = World::start(Setting {
        tls: Some(Arc::clone(&keys)),
        ..Setting::default()
    });
    let one = [first_der];
    let two = [second_der];
    let mut client = tls(&world, "one.example", &one, b"http/1.1").await.unwrap();
    assert!(ask(&mut client, "/a").await.contains("/a 127.0.0.1:"));
    assert!(ask(&mut client, "/b").await.contains("/b"));
    tls(&world, "two.example", &two, b"http/1.1").await.unwrap();
    assert!(tls(&world, "two.example", &one, b"http/1.1").await.is_err());

    assert!(!keys.reload().unwrap(), "nothing changed");
    std::fs::write(&second.0, "broken, and of another length").unwrap();
    assert!(keys.reload().unwrap_err().contains("second.pem"));
    tls(&world, "two.example", &two, b"http/1.1").await.unwrap();
    let (_, renewed) = certificate(dir.path(), "second", "two.example");
    assert!(keys.reload().unwrap());
    tls(&world, "two.example", &[renewed], b"http/1.1")
        .await
        .unwrap();
    assert!(tls(&world, "two.example", &two, b"http/1.1").await.is_err());
    assert!(
        ask(&mut client, "/c").await.contains("/c"),
        "open connections stay"
    );
}

async fn h2_get<S>(stream: S, path: &str) -> String
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::get(format!("http://a{path}"))
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(bytes) = body.data().await {
        text.extend_from_slice(&bytes.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn http2_is_served_with_prior_knowledge_and_by_alpn() {
    let world = World::start(Setting::default());
    assert!(
        h2_get(world.connect().await, "/a")
            .await
            .starts_with("/a 127.0.0.1:")
    );
    let dir = tempfile::tempdir().unwrap();
    let (pair, der) = certificate(dir.path(), "one", "one.example");
    let keys = listener::load(&ListenerTls {
        certificates: vec![pair],
        tls12: false,
        ..ListenerTls::default()
    })
    .unwrap();
    let world = World::start(Setting {
        tls: Some(keys),
        ..Setting::default()
    });
    let stream = tls(&world, "one.example", &[der], b"h2").await.unwrap();
    assert!(h2_get(stream, "/b").await.starts_with("/b 127.0.0.1:"));
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_and_a_busy_one_is_not() {
    let limits = DoorLimits {
        keep_alive: Duration::from_millis(100),
        ..DoorLimits::default()
    };
    let world = World::start(Setting {
        limits,
        ..Setting::default()
    });
    let (client, connection) = h2::client::handshake(world.connect().await).await.unwrap();
    let closed = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::get("http://a/slow").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    world.app.arrived.notified().await;
    // Longer than an idle connection may live.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!closed.is_finished());
    world.app.go.notify_one();
    assert_eq!(response.await.unwrap().status(), 200);
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
    assert!(closed.is_ok(), "it is idle now");
    assert!(world.drain.wait_idle(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_drain_lets_http2_streams_finish_and_takes_no_new_ones() {
    let world = World::start(Setting::default());
    let (client, connection) = h2::client::handshake(world.connect().await).await.unwrap();
    let closed = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = || http::Request::get("http://a/slow").body(()).unwrap();
    let (response, _) = client.send_request(request(), true).unwrap();
    world.app.arrived.notified().await;
    world.drain.start();
    assert!(!world.drain.wait_idle(Duration::from_millis(10)).await);
    world.app.go.notify_one();
    assert_eq!(response.await.unwrap().status(), 200);
    assert!(world.drain.wait_idle(Duration::from_secs(10)).await);
    assert!(
        closed.await.unwrap().is_ok(),
        "GOAWAY, not a broken connection"
    );
    assert!(client.ready().await.is_err());
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Writes pieces until the other side cuts the connection off; how many were written.
async fn until_cut(world: &World, mut piece: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut client = world.connect().await;
    client.write_all(PREFACE).await.unwrap();
    let (mut from, mut to) = client.into_split();
    let reading = async move {
        let mut ignored = vec![0; 4096];
        while matches!(from.read(&mut ignored).await, Ok(1..)) {}
    };
    let written = AtomicUsize::new(0);
    let writing = async {
        for number in 0..100_000 {
            if to.write_all(&piece(number)).await.is_err() {
                break;
            }
            written.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let cut = async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cut)
        .await
        .expect("cut off in time");
    u32::try_from(written.into_inner()).unwrap()
}

#[tokio::test]
async fn a_rapid_reset_is_cut_off() {
    let world = World::start(Setting::default());
    let written = until_cut(&world, |number| {
        let stream = (number * 2 + 1).to_be_bytes();
        // GET, http, /, from HPACK's static table, and authority "a".
        let mut frames = vec![0, 0, 6, 1, 5];
        frames.extend_from_slice(&stream);
        frames.extend_from_slice(&[0x82, 0x86, 0x84, 0x41, 1, b'a']);
        frames.extend_from_slice(&[0, 0, 4, 3, 0]);
        frames.extend_from_slice(&stream);
        frames.extend_from_slice(&[0, 0, 0, 8]);
        frames
    })
    .await;
    assert!(written < 5_000, "cut after {written}");
    assert!(
        h2_get(world.connect().await, "/a").await.starts_with("/a"),
        "others are served"
    );
}

#[tokio::test]
async fn a_flood_of_pings_is_cut_off() {
    let world = World::start(Setting::default());
    let ping = [[0, 0, 8, 6, 0, 0, 0, 0, 0].as_slice(), &[0; 8]].concat();
    let written = until_cut(&world, |_| ping.clone()).await;
    assert!(written < 20_000, "cut after {written}");
}

#[tokio::test]
async fn a_successor_takes_the_sockets_and_no_connection_is_lost() {
    let state = tempfile::tempdir().unwrap();
    assert!(
        handover::take_over(state.path()).unwrap().is_none(),
        "nobody is running"
    );
    let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let bound = Bound::bind(&address).unwrap();
    let address = bound.local_address().clone();
    let held = listener::lock(state.path(), &address).unwrap();
    let offered = handover::Offer {
        sockets: vec![(address.clone(), 0, bound.try_clone_fd().unwrap())],
        locks: vec![(address.clone(), held.try_clone_fd().unwrap())],
    };
    let old = World::start_on(bound, Setting::default());
    let mut kept = old.connect().await;
    assert!(ask(&mut kept, "/old").await.contains("/old"));
    let dir = state.path().to_owned();
    let confirmed = tokio::spawn(async move { handover::offer(&dir, offered).await });
    tokio::task::yield_now().await;

    let dir = state.path().to_owned();
    let take = move || handover::take_over(&dir);
    let taken = tokio::task::spawn_blocking(take)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let mut taken = taken;
    let (address, worker, socket) = taken.sockets.pop().unwrap();
    assert_eq!((worker, &address), (0, &old.address));
    let new = World::start_on(
        Bound::from_fd(socket, &address).unwrap(),
        Setting::default(),
    );
    let locks = taken.confirm().unwrap();
    confirmed.await.unwrap().unwrap();
    // In the queue of both when the old one stops.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(new.connect().await);
    }
    old.drain.start();
    drop(held);
    for client in &mut waiting {
        assert!(ask(client, "/x").await.contains("/x"));
    }
    drop(waiting);
    assert!(closes_silently(&mut kept).await);
    assert!(old.drain.wait_idle(Duration::from_secs(5)).await);
    assert!(ask(&mut new.connect().await, "/new").await.contains("/new"));
    assert!(new.app.requests.load(Ordering::Relaxed) > 0);
    assert!(
        listener::lock(state.path(), &address).is_err(),
        "the lock came along"
    );
    drop(locks);
    assert!(listener::lock(state.path(), &address).is_ok());
}
