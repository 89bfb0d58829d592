//! One request on its way to the service: attempts, patience, retries, and the report. Both ways to the service call this.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use smallvec::SmallVec;

use super::Forwarder;
use super::fields::{KEEP_ALIVE, Origin, PROXY_CONNECTION, client_address};
use super::unsent;
use super::watch::{self, Cut, Watch};
use crate::denial::Denial;
use crate::explain;
use crate::identity::clock;
use crate::journey::{Journey, Peer, Shared};
use crate::listener::Handshake;
use crate::own;
use crate::quota::Said;
use crate::quota::fields::Told;
use crate::report::Seen;
use crate::request::Exchange;
use crate::upstream::{EndpointAddress, InFlight, Outcome, Picked};

/// One request on its way through the pump.
#[derive(Debug)]
pub struct Passage {
    /// The journey.
    pub exchange: Exchange,
    pub(crate) picked: Option<Picked>,
    /// The endpoint is busy with the answer until its end.
    answering: Option<InFlight>,
    pub(crate) asked_at: Option<Instant>,
    pub(crate) failed_at: Option<EndpointAddress>,
    pub(crate) deadline: Option<Instant>,
    /// By when the caller wants it over, where it says so.
    pub(crate) wanted_by: Option<Instant>,
    pub(crate) answered: bool,
    pub(crate) watch: Option<Arc<Watch>>,
    pub(crate) body_ended: bool,
    /// How long the head of the answer may take, where the watch has to see to it.
    pub(crate) head_patience: Option<Duration>,
}

