//! `apis/<name>.yaml`: one API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::quota::Limit;

use super::{
    AuthConfig, AuthoriserConfig, GrpcConfig, NetworkLists, OperationSettings, OriginPattern,
    RuleConfig,
};

/// One API, as meant: complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiConfig {
    /// The file's stem: `[a-z0-9-]`, at most 63 bytes.
    pub name: Arc<str>,
    /// The file it comes from (the spec itself where `--spec` was given).
    pub file: PathBuf,
    /// The OpenAPI file; `None` where the descriptors of a gRPC service are all there is.
    pub spec: Option<PathBuf>,
    /// The gRPC service behind this API; `None`: it speaks HTTP itself.
    pub grpc: Option<GrpcConfig>,
    /// Hosts served; empty: any host.
    pub hosts: Vec<HostPattern>,
    /// Replaces the base paths of the spec's servers where set (no trailing slash, `""` for none).
    pub base_path: Option<Arc<str>>,
    /// The service it stands before: the sidecars of that service serve this API too. `None`: gateways alone do.
    pub service: Option<Arc<str>>,
    /// The gateways whose admissions sidecars believe, by name; empty: every gateway of the installation.
    pub admissions_from: Vec<Arc<str>>,
    /// Where calls go.
    pub upstream: UpstreamConfig,
    /// Enforce what the spec's `security` demands, or leave it to the service.
    pub security: SecurityMode,
    /// How callers are identified.
    pub auth: AuthConfig,
    /// Who may call what, of those identified.
    pub acl: Vec<RuleConfig>,
    /// Addresses that may call.
    pub networks: NetworkLists,
    /// Pages of other sites that may open WebSockets; none: those of the host itself where a browser adds the credential.
    pub websocket_origins: Vec<OriginPattern>,
    /// Limits on this API's calls, whatever plan they are made under.
    pub limits: Vec<Arc<Limit>>,
    /// An external judge; `None`: none.
    pub authoriser: Option<AuthoriserConfig>,
    /// How the forwarded request differs from the one that came.
    pub rewrite: Rewrite,
    /// Defaults for all operations of this API; they win over what the spec says.
    pub defaults: OperationSettings,
    /// Settings of single operations by `operationId` or `METHOD template`.
    pub operations: BTreeMap<String, OperationSettings>,
}

/// A host an API is served on. Lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(Arc<str>),
    /// `*.example.com`, held as `.example.com`.
    Suffix(Arc<str>),
}

/// What to do about the spec's `security`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecurityMode {
    /// Refuse callers without a credential that satisfies it.
    #[default]
    Enforce,
    /// Leave it to the service.
    Off,
}

/// Host and path of the forwarded request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// `Host` sent to the service.
    pub host: HostRewrite,
    /// Replaces the base path the call came under (`Some("")` strips it); `None` keeps it.
    pub base_path: Option<Arc<str>>,
}

/// `Host` sent to the service.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum HostRewrite {
    /// What the client sent (the default).
    #[default]
    Preserve,
    /// The upstream's own host and port.
    Upstream,
    /// A fixed value.
    Fixed(Arc<str>),
}

/// Where calls go and how.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// At least one.
    pub endpoints: Vec<EndpointConfig>,
    /// Protocol spoken to the service.
    pub protocol: UpstreamProtocol,
    /// TLS to the service; `None`: cleartext. Of services of the installation it is said by each endpoint.
    pub tls: Option<UpstreamTls>,
    /// TCP (and again TLS) connect limit. Default 1 s.
    pub connect_timeout: Duration,
    /// Until the head of the answer. Default 15 s.
    pub first_byte_timeout: Duration,
    /// Between two reads or writes of a body. Default 60 s.
    pub idle_timeout: Duration,
    /// From the first byte of the request to the last of the answer; `None`: unlimited (the default; streams need it).
    pub total_timeout: Option<Duration>,
    /// How long an idle connection is kept. Default 50 s.
    pub keep_alive: Duration,
    /// Retries of a call, 0 to 3. Default 1.
    pub retries: u8,
    /// Retries as a share of all calls, in per cent. Default 20.
    pub retry_budget_percent: u8,
    /// Bytes of one gRPC message in a call that is transcoded, either way. Default 4 MiB, as gRPC libraries have it.
    pub max_message: u64,
    /// Active health check; `None`: passive ejection only.
    pub health_check: Option<HealthCheck>,
    /// Consecutive failures that eject an endpoint; 0 switches ejection off. Default 5.
    pub eject_after: u32,
    /// First ejection time; doubles while it fails again, up to ten times. Default 10 s.
    pub eject_for: Duration,
}

/// One address of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// DNS name, IP address, `unix:/path`, or `service:NAME`: wherever that service of the installation lives.
    pub host: Arc<str>,
    /// Port (0 for Unix sockets and services).
    pub port: u16,
}

impl EndpointConfig {
    /// The service of the installation it stands for, where it is one.
    pub fn service(&self) -> Option<&str> {
        self.host.strip_prefix("service:")
    }
}

/// Protocol spoken to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 (the default for `http://`, `https://` and `service://`).
    #[default]
    Http1,
    /// HTTP/2: prior knowledge in cleartext (`h2c://`, `grpc://`), ALPN in TLS (`h2://`, `grpcs://`), either to a service of the
    /// installation (`service+h2://`, `service+grpc://`).
    Http2,
}

/// TLS to the service. Certificates are always verified.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UpstreamTls {
    /// Name to verify and send as SNI; `None`: the endpoint's host.
    pub server_name: Option<Arc<str>>,
    /// PEM file of trusted roots; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the client certificate chain and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// An active health check: GET, healthy on 2xx and 3xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path, such as `/healthz`.
    pub path: Arc<str>,
    /// Default 5 s.
    pub interval: Duration,
    /// Default 1 s.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out. Default 2.
    pub unhealthy_after: u32,
    /// Successes in a row that take it back. Default 1.
    pub healthy_after: u32,
}
