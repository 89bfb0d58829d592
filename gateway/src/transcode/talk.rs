//! Both directions of one attempt: messages of the caller to the service, and of the service to the caller, until the service ends it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::HeaderMap;
use pingora_error::{Error, ErrorType};

use super::call::{End, Failure, Message, Receiving, Sending};
use super::caller::Caller;
use super::conversation::{Trouble, gone};
use super::outlet::{Outlet, Written};
use super::plan::{Form, Plan};
use super::unfit::Unfit;
use crate::denial::Denial;
use crate::forward::Forwarder;
use crate::forward::passage::Passage;
use crate::forward::unsent;
use crate::journey::Journey;

/// Messages that are there already go out in one write up to this size.
const WRITE_BYTES: usize = 32 * 1024;

/// What the service did.
enum Event {
    Head(HeaderMap),
    Message(Message),
    End(Box<End>),
}

/// Both directions of one attempt.
pub(super) struct Talk<'t, 'c> {
    pub(super) caller: &'t mut Caller<'c>,
    pub(super) outlet: &'t mut Outlet,
    pub(super) plan: &'t Plan,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    /// The service was told that no more messages come.
    pub(super) said_all: bool,
}

impl Talk<'_, '_> {
    /// Until the service has ended the call and the caller was told, or until something goes wrong.
    pub(super) async fn run(
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
                    // A service that vanished without a word leaves a connection that looks alive.
                    if self.receiving.is_waiting() {
                        self.receiving.condemn();
                    }
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
                passage.exchange.hears_message();
            }
            if !messages.is_empty() {
                self.sending.queue(messages.freeze(), false);
            } else if !self.said_all && (self.caller.spoken || inlet.is_over()) {
                let last = inlet.finish(self.plan)?;
                if last.is_some() {
                    passage.exchange.hears_message();
                }
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
                let made = self.messages(message, passage, &mut written);
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
                if end.unsent {
                    unsent::heard(passage);
                }
                forwarder.answer_judged(passage, status.http(), status.blames_service());
                self.outlet.end(self.plan, &end, &mut written)?;
            }
        }
        // Who wants no body has all it wants.
        over |= self.plan.head_only && self.outlet.begun();
        if over && !self.caller.spoken {
            // What is still to come of its body is nobody's.
            self.caller.session.set_keepalive(None);
        }
        self.write(forwarder, passage, written, over).await?;
        Ok(over)
    }

    /// A message, and those that have come with it.
    fn messages(
        &mut self,
        first: Message,
        passage: &mut Passage,
        written: &mut Written,
    ) -> std::result::Result<(), Trouble> {
        passage.exchange.says_message();
        self.outlet.message(self.plan, first, written)?;
        while written.body.len() < WRITE_BYTES {
            let Some(message) = self.receiving.ready()? else {
                break;
            };
            passage.exchange.says_message();
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
