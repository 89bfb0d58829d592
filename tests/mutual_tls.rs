//! Client certificates: who is believed, whom they name, and when they stop counting.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::Request;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use tokio_rustls::TlsConnector;
use world::{Answer, Client, PATIENCE, Plan, Service, Then, World, api_file, eventually, http2};

const NAME: &str = "gateway.test";
const SHOP: &str = "spiffe://example.org/shop";
const DESK: &str = "CN=desk,O=Example";
/// In the consumers' file nobody is known by it.
const NOBODY: &str = "spiffe://example.org/nobody";
const ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

const SPEC: &str = "openapi: 3.1.0
info: { title: Shop, version: '1' }
components:
  securitySchemes:
    certificate: { type: mutualTLS }
    key: { type: apiKey, in: header, name: x-api-key }
security: [{ certificate: [] }]
paths:
  /public: { get: { operationId: public, security: [], responses: { default: { description: any } } } }
  /shown: { get: { operationId: shown, responses: { default: { description: any } } } }
  /both: { get: { operationId: both, security: [{ certificate: [], key: [] }], responses: { default: { description: any } } } }
  /either: { get: { operationId: either, security: [{ certificate: [] }, { key: [] }], responses: { default: { description: any } } } }
";

const CONSUMERS: &str = "organisations:
  example:
    projects:
      main:
        consumers:
          shop: { certificates: ['spiffe://example.org/shop'], subscriptions: { shop: all } }
          desk: { certificates: ['CN=desk,O=Example'], subscriptions: { shop: all } }
";

const PLANS: &str = "plans:\n  all: { apis: { shop: all } }\n";

/// Vouches for clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(parameters, key);
        Self { issuer, pem }
    }

    /// A certificate with these SPIFFE IDs, or that of `desk` where there are none, valid until `until` (seconds from now).
    fn issue_until(&self, uris: &[&str], until: i64) -> Shown {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        if uris.is_empty() {
            let name = &mut parameters.distinguished_name;
            name.push(DnType::OrganizationName, "Example");
            name.push(DnType::CommonName, "desk");
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        parameters.subject_alt_names = uris.iter().map(uri).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = date_time_ymd(1970, 1, 1) + now;
        let shift = Duration::from_secs(until.unsigned_abs());
        parameters.not_before = now - Duration::from_secs(3600);
        parameters.not_after = if until < 0 { now - shift } else { now + shift };
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Shown {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
        }
    }

    fn issue(&self, uris: &[&str]) -> Shown {
        self.issue_until(uris, 3600)
    }
}

/// What a client shows.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// A gateway that asks its clients for certificates.
struct Gate {
    world: World,
    service: Service,
    directory: tempfile::TempDir,
    root: CertificateDer<'static>,
}

/// Puts a file there in one step, as those who renew certificates do.
fn put(directory: &Path, file: &str, text: &str) {
    let new = directory.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.join(file)).unwrap();
}

