//! The journey of a request, from top to bottom in the order of time:
//! **classify → identify → forward → report**.
//!
//! The steps between (current policy, decide, reserve, settle) get their names here when they do something. Everything that can
//! refuse a request is in [`Exchange::admit`]; nothing after it refuses on policy. The state between the steps is a type, so no
//! later step can ask for what an earlier one did not establish. `report` runs for every request, refused ones included.

mod cut_off;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tollgate_policy::classify::Unclassified;

use crate::api::{Api, Operation};
use crate::apis::Apis;
use crate::denial::{Denial, served_methods};
use crate::door::head::{check_http2, judge_host};
use crate::door::target::Target;
use crate::listener::ServedName;
use crate::telemetry::{
    AccessLog, AccessRecord, Finished, Metrics, OperationMetrics, RequestId, TraceContext,
};

/// What all workers share. Read by every request, changed by none.
#[derive(Debug)]
pub struct Shared {
    /// The APIs served now.
    pub apis: Arc<ArcSwap<Apis>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where access records go.
    pub access_log: AccessLog,
    /// Series of requests that no API serves.
    pub homeless: Arc<OperationMetrics>,
    /// How many proxies in front of us are believed in `X-Forwarded-For`.
    pub trusted_hops: u8,
    /// Bytes of a request body where nothing closer says otherwise.
    pub max_body: u64,
    /// Fields of a request head.
    pub max_fields: usize,
    /// Set when the drain begins: answers then close their connection.
    pub draining: Arc<AtomicBool>,
    /// Whether the fast path may be taken; off only in tests that compare both ways.
    pub fast_path: bool,
}

/// How far a request came.
#[derive(Debug)]
pub enum Journey {
    /// Its head is here; nothing is known about it.
    Arrived,
    /// It may go to the service.
    Admitted(Admitted),
    /// It is answered here.
    Refused {
        /// Why.
        denial: Denial,
        /// Whose it was, as far as that was found out.
        api: Option<Arc<Api>>,
        /// Index of the operation, where one was found.
        operation: Option<usize>,
    },
}

/// What is known of a request that may go to the service.
#[derive(Debug)]
pub struct Admitted {
    /// The snapshot it was judged by, to its end.
    pub api: Arc<Api>,
    /// Index of its operation.
    pub operation: usize,
    /// Length of the base path it came under.
    pub base_length: usize,
}

impl Admitted {
    /// The operation.
    pub fn operation(&self) -> Option<&Operation> {
        self.api.operations.get(self.operation)
    }

    /// Bytes of a request body this operation takes.
    pub fn max_body(&self, shared: &Shared) -> u64 {
        let settled = self
            .operation()
            .and_then(|operation| operation.settings.max_body);
        settled.unwrap_or(shared.max_body)
    }
}

