//! The journey of a request, from top to bottom in the order of time:
//! **classify → identify → current_policy → decide → forward → report**.
//!
//! The steps between (reserve, settle) get their names here when they do something. Everything that can
//! refuse a request is in [`Exchange::admit`]; nothing after it refuses on policy. The state between the steps is a type, so no
//! later step can ask for what an earlier one did not establish. `report` runs for every request, refused ones included.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tollgate_policy::access::{self, Circumstances, Grant, Silent, Witness};
use tollgate_policy::classify::Unclassified;
use tollgate_policy::credentials::CertificateIdentity;

use crate::api::{Api, Operation};
use crate::apis::Apis;
use crate::denial::{Denial, Forbidden};
use crate::door::head::judge_host;
use crate::door::target::Target;
use crate::forward::watch::Watch;
use crate::identity::standing::{self, Listed};
use crate::identity::{self, Identified, Identities, clock};
use crate::own;
use crate::telemetry::{
    AccessLog, AccessRecord, Finished, Metrics, OperationMetrics, RequestId, TraceContext,
};
use crate::verdict;

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
    /// Who calls.
    pub identities: Arc<Identities>,
    /// Whether the fast path may be taken; off only in tests that compare both ways.
    pub fast_path: bool,
}

/// How far a request came.
#[derive(Debug)]
pub enum Journey {
    /// Its head is here; nothing is known about it.
    Arrived,
    /// It may go to the service.
    Admitted(Box<Admitted>),
    /// It is about the caller itself and answered here, under `/.tollgate/`.
    Own(Box<Own>),
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
    /// Who calls.
    pub identified: Identified,
    /// What was decided.
    pub grant: Grant,
    /// Its place among the calls that end when a credential is revoked.
    _listed: Option<Listed>,
}

/// A call to what Tollgate itself answers to the consumers of an API.
#[derive(Debug)]
pub struct Own {
    /// The API it was asked at.
    pub api: Arc<Api>,
    /// Length of the base path it came under.
    pub base_length: usize,
    /// Who asks: always a consumer.
    pub identified: Identified,
}

