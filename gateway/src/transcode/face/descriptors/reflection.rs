//! Server reflection: asks a service for its own descriptors, `grpc.reflection.v1` first and `v1alpha` where that is all it has.
//!
//! One connection, one question after the other, under one deadline; files and bytes are bounded. What comes back is sorted, so that the
//! same definitions are the same bytes. Not here: when to ask (`live`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tollgate_policy::settings::{EndpointConfig, GrpcConfig, UpstreamConfig};
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::super::http_body::put_bytes;
use crate::remote::{Bounds, connect};
use crate::upstream;

/// For all questions of one round.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of all files.
const LARGEST: usize = 64 << 20;

/// Files of one service.
const MOST_FILES: usize = 2_000;

const VERSIONS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(oneof = "Asked", tags = "3, 4, 7")]
    asked: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Asked {
    #[prost(string, tag = "3")]
    File(String),
    #[prost(string, tag = "4")]
    FileOf(String),
    #[prost(string, tag = "7")]
    Services(String),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(oneof = "Told", tags = "4, 6, 7")]
    told: Option<Told>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Told {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Failed(Failed),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Failed {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// What of a `FileDescriptorProto` tells which other files are needed; the rest stays bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct FileHead {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    dependencies: Vec<String>,
}

/// Asks the endpoints of a service one after the other, and returns a serialized `FileDescriptorSet`.
///
/// # Errors
/// In words: what the last endpoint said.
pub async fn ask(upstream: &UpstreamConfig, grpc: &GrpcConfig) -> Result<Vec<u8>, String> {
    if upstream.endpoints.iter().any(|it| it.service().is_some()) {
        return Err(
            "a service of the installation is not asked for its descriptors; name a file"
                .to_owned(),
        );
    }
    let round = async {
        let mut last = "there is no endpoint".to_owned();
        for endpoint in &upstream.endpoints {
            match ask_one(upstream, endpoint, grpc).await {
                Ok(set) => return Ok(set),
                Err(why) => last = format!("{}:{}: {why}", endpoint.host, endpoint.port),
            }
        }
        Err(last)
    };
    let elapsed = |_| Err(format!("no answer within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, round)
        .await
        .unwrap_or_else(elapsed)
}

/// As [`ask`], from where there is no runtime, or one that must not be blocked by itself. Blocks.
///
/// # Errors
/// As [`ask`].
pub fn ask_blocking(upstream: &UpstreamConfig, grpc: &GrpcConfig) -> Result<Vec<u8>, String> {
    let asking = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(ask(upstream, grpc))
    };
    // A thread of its own: the current one may be driving a runtime.
    let asked = std::thread::scope(|scope| scope.spawn(asking).join());
    asked.unwrap_or_else(|_| Err("asking the service failed inside Tollgate".to_owned()))
}

async fn ask_one(
    upstream: &UpstreamConfig,
    endpoint: &EndpointConfig,
    grpc: &GrpcConfig,
) -> Result<Vec<u8>, String> {
    let scheme = if upstream.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let origin = format!("{scheme}://{}:{}", endpoint.host, endpoint.port);
    let origin: Uri = origin.parse().map_err(|_| "it is no host".to_owned())?;
    let connector = Connector {
        host: endpoint.host.to_string(),
        port: endpoint.port,
        tls: upstream::client_tls(upstream, &endpoint.host)?,
    };
    let channel = Endpoint::from(origin).connect_with_connector_lazy(connector);
    let mut last = String::new();
    for version in VERSIONS {
        let mut conversation = Conversation {
            client: Grpc::new(channel.clone()).max_decoding_message_size(LARGEST),
            path: PathAndQuery::from_static(version),
            files: BTreeMap::new(),
            bytes: 0,
        };
        match conversation.run(grpc).await {
            Ok(()) => return Ok(conversation.set()),
            Err(Refused::NotThere(why)) => last = why,
            Err(Refused::Failed(why)) => return Err(why),
        }
    }
    Err(format!("it has no server reflection: {last}"))
}

enum Refused {
    /// This version of reflection is not served.
    NotThere(String),
    Failed(String),
}

struct Conversation {
    client: Grpc<Channel>,
    path: PathAndQuery,
    /// By name.
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Conversation {
    async fn run(&mut self, grpc: &GrpcConfig) -> Result<(), Refused> {
        let services = match self.ask(Asked::Services("*".to_owned())).await? {
            Told::Services(services) => services.services,
            Told::Files(_) | Told::Failed(_) => {
                return Err(Refused::Failed(
                    "it does not say which services it has".to_owned(),
                ));
            }
        };
        let all: BTreeSet<String> = services.into_iter().map(|service| service.name).collect();
        let wanted = |name: &String| match grpc.services.as_slice() {
            [] => !name.starts_with("grpc."),
            named => named.iter().any(|it| *it.name == **name),
        };
        let mut waiting = VecDeque::new();
        for service in all.into_iter().filter(wanted) {
            let told = self.ask(Asked::FileOf(service)).await?;
            self.take(told, &mut waiting)?;
        }
        while let Some(name) = waiting.pop_front() {
            if !self.files.contains_key(&name) {
                let told = self.ask(Asked::File(name)).await?;
                self.take(told, &mut waiting)?;
            }
        }
        if self.files.is_empty() {
            return Err(Refused::Failed(
                "it names no service that is served here".to_owned(),
            ));
        }
        Ok(())
    }

    fn take(&mut self, told: Told, waiting: &mut VecDeque<String>) -> Result<(), Refused> {
        let files = match told {
            Told::Files(files) => files.files,
            Told::Failed(failed) => return Err(Refused::Failed(said(&failed.message))),
            Told::Services(_) => {
                return Err(Refused::Failed("it answers what was not asked".to_owned()));
            }
        };
        for bytes in files {
            let head = FileHead::decode(&*bytes);
            let head = head.map_err(|_| Refused::Failed("a file is no descriptor".to_owned()))?;
            self.bytes = self.bytes.saturating_add(bytes.len());
            if self.bytes > LARGEST
                || self.files.len() >= MOST_FILES
                || waiting.len() > 4 * MOST_FILES
            {
                return Err(Refused::Failed(
                    "it has more definitions than are taken".to_owned(),
                ));
            }
            waiting.extend(head.dependencies);
            self.files.entry(head.name).or_insert(bytes);
        }
        Ok(())
    }

    async fn ask(&mut self, asked: Asked) -> Result<Told, Refused> {
        let failed = |error: tonic::transport::Error| Refused::Failed(error.to_string());
        self.client.ready().await.map_err(failed)?;
        let question = tonic::Request::new(Question { asked: Some(asked) });
        let codec: ProstCodec<Question, Answer> = ProstCodec::default();
        let answers = self
            .client
            .server_streaming(question, self.path.clone(), codec)
            .await;
        let answer = match answers {
            Ok(answers) => answers.into_inner().message().await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(Some(Answer { told: Some(told) })) => Ok(told),
            Ok(_) => Err(Refused::Failed("it answers nothing".to_owned())),
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                Err(Refused::NotThere(said(status.message())))
            }
            Err(status) => Err(Refused::Failed(format!(
                "{:?}: {}",
                status.code(),
                said(status.message())
            ))),
        }
    }

    /// `FileDescriptorSet`: the files as they came, by name.
    fn set(self) -> Vec<u8> {
        let mut set = Vec::with_capacity(self.bytes + self.files.len() * 8);
        for bytes in self.files.into_values() {
            put_bytes(1, &bytes, &mut set);
        }
        set
    }
}

/// The service's own words, as far as a message may hold them.
fn said(message: &str) -> String {
    message
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

type Tls = (
    std::sync::Arc<rustls::ClientConfig>,
    rustls_pki_types::ServerName<'static>,
);

/// Connects as calls do, by the same certificates.
#[derive(Clone)]
struct Connector {
    host: String,
    port: u16,
    tls: Option<Tls>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connector {
    async fn open(self) -> Result<TokioIo<Box<dyn Stream>>, String> {
        let bounds = Bounds {
            deadline: DEADLINE,
            bytes: LARGEST,
            // The operator named it.
            allow_private: true,
        };
        let stream = connect(&self.host, self.port, bounds).await?;
        let Some((mut config, name)) = self.tls else {
            return Ok(TokioIo::new(Box::new(stream)));
        };
        std::sync::Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
        let secured = TlsConnector::from(config).connect(name, stream).await;
        let secured = secured.map_err(|error| format!("the TLS handshake failed: {error}"))?;
        Ok(TokioIo::new(Box::new(secured)))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = String;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, String>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}
