//! A call between a caller that does not speak gRPC and a service that speaks nothing else, from its admission to its end.
//!
//! A whole body is a message before the service is called; streams flow both ways at once. Whatever goes wrong is told in the form of
//! the call, and cancels what is under way at the service. At most one message is held in each direction: who reads slowly is sent
//! to slowly. Not here: what a call costs (`settle`) and what is said in which form (`inlet`, `outlet`).

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use pingora_core::protocols::http::HttpTask;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::call::{End, Failure, Message, Receiving, Sending};
use super::inlet::Inlet;
use super::outlet::{Outlet, Written};
use super::plan::{Form, Plan};
use super::status::Status;
use super::unfit::Unfit;
use super::{metadata, refusal, socket};
use crate::denial::Denial;
use crate::door::asked::is_grpc;
use crate::forward::passage::Passage;
use crate::forward::watch::{self, Watch};
use crate::forward::{Forwarder, answer};
use crate::journey::Journey;
use crate::upstream::Outcome;

/// Messages that are there already go out in one write up to this size.
const WRITE_BYTES: usize = 32 * 1024;

/// Why a call did not come to its end.
pub(super) enum Trouble {
    /// It is refused, or failed, by our word.
    Denied(Denial),
    /// The service did not keep to the protocol.
    Failed(Failure),
    /// What the service answered cannot be told.
    Untold(Status),
    /// The caller is gone, or is cut off.
    Gone(Box<Error>),
    /// The caller has been told all that can be, and must see that it is not the whole.
    Torn,
}

impl From<Denial> for Trouble {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        Self::Untold(status)
    }
}

/// What the service did.
enum Event {
    Head(HeaderMap),
    Message(Message),
    End(Box<End>),
}

/// The caller's side of a conversation.
pub(super) struct Caller<'c> {
    pub(super) session: &'c mut Session,
    inlet: Inlet,
    /// Its body has been read.
    pub(super) spoken: bool,
}

