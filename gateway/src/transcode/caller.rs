//! The caller's side of a conversation: what it sends, and that it is still there.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::conversation::{Trouble, gone};
use super::inlet::Inlet;
use crate::denial::Denial;
use crate::forward::passage::Passage;
use crate::forward::watch;

/// The caller's side of a conversation.
pub(super) struct Caller<'c> {
    /// What it is connected by.
    pub(super) session: &'c mut Session,
    /// What it sends, as messages.
    pub(super) inlet: Inlet,
    /// Its body has been read.
    pub(super) spoken: bool,
    /// Bytes its body may have, of a stream too. Of a WebSocket nobody knows the end.
    pub(super) most: u64,
}

impl Caller<'_> {
    /// The next bytes of the caller where more are `wanted`; else only its leaving ends this.
    pub(super) async fn hear(&mut self, wanted: bool) -> Result<Option<Bytes>> {
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
    pub(super) fn heard(
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
        passage
            .exchange
            .receives(piece.as_deref().unwrap_or_default());
        if !upgraded && passage.exchange.body_received > self.most {
            return Err(Denial::BodyTooLarge.into());
        }
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
