//! pingora's hooks: the journey's steps called at the right moments of the pump.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use tollgate_policy::settings::UpstreamProtocol;

use super::fields::to_service;
use super::passage::{Passage, exhausted, origin_of, peer_of};
use super::watch::{self, Cut, Watch};
use super::{Forwarder, answer, unsent};
use crate::denial::Denial;
use crate::door::asked::is_grpc;
use crate::journey::Journey;
use crate::own;
use crate::request::flow::Spoken;
use crate::transcode::metadata;
use crate::upstream::Outcome;

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

/// Whether an answer ends with its head: then no piece of a body announces its end.
fn has_no_body(session: &Session, answer: &ResponseHeader) -> bool {
    let empty = answer.headers.get(http::header::CONTENT_LENGTH);
    let bodiless = session.req_header().method == http::Method::HEAD
        || matches!(answer.status.as_u16(), 204 | 304)
        || empty.is_some_and(|length| length == "0");
    bodiless && !answer.status.is_informational()
}

/// How long one read or write of the pump may take, and how long the head of the answer, which is a matter of the watch: the pump
/// knows one limit for every read.
struct Patience {
    read: Duration,
    write: Duration,
    head: Option<Duration>,
}

impl Forwarder {
    fn pump_patience(&self, session: &mut Session, passage: &Passage) -> Patience {
        let head = self.patience(passage);
        let (idle, http2) = match &passage.exchange.journey {
            Journey::Admitted(admitted) => (
                admitted
                    .operation()
                    .map_or(head, |operation| operation.settings.idle),
                admitted.api.cluster.config.protocol == UpstreamProtocol::Http2,
            ),
            Journey::Arrived | Journey::Own(_) | Journey::Refused { .. } => (head, false),
        };
        let left = passage
            .deadline
            .map(|end| end.saturating_duration_since(Instant::now()));
        let write = left.map_or(idle, |left| left.min(idle));
        // Streams over HTTP/2 and WebSockets live by the idle limit alone.
        let streaming = http2 || session.is_upgrade_req();
        let (read, head) = match (streaming, &passage.watch) {
            (true, _) => (idle, None),
            (false, Some(_)) => (idle.max(head), Some(head)),
            (false, None) => (head, None),
        };
        Patience { read, write, head }
    }
}

#[async_trait]
impl ProxyHttp for Forwarder {
    type CTX = Passage;

    fn new_ctx(&self) -> Passage {
        Passage::new(self.shared.clone())
    }

    /// None: compression is the service's business, and each module costs every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, passage: &mut Passage) -> Result<bool> {
        let peer = peer_of(session, self.shared.trusted_hops);
        let admitted = passage.exchange.admit(session.req_header(), &peer).await;
        if let Some(watch) = Watch::current() {
            watch.names(passage.exchange.request_id);
        }
        if let Err(denial) = admitted {
            Box::pin(answer::refuse(session, &denial, &passage.exchange)).await?;
            return Ok(true);
        }
        if matches!(passage.exchange.journey, Journey::Own(_)) {
            Box::pin(own::serve(session, &mut passage.exchange)).await?;
            return Ok(true);
        }
        if self.transcode(session, passage).await? {
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
        let Some(picked) = &passage.picked else {
            return Error::e_explain(ErrorType::InternalError, "no endpoint picked");
        };
        let mut peer = Box::new(HttpPeer::clone(picked.peer()));
        if passage.watch.is_none() {
            passage.watch = watched(session, passage.deadline);
        }
        self.grpc_streams(session, passage);
        let patience = self.pump_patience(session, passage);
        peer.options.read_timeout = Some(patience.read);
        peer.options.write_timeout = Some(patience.write);
        passage.head_patience = patience.head;
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        passage: &mut Passage,
    ) -> Result<()> {
        // Connected: from here on the service has its time.
        if let (Some(watch), Some(limit)) = (&passage.watch, passage.head_patience) {
            watch.answer_within(limit);
        }
        let origin = origin_of(session);
        passage.exchange.upstream.sent = true;
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Error::e_explain(ErrorType::InternalError, "forward before admission");
        };
        let authority = passage
            .picked
            .as_ref()
            .map_or("", |picked| picked.authority());
        to_service(head, &passage.exchange, admitted, origin, authority)?;
        if is_grpc(head)
            && let Some(end) = passage.deadline
        {
            metadata::cap_timeout(head, end.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
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
        if watch::is_long() {
            self.goes_on(session, passage, Spoken::default());
        }
        passage
            .exchange
            .receives(body.as_deref().unwrap_or_default());
        let limit = match &passage.exchange.journey {
            Journey::Admitted(admitted) => admitted.max_body(&self.shared),
            Journey::Arrived | Journey::Own(_) | Journey::Refused { .. } => 0,
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
            unsent::hear(passage, answer);
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
        self.dress(session, passage, answer)?;
        self.streams(session, passage, answer);
        if has_no_body(session, answer) {
            passage.exchange.settle(true);
        }
        Ok(())
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        _trailers: &mut HeaderMap,
        passage: &mut Passage,
    ) -> Result<Option<Bytes>>
    where
        Self::CTX: Send + Sync,
    {
        passage.exchange.settle(true);
        Ok(None)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        passage: &mut Passage,
    ) -> Result<Option<Duration>>
    where
        Self::CTX: Send + Sync,
    {
        if passage.deadline.is_some_and(|end| Instant::now() >= end) {
            return Error::e_explain(ErrorType::ReadTimedout, "total time exceeded");
        }
        if watch::is_long() {
            self.goes_on(session, passage, Spoken::default());
        }
        if let Some(bytes) = body {
            passage.exchange.sends(bytes);
        }
        if end {
            passage.exchange.settle(true);
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
        if let Some(cut) = passage.cut() {
            passage.exchange.fail(cut.denial());
            passage.finish_attempt(match cut {
                Cut::AnswerLate => Outcome::TimedOut,
                Cut::Total if passage.body_ended => Outcome::TimedOut,
                Cut::Total | Cut::BodySlow | Cut::BodyMalformed | Cut::Revoked | Cut::Ended(_) => {
                    Outcome::Abandoned
                }
            });
            error.set_retry(false);
            return error;
        }
        let outcome = match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, _) => Outcome::Abandoned,
            _ if exhausted(&error) => Outcome::Abandoned,
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
        passage.exchange.reason = match passage.cut() {
            Some(cut) => cut.reason(),
            None => Cow::Owned(error.to_string()),
        };
        // After 101 the bytes are another protocol's: no answer of ours may stand among them.
        let nothing_written = session
            .response_written()
            .is_none_or(|answer| answer.status.is_informational() && answer.status != 101);
        let known = match (&passage.exchange.journey, passage.cut()) {
            (Journey::Refused { denial, .. }, _) => Some(denial.clone()),
            (Journey::Admitted(_) | Journey::Own(_) | Journey::Arrived, Some(cut)) => {
                Some(cut.denial())
            }
            (Journey::Admitted(_) | Journey::Own(_) | Journey::Arrived, None) => {
                Self::denial_of(error)
            }
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
        if passage.cut().is_some_and(|cut| cut.is_policy()) && !nothing_written {
            answer::end_stream(session, &denial, &passage.exchange).await;
        }
        if nothing_written {
            session.set_keepalive(None);
            let refused = answer::refuse(session, &denial, &passage.exchange).await;
            if refused.is_err() {
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