/// What the connection tells about a caller.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Client address after PROXY protocol and trusted hops.
    pub client: Option<IpAddr>,
    /// The client certificate, verified against the listener's roots.
    pub certificate: Option<Arc<CertificateIdentity>>,
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
    /// A request whose head is about to be read.
    pub fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            journey: Journey::Arrived,
            started: now,
            request_id: RequestId::accept_or_new(None),
            trace: TraceContext::accept_or_new(None).0,
            trace_continued: false,
            upstream: UpstreamStory::default(),
            reason: Cow::Borrowed(""),
            body_received: 0,
            steps: SmallVec::new(),
            last_step: now,
            series: None,
            reported: false,
        }
    }

    /// Everything that can refuse a request, in order. Nothing after this refuses on policy.
    pub async fn admit(&mut self, head: &RequestHeader, peer: &Peer) -> Result<(), Denial> {
        self.begin(head);
        let mut found = Found::default();
        let arrived = self.journey_to_admission(head, peer, &mut found).await;
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
        match arrived {
            Ok(journey) => {
                self.journey = journey;
                Ok(())
            }
            Err(denial) => {
                self.refuse(denial.clone(), found.api, found.operation);
                Err(denial)
            }
        }
    }

    async fn journey_to_admission(
        &mut self,
        head: &RequestHeader,
        peer: &Peer,
        found: &mut Found,
    ) -> Result<Journey, Denial> {
        if head.headers.len() > self.shared.max_fields {
            return Err(Denial::HeadTooLarge);
        }
        let target = Target::parse(target_of(head)?)?;
        let host = Host::of(head)?;
        let classified = self.classify(head, &host, &target, found);
        self.step("classify");
        let classified = classified?;
        let request = identity::Request {
            head,
            query: target.query,
            client: peer.client,
            certificate: peer.certificate.as_deref(),
            now: clock::now(),
        };
        let operation = match classified {
            Classified::Own { api, base_length } => {
                return self.identify_own(api, base_length, request).await;
            }
            Classified::Operation(operation) => operation,
        };
        let identified = self.identify(&operation, request, &mut Silent).await;
        self.step("identify");
        let identified = identified?;
        acceptable(head, operation.max_body(&self.shared))?;
        let policy = current_policy(&operation, &identified);
        self.step("current_policy");
        let policy = policy?;
        let asked = Asked {
            request,
            host: host.as_str(),
            path: target.path,
        };
        let grant = decide(&policy, &asked, &mut Silent);
        self.step("decide");
        let grant = grant.map_err(|refusal| self.refused_by(&operation, refusal))?;
        self.authorise(&operation, &identified, &asked).await?;
        Ok(Journey::Admitted(Box::new(
            operation.admitted(identified, grant)?,
        )))
    }

    /// Which operation of which API is this? The path judged here is the path that is forwarded.
    fn classify(
        &self,
        head: &RequestHeader,
        host: &Host,
        target: &Target<'_>,
        found: &mut Found,
    ) -> Result<Classified, Denial> {
        let apis = self.shared.apis.load();
        let api = apis
            .select(host.as_str(), target.path)
            .ok_or(Denial::UnknownApi)?;
        found.api = Some(api.clone());
        if let Some(base_length) = own::base_of(api, target.path) {
            return Ok(Classified::Own {
                api: api.clone(),
                base_length,
            });
        }
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
        Ok(Classified::Operation(Called {
            api: api.clone(),
            operation: matched.operation,
            base_length: matched.base.len(),
        }))
    }

    /// Who is calling? What the operation demands is verified; everything else is nobody's.
    async fn identify(
        &mut self,
        called: &Called,
        request: identity::Request<'_>,
        witness: &mut impl Witness,
    ) -> Result<Identified, Denial> {
        let api = &called.api;
        let identified = self
            .shared
            .identities
            .identify(&api.access, &api.issuers, called.operation, request, witness)
            .await;
        identified.map_err(|why| {
            self.reason = verdict::reason_of(&why);
            verdict::unidentified(api, called.operation, why)
        })
    }

    /// A consumer asks about itself.
    async fn identify_own(
        &mut self,
        api: Arc<Api>,
        base_length: usize,
        request: identity::Request<'_>,
    ) -> Result<Journey, Denial> {
        let identities = self.shared.identities.clone();
        let identified = identities
            .anybody(&api.access, &api.issuers, request)
            .await;
        self.step("identify");
        let identified = identified.map_err(|why| {
            self.reason = verdict::reason_of(&why);
            verdict::unidentified_own(&api, why)
        })?;
        match &identified.identity.caller {
            Some(_) => Ok(Journey::Own(Box::new(Own {
                api,
                base_length,
                identified,
            }))),
            None => Err(Denial::NotPermitted(Forbidden::NotSubscribed)),
        }
    }

    /// Asks the external judge of the API, where it has one.
    async fn authorise(
        &mut self,
        called: &Called,
        identified: &Identified,
        asked: &Asked<'_>,
    ) -> Result<(), Denial> {
        let Some(authoriser) = &called.api.authoriser else {
            return Ok(());
        };
        let judged = authoriser.judge(called, identified, asked).await;
        self.step("authorise");
        judged.map_err(|refusal| self.refused_by(called, refusal))
    }

    fn refused_by(&mut self, called: &Called, refusal: access::Refusal) -> Denial {
        self.reason = verdict::reason_of_refusal(&refusal);
        verdict::refused(&called.api, called.base_length, refusal)
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
            Journey::Own(own) => (Some(own.api.clone()), None),
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
            Journey::Own(own) => ("", Some(&own.api), None),
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
        self.started = Instant::now();
        self.last_step = self.started;
        let field = |name: &str| head.headers.get(name).map(http::HeaderValue::as_bytes);
        self.request_id = RequestId::accept_or_new(field("x-request-id"));
        (self.trace, self.trace_continued) = TraceContext::accept_or_new(field("traceparent"));
    }
}