impl Forwarder {
    /// Serves an admitted call of a gRPC method whose caller does not speak gRPC; `false` leaves it to the ways of forwarding.
    pub(crate) async fn transcode(
        &self,
        session: &mut Session,
        passage: &mut Passage,
    ) -> Result<bool> {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Ok(false);
        };
        let head = session.req_header();
        if admitted.api.face.is_none() && !is_grpc(head) {
            return Ok(false);
        }
        let checked = metadata::check(&head.headers);
        let planned = checked.and_then(|()| Plan::of(head, admitted));
        match planned {
            Ok(None) => Ok(false),
            Ok(Some(plan)) => {
                Box::pin(self.converse(session, passage, &plan)).await?;
                Ok(true)
            }
            Err(denial) => {
                passage.exchange.fail(denial.clone());
                Box::pin(answer::refuse(session, &denial, &passage.exchange)).await?;
                Ok(true)
            }
        }
    }

    async fn converse(
        &self,
        session: &mut Session,
        passage: &mut Passage,
        plan: &Plan,
    ) -> Result<()> {
        passage.exchange.transcoded = true;
        let mut outlet = Outlet::default();
        let most = match &passage.exchange.journey {
            Journey::Admitted(admitted) => admitted.max_body(&self.shared),
            Journey::Arrived | Journey::Own(_) | Journey::Refused { .. } => 0,
        };
        let mut caller = Caller {
            session,
            inlet: Inlet::new(plan, most, limit_of(passage)),
            spoken: false,
        };
        match self.attempts(&mut caller, passage, plan, &mut outlet).await {
            Ok(()) => Ok(()),
            Err(trouble) => {
                self.tell(&mut caller, passage, plan, &mut outlet, trouble)
                    .await
            }
        }
    }

    /// Everything from the request's body on, until an answer has gone out.
    async fn attempts(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
        plan: &Plan,
        outlet: &mut Outlet,
    ) -> std::result::Result<(), Trouble> {
        self.arm(caller, passage, plan).await?;
        let whole = match caller.inlet.is_whole() {
            true => self.hear_all(caller, passage, plan).await?,
            false => None,
        };
        loop {
            let (mut sending, receiving) = self.open(caller, passage, plan).await?;
            if let Some(message) = &whole {
                sending.queue(message.clone(), true);
            }
            if plan.form == Form::Socket && !outlet.begun() {
                self.open_socket(caller, passage).await?;
                outlet.opened();
            }
            let mut talk = Talk {
                caller,
                outlet,
                plan,
                sending,
                receiving,
                said_all: whole.is_some(),
            };
            let talked = talk.run(self, passage).await;
            match talked {
                Err(Trouble::Failed(failure)) if whole.is_some() && !outlet.begun() => {
                    passage.finish_attempt(failure.outcome());
                    let unsent = matches!(failure, Failure::Unseen(_));
                    let method = match plan.method().is_ok_and(|it| it.no_side_effects) {
                        true => http::Method::GET,
                        false => http::Method::POST,
                    };
                    let lost = matches!(failure, Failure::Broken(_) | Failure::Reset(_));
                    if !(unsent || lost) || !self.may_retry(passage, &method, unsent) {
                        return Err(failure.into());
                    }
                }
                talked => return talked,
            }
        }
    }

    /// Sets the limits of the call: what it may take in all, and at what rate its body has to come.
    async fn arm(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
        plan: &Plan,
    ) -> std::result::Result<(), Trouble> {
        let head = caller.session.req_header();
        let wanted = metadata::timeout(&head.headers);
        passage.wanted_by = wanted.and_then(|limit| passage.exchange.started.checked_add(limit));
        passage.deadline = passage.latest();
        let expects = head.headers.contains_key(EXPECT) && head.version == Version::HTTP_11;
        let watch = Watch::current();
        if let (Some(watch), Some(end)) = (&watch, passage.deadline) {
            watch.ends_at(end);
        }
        if plan.form == Form::Socket {
            // Its bytes come after the handshake, and are no body.
            passage.watch = watch;
            return Ok(());
        }
        caller.spoken = caller.session.downstream_session.is_body_done();
        if let Some(watch) = &watch
            && !caller.spoken
            && caller.inlet.is_whole()
        {
            watch.body_begins();
        }
        passage.watch = watch;
        if expects && !caller.spoken {
            let session = &mut caller.session.downstream_session;
            session.write_continue_response().await.map_err(gone)?;
        }
        Ok(())
    }

    /// The one message of a call whose body is whole.
    async fn hear_all(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
        plan: &Plan,
    ) -> std::result::Result<Option<Bytes>, Trouble> {
        while !caller.spoken {
            let piece = caller.hear(true).await.map_err(Trouble::Gone)?;
            caller.heard(passage, piece)?;
        }
        Ok(caller.inlet.finish(plan)?)
    }

    async fn open_socket(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
    ) -> std::result::Result<(), Trouble> {
        let mut head = Box::new(socket::accept(caller.session.req_header())?);
        let id = passage.exchange.request_id;
        head.insert_header("x-request-id", id.as_str())
            .map_err(gone)?;
        let session = &mut caller.session.downstream_session;
        session.write_response_header(head).await.map_err(gone)
    }

    /// Tells the caller what went wrong, as far as it still can be told.
    async fn tell(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
        plan: &Plan,
        outlet: &mut Outlet,
        trouble: Trouble,
    ) -> Result<()> {
        let mut written = Written::default();
        let none = HeaderMap::new();
        match trouble {
            Trouble::Gone(error) => {
                let cut = passage.cut();
                let denial = cut
                    .map(watch::Cut::denial)
                    .or_else(|| Self::denial_of(&error));
                let Some(denial) = denial else {
                    passage.exchange.reason = Cow::Owned(error.to_string());
                    passage.finish_attempt(Outcome::Abandoned);
                    return Err(error);
                };
                let reason = cut.map_or_else(|| error.to_string().into(), |it| it.reason().into());
                passage.exchange.reason = reason;
                self.deny(caller, passage, plan, outlet, &denial, &mut written);
            }
            Trouble::Denied(denial) => {
                self.deny(caller, passage, plan, outlet, &denial, &mut written);
            }
            Trouble::Torn => return Err(torn()),
            Trouble::Failed(failure) => {
                let status = failure.status();
                passage.exchange.reason = Cow::Owned(failure.reason());
                passage.finish_attempt(failure.outcome());
                passage.exchange.fail(Denial::UpstreamFailed);
                outlet.fail(plan, status.code.http(), &status, &none, &mut written);
            }
            Trouble::Untold(status) => {
                passage.exchange.reason = Cow::Owned(status.message.to_string());
                passage.finish_attempt(Outcome::ServerError);
                passage.exchange.fail(Denial::UpstreamFailed);
                outlet.fail(plan, status.code.http(), &status, &none, &mut written);
            }
        }
        let told = self
            .write(caller.session, passage, plan, written, true)
            .await;
        told.map_err(|trouble| match trouble {
            Trouble::Gone(error) => error,
            Trouble::Torn | Trouble::Denied(_) | Trouble::Failed(_) | Trouble::Untold(_) => torn(),
        })
    }

    fn deny(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
        plan: &Plan,
        outlet: &mut Outlet,
        denial: &Denial,
        written: &mut Written,
    ) {
        // The service had its time, unless it was the caller who gave it less.
        let by_caller = passage.wanted_by.is_some_and(|end| Instant::now() >= end);
        passage.finish_attempt(match denial {
            Denial::UpstreamTimeout if !by_caller => Outcome::TimedOut,
            _ => Outcome::Abandoned,
        });
        passage.exchange.fail(denial.clone());
        if denial.closes() || !caller.spoken {
            caller.session.set_keepalive(None);
        }
        let status = super::rpc::status_of(denial, passage.exchange.request_id.as_str());
        let http = refusal::http_status(plan.dialect, denial, &status);
        outlet.fail(plan, http, &status, &HeaderMap::new(), written);
        if let Some(head) = &mut written.head {
            for (name, value) in denial.fields() {
                let _ = head.append_header(name, value);
            }
        }
    }

    /// Writes to the caller, and flushes.
    async fn write(
        &self,
        session: &mut Session,
        passage: &mut Passage,
        plan: &Plan,
        written: Written,
        end: bool,
    ) -> std::result::Result<(), Trouble> {
        let mut tasks = Vec::with_capacity(2);
        let Written { head, body, torn } = written;
        let end = end && !torn;
        let has_head = head.is_some();
        if let Some(mut head) = head {
            let http1 = session.req_header().version == Version::HTTP_11;
            if http1 && !head.headers.contains_key(CONTENT_LENGTH) {
                head.insert_header(TRANSFER_ENCODING, "chunked")
                    .map_err(gone)?;
            }
            head.set_version(Version::HTTP_11);
            self.dress(session, passage, &mut head).map_err(gone)?;
            tasks.push(HttpTask::Header(head, plan.head_only));
        }
        let upgraded = plan.form == Form::Socket && session.was_upgraded();
        if upgraded {
            passage.exchange.body_sent += u64::try_from(body.len()).unwrap_or(u64::MAX);
            let body = (!body.is_empty()).then(|| Bytes::from(body));
            tasks.push(HttpTask::UpgradedBody(body, end));
        } else if !plan.head_only && (!body.is_empty() || end) {
            let body = (!body.is_empty()).then(|| Bytes::from(body));
            tasks.push(HttpTask::Body(body, end));
        }
        if tasks.is_empty() || (plan.head_only && !has_head) {
            return if torn { Err(Trouble::Torn) } else { Ok(()) };
        }
        passage.exchange.releases(&tasks, end || plan.head_only);
        let session = &mut session.downstream_session;
        session.response_duplex_vec(tasks).await.map_err(gone)?;
        if torn { Err(Trouble::Torn) } else { Ok(()) }
    }
}

