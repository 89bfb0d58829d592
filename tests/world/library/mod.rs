//! A gRPC service made with tonic, and one beside it that breaks the protocol in each way there is.
//!
//! The messages are those of `library.proto`. The service notes what it was asked with, and what was cancelled.

#![allow(
    dead_code,
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

mod faults;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::world::{self, Plan, World, eventually};

#[derive(Clone, PartialEq, prost::Message)]
pub struct Book {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub title: String,
    #[prost(int64, tag = "3")]
    pub pages: i64,
    #[prost(string, repeated, tag = "4")]
    pub tags: Vec<String>,
    #[prost(int32, tag = "6")]
    pub format: i32,
}

/// Any request whose first field is text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub count: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateBook {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(message, optional, tag = "2")]
    book: Option<Book>,
    #[prost(bool, tag = "3")]
    dry_run: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    paths: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdateBook {
    #[prost(message, optional, tag = "1")]
    book: Option<Book>,
    #[prost(message, optional, tag = "2")]
    update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Summary {
    #[prost(int32, tag = "1")]
    books: i32,
    #[prost(int64, tag = "2")]
    pages: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    #[prost(string, tag = "1")]
    pub text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpBody {
    #[prost(string, tag = "1")]
    content_type: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Upload {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    content: Option<HttpBody>,
}

/// A call that reached the service.
#[derive(Clone, Debug)]
pub struct Reached {
    pub path: String,
    pub fields: hyper::HeaderMap,
}

#[derive(Default)]
struct Notes {
    reached: Mutex<Vec<Reached>>,
    given_up: AtomicUsize,
    connections: AtomicUsize,
}

/// The running service.
pub struct Library {
    address: SocketAddr,
    by_tls: bool,
    notes: Arc<Notes>,
    _runtime: tokio::runtime::Runtime,
}

/// Where the definition lies.
pub fn proto() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/world/library/library.proto"
    ))
}

impl Library {
    pub fn new() -> Self {
        Self::at(([127, 0, 0, 1], 0).into())
    }

    /// At an address that was another's.
    pub fn at(address: SocketAddr) -> Self {
        Self::start(address, None)
    }

    /// By TLS, and what has to be trusted, as PEM.
    pub fn by_tls() -> (Self, String) {
        let (certificate, config) = world::tls::identity();
        let mut config = rustls::ServerConfig::clone(&config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let library = Self::start(([127, 0, 0, 1], 0).into(), Some(acceptor));
        (library, certificate)
    }

    fn start(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let notes = Arc::new(Notes::default());
        let kept = Arc::clone(&notes);
        let by_tls = tls.is_some();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                notes.connections.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let notes = Arc::clone(&notes);
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, notes).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, notes).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            by_tls,
            notes: kept,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        let scheme = if self.by_tls { "grpcs" } else { "grpc" };
        format!("{scheme}://{}", self.address)
    }

    /// A gateway before it; `more` goes into the API file.
    pub fn world(&self, more: &str) -> World {
        before(&self.url(), more)
    }

    /// The calls so far.
    pub fn reached(&self) -> Vec<Reached> {
        self.notes.reached.lock().unwrap().clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.notes.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many calls were cancelled by their caller.
    pub fn gave_up(&self, calls: usize) {
        eventually("the service learns that its caller is gone", || {
            self.notes.given_up.load(Ordering::SeqCst) >= calls
        });
    }
}

/// A gateway before a library at this URL.
pub fn before(url: &str, more: &str) -> World {
    plan_before(url, more).start()
}

/// The same, not started.
pub fn plan_before(url: &str, more: &str) -> Plan {
    plan(url, "anyone", more)
}

/// A gateway that demands a key, and knows none.
pub fn keyed(url: &str) -> World {
    plan(url, "[key]", "").start()
}

/// A gateway before it that sells calls to `desk`, so many in all.
pub fn sold(url: &str, calls: u64) -> World {
    let plans = format!(
        "plans:\n  all:\n    apis: {{ library: all }}\n    limits: [{{ name: all-time, amount: {calls}, window: lifetime }}]\n"
    );
    let consumers = "organisations: { acme: { projects: { web: { consumers: { desk: { subscriptions: { library: all } } } } } } }\n";
    plan(url, "[key]", "")
        .file("plans.yaml", &plans)
        .file("consumers.yaml", consumers)
        .start()
}

fn plan(url: &str, callers: &str, more: &str) -> Plan {
    let file = format!(
        "upstream: {{url: {url}, timeouts: {{first_byte: 5s}}, max_message: 256KiB}}\n\
         grpc:\n  protos: [{}]\n  callers: {callers}\n{more}",
        proto().display()
    );
    Plan::before(url).api("library", file)
}

/// Counts a call as given up unless it came to its end.
struct Waits(Arc<Notes>, bool);

