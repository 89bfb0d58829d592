//! A control plane on a state directory of its own, asked over a real socket.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate_control::{Control, FileReader, Options, UsageSettings};
use tollgate_policy::directory::{Caller, CredentialRef, Secret};
use tollgate_policy::finding::Place;
use tollgate_policy::settings::{
    ConsumerConfig, DirectoryConfig, KeyConfig, OrganisationConfig, ProjectConfig,
};
use tollgate_proto::{Answer, ControlClient, Question, channel};

pub(crate) const PEPPER: [u8; 32] = [7; 32];
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) state: tempfile::TempDir,
    pub(crate) control: Control,
    pub(crate) client: ControlClient,
    pub(crate) credential: String,
    pub(crate) files: Arc<Mutex<DirectoryConfig>>,
    pub(crate) address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_files(DirectoryConfig::default()).await
    }

    pub(crate) async fn with_files(files: DirectoryConfig) -> Self {
        Self::start(tempfile::tempdir().unwrap(), Arc::new(Mutex::new(files))).await
    }

    pub(crate) async fn start(
        state: tempfile::TempDir,
        files: Arc<Mutex<DirectoryConfig>>,
    ) -> Self {
        let (client, server) = channel(PEPPER);
        let read = Arc::clone(&files);
        let reader: FileReader = Box::new(move || Ok(read.lock().unwrap().clone()));
        let options = Options {
            state_dir: state.path().to_owned(),
            pepper: PEPPER,
            files: Some(reader),
            key_environment: "test".to_owned(),
            usage: UsageSettings::default(),
        };
        let control = Control::start(options, server).await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = control.clone();
        let serving = tokio::spawn(async move {
            let never = std::future::pending();
            let serving = tollgate_control::http::serve(listener, served, Vec::new(), never);
            serving.await.unwrap();
        });
        let credential = std::fs::read_to_string(control.admin_credential_path()).unwrap();
        Self {
            state,
            control,
            client,
            credential: credential.trim().to_owned(),
            files,
            address,
            serving,
        }
    }

    /// A second control plane on the same store, as a successor starts beside the one it takes over from.
    pub(crate) async fn beside(&self) -> (Control, ControlClient) {
        let (client, server) = channel(PEPPER);
        let read = Arc::clone(&self.files);
        let reader: FileReader = Box::new(move || Ok(read.lock().unwrap().clone()));
        let options = Options {
            state_dir: self.state.path().to_owned(),
            pepper: PEPPER,
            files: Some(reader),
            key_environment: "test".to_owned(),
            usage: UsageSettings::default(),
        };
        (Control::start(options, server).await.unwrap(), client)
    }

    /// Ends without a word to the store, as a killed process does, and begins anew on the same directory.
    pub(crate) async fn restart(self) -> Self {
        self.serving.abort();
        drop((self.control, self.client));
        Self::start(self.state, self.files).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None).await
    }

    /// Head and body of an answer that is no JSON object.
    pub(crate) async fn text(&self, path: &str) -> (String, String) {
        let bearer = format!("Bearer {}", self.credential);
        let host = self.address.to_string();
        let headers = [("authorization", bearer.as_str())];
        self.exchange("GET", path, &host, &headers, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, Some(body)).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.credential);
        let host = self.address.to_string();
        let headers = [("authorization", bearer.as_str())];
        self.send(method, path, &host, &headers, body).await
    }

    pub(crate) async fn anonymous(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let host = self.address.to_string();
        self.send(method, path, &host, headers, None).await
    }

    pub(crate) async fn raw_host(&self, host: &str, path: &str) -> (u16, Value) {
        self.send("GET", path, host, &[], None).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        host: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> (u16, Value) {
        let (head, body) = self.exchange(method, path, host, headers, body).await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        host: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> (String, String) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = body.len();
        head.push_str(&format!(
            "content-length: {length}\r\nconnection: close\r\n\r\n"
        ));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A refusal may come before the whole body was read.
        let _ = stream.write_all((head + &body).as_bytes()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("an answer in time");
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.to_owned(), body.to_owned())
    }

    pub(crate) async fn resolve(&self, reference: CredentialRef) -> Option<Arc<Caller>> {
        match self
            .client
            .ask(Question::Resolve(reference), DEADLINE)
            .await
        {
            Ok(Answer::Resolved(resolved)) => resolved.caller,
            other => panic!("{other:?}"),
        }
    }
}

/// One consumer with one key, as files may define them.
pub(crate) fn files() -> DirectoryConfig {
    let place = Place {
        file: Arc::from("consumers.yaml"),
        line: 7,
        column: 1,
    };
    DirectoryConfig {
        organisations: vec![OrganisationConfig {
            name: Arc::from("acme"),
            title: String::new(),
            overrides: Vec::new(),
            place: place.clone(),
        }],
        projects: vec![ProjectConfig {
            name: Arc::from("web"),
            organisation: Arc::from("acme"),
            title: String::new(),
            overrides: Vec::new(),
            place: place.clone(),
        }],
        consumers: vec![ConsumerConfig {
            name: Arc::from("filed"),
            project: Arc::from("web"),
            roles: Vec::new(),
            suspended: false,
            explains: false,
            subscriptions: Vec::new(),
            logins: Vec::new(),
            certificates: Vec::new(),
            users: Vec::new(),
            keys: vec![KeyConfig {
                name: Arc::from("ci"),
                secret: Secret::new("a key from a file"),
                not_before: None,
                expires: None,
                operations: None,
                networks: Vec::new(),
                referrers: Vec::new(),
                place: place.clone(),
            }],
            overrides: Vec::new(),
            place,
        }],
        plans: Vec::new(),
        terms: Vec::new(),
    }
}
