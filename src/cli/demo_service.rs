//! `tollgate demo-service`: a service to stand behind the gateway while one gets to know it.
//!
//! It speaks HTTP/1.1 and HTTP/2 in cleartext, answers every call with a JSON description of what arrived, and streams a
//! bounded number of server-sent events at paths that end in `/events`. Over gRPC it is the bookstore of `bookstore`. Not here:
//! anything a real service does.

mod bookstore;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::codegen::Service as _;

use bookstore::{BookstoreServer, Store};

/// So much of a body is shown; the rest is only counted.
const SHOWN_BODY: usize = 4096;
/// The demo service is nobody's production: a few connections suffice, more wait.
const MAX_CONNECTIONS: usize = 1024;
/// Between two events of a stream.
const TICK: Duration = Duration::from_millis(500);
/// Events of a stream where `?count=` says nothing, and at most.
const TICKS: (u32, u32) = (5, 100);

/// Run a service that echoes what it received, and over gRPC keeps a bookstore, to put behind a gateway.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub(crate) listen: SocketAddr,
}

/// Serves until the process ends.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        tracing::info!("demo service listening on {}", listener.local_addr()?);
        serve(listener).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Serves on `listener` until the future is dropped.
///
/// # Errors
/// Accepting fails for good.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let books = BookstoreServer::new(Store::new());
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, say: waiting a moment keeps the loop from spinning.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let books = books.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, books.clone()));
            let answered = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = answered {
                tracing::debug!(%error, "connection ended early");
            }
            drop(permit);
        });
    }
}

type Answer = Response<tonic::body::Body>;

async fn answer(
    request: Request<Incoming>,
    mut books: BookstoreServer<Store>,
) -> Result<Answer, hyper::Error> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        // It cannot fail: what goes wrong is an answer.
        return Ok(books
            .call(request)
            .await
            .unwrap_or_else(|never| match never {}));
    }
    let (head, body) = request.into_parts();
    let query = Query(head.uri.query().unwrap_or_default());
    if head.uri.path().ends_with("/events") {
        return Ok(events(
            query.number("count").unwrap_or(TICKS.0).min(TICKS.1),
        ));
    }
    let (shown, size) = read(body).await?;
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(text);
    }
    let echo = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body_bytes": size,
        "body": String::from_utf8_lossy(&shown),
    });
    let status = query
        .number("status")
        .and_then(|number| u16::try_from(number).ok())
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::OK);
    let text = format!("{echo:#}\n");
    Ok(respond(
        status,
        "application/json",
        Full::new(Bytes::from(text)).boxed(),
    ))
}

/// The beginning of a body, and its size.
async fn read(mut body: Incoming) -> Result<(BytesMut, u64), hyper::Error> {
    let (mut shown, mut size) = (BytesMut::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        size = size.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        let room = SHOWN_BODY.saturating_sub(shown.len());
        shown.extend(data.iter().take(room));
    }
    Ok((shown, size))
}

fn events(count: u32) -> Answer {
    respond(
        StatusCode::OK,
        "text/event-stream",
        Ticks::new(count).boxed(),
    )
}

fn respond(status: StatusCode, kind: &'static str, body: BoxBody<Bytes, Infallible>) -> Answer {
    let mut response = Response::new(tonic::body::Body::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// A query string, read leniently: this service shows what came, it does not judge.
#[derive(Clone, Copy)]
struct Query<'q>(&'q str);

impl Query<'_> {
    fn number(self, name: &str) -> Option<u32> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .find_map(|(_, value)| value.parse().ok())
    }
}

/// A body of events, the first at once, the others a tick apart.
struct Ticks {
    interval: tokio::time::Interval,
    sent: u32,
    count: u32,
}

impl Ticks {
    fn new(count: u32) -> Self {
        Self {
            interval: tokio::time::interval(TICK),
            sent: 0,
            count,
        }
    }
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent >= self.count {
            return Poll::Ready(None);
        }
        std::task::ready!(self.interval.poll_tick(context));
        self.sent += 1;
        let event = format!(
            "id: {0}\nevent: tick\ndata: {{\"tick\":{0}}}\n\n",
            self.sent
        );
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tokio::spawn(serve(listener));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        service.abort();
        answer
    }

    #[tokio::test]
    async fn what_arrived_is_described() {
        let answer = ask(
            "POST /v1/books?a=1&status=201 HTTP/1.1\r\nhost: x\r\nx-who: me\r\n\
             content-length: 5\r\nconnection: close\r\n\r\nhello",
        )
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let echo: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(head.starts_with("HTTP/1.1 201"), "{head}");
        assert_eq!(echo["method"], "POST");
        assert_eq!(echo["path"], "/v1/books");
        assert_eq!(echo["query"], "a=1&status=201");
        assert_eq!(echo["headers"]["x-who"][0], "me");
        assert_eq!(echo["body"], "hello");
        assert_eq!(echo["body_bytes"], 5);
    }

    #[tokio::test]
    async fn events_are_as_many_as_asked_for() {
        let answer =
            ask("GET /v1/events?count=2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains("text/event-stream"), "{answer}");
        assert_eq!(answer.matches("event: tick").count(), 2, "{answer}");
    }
}
