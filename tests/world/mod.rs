//! A gateway, a service behind it and clients before it, for the end-to-end tests.
//!
//! The gateway is the real binary in a process of its own, on ports of its choosing, with a state directory of its own; it
//! ends with the test. Whatever is waited for is waited for at most [`PATIENCE`]. Not here: what is promised.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking"
)]

pub mod client;
pub mod clock;
pub mod disk;
pub mod fleet;
pub mod frames;
pub mod http2;
pub mod load;
pub mod measure;
pub mod service;
pub mod shop;
pub mod store;
pub mod tls;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

pub use client::{Answer, Broken, Client};
pub use service::{Call, Service, Then};

/// The longest any test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Host the tests ask for.
pub const HOST: &str = "bookstore.test";
/// A secret that may show up nowhere.
pub const SECRET: &str = "s3cr3t-d0-n0t-l0g";

/// The binary that was built with the tests, or, for figures, the one that `TOLLGATE_BINARY` names.
pub fn binary() -> &'static str {
    static NAMED: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("TOLLGATE_BINARY").ok());
    NAMED.as_deref().unwrap_or(env!("CARGO_BIN_EXE_tollgate"))
}

pub fn bookstore() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi-specs/bookstore.yaml")
}

/// What a gateway is started with.
pub struct Plan {
    spec: Option<String>,
    apis: Vec<(String, String)>,
    upstream: String,
    arguments: Vec<String>,
    state: Option<PathBuf>,
    listen: String,
    process: Option<String>,
    descriptors: Option<u32>,
    files: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    pump: bool,
}

impl Plan {
    /// The bookstore before this service.
    pub fn bookstore(service: &Service) -> Self {
        Self::before(&service.url())
    }

    /// The bookstore before whatever is at this URL.
    pub fn before(upstream: &str) -> Self {
        Self {
            spec: None,
            apis: Vec::new(),
            upstream: upstream.to_owned(),
            arguments: Vec::new(),
            state: None,
            listen: "127.0.0.1:0".to_owned(),
            process: None,
            descriptors: None,
            files: Vec::new(),
            environment: Vec::new(),
            pump: std::env::var_os("TOLLGATE_TEST_PUMP").is_some(),
        }
    }

    /// Another OpenAPI file in place of the bookstore.
    pub fn spec(mut self, text: &str) -> Self {
        self.spec = Some(text.to_owned());
        self
    }

    /// A configuration directory in place of `--spec`: one API more, served under `base`.
    pub fn api(mut self, name: &str, text: String) -> Self {
        self.apis.push((name.to_owned(), text));
        self
    }

    /// Every request goes through the general pump.
    pub fn pump(mut self, always: bool) -> Self {
        self.pump |= always;
        self
    }

    /// A file more in the configuration directory, such as `plans.yaml` or `terms/fair-use.md`.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// An environment variable of the gateway.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// An address in place of one of the gateway's choosing.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address.to_string();
        self
    }

    /// This `tollgate.yaml`, listeners included, beside the APIs given by [`Self::api`].
    pub fn process(mut self, text: &str) -> Self {
        self.process = Some(text.to_owned());
        self
    }

    /// So many files may be open (`ulimit -n`).
    pub fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// A state directory that outlives the gateway.
    pub fn state(mut self, directory: &Path) -> Self {
        self.state = Some(directory.to_owned());
        self
    }

    pub fn start(self) -> World {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path());
        self.start_in(Home::Own(directory), |_| ())
            .expect("the gateway did not start")
    }

    /// Starts in a directory that a gateway was started in before: its files and state are found again.
    pub fn start_again(self, directory: &Path) -> World {
        self.start_in(Home::Lent(directory.to_owned()), |_| ())
            .expect("the gateway did not start")
    }

    /// Writes what the gateway will read.
    pub fn write(&self, directory: &Path) {
        if let Some(spec) = &self.spec {
            std::fs::write(directory.join("spec.yaml"), spec).unwrap();
        }
        if !self.apis.is_empty() {
            std::fs::create_dir_all(directory.join("config/apis")).unwrap();
            for (name, text) in &self.apis {
                let file = directory.join("config/apis").join(format!("{name}.yaml"));
                std::fs::write(file, text).unwrap();
            }
        }
        if let Some(text) = &self.process {
            std::fs::write(directory.join("config/tollgate.yaml"), text).unwrap();
        }
        for (name, text) in &self.files {
            let file = directory.join("config").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = match self.descriptors {
            None => Command::new(binary()),
            Some(limit) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script, binary()]);
                shell
            }
        };
        command.arg("gateway");
        if self.apis.is_empty() {
            let own = directory.join("spec.yaml");
            let spec = if self.spec.is_some() {
                own
            } else {
                bookstore()
            };
            command
                .arg("--spec")
                .arg(spec)
                .arg("--upstream")
                .arg(&self.upstream);
        } else {
            command.arg("--config").arg(directory.join("config"));
        }
        if self.process.is_none() {
            command.args(["--listen", &self.listen]);
        }
        command
            .args(["--admin", "127.0.0.1:0"])
            .args(["--control-api", "127.0.0.1:0"])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("--state-dir")
            .arg(
                self.state
                    .clone()
                    .unwrap_or_else(|| directory.join("state")),
            )
            .arg("--access-log")
            .arg(directory.join("access.log"))
            .args(&self.arguments);
        // The two ways to the service promise the same: `make test` runs the suite with each.
        if self.pump {
            command.arg("--no-fast-path");
        }
        command
    }

    /// Starts, waits until ready; `Err` with what it said where it ended before that.
    fn start_in(self, home: Home, change: impl FnOnce(&mut Command)) -> Result<World, String> {
        let mut command = self.command(home.path());
        change(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process(command.spawn().expect("the binary can be run"));
        let said = Said::listen_to(process.0.stderr.take().unwrap());
        let address = said.address("listening on ", &mut process)?;
        let admin = said.address("admin on ", &mut process)?;
        let control = said.control(&mut process)?;
        let world = World {
            process,
            address,
            admin,
            control,
            home,
            said,
        };
        eventually("the gateway is ready", || {
            Client::try_connect(world.admin)
                .and_then(|mut client| {
                    client.send(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
                    client.answer().ok()
                })
                .is_some_and(|answer| answer.status == 200)
        });
        Ok(world)
    }
}

/// An API file: one spec, one service. The only place where the tests know how such a file is written.
pub fn api_file(spec: &Path, upstream: &str, more: &str) -> String {
    format!(
        "spec: {}\nupstream:\n  url: {upstream}\n{more}",
        spec.display()
    )
}

/// Runs the binary to its end and gives status, output and errors.
pub fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    run_command(command)
}