impl Drop for Waits {
    fn drop(&mut self) {
        if self.1 {
            self.0.given_up.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn serve<S>(stream: S, notes: Arc<Notes>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serve = service_fn(move |request| answer(request, Arc::clone(&notes)));
    let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), serve)
        .await;
}

type Answered = Result<hyper::Response<Body>, std::convert::Infallible>;
type Later<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

async fn answer(request: hyper::Request<Incoming>, notes: Arc<Notes>) -> Answered {
    let path = request.uri().path().to_owned();
    notes.reached.lock().unwrap().push(Reached {
        path: path.clone(),
        fields: request.headers().clone(),
    });
    let Some(method) = path.strip_prefix("/library.v1.Library/") else {
        return Ok(faults::answer(request).await);
    };
    let mut waits = Waits(Arc::clone(&notes), true);
    let answered = match method {
        "GetBook" | "Title" => unary(request, |asked| Box::pin(get(asked))).await,
        "CreateBook" => unary(request, |asked| Box::pin(create(asked))).await,
        "UpdateBook" => {
            unary(request, |asked: Request<UpdateBook>| {
                Box::pin(async { Ok(Response::new(asked.into_inner())) })
            })
            .await
        }
        "Download" => unary(request, |asked| Box::pin(download(asked))).await,
        "Upload" => unary(request, |asked| Box::pin(upload(asked))).await,
        "Ping" => {
            unary(request, |asked: Request<Note>| {
                Box::pin(async { Ok(Response::new(asked.into_inner())) })
            })
            .await
        }
        "ListBooks" => {
            let list = |asked: Request<Named>| list(&asked.into_inner());
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.server_streaming(Many(list), request).await
        }
        "Pages" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.server_streaming(Many(pages), request).await
        }
        "AddBooks" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.client_streaming(Gathers, request).await
        }
        "Store" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.client_streaming(Stores, request).await
        }
        "Talk" => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            grpc.streaming(Talks(Arc::clone(&notes)), request).await
        }
        _ => Status::unimplemented("no such method").into_http(),
    };
    waits.1 = false;
    Ok(answered)
}

async fn unary<M, N>(
    request: hyper::Request<Incoming>,
    function: fn(Request<M>) -> Later<N>,
) -> hyper::Response<Body>
where
    M: prost::Message + Default + 'static,
    N: prost::Message + Default + 'static,
{
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<N, M>::default());
    grpc.unary(One(function), request).await
}

struct One<M, N>(fn(Request<M>) -> Later<N>);

impl<M, N> tonic::server::UnaryService<M> for One<M, N> {
    type Response = N;
    type Future = Later<N>;

    fn call(&mut self, request: Request<M>) -> Later<N> {
        (self.0)(request)
    }
}

fn with_metadata<T>(message: T, asked: &MetadataMap) -> Response<T> {
    let mut response = Response::new(message);
    response
        .metadata_mut()
        .insert("x-initial", "yes".parse().unwrap());
    if let Some(custom) = asked.get("x-custom") {
        response
            .metadata_mut()
            .insert("x-seen-custom", custom.clone());
    }
    response
}

async fn get(asked: Request<Named>) -> Result<Response<Book>, Status> {
    let name = asked.get_ref().name.clone();
    if name.ends_with("/slow") {
        std::future::pending::<()>().await;
    }
    if name.ends_with("/gone") {
        let mut status = Status::not_found("no \u{201c}such\u{201d} book: 100%");
        status
            .metadata_mut()
            .insert("x-why", "burnt".parse().unwrap());
        return Err(status);
    }
    let book = Book {
        title: "Walden".to_owned(),
        pages: 352,
        tags: vec!["a".to_owned(), "b".to_owned()],
        name,
        ..Book::default()
    };
    Ok(with_metadata(book, asked.metadata()))
}

async fn create(asked: Request<CreateBook>) -> Result<Response<Book>, Status> {
    let CreateBook {
        parent,
        book,
        dry_run,
    } = asked.into_inner();
    let mut book = book.unwrap_or_default();
    book.name = format!("{parent}/books/new");
    if dry_run {
        book.tags.push("dry".to_owned());
    }
    Ok(Response::new(book))
}

async fn download(asked: Request<Named>) -> Result<Response<HttpBody>, Status> {
    Ok(Response::new(HttpBody {
        content_type: "text/csv".to_owned(),
        data: format!("name\n{}\n", asked.into_inner().name).into_bytes(),
    }))
}

async fn upload(asked: Request<Upload>) -> Result<Response<Book>, Status> {
    let Upload { name, content } = asked.into_inner();
    let content = content.unwrap_or_default();
    Ok(Response::new(Book {
        name,
        title: content.content_type,
        pages: i64::try_from(content.data.len()).unwrap(),
        ..Book::default()
    }))
}

/// Messages from a task.
pub struct Stream<T>(mpsc::Receiver<Result<T, Status>>);

impl<T> futures_core::Stream for Stream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

struct Many<F>(F);

impl<M, T, F> tonic::server::ServerStreamingService<M> for Many<F>
where
    T: Send + 'static,
    F: FnMut(Request<M>) -> Result<Stream<T>, Status>,
{
    type Response = T;
    type ResponseStream = Stream<T>;
    type Future = Later<Stream<T>>;

    fn call(&mut self, request: Request<M>) -> Self::Future {
        let stream = (self.0)(request).map(Response::new);
        Box::pin(async { stream })
    }
}

