//! What the README and the demo tell people to type works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn has_curl() -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v curl"])
        .stdout(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: no curl on this machine");
    }
    found
}

/// Runs shell lines as a reader would, with the binary of this build on the path.
fn shell(script: &str) -> (bool, String) {
    shell_with(script, "30", &[])
}

/// The same within other `seconds`, and with variables set.
fn shell_with(script: &str, seconds: &str, environment: &[(String, String)]) -> (bool, String) {
    let bin = Path::new(world::binary()).parent().unwrap();
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new("timeout");
    command
        .args([seconds, "sh", "-ec", script])
        .current_dir(root())
        .env("PATH", path)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (status, out, err) = world::run_command(command);
    (status.success(), out + &err)
}

/// The demo, started as `make demo` starts it, on ports of its own.
struct Demo {
    process: std::process::Child,
    ports: [String; 4],
    state: tempfile::TempDir,
    /// What it says people may type.
    lines: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let ports = [(); 4].map(|()| free_port());
        let [port, admin, control, service] = &ports;
        let state = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .arg("scripts/demo.sh")
            .current_dir(root())
            .env("TOLLGATE", world::binary())
            .env("DEMO_PORT", port)
            .env("DEMO_ADMIN_PORT", admin)
            .env("DEMO_CONTROL_PORT", control)
            .env("DEMO_SERVICE_PORT", service)
            .env("DEMO_STATE", state.path().join("demo"))
            .env("DEMO_SECONDS", "180")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        // It prints within ten seconds or ends, so that reading its lines comes to an end.
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let lines = lines
            .map(Result::unwrap)
            .take_while(|line| !line.contains("Ctrl-C"))
            .filter(|line| line.starts_with("  ") && !line.trim().is_empty())
            .collect();
        Self {
            process,
            ports,
            state,
            lines,
        }
    }

    /// A command of the README, for the ports of this demo.
    fn adapted(&self, text: &str) -> String {
        let [port, admin, control, _] = &self.ports;
        let state = self.state.path().join("demo");
        text.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:9900", &format!("127.0.0.1:{admin}"))
            .replace("127.0.0.1:9911", &format!("127.0.0.1:{control}"))
            .replace(".demo/", &format!("{}/", state.display()))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let told = format!("kill -TERM {}", self.process.id());
        let stopped = Command::new("sh").args(["-c", &told]).status();
        let ended = self.process.wait().unwrap();
        if !std::thread::panicking() {
            assert!(stopped.unwrap().success() && ended.success(), "{ended:?}");
        }
    }
}

#[test]
fn runnable_commands_of_the_readme_succeed() {
    if !has_curl() {
        return;
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let demo = Demo::start();
    let mut outputs = Vec::new();
    for block in readme.split("```sh runnable\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let (succeeded, output) = shell(&demo.adapted(block));
        assert!(succeeded, "{block}\n{output}");
        outputs.push(output);
    }
    assert!(outputs.len() >= 5, "the README has runnable blocks");
    let books = outputs.iter().find(|it| it.contains("shelves/fiction"));
    let books = books.expect("the README walks through a gRPC service");
    for words in [
        "\"price\":\"990\"",
        "{\"imported\":2}",
        "data: {",
        "404 Not Found",
        "book.titel",
    ] {
        assert!(books.contains(words), "{words} is missing:\n{books}");
    }
    let keys = outputs.iter().find(|it| it.contains("terms_not_accepted"));
    let keys = keys.expect("the README walks through keys and terms");
    let seen = [
        "403",
        "terms_not_accepted",
        "201",
        "not_in_plan",
        "429",
        "quota_exceeded",
        "0 of 12 calls left",
        "plan/counter/calls-per-day",
        "getStats",
        "revoked",
        "credential_invalid",
    ];
    for words in seen {
        assert!(keys.contains(words), "{words} is missing:\n{keys}");
    }
}

/// The README's YAML by the file it says it belongs to; what names none belongs to the OpenAPI file.
fn settings(readme: &str) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for block in readme.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let named = block.lines().next().unwrap().strip_prefix("# ");
        let file = named.unwrap_or("bookstore.yaml").to_owned();
        files.entry(file).or_default().push_str(block);
    }
    files
}