impl Gate {
    /// Believes clients by `authority`; `mode` is `off`, `optional` or `required`.
    fn start(authority: &Authority, mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, service) = (directory.path(), Service::new());
        let (plan, root) = Self::plan(path, &service, authority, mode);
        plan.write(path);
        put(path, "config/consumers.yaml", CONSUMERS);
        put(path, "config/plans.yaml", PLANS);
        Self {
            world: plan.start_again(path),
            service,
            root,
            directory,
        }
    }

    /// What it is started with, and what its clients believe it by.
    fn plan(
        path: &Path,
        service: &Service,
        authority: &Authority,
        mode: &str,
    ) -> (Plan, CertificateDer<'static>) {
        let own = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        put(path, "server.pem", &own.cert.pem());
        put(path, "server.key", &own.signing_key.serialize_pem());
        put(path, "clients.pem", &authority.pem);
        put(path, "spec.yaml", SPEC);
        let file = |name: &str| path.join(name).display().to_string();
        let process = format!(
            "control: {{ api: 127.0.0.1:0 }}
listeners:
  - address: 127.0.0.1:0
    tls:
      certificates: [{{ cert: {}, key: {} }}]
      client_ca: {}
      client_certificates: {mode}
",
            file("server.pem"),
            file("server.key"),
            file("clients.pem"),
        );
        let api = api_file(&path.join("spec.yaml"), &service.url(), "");
        let plan = Plan::bookstore(service).api("shop", api).process(&process);
        (plan, own.cert.der().clone())
    }

    fn config(
        &self,
        shown: Option<&Shown>,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[u8],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(Shown { chain, key }) => {
                let key = PrivateKeyDer::try_from(key.clone()).unwrap();
                config.with_client_auth_cert(chain.clone(), key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }

    /// A connection over HTTP/1.1 and the newest TLS.
    fn connect(&self, shown: Option<&Shown>) -> Kept {
        Kept::connect(self.world.address, self.config(shown, ONLY_13, b"http/1.1"))
    }

    /// GET on a connection of its own.
    fn get(&self, shown: Option<&Shown>, path: &str) -> io::Result<Answer> {
        self.connect(shown).get(path, &[])
    }

    /// Status of GET on a connection of its own; none where it fails.
    fn status(&self, shown: Option<&Shown>, path: &str) -> Option<u16> {
        self.get(shown, path).ok().map(|answer| answer.status)
    }

    /// Whom the service was told of with its last call.
    fn consumer(&self) -> Option<String> {
        let call = self.service.last();
        call.header("x-tollgate-consumer").map(str::to_owned)
    }

    /// One call of the control API.
    fn administer(&self, path: &str, body: &serde_json::Value) -> Answer {
        let mut place = None;
        eventually("the control API is announced", || {
            let log = self.world.log();
            let mut lines = log.lines();
            place = lines.find_map(|line| {
                let rest = line.split_once("control API on ")?.1;
                let (address, credential) = rest.split_once(", credential in ")?;
                let address: SocketAddr = address.parse().ok()?;
                Some((address, credential.to_owned()))
            });
            place.is_some()
        });
        let (address, file) = place.unwrap();
        let credential = std::fs::read_to_string(file).unwrap();
        let authorization = format!("Bearer {}", credential.trim());
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        let mut client = Client::connect(address);
        let body = body.to_string();
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n{body}", body.len());
        client.send(head.as_bytes());
        client.answer_to("POST").expect("a complete answer")
    }
}

/// A connection that is kept for several requests.
struct Kept(StreamOwned<ClientConnection, TcpStream>);

impl Kept {
    fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = NAME.to_owned().try_into().unwrap();
        Self(StreamOwned::new(
            ClientConnection::new(config, name).unwrap(),
            stream,
        ))
    }

    /// # Errors
    /// The handshake failed: under TLS 1.3 that shows in place of the first answer.
    fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        let mut answer = self.begin(path, headers)?;
        let length = answer.header("content-length").expect("a length");
        answer.body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// As [`Self::get`], but the body is not read.
    fn begin(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.0.write_all(format!("{head}\r\n").as_bytes())?;
        self.0.flush()?;
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            bytes.push(byte[0]);
        }
        let text = String::from_utf8(bytes).unwrap();
        Ok(Answer {
            status: text[9..12].parse().unwrap(),
            headers: text
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        })
    }

    fn status(&mut self, path: &str) -> u16 {
        self.get(path, &[]).expect("an answer").status
    }
}

#[test]
fn a_certificate_names_its_owner_under_both_versions_of_tls_and_of_http() {
    let authority = Authority::new();
    let gate = Gate::start(&authority, "optional");
    let (shop, desk) = (authority.issue(&[SHOP]), authority.issue(&[]));
    for versions in [ONLY_12, ONLY_13] {
        for (shown, consumer) in [(&shop, "shop"), (&desk, "desk")] {
            let config = gate.config(Some(shown), versions, b"http/1.1");
            let mut kept = Kept::connect(gate.world.address, config);
            for _ in 0..2 {
                let answer = kept.get("/shown", &[("x-tollgate-consumer", "root")]);
                assert_eq!(answer.unwrap().status, 200);
                assert_eq!(gate.consumer().as_deref(), Some(consumer));
            }
            let config = gate.config(Some(shown), versions, b"h2");
            let status = http2::block_on(async {
                let stream = tokio::net::TcpStream::connect(gate.world.address);
                let name = NAME.to_owned().try_into().unwrap();
                let tls = TlsConnector::from(config).connect(name, stream.await.unwrap());
                let request = Request::get(format!("https://{NAME}/shown"));
                let request = request.body(()).unwrap();
                let answer = http2::call_over(tls.await.unwrap(), request).await;
                answer.unwrap().status
            });
            assert_eq!(status, 200);
            assert_eq!(gate.consumer().as_deref(), Some(consumer));
        }
    }
}