fn list(asked: &Named) -> Result<Stream<Book>, Status> {
    let (send, receive) = mpsc::channel(4);
    let shelf = asked.name.clone();
    let count = asked.count;
    if shelf.ends_with("/none") {
        return Err(Status::permission_denied("not this shelf"));
    }
    tokio::spawn(async move {
        for number in 0..count {
            let book = Book {
                name: format!("{shelf}/books/{number}"),
                pages: i64::from(number),
                ..Book::default()
            };
            if send.send(Ok(book)).await.is_err() {
                return;
            }
        }
        if shelf.ends_with("/broken") {
            let _ = send.send(Err(Status::data_loss("the shelf fell"))).await;
        }
        if shelf.ends_with("/endless") {
            send.closed().await;
        }
    });
    Ok(Stream(receive))
}

fn pages(asked: Request<Named>) -> Result<Stream<HttpBody>, Status> {
    let (send, receive) = mpsc::channel(4);
    let broken = asked.get_ref().name.ends_with("/broken");
    tokio::spawn(async move {
        for page in ["one\n", "two\n"] {
            let body = HttpBody {
                content_type: "text/plain".to_owned(),
                data: page.as_bytes().to_vec(),
            };
            let _ = send.send(Ok(body)).await;
        }
        if broken {
            let _ = send.send(Err(Status::internal("a page is missing"))).await;
        }
    });
    Ok(Stream(receive))
}

struct Gathers;

impl tonic::server::ClientStreamingService<Book> for Gathers {
    type Response = Summary;
    type Future = Later<Summary>;

    fn call(&mut self, request: Request<Streaming<Book>>) -> Self::Future {
        Box::pin(async move {
            let mut books = request.into_inner();
            let mut summary = Summary::default();
            while let Some(book) = books.message().await? {
                summary.books += 1;
                summary.pages += book.pages;
            }
            Ok(Response::new(summary))
        })
    }
}

struct Stores;

impl tonic::server::ClientStreamingService<Upload> for Stores {
    type Response = Book;
    type Future = Later<Book>;

    fn call(&mut self, request: Request<Streaming<Upload>>) -> Self::Future {
        Box::pin(async move {
            let mut parts = request.into_inner();
            let mut book = Book::default();
            while let Some(part) = parts.message().await? {
                let content = part.content.unwrap_or_default();
                book.name += &part.name;
                book.title += &content.content_type;
                book.pages += i64::try_from(content.data.len()).unwrap();
            }
            Ok(Response::new(book))
        })
    }
}

struct Talks(Arc<Notes>);

impl tonic::server::StreamingService<Note> for Talks {
    type Response = Note;
    type ResponseStream = Stream<Note>;
    type Future = Later<Stream<Note>>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        let notes = Arc::clone(&self.0);
        Box::pin(async move {
            let mut heard = request.into_inner();
            let (send, receive) = mpsc::channel(4);
            tokio::spawn(async move {
                let mut waits = Waits(notes, true);
                loop {
                    let said = tokio::select! {
                        said = heard.message() => said,
                        () = send.closed() => return,
                    };
                    let Ok(said) = said else { return };
                    let Some(note) = said else { break };
                    let text = format!("you said {}", note.text);
                    let answer = match note.text.as_str() {
                        "stop" => Err(Status::aborted("as you like")),
                        _ => Ok(Note { text }),
                    };
                    if send.send(answer).await.is_err() {
                        return;
                    }
                }
                waits.1 = false;
                let text = "goodbye".to_owned();
                let _ = send.send(Ok(Note { text })).await;
            });
            Ok(Response::new(Stream(receive)))
        })
    }
}

async fn whole(request: hyper::Request<Incoming>) -> Vec<u8> {
    let body = request.into_body().collect().await;
    body.map(|body| body.to_bytes().to_vec())
        .unwrap_or_default()
}

/// The files of `google/api` that `library.proto` imports, for compilers that do not bring them.
pub const GOOGLE_API: [(&str, &str); 3] = [
    (
        "annotations.proto",
        "syntax = \"proto3\"; package google.api; import \"google/api/http.proto\";\n\
         import \"google/protobuf/descriptor.proto\";\n\
         extend google.protobuf.MethodOptions { HttpRule http = 72295728; }\n",
    ),
    (
        "http.proto",
        "syntax = \"proto3\"; package google.api;\n\
         message HttpRule {\n\
         string selector = 1;\n\
         oneof pattern { string get = 2; string put = 3; string post = 4; string delete = 5; string patch = 6; }\n\
         string body = 7; string response_body = 12; repeated HttpRule additional_bindings = 11; }\n",
    ),
    (
        "httpbody.proto",
        "syntax = \"proto3\"; package google.api; import \"google/protobuf/any.proto\";\n\
         message HttpBody { string content_type = 1; bytes data = 2; repeated google.protobuf.Any extensions = 3; }\n",
    ),
];
