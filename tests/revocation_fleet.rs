//! How long a revocation takes to fifty nodes: from the request, and from its answer, to its arrival on each node's fast lane.
//!
//! The control plane is a process of its own; the nodes are connections of this one, each joined by a token of its own, by mutual TLS. It
//! prints the times, and fails where p99 is beyond what is promised. Heavy, so only where asked for:
//! `cargo test --release --test revocation_fleet -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tollgate_gateway::node::{ControlAddress, NodeIdentity, channel, join};
use tollgate_proto::wire::control_client::ControlClient;
use tollgate_proto::wire::revocations_event::Event;
use tollgate_proto::wire::revoked::What;
use tollgate_proto::wire::{RevokedSet, WatchRequest};

const NODES: usize = 50;
const REVOCATIONS: usize = 20;
/// What is promised for 99 of a hundred.
const SOON: Duration = Duration::from_secs(1);
/// For everything that is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane, as a process.
struct Plane {
    process: Child,
    nodes: SocketAddr,
    api: SocketAddr,
    credential: String,
    directory: tempfile::TempDir,
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Plane {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, state) = (
            directory.path().join("config"),
            directory.path().join("state"),
        );
        write(
            &config,
            "plans.yaml",
            "plans: { all: { apis: { shop: all } } }\n",
        );
        let consumers = "organisations: { o: { projects: { p: { consumers: { desk: {} } } } } }\n";
        write(&config, "consumers.yaml", consumers);
        let (nodes, api) = (free(), free());
        let process = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["control", "--nodes", &nodes.to_string()])
            .args(["--control-api", &api.to_string(), "--config"])
            .arg(&config)
            .arg("--state-dir")
            .arg(&state)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut plane = Self {
            process,
            nodes,
            api,
            credential: String::new(),
            directory,
        };
        let begun = Instant::now();
        while TcpStream::connect(nodes).await.is_err() || TcpStream::connect(api).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "no control plane");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let credential = plane.directory.path().join("state/admin-credential");
        let text = std::fs::read_to_string(credential).unwrap();
        text.trim().clone_into(&mut plane.credential);
        plane
    }

    /// One request of the HTTP API.
    async fn ask(&self, path: &str, body: Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.api,
            self.credential,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 20"), "{path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// A node that has joined and heard all there was; it tells when it heard of each key after that.
    async fn node(&self, number: usize, heard: mpsc::UnboundedSender<Instant>) {
        let service = json!({ "service": format!("service-{number}") });
        let made = self.ask("/v1/join-tokens", service).await;
        let address: ControlAddress = format!("https://{}", self.nodes).parse().unwrap();
        let name = format!("node-{number}");
        let token = made["token"].as_str().unwrap();
        let membership = join(&address, token, &name).await.unwrap();
        let identity = NodeIdentity::none();
        identity.replace(membership.held().unwrap());
        let mut client = ControlClient::new(channel(&address, Arc::clone(&identity)).unwrap());
        let asked = WatchRequest { node: name };
        let mut stream = client.watch_revocations(asked).await.unwrap().into_inner();
        let (begun, beginning) = oneshot::channel();
        tokio::spawn(async move {
            let mut begun = Some(begun);
            while let Ok(Some(message)) = stream.message().await {
                let at = Instant::now();
                match message.event {
                    // With the first, all that was revoked before has come.
                    Some(Event::Heartbeat(_)) => {
                        if let Some(begun) = begun.take() {
                            let _nobody_waits = begun.send(());
                        }
                    }
                    Some(Event::More(set)) if begun.is_none() => {
                        (0..keys(&set)).for_each(|_| heard.send(at).unwrap());
                    }
                    _ => {}
                }
            }
        });
        tokio::time::timeout(PATIENCE, beginning)
            .await
            .unwrap()
            .unwrap();
    }
}

fn keys(set: &RevokedSet) -> usize {
    let keys = set.revoked.iter();
    keys.filter(|it| matches!(it.what, Some(What::Key(_))))
        .count()
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join(name), text).unwrap();
}

fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The value that this share of all does not exceed, in milliseconds.
fn percentile(sorted: &[Duration], share: usize) -> f64 {
    let at = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted[at].as_secs_f64() * 1000.0
}

fn tell(what: &str, times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let [p50, p99, most] = [50, 99, 100].map(|share| percentile(times, share));
    println!("{what}: p50 {p50:.1} ms, p99 {p99:.1} ms, most {most:.1} ms");
    p99
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: fifty nodes; a figure, beside a promise"]
async fn a_revocation_reaches_fifty_nodes_within_a_second() {
    let _again = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let plane = Plane::start().await;
    let (heard, mut hearing) = mpsc::unbounded_channel();
    for number in 0..NODES {
        plane.node(number, heard.clone()).await;
    }
    let (mut from_asking, mut from_answer, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..REVOCATIONS {
        let name = json!({ "name": format!("key-{number}") });
        let made = plane.ask("/v1/consumers/desk/keys", name).await;
        let path = format!("/v1/keys/{}/revoke", made["id"].as_str().unwrap());
        let asked = Instant::now();
        plane.ask(&path, json!({})).await;
        let answered = Instant::now();
        answers.push(answered - asked);
        for _ in 0..NODES {
            let at = tokio::time::timeout(PATIENCE, hearing.recv()).await;
            let at = at.expect("every node hears of it").unwrap();
            from_asking.push(at - asked);
            from_answer.push(at.saturating_duration_since(answered));
        }
        assert!(hearing.try_recv().is_err(), "once");
    }
    println!("{NODES} nodes, {REVOCATIONS} revocations");
    tell("the answer to the request", &mut answers);
    tell("on a node, after the answer", &mut from_answer);
    let p99 = tell("on a node, after the request", &mut from_asking);
    assert!(p99 <= SOON.as_secs_f64() * 1000.0, "later than promised");
}
