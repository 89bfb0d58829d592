//! One HTTP/2 stream as pingora's proxy sees it: a request read, an answer written.
//!
//! pingora's own HTTP/2 session can only come from pingora's own accepting, which answers some requests itself. This one takes any
//! stream the library gives us. It stops reading when the request is cut (`forward::watch`), and a stream that is dropped by a
//! panic before its answer began says so with a 500. Promise: an answer that is not complete is reset, never ended cleanly.
//! Not here: informational answers (the library cannot send them), request trailers (nobody may act on them).

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;

use crate::denial::Denial;
use crate::forward::hold::poll_released;
use crate::forward::watch::{self, Watch};

/// A request body up to this size can be sent again to another endpoint.
const REPLAY_BYTES: usize = 64 * 1024;

type Messages = Box<dyn futures_core::Stream<Item = Result<Bytes>> + Unpin + Send + Sync>;

/// A stream from its request's head to the end of its answer.
pub(super) struct H2Session {
    head: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    sending: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    /// The end of the answer was sent.
    ended: bool,
    received: usize,
    sent: usize,
    replay: Replay,
    digest: Arc<Digest>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

/// What of the request body is kept for another attempt.
#[derive(Debug)]
enum Replay {
    Off,
    Kept(BytesMut),
    TooLarge,
}

impl H2Session {
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        digest: Arc<Digest>,
    ) -> Self {
        let (head, body) = request.into_parts();
        Self {
            head: head.into(),
            body,
            respond,
            sending: None,
            written: None,
            ended: false,
            received: 0,
            sent: 0,
            replay: Replay::Off,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>> {
        let piece = poll_fn(|cx| {
            if watch::is_cut() {
                return Poll::Ready(Err(cut()));
            }
            let piece = std::task::ready!(self.body.poll_data(cx)).transpose();
            Poll::Ready(piece.or_err(ErrorType::ReadError, "while reading the request body"))
        })
        .await?;
        if let Some(bytes) = &piece {
            self.received += bytes.len();
            self.replay.keep(bytes);
            let _stream_ended = self.body.flow_control().release_capacity(bytes.len());
        }
        Ok(piece)
    }

    /// Pending until the client resets the stream or the request is cut.
    async fn closed(&mut self) -> Box<Error> {
        poll_fn(|cx| {
            if watch::is_cut() {
                return Poll::Ready(cut());
            }
            let reset = match &mut self.sending {
                Some(sending) => sending.poll_reset(cx),
                None => self.respond.poll_reset(cx),
            };
            reset.map(|reason| match reason {
                Ok(reason) => Error::explain(
                    ErrorType::ConnectionClosed,
                    format!("the client reset the stream: {reason}"),
                ),
                Err(error) => {
                    Error::because(ErrorType::ConnectionClosed, "the client is gone", error)
                }
            })
        })
        .await
    }

    fn send_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        // The library sends one head per stream: interim ones would take its place.
        if self.written.is_some() || head.status.is_informational() {
            return Ok(());
        }
        if !head.headers.contains_key(DATE) {
            head.insert_header(DATE, get_cached_date())?;
        }
        // Fields of one hop have no place in HTTP/2 (RFC 9113, section 8.2.2).
        for name in [TRANSFER_ENCODING, CONNECTION, UPGRADE] {
            head.remove_header(&name);
        }
        for name in ["keep-alive", "proxy-connection"] {
            head.remove_header(name);
        }
        let parts = Response::from_parts(head.as_owned_parts(), ());
        let sending = self
            .respond
            .send_response(parts, end)
            .or_err(ErrorType::WriteError, "while writing the answer's head")?;
        self.sending = Some(sending);
        self.written = Some(head);
        self.ended = end;
        Ok(())
    }

    async fn send_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(sending) = &mut self.sending else {
            return Error::e_explain(ErrorType::H2Error, "a body before its head");
        };
        let context = "while writing the answer's body";
        while !data.is_empty() {
            sending.reserve_capacity(data.len());
            let capacity = poll_fn(|cx| sending.poll_capacity(cx)).await;
            let Some(capacity) = capacity else {
                return Error::e_explain(ErrorType::WriteError, "the client closed the stream");
            };
            let capacity = capacity.or_err(ErrorType::WriteError, context)?;
            let piece = data.split_to(capacity.min(data.len()));
            self.sent += piece.len();
            let last = end && data.is_empty();
            sending
                .send_data(piece, last)
                .or_err(ErrorType::WriteError, context)?;
            self.ended = last;
        }
        if end && !self.ended {
            sending
                .send_data(Bytes::new(), true)
                .or_err(ErrorType::WriteError, context)?;
            self.ended = true;
        }
        Ok(())
    }

