//! The ways into a gateway: TLS by name, PROXY protocol, Unix sockets, and what a connection may say about itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Request;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use world::{Client, PATIENCE, Plan, Service, World, api_file, bookstore, eventually, http2};

/// A certificate for these names, in `directory/name.pem` and `.key`; its own authority.
fn certificate(directory: &Path, file: &str, names: &[&str]) -> CertificateDer<'static> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let write = |end: &str, text: String| {
        // In one step, as those who renew certificates do.
        let (new, path) = (
            directory.join("new"),
            directory.join(format!("{file}.{end}")),
        );
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    };
    write("key", made.signing_key.serialize_pem());
    write("pem", made.cert.pem());
    made.cert.der().clone()
}

/// The bookstore behind these listeners.
fn listening(service: &Service, listeners: &str) -> World {
    Plan::bookstore(service)
        .api("books", api_file(&bookstore(), &service.url(), ""))
        .process(&format!("listeners:\n{listeners}"))
        .start()
}

/// A TLS listener with these pairs of `directory`.
fn tls_listener(directory: &Path, files: &[&str]) -> String {
    let mut text = "  - address: 127.0.0.1:0\n    tls:\n      certificates:\n".to_owned();
    for file in files {
        let path = |end: &str| {
            directory
                .join(format!("{file}.{end}"))
                .display()
                .to_string()
        };
        text += &format!(
            "        - {{ cert: {}, key: {} }}\n",
            path("pem"),
            path("key")
        );
    }
    text
}

/// A TLS client that believes these certificates and no other.
#[derive(Clone)]
struct Believer {
    roots: Vec<CertificateDer<'static>>,
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: &'static [u8],
}

const ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