/// What happened upstream, for the report.
#[derive(Debug, Default)]
pub struct UpstreamStory {
    /// How often an endpoint was asked.
    pub attempts: u32,
    /// Authority of the last one.
    pub authority: SmallVec<[u8; 48]>,
    /// How the last attempt ended.
    pub outcome: &'static str,
    /// From sending the request to the head of the answer.
    pub latency: Option<Duration>,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// What all share.
    pub shared: Arc<Shared>,
    /// How far it came.
    pub journey: Journey,
    /// When its head was complete.
    pub started: Instant,
    /// `x-request-id`.
    pub request_id: RequestId,
    /// `traceparent`.
    pub trace: TraceContext,
    /// Whether the client's trace is continued (then its `tracestate` may pass).
    pub trace_continued: bool,
    /// What happened upstream.
    pub upstream: UpstreamStory,
    /// For the log alone.
    pub reason: Cow<'static, str>,
    /// Bytes of request body that came.
    pub body_received: u64,
    /// What the connection's TLS handshake was about, where there was one.
    pub served_name: Option<Arc<ServedName>>,
    steps: SmallVec<[(&'static str, Duration); 6]>,
    last_step: Instant,
    series: Option<Arc<OperationMetrics>>,
    reported: bool,
}

/// What only the connection knows, for the report.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'s> {
    /// The request as it came.
    pub head: Option<&'s RequestHeader>,
    /// Client address after PROXY protocol and trusted hops.
    pub client: Option<SocketAddr>,
    /// TLS or not.
    pub tls: bool,
    /// Status sent; 0 where none was.
    pub status: u16,
    /// Bytes of the answer's body written.
    pub response_bytes: u64,
    /// The connection ended before the answer was complete.
    pub aborted: bool,
}

impl Exchange {
    /// A request whose head has just been read.
    pub fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            journey: Journey::Arrived,
            started: now,
            request_id: RequestId::none(),
            trace: TraceContext::none(),
            trace_continued: false,
            upstream: UpstreamStory::default(),
            reason: Cow::Borrowed(""),
            body_received: 0,
            served_name: None,
            steps: SmallVec::new(),
            last_step: now,
            series: None,
            reported: false,
        }
    }

    /// Everything that can refuse a request, in order. Nothing after this refuses on policy.
    pub fn admit(&mut self, head: &RequestHeader) -> Result<(), Denial> {
        self.begin(head);
        let mut found = Found::default();
        let admitted = self.journey_to_admission(head, &mut found);
        self.series = Some(match (&found.api, found.operation) {
            (Some(api), Some(index)) => api.operations.get(index).map_or_else(
                || api.unclassified.clone(),
                |operation| operation.metrics.clone(),
            ),
            (Some(api), None) => api.unclassified.clone(),
            (None, _) => self.shared.homeless.clone(),
        });
        if let Some(series) = &self.series {
            series.start();
        }
        match admitted {
            Ok(admitted) => {
                self.journey = Journey::Admitted(admitted);
                Ok(())
            }
            Err(denial) => {
                self.refuse(denial.clone(), found.api, found.operation);
                Err(denial)
            }
        }
    }

    fn journey_to_admission(
        &mut self,
        head: &RequestHeader,
        found: &mut Found,
    ) -> Result<Admitted, Denial> {
        if head.headers.len() > self.shared.max_fields {
            return Err(Denial::HeadTooLarge);
        }
        if head.version == http::Version::HTTP_2 {
            check_http2(head)?;
        }
        let raw = target_of(head)?;
        if raw == "*" && head.method == http::Method::OPTIONS {
            return Err(Denial::MethodsAsked(served_methods()));
        }
        let target = Target::parse(raw)?;
        let classified = self.classify(head, &target, found);
        self.step("classify");
        let admitted = classified?;
        let identified = self.identify(head, &admitted);
        self.step("identify");
        identified.map(|()| admitted)
    }

    /// Which operation of which API is this? The path judged here is the path that is forwarded.
    fn classify(
        &self,
        head: &RequestHeader,
        target: &Target<'_>,
        found: &mut Found,
    ) -> Result<Admitted, Denial> {
        let host = Host::of(head)?;
        let name = self.served_name.as_ref();
        if name.is_some_and(|name| name.misdirects(host.as_str())) {
            return Err(Denial::Misdirected);
        }
        let apis = self.shared.apis.load();
        let api = apis
            .select(host.as_str(), target.path)
            .ok_or(Denial::UnknownApi)?;
        found.api = Some(api.clone());
        let method = head.method.as_str();
        let matched = api
            .classifier
            .classify(method, target.path)
            .map_err(|why| match why {
                Unclassified::BadEncoding => {
                    Denial::Malformed("the path is not valid percent-encoded UTF-8".into())
                }
                Unclassified::NoTemplate => Denial::UnknownOperation,
                Unclassified::NoMethod { allow } if method == "OPTIONS" => {
                    Denial::MethodsAsked(allow)
                }
                Unclassified::NoMethod { allow } => Denial::MethodNotAllowed(allow),
            })?;
        found.operation = Some(matched.operation);
        if (target.encoded_slash && matched.encoded_slash_refused)
            || (target.encoded_percent && matched.encoded_percent_refused)
            || (target.semicolon && matched.semicolon_refused)
        {
            return Err(Denial::Malformed(
                "the path holds `%2F`, `%25` with hex digits, or `;` where this operation does not allow it".into(),
            ));
        }
        Ok(Admitted {
            api: api.clone(),
            operation: matched.operation,
            base_length: matched.base.len(),
        })
    }

    /// Who is calling? No credential can be verified yet, so an operation that demands one is closed to everybody.
    fn identify(&self, head: &RequestHeader, admitted: &Admitted) -> Result<(), Denial> {
        let Some(operation) = admitted.operation() else {
            return Err(Denial::Internal);
        };
        let settings = &operation.settings;
        if settings.demands {
            return Err(Denial::CredentialRequired(settings.challenges.clone()));
        }
        let length = head.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > admitted.max_body(&self.shared)) {
            return Err(Denial::BodyTooLarge);
        }
        if head
            .headers
            .get(http::header::EXPECT)
            .is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        {
            return Err(Denial::ExpectationFailed);
        }
        if head.version < http::Version::HTTP_2 && is_grpc(head) {
            return Err(Denial::GrpcNeedsHttp2);
        }
        Ok(())
    }

    /// Sets the journey to refused, before or after admission.
    pub fn refuse(&mut self, denial: Denial, api: Option<Arc<Api>>, operation: Option<usize>) {
        self.journey = Journey::Refused {
            denial,
            api,
            operation,
        };
    }

    /// A refusal after admission: the upstream failed, or the body turned out unacceptable.
    pub fn fail(&mut self, denial: Denial) {
        let (api, operation) = match &self.journey {
            Journey::Admitted(admitted) => (Some(admitted.api.clone()), Some(admitted.operation)),
            Journey::Refused { api, operation, .. } => (api.clone(), *operation),
            Journey::Arrived => (None, None),
        };
        self.refuse(denial, api, operation);
    }

    /// Notes the end of a step.
    pub fn step(&mut self, name: &'static str) {
        let now = Instant::now();
        self.steps.push((name, now.duration_since(self.last_step)));
        self.last_step = now;
    }

    /// Notes the end of the way to the service, where the request went it.
    pub fn forwarded(&mut self) {
        if self.upstream.attempts > 0 {
            self.step("forward");
        }
    }

    /// What happened, told once, for every request.
    pub fn report(&mut self, seen: &Seen<'_>) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let total = self.started.elapsed();
        let (denial, api, operation) = match &self.journey {
            Journey::Arrived => ("", None, None),
            Journey::Admitted(admitted) => ("", Some(&admitted.api), Some(admitted.operation)),
            Journey::Refused {
                denial,
                api,
                operation,
            } => (denial.code(), api.as_ref(), *operation),
        };
        if let Some(series) = &self.series {
            series.finish(&Finished {
                status: seen.status,
                total,
                upstream: self.upstream.latency,
                upstream_outcome: self.upstream.outcome,
                denial,
                request_bytes: self.body_received,
                response_bytes: seen.response_bytes,
            });
        }
        if let Some(api) = api {
            api.traffic.requests.fetch_add(1, Ordering::Relaxed);
            match (denial, seen.status) {
                ("", _) => 0,
                (_, 502..=504) => api.traffic.failed.fetch_add(1, Ordering::Relaxed),
                _ => api.traffic.refused.fetch_add(1, Ordering::Relaxed),
            };
        }
        let operation = api
            .zip(operation)
            .and_then(|(api, index)| api.operations.get(index));
        self.shared.access_log.submit(&AccessRecord {
            request_id: self.request_id.as_str(),
            trace_id: self.trace.trace_id(),
            client: seen.client,
            protocol: seen.head.map_or("", |head| protocol_name(head.version)),
            tls: seen.tls,
            method: seen.head.map_or("", |head| head.method.as_str()),
            host: seen.head.and_then(raw_host).unwrap_or_default(),
            path: seen.head.map_or("", path_of),
            api: api.map_or("", |api| &*api.config.name),
            operation: operation.map_or("", |operation| &*operation.name),
            status: seen.status,
            denial,
            reason: Cow::Borrowed(&self.reason),
            upstream: std::str::from_utf8(&self.upstream.authority).unwrap_or_default(),
            upstream_outcome: self.upstream.outcome,
            attempts: self.upstream.attempts,
            request_bytes: self.body_received,
            response_bytes: seen.response_bytes,
            steps: &self.steps,
            total,
            aborted: seen.aborted,
        });
    }

    fn begin(&mut self, head: &RequestHeader) {
        let field = |name: &str| head.headers.get(name).map(http::HeaderValue::as_bytes);
        self.request_id = RequestId::accept_or_new(field("x-request-id"));
        (self.trace, self.trace_continued) = TraceContext::accept_or_new(field("traceparent"));
    }
}