    /// The answer to a request that was lost, written without waiting: nothing can be awaited any more.
    fn last_word(&mut self, denial: &Denial) {
        let id = Watch::current_id();
        let body = denial.problem(id.as_str());
        let head = Response::builder()
            .status(denial.status())
            .header("content-type", "application/problem+json")
            .header("x-request-id", id.as_str())
            .body(());
        let Ok(head) = head else { return };
        if let Ok(mut sending) = self.respond.send_response(head, false) {
            let _client_gone = sending.send_data(Bytes::from(body), true);
        }
    }
}

impl Drop for H2Session {
    fn drop(&mut self) {
        if self.written.is_none() && std::thread::panicking() {
            self.last_word(&Denial::Internal);
        }
    }
}

impl Replay {
    fn keep(&mut self, bytes: &[u8]) {
        let Self::Kept(kept) = self else { return };
        if kept.len() + bytes.len() > REPLAY_BYTES {
            *self = Self::TooLarge;
        } else {
            kept.extend_from_slice(bytes);
        }
    }
}

fn cut() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "the request was cut off").into_down()
}

/// Waits for at most `limit`, where there is one.
async fn within<T>(
    limit: Option<Duration>,
    kind: ErrorType,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    match limit {
        None => future.await,
        Some(limit) => match timeout(limit, future).await {
            Ok(result) => result,
            Err(_) => Error::e_explain(kind, "the client was too slow"),
        },
    }
}

impl fmt::Debug for H2Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("H2Session")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Session for H2Session {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let limit = self.read_timeout;
        within(limit, ErrorType::ReadTimedout, self.next_piece()).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let limit = self.drain_timeout;
        let drained = async {
            while !self.is_body_done() && self.next_piece().await?.is_some() {}
            Ok(())
        };
        within(limit, ErrorType::ReadTimedout, drained).await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        poll_fn(poll_released).await;
        self.send_head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        poll_fn(poll_released).await;
        self.send_head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        poll_fn(poll_released).await;
        let limit = self.write_timeout;
        within(limit, ErrorType::WriteTimedout, self.send_body(data, end))
            .await
            .map_err(|error| error.into_down())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        poll_fn(poll_released).await;
        if self.ended {
            return Ok(());
        }
        let Some(sending) = &mut self.sending else {
            return Error::e_explain(ErrorType::H2Error, "trailers before their head");
        };
        sending
            .send_trailers(trailers)
            .or_err(ErrorType::WriteError, "while writing the answer's trailers")?;
        self.ended = true;
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut end = false;
        for task in tasks {
            end |= match task {
                HttpTask::Header(head, end) => {
                    self.send_head(head, end).map_err(|e| e.into_down())?;
                    end
                }
                HttpTask::Body(data, end) => {
                    if let Some(data) = data.filter(|data| !data.is_empty()) {
                        self.write_body(data, end).await?;
                    }
                    end
                }
                HttpTask::UpgradedBody(..) => {
                    let text = "the service switched protocols under HTTP/2";
                    return Error::e_explain(ErrorType::InternalError, text);
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.write_trailers(*trailers).await?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if end {
            self.finish().await.map_err(|error| error.into_down())?;
        }
        Ok(end)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        if !self.ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    fn is_body_done(&mut self) -> bool {
        self.is_body_empty() || self.body.is_end_stream()
    }

    async fn finish(&mut self) -> Result<()> {
        if self.sending.is_some() && !self.ended {
            return self.send_body(Bytes::new(), true).await;
        }
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        let none = || {
            self.head
                .headers
                .get(CONTENT_LENGTH)
                .is_some_and(|it| it == "0")
        };
        self.received == 0 && (self.body.is_end_stream() || none())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_done() {
            Err(self.closed().await)
        } else {
            self.read_body_bytes().await
        }
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.received
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    /// For subrequests, which nobody makes.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        if matches!(self.replay, Replay::Off) {
            self.replay = Replay::Kept(BytesMut::new());
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        matches!(self.replay, Replay::TooLarge)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        match &self.replay {
            Replay::Kept(kept) if !kept.is_empty() => Some(kept.clone().freeze()),
            Replay::Kept(_) | Replay::Off | Replay::TooLarge => None,
        }
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