#[test]
fn settings_of_the_readme_are_right() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let files = settings(&readme);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "apis/books.yaml",
            "apis/bookstore.yaml",
            "bookstore.yaml",
            "plans.yaml",
            "tollgate.yaml"
        ]
    );
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    std::fs::create_dir(place("apis")).unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["api.example.com".to_owned()]).unwrap();
    std::fs::write(place("api.pem"), pair.cert.pem()).unwrap();
    std::fs::write(place("api.key"), pair.signing_key.serialize_pem()).unwrap();
    let tls = directory.path().display().to_string();
    for (name, text) in &files {
        std::fs::write(place(name), text.replace("/etc/tollgate/tls", &tls)).unwrap();
    }
    let proto = world::bookstore().with_file_name("bookstore.proto");
    std::fs::copy(proto, place("bookstore.proto")).unwrap();
    let description = std::fs::read_to_string(world::bookstore()).unwrap();
    let description = description + &files["bookstore.yaml"];
    std::fs::write(place("bookstore.yaml"), description).unwrap();
    let check = Command::new(world::binary())
        .arg("check")
        .arg(directory.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{out}");
    assert!(out.contains("Bookstore 1.4.0: 15 operations"), "{out}");
}

/// A port that is free now. Another process may take it; the demo wants to be told one.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[test]
fn the_demo_starts_and_what_it_prints_works() {
    if !has_curl() {
        return;
    }
    let demo = Demo::start();
    let tried: Vec<(String, bool, String)> = demo
        .lines
        .iter()
        .map(|line| {
            let (succeeded, output) = shell(line);
            (line.clone(), succeeded, output)
        })
        .collect();
    let failed: Vec<_> = tried
        .iter()
        .filter(|(_, succeeded, _)| !succeeded)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        tried
            .iter()
            .filter(|(line, ..)| line.contains("curl"))
            .count()
            >= 10,
        "{tried:?}"
    );
    let refused = tried
        .iter()
        .find(|(line, ..)| line.contains("/admin/stats"));
    assert!(refused.unwrap().2.contains("401"), "{refused:?}");
}

/// What `make fleet-demo` starts, on ports of its own.
struct Fleet {
    process: std::process::Child,
    /// The variables it was started with.
    environment: Vec<(String, String)>,
    /// Ports of the README, and those that stand for them here.
    ports: Vec<(&'static str, String)>,
    state: tempfile::TempDir,
    lines: Vec<String>,
}

/// Every port of the fleet by its variable, with the one of the README where it is named there.
const FLEET_PORTS: [(&str, &str); 17] = [
    ("FLEET_NODES", ""),
    ("FLEET_CONTROL", "9911"),
    ("FLEET_EDGE_A", "8080"),
    ("FLEET_EDGE_A_ADMIN", ""),
    ("FLEET_EDGE_B", "8180"),
    ("FLEET_EDGE_B_ADMIN", ""),
    ("FLEET_BOOK_1", ""),
    ("FLEET_BOOK_1_OUTBOUND", ""),
    ("FLEET_BOOK_1_ADMIN", ""),
    ("FLEET_BOOK_1_APP", ""),
    ("FLEET_BOOK_2", ""),
    ("FLEET_BOOK_2_OUTBOUND", ""),
    ("FLEET_BOOK_2_ADMIN", ""),
    ("FLEET_BOOK_2_APP", ""),
    ("FLEET_LIBRARY_1", ""),
    ("FLEET_LIBRARY_1_OUTBOUND", ""),
    ("FLEET_LIBRARY_1_ADMIN", ""),
];

impl Fleet {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        // All at once: one that is closed again could be given out twice.
        let held: Vec<_> = (0..=FLEET_PORTS.len())
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let mut free = held
            .iter()
            .map(|it| it.local_addr().unwrap().port().to_string());
        let app = free.next().unwrap();
        let (mut environment, mut ports) = (vec![("FLEET_LIBRARY_1_APP".to_owned(), app)], vec![]);
        for ((variable, written), port) in FLEET_PORTS.into_iter().zip(free) {
            environment.push((variable.to_owned(), port.clone()));
            if !written.is_empty() {
                ports.push((written, port));
            }
        }
        drop(held);
        let place = state.path().join("fleet").display().to_string();
        environment.push(("FLEET_STATE".to_owned(), place));
        environment.push(("FLEET_SECONDS".to_owned(), "180".to_owned()));
        environment.push(("TOLLGATE".to_owned(), world::binary().to_owned()));
        let mut process = Command::new("sh")
            .arg("scripts/fleet-demo.sh")
            .current_dir(root())
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let lines: Vec<String> = lines
            .map(Result::unwrap)
            .take_while(|line| !line.contains("Ctrl-C"))
            .collect();
        assert!(
            lines.iter().any(|line| line.contains("Try, in another")),
            "the fleet did not start: {lines:#?}"
        );
        Self {
            process,
            environment,
            ports,
            state,
            lines,
        }
    }