/// What classification found before it failed.
#[derive(Default)]
struct Found {
    api: Option<Arc<Api>>,
    operation: Option<usize>,
}

/// The host asked for: lower case, no port, on the stack.
struct Host {
    bytes: SmallVec<[u8; 64]>,
}

impl Host {
    fn of(head: &RequestHeader) -> Result<Self, Denial> {
        let Some(raw) = raw_host(head) else {
            return Ok(Self {
                bytes: SmallVec::new(),
            });
        };
        judge_host(raw.as_bytes())?;
        let name = match raw.rfind(':') {
            Some(colon) if !raw.ends_with(']') => raw.get(..colon).unwrap_or(raw),
            _ => raw,
        };
        let mut bytes: SmallVec<[u8; 64]> = SmallVec::from_slice(name.as_bytes());
        bytes.make_ascii_lowercase();
        if bytes.len() > 1 && bytes.last() == Some(&b'.') {
            bytes.pop();
        }
        Ok(Self { bytes })
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// Authority of an HTTP/2 request or absolute form, else the Host field.
pub(crate) fn raw_host(head: &RequestHeader) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(http::header::HOST)?.to_str().ok(),
    }
}

/// The origin form of the target as it came.
pub(crate) fn target_of(head: &RequestHeader) -> Result<&str, Denial> {
    let raw = std::str::from_utf8(head.raw_path())
        .map_err(|_| Denial::Malformed("the target is not ASCII".into()))?;
    if raw.contains('#') {
        return Err(Denial::Malformed("the target holds a fragment".into()));
    }
    if raw.starts_with('/') {
        return Ok(raw);
    }
    let after_scheme = raw.split_once("://").map(|(_, rest)| rest);
    match after_scheme {
        Some(rest) => Ok(rest
            .find(['/', '?'])
            .and_then(|at| rest.get(at..))
            .unwrap_or("/")),
        None => Ok(raw),
    }
}

fn path_of(head: &RequestHeader) -> &str {
    let target = target_of(head).unwrap_or_default();
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// Whether the caller speaks gRPC (not gRPC-Web).
pub(crate) fn is_grpc(head: &RequestHeader) -> bool {
    head.headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';')))
        })
}

fn protocol_name(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_11 => "HTTP/1.1",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "",
    }
}