/// As [`run`], for any command.
pub fn run_command(mut command: Command) -> (ExitStatus, String, String) {
    use std::io::Read as _;
    let mut process = Process(command.spawn().unwrap());
    let mut out = process.0.stdout.take().unwrap();
    let mut err = process.0.stderr.take().unwrap();
    let out = std::thread::spawn(move || {
        let mut text = Vec::new();
        out.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let err = std::thread::spawn(move || {
        let mut text = Vec::new();
        err.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = process.ended();
    (status, out.join().unwrap(), err.join().unwrap())
}

/// Waits for something that becomes true without an event to wait for.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running gateway.
pub struct World {
    process: Process,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Where administration listens; port 0 where it does not.
    pub control: SocketAddr,
    home: Home,
    said: Said,
}

impl World {
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// GET on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut client = self.client();
        client.request(method, path, headers, body);
        client.answer_to(method).expect("a complete answer")
    }

    /// Bytes as they are, on a connection of its own.
    pub fn raw(&self, bytes: &[u8]) -> Result<Answer, Broken> {
        let mut client = self.client();
        client.send(bytes);
        client.answer()
    }

    pub fn admin_get(&self, path: &str) -> String {
        let mut client = Client::connect(self.admin);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        client.answer().expect("an answer of the admin port").text()
    }

    pub fn metrics(&self) -> String {
        self.admin_get("/metrics")
    }

    /// File of the admin credential, as the start-up line names it.
    pub fn admin_credential(&self) -> PathBuf {
        let log = self.log();
        let named = log
            .lines()
            .find_map(|line| line.split_once("credential in "));
        PathBuf::from(named.expect("the start names the file").1)
    }

    /// Asks the control API with the admin credential; `Null` sends no body.
    pub fn ask_control(&self, method: &str, path: &str, body: &serde_json::Value) -> Answer {
        let credential = std::fs::read_to_string(self.admin_credential()).unwrap();
        let credential = format!("authorization: Bearer {}\r\n", credential.trim());
        self.ask_control_as(&credential, method, path, body)
    }

    /// As [`Self::ask_control`], with these header lines in place of the credential.
    pub fn ask_control_as(
        &self,
        headers: &str,
        method: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut client = Client::connect(self.control);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{headers}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.control,
            body.len()
        );
        client.send(request.as_bytes());
        client
            .answer_to(method)
            .expect("an answer of the control API")
    }

    /// Runs a verb of the binary against this gateway.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env_remove("TOLLGATE_ADMIN_CREDENTIAL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if matches!(arguments[0], "explain" | "shadow-report" | "status") {
            command.arg("--admin").arg(self.admin.to_string());
        } else {
            command
                .args(["--control", &format!("http://{}", self.control)])
                .arg("--admin-credential")
                .arg(self.admin_credential());
        }
        let (status, out, err) = run_command(command);
        Ran { status, out, err }
    }

    /// `/apis` as JSON.
    pub fn apis(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin_get("/apis")).expect("/apis is JSON")
    }

    /// One API in `/apis`.
    pub fn api(&self, name: &str) -> serde_json::Value {
        let all = self.apis();
        let list = all
            .as_array()
            .or_else(|| all["apis"].as_array())
            .expect("a list of APIs");
        let found = list.iter().find(|api| api["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {all}"))
            .clone()
    }

    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The access log once it has this many lines.
    pub fn access_log(&self, lines: usize) -> Vec<serde_json::Value> {
        let mut read = Vec::new();
        eventually(&format!("the access log has {lines} lines"), || {
            let text = std::fs::read_to_string(self.file("access.log")).unwrap_or_default();
            let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            read = complete
                .lines()
                .map(|line| serde_json::from_str(line).expect("each line is JSON"))
                .collect();
            read.len() >= lines
        });
        read
    }

    /// The access record of the request with this id, once it is written.
    pub fn record(&self, request_id: &str) -> serde_json::Value {
        let mut found = None;
        eventually("the access record is written", || {
            let all = self.access_log(0);
            found = all.into_iter().find(|it| it["request_id"] == request_id);
            found.is_some()
        });
        found.unwrap()
    }

    /// Addresses of all TCP listeners, in the order of the file.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let text = self.said.text();
        let lines = text
            .lines()
            .filter_map(|line| line.split_once("listening on "));
        lines.filter_map(|(_, rest)| rest.parse().ok()).collect()
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.said.text()
    }

    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.0.id();
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{name} {id}"))
            .status();
        assert!(sent.unwrap().success(), "the signal could not be sent");
    }

    /// Waits for the process to end.
    pub fn ended(&mut self) -> ExitStatus {
        self.process.ended()
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_some()
    }

    /// A second gateway in the same place, which takes the sockets over.
    pub fn successor(&self, plan: Plan) -> World {
        let home = Home::Lent(self.directory().to_owned());
        let started = plan
            .listen(self.address)
            .argument("--take-over")
            .start_in(home, |_| ());
        started.expect("the successor did not start")
    }

    /// What it says before it ends, where it does not start.
    pub fn refused(plan: Plan) -> String {
        let directory = tempfile::tempdir().unwrap();
        plan.write(directory.path());
        match plan.start_in(Home::Own(directory), |_| ()) {
            Ok(_) => panic!("it started"),
            Err(said) => said,
        }
    }

    /// A second gateway in the same place by accident: what it says before it ends.
    pub fn rival(&self, plan: Plan) -> String {
        let home = Home::Lent(self.directory().to_owned());
        match plan.listen(self.address).start_in(home, |_| ()) {
            Ok(_) => panic!("a second instance started"),
            Err(said) => said,
        }
    }

    /// Ends without ado; the directory stays until the returned guard goes.
    pub fn kill(mut self) -> Home {
        self.process.kill();
        std::mem::replace(&mut self.home, Home::Lent(PathBuf::new()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            eprintln!("--- the gateway said ---\n{}\n---", last_lines(&self.log()));
        }
    }
}

