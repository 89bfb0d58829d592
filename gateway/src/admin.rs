//! The node's admin port: `/livez /readyz /metrics /apis /config`, loopback by default.
//!
//! Promises: reads only; answers no web page that was tricked into asking (Host and Origin are checked against DNS
//! rebinding and cross-site requests); a bounded number of short connections. Not here: changing anything, and
//! authentication, which is why the port belongs on loopback or a network of operators.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tollgate_policy::settings::{
    AccessLogTarget, ApiConfig, DescriptorSource, HostPattern, ListenAddress, OverloadConfig,
    ProcessConfig,
};

use crate::descriptors;
use crate::engine::ReadyWhen;
use crate::explain::{self, Described};
use crate::journey::Shared;
use crate::live::Live;
use crate::shadow::ShadowLine;
use crate::telemetry::{Metrics, write_callers, write_costs, write_overload};

/// Connections at once; more wait in the backlog of the socket. Probes, a scraper and a few operators need ten.
const CONNECTIONS: usize = 32;
/// Time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection, so that who reads slowly holds no place for long.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// What running answers get after the shutdown began.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a request head.
const HEAD_BYTES: usize = 16 * 1024;
/// Bytes of the description of a call.
const BODY_BYTES: usize = 64 * 1024;
/// Pause after `accept` failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the endpoints show.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// `/explain`, `/shadow`.
    pub shared: Arc<Shared>,
    /// `/apis`, `/config`.
    pub live: Arc<Live>,
    /// Whether the listeners accept; set by the start-up.
    pub ready: Arc<AtomicBool>,
    /// Whether a drain began; set by the shutdown.
    pub draining: Arc<AtomicBool>,
    /// `/config`.
    pub process: Arc<ProcessConfig>,
    /// What others add to `/metrics`.
    pub page: Option<Page>,
    /// What else has to be there before traffic comes.
    pub ready_when: Vec<ReadyWhen>,
}

/// Adds to a page of metrics.
#[derive(Clone)]
pub struct Page(pub Arc<dyn Fn(&mut String) + Send + Sync>);

impl std::fmt::Debug for Page {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Page")
    }
}

/// Serves the admin port until `shutdown` completes, then gives running answers two seconds.
///
/// # Errors
/// The listener cannot be used by the runtime.
pub async fn serve(
    listener: std::net::TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let router = router(state);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        connection(stream, router).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    if descriptors::may_tell() {
                        tracing::warn!(%error, "admin port cannot accept");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    // Dropping the set ends what is still running then.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await;
    Ok(())
}

/// One request, one answer: without keep-alive nobody holds a place by being idle.
async fn connection(stream: TcpStream, router: Router) {
    let Ok(address) = stream.local_addr() else {
        return;
    };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            if let Err(refusal) = admit(&request, address.ip()) {
                return Ok(refusal);
            }
            let mut response: Response<Body> = router.call(request).await?;
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong on a connection is the peer's affair.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
}

/// Everything that can refuse a request. Only the description of a call to explain is read.
#[allow(
    clippy::result_large_err,
    reason = "an answer, made at most once per operator's request"
)]
fn admit<B>(request: &Request<B>, local: IpAddr) -> Result<(), Response> {
    let described = *request.method() == Method::POST && request.uri().path() == "/explain";
    if !described && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(ALLOW, "GET, HEAD")];
        return Err((StatusCode::METHOD_NOT_ALLOWED, allow, "only GET and HEAD\n").into_response());
    }
    if !is_for_us(request, local) {
        return Err((StatusCode::FORBIDDEN, "this Host is not served here\n").into_response());
    }
    if !same_origin(request.headers()) {
        return Err((StatusCode::FORBIDDEN, "not for other origins\n").into_response());
    }
    Ok(())
}

/// The Host must be a loopback name or the address the connection came to. A web page that rebinds its own name to us
/// sends that name.
fn is_for_us<B>(request: &Request<B>, local: IpAddr) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let host = host
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Authority>().ok());
    let target = request.uri().authority();
    host.is_some_and(|host| is_own_name(&host, local))
        && target.is_none_or(|target| is_own_name(target, local))
}

