//! A control plane with its port for nodes, in this process, and nodes of it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tollgate_control::nodes::port::{self, NodePeer};
use tollgate_control::{Ca, CaOptions, Control, Options, UsageSettings};
use tollgate_gateway::node::{ControlAddress, Membership, NodeIdentity, join};

pub(crate) const PEPPER: [u8; 32] = [7; 32];
pub(crate) const DOMAIN: &str = "tollgate.internal";
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A path of the nodes' service that says who asked.
pub(crate) const WHO: &str = "/tollgate.control.v1.Control/WhoAmI";

pub(crate) struct Plane {
    pub(crate) state: tempfile::TempDir,
    pub(crate) control: Control,
    pub(crate) ca: Arc<Ca>,
    pub(crate) address: ControlAddress,
    pub(crate) credential: String,
    /// Seconds its authority is ahead.
    pub(crate) ahead: Arc<AtomicU64>,
    domain: String,
    lifetime: Duration,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

impl Plane {
    pub(crate) async fn new() -> Self {
        Self::with(DOMAIN, Duration::from_secs(3600)).await
    }

    pub(crate) async fn with(domain: &str, lifetime: Duration) -> Self {
        Self::start(tempfile::tempdir().unwrap(), domain, lifetime, 0).await
    }

    async fn start(state: tempfile::TempDir, domain: &str, lifetime: Duration, at: u16) -> Self {
        let _again = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (_client, server) = tollgate_proto::channel(PEPPER);
        let options = Options {
            state_dir: state.path().to_owned(),
            pepper: PEPPER,
            files: None,
            key_environment: "test".to_owned(),
            usage: UsageSettings::default(),
        };
        let control = Control::start(options, server).await.unwrap();
        let ahead = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&ahead);
        let now = move || SystemTime::now() + Duration::from_secs(clock.load(Ordering::Relaxed));
        let options = CaOptions {
            hosts: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            leaf_lifetime: lifetime,
            clock: Arc::new(now),
        };
        let ca = Ca::open(state.path(), domain, options).unwrap();
        let listener = tollgate_gateway::listener::bind_shared(([127, 0, 0, 1], at).into());
        let listener = listener.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = port::serve(listener, control.clone(), Arc::clone(&ca), who(), async {
            let _ = stopped.await;
        });
        let serving = tokio::spawn(async move { served.await.unwrap() });
        let credential = std::fs::read_to_string(control.admin_credential_path()).unwrap();
        Self {
            state,
            control,
            ca,
            address: address.parse().unwrap(),
            credential: credential.trim().to_owned(),
            ahead,
            domain: domain.to_owned(),
            lifetime,
            stop,
            serving,
        }
    }

    /// Ends and begins anew on the same directory and port.
    pub(crate) async fn restart(self) -> Self {
        let _ = self.stop.send(());
        self.serving.await.unwrap();
        self.control.stop().await;
        Self::start(self.state, &self.domain, self.lifetime, self.address.port).await
    }

    /// One request of the HTTP API, with the admin credential, by TLS.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut roots = RootCertStore::empty();
        for root in self.ca.roots() {
            roots.add(root).unwrap();
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", self.address.port)).await;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream.unwrap()).await.unwrap();
        let body = body.to_string();
        let asked = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\n\r\n{body}",
            self.credential,
            body.len()
        );
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
        let _ = read.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// A token for a service.
    pub(crate) async fn token(&self, service: &str) -> String {
        let body = json!({ "service": service });
        let (status, made) = self.admin("POST", "/v1/join-tokens", body).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    }

    /// A node that has joined, the first of its service.
    pub(crate) async fn node(&self, service: &str) -> Node {
        let token = self.token(service).await;
        let name = format!("{service}-1");
        Node::of(join(&self.address, &token, &name).await.unwrap())
    }
}

/// A node, as a process holds it.
pub(crate) struct Node {
    pub(crate) membership: Membership,
    pub(crate) identity: Arc<NodeIdentity>,
}

impl Node {
    pub(crate) fn of(membership: Membership) -> Self {
        let identity = NodeIdentity::none();
        identity.replace(membership.held().unwrap());
        Self {
            membership,
            identity,
        }
    }

    pub(crate) fn id(&self) -> String {
        self.identity.current().unwrap().id.to_string()
    }

    /// Whom the control plane takes it for.
    pub(crate) async fn who(&self) -> Result<String, String> {
        let channel =
            tollgate_gateway::node::channel(&self.membership.control, Arc::clone(&self.identity));
        ask_who(channel.unwrap()).await
    }
}

/// Asks over a channel whom the control plane takes the asker for.
pub(crate) async fn ask_who(channel: tonic::transport::Channel) -> Result<String, String> {
    let mut client = tonic::client::Grpc::new(channel);
    let asking = async {
        client.ready().await.map_err(|error| format!("{error:?}"))?;
        let codec: tonic_prost::ProstCodec<(), ()> = tonic_prost::ProstCodec::default();
        let path = http::uri::PathAndQuery::from_static(WHO);
        let answer = client.unary(tonic::Request::new(()), path, codec).await;
        let answer =
            answer.map_err(|status| format!("{:?} {}", status.code(), status.message()))?;
        let who = answer.metadata().get("who").unwrap().to_str().unwrap();
        Ok(who.to_owned())
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap()
}

/// What others will hang here: gRPC calls of nodes. This one says who the port found them to be.
fn who() -> Router {
    Router::new().route(
        WHO,
        post(|request: Request| async move {
            let NodePeer(id) = request.extensions().get::<NodePeer>().unwrap().clone();
            let grpc = http::HeaderValue::from_static("application/grpc");
            http::Response::builder()
                .header(http::header::CONTENT_TYPE, grpc)
                .header("who", id.to_string())
                .header("grpc-status", "0")
                // One empty message.
                .body(axum::body::Body::from(vec![0; 5]))
                .unwrap()
        }),
    )
}

/// Makes an error of what was expected to fail.
pub(crate) fn refusal<T>(outcome: Result<T, impl std::fmt::Display>) -> String {
    match outcome {
        Ok(_) => panic!("this was to be refused"),
        Err(error) => error.to_string(),
    }
}

/// Permission bits.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().unwrap().permissions().mode() & 0o777
}
