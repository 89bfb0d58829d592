//! HTTP/2 in cleartext, with prior knowledge: a client's one call, and a service that answers as gRPC services do.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::PATIENCE;

/// The answer to one call.
#[derive(Debug)]
pub struct Http2Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Http2Answer {
    /// Asserts that this is the problem called `code`, told as problem+json.
    pub fn is_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["instance"], self.request_id());
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(kind.ends_with(code), "{kind} is not {code}");
        self
    }

    pub fn request_id(&self) -> &str {
        let id = self.headers.get("x-request-id").expect("a request id");
        id.to_str().unwrap()
    }
}

/// Runs a test's asynchronous part, for a bounded time.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, future).await })
        .expect("done before patience ran out")
}

/// One call on a connection of its own.
///
/// # Errors
/// The stream or the connection was reset.
pub async fn call(
    address: SocketAddr,
    request: Request<()>,
    body: &[u8],
) -> Result<Http2Answer, h2::Error> {
    let pieces: &[&[u8]] = if body.is_empty() { &[] } else { &[body] };
    call_in_pieces(address, request, pieces).await
}

/// One call whose body is sent as these DATA frames, the last of which ends the stream.
///
/// # Errors
/// The stream or the connection was reset.
pub async fn call_in_pieces(
    address: SocketAddr,
    request: Request<()>,
    pieces: &[&[u8]],
) -> Result<Http2Answer, h2::Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let mut send = send.ready().await?;
    let (response, mut sender) = send.send_request(request, pieces.is_empty())?;
    for (index, piece) in pieces.iter().enumerate() {
        sender.send_data(Bytes::copy_from_slice(piece), index + 1 == pieces.len())?;
    }
    let answer = answered(response).await;
    driver.abort();
    answer
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?))
}

/// A service that speaks HTTP/2 only, sends back what it got, and ends with `grpc-status: 0` in the trailers. Where it is asked
/// to be torn (`x-torn`), it resets the stream before that.
pub struct GrpcService {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl GrpcService {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self {
            address,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }
}

async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        tokio::spawn(async move {
            let path = request.uri().path().to_owned();
            let torn = request.headers().contains_key("x-torn");
            let (body, _) = read(request.into_body()).await?;
            let head = Response::builder()
                .header("content-type", "application/grpc")
                .header("x-seen-path", path)
                .body(())
                .unwrap();
            let mut sender: SendStream<Bytes> = respond.send_response(head, false)?;
            sender.send_data(Bytes::from(body), false)?;
            if torn {
                // A reset discards what has not left yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
                sender.send_reset(h2::Reason::INTERNAL_ERROR);
                return Ok(());
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("x-late", "yes".parse().unwrap());
            sender.send_trailers(trailers)
        });
    }
    Ok(())
}

/// One call without a body over a connection that is there.
///
/// # Errors
/// The stream or the connection was reset.
pub async fn call_over<S>(stream: S, request: Request<()>) -> Result<Http2Answer, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let (response, _) = send.ready().await?.send_request(request, true)?;
    answered(response).await
}

async fn answered(response: h2::client::ResponseFuture) -> Result<Http2Answer, h2::Error> {
    let (head, incoming) = response.await?.into_parts();
    let (body, trailers) = read(incoming).await?;
    Ok(Http2Answer {
        status: head.status,
        headers: head.headers,
        body,
        trailers,
    })
}

/// A connection on which several calls may be open at once.
pub async fn connect(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

/// A call whose body is never sent to its end, however long the answer takes.
///
/// # Errors
/// The stream or the connection was reset.
pub async fn call_unfinished(
    address: SocketAddr,
    request: Request<()>,
    beginning: &[u8],
) -> Result<Http2Answer, h2::Error> {
    let mut send = connect(address).await.ready().await?;
    let (response, mut sender) = send.send_request(request, false)?;
    sender.send_data(Bytes::copy_from_slice(beginning), false)?;
    answered(response).await
}

/// A service that speaks HTTP/2 only and sends one empty message after another, for ever.
pub struct Endless {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Endless {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream));
            }
        });
        Self {
            address,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }
}

async fn talk(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (_request, mut respond) = accepted?;
        tokio::spawn(async move {
            let head = Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let mut sender: SendStream<Bytes> = respond.send_response(head, false)?;
            loop {
                sender.send_data(Bytes::from_static(b"\0\0\0\0\0"), false)?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            #[allow(unreachable_code, reason = "names the type of the error")]
            Ok::<(), h2::Error>(())
        });
    }
    Ok(())
}