#[test]
fn where_certificates_are_optional_only_their_operations_need_one() {
    let authority = Authority::new();
    let gate = Gate::start(&authority, "optional");
    let none = gate.get(None, "/shown").unwrap();
    none.is_problem(401, "credential_required");
    assert_eq!(gate.status(None, "/public"), Some(200));
    assert_eq!(gate.consumer(), None);
    // The roots vouch for it: that is all the OpenAPI file demands. It stands for no consumer.
    let nobody = authority.issue(&[NOBODY]);
    assert_eq!(gate.status(Some(&nobody), "/shown"), Some(200));
    assert_eq!(gate.consumer(), None);
    // It could be either of two: none at all.
    let two = authority.issue(&[SHOP, NOBODY]);
    assert_eq!(gate.status(Some(&two), "/public"), Some(200));
    let answer = gate.get(Some(&two), "/shown").unwrap();
    answer.is_problem(401, "credential_required");
    eventually("the log tells why", || {
        gate.world.log().contains("counts as none shown")
    });
    // What is shown must be good, even where nothing had to be shown.
    let forged = Authority::new().issue(&[SHOP]);
    let expired = authority.issue_until(&[SHOP], -60);
    for bad in [forged, expired] {
        assert_eq!(gate.status(Some(&bad), "/public"), None);
    }
    assert_eq!(gate.service.calls().len(), 3);
}

#[test]
fn where_certificates_are_required_there_is_no_handshake_without_one() {
    let authority = Authority::new();
    let gate = Gate::start(&authority, "required");
    let good = authority.issue(&[SHOP]);
    let two = authority.issue(&[SHOP, NOBODY]);
    let forged = Authority::new().issue(&[SHOP]);
    for versions in [ONLY_12, ONLY_13] {
        for bad in [None, Some(&two), Some(&forged)] {
            let config = gate.config(bad, versions, b"http/1.1");
            let refused = Kept::connect(gate.world.address, config).get("/public", &[]);
            assert!(refused.is_err(), "{refused:?}");
        }
    }
    assert_eq!(gate.service.calls().len(), 0);
    let text = "cause=\"handshake\"";
    assert!(gate.world.metrics().contains(text));
    assert_eq!(gate.status(Some(&good), "/public"), Some(200));
    assert_eq!(gate.status(Some(&good), "/shown"), Some(200));
    assert_eq!(gate.consumer().as_deref(), Some("shop"));
}

#[test]
fn a_certificate_and_a_key_must_be_of_the_same_consumer() {
    let authority = Authority::new();
    let gate = Gate::start(&authority, "optional");
    let key = |consumer: &str| {
        let path = format!("/v1/consumers/{consumer}/keys");
        let made = gate.administer(&path, &serde_json::json!({}));
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        let values = made.as_object().unwrap().values();
        let mut texts = values.filter_map(serde_json::Value::as_str);
        texts.find(|it| it.starts_with("tg_")).unwrap().to_owned()
    };
    let (shops, desks) = (key("shop"), key("desk"));
    let shop = authority.issue(&[SHOP]);
    let nobody = authority.issue(&[NOBODY]);
    for (shown, key, path, status) in [
        (Some(&shop), Some(&shops), "/both", 200),
        (Some(&shop), Some(&desks), "/both", 401),
        (Some(&shop), None, "/both", 401),
        (None, Some(&shops), "/both", 401),
        // Vouched for by the certificate, known by the key.
        (Some(&nobody), Some(&shops), "/both", 200),
        (Some(&shop), None, "/either", 200),
        (None, Some(&shops), "/either", 200),
        (None, None, "/either", 401),
    ] {
        let headers: Vec<_> = key
            .map(|key| ("x-api-key", key.as_str()))
            .into_iter()
            .collect();
        let before = gate.service.calls().len();
        let answer = gate.connect(shown).get(path, &headers).unwrap();
        assert_eq!(answer.status, status, "{path} {}", answer.text());
        assert_eq!(gate.service.calls().len() > before, status == 200);
        if status == 200 {
            assert_eq!(gate.consumer().as_deref(), Some("shop"));
        }
    }
}

#[test]
fn a_kept_connection_outlives_its_certificate_but_does_not_speak_for_it() {
    let authority = Authority::new();
    let gate = Gate::start(&authority, "required");
    let mut kept = gate.connect(Some(&authority.issue_until(&[SHOP], 4)));
    assert_eq!(kept.status("/shown"), 200);
    eventually("the certificate has expired", || {
        kept.status("/shown") == 401
    });
    let answer = kept.get("/shown", &[]).unwrap();
    answer.is_problem(401, "credential_invalid");
    assert_eq!(kept.status("/public"), 200, "the connection itself stays");
}

