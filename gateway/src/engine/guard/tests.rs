//! A panic costs its request alone: over real sockets, through the real proxy, with a service that panics where it is told to.

use std::path::Path;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::{HeaderMap, Request};
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};
use pingora_proxy::{ProxyHttp, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tollgate_policy::settings::{AccessLogTarget, Direction, ListenAddress};

use super::*;
use crate::apis::Apis;
use crate::listener::{Bound, Door, Drain};
use crate::telemetry::{AccessLog, Metrics};

const PATIENCE: Duration = Duration::from_secs(10);

/// `/early` panics before anything is known of the request, `/panic` before the answer, `/half` within it; `/slow` waits for `go`.
struct Trap {
    shared: Arc<Shared>,
    go: Arc<Notify>,
    arrived: Arc<Notify>,
}

#[async_trait]
impl ProxyHttp for Trap {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.shared.clone())
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let path = session.req_header().uri.path().to_owned();
        assert_ne!(path, "/early", "told to");
        let _no_api_is_served = exchange.admit(session.req_header(), &Peer::default()).await;
        let watch = Watch::current().expect("a watch");
        watch.names(exchange.request_id);
        assert_ne!(path, "/panic", "told to");
        if path == "/slow" {
            self.arrived.notify_one();
            self.go.notified().await;
        }
        let mut head = ResponseHeader::build(200, None)?;
        head.insert_header("content-length", "4")?;
        session.write_response_header(Box::new(head), false).await?;
        let half = Some(Bytes::from_static(b"do"));
        session.write_response_body(half, false).await?;
        exchange.upstream.latency = Some(Duration::ZERO);
        assert_ne!(path, "/half", "told to");
        let rest = Some(Bytes::from_static(b"ne"));
        session.write_response_body(rest, true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Exchange) -> Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "nothing is forwarded")
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, exchange: &mut Exchange) {
        exchange.report(&Seen {
            head: Some(session.req_header()),
            client: None,
            tls: false,
            status: 200,
            response_bytes: 4,
            aborted: false,
        });
    }
}

/// A listener before the trap.
struct World {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    log: tempfile::TempDir,
    go: Arc<Notify>,
    arrived: Arc<Notify>,
}