/// As much of a log as a reader of a failed test looks at.
pub fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let skipped = lines.len().saturating_sub(150);
    format!("({skipped} lines before)\n{}", lines[skipped..].join("\n"))
}

/// What a verb did and said.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// It did what it was told; gives what it printed.
    pub fn good(&self) -> &str {
        assert!(self.status.success(), "{self:?}");
        &self.out
    }

    /// What it printed, as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.good()).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// It failed (exit code 1); gives what it complained.
    pub fn failed(&self) -> &str {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        &self.err
    }
}

/// The directory a gateway lives in.
pub enum Home {
    Own(tempfile::TempDir),
    Lent(PathBuf),
}

impl Home {
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Lent(path) => path,
        }
    }
}

/// A child process that does not outlive its owner.
struct Process(Child);

impl Process {
    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > 2 * PATIENCE {
                self.kill();
                panic!("the process did not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process writes to stderr, line by line.
#[derive(Clone)]
struct Said(Arc<Mutex<(Vec<String>, bool)>>);

impl Said {
    fn listen_to(stream: impl std::io::Read + Send + 'static) -> Self {
        let said = Self(Arc::default());
        let lines = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { break };
                lines.0.lock().unwrap().0.push(line);
            }
            lines.0.lock().unwrap().1 = true;
        });
        said
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().0.join("\n")
    }

    /// The address after `label`; what was said where the process ends without.
    fn address(&self, label: &str, process: &mut Process) -> Result<SocketAddr, String> {
        let begun = Instant::now();
        loop {
            let ended = process.0.try_wait().unwrap().is_some() && self.0.lock().unwrap().1;
            if let Some(address) = self.find(label) {
                return Ok(address);
            }
            if ended {
                return Err(self.text());
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "no {label:?} in:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The address of administration, port 0 where it says that there is none.
    fn control(&self, process: &mut Process) -> Result<SocketAddr, String> {
        let mut ended = false;
        eventually("it says where administration listens", || {
            ended = process.0.try_wait().unwrap().is_some() && self.0.lock().unwrap().1;
            ended || self.text().contains("control API")
        });
        if self.text().lines().any(|line| line == "no control API") {
            return Ok(SocketAddr::from(([127, 0, 0, 1], 0)));
        }
        self.address("control API on ", process)
    }

    fn find(&self, label: &str) -> Option<SocketAddr> {
        let text = self.text();
        text.lines().find_map(|line| {
            let rest = line.split_once(label)?.1;
            let end = rest.find(|c: char| !c.is_ascii_digit() && !".:[]".contains(c));
            rest[..end.unwrap_or(rest.len())].parse().ok()
        })
    }
}
