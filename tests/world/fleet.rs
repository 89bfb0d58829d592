//! An installation of processes: a control plane, gateways and sidecars, each the real binary with a state directory of its own.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::shop::SPEC;
use super::{Answer, Client, Service, binary, eventually, last_lines, run_command};

pub const PLANS: &str = "\
plans:
  all:
    apis: { shop: all }
    limits: [{ name: daily, amount: 100000, window: 1d }]
  free:
    apis: { shop: all }
";

pub const CONSUMERS: &str = "\
organisations:
  bookshop:
    projects:
      floor:
        consumers:
          desk: { subscriptions: { shop: all } }
          web: { subscriptions: { shop: free } }
";

/// A process that ends with the test.
pub struct Node {
    process: Child,
    said: Arc<Mutex<String>>,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What is special about one process.
#[derive(Clone, Debug, Default)]
pub struct Special {
    /// Where its state is; else beside that of the others.
    pub state: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    /// Before all others.
    pub arguments: Vec<String>,
}

impl Node {
    fn spawn(arguments: Vec<String>, environment: Vec<(String, String)>) -> Self {
        Self::of(binary().into(), arguments, environment)
    }

    /// A process of another program.
    pub fn of(
        program: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let mut process = Command::new(&program)
            .args(&arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
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
        Self {
            process,
            said,
            program,
            arguments,
            environment,
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// What it wrote on standard error.
    pub fn log(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The address it says after this label, once it does.
    pub fn address(&self, label: &str) -> SocketAddr {
        let mut found = None;
        eventually(label, || {
            let said = self.said.lock().unwrap();
            let rest = said.lines().find_map(|line| line.strip_prefix(label));
            let word = rest.and_then(|rest| rest.trim().split([' ', ',']).next());
            found = word.map(|word| word.parse().unwrap());
            found.is_some()
        });
        found.unwrap()
    }

    /// Without a chance to do anything.
    pub fn kill(&mut self) {
        let _ended_already = self.process.kill();
        self.process.wait().unwrap();
    }

    /// The same process anew, on the same addresses and state.
    pub fn start_again(&mut self) {
        self.kill();
        let (program, arguments) = (self.program.clone(), self.arguments.clone());
        *self = Self::of(program, arguments, self.environment.clone());
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let said = last_lines(&self.log());
            eprintln!("--- {:?}\n{said}", self.arguments);
        }
    }
}

/// A port nobody has now, below those the system gives to connections. Each is given once.
fn free() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 1000).unwrap() * 20;
    loop {
        let port = first + GIVEN.fetch_add(1, Ordering::Relaxed) % 2000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// A gateway or sidecar of the installation.
pub struct Member {
    pub node: Node,
    /// Where it takes calls.
    pub address: SocketAddr,
    /// Where the app beside a sidecar calls others.
    pub outbound: SocketAddr,
    pub admin: SocketAddr,
    pub state: PathBuf,
}

impl Member {
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        let mut client = Client::try_connect(self.address)?;
        client.request(method, path, headers, b"");
        client.answer_to(method).ok()
    }

    /// The status of a call with a key; 0 where there was no whole answer.
    pub fn status(&self, path: &str, key: &str) -> u16 {
        let answer = self.call("GET", path, &[("x-api-key", key)]);
        answer.map_or(0, |answer| answer.status)
    }

    pub fn ask_admin(&self, path: &str) -> Option<Answer> {
        let mut client = Client::try_connect(self.admin)?;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        client.answer().ok()
    }

    pub fn metrics(&self) -> String {
        self.ask_admin("/metrics")
            .map_or_else(String::new, |it| it.text())
    }

    pub fn is_ready(&self) {
        eventually("it is ready", || {
            self.ask_admin("/readyz").is_some_and(|it| it.status == 200)
        });
    }
}

/// The installation.
pub struct Fleet {
    pub control: Node,
    pub directory: tempfile::TempDir,
    /// Where nodes connect.
    pub nodes: SocketAddr,
    /// Where operators ask.
    pub api: SocketAddr,
}

impl Fleet {
    /// A control plane that publishes the shop; `more` is added to its API file.
    pub fn start(more: &str) -> Self {
        let api =
            format!("spec: ../shop-spec.yaml\nservice: shop\nupstream: service://shop\n{more}");
        Self::start_with(&api, CONSUMERS)
    }

    /// A control plane that publishes the shop by this API file, to these consumers.
    pub fn start_with(shop: &str, consumers: &str) -> Self {
        let directory = written(shop, consumers);
        let nodes = free();
        let own = texts(&["control", "--nodes", &nodes.to_string()]);
        let fleet = Self::begin(directory, own, nodes);
        fleet.control.address("nodes connect to ");
        fleet
    }

    /// The same, of one process: it is control plane and gateway, and callers come where nodes would.
    pub fn alone(shop: &str, consumers: &str, process: &str) -> Self {
        let directory = written(shop, consumers);
        std::fs::write(directory.path().join("config/tollgate.yaml"), process).unwrap();
        let (address, admin) = (free(), free());
        let log = directory.path().join("access.log");
        let own = texts(&[
            "gateway",
            "--listen",
            &address.to_string(),
            "--admin",
            &admin.to_string(),
            "--access-log",
            &log.to_string_lossy(),
        ]);
        let fleet = Self::begin(directory, own, address);
        fleet.control.address("listening on ");
        fleet
    }

    fn begin(directory: tempfile::TempDir, mut own: Vec<String>, nodes: SocketAddr) -> Self {
        let api = free();
        own.extend(texts(&[
            "--config",
            &directory.path().join("config").to_string_lossy(),
            "--state-dir",
            &directory.path().join("control").to_string_lossy(),
            "--control-api",
            &api.to_string(),
        ]));
        let fleet = Self {
            control: Node::spawn(own, Vec::new()),
            directory,
            nodes,
            api,
        };
        eventually("the control API answers", || {
            Client::try_connect(api).is_some()
        });
        fleet
    }

    pub fn config(&self, name: &str) -> PathBuf {
        self.directory.path().join("config").join(name)
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a verb against the control plane; its output.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let (success, out, err) = self.try_cli(arguments);
        assert!(success, "{arguments:?}: {out}{err}");
        out
    }

    pub fn try_cli(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .args(["--control", &format!("http://{}", self.api)])
            .arg("--admin-credential")
            .arg(self.state("control").join("admin-credential"))
            .env_remove("TOLLGATE_ADMIN_CREDENTIAL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (status, out, err) = run_command(command);
        (status.success(), out, err)
    }

    /// A token by which a node joins.
    pub fn token(&self, kind: &str, name: &str) -> String {
        let token = self.cli(&["join-tokens", "create", kind, name, "--quiet"]);
        token.trim().to_owned()
    }

    /// Identifier and secret of a fresh key.
    pub fn key(&self, consumer: &str) -> (String, String) {
        let line = self.cli(&["keys", "create", consumer, "--quiet"]);
        let mut words = line.split_whitespace();
        let (id, secret) = (words.next().unwrap(), words.next().unwrap());
        (id.to_owned(), secret.to_owned())
    }

    /// A gateway of this installation, ready.
    pub fn gateway(&self, name: &str) -> Member {
        self.gateway_with(name, Special::default())
    }

    /// The same, of a special kind.
    pub fn gateway_with(&self, name: &str, special: Special) -> Member {
        let token = self.token("--gateway", "edge");
        let (address, admin) = (free(), free());
        let own = texts(&[
            "gateway",
            "--listen",
            &address.to_string(),
            "--workers",
            "1",
        ]);
        let member = self.member(name, own, &token, (address, address, admin), special);
        member.node.address("listening on ");
        member.is_ready();
        member
    }

    /// A sidecar beside `app`, ready.
    pub fn sidecar(&self, name: &str, service: &str, app: &Service) -> Member {
        self.sidecar_with(name, service, app, Special::default())
    }

    /// The same, of a special kind.
    pub fn sidecar_with(
        &self,
        name: &str,
        service: &str,
        app: &Service,
        special: Special,
    ) -> Member {
        let token = self.token("--service", service);
        let (address, outbound, admin) = (free(), free(), free());
        let own = texts(&[
            "sidecar",
            "--service",
            service,
            "--app",
            &app.url(),
            "--inbound",
            &address.to_string(),
            "--outbound",
            &outbound.to_string(),
            "--drain-grace",
            "10ms",
        ]);
        let member = self.member(name, own, &token, (address, outbound, admin), special);
        member.node.address("inbound on ");
        member.is_ready();
        member
    }

    fn member(
        &self,
        name: &str,
        mut arguments: Vec<String>,
        token: &str,
        (address, outbound, admin): (SocketAddr, SocketAddr, SocketAddr),
        special: Special,
    ) -> Member {
        let state = special.state.unwrap_or_else(|| self.state(name));
        arguments.extend(special.arguments);
        arguments.extend(texts(&[
            "--control",
            &format!("https://{}", self.nodes),
            "--join-token",
            token,
            "--node",
            name,
            "--admin",
            &admin.to_string(),
            "--state-dir",
            &state.to_string_lossy(),
            "--access-log",
            &self.state(&format!("{name}.log")).to_string_lossy(),
        ]));
        Member {
            node: Node::spawn(arguments, special.environment),
            address,
            outbound,
            admin,
            state,
        }
    }

    /// A second process that is this gateway, on a copy of its directory as it lies there now.
    pub fn twin(&self, of: &Member, name: &str) -> Member {
        let (state, address, admin) = (self.state(name), free(), free());
        let copied = Command::new("cp")
            .arg("-a")
            .args([&of.state, &state])
            .status();
        assert!(copied.unwrap().success());
        let arguments = texts(&[
            "gateway",
            "--listen",
            &address.to_string(),
            "--workers",
            "1",
            "--control",
            &format!("https://{}", self.nodes),
            "--admin",
            &admin.to_string(),
            "--state-dir",
            &state.to_string_lossy(),
            "--access-log",
            &self.state(&format!("{name}.log")).to_string_lossy(),
        ]);
        let member = Member {
            node: Node::spawn(arguments, Vec::new()),
            address,
            outbound: address,
            admin,
            state,
        };
        member.node.address("listening on ");
        member.is_ready();
        member
    }

    /// What was used in all, as a consumer is billed.
    pub fn calls(&self, consumer: &str) -> u64 {
        let text = self.cli(&["usage", "--consumer", consumer, "--json"]);
        let found: Value = serde_json::from_str(&text).unwrap();
        let rows = found.as_array().cloned().unwrap_or_else(|| vec![found]);
        rows.iter().filter_map(|row| row["calls"].as_u64()).sum()
    }

    /// What the control plane says of its nodes.
    pub fn members(&self) -> Value {
        serde_json::from_str(&self.cli(&["nodes", "--json"])).unwrap()
    }
}

/// A configuration directory of the shop.
fn written(shop: &str, consumers: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    std::fs::create_dir_all(config.join("apis")).unwrap();
    for (name, text) in [
        ("shop-spec.yaml", SPEC),
        ("apis/shop.yaml", shop),
        ("plans.yaml", PLANS),
        ("consumers.yaml", consumers),
    ] {
        std::fs::write(config.join(name), text).unwrap();
    }
    directory
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