impl Drop for Exchange {
    /// A request that was cut off (a panic, a deadline, a client that left) is reported all the same.
    fn drop(&mut self) {
        if self.reported || self.series.is_none() {
            return;
        }
        if self.reason.is_empty() {
            self.reason = Cow::Borrowed("cut off before the answer was complete");
        }
        self.report(&Seen {
            head: None,
            client: None,
            tls: false,
            status: 0,
            response_bytes: 0,
            aborted: true,
        });
    }
}

/// What classification came to.
enum Classified {
    /// An operation of the file.
    Operation(Called),
    /// What Tollgate itself answers.
    Own {
        /// The API.
        api: Arc<Api>,
        /// Length of the base path.
        base_length: usize,
    },
}

/// The operation a call is, before it is known whether it may.
#[derive(Debug)]
pub struct Called {
    /// The snapshot it is judged by.
    pub api: Arc<Api>,
    /// Index of the operation.
    pub operation: usize,
    /// Length of the base path it came under.
    pub base_length: usize,
}

impl Called {
    /// Bytes of a request body this operation takes.
    fn max_body(&self, shared: &Shared) -> u64 {
        let operation = self.api.operations.get(self.operation);
        let settled = operation.and_then(|operation| operation.settings.max_body);
        settled.unwrap_or(shared.max_body)
    }

    /// From here on the call ends when what it stands on is withdrawn.
    fn admitted(self, identified: Identified, grant: Grant) -> Result<Admitted, Denial> {
        let mut listed = None;
        if !identified.standings.is_empty()
            && let Some(watch) = Watch::current()
        {
            listed = Some(standing::list(identified.standings.clone(), watch));
            // A revocation between identification and the line above found nothing to end.
            if identified.standings.iter().any(|standing| standing.withdrawn()) {
                return Err(Denial::CredentialRevoked);
            }
        }
        Ok(Admitted {
            api: self.api,
            operation: self.operation,
            base_length: self.base_length,
            identified,
            grant,
            _listed: listed,
        })
    }
}

/// What is asked, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    /// Head, query, address, time.
    pub request: identity::Request<'r>,
    /// Host asked for, lower case.
    pub host: &'r str,
    /// Canonical path, still encoded.
    pub path: &'r str,
}

/// The policy that holds for this caller now: the snapshot of the API, and what was sold to the caller.
struct CurrentPolicy<'c> {
    called: &'c Called,
    identified: &'c Identified,
}

/// Which policy holds? A credential that was withdrawn since it was identified has none.
fn current_policy<'c>(
    called: &'c Called,
    identified: &'c Identified,
) -> Result<CurrentPolicy<'c>, Denial> {
    if identified.standings.iter().any(|standing| standing.withdrawn()) {
        return Err(Denial::CredentialRevoked);
    }
    Ok(CurrentPolicy { called, identified })
}

/// May this caller call this operation, now, from there?
fn decide(
    policy: &CurrentPolicy<'_>,
    asked: &Asked<'_>,
    witness: &mut impl Witness,
) -> Result<Grant, access::Refusal> {
    let CurrentPolicy { called, identified } = policy;
    let head = asked.request.head;
    let values = verdict::RequestValues {
        api: &called.api,
        asked,
    };
    let circumstances = Circumstances {
        now: asked.request.now,
        client: asked.request.client,
        method: head.method.as_str(),
        host: asked.host,
        path: asked.path,
        referrer: verdict::referrer(head),
        values: &values,
    };
    let (access, api) = (&called.api.access, &called.api.config.name);
    access::decide(
        access,
        api,
        called.operation,
        &identified.identity,
        &circumstances,
        witness,
    )
}

/// Whether the request can be taken at all, its caller aside.
fn acceptable(head: &RequestHeader, max_body: u64) -> Result<(), Denial> {
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_body) {
        return Err(Denial::BodyTooLarge);
    }
    let expects = head.headers.get(http::header::EXPECT);
    if expects.is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Denial::ExpectationFailed);
    }
    if head.version < http::Version::HTTP_2 && is_grpc(head) {
        return Err(Denial::GrpcNeedsHttp2);
    }
    Ok(())
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
