//! `envoy.service.auth.v3.Authorization/Check`: the messages as far as they are used, and the call.
//!
//! Field numbers are those of Envoy's `attribute_context.proto` and `external_auth.proto`. An answer without a status is no yes.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Question;
use crate::remote::{Bounds, Trust, connect, secured};

#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<Request>,
    #[prost(map = "string, string", tag = "10")]
    context_extensions: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SocketAddress {
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    /// With the query, as Envoy sends it.
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

/// Largest answer, in bytes.
const LARGEST: usize = 64 * 1024;

/// A connection to the judge, made when it is first needed and again when it broke.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    connector: Connector,
    channel: tokio::sync::OnceCell<Channel>,
}

impl Client {
    /// `h2c://` in cleartext, `h2://` by TLS.
    pub(super) fn new(url: &str, deadline: Duration, trust: Trust) -> Result<Self, String> {
        let (scheme, authority) = url.split_once("://").ok_or("it is no URL")?;
        let tls = matches!(scheme, "h2" | "grpcs" | "https");
        let unusable =
            |error: &dyn std::fmt::Display| format!("the authoriser's URL cannot be used: {error}");
        let scheme = if tls { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{}", authority.trim_end_matches('/'))
            .parse()
            .map_err(|error| unusable(&error))?;
        let connector = Connector {
            host: origin.host().ok_or("it has no host")?.to_owned(),
            port: origin.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            trust,
            deadline,
        };
        let endpoint = Endpoint::from(origin)
            .connect_timeout(deadline)
            .timeout(deadline);
        Ok(Self {
            endpoint,
            connector,
            channel: tokio::sync::OnceCell::new(),
        })
    }

    pub(super) async fn check(&self, question: &Question<'_>) -> Result<bool, String> {
        let channel = self
            .channel
            .get_or_init(|| async {
                let connector = self.connector.clone();
                self.endpoint.connect_with_connector_lazy(connector)
            })
            .await;
        let mut client =
            tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(LARGEST);
        client.ready().await.map_err(|error| error.to_string())?;
        let path = PathAndQuery::from_static("/envoy.service.auth.v3.Authorization/Check");
        let codec: ProstCodec<CheckRequest, CheckResponse> = ProstCodec::default();
        let request = tonic::Request::new(request_of(question));
        let answer = client
            .unary(request, path, codec)
            .await
            .map_err(|status| format!("{:?}", status.code()))?;
        match answer.into_inner().status {
            Some(status) => Ok(status.code == 0),
            None => Err("the answer has no status".to_owned()),
        }
    }
}

/// Connects as all questions do, so that TLS is judged by the same roots.
#[derive(Clone, Debug)]
struct Connector {
    host: String,
    port: u16,
    tls: bool,
    trust: Trust,
    deadline: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connector {
    async fn open(self) -> Result<TokioIo<Box<dyn Stream>>, String> {
        let bounds = Bounds {
            deadline: self.deadline,
            bytes: LARGEST,
            // The operator named it; it usually stands beside the gateway.
            allow_private: true,
        };
        let stream = connect(&self.host, self.port, bounds).await?;
        let stream: Box<dyn Stream> = match self.tls {
            false => Box::new(stream),
            true => Box::new(secured(stream, &self.host, &self.trust, &[b"h2"]).await?),
        };
        Ok(TokioIo::new(stream))
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

fn request_of(question: &Question<'_>) -> CheckRequest {
    let address = question.client.map(|ip| Address {
        socket_address: Some(SocketAddress {
            address: ip.to_string(),
        }),
    });
    let path = match question.query {
        "" => question.path.to_owned(),
        query => format!("{}?{query}", question.path),
    };
    let fields = question.fields.iter();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address,
                principal: question.principal.to_owned(),
            }),
            request: Some(Request {
                http: Some(HttpRequest {
                    id: question.request_id.to_owned(),
                    method: question.method.to_owned(),
                    headers: fields.map(|(name, value)| pair(name, value)).collect(),
                    path,
                    host: question.host.to_owned(),
                }),
            }),
            context_extensions: HashMap::from([
                pair("operation", question.operation),
                pair("consumer", question.consumer),
            ]),
        }),
    }
}
