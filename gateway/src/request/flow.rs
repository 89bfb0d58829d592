//! What flows through a call that goes on: bytes and messages each way, and since when. Counted by the task that serves it, read by whoever
//! judges it again; a message costs an addition and a store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Exchange;
use crate::forward::messages::Messages;

/// How the messages of a call are told apart, each way.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    /// The caller's.
    pub(crate) request: Messages,
    /// The service's.
    pub(crate) response: Messages,
}

impl Spoken {
    /// By whoever turns them from one protocol into another.
    pub(crate) fn told() -> Self {
        Self {
            request: Messages::Told(0),
            response: Messages::Told(0),
        }
    }

    fn is_stream(&self) -> bool {
        !matches!(
            (&self.request, &self.response),
            (Messages::None, Messages::None)
        )
    }
}

/// A call that goes on, as its own task sees it.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its messages.
    pub(crate) spoken: Spoken,
    /// What the judge sees of it.
    pub(crate) flow: std::sync::Arc<Flow>,
}

/// How much has flowed.
#[derive(Debug)]
pub(crate) struct Flow {
    began: Instant,
    /// It is a stream of messages, whose time counts; others are long answers, or long bodies.
    is_stream: bool,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    request_messages: AtomicU64,
    response_messages: AtomicU64,
}

/// What a stream came to; nothing for what is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Streamed {
    /// Whole seconds it has been open.
    pub(crate) seconds: u64,
    /// The caller's messages.
    pub(crate) request_messages: u64,
    /// The service's messages.
    pub(crate) response_messages: u64,
}

impl Flow {
    /// It begins now.
    pub(crate) fn new(spoken: &Spoken) -> Self {
        Self {
            began: Instant::now(),
            is_stream: spoken.is_stream(),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            request_messages: AtomicU64::new(0),
            response_messages: AtomicU64::new(0),
        }
    }

    /// Bytes of bodies, of the caller and of the service.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        (read(&self.request_bytes), read(&self.response_bytes))
    }

    /// What it has come to by now.
    pub(crate) fn streamed(&self) -> Streamed {
        if !self.is_stream {
            return Streamed::default();
        }
        Streamed {
            seconds: self.began.elapsed().as_secs(),
            request_messages: self.request_messages.load(Ordering::Relaxed),
            response_messages: self.response_messages.load(Ordering::Relaxed),
        }
    }

    /// Messages both ways.
    pub(crate) fn messages(&self) -> u64 {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        read(&self.request_messages).saturating_add(read(&self.response_messages))
    }
}

impl Stream {
    /// What it came to.
    pub(crate) fn streamed(&self) -> Streamed {
        self.flow.streamed()
    }
}

impl Exchange {
    /// More of the request's body.
    pub(crate) fn receives(&mut self, bytes: &[u8]) {
        self.body_received += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Some(stream) = &mut self.stream {
            stream.spoken.request.pass(bytes);
            let flow = &stream.flow;
            let messages = stream.spoken.request.count();
            flow.request_messages.store(messages, Ordering::Relaxed);
            flow.request_bytes
                .store(self.body_received, Ordering::Relaxed);
        }
    }

    /// More of the answer's body.
    pub(crate) fn sends(&mut self, bytes: &[u8]) {
        self.body_sent += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Some(stream) = &mut self.stream {
            stream.spoken.response.pass(bytes);
            let flow = &stream.flow;
            let messages = stream.spoken.response.count();
            flow.response_messages.store(messages, Ordering::Relaxed);
            flow.response_bytes.store(self.body_sent, Ordering::Relaxed);
        }
    }

    /// The caller's next message, where it was told apart already.
    pub(crate) fn hears_message(&mut self) {
        if let Some(stream) = &mut self.stream
            && let Messages::Told(count) = &mut stream.spoken.request
        {
            *count += 1;
            stream
                .flow
                .request_messages
                .store(*count, Ordering::Relaxed);
        }
    }

    /// The service's next message, where it was told apart already.
    pub(crate) fn says_message(&mut self) {
        if let Some(stream) = &mut self.stream
            && let Messages::Told(count) = &mut stream.spoken.response
        {
            *count += 1;
            stream
                .flow
                .response_messages
                .store(*count, Ordering::Relaxed);
        }
    }
}