    /// Runs lines that are written for the usual ports.
    fn run(&self, lines: &str) -> (bool, String) {
        let mut adapted = lines.to_owned();
        for (written, port) in &self.ports {
            let (written, port) = (format!("127.0.0.1:{written}"), format!("127.0.0.1:{port}"));
            adapted = adapted.replace(&written, &port);
        }
        let place = format!("{}/", self.state.path().join("fleet").display());
        let adapted = adapted.replace(".fleet/", &place);
        shell_with(&adapted, "90", &self.environment)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let told = format!("kill -TERM {}", self.process.id());
        let stopped = Command::new("sh").args(["-c", &told]).status();
        let ended = self.process.wait().unwrap();
        if !std::thread::panicking() {
            assert!(stopped.unwrap().success() && ended.success(), "{ended:?}");
            assert!(
                !self.state.path().join("fleet").exists(),
                "it leaves nothing"
            );
        }
    }
}

#[test]
fn the_fleet_of_the_readme_outlives_its_control_plane() {
    if !has_curl() {
        return;
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let walk = readme.split("```sh fleet\n").nth(1);
    let walk = walk.expect("the README walks through a fleet");
    let walk = walk.split("```").next().unwrap();
    let fleet = Fleet::start();
    let (succeeded, output) = fleet.run(walk);
    assert!(succeeded, "{output}");
    let seen = [
        "spiffe://tollgate.internal/gateway/edge-b",
        "spiffe://tollgate.internal/service/library",
        "shelves/fiction",
        "/partners/v1/books/moby-dick",
        "200 200 200 200 200 200",
        "createBook  30",
    ];
    for words in seen {
        assert!(output.contains(words), "{words} is missing:\n{output}");
    }
    // Calls 1, 2, 23 and 30 show their heads.
    assert_eq!(output.matches("HTTP/1.1 200 OK").count(), 4, "{output}");
    let revoked = output.rsplit("end of the walk").next().unwrap();
    assert!(
        revoked.matches("credential_invalid").count() >= 2,
        "both gateways refuse what was revoked:\n{output}"
    );
}

#[test]
fn the_fleet_starts_and_what_it_prints_works() {
    if !has_curl() {
        return;
    }
    let fleet = Fleet::start();
    let tried: Vec<&str> = fleet
        .lines
        .iter()
        .filter(|line| line.starts_with("  "))
        .map(String::as_str)
        .collect();
    assert!(tried.len() >= 10, "{tried:?}");
    let (succeeded, output) = fleet.run(&tried.join("\n"));
    assert!(succeeded, "{tried:#?}\n{output}");
    assert!(output.contains("createBook  23"), "{output}");
}
