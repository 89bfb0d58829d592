//! Other people's gRPC: a grpcio server behind the gateway, a grpcio client and Connect's own clients before it.
//!
//! `scripts/peers.sh` installs them; what is missing is said aloud and skipped, and is a failure in CI.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "world/library/mod.rs"]
mod library;
mod world;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use library::{Library, before, proto};
use serde_json::{Value, json};
use world::{Answer, Plan, World};

/// What `scripts/peers.sh` made; `None` where it did not.
fn peer(path: &str) -> Option<PathBuf> {
    let target = Path::new(world::binary()).ancestors().nth(2).unwrap();
    let found = target.join("peers").join(path);
    if found.exists() {
        return Some(found);
    }
    let text = format!("{} is missing: run `sh scripts/peers.sh`", found.display());
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{text}"
    );
    eprintln!("skipped: {text}");
    None
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/peers")
        .join(name)
}

/// A grpcio server, until dropped.
struct Server(Child);

impl Server {
    fn start(python: &Path) -> (Self, String) {
        Self::started(Command::new(python).arg(script("server.py")))
    }

    /// One that tells of itself by reflection, from a file of descriptors.
    fn reflecting(python: &Path, descriptors: &Path) -> (Self, String) {
        let mut command = Command::new(python);
        Self::started(command.arg(script("server.py")).arg(descriptors))
    }

    fn started(command: &mut Command) -> (Self, String) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut port).unwrap();
        (Self(child), format!("grpc://127.0.0.1:{}", port.trim()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn get(world: &World, path: &str, fields: &[(&str, &str)]) -> Answer {
    world.ask("GET", path, fields, b"")
}

#[test]
fn a_grpcio_server_is_called_by_rest() {
    let Some(python) = peer("venv/bin/python") else {
        return;
    };
    let (_server, url) = Server::start(&python);
    let world = before(&url, "defaults: {timeouts: {total: 8s}}\n");
    // Its handler compresses, though nobody asked.
    let answer = get(&world, "/v1/shelves/a/books/b", &[("x-custom", "1")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({"name": "shelves/a/books/b", "title": "Walden"})
    );
    for (name, value) in [
        ("x-initial", "yes"),
        ("x-seen", "1"),
        ("x-trailing", "late"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    let long = get(
        &world,
        "/v1/shelves/a/books/long",
        &[("accept-encoding", "gzip")],
    );
    assert_eq!(long.header("content-encoding"), Some("gzip"), "{long:?}");
    let gone = get(&world, "/v1/shelves/a/books/gone", &[]);
    assert_eq!((gone.status, &gone.json()["code"]), (404, &json!(5)));
    assert_eq!(gone.json()["message"], "no \u{201c}such\u{201d} book");
    let broken = get(&world, "/v1/shelves/a/books/broken", &[]);
    assert_eq!((broken.status, &broken.json()["code"]), (500, &json!(2)));
    let left = get(
        &world,
        "/v1/shelves/a/books/left",
        &[("grpc-timeout", "5S")],
    );
    let seconds: f64 = left.json()["title"].as_str().unwrap().parse().unwrap();
    assert!(seconds > 1.0 && seconds <= 5.0, "{seconds}");
    let books = get(&world, "/v1/shelves/a/books", &[]).json();
    assert_eq!(books.as_array().unwrap().len(), 3);
    let broken = get(
        &world,
        "/v1/shelves/broken/books",
        &[("accept", "application/x-ndjson")],
    );
    let last: Value = serde_json::from_str(broken.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], 15);
    let added = world.ask("POST", "/v1/books:add", &[], b"[{}, {}, {}]");
    assert_eq!(added.json(), json!({"books": 3}));
    let body = b"{\"text\": \"a\"}{\"text\": \"b\"}";
    let talk = world.ask("POST", "/v1/talk", &[], body);
    assert_eq!(
        talk.json(),
        json!([{"text": "you said a"}, {"text": "you said b"}])
    );
}

/// Must-have: descriptors by reflection, of a server that many have.
#[test]
fn a_grpcio_server_is_asked_by_reflection() {
    let Some(python) = peer("venv/bin/python") else {
        return;
    };
    let files = tempfile::tempdir().unwrap();
    let descriptors = files.path().join("library.bin");
    std::fs::write(&descriptors, compiled()).unwrap();
    let (_server, url) = Server::reflecting(&python, &descriptors);
    let file = format!("upstream: {url}\ngrpc: {{ reflection: on, callers: anyone }}\n");
    let world = Plan::before(&url).api("library", file).start();
    let answer = get(&world, "/v1/shelves/a/books/b", &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["title"], "Walden");
    let added = world.ask("POST", "/v1/books:add", &[], b"[{}, {}]");
    assert_eq!(added.json(), json!({"books": 2}));
}

/// Must-have: a malformed grpc-timeout is never passed on.
#[test]
fn a_malformed_deadline_never_reaches_a_grpcio_server() {
    let Some(python) = peer("venv/bin/python") else {
        return;
    };
    let (_server, url) = Server::start(&python);
    let world = before(&url, "");
    for _ in 0..5 {
        let refused = get(&world, "/v1/shelves/a/books/b", &[("grpc-timeout", "soon")]);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(get(&world, "/v1/shelves/a/books/b", &[]).status, 200);
    }
}

#[test]
fn a_grpcio_client_passes_through() {
    let Some(python) = peer("venv/bin/python") else {
        return;
    };
    let library = Library::new();
    let world = library.world("");
    let mut command = Command::new(python);
    command
        .arg(script("client.py"))
        .arg(world.address.to_string());
    says_ok(command);
}

#[test]
fn the_clients_of_connect_and_grpc_web_are_served() {
    let Some(npm) = peer("npm/node_modules/@connectrpc/connect-node") else {
        return;
    };
    let home = npm.ancestors().nth(3).unwrap();
    let library = Library::new();
    let world = library.world("");
    let descriptors = world.file("descriptors.bin");
    std::fs::write(&descriptors, compiled()).unwrap();
    // Beside its libraries: that is where they are looked for.
    let copy = home.join(format!("client-{}.mjs", std::process::id()));
    std::fs::copy(script("client.mjs"), &copy).unwrap();
    let mut command = Command::new("node");
    command
        .arg(&copy)
        .arg(format!("http://{}", world.address))
        .arg(&descriptors);
    says_ok(command);
    let _gone = std::fs::remove_file(&copy);
}

/// The library's descriptors, with all they import.
fn compiled() -> Vec<u8> {
    let google = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(google.path().join("google/api")).unwrap();
    for (name, text) in library::GOOGLE_API {
        std::fs::write(google.path().join("google/api").join(name), text).unwrap();
    }
    let includes = [
        proto().parent().unwrap().to_owned(),
        google.path().to_owned(),
    ];
    protox::Compiler::new(includes)
        .unwrap()
        .include_imports(true)
        .open_file("library.proto")
        .unwrap()
        .encode_file_descriptor_set()
}

fn says_ok(mut command: Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (status, out, err) = world::run_command(command);
    assert!(status.success() && out.ends_with("ok\n"), "{out}{err}");
}