/// Bytes of a message.
pub(super) fn limit_of(passage: &Passage) -> usize {
    match &passage.exchange.journey {
        Journey::Admitted(admitted) => {
            usize::try_from(admitted.api.cluster.config.max_message).unwrap_or(usize::MAX)
        }
        Journey::Arrived | Journey::Own(_) | Journey::Refused { .. } => 0,
    }
}

/// The service broke off, and so does the answer.
fn torn() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the service broke off").into_up()
}

fn gone(error: Box<Error>) -> Trouble {
    Trouble::Gone(error.into_down())
}

impl Caller<'_> {
    /// The next bytes of the caller where more are `wanted`; else only its leaving ends this.
    async fn hear(&mut self, wanted: bool) -> Result<Option<Bytes>> {
        let session = &mut self.session.downstream_session;
        // While bytes wait unread, those of HTTP/1 cannot tell whether somebody left: only a cut is looked for.
        let deaf = !wanted && !self.spoken && !session.is_custom();
        if deaf {
            return poll_fn(|_| match watch::is_cut() {
                true => Poll::Ready(Ok(None)),
                false => Poll::Pending,
            })
            .await;
        }
        let heard = session.read_body_or_idle(!wanted).await;
        heard.map_err(|error| error.into_down())
    }

    /// Takes account of what was heard.
    fn heard(
        &mut self,
        passage: &mut Passage,
        piece: Option<Bytes>,
    ) -> std::result::Result<(), Trouble> {
        if watch::is_cut() {
            let error = Error::explain(ErrorType::ReadTimedout, "cut off");
            return Err(gone(error));
        }
        let length = piece.as_ref().map_or(0, Bytes::len);
        let upgraded = self.session.was_upgraded();
        self.spoken |=
            piece.is_none() || (!upgraded && self.session.downstream_session.is_body_done());
        passage.body_ended = self.spoken;
        passage.exchange.body_received += u64::try_from(length).unwrap_or(u64::MAX);
        if let Some(watch) = &passage.watch {
            watch.body_came(length, self.spoken);
        }
        match piece {
            Some(bytes) => Ok(self.inlet.feed(bytes)?),
            None => Ok(()),
        }
    }

    /// What is awaited, or that the caller is gone before it.
    pub(super) async fn beside<T>(
        &mut self,
        awaited: impl Future<Output = T>,
    ) -> std::result::Result<T, Trouble> {
        tokio::select! {
            value = awaited => Ok(value),
            left = self.hear(false) => Err(Trouble::Gone(match left {
                Err(error) => error,
                Ok(_) => Error::explain(ErrorType::ReadTimedout, "cut off").into_down(),
            })),
        }
    }
}

