//! The admin port: what it shows, and to whom it does not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate_gateway::admin::{AdminState, serve};
use tollgate_gateway::journey::Shared;
use tollgate_gateway::live::{Live, Origin};
use tollgate_gateway::telemetry::{AccessLog, Metrics};
use tollgate_policy::settings::{AccessLogTarget, ProcessConfig};

struct World {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<std::thread::JoinHandle<std::io::Result<()>>>,
    live: Arc<Live>,
    dir: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("apis")).unwrap();
        let metrics = Metrics::new();
        let origin = Origin::Directory(dir.path().to_owned());
        let live = Live::load(origin, None, Arc::clone(&metrics)).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, draining) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let log = AccessLog::start(&AccessLogTarget::Off, Arc::clone(&metrics)).unwrap();
        let (control, _) = tollgate_proto::channel([0; 32]);
        let apis = Arc::clone(live.apis());
        let (shared, _) = Shared::new(apis, Arc::clone(&metrics), log, control);
        let state = AdminState {
            shared: Arc::new(shared),
            metrics: Arc::clone(&metrics),
            live: Arc::clone(&live),
            ready: Arc::clone(&ready),
            draining: Arc::clone(&draining),
            process: Arc::new(process(address)),
            page: None,
            ready_when: Vec::new(),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(serve(listener, state, async {
                let _ = stopped.await;
            }))
        });
        let (stop, served) = (Some(stop), Some(served));
        Self {
            address,
            metrics,
            ready,
            draining,
            stop,
            served,
            live,
            dir,
        }
    }

    fn publish_api(&self) {
        let spec = "openapi: 3.1.0\ninfo: {title: T, version: '1'}\npaths:\n  /a:\n    get: {operationId: a}\n";
        std::fs::write(self.dir.path().join("t.yaml"), spec).unwrap();
        let api = "spec: ../t.yaml\nupstream: http://127.0.0.1:9\n";
        std::fs::write(self.dir.path().join("apis/t.yaml"), api).unwrap();
        self.live.reload();
    }

    /// Status and the whole answer.
    fn send(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        (status.unwrap_or(0), answer)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.address
        ))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.served.take().unwrap().join().unwrap().unwrap();
    }
}

fn process(admin: SocketAddr) -> ProcessConfig {
    ProcessConfig {
        listeners: Vec::new(),
        admin,
        access_log: AccessLogTarget::Off,
        ..ProcessConfig::default_for(1, "state".into())
    }
}

#[test]
fn probes_tell_life_readiness_and_drain() {
    let world = World::start();
    assert_eq!(world.get("/livez").0, 200);
    let (status, answer) = world.get("/readyz");
    assert!(status == 503 && answer.ends_with("starting\n"), "{answer}");
    world.ready.store(true, Ordering::Relaxed);
    let (status, answer) = world.get("/readyz");
    assert!(status == 503 && answer.contains("no API"), "{answer}");
    world.publish_api();
    assert_eq!(world.get("/readyz").0, 200);
    world.draining.store(true, Ordering::Relaxed);
    let (status, answer) = world.get("/readyz");
    assert!(status == 503 && answer.ends_with("draining\n"), "{answer}");
    assert_eq!(world.get("/livez").0, 200);
}

#[test]
fn metrics_apis_and_config_are_shown() {
    let world = World::start();
    world.metrics.malformed("malformed");
    let (status, page) = world.get("/metrics");
    assert_eq!(status, 200);
    assert!(page.contains("text/plain; version=0.0.4"));
    assert!(page.contains(r#"cause="malformed"} 1"#));
    for path in ["/apis", "/config"] {
        let (status, answer) = world.get(path);
        assert_eq!(status, 200);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
    assert!(world.get("/config").1.contains(r#""drain_timeout":"30s""#));
    assert!(world.get("/").1.contains("/readyz"));
    assert_eq!(world.get("/nothing").0, 404);
}

#[test]
fn only_hosts_that_are_ours_are_answered() {
    let world = World::start();
    let table = [
        ("Host: localhost\r\n", 200),
        ("Host: LOCALHOST:9900\r\n", 200),
        ("Host: 127.0.0.1\r\n", 200),
        ("Host: 127.9.9.9:1\r\n", 200),
        ("Host: [::1]:9900\r\n", 200),
        ("Host: attacker.example\r\n", 403),
        ("Host: localhost.attacker.example\r\n", 403),
        ("Host: 127.0.0.1.attacker.example\r\n", 403),
        ("Host: user@localhost\r\n", 403),
        ("Host: 192.0.2.1\r\n", 403),
        ("Host:\r\n", 403),
        ("", 403),
        ("Host: localhost\r\nHost: attacker.example\r\n", 403),
        (
            "Host: localhost\r\nOrigin: http://attacker.example\r\n",
            403,
        ),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nOrigin: https://localhost\r\n", 403),
        ("Host: localhost\r\nOrigin: http://localhost\r\n", 200),
    ];
    for (fields, expected) in table {
        let (status, answer) = world.send(&format!("GET /livez HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(status, expected, "{fields}: {answer}");
    }
    let foreign = "GET http://attacker.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(world.send(foreign).0, 403);
}

#[test]
fn nothing_but_reading_is_allowed() {
    let world = World::start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let request = format!("{method} /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (status, answer) = world.send(&request);
        assert_eq!(status, 405, "{method}");
        assert!(answer.to_ascii_lowercase().contains("allow: get, head"));
    }
    let (status, answer) = world.send("HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(status == 200 && answer.ends_with("\r\n\r\n"));
}
