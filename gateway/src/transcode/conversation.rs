//! A call between a caller that does not speak gRPC and a service that speaks nothing else, from its admission to its end.
//!
//! A whole body is a message before the service is called; streams flow both ways at once. Whatever goes wrong is told in the form of
//! the call, and cancels what is under way at the service. At most one message is held in each direction: who reads slowly is sent
//! to slowly. Not here: what a call costs (`settle`) and what is said in which form (`inlet`, `outlet`).

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use pingora_core::protocols::http::HttpTask;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::call::Failure;
use super::caller::Caller;
use super::inlet::Inlet;
use super::outlet::{Outlet, Written};
use super::plan::{Form, Plan};
use super::status::Status;
use super::talk::Talk;
use super::unfit::Unfit;
use super::{metadata, refusal, socket};
use crate::denial::Denial;
use crate::door::asked::is_grpc;
use crate::forward::passage::Passage;
use crate::forward::watch::{self, Watch};
use crate::forward::{Forwarder, answer, unsent};
use crate::journey::Journey;
use crate::request::flow::Spoken;
use crate::upstream::Outcome;

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
        if plan.form_streams() {
            self.goes_on(session, passage, Spoken::told());
        }
        let mut outlet = Outlet::default();
        let most = match &passage.exchange.journey {
            Journey::Admitted(admitted) => admitted.max_body(&self.shared),
            Journey::Arrived | Journey::Own(_) | Journey::Refused { .. } => 0,
        };
        let mut caller = Caller {
            session,
            inlet: Inlet::new(plan, most, limit_of(passage)),
            spoken: false,
            most,
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
            false => caller.inlet.of_target(plan)?,
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
                    if !(unsent || failure.is_loss()) || !self.may_retry(passage, &method, unsent) {
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
        let mut framed = None;
        while !caller.spoken {
            let piece = caller.hear(true).await.map_err(Trouble::Gone)?;
            caller.heard(passage, piece)?;
            while let Some(message) = caller.inlet.take(plan)? {
                if framed.replace(message).is_some() {
                    let text = "a second message, where the method takes one";
                    return Err(Denial::Unfit(Box::new(Unfit::whole(text))).into());
                }
            }
        }
        let last = caller.inlet.finish(plan)?;
        Ok(framed.or(last))
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
                    .as_ref()
                    .map(watch::Cut::denial)
                    .or_else(|| Self::denial_of(&error));
                let Some(denial) = denial else {
                    passage.exchange.reason = Cow::Owned(error.to_string());
                    passage.finish_attempt(Outcome::Abandoned);
                    return Err(error);
                };
                let reason = cut.map_or_else(|| error.to_string().into(), |it| it.reason());
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
    pub(super) async fn write(
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
            unsent::say(&mut head, &passage.exchange).map_err(gone)?;
            tasks.push(HttpTask::Header(head, plan.head_only));
        }
        let upgraded = plan.form == Form::Socket && session.was_upgraded();
        if upgraded {
            passage.exchange.sends(&body);
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

/// The caller's side of the connection failed.
pub(super) fn gone(error: Box<Error>) -> Trouble {
    Trouble::Gone(error.into_down())
}