/// Both directions of one attempt.
struct Talk<'t, 'c> {
    caller: &'t mut Caller<'c>,
    outlet: &'t mut Outlet,
    plan: &'t Plan,
    sending: Sending,
    receiving: Receiving,
    /// The service was told that no more messages come.
    said_all: bool,
}

impl Talk<'_, '_> {
    async fn run(
        &mut self,
        forwarder: &Forwarder,
        passage: &mut Passage,
    ) -> std::result::Result<(), Trouble> {
        loop {
            self.pass_on(forwarder, passage).await?;
            let socket = self.plan.form == Form::Socket;
            let wanted =
                self.sending.is_idle() && !self.caller.spoken && (socket || !self.said_all);
            let patience = self.patience(forwarder, passage);
            let idle = self.sending.is_idle();
            tokio::select! {
                event = event(&mut self.receiving) => {
                    if self.answered(forwarder, passage, event?).await? {
                        return Ok(());
                    }
                }
                () = self.sending.flush(), if !idle => {}
                heard = self.caller.hear(wanted) => {
                    let piece = heard.map_err(Trouble::Gone)?;
                    self.caller.heard(passage, piece)?;
                }
                () = pingora_timeout::sleep(patience) => {
                    return Err(Denial::UpstreamTimeout.into());
                }
            }
        }
    }

