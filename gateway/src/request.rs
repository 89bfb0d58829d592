//! The journey of a request, from top to bottom in the order of time:
//! **classify → identify → current_policy → decide → reserve → forward → settle → report**.
//!
//! Everything that can refuse a request is in [`Exchange::admit`]; nothing after it refuses on policy. The state between the steps is a type, so no
//! later step can ask for what an earlier one did not establish. `report` runs for every request, refused ones included.

mod authorise;
mod classified;
mod consumer;
mod cut_off;
mod explained;
pub(crate) mod flow;
pub(crate) mod ongoing;
mod origin;
mod reserve;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tollgate_policy::access::{self, Grant, Witness};
use tollgate_policy::settings::{Direction, FailureMode};
use tollgate_policy::workload::WorkloadId;

use crate::admission;
use crate::api::Api;
use crate::cost;
use crate::denial::{Denial, served_methods};
use crate::door::asked::{Host, acceptable, target_of};
use crate::door::head::check_http2;
use crate::door::target::Target;
use crate::explain::{self, Ear};
use crate::identity::{self, Identified, clock};
use crate::journey::{Asked, Called, Journey, Peer, Shared};
use crate::overload::Held;
use crate::quota::{Bill, Said};
use crate::report::UpstreamStory;
use crate::telemetry::{OperationMetrics, RequestId, TraceContext};
use crate::{own, verdict};
use classified::{Classified, matched};
use flow::{Stream, Streamed};

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
    pub(crate) steps: SmallVec<[(&'static str, Duration); 6]>,
    last_step: Instant,
    pub(crate) series: Option<Arc<OperationMetrics>>,
    pub(crate) reported: bool,
    /// Only described, for an explanation: nothing is charged.
    is_described: bool,
    /// It was turned into a gRPC call, not forwarded.
    pub(crate) transcoded: bool,
    /// Bytes of the answer's body that went to the client, or are about to.
    pub(crate) body_sent: u64,
    /// What the service said about the cost of the call.
    pub(crate) said: SmallVec<[Said; 1]>,
    pub(crate) is_settled: bool,
    /// It goes on for long, or is a stream of messages.
    pub(crate) stream: Option<Box<Stream>>,
    /// What it came to as a stream, once it is settled.
    pub(crate) streamed: Streamed,
    /// What the call came to, once it is settled.
    pub(crate) bill: Bill,
    pub(crate) held: Held,
    /// The process of the installation that sent it.
    pub(crate) workload: Option<WorkloadId>,
    ear: Ear,
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
            steps: SmallVec::new(),
            last_step: now,
            series: None,
            reported: false,
            is_described: false,
            transcoded: false,
            body_sent: 0,
            said: SmallVec::new(),
            is_settled: false,
            stream: None,
            streamed: Streamed::default(),
            bill: Bill::default(),
            held: Held::default(),
            workload: None,
            ear: Ear::default(),
        }
    }

    /// Everything that can refuse a request, in order. Nothing after this refuses on policy.
    pub async fn admit(&mut self, head: &RequestHeader, peer: &Peer) -> Result<(), Denial> {
        self.begin(head);
        self.workload.clone_from(&peer.workload);
        let mut found = Found::default();
        let arrived = match self.enter(peer) {
            Ok(()) => self.journey_to_admission(head, peer, &mut found).await,
            Err(denial) => Err(denial),
        };
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
                self.count_shadows();
                Ok(())
            }
            Err(denial) => {
                self.journey = Journey::Refused {
                    denial: denial.clone(),
                    api: found.api,
                    operation: found.operation,
                    identified: found.identified,
                };
                self.pause(&denial).await;
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
        let target = self.door(head)?;
        let host = Host::of(head)?;
        let name = peer.served_name.as_ref();
        if name.is_some_and(|name| name.misdirects(host.as_str())) {
            return Err(Denial::Misdirected);
        }
        let classified = match peer.direction {
            Direction::Inbound => self
                .classify(head, &host, &target, found)
                .or_else(|why| self.probe(why, head, &target, found)),
            Direction::Outbound => self.address(head, &host).await.map(|called| {
                found.api = Some(called.api.clone());
                found.operation = Some(called.operation);
                Classified::Operation(called)
            }),
        };
        self.step("classify");
        let asked = Asked {
            request: identity::Request {
                head,
                query: target.query,
                client: peer.client,
                certificate: peer.certificate.as_deref(),
                workload: peer.workload.as_ref(),
                now: clock::now(),
            },
            host: host.as_str(),
            path: target.path,
        };
        let classified = match classified {
            Ok(classified) => classified,
            Err(why) => {
                // Boxed: good calls do not come here.
                Box::pin(self.count_unclassified(&why, &asked, found)).await;
                return Err(why);
            }
        };
        self.take_place(&classified)?;
        match classified {
            Classified::Operation(called) => self.admit_call(called, &asked, found).await,
            Classified::Own { api, base_length } => self.admit_own(api, base_length, &asked).await,
        }
    }

    /// What is refused whatever it asks for.
    fn door<'h>(&self, head: &'h RequestHeader) -> Result<Target<'h>, Denial> {
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
        Target::parse(raw)
    }

    /// A call to an operation: identify, current_policy, decide.
    async fn admit_call(
        &mut self,
        called: Called,
        asked: &Asked<'_>,
        found: &mut Found,
    ) -> Result<Journey, Denial> {
        let mut ear = std::mem::take(&mut self.ear);
        let identified = self.identify(&called, asked.request, &mut ear).await;
        self.step("identify");
        self.ear = ear;
        let identified = identified?;
        let judged = self.judge(&called, &identified, asked).await;
        let reserved = match judged {
            Ok(mut grant) => {
                let reserved = self.reserve(&called, &identified, asked, &mut grant).await;
                reserved.map(|reservation| (grant, reservation))
            }
            Err(denial) => {
                self.count_refused(&called, &identified, asked);
                Err(denial)
            }
        };
        match reserved {
            Ok((grant, reservation)) => {
                let admitted = called.admitted(identified, grant, reservation)?;
                Ok(Journey::Admitted(Box::new(admitted)))
            }
            Err(denial) => {
                found.identified = Some(identified);
                Err(denial)
            }
        }
    }

    async fn judge(
        &mut self,
        called: &Called,
        identified: &Identified,
        asked: &Asked<'_>,
    ) -> Result<Grant, Denial> {
        self.ear.show_to(identified);
        acceptable(asked.request.head, called.max_body(&self.shared))?;
        origin::judge(called, identified, asked.request)?;
        let policy = current_policy(&self.shared, called, identified);
        self.step("current_policy");
        let grant = decide(&policy?, asked, &mut self.ear);
        self.step("decide");
        let mut grant = grant.map_err(|refusal| self.refused_by(called, refusal))?;
        self.authorise(called, identified, asked, &mut grant)
            .await?;
        Ok(grant)
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
        cost::belongs_to(&api.traffic.cost);
        if let Some(base_length) = own::base_of(api, target.path) {
            return Ok(Classified::Own {
                api: api.clone(),
                base_length,
            });
        }
        let matched = matched(api, head, target.path)?;
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
            route: matched.route,
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
        if let Some(admission) = admission::shown(request.head, request.workload) {
            let own = (&**api, called.operation);
            let identities = Arc::clone(&self.shared.identities);
            let admitted = identities.admitted(own, admission, request).await;
            if let Ok(admitted) = &admitted
                && admitted.on_word
            {
                self.reason = Cow::Borrowed(admission::ON_WORD);
                admission::explain(admitted, witness);
            }
            return admitted.map_err(|why| {
                self.reason = verdict::reason_of(&why);
                verdict::unidentified(api, called.operation, why)
            });
        }
        let identified = self
            .shared
            .identities
            .identify(
                &api.access,
                &api.issuers,
                called.operation,
                request,
                witness,
            )
            .await;
        identified.map_err(|why| {
            self.reason = verdict::reason_of(&why);
            verdict::unidentified(api, called.operation, why)
        })
    }

    fn count_shadows(&self) {
        let Journey::Admitted(admitted) = &self.journey else {
            return;
        };
        let caller = admitted.identified.identity.caller.as_ref();
        for rule in &admitted.grant.shadowed {
            let consumer = caller.map_or_else(|| "".into(), |it| it.consumer.name.clone());
            let api = &admitted.api.config.name;
            self.shared.shadows.count(api, rule, &consumer);
        }
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
            identified: None,
        };
    }

    /// A refusal after admission: the upstream failed, or the body turned out unacceptable.
    pub fn fail(&mut self, denial: Denial) {
        self.settle(false);
        // Who called stays known: report names it, however the call ended.
        let journey = std::mem::replace(&mut self.journey, Journey::Arrived);
        self.journey = journey.refused(denial);
    }

    /// How many addresses before the peer's own are believed.
    pub(crate) fn believed_hops(&self) -> u8 {
        Peer::believed_hops(self.workload.as_ref(), self.shared.trusted_hops)
    }

    /// Notes the end of a step.
    pub fn step(&mut self, name: &'static str) {
        let now = Instant::now();
        self.steps.push((name, now.duration_since(self.last_step)));
        self.last_step = now;
    }

    /// Notes the end of the way to the service, where the request went it.
    pub fn forwarded(&mut self) {
        if self.upstream.attempts > 0 && !self.transcoded {
            self.step("forward");
        }
    }

    fn begin(&mut self, head: &RequestHeader) {
        let field = |name: &str| head.headers.get(name).map(http::HeaderValue::as_bytes);
        self.request_id = RequestId::accept_or_new(field("x-request-id"));
        (self.trace, self.trace_continued) = TraceContext::accept_or_new(field("traceparent"));
        if field(explain::FIELD).is_some() {
            self.ear = Ear::listening();
        }
    }
}