impl Passage {
    /// A request whose head is about to be read.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            exchange: Exchange::new(shared),
            picked: None,
            answering: None,
            asked_at: None,
            failed_at: None,
            deadline: None,
            wanted_by: None,
            answered: false,
            watch: None,
            body_ended: false,
            head_patience: None,
        }
    }

    /// Which limit the watch ended this request by, if it did. The short way arms none, a revocation ends it all the same.
    pub(crate) fn cut(&self) -> Option<Cut> {
        match &self.watch {
            Some(watch) => watch.over(),
            None => Watch::current()?.over(),
        }
    }

    /// When the whole exchange has to be over: by the operation's total time, or the caller's word.
    pub(crate) fn latest(&self) -> Option<Instant> {
        let Journey::Admitted(admitted) = &self.exchange.journey else {
            return None;
        };
        let total = admitted
            .operation()
            .and_then(|operation| operation.settings.total);
        let end = total.map(|total| self.exchange.started + total);
        [end, self.wanted_by].into_iter().flatten().min()
    }

    /// Ends the attempt and blames the endpoint, or does not.
    pub(crate) fn finish_attempt(&mut self, outcome: Outcome) {
        if let Some(watch) = &self.watch {
            watch.answer_came();
        }
        let Some(picked) = self.picked.take() else {
            return;
        };
        let latency = self
            .asked_at
            .map_or(Duration::ZERO, |asked| asked.elapsed());
        self.exchange.upstream.outcome = outcome_name(outcome);
        let answered = matches!(outcome, Outcome::Answered | Outcome::ServerError);
        if answered {
            self.exchange.upstream.latency = Some(latency);
        } else {
            self.failed_at = Some(picked.address().clone());
        }
        let in_flight = picked.finish(outcome, latency);
        self.answering = answered.then_some(in_flight);
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
pub(crate) fn origin_of(session: &Session) -> Origin {
    let peer = session.client_addr().and_then(|address| address.as_inet());
    Origin {
        peer: peer.map(std::net::SocketAddr::ip),
        tls: session
            .digest()
            .is_some_and(|digest| digest.ssl_digest.is_some()),
    }
}

/// What the connection tells about the caller.
pub(crate) fn peer_of(session: &Session, trusted_hops: u8) -> Peer {
    let peer = session.client_addr().and_then(|address| address.as_inet());
    let tls = session.digest().and_then(|it| it.ssl_digest.as_ref());
    let handshake = tls.and_then(|tls| tls.extension.get::<Handshake>());
    let workload = handshake.and_then(|it| it.workload(clock::now()));
    let hops = Peer::believed_hops(workload, trusted_hops);
    let client = client_address(session.req_header(), peer.copied(), hops);
    Peer {
        client: client.map(|address| address.ip()),
        certificate: handshake.and_then(|it| it.certificate.clone()),
        served_name: handshake.and_then(|it| it.served_name.clone()),
        direction: watch::direction(),
        workload: workload.cloned(),
    }
}

impl Forwarder {
    /// Picks an endpoint for one attempt and notes it.
    pub(crate) fn pick(&self, passage: &mut Passage) -> Result<()> {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Error::e_explain(ErrorType::InternalError, "forward before admission");
        };
        if passage.exchange.upstream.attempts == 0 {
            admitted.api.cluster.count_call();
            passage.deadline = passage.latest();
        }
        let Ok(picked) = admitted.api.cluster.pick(passage.failed_at.as_ref()) else {
            passage.exchange.fail(Denial::NoEndpoint);
            return Error::e_explain(ErrorType::ConnectError, "no endpoint");
        };
        let story = &mut passage.exchange.upstream;
        story.attempts += 1;
        story.sent_before = story.sent;
        story.endpoint.clear();
        story.endpoint.extend_from_slice(picked.label().as_bytes());
        passage.picked = Some(picked);
        passage.asked_at = Some(Instant::now());
        Ok(())
    }

    /// How long the service may take to the head of its answer, what is left of the total considered.
    pub(crate) fn patience(&self, passage: &Passage) -> Duration {
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
    pub(crate) fn deadline(&self, passage: &Passage) -> Option<Instant> {
        passage.deadline
    }

    /// Whether this failed attempt may be followed by another: any method when provably nothing was sent, idempotent ones also
    /// after a reset before the first byte of the answer; within the operation's number and the cluster's budget.
    pub(crate) fn may_retry(&self, passage: &Passage, method: &http::Method, unsent: bool) -> bool {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return false;
        };
        let Some(operation) = admitted.operation() else {
            return false;
        };
        let in_time = passage.deadline.is_none_or(|end| Instant::now() < end);
        in_time
            && passage.cut().is_none()
            && !passage.answered
            && (unsent || method.is_idempotent())
            && passage.exchange.upstream.attempts <= u32::from(operation.settings.retries)
            && admitted.api.cluster.take_retry()
    }

    /// Notes the head of the answer.
    pub(crate) fn answer_began(&self, passage: &mut Passage, status: u16) {
        self.answer_judged(passage, status, status >= 500 && status != 501);
    }

    /// Notes the head of the answer, and whether it speaks against the endpoint.
    pub(crate) fn answer_judged(&self, passage: &mut Passage, status: u16, failed: bool) {
        passage.answered = true;
        passage.exchange.upstream.status = status;
        passage.finish_attempt(if failed {
            Outcome::ServerError
        } else {
            Outcome::Answered
        });
    }

    /// Adds our fields to an answer on its way to the client.
    pub(crate) fn dress(
        &self,
        session: &mut Session,
        passage: &mut Passage,
        answer: &mut ResponseHeader,
    ) -> Result<()> {
        if self.shared.draining.load(Ordering::Relaxed) {
            session.set_keepalive(None);
        }
        stop_hop_fields(answer);
        answer.remove_header(&unsent::FIELD);
        drop_idle_framing(answer)?;
        if session.req_header().version == http::Version::HTTP_10 {
            // RFC 9112, section 6.1: no coding for a client that cannot know it. The end of the connection ends the body.
            answer.remove_header(&http::header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        answer.insert_header("x-request-id", passage.exchange.request_id.as_str())?;
        if let Some(explanation) = passage.exchange.explanation() {
            answer.insert_header(explain::FIELD, explanation)?;
        }
        tell_quota(&mut passage.exchange, answer)?;
        if let Journey::Admitted(admitted) = &passage.exchange.journey
            && let Some((terms, version, enforced)) = &admitted.grant.grace
        {
            let due = format!("{terms}; version={version}; enforced=\"{enforced}\"");
            answer.insert_header("x-tollgate-terms-due", due)?;
            let link = own::terms_link(&admitted.api, admitted.base_length, terms);
            answer.append_header("link", format!("<{link}>; rel=\"terms-of-service\""))?;
        }
        Ok(())
    }

    /// Writes the report of a finished request.
    pub(crate) fn report(&self, session: &Session, passage: &mut Passage, aborted: bool) {
        passage.answering = None;
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
            client: client_address(head, peer, passage.exchange.believed_hops()),
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
    pub(crate) fn denial_of(error: &Error) -> Option<Denial> {
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
pub(crate) fn exhausted(error: &Error) -> bool {
    let Some(cause) = error.cause.as_deref() else {
        return false;
    };
    // pingora's errors keep theirs to themselves: `source` does not lead on from them.
    if let Some(inner) = cause.downcast_ref::<Box<Error>>() {
        return exhausted(inner);
    }
    let mut cause = Some(cause as &(dyn std::error::Error + 'static));
    while let Some(inner) = cause {
        if inner
            .downcast_ref()
            .is_some_and(crate::descriptors::lacking)
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// How the limit that is closest to its end stands; and what the service says the call cost, which is for us alone.
fn tell_quota(exchange: &mut Exchange, answer: &mut ResponseHeader) -> Result<()> {
    let Journey::Admitted(admitted) = &exchange.journey else {
        return Ok(());
    };
    let Some(reservation) = &admitted.reservation else {
        return Ok(());
    };
    let charges = reservation.charges();
    let now = exchange.shared.quotas.ticks(exchange.started);
    if let Some(told) = Told::closest(charges, now) {
        answer.insert_header("ratelimit-policy", told.policy())?;
        answer.insert_header("ratelimit", told.state())?;
        if exchange.shared.legacy_quota_fields {
            for (name, value) in told.legacy() {
                answer.insert_header(name, value)?;
            }
        }
    }
    for header in charges.response_headers() {
        let Some(value) = answer.remove_header(&**header) else {
            continue;
        };
        if let Some(value) = value.to_str().ok().and_then(|it| it.trim().parse().ok()) {
            let header = header.clone();
            exchange.said.push(Said { header, value });
        }
    }
    Ok(())
}

/// Deals with a length or coding of a body that cannot be there (RFC 9110, section 8.6; RFC 9112, section 6.1): a client that
/// believes it would take the next answer for a body. (The length in a 304 tells of the answer to a GET.)
///
/// # Errors
/// A 204 that announces content: what follows on the connection is nobody's answer, so the connection is given up.
fn drop_idle_framing(answer: &mut ResponseHeader) -> Result<()> {
    if answer.status == http::StatusCode::NO_CONTENT {
        let length = answer.remove_header(&http::header::CONTENT_LENGTH);
        if length.is_some_and(|length| length != "0") {
            return Err(
                Error::explain(ErrorType::InvalidHTTPHeader, "a 204 with content").into_up(),
            );
        }
    }
    if matches!(answer.status.as_u16(), 204 | 304) {
        answer.remove_header(&http::header::TRANSFER_ENCODING);
    }
    Ok(())
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
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION] {
        answer.remove_header(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_found_however_deep_it_lies() {
        let io = |code| std::io::Error::from_raw_os_error(code);
        let table = [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ECONNREFUSED, false),
        ];
        for (code, ours) in table {
            let flat = Error::because(ErrorType::SocketError, "no socket", io(code));
            assert_eq!(exhausted(&flat), ours);
            // As the connector wraps it.
            let deep = Error::because(ErrorType::InternalError, "cannot connect", flat);
            assert_eq!(exhausted(&deep), ours);
            assert_eq!(exhausted(&deep.more_context("and more")), ours);
        }
        assert!(!exhausted(&Error::new(ErrorType::ConnectError)));
    }
}
