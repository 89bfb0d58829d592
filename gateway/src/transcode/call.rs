//! One gRPC call to a service: messages out, messages in, and how it ended.
//!
//! Promises that flow control is respected both ways, that at most one incomplete message is held, that a call which is dropped
//! before its end is cancelled at the service, and that whatever the service does wrong comes back as a [`Failure`] of this call
//! alone. All waiting can be given up and taken up again. Not here: where it goes (`link`) and how long it may take.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};

use super::frame::{COMPRESSED, FrameError, FrameReader};
use super::link::Seat;
use super::status::{Code, Status};
use crate::forward::unsent;
use crate::upstream::Outcome;

/// Why a call did not come to a status of the service's.
#[derive(Debug)]
pub enum Failure {
    /// The service saw nothing of it, or said that it did not look: it may be sent elsewhere.
    Unseen(String),
    /// The service reset the stream.
    Reset(Reason),
    /// The connection broke.
    Broken(String),
    /// What came is not gRPC's, or too large.
    Garbage(Status),
}

impl Failure {
    /// What the caller is told: the status that gRPC has for this.
    pub fn status(&self) -> Status {
        match self {
            Self::Unseen(_) => Status::new(Code::Unavailable, "the service did not take the call"),
            Self::Reset(reason) => {
                let text = format!("the service reset the call: {reason}");
                Status::new(Code::of_reset(*reason), text)
            }
            Self::Broken(_) => {
                Status::new(Code::Unavailable, "the connection to the service broke")
            }
            Self::Garbage(status) => status.clone(),
        }
    }

    /// Whether it says nothing about the call, so that one that changes nothing may be made again. Who cancels, or asks for calm, means it.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Reset(reason) => !matches!(*reason, Reason::CANCEL | Reason::ENHANCE_YOUR_CALM),
            Self::Unseen(_) | Self::Garbage(_) => false,
        }
    }

    /// For the log.
    pub fn reason(&self) -> String {
        match self {
            Self::Unseen(why) => format!("the service did not take the call: {why}"),
            Self::Broken(why) => format!("the connection to the service broke: {why}"),
            Self::Reset(_) | Self::Garbage(_) => self.status().message.into_owned(),
        }
    }

    /// How the endpoint is blamed for it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Reset(Reason::CANCEL) => Outcome::Abandoned,
            Self::Unseen(_) | Self::Reset(_) | Self::Broken(_) | Self::Garbage(_) => {
                Outcome::Broken
            }
        }
    }

    fn of(error: &h2::Error) -> Self {
        // A stream that a GOAWAY ends is one the service says it never looked at; the same for a refused one (RFC 9113, 8.7).
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_remote() && (error.is_go_away() || refused) {
            return Self::Unseen(error.to_string());
        }
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            Some(_) | None => Self::Broken(error.to_string()),
        }
    }

    fn garbage(code: Code, text: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::Garbage(Status::new(code, text))
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        let code = match &error {
            FrameError::TooLarge { .. } => Code::ResourceExhausted,
            FrameError::Flags(_) | FrameError::Compression(_) | FrameError::Truncated => {
                Code::Internal
            }
        };
        Self::garbage(
            code,
            format!("the service's answer cannot be read: {error}"),
        )
    }
}

/// The request side of a call.
pub struct Sending {
    stream: SendStream<Bytes>,
    queued: Bytes,
    last: bool,
    ended: bool,
}

/// The answer side of a call.
pub struct Receiving {
    stage: Stage,
    frames: FrameReader,
    limit: usize,
    encoding: Option<HeaderValue>,
    seat: Seat,
}

enum Stage {
    Waiting(ResponseFuture),
    Open(RecvStream),
    /// All messages came.
    Ended(Box<End>),
    Failed,
}

/// How the service ended the call.
#[derive(Clone, Debug)]
pub struct End {
    /// Its status.
    pub status: Status,
    /// Trailing metadata.
    pub trailers: HeaderMap,
    /// It answered in one head, in which it says that nobody behind it saw the call.
    pub unsent: bool,
}

/// Sends the head of a call.
///
/// # Errors
/// The connection is closing: nothing was sent.
pub async fn open(
    seat: Seat,
    request: Request<()>,
    limit: usize,
) -> Result<(Sending, Receiving), Failure> {
    let opened = begin(seat.sender(), request).await;
    let (response, stream) = opened.map_err(|error| {
        seat.condemn();
        Failure::Unseen(error.to_string())
    })?;
    let sending = Sending {
        stream,
        queued: Bytes::new(),
        last: false,
        ended: false,
    };
    let receiving = Receiving {
        stage: Stage::Waiting(response),
        frames: FrameReader::new(limit, COMPRESSED),
        limit,
        encoding: None,
        seat,
    };
    Ok((sending, receiving))
}

async fn begin(
    sender: SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    sender.ready().await?.send_request(request, false)
}

impl Sending {
    /// Takes bytes to be sent by [`Self::flush`]. What was queued before has to be flushed.
    pub fn queue(&mut self, bytes: Bytes, last: bool) {
        debug_assert!(self.queued.is_empty() && !self.last);
        self.queued = bytes;
        self.last = last;
    }

    /// Whether there is nothing to flush.
    pub fn is_idle(&self) -> bool {
        self.queued.is_empty() && (!self.last || self.ended)
    }

