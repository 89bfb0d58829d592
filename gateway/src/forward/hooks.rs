//! pingora's hooks: the journey's steps called at the right moments of the pump.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::fields::{Origin, client_address, to_service};
use super::watch::Watch;
use super::{Forwarder, answer};
use smallvec::SmallVec;
use tollgate_policy::settings::UpstreamProtocol;

use crate::denial::Denial;
use crate::request::{Exchange, Journey, Seen, is_grpc};
use crate::upstream::{EndpointAddress, Outcome, Picked};

/// One request on its way through the pump.
#[derive(Debug)]
pub struct Passage {
    /// The journey.
    pub exchange: Exchange,
    pub(super) picked: Option<Picked>,
    pub(super) asked_at: Option<Instant>,
    failed_at: Option<EndpointAddress>,
    deadline: Option<Instant>,
    answered: bool,
    watch: Option<Arc<Watch>>,
    body_ended: bool,
}

impl Passage {
    /// Ends the attempt and blames the endpoint, or does not.
    pub(super) fn finish_attempt(&mut self, outcome: Outcome) {
        let Some(picked) = self.picked.take() else {
            return;
        };
        let latency = self
            .asked_at
            .map_or(Duration::ZERO, |asked| asked.elapsed());
        self.exchange.upstream.outcome = outcome_name(outcome);
        if matches!(outcome, Outcome::Answered | Outcome::ServerError) {
            self.exchange.upstream.latency = Some(latency);
        } else {
            self.failed_at = Some(picked.address().clone());
        }
        picked.finish(outcome, latency);
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::ServerError => "server_error",
        Outcome::ConnectFailed => "connect_failed",
        Outcome::Broken => "broken",
        Outcome::TimedOut => "timed_out",
        Outcome::Abandoned => "abandoned",
    }
}

/// What the connection tells about the client.
pub(super) fn origin_of(session: &Session) -> Origin {
    let peer = session.client_addr().and_then(|address| address.as_inet());
    Origin {
        peer: peer.map(std::net::SocketAddr::ip),
        tls: session
            .digest()
            .is_some_and(|digest| digest.ssl_digest.is_some()),
    }
}