#[test]
fn a_revoked_certificate_is_refused_within_a_second_on_kept_connections_too() {
    let authority = Authority::new();
    let gate = Gate::start(&authority, "optional");
    let shop = authority.issue(&[SHOP]);
    for (name, uris) in [(SHOP, &[SHOP][..]), (DESK, &[]), (NOBODY, &[NOBODY])] {
        let shown = authority.issue(uris);
        let mut kept = gate.connect(Some(&shown));
        assert_eq!(kept.status("/shown"), 200);
        let what = serde_json::json!({ "kind": "certificate", "name": name, "reason": "lost" });
        assert_eq!(gate.administer("/v1/revocations", &what).status, 201);
        let revoked = Instant::now();
        loop {
            match kept.get("/shown", &[]) {
                Ok(answer) if answer.status == 401 => break,
                Ok(_) => (),
                // It was under way at the wrong moment.
                Err(_) => kept = gate.connect(Some(&shown)),
            }
            assert!(revoked.elapsed() < Duration::from_secs(1), "{name}");
        }
    }
    assert_eq!(gate.status(Some(&shop), "/shown"), Some(401));
    assert_eq!(gate.status(Some(&shop), "/public"), Some(200));
}

#[test]
fn a_stream_ends_with_the_certificate_that_it_was_opened_with() {
    let authority = Authority::new();
    let gate = Gate::start(&authority, "optional");
    gate.service.now(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
        stream.write_all(head).unwrap();
        Then::Hold
    });
    let open = |uris: &[&str]| {
        let mut kept = gate.connect(Some(&authority.issue(uris)));
        assert_eq!(kept.begin("/shown", &[]).unwrap().status, 200);
        kept
    };
    let (shop, nobody, desk) = (open(&[SHOP]), open(&[NOBODY]), open(&[]));
    // Whatever was held of the directory about those without a consumer is forgotten.
    let made = gate.administer("/v1/consumers/desk/keys", &serde_json::json!({}));
    assert_eq!(made.status, 201, "{made:?}");
    for (name, mut kept) in [(SHOP, shop), (NOBODY, nobody)] {
        let what = serde_json::json!({ "kind": "certificate", "name": name });
        assert_eq!(gate.administer("/v1/revocations", &what).status, 201);
        let revoked = Instant::now();
        let _torn = kept.0.read_to_end(&mut Vec::new());
        assert!(revoked.elapsed() < Duration::from_secs(1), "{name}");
    }
    let mut desk = desk;
    let patience = Some(Duration::from_millis(200));
    desk.0.sock.set_read_timeout(patience).unwrap();
    let waiting = desk.0.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(matches!(
        waiting.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ));
}

#[test]
fn new_roots_are_believed_without_a_restart_and_broken_ones_are_not_taken() {
    let (old, new) = (Authority::new(), Authority::new());
    let gate = Gate::start(&old, "optional");
    let (olds, news) = (old.issue(&[SHOP]), new.issue(&[SHOP]));
    assert_eq!(gate.status(Some(&olds), "/shown"), Some(200));
    assert_eq!(gate.status(Some(&news), "/shown"), None);

    put(gate.directory.path(), "clients.pem", "broken");
    eventually("the broken file is noticed", || {
        gate.world.log().contains("clients.pem")
    });
    assert!(gate.world.log().contains("the old ones"));
    assert_eq!(gate.status(Some(&olds), "/shown"), Some(200));

    put(gate.directory.path(), "clients.pem", &new.pem);
    eventually("the new roots are believed", || {
        gate.status(Some(&news), "/shown") == Some(200)
    });
    assert_eq!(gate.status(Some(&olds), "/shown"), None);
}

#[test]
fn every_connection_with_a_certificate_has_it_looked_at() {
    let authority = Authority::new();
    let shop = authority.issue(&[SHOP]);
    for (mode, kind) in [
        ("off", HandshakeKind::Resumed),
        ("optional", HandshakeKind::Full),
        ("required", HandshakeKind::Full),
    ] {
        let gate = Gate::start(&authority, mode);
        for versions in [ONLY_12, ONLY_13] {
            // Keeps what it needs to resume the session.
            let config = gate.config(Some(&shop), versions, b"http/1.1");
            let status = if mode == "off" { 401 } else { 200 };
            for expected in [HandshakeKind::Full, kind, kind] {
                let mut kept = Kept::connect(gate.world.address, Arc::clone(&config));
                assert_eq!(kept.status("/shown"), status);
                assert_eq!(kept.0.conn.handshake_kind(), Some(expected), "{mode}");
            }
        }
    }
}

#[test]
fn roots_that_cannot_be_read_are_told_at_start() {
    let mut authority = Authority::new();
    authority.pem = "nothing".to_owned();
    let (directory, service) = (tempfile::tempdir().unwrap(), Service::new());
    let (plan, _) = Gate::plan(directory.path(), &service, &authority, "optional");
    let told = World::refused(plan);
    assert!(told.contains("clients.pem"), "{told}");
}