    /// Sends what is queued, as the service takes it. Pending for ever when it takes no more: the answer tells why.
    pub async fn flush(&mut self) {
        if poll_fn(|cx| self.poll_flush(cx)).await.is_none() {
            self.ended = true;
            std::future::pending::<()>().await;
        }
    }

    fn poll_flush(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<()>> {
        use std::task::Poll;
        while !self.queued.is_empty() {
            self.stream.reserve_capacity(self.queued.len());
            let capacity = match std::task::ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(_)) | None => return Poll::Ready(None),
            };
            let piece = self.queued.split_to(capacity.min(self.queued.len()));
            let end = self.last && self.queued.is_empty();
            if self.stream.send_data(piece, end).is_err() {
                return Poll::Ready(None);
            }
            self.ended |= end;
        }
        if self.last && !self.ended {
            self.ended = true;
            if self.stream.send_data(Bytes::new(), true).is_err() {
                return Poll::Ready(None);
            }
        }
        Poll::Ready(Some(()))
    }

    /// Tells the service that nobody waits for its answer any more.
    pub fn cancel(&mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }
}

impl Receiving {
    /// The initial metadata. Where the answer is nothing but trailers, [`Self::message`] has the end at once.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn head(&mut self) -> Result<HeaderMap, Failure> {
        let Stage::Waiting(response) = &mut self.stage else {
            return Ok(HeaderMap::new());
        };
        let answered = response.await;
        self.stage = Stage::Failed;
        let (mut head, body) = answered.map_err(|error| Failure::of(&error))?.into_parts();
        let unsent = head.headers.remove(&unsent::FIELD).is_some();
        let content_type = head.headers.get(http::header::CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
        if is_grpc && let Some(status) = Status::read(&head.headers) {
            self.stage = Stage::Ended(Box::new(End {
                status,
                trailers: head.headers,
                unsent,
            }));
            return Ok(HeaderMap::new());
        }
        if head.status != http::StatusCode::OK {
            let text = format!(
                "the service answered with HTTP status {}",
                head.status.as_u16()
            );
            return Err(Failure::garbage(Code::of_http(head.status.as_u16()), text));
        }
        if !is_grpc {
            let text = format!("the service answered with content type {content_type:?}");
            return Err(Failure::garbage(Code::Unknown, text));
        }
        self.encoding = head.headers.get("grpc-encoding").cloned();
        self.stage = Stage::Open(body);
        Ok(head.headers)
    }

    /// The next message, decompressed; `None` once the call has ended.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn message(&mut self) -> Result<Option<Message>, Failure> {
        loop {
            if let Some(message) = self.ready()? {
                return Ok(Some(message));
            }
            let Stage::Open(body) = &mut self.stage else {
                return match &self.stage {
                    Stage::Ended(_) => Ok(None),
                    _ => Err(Failure::garbage(Code::Internal, "the call has ended")),
                };
            };
            match body.data().await {
                Some(Ok(data)) => {
                    // What was taken is parsed before more is: giving the window back here bounds what is held.
                    let _stream_over = body.flow_control().release_capacity(data.len());
                    self.frames.feed(data);
                }
                Some(Err(error)) => return Err(Failure::of(&error)),
                None => {
                    let trailers = body.trailers().await.map_err(|error| Failure::of(&error))?;
                    self.stage = Stage::Ended(Box::new(self.ended(trailers)?));
                }
            }
        }
    }

    /// Whether the service has not answered yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting(_))
    }

    /// No more calls on this connection, which may be dead.
    pub(super) fn condemn(&self) {
        self.seat.condemn();
    }

    /// A message that has come already, if there is one.
    ///
    /// # Errors
    /// As [`Self::message`].
    pub fn ready(&mut self) -> Result<Option<Message>, Failure> {
        let Some(frame) = self.frames.take()? else {
            return Ok(None);
        };
        let compressed = frame.flags & COMPRESSED != 0;
        if compressed {
            readable(self.encoding.as_ref())?;
        }
        let bytes = frame.message(self.limit)?;
        Ok(Some(Message { bytes, compressed }))
    }

    /// How the service ended the call, once [`Self::message`] said that it has.
    pub fn end(&mut self) -> Option<End> {
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Ended(end) => Some(*end),
            other => {
                self.stage = other;
                None
            }
        }
    }

    fn ended(&self, trailers: Option<HeaderMap>) -> Result<End, Failure> {
        let trailers = trailers.unwrap_or_default();
        let Some(status) = Status::read(&trailers) else {
            self.frames.end()?;
            let text = "the service ended the call without a status";
            return Err(Failure::garbage(Code::Unknown, text));
        };
        if status.is_ok() {
            self.frames.end()?;
        }
        Ok(End {
            status,
            trailers,
            unsent: false,
        })
    }
}

/// A message of an answer.
#[derive(Clone, Debug)]
pub struct Message {
    /// On the wire, decompressed.
    pub bytes: Bytes,
    /// The service had compressed it.
    pub compressed: bool,
}

/// Whether a compressed message can be read. A service may compress without having been asked, and without saying how.
fn readable(encoding: Option<&HeaderValue>) -> Result<(), Failure> {
    match encoding.map(HeaderValue::as_bytes) {
        None | Some(b"gzip" | b"identity") => Ok(()),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            let text = format!("the service compressed its answer with {other}, not with gzip");
            Err(Failure::garbage(Code::Internal, text))
        }
    }
}

#[cfg(test)]
mod tests;