/// The policy that holds for this caller now: the snapshot of the API, and what was sold to the caller.
pub(crate) struct CurrentPolicy<'c> {
    pub(crate) called: &'c Called,
    pub(crate) identified: &'c Identified,
}

/// Which policy holds? A credential that was withdrawn since it was identified has none, nor has one of which that could not be heard for
/// longer than the operation allows.
fn current_policy<'c>(
    shared: &Shared,
    called: &'c Called,
    identified: &'c Identified,
) -> Result<CurrentPolicy<'c>, Denial> {
    if identified
        .standings
        .iter()
        .any(|standing| standing.withdrawn())
    {
        return Err(Denial::CredentialRevoked);
    }
    // Whom a gateway admitted just now was not revoked as far as that one knew.
    let vouched_for =
        identified.admitted_by.is_some() && called.on_unavailable() == FailureMode::FailOpen;
    if let Some(contact) = &shared.contact
        && !identified.identity.is_anonymous()
        && !vouched_for
        && contact.silence(Instant::now()) > called.stale_ok()
    {
        return Err(Denial::PolicyUnavailable);
    }
    Ok(CurrentPolicy { called, identified })
}

/// May this caller call this operation, now, from there?
pub(crate) fn decide(
    policy: &CurrentPolicy<'_>,
    asked: &Asked<'_>,
    witness: &mut impl Witness,
) -> Result<Grant, access::Refusal> {
    let CurrentPolicy { called, identified } = policy;
    let values = verdict::RequestValues {
        api: &called.api,
        asked,
    };
    access::decide(
        &called.api.access,
        &called.api.config.name,
        called.operation,
        &identified.identity,
        &verdict::circumstances(asked, &values),
        witness,
    )
}

/// What classification found before it failed.
#[derive(Default)]
struct Found {
    api: Option<Arc<Api>>,
    operation: Option<usize>,
    identified: Option<Identified>,
}