    /// Hands the caller's next message to the service, once the one before has gone.
    async fn pass_on(
        &mut self,
        forwarder: &Forwarder,
        passage: &mut Passage,
    ) -> std::result::Result<(), Trouble> {
        let inlet = &mut self.caller.inlet;
        if self.sending.is_idle() {
            // What is there already goes out together: services take many small frames for a flood.
            let mut messages = BytesMut::new();
            while messages.len() < WRITE_BYTES
                && let Some(message) = inlet.take(self.plan)?
            {
                if self.said_all {
                    let text = "a message after the one that said there would be no more";
                    return Err(Denial::Unfit(Box::new(Unfit::whole(text))).into());
                }
                messages.extend_from_slice(&message);
            }
            if !messages.is_empty() {
                self.sending.queue(messages.freeze(), false);
            } else if !self.said_all && (self.caller.spoken || inlet.is_over()) {
                let last = inlet.finish(self.plan)?;
                self.sending.queue(last.unwrap_or_default(), true);
                self.said_all = true;
            }
        }
        if inlet.is_closed() {
            let error = Error::explain(ErrorType::ConnectionClosed, "closed by the caller");
            return Err(gone(error));
        }
        if !inlet.replies.is_empty() {
            let body = std::mem::take(&mut inlet.replies);
            let written = Written {
                body,
                ..Written::default()
            };
            let session = &mut *self.caller.session;
            forwarder
                .write(session, passage, self.plan, written, false)
                .await?;
        }
        Ok(())
    }

    /// How long nothing may happen.
    fn patience(&self, forwarder: &Forwarder, passage: &Passage) -> Duration {
        let streams = self.plan.hears_stream()
            || self
                .plan
                .method()
                .is_ok_and(|method| method.server_streaming);
        if !streams && self.receiving.is_waiting() {
            return forwarder.patience(passage);
        }
        let idle = match &passage.exchange.journey {
            Journey::Admitted(admitted) => admitted
                .operation()
                .map_or(Duration::ZERO, |operation| operation.settings.idle),
            Journey::Arrived | Journey::Own(_) | Journey::Refused { .. } => Duration::ZERO,
        };
        let left = passage
            .deadline
            .map(|end| end.saturating_duration_since(Instant::now()));
        left.map_or(idle, |left| left.min(idle))
    }

    /// Takes what the service did to the caller; `true` once all is said.
    async fn answered(
        &mut self,
        forwarder: &Forwarder,
        passage: &mut Passage,
        event: Event,
    ) -> std::result::Result<bool, Trouble> {
        let mut written = Written::default();
        let mut over = false;
        match event {
            Event::Head(initial) => written = self.outlet.head(self.plan, initial)?,
            Event::Message(message) => {
                if !passage.answered && self.plan.form_streams() {
                    forwarder.answer_began(passage, 200);
                }
                let made = self.messages(message, &mut written);
                if let Err(trouble) = made {
                    // What came before it belongs to the caller.
                    self.write(forwarder, passage, written, false).await?;
                    return Err(trouble);
                }
            }
            Event::End(end) => {
                over = true;
                passage.exchange.step("transcode");
                let status = end.status.code;
                if !end.status.is_ok() {
                    passage.exchange.reason = Cow::Borrowed(status.name());
                }
                forwarder.answer_judged(passage, status.http(), status.blames_service());
                self.outlet.end(self.plan, &end, &mut written)?;
            }
        }
        // Who wants no body has all it wants.
        over |= self.plan.head_only && self.outlet.begun();
        self.write(forwarder, passage, written, over).await?;
        Ok(over)
    }

    /// A message, and those that have come with it.
    fn messages(
        &mut self,
        first: Message,
        written: &mut Written,
    ) -> std::result::Result<(), Trouble> {
        self.outlet.message(self.plan, first, written)?;
        while written.body.len() < WRITE_BYTES {
            let Some(message) = self.receiving.ready()? else {
                break;
            };
            self.outlet.message(self.plan, message, written)?;
        }
        Ok(())
    }

    async fn write(
        &mut self,
        forwarder: &Forwarder,
        passage: &mut Passage,
        written: Written,
        end: bool,
    ) -> std::result::Result<(), Trouble> {
        let session = &mut *self.caller.session;
        forwarder
            .write(session, passage, self.plan, written, end)
            .await
    }
}

/// The next thing the service does. Given up and taken up again, it loses nothing.
async fn event(receiving: &mut Receiving) -> std::result::Result<Event, Failure> {
    if receiving.is_waiting() {
        return receiving.head().await.map(Event::Head);
    }
    match receiving.message().await? {
        Some(message) => Ok(Event::Message(message)),
        None => {
            let end = receiving.end();
            let broken = || Failure::Broken("the call ended twice".to_owned());
            end.map(|end| Event::End(Box::new(end))).ok_or_else(broken)
        }
    }
}
