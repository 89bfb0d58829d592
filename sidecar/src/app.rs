//! The app a sidecar stands beside: whether it answers.
//!
//! Promises: a check takes no longer than [`PATIENCE`], and no traffic is announced before one went well. Not here: calls to the app,
//! which go the way of every upstream.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tollgate_gateway::engine::ReadyWhen;
use tollgate_policy::settings::{UpstreamConfig, UpstreamProtocol};

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often an app that does not answer is asked: its start is waited for.
const OFTEN: Duration = Duration::from_millis(250);
/// How often an app that answers is asked.
const SELDOM: Duration = Duration::from_secs(5);

/// How the app is asked.
#[derive(Clone, Debug)]
pub struct App {
    place: Place,
    /// Path that answers 2xx when all is well; `None`: a connection is enough.
    health: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Place {
    Tcp(Arc<str>, u16),
    Unix(PathBuf),
}

/// Why a path cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum BadApp {
    /// The service has no address.
    #[error("the app has no address")]
    Nowhere,
    /// Its checks would need another protocol.
    #[error(
        "--app-health asks in HTTP/1.1 without TLS, which the app does not speak; leave it out, and a connection is enough"
    )]
    OtherProtocol,
    /// Not a path.
    #[error("`{0}` is no path to ask for: write /healthz")]
    NoPath(String),
}

impl App {
    /// The app that calls go to.
    ///
    /// # Errors
    /// It cannot be asked for `health`.
    pub fn new(upstream: &UpstreamConfig, health: Option<&str>) -> Result<Self, BadApp> {
        let endpoint = upstream.endpoints.first().ok_or(BadApp::Nowhere)?;
        let place = match endpoint.host.strip_prefix("unix:") {
            Some(path) => Place::Unix(path.into()),
            None => Place::Tcp(unbracketed(&endpoint.host).into(), endpoint.port),
        };
        if let Some(path) = health {
            if upstream.protocol != UpstreamProtocol::Http1 || upstream.tls.is_some() {
                return Err(BadApp::OtherProtocol);
            }
            let request = Request::get(path).body(());
            if !path.starts_with('/') || request.is_err() {
                return Err(BadApp::NoPath(path.to_owned()));
            }
        }
        Ok(Self {
            place,
            health: health.map(Into::into),
        })
    }

    /// Asks it.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub async fn answers(&self) -> Result<(), String> {
        let asked = tokio::time::timeout(PATIENCE, self.ask()).await;
        asked.unwrap_or_else(|_| Err(format!("does not answer within {} s", PATIENCE.as_secs())))
    }

    async fn ask(&self) -> Result<(), String> {
        match &self.place {
            Place::Tcp(host, port) => {
                let stream = TcpStream::connect((&**host, *port)).await.map_err(cannot)?;
                let host = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                self.ask_on(TokioIo::new(stream), &host).await
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(cannot)?;
                self.ask_on(TokioIo::new(stream), "localhost").await
            }
        }
    }

    async fn ask_on<S>(&self, stream: S, host: &str) -> Result<(), String>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let Some(path) = &self.health else {
            return Ok(());
        };
        let wrong = |error: &dyn std::fmt::Display| format!("does not answer {path}: {error}");
        let (mut sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| wrong(&error))?;
        let request = Request::get(&**path)
            .header(http::header::HOST, host)
            .header(http::header::CONNECTION, "close")
            .body(String::new())
            .map_err(|error| wrong(&error))?;
        // It ends with the sender.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        match answer.map_err(|error| wrong(&error))?.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("answers {path} with {status}")),
        }
    }

    /// Whether nobody listens where it did. A busy app is not gone.
    pub async fn is_gone(&self) -> bool {
        let connect = async {
            match &self.place {
                Place::Tcp(host, port) => TcpStream::connect((&**host, *port)).await.map(drop),
                Place::Unix(path) => UnixStream::connect(path).await.map(drop),
            }
        };
        matches!(tokio::time::timeout(PATIENCE, connect).await, Ok(Err(_)))
    }
}

fn cannot(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => "does not listen yet".into(),
        _ => format!("cannot be reached: {error}"),
    }
}

fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// Keeps traffic away until the app answers.
#[derive(Clone, Debug)]
pub struct Gate {
    missing: Arc<Mutex<Option<String>>>,
    opened: Arc<Notify>,
}

impl Default for Gate {
    fn default() -> Self {
        let unasked = "the app was not asked yet".to_owned();
        Self {
            missing: Arc::new(Mutex::new(Some(unasked))),
            opened: Arc::default(),
        }
    }
}

impl Gate {
    /// As readiness asks.
    pub fn ready_when(&self) -> ReadyWhen {
        let missing = Arc::clone(&self.missing);
        ReadyWhen(Arc::new(move || missing.lock().clone().map(Cow::Owned)))
    }

    /// Waits until the app answers for the first time.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Asks the app for ever, more often while it does not answer. Changes are logged.
    pub async fn follow(self, app: App) {
        let opened = &self.opened;
        let mut answered = None;
        loop {
            let asked = app.answers().await;
            if answered != Some(asked.is_ok()) {
                match &asked {
                    Ok(()) => {
                        tracing::info!("the app answers");
                        opened.notify_one();
                    }
                    Err(why) => tracing::warn!("the app {why}; no traffic is asked for"),
                }
            }
            answered = Some(asked.is_ok());
            let pause = if asked.is_ok() { SELDOM } else { OFTEN };
            *self.missing.lock() = asked.err().map(|why| format!("the app {why}"));
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tollgate_policy::settings::{ApiConfig, SecurityMode};

    use super::*;

    fn app(url: &str, health: Option<&str>) -> Result<App, BadApp> {
        let spec = std::path::Path::new("spec.yaml");
        let config = ApiConfig::for_spec(spec, url, SecurityMode::Off).unwrap();
        App::new(&config.upstream, health)
    }

    /// Answers one request with this head.
    async fn answering(head: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _read = stream.read(&mut asked).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_connection_is_enough_where_no_path_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = app(&url, None).unwrap();
        app.answers().await.unwrap();
        assert!(!app.is_gone().await);
        drop(listener);
        assert!(app.answers().await.unwrap_err().contains("does not listen"));
        assert!(app.is_gone().await);
    }

    #[tokio::test]
    async fn only_2xx_is_well() {
        let well = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        let health = Some("/healthz");
        app(&well, health).unwrap().answers().await.unwrap();
        let ill = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let why = app(&ill, health).unwrap().answers().await.unwrap_err();
        assert!(why.contains("503"), "{why}");
        let strange = answering("SMTP ready\r\n\r\n").await;
        app(&strange, health).unwrap().answers().await.unwrap_err();
    }

    #[test]
    fn a_path_that_cannot_be_asked_for_is_refused_at_once() {
        assert!(app("http://127.0.0.1:1", Some("healthz")).is_err());
        assert!(app("http://127.0.0.1:1", Some("/a b")).is_err());
        assert!(app("grpc://127.0.0.1:1", Some("/healthz")).is_err());
        assert!(app("grpc://127.0.0.1:1", None).is_ok());
        assert!(app("http://[::1]:1", Some("/healthz")).is_ok());
    }
}
