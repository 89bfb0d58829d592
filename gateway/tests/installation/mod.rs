//! An installation for tests: a certificate authority, instances of services that say who they are and who called, and a data plane
//! among them, in this process. Not here: what is promised.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of this"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tollgate_gateway::engine::{Engine, Opened};
use tollgate_gateway::live::Origin;
use tollgate_gateway::node::{Held, Mesh, NodeIdentity, ServiceEndpoint, Services};
use tollgate_policy::settings::{AccessLogTarget, ListenAddress, ListenerConfig, ProcessConfig};
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::ControlServer;

/// The longest anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Its own domain of trust.
pub const DOMAIN: &str = "shop.example";

pub fn service_id(name: &str) -> WorkloadId {
    format!("spiffe://{DOMAIN}/service/{name}").parse().unwrap()
}

/// Who vouches for all.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(parameters, key).unwrap();
        Self { issuer }
    }

    /// A new certificate for a workload.
    pub fn issue(&self, id: &WorkloadId) -> Held {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.subject_alt_names = vec![
            SanType::URI(id.to_string().try_into().unwrap()),
            SanType::DnsName(id.dns_name().try_into().unwrap()),
        ];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let own = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&own, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
        let chain = vec![certificate.der().clone()];
        let root = self.issuer.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).unwrap();
        Held {
            id: id.clone(),
            chain,
            key,
            certified: Arc::new(certified),
            root_certificates: vec![root],
            roots: Arc::new(roots),
        }
    }
}

/// A short name of a certificate.
pub fn print(certificate: &CertificateDer<'_>) -> String {
    let tail = certificate.iter().rev().take(8);
    tail.map(|byte| format!("{byte:02x}")).collect()
}

/// An instance of a service. It answers with its name and the print of the caller's certificate (`-` without); under `/slow` not before
/// [`Instance::go`].
pub struct Instance {
    pub address: SocketAddr,
    pub id: Option<WorkloadId>,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    name: String,
    calls: AtomicUsize,
    connections: AtomicUsize,
    heads: parking_lot::Mutex<Vec<String>>,
    slow: Notify,
    go: Notify,
}

impl Instance {
    /// In cleartext.
    pub async fn plain(name: &str) -> Self {
        Self::start(name, None).await
    }

    /// As the workload that `held` says, for whoever shows a certificate of its authority.
    pub async fn of(name: &str, held: &Held) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&held.roots), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(held.chain.clone(), held.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut instance = Self::start(name, Some(TlsAcceptor::from(Arc::new(config)))).await;
        instance.id = Some(held.id.clone());
        instance
    }

    async fn start(name: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            name: name.to_owned(),
            ..Seen::default()
        });
        let serving = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (tls, seen) = (tls.clone(), Arc::clone(&seen));
                    tokio::spawn(welcome(stream, tls, seen));
                }
            }
        });
        Self {
            address,
            id: None,
            seen,
            serving,
        }
    }

    pub fn endpoint(&self) -> ServiceEndpoint {
        ServiceEndpoint {
            address: self.address,
            id: self.id.clone(),
        }
    }

    pub fn calls(&self) -> usize {
        self.seen.calls.load(SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    /// Heads of the calls, method and target first.
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().clone()
    }

    /// Waits until a slow call is here.
    pub async fn slow(&self) {
        within(self.seen.slow.notified()).await;
    }

    /// Lets a slow call be answered.
    pub fn go(&self) {
        self.seen.go.notify_one();
    }

    /// Takes no more connections.
    pub fn close(&self) {
        self.serving.abort();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn welcome(stream: TcpStream, tls: Option<TlsAcceptor>, seen: Arc<Seen>) {
    let Some(tls) = tls else {
        seen.connections.fetch_add(1, SeqCst);
        let mut preface = [0; 3];
        let h2 = stream.peek(&mut preface).await.is_ok() && &preface == b"PRI";
        return serve(stream, h2, "-".to_owned(), seen).await;
    };
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    seen.connections.fetch_add(1, SeqCst);
    let shown = stream.get_ref().1.peer_certificates().unwrap();
    let caller = print(&shown[0]);
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    serve(stream, h2, caller, seen).await;
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    h2: bool,
    caller: String,
    seen: Arc<Seen>,
) {
    match h2 {
        true => speak_h2(stream, caller, seen).await,
        false => speak_h1(stream, caller, seen).await,
    }
}

async fn speak_h1(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    caller: String,
    seen: Arc<Seen>,
) {
    let mut held = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = held.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(stream.read_buf(&mut held).await, Ok(1..)) {
                return;
            }
        };
        let head = String::from_utf8(held.drain(..end).collect()).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        while held.len() < length.unwrap_or(0) {
            if !matches!(stream.read_buf(&mut held).await, Ok(1..)) {
                return;
            }
        }
        held.drain(..length.unwrap_or(0));
        seen.call(head.clone(), head.contains(" /slow")).await;
        let body = format!("{} {caller}", seen.name);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn speak_h2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: String,
    seen: Arc<Seen>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (seen, caller) = (Arc::clone(&seen), caller.clone());
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            while let Some(Ok(bytes)) = body.data().await {
                let _ = body.flow_control().release_capacity(bytes.len());
            }
            let line = format!("{} {}\r\n{:?}", head.method, head.uri, head.headers);
            seen.call(line, head.uri.path() == "/slow").await;
            let answer = http::Response::builder().status(200);
            let answer = answer.header("content-type", "application/grpc");
            let mut send = respond
                .send_response(answer.body(()).unwrap(), false)
                .unwrap();
            let body = format!("{} {caller}", seen.name);
            let _ = send.send_data(Bytes::from(body), false);
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let _ = send.send_trailers(trailers);
        });
    }
}