impl Believer {
    fn of(roots: &[&CertificateDer<'static>]) -> Self {
        Self {
            roots: roots.iter().map(|root| (*root).clone()).collect(),
            versions: BOTH,
            alpn: b"http/1.1",
        }
    }

    async fn connect(&self, world: &World, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots.add(root.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let stream = TcpStream::connect(world.address).await?;
        let name = name.to_owned().try_into().unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// Whether a handshake by this name succeeds.
    fn is_convinced(&self, world: &World, name: &str) -> bool {
        http2::block_on(self.connect(world, name)).is_ok()
    }

    /// GET over HTTP/1.1 on a connection made by `name`, asking for `host`: the whole answer.
    fn get(&self, world: &World, name: &str, host: &str) -> String {
        http2::block_on(async {
            let mut stream = self.connect(world, name).await.expect("a handshake");
            let request =
                format!("GET /v1/books HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _closed_without_goodbye = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        })
    }
}

#[test]
fn certificates_are_chosen_by_name_under_both_versions_of_tls() {
    let directory = tempfile::tempdir().unwrap();
    let one = certificate(directory.path(), "one", &["one.example"]);
    let two = certificate(directory.path(), "two", &["two.example"]);
    let service = Service::new();
    let world = listening(&service, &tls_listener(directory.path(), &["one", "two"]));
    for versions in [ONLY_12, ONLY_13] {
        let believer = |root| Believer {
            versions,
            ..Believer::of(&[root])
        };
        for (name, right, wrong) in [("one.example", &one, &two), ("two.example", &two, &one)] {
            let answer = believer(right).get(&world, name, name);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{versions:?} {answer}");
            assert!(!believer(wrong).is_convinced(&world, name));
        }
    }
    assert_eq!(service.calls().len(), 4);
    for call in service.calls() {
        assert_eq!(call.header("x-forwarded-proto"), Some("https"));
    }
    assert_eq!(world.access_log(4)[0]["tls"], true);
}

#[test]
fn new_certificates_are_served_without_a_restart_and_broken_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let old = certificate(directory.path(), "one", &["one.example"]);
    let service = Service::new();
    let world = listening(&service, &tls_listener(directory.path(), &["one"]));
    let kept = http2::block_on(Believer::of(&[&old]).connect(&world, "one.example"));
    assert!(kept.is_ok());

    let file = directory.path().join("one.pem");
    std::fs::write(&file, "broken, and of another length").unwrap();
    eventually("the broken file is noticed", || {
        world.log().contains("the old ones are served")
    });
    assert!(
        world.log().contains("one.pem"),
        "the message names the file"
    );
    assert!(Believer::of(&[&old]).is_convinced(&world, "one.example"));

    let new = certificate(directory.path(), "one", &["one.example"]);
    eventually("the new pair is served", || {
        Believer::of(&[&new]).is_convinced(&world, "one.example")
    });
    assert!(!Believer::of(&[&old]).is_convinced(&world, "one.example"));
}

#[test]
fn a_request_for_a_site_of_another_certificate_is_misdirected() {
    let directory = tempfile::tempdir().unwrap();
    let one = certificate(directory.path(), "one", &["one.example", "also.example"]);
    let two = certificate(directory.path(), "two", &["*.two.example"]);
    let service = Service::new();
    let world = listening(&service, &tls_listener(directory.path(), &["one", "two"]));
    let client = Believer::of(&[&one, &two]);
    for (name, host, status) in [
        ("one.example", "one.example", 200),
        ("one.example", "ONE.example:8443", 200),
        // Names of one certificate may share a connection.
        ("one.example", "also.example", 200),
        ("a.two.example", "b.two.example", 200),
        // No site of its own: the APIs decide.
        ("one.example", "elsewhere.example", 200),
        ("one.example", "127.0.0.1", 200),
        ("one.example", "a.two.example", 421),
        ("a.two.example", "one.example", 421),
    ] {
        let answer = client.get(&world, name, host);
        let begins = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&begins), "{name} for {host}: {answer}");
        assert_eq!(answer.contains("misdirected"), status == 421, "{answer}");
    }
    let before = service.calls().len();
    let answer = http2::block_on(async {
        let client = Believer {
            alpn: b"h2",
            ..client
        };
        let stream = client.connect(&world, "one.example").await.unwrap();
        let request = Request::get("https://a.two.example/v1/books")
            .body(())
            .unwrap();
        http2::call_over(stream, request).await.unwrap()
    });
    answer.is_problem(421, "misdirected");
    assert_eq!(world.record(answer.request_id())["denial"], "misdirected");
    assert_eq!(service.calls().len(), before);
}

const FROM_LOOPBACK: &str = "  - address: 127.0.0.1:0\n    proxy_protocol_from: [127.0.0.0/8]\n";
const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x09\x0a\0\0\x01\x30\x39\0\x50";
const REQUEST: &[u8] = b"GET /v1/books HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn a_trusted_balancer_tells_who_the_client_is() {
    let service = Service::new();
    let world = listening(&service, FROM_LOOPBACK);
    let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n";
    for (header, client) in [(v1.as_slice(), "192.0.2.7"), (PROXY_V2, "198.51.100.9")] {
        let answer = world.raw(&[header, REQUEST].concat()).expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(service.last().header("x-forwarded-for"), Some(client));
        let record = world.record(answer.header("x-request-id").unwrap());
        assert_eq!(record["client"], format!("{client}:12345"), "{record}");
    }
    let mut without = world.client();
    without.send(REQUEST);
    assert!(
        without.is_closed(),
        "the header is demanded of who is believed"
    );
    assert!(world.metrics().contains("cause=\"proxy_protocol\""));
    assert_eq!(service.calls().len(), 2);
}

#[test]
fn a_stranger_does_not_tell_who_the_client_is() {
    let service = Service::new();
    let elsewhere = FROM_LOOPBACK.replace("127.0.0.0/8", "192.0.2.0/24");
    for listener in ["  - address: 127.0.0.1:0\n", &elsewhere] {
        let world = listening(&service, listener);
        let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 1 80\r\n".as_slice();
        for header in [v1, PROXY_V2] {
            let answer = world.raw(&[header, REQUEST].concat()).expect("an answer");
            answer.is_problem(400, "malformed_request");
            let record = world.record(answer.header("x-request-id").unwrap());
            assert!(
                record["client"].as_str().unwrap().starts_with("127.0.0.1:"),
                "{record}"
            );
        }
    }
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn a_unix_socket_is_served_like_any_other() {
    let service = Service::new();
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("gateway.sock");
    let listeners = format!(
        "  - address: 127.0.0.1:0\n  - address: unix:{}\n",
        path.display()
    );
    let mut world = listening(&service, &listeners);
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /v1/books HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(
        service.last().header("forwarded"),
        Some("for=unknown;host=\"x\";proto=http")
    );
    let refused = ask("GET /v1/../x HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert_eq!(world.access_log(2)[0]["status"], 200);
    assert_eq!(world.get("/v1/books").status, 200, "the other listener too");
    world.signal("TERM");
    assert!(world.ended().success());
}

#[test]
fn fields_that_connection_names_end_here_however_many_lines_name_them() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let answer = world.ask(
        "GET",
        "/v1/books",
        &[
            ("connection", "x-one"),
            ("x-one", "1"),
            ("connection", "x-two, , keep-alive"),
            ("x-two", "2"),
            ("x-three", "3"),
        ],
        b"",
    );
    assert_eq!(answer.status, 200);
    let call = service.last();
    assert_eq!(call.header("x-one"), None, "{}", call.head);
    assert_eq!(call.header("x-two"), None, "{}", call.head);
    assert_eq!(call.header("x-three"), Some("3"));
}

#[test]
fn nobody_has_our_own_fields_removed() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for name in ["x-forwarded-for", "Host", "content-length", "authorization"] {
        let mut client = Client::connect(world.address);
        client.request("GET", "/v1/books", &[("connection", name)], b"");
        let answer = client.answer().unwrap();
        answer.is_problem(400, "malformed_request");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("Connection"), "{name}: {detail}");
    }
    assert_eq!(service.calls().len(), 0);
}