impl Forwarder {
    /// Picks an endpoint for one attempt and notes it.
    pub(super) fn pick(&self, passage: &mut Passage) -> Result<()> {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Error::e_explain(ErrorType::InternalError, "forward before admission");
        };
        if passage.exchange.upstream.attempts == 0 {
            admitted.api.cluster.count_call();
            passage.deadline = admitted
                .operation()
                .and_then(|operation| operation.settings.total)
                .map(|total| passage.exchange.started + total);
        }
        let Ok(picked) = admitted.api.cluster.pick(passage.failed_at.as_ref()) else {
            passage.exchange.fail(Denial::NoEndpoint);
            return Error::e_explain(ErrorType::ConnectError, "no endpoint");
        };
        let story = &mut passage.exchange.upstream;
        story.attempts += 1;
        story.authority.clear();
        story
            .authority
            .extend_from_slice(picked.authority().as_bytes());
        passage.picked = Some(picked);
        passage.asked_at = Some(Instant::now());
        Ok(())
    }

    /// How long the service may take to the head of its answer, what is left of the total considered.
    pub(super) fn patience(&self, passage: &Passage) -> Duration {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Duration::ZERO;
        };
        let Some(operation) = admitted.operation() else {
            return Duration::ZERO;
        };
        let left = passage
            .deadline
            .map(|end| end.saturating_duration_since(Instant::now()));
        left.map_or(operation.settings.first_byte, |left| {
            left.min(operation.settings.first_byte)
        })
    }

    /// When the whole exchange has to be over.
    pub(super) fn deadline(&self, passage: &Passage) -> Option<Instant> {
        passage.deadline
    }

    /// Whether this failed attempt may be followed by another: any method when provably nothing was sent, idempotent ones also
    /// after a reset before the first byte of the answer; within the operation's number and the cluster's budget.
    pub(super) fn may_retry(&self, passage: &Passage, method: &http::Method, unsent: bool) -> bool {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return false;
        };
        let Some(operation) = admitted.operation() else {
            return false;
        };
        let in_time = passage.deadline.is_none_or(|end| Instant::now() < end);
        in_time
            && !passage.answered
            && (unsent || method.is_idempotent())
            && passage.exchange.upstream.attempts <= u32::from(operation.settings.retries)
            && admitted.api.cluster.take_retry()
    }

    /// Notes the head of the answer.
    pub(super) fn answer_began(&self, passage: &mut Passage, status: u16) {
        passage.answered = true;
        let failed = status >= 500 && status != 501;
        passage.finish_attempt(if failed {
            Outcome::ServerError
        } else {
            Outcome::Answered
        });
    }

    /// Adds our fields to an answer on its way to the client.
    pub(super) fn dress(
        &self,
        session: &mut Session,
        passage: &Passage,
        answer: &mut ResponseHeader,
    ) -> Result<()> {
        if self.shared.draining.load(Ordering::Relaxed) {
            session.set_keepalive(None);
        }
        stop_hop_fields(answer);
        if session.req_header().version == http::Version::HTTP_10 {
            // RFC 9112, section 6.1: no coding for a client that cannot know it. The end of the connection ends the body.
            answer.remove_header(&http::header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        answer.insert_header("x-request-id", passage.exchange.request_id.as_str())
    }

    /// Writes the report of a finished request.
    pub(super) fn report(&self, session: &Session, passage: &mut Passage, aborted: bool) {
        let head = session.req_header();
        let peer = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .copied();
        let status = session
            .response_written()
            .map_or(0, |answer| answer.status.as_u16());
        passage.exchange.body_received =
            u64::try_from(session.downstream_session.body_bytes_read()).unwrap_or(u64::MAX);
        passage.exchange.report(&Seen {
            head: Some(head),
            client: client_address(head, peer, self.shared.trusted_hops),
            tls: session
                .digest()
                .is_some_and(|digest| digest.ssl_digest.is_some()),
            status,
            response_bytes: u64::try_from(session.downstream_session.body_bytes_sent())
                .unwrap_or(u64::MAX),
            aborted,
        });
    }

    /// Which refusal an error of the way upstream is.
    pub(super) fn denial_of(error: &Error) -> Option<Denial> {
        match (error.esource(), error.etype()) {
            (
                _,
                ErrorType::ReadTimedout
                | ErrorType::ConnectTimedout
                | ErrorType::TLSHandshakeTimedout,
            ) if *error.esource() == ErrorSource::Upstream => Some(Denial::UpstreamTimeout),
            (_, ErrorType::HTTPStatus(413)) => Some(Denial::BodyTooLarge),
            (ErrorSource::Upstream, _) => Some(Denial::UpstreamFailed),
            (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(Denial::BodyTooSlow),
            (
                ErrorSource::Downstream,
                ErrorType::WriteError
                | ErrorType::ReadError
                | ErrorType::ConnectionClosed
                | ErrorType::WriteTimedout,
            ) => None,
            (ErrorSource::Downstream, _) => Some(Denial::Malformed(
                "the request body is not well-formed".into(),
            )),
            (ErrorSource::Internal | ErrorSource::Unset, ErrorType::ConnectError) => {
                Some(Denial::NoEndpoint)
            }
            (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Denial::Internal),
        }
    }
}

/// Whether this process ran out of descriptors (EMFILE, ENFILE).
pub(super) fn exhausted(error: &Error) -> bool {
    let mut cause = error
        .cause
        .as_deref()
        .map(|cause| cause as &(dyn std::error::Error + 'static));
    while let Some(inner) = cause {
        let code = inner
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        if matches!(code, Some(libc::EMFILE | libc::ENFILE)) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// Arms the watch for what no read timeout can hold. Streams of gRPC and WebSockets are slow by nature.
fn watched(session: &mut Session, deadline: Option<Instant>) -> Option<Arc<Watch>> {
    let watch = Watch::current()?;
    if let Some(deadline) = deadline {
        watch.ends_at(deadline);
    }
    let stream = session.is_upgrade_req() || is_grpc(session.req_header());
    if !stream && !session.is_body_empty() {
        watch.body_begins();
    }
    Some(watch)
}

/// Fields of the service's connection end here: those `Connection` names, and the old ones nobody names (RFC 9110, 7.6.1).
fn stop_hop_fields(answer: &mut ResponseHeader) {
    if answer.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let named: SmallVec<[String; 2]> = answer
        .headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !matches!(name.as_str(), "" | "close" | "keep-alive"))
        .collect();
    for name in &named {
        // Framing is ours to decide; a service may not have it removed.
        if !matches!(
            name.as_str(),
            "content-length" | "transfer-encoding" | "content-type"
        ) {
            answer.remove_header(name.as_str());
        }
    }
    for name in ["keep-alive", "proxy-connection"] {
        answer.remove_header(name);
    }
}

#[async_trait]
impl ProxyHttp for Forwarder {
    type CTX = Passage;

    fn new_ctx(&self) -> Passage {
        Passage {
            exchange: Exchange::new(self.shared.clone()),
            picked: None,
            asked_at: None,
            failed_at: None,
            deadline: None,
            answered: false,
            watch: None,
            body_ended: false,
        }
    }

    /// None: compression is the service's business, and each module costs every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, passage: &mut Passage) -> Result<bool> {
        if let Err(denial) = passage.exchange.admit(session.req_header()) {
            answer::refuse(session, &denial, passage.exchange.request_id.as_str()).await?;
            return Ok(true);
        }
        self.forward(session, passage).await
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        passage: &mut Passage,
    ) -> Result<Box<HttpPeer>> {
        self.pick(passage)?;
        let patience = self.patience(passage);
        let Some(picked) = &passage.picked else {
            return Error::e_explain(ErrorType::InternalError, "no endpoint picked");
        };
        let mut peer = Box::new(HttpPeer::clone(picked.peer()));
        if passage.watch.is_none() {
            passage.watch = watched(session, passage.deadline);
        }
        let (idle, http2) = match &passage.exchange.journey {
            Journey::Admitted(admitted) => (
                admitted
                    .operation()
                    .map_or(patience, |operation| operation.settings.idle),
                admitted.api.cluster.config.protocol == UpstreamProtocol::Http2,
            ),
            Journey::Arrived | Journey::Refused { .. } => (patience, false),
        };
        // One limit serves the head and every later read here; streams over HTTP/2 and WebSockets live by the idle limit.
        let streaming = http2 || session.is_upgrade_req();
        peer.options.read_timeout = Some(if streaming { idle } else { patience });
        peer.options.write_timeout = Some(idle);
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        passage: &mut Passage,
    ) -> Result<()> {
        let origin = origin_of(session);
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Error::e_explain(ErrorType::InternalError, "forward before admission");
        };
        let authority = passage
            .picked
            .as_ref()
            .map_or("", |picked| picked.authority());
        to_service(head, &passage.exchange, admitted, origin, authority)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        passage: &mut Passage,
    ) -> Result<()> {
        let length = body.as_ref().map_or(0, Bytes::len);
        if end && length == 0 {
            // An empty last piece would be written as the last chunk, and the end of the body as a second one: the service would
            // read that as the next request. (HTTP/2 clients that stream end in an empty DATA frame.)
            *body = None;
        }
        passage.body_ended |= end;
        if let Some(watch) = &passage.watch {
            watch.body_came(length, end);
        }
        passage.exchange.body_received += u64::try_from(length).unwrap_or(u64::MAX);
        let limit = match &passage.exchange.journey {
            Journey::Admitted(admitted) => admitted.max_body(&self.shared),
            Journey::Arrived | Journey::Refused { .. } => 0,
        };
        if passage.exchange.body_received > limit && !session.was_upgraded() {
            passage.exchange.fail(Denial::BodyTooLarge);
            return Error::e_explain(ErrorType::HTTPStatus(413), "request body over the limit");
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        answer: &mut ResponseHeader,
        passage: &mut Passage,
    ) -> Result<()> {
        if !answer.status.is_informational() || answer.status == 101 {
            self.answer_began(passage, answer.status.as_u16());
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        passage: &mut Passage,
    ) -> Result<()>
    where
        Self::CTX: Send + Sync,
    {
        self.dress(session, passage, answer)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        passage: &mut Passage,
    ) -> Result<Option<Duration>>
    where
        Self::CTX: Send + Sync,
    {
        if passage.deadline.is_some_and(|end| Instant::now() >= end) {
            return Error::e_explain(ErrorType::ReadTimedout, "total time exceeded");
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        passage: &mut Passage,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // A lack of descriptors is our own fault, not the endpoint's.
        let ours = exhausted(&error);
        passage.finish_attempt(if ours {
            Outcome::Abandoned
        } else {
            Outcome::ConnectFailed
        });
        if ours {
            passage.exchange.fail(Denial::Overloaded);
        }
        let retry = !ours && self.may_retry(passage, &session.req_header().method, true);
        error.set_retry(retry);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        passage: &mut Passage,
        client_reused: bool,
    ) -> Box<Error> {
        // The service cannot answer what the client has not finished saying.
        let client_silent = *error.etype() == ErrorType::ReadTimedout
            && !passage.body_ended
            && !session.is_body_empty();
        if client_silent {
            passage.exchange.fail(Denial::BodyTooSlow);
        }
        let outcome = match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, _) => Outcome::Abandoned,
            _ if client_silent || exhausted(&error) => Outcome::Abandoned,
            (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => Outcome::TimedOut,
            (_, ErrorType::HTTPStatus(413)) => Outcome::Abandoned,
            _ if client_reused => Outcome::Abandoned,
            _ => Outcome::Broken,
        };
        let blameless = *error.esource() == ErrorSource::Downstream;
        passage.finish_attempt(outcome);
        error.retry.decide_reuse(client_reused);
        let replayable = !session.as_ref().retry_buffer_truncated();
        let timed_out = outcome == Outcome::TimedOut;
        let retry = !blameless
            && !timed_out
            && replayable
            && session.response_written().is_none()
            && self.may_retry(passage, &session.req_header().method, false);
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        passage: &mut Passage,
    ) -> FailToProxy
    where
        Self::CTX: Send + Sync,
    {
        passage.exchange.reason = Cow::Owned(error.to_string());
        let nothing_written = session
            .response_written()
            .is_none_or(|answer| answer.status.is_informational());
        let known = match &passage.exchange.journey {
            Journey::Refused { denial, .. } => Some(denial.clone()),
            Journey::Admitted(_) | Journey::Arrived => Self::denial_of(error),
        };
        let Some(denial) = known else {
            passage.finish_attempt(Outcome::Abandoned);
            return FailToProxy {
                error_code: 499,
                can_reuse_downstream: false,
            };
        };
        passage.exchange.fail(denial.clone());
        let status = denial.status();
        if nothing_written {
            let id = passage.exchange.request_id;
            session.set_keepalive(None);
            if answer::refuse(session, &denial, id.as_str()).await.is_err() {
                return FailToProxy {
                    error_code: 499,
                    can_reuse_downstream: false,
                };
            }
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    /// The access record tells it; a stranger shall not fill the error log.
    fn suppress_error_log(&self, _: &Session, _: &Passage, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, passage: &mut Passage)
    where
        Self::CTX: Send + Sync,
    {
        passage.exchange.forwarded();
        self.report(session, passage, error.is_some());
    }
}