impl Seen {
    async fn call(&self, head: String, slow: bool) {
        self.heads.lock().push(head);
        self.calls.fetch_add(1, SeqCst);
        if slow {
            self.slow.notify_one();
            self.go.notified().await;
        }
    }
}

/// A data plane, until the test ends.
pub struct Plane {
    /// Where callers connect.
    pub inbound: SocketAddr,
    /// Where the app connects.
    pub outbound: SocketAddr,
    pub admin: SocketAddr,
    pub identity: Arc<NodeIdentity>,
    pub services: Arc<Services>,
    directory: tempfile::TempDir,
    _control: ControlServer,
}

/// What a data plane starts with.
pub struct Setup {
    directory: tempfile::TempDir,
    pub process: ProcessConfig,
    pub mesh: Mesh,
}

impl Setup {
    /// In an installation that tells where services live.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("apis")).unwrap();
        let mut process = ProcessConfig::default_for(1, directory.path().join("state"));
        let any = || ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        process.listeners = vec![
            ListenerConfig::cleartext(any()),
            ListenerConfig::outbound(any()),
        ];
        process.admin = ([127, 0, 0, 1], 0).into();
        process.access_log = AccessLogTarget::File(directory.path().join("access.log"));
        let mesh = Mesh {
            identity: NodeIdentity::none(),
            services: Arc::default(),
        };
        let setup = Self {
            directory,
            process,
            mesh,
        };
        // Nobody is ready who serves nothing.
        setup.api("own", "http://127.0.0.1:9")
    }

    /// An API before `upstream`, under `/NAME`.
    pub fn api(self, name: &str, upstream: &str) -> Self {
        let apis = self.directory.path().join("apis");
        let spec = "openapi: 3.1.0
info: { title: any, version: '1' }
paths:
  /hello:
    get: { operationId: hello, responses: { default: { description: any } } }
    post: { operationId: tell, responses: { default: { description: any } } }
  /slow:
    get: { operationId: slow, responses: { default: { description: any } } }
";
        std::fs::write(self.directory.path().join("spec.yaml"), spec).unwrap();
        let text = format!(
            "spec: ../spec.yaml\nbase_path: /{name}\nrewrite: {{ base_path: '' }}\nupstream: {upstream}\n"
        );
        std::fs::write(apis.join(format!("{name}.yaml")), text).unwrap();
        self
    }

    pub async fn start(self) -> Plane {
        let (identity, services) = (self.mesh.identity.clone(), self.mesh.services.clone());
        let (client, control) = tollgate_proto::channel([0; 32]);
        let origin = Origin::Directory(self.directory.path().to_owned());
        let opened = Opened::open(self.process, false).unwrap().within(self.mesh);
        let engine = Engine::start(opened, origin, client).unwrap();
        let addresses: Vec<_> = engine.addresses().into_iter().map(tcp).collect();
        let admin = engine.admin_address().unwrap();
        // It ends with the process.
        std::thread::spawn(move || engine.run());
        let plane = Plane {
            inbound: addresses[0],
            outbound: addresses[1],
            admin,
            identity,
            services,
            directory: self.directory,
            _control: control,
        };
        let ready = async || get(admin, "/readyz", "localhost").await.status == 200;
        eventually("the data plane is ready", ready).await;
        plane
    }
}

fn tcp(address: ListenAddress) -> SocketAddr {
    match address {
        ListenAddress::Tcp(address) => address,
        ListenAddress::Unix(path) => panic!("{}", path.display()),
    }
}

impl Plane {
    /// Where a service lives from now on.
    pub fn locate(&self, name: &str, instances: &[&Instance]) {
        let endpoints = instances.iter().map(|it| it.endpoint());
        self.services.set(name, endpoints.collect());
    }

    /// A call to an API.
    pub async fn get(&self, path: &str) -> Answer {
        get(self.inbound, path, "localhost").await
    }

    /// The access records so far.
    pub fn records(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// GET on a connection of its own.
pub async fn get(address: SocketAddr, target: &str, host: &str) -> Answer {
    let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    raw(address, &request).await
}

/// POST with a body, on a connection of its own.
pub async fn post(address: SocketAddr, target: &str, host: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    raw(address, &request).await
}

/// Text as it is, on a connection of its own.
pub async fn raw(address: SocketAddr, request: &str) -> Answer {
    let mut text = String::new();
    let asked = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut text).await.unwrap();
    };
    within(asked).await;
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    let over = tokio::time::timeout(PATIENCE, future).await;
    over.expect("not in time")
}

/// Waits for what becomes true without an event to wait for.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
