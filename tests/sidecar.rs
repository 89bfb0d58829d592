//! A sidecar beside one app, with a spec and no control plane: it serves at once, is ready when the app is, and ends after it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use world::service::ok;
use world::{Answer, Client, PATIENCE, Service, Then, binary, bookstore, eventually, run};

/// A sidecar that ends with the test.
struct Beside {
    process: Child,
    inbound: SocketAddr,
    admin: SocketAddr,
    directory: tempfile::TempDir,
    said: Arc<Mutex<String>>,
}

impl Beside {
    fn start(app: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Command::new(binary())
            .args(["sidecar", "--app", app, "--spec"])
            .arg(bookstore())
            .args(["--inbound", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .arg("--access-log")
            .arg(directory.path().join("access.log"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        let address = |label: &str| {
            let mut found = None;
            eventually(label, || {
                let said = said.lock().unwrap();
                let rest = said.lines().find_map(|line| line.strip_prefix(label));
                found = rest.map(|rest| rest.trim().parse().unwrap());
                found.is_some()
            });
            found.unwrap()
        };
        Self {
            inbound: address("inbound on "),
            admin: address("admin on "),
            process,
            directory,
            said,
        }
    }

    /// As [`Self::start`], and ready.
    fn ready(app: &str, arguments: &[&str]) -> Self {
        let beside = Self::start(app, arguments);
        beside.becomes(200);
        beside
    }

    fn get(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.inbound);
        client.request("GET", path, &[], b"");
        client.answer().expect("a complete answer")
    }

    fn ask_admin(&self, path: &str) -> Option<Answer> {
        let mut client = Client::try_connect(self.admin)?;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        client.answer().ok()
    }

    /// Waits until readiness is answered so; gives what it says.
    fn becomes(&self, status: u16) -> String {
        let mut text = String::new();
        eventually(&format!("readiness is {status}"), || {
            let answer = self.ask_admin("/readyz");
            answer.is_some_and(|answer| {
                text = answer.text();
                answer.status == status
            })
        });
        text
    }

    fn log(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn records(&self, count: usize) -> Vec<serde_json::Value> {
        let mut records = Vec::new();
        eventually("the access log is written", || {
            let file = self.directory.path().join("access.log");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let lines = text.lines().map(serde_json::from_str);
            records = lines.map_while(Result::ok).collect();
            records.len() >= count
        });
        records
    }

    fn terminate(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
    }

    fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the sidecar has ended", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Runs `tollgate wait` for it.
    fn wait(&self, timeout: &str) -> (ExitStatus, String) {
        let admin = self.admin.to_string();
        let (status, _, err) = run(&["wait", "--admin", &admin, "--timeout", timeout]);
        (status, err)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped_already = self.process.wait();
        if thread::panicking() {
            eprintln!("--- the sidecar said ---\n{}---", self.log());
        }
    }
}

/// A socket nobody listens on yet.
fn socket() -> (tempfile::TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let url = format!("unix:{}", path.display());
    (directory, path, url)
}

/// Listens there and answers everything with 200, for the rest of the test.
fn listen(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn a_spec_and_an_app_are_enough_for_metrics_and_logs() {
    let service = Service::new();
    let beside = Beside::ready(&service.url(), &[]);
    assert_eq!(beside.get("/v1/books").status, 200);
    assert_eq!(service.last().target(), "/v1/books");
    assert_eq!(beside.get("/v1/nothing").status, 404);
    let records = beside.records(2);
    assert_eq!(records[0]["api"], "bookstore");
    assert_ne!(records[0]["operation"], "");
    let page = beside.ask_admin("/metrics").unwrap().text();
    assert!(
        page.contains("tollgate_requests_total{api=\"bookstore\""),
        "{page}"
    );
    // What needs a control plane is not there at all: nothing waits for it, nothing grows.
    assert!(!page.contains("tollgate_usage_"), "{page}");
    assert!(!beside.directory.path().join("state/usage").exists());
}

#[test]
fn what_the_spec_demands_is_enforced_unless_it_is_left_to_the_app() {
    let service = Service::new();
    let delete = |beside: &Beside, fields: &[(&str, &str)]| {
        let mut client = Client::connect(beside.inbound);
        client.request("DELETE", "/v1/books/1", fields, b"");
        client.answer().unwrap().status
    };
    let enforcing = Beside::ready(&service.url(), &[]);
    assert!(
        enforcing.log().contains("demand a credential"),
        "{}",
        enforcing.log()
    );
    assert!(
        enforcing.log().contains("--security off"),
        "{}",
        enforcing.log()
    );
    assert_eq!(delete(&enforcing, &[]), 401);
    // Whatever is shown is nobody's, and is known to be so at once.
    for field in [
        ("authorization", "Bearer tg_live_0000000000000000000000"),
        ("authorization", "Basic YTpi"),
        ("x-api-key", "tg_live_0000000000000000000000"),
    ] {
        assert_eq!(delete(&enforcing, &[field]), 401, "{field:?}");
    }
    let off = Beside::ready(&service.url(), &["--security", "off"]);
    assert_eq!(delete(&off, &[]), 200);
}

#[test]
fn it_is_ready_when_the_app_listens_and_no_more_once_it_is_gone() {
    let (_directory, path, url) = socket();
    let beside = Beside::start(&url, &[]);
    let missing = beside.becomes(503);
    assert!(
        missing.contains("app") || missing.contains("starting"),
        "{missing}"
    );
    assert_eq!(beside.ask_admin("/livez").unwrap().status, 200);
    listen(&path);
    beside.becomes(200);
    assert_eq!(beside.get("/v1/books").status, 200);
    std::fs::remove_file(&path).unwrap();
    assert!(beside.becomes(503).contains("app"));
    assert_eq!(beside.ask_admin("/livez").unwrap().status, 200);
}

#[test]
fn it_is_ready_when_the_app_says_that_it_is_well() {
    let service = Service::answering(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 503 Starting\r\ncontent-length: 0\r\n\r\n");
        Then::Continue
    });
    let beside = Beside::start(&service.url(), &["--app-health", "/ready"]);
    service.has_calls(1);
    eventually("it says what is missing", || {
        beside.becomes(503).contains("503")
    });
    assert_eq!(service.last().target(), "/ready");
    service.now(|_, stream| ok(stream, "well"));
    beside.becomes(200);
}

#[test]
fn wait_ends_when_it_is_ready_and_else_says_what_is_missing() {
    let (_directory, path, url) = socket();
    let beside = Beside::start(&url, &[]);
    let (status, said) = beside.wait("300ms");
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("not ready after 300 ms"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    listen(&path);
    let (status, said) = beside.wait("20s");
    assert!(status.success(), "{said}");
    assert!(said.is_empty(), "{said}");
    let nowhere = Service::nowhere();
    let nowhere = nowhere.strip_prefix("http://").unwrap();
    let (status, _, said) = run(&["wait", "--admin", nowhere, "--timeout", "50ms"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(nowhere), "{said}");
}

#[test]
fn probes_go_to_the_app_unjudged_and_an_operation_of_the_spec_stays_one() {
    let service = Service::new();
    let probes = ["--probe", "/healthz", "--probe", "/v1/shelves/1"];
    let beside = Beside::ready(&service.url(), &probes);
    assert_eq!(beside.get("/healthz").status, 200);
    assert_eq!(service.last().target(), "/healthz");
    assert_eq!(beside.get("/healthz/deep").status, 404);
    assert_eq!(beside.get("/livez").status, 404);
    let mut client = Client::connect(beside.inbound);
    client.request("POST", "/healthz", &[], b"");
    assert_eq!(client.answer().unwrap().status, 404);
    let records = beside.records(4);
    assert_eq!(
        (&records[0]["api"], &records[0]["operation"]),
        (&"".into(), &"probe".into())
    );
    let page = beside.ask_admin("/metrics").unwrap().text();
    let probed = "tollgate_requests_total{api=\"none\",operation=\"probe\",method=\"GET\"";
    assert!(page.contains(probed), "{page}");
    let apis = beside.ask_admin("/apis").unwrap().text();
    assert!(!apis.contains("probe"), "{apis}");
}

#[test]
fn a_probe_that_is_an_operation_is_judged_as_one() {
    let service = Service::new();
    let beside = Beside::ready(&service.url(), &["--probe", "/v1/books"]);
    assert_eq!(beside.get("/v1/books").status, 200);
    assert_eq!(beside.records(1)[0]["api"], "bookstore");
}

#[test]
fn told_to_end_it_serves_until_the_app_has_ended() {
    let service = Service::new();
    let mut beside = Beside::ready(&service.url(), &["--wait-for-app"]);
    beside.terminate();
    assert!(beside.becomes(503).contains("draining"));
    // It goes on accepting all the same.
    assert_eq!(beside.get("/v1/books").status, 200);
    assert!(!beside.has_ended());
    drop(service);
    assert!(beside.ended().success());
    assert!(
        beside.log().contains("the app has ended"),
        "{}",
        beside.log()
    );
}

#[test]
fn told_to_end_it_serves_until_the_process_of_the_app_has_ended() {
    let service = Service::new();
    let mut app = Command::new("sleep").arg("600").spawn().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), app.id().to_string()).unwrap();
    let named = file.path().to_str().unwrap();
    let mut beside = Beside::ready(&service.url(), &["--app-pid-file", named]);
    beside.terminate();
    beside.becomes(503);
    // It listens no more and works to its end: that is no end yet.
    drop(service);
    assert!(!beside.has_ended());
    assert!(Client::try_connect(beside.inbound).is_some());
    app.kill().unwrap();
    app.wait().unwrap();
    assert!(beside.ended().success());
}

#[test]
fn told_to_end_it_does_not_wait_for_ever() {
    let service = Service::new();
    for arguments in [
        ["--drain-grace", "100ms"].as_slice(),
        &["--wait-for-app", "--drain-max", "100ms"],
    ] {
        let mut beside = Beside::ready(&service.url(), arguments);
        let begun = Instant::now();
        beside.terminate();
        assert!(beside.ended().success());
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    }
}

#[test]
fn told_to_end_twice_it_ends_now() {
    let service = Service::new();
    let mut beside = Beside::ready(&service.url(), &["--wait-for-app"]);
    beside.terminate();
    beside.becomes(503);
    beside.terminate();
    beside.ended();
}

#[test]
fn an_app_that_dies_costs_its_calls_and_comes_back() {
    let (_directory, path, url) = socket();
    listen(&path);
    let beside = Beside::ready(&url, &[]);
    assert_eq!(beside.get("/v1/books").status, 200);
    std::fs::remove_file(&path).unwrap();
    beside.becomes(503);
    listen(&path);
    beside.becomes(200);
    eventually("calls are served again", || {
        beside.get("/v1/books").status == 200
    });
}

#[test]
fn bad_arguments_are_refused_in_words() {
    let spec = bookstore();
    let spec = spec.to_str().unwrap();
    let app = "http://127.0.0.1:1";
    let control = ["--control", "https://127.0.0.1:1"];
    let alone = ["sidecar", "--spec", spec, "--app"];
    let joined = ["sidecar", "--app", app, "--service"];
    let cases: [(Vec<&str>, i32, &str); 11] = [
        (vec!["sidecar", "--spec", spec], 2, "--app"),
        (vec!["sidecar", "--app", app], 2, "--spec"),
        (
            vec!["sidecar", "--app", app, "--service", "orders"],
            2,
            "--control",
        ),
        (
            [&alone, [app, "--service", "x"].as_slice()].concat(),
            2,
            "--service",
        ),
        (
            [&alone, [app, "--mtls", "strict"].as_slice()].concat(),
            2,
            "--mtls",
        ),
        (
            [&alone, [app, "--probe", "healthz"].as_slice()].concat(),
            2,
            "/healthz",
        ),
        (
            [&alone, [app, "--drain-grace", "soon"].as_slice()].concat(),
            2,
            "soon",
        ),
        (
            [&alone, ["127.0.0.1:1"].as_slice()].concat(),
            1,
            "http://host:port",
        ),
        (
            [
                &alone,
                ["grpc://127.0.0.1:1", "--app-health", "/a"].as_slice(),
            ]
            .concat(),
            1,
            "--app-health",
        ),
        (
            [&joined, ["Orders"].as_slice(), &control].concat(),
            1,
            "a-z",
        ),
        (
            [
                &joined,
                ["orders"].as_slice(),
                &control,
                &["--join-token-file", "/nonexistent"],
            ]
            .concat(),
            1,
            "/nonexistent",
        ),
    ];
    for (arguments, code, word) in cases {
        let (status, _, said) = run(&arguments);
        assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}