fn is_own_name(authority: &Authority, local: IpAddr) -> bool {
    let name = authority.host();
    if authority.as_str().contains('@') {
        return false;
    }
    let literal = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    match literal.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            address.is_loopback() || address == local.to_canonical()
        }
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// A browser names the origin of a cross-site request; ours is `http://` and the Host.
fn same_origin(headers: &HeaderMap) -> bool {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"));
        origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    })
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/apis", get(apis))
        .route("/config", get(config))
        .route("/shadow", get(shadow))
        .route("/explain", post(explain))
        .route("/explain/{request_id}", get(explain_recent))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(state)
}

async fn index() -> &'static str {
    "/livez    200 while the process answers\n\
     /readyz   200 while it takes traffic\n\
     /metrics  Prometheus text format\n\
     /apis     state of every API\n\
     /config   the configuration in effect\n\
     /shadow   whom rules in shadow would have refused\n\
     /explain  POST a call, or GET /explain/REQUEST-ID: every rule that took part\n"
}

async fn shadow(State(state): State<AdminState>) -> Json<Vec<ShadowLine>> {
    Json(state.shared.shadows.report())
}

async fn explain(State(state): State<AdminState>, Json(call): Json<Described>) -> Response {
    match explain::described(&state.shared, &call).await {
        Ok(explained) => Json(explained).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn explain_recent(
    State(state): State<AdminState>,
    Path(request_id): Path<String>,
) -> Response {
    match state.shared.recent.explain(&request_id) {
        Some(explained) => Json(explained).into_response(),
        None => {
            let text = "no recent call has this request id; the last 1024 are kept\n";
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

async fn readyz(State(state): State<AdminState>) -> (StatusCode, String) {
    match missing(&state) {
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
        None => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// What keeps traffic away.
fn missing(state: &AdminState) -> Option<Cow<'static, str>> {
    if state.draining.load(Relaxed) {
        Some("draining".into())
    } else if !state.ready.load(Relaxed) {
        Some("starting".into())
    } else if state.live.apis().load().all().is_empty() {
        Some("no API is served; see /apis".into())
    } else {
        state.ready_when.iter().find_map(|when| (when.0)())
    }
}

async fn metrics(State(state): State<AdminState>) -> impl IntoResponse {
    let mut page = state.metrics.render();
    let apis = state.live.apis().load();
    write_callers(&mut page, &state.shared.identities, apis.all());
    write_overload(&mut page, &state.shared.overload);
    state.shared.metering.write_page(&mut page);
    state.shared.identities.admissions.write_page(&mut page);
    if let Some(workloads) = &state.shared.workloads {
        workloads.write_page(&mut page);
    }
    if let Some(more) = &state.page {
        (more.0)(&mut page);
    }
    write_costs(&mut page, &state.shared.costs, apis.all());
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        page,
    )
}

async fn apis(State(state): State<AdminState>) -> impl IntoResponse {
    Json(state.live.statuses())
}

async fn config(State(state): State<AdminState>) -> Json<Value> {
    let apis = state.live.apis().load();
    let apis: Vec<Value> = apis
        .all()
        .iter()
        .map(|api| shown_api(&api.config))
        .collect();
    Json(json!({ "process": shown_process(&state.process), "apis": apis }))
}

/// Written out field by field: what is added to the settings shows only after someone decided that it is no secret.
fn shown_process(process: &ProcessConfig) -> Value {
    let listeners: Vec<Value> = process
        .listeners
        .iter()
        .map(|listener| {
            let address = match &listener.address {
                ListenAddress::Tcp(address) => address.to_string(),
                ListenAddress::Unix(path) => format!("unix:{}", path.display()),
            };
            let believed = listener.proxy_protocol_from.iter();
            json!({
                "address": address,
                "tls": listener.tls.is_some(),
                "tls12": listener.tls.as_ref().is_some_and(|tls| tls.tls12),
                "proxy_protocol_from":
                    believed.map(|n| format!("{}/{}", n.address, n.prefix)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let access_log = match &process.access_log {
        AccessLogTarget::Stdout => "stdout".into(),
        AccessLogTarget::File(path) => path.to_string_lossy(),
        AccessLogTarget::Off => "off".into(),
    };
    let limits = &process.limits;
    json!({
        "listeners": listeners,
        "admin": process.admin.to_string(),
        "workers": process.workers,
        "state_dir": process.state_dir.to_string_lossy(),
        "drain_timeout": duration(process.drain_timeout),
        "trusted_hops": process.trusted_hops,
        "access_log": access_log,
        "fast_path": if process.fast_path { "on" } else { "off" },
        "limits": {
            "head_bytes": limits.head_bytes,
            "head_fields": limits.head_fields,
            "body_bytes": limits.body_bytes,
            "h2_streams": limits.h2_streams,
            "head_timeout": duration(limits.head_timeout),
            "body_min_rate": limits.body_min_rate,
            "handshake_timeout": duration(limits.handshake_timeout),
            "handshakes": limits.handshakes,
            "connections": limits.connections,
            "connections_per_address": limits.connections_per_address,
            "keep_alive": duration(limits.keep_alive),
            "requests_per_connection": limits.requests_per_connection,
        },
        "overload": shown_overload(&process.overload),
    })
}

/// As [`shown_process`]; `null` for what is off.
fn shown_overload(overload: &OverloadConfig) -> Value {
    let exempt = overload.exempt.iter();
    json!({
        "requests_per_address": overload.requests_per_address,
        "failures_per_address": overload.failures_per_address,
        "exempt": exempt.map(|n| format!("{}/{}", n.address, n.prefix)).collect::<Vec<_>>(),
        "queue_delay": overload.queue_delay.map(duration),
    })
}

/// As [`shown_process`].
/// Where descriptors come from.
fn descriptors_of(source: &DescriptorSource) -> Value {
    let shown = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    match source {
        DescriptorSource::Set(path) => json!({ "descriptors": shown(path) }),
        DescriptorSource::Protos { files, .. } => {
            json!({ "protos": files.iter().map(shown).collect::<Vec<_>>() })
        }
        DescriptorSource::Reflection { refresh } => {
            json!({ "reflection": { "refresh_seconds": refresh.as_secs() } })
        }
    }
}

fn shown_api(api: &ApiConfig) -> Value {
    let hosts = api.hosts.iter().map(|host| match host {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    });
    let upstream = &api.upstream;
    let endpoints = upstream.endpoints.iter().map(|endpoint| {
        let mut shown = endpoint.host.to_string();
        if endpoint.port != 0 {
            // Writing to a string cannot fail.
            let _ = write!(shown, ":{}", endpoint.port);
        }
        shown
    });
    json!({
        "name": &*api.name,
        "file": api.file.to_string_lossy(),
        "spec": api.spec.as_ref().map(|spec| spec.to_string_lossy()),
        "hosts": hosts.collect::<Vec<_>>(),
        "grpc": api.grpc.as_ref().map(|grpc| descriptors_of(&grpc.source)),
        "base_path": api.base_path.as_deref(),
        "security": format!("{:?}", api.security).to_ascii_lowercase(),
        "upstream": {
            "endpoints": endpoints.collect::<Vec<_>>(),
            "protocol": format!("{:?}", upstream.protocol).to_ascii_lowercase(),
            "tls": upstream.tls.is_some(),
            "client_certificate":
                upstream.tls.as_ref().is_some_and(|tls| tls.client_certificate.is_some()),
            "connect_timeout": duration(upstream.connect_timeout),
            "first_byte_timeout": duration(upstream.first_byte_timeout),
            "idle_timeout": duration(upstream.idle_timeout),
            "total_timeout": upstream.total_timeout.map(duration),
            "keep_alive": duration(upstream.keep_alive),
            "retries": upstream.retries,
            "retry_budget_percent": upstream.retry_budget_percent,
            "max_message": upstream.max_message,
            "health_check": upstream.health_check.as_ref().map(|check| &*check.path),
            "eject_after": upstream.eject_after,
            "eject_for": duration(upstream.eject_for),
        },
    })
}

/// As settings are written: `30s`, `250ms`.
fn duration(time: Duration) -> String {
    if time.subsec_nanos() == 0 {
        format!("{}s", time.as_secs())
    } else {
        format!("{}ms", time.as_millis())
    }
}