impl World {
    fn start() -> Self {
        let log = tempfile::tempdir().unwrap();
        let shared = shared(&log.path().join("access.log"));
        let (go, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let trap = Trap {
            shared: shared.clone(),
            go: go.clone(),
            arrived: arrived.clone(),
        };
        let conf = Arc::new(ServerConf::default());
        let proxy = Arc::new(pingora_proxy::http_proxy(&conf, trap));
        let limits = DoorLimits::default();
        let direction = Direction::Inbound;
        let app = Arc::new(Guarded::new(
            proxy,
            shared.clone(),
            limits.clone(),
            direction,
        ));
        let bound = Bound::bind(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let ListenAddress::Tcp(address) = *bound.local_address() else {
            panic!("not TCP")
        };
        let metrics = shared.metrics.clone();
        let refused = Arc::new(|_: Option<SocketAddr>, _: &Denial| Vec::new());
        let door = Door::new(limits, metrics.clone(), Arc::default(), refused);
        tokio::spawn(listener::serve(
            bound.into_listener().unwrap(),
            Arc::from("test"),
            None,
            Vec::new(),
            app,
            Arc::new(door),
            Drain::new(),
        ));
        Self {
            address,
            metrics,
            log,
            go,
            arrived,
        }
    }

    async fn http1(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Waits until nothing is in flight and so many requests were lost to panics; gives the records of those.
    async fn settles(&self, lost: usize) -> Vec<serde_json::Value> {
        let begun = Instant::now();
        let none = "tollgate_requests_in_flight{api=\"none\"} 0";
        loop {
            let records = records(&self.log.path().join("access.log"));
            let internal: Vec<_> = records
                .into_iter()
                .filter(|record| record["denial"] == "internal")
                .collect();
            let page = self.metrics.render();
            if page.contains(none) && internal.len() >= lost {
                assert!(
                    page.contains(&format!("cause=\"internal\"}} {lost}")),
                    "{page}"
                );
                return internal;
            }
            assert!(begun.elapsed() < PATIENCE, "{internal:?}\n{page}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn shared(log: &Path) -> Arc<Shared> {
    let metrics = Metrics::new();
    let target = AccessLogTarget::File(log.to_owned());
    let apis = Arc::new(ArcSwap::from_pointee(Apis::default()));
    let log = AccessLog::start(&target, metrics.clone()).unwrap();
    let (control, _nobody) = tollgate_proto::channel([0; 32]);
    let (mut shared, _) = Shared::new(apis, metrics, log, control);
    shared.fast_path = false;
    Arc::new(shared)
}

fn records(log: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

type Told = (u16, HeaderMap, std::result::Result<Vec<u8>, h2::Error>);

async fn http2(mut send: h2::client::SendRequest<Bytes>, address: SocketAddr, path: &str) -> Told {
    let request = Request::get(format!("http://{address}{path}"));
    let sent = send.send_request(request.body(()).unwrap(), true);
    let (head, mut body) = sent.unwrap().0.await.unwrap().into_parts();
    let mut bytes = Ok(Vec::new());
    while let Some(piece) = body.data().await {
        bytes = match (bytes, piece) {
            (Ok(bytes), Ok(piece)) => Ok([bytes, piece.to_vec()].concat()),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if bytes.is_err() {
            break;
        }
    }
    (head.status.as_u16(), head.headers, bytes)
}

fn is_internal(problem: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(problem).unwrap();
    assert_eq!(problem["type"], "urn:tollgate:problem:internal");
    problem["instance"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_panic_over_http1_costs_its_request_alone() {
    let world = World::start();
    let (address, go) = (world.address, world.go.clone());
    let slow = world.http1("/slow");
    let others = async {
        world.arrived.notified().await;
        let answer = world.http1("/panic").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
        assert!(head.contains("application/problem+json"), "{head}");
        let id = is_internal(body.as_bytes());
        assert!(head.contains(&format!("x-request-id: {id}")), "{head}");
        let early = world.http1("/early").await;
        assert!(early.starts_with("HTTP/1.1 500 "), "{early}");
        let half = world.http1("/half").await;
        assert!(
            half.starts_with("HTTP/1.1 200 ") && half.ends_with("\r\n\r\ndo"),
            "{half}"
        );
        assert!(world.http1("/fine").await.ends_with("done"));
        go.notify_one();
        id
    };
    let (slow, id) = tokio::join!(slow, others);
    assert!(slow.ends_with("\r\n\r\ndone"), "{address}: {slow}");
    let lost = world.settles(3).await;
    assert!(
        lost.iter()
            .any(|it| it["request_id"] == id && it["status"] == 500),
        "{lost:?}"
    );
    assert!(
        lost.iter().any(|it| it["status"] == 0),
        "the half answer: {lost:?}"
    );
}

#[tokio::test]
async fn a_panic_over_http2_costs_its_stream_alone() {
    let world = World::start();
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let send = send.ready().await.unwrap();
    let ask = |path| http2(send.clone(), world.address, path);
    let others = async {
        world.arrived.notified().await;
        let (status, headers, body) = ask("/panic").await;
        assert_eq!(status, 500);
        assert_eq!(
            headers["x-request-id"],
            is_internal(&body.unwrap()).as_str()
        );
        assert_eq!(ask("/early").await.0, 500);
        let (status, _, body) = ask("/half").await;
        assert!(
            status == 200 && body.is_err(),
            "half an answer is no answer: {body:?}"
        );
        assert_eq!(ask("/fine").await.2.unwrap(), b"done");
        world.go.notify_one();
    };
    let (slow, ()) = tokio::join!(ask("/slow"), others);
    assert_eq!(slow.2.unwrap(), b"done", "a stream beside it lives on");
    let lost = world.settles(3).await;
    assert_eq!(
        lost.iter().filter(|it| it["status"] == 500).count(),
        2,
        "{lost:?}"
    );
}
