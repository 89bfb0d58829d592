//! The connection as pingora sees it.
//!
//! Promises: reads pass straight through (the parser has buffers of its own), small writes are collected until they are
//! flushed, a silent connection holds no buffer, bytes behind the current request wait here (see `fence`), and HTTP/2 frames are
//! judged as they pass (see `flood`). Not here: timeouts, reading a head.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef, TlsStream};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::fence::{BadChunk, Fence};
use super::flood::Flood;
use super::socket::Accepted;
use crate::denial::Denial;
use crate::forward::hold::poll_released;
use crate::forward::watch::{self, Watch};

/// Answers up to this size leave in one write; larger pieces are not copied at all.
const COLLECTED_BYTES: usize = 4096;

/// What one read may bring. Shared by all connections of a thread, so its size costs nothing.
const SCRATCH_BYTES: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// An accepted socket, with the bytes that were read from it too early.
pub(super) struct Socket {
    accepted: Accepted,
    /// Read with the PROXY protocol header, but not part of it.
    ahead: BytesMut,
    digest: Arc<SocketDigest>,
}

impl Socket {
    pub(super) fn new(accepted: Accepted, ahead: BytesMut, digest: Arc<SocketDigest>) -> Self {
        Self {
            accepted,
            ahead,
            digest,
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Socket")
            .field("fd", &self.accepted.as_raw_fd())
            .finish()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            take(&mut self.ahead, buf);
            return Poll::Ready(Ok(()));
        }
        match &mut self.accepted {
            Accepted::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Accepted::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.accepted {
            Accepted::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Accepted::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.accepted {
            Accepted::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Accepted::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.accepted {
            Accepted::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Accepted::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        let _gone = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        self.accepted.as_raw_fd()
    }
}

impl Ssl for Socket {}
impl Peek for Socket {}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

/// What carries the bytes.
#[derive(Debug)]
pub(super) enum Transport {
    /// Cleartext.
    Plain(Socket),
    /// TLS. Boxed: its state is large, and cleartext connections shall not pay for it.
    Tls(Box<TlsStream<Socket>>),
}

impl Transport {
    /// The protocol agreed on in the TLS handshake.
    pub(super) fn alpn(&self) -> Option<ALPN> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.selected_alpn_proto(),
        }
    }

    fn as_read(&mut self) -> Pin<&mut (dyn AsyncRead + Unpin)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream),
        }
    }

    fn as_write(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream),
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    /// Read, but not yet given to the parser.
    held: BytesMut,
    fence: Fence,
    /// Written, but not yet sent.
    collected: Vec<u8>,
    /// A request was given to the parser and nothing has been written since.
    unanswered: bool,
    /// Present on HTTP/2.
    flood: Option<Box<Flood>>,
}

impl Connection {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            held: BytesMut::new(),
            fence: Fence::Open,
            collected: Vec::new(),
            unanswered: false,
            flood: None,
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Bytes received and not yet given on.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Receives more into [`Self::held`]. Zero is the end of the stream. Allocates only what has arrived.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(self.transport.as_read().poll_read(cx, &mut buffer))?;
            self.held.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Takes the head off what was received, and lets the parser read no further than the end of its body.
    pub(super) fn begin_request(&mut self, head_bytes: usize, fence: Fence) -> BytesMut {
        self.fence = fence;
        self.unanswered = true;
        if head_bytes == self.held.len() {
            return std::mem::take(&mut self.held);
        }
        self.held.split_to(head_bytes)
    }

    /// Between requests: buffers that are empty are given back.
    pub(super) fn rest(&mut self) {
        self.fence = Fence::Open;
        if self.collected.is_empty() {
            self.collected = Vec::new();
        }
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Drops bytes that nobody will read.
    pub(super) fn forget_held(&mut self) {
        self.held.clear();
    }

    /// From here on this connection speaks HTTP/2, from its preface.
    pub(super) fn speak_h2(&mut self, flood: Box<Flood>) {
        self.flood = Some(flood);
    }

    fn poll_read_h2(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.held.is_empty() {
            ready!(self.transport.as_read().poll_read(cx, buf))?;
        } else {
            take(&mut self.held, buf);
        }
        let received = buf.filled().get(before..).unwrap_or_default();
        match &mut self.flood {
            Some(flood) => Poll::Ready(flood.received(received)),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Sends what is collected.
    fn poll_send_collected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.collected.is_empty() {
            ready!(poll_released(cx));
            let sent = ready!(self.transport.as_write().poll_write(cx, &self.collected))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.collected.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// Moves as much as fits.
fn take(from: &mut BytesMut, buf: &mut ReadBuf<'_>) {
    let length = from.len().min(buf.remaining());
    buf.put_slice(from.get(..length).unwrap_or_default());
    from.advance(length);
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flood.is_some() {
            return this.poll_read_h2(cx, buf);
        }
        if watch::is_cut() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !this.held.is_empty() {
            let window = this.held.len().min(buf.remaining());
            let window = this.held.get(..window).unwrap_or_default();
            let passed = this.fence.pass(window).map_err(BadChunk::end_request)?;
            buf.put_slice(this.held.get(..passed).unwrap_or_default());
            this.held.advance(passed);
            // The next request is here already: this one has nothing to read any more, and its parser only asks
            // in order to learn of a closed connection. Its own work wakes it; there is nothing to register.
            return if passed == 0 {
                Poll::Pending
            } else {
                Poll::Ready(Ok(()))
            };
        }
        let before = buf.filled().len();
        ready!(this.transport.as_read().poll_read(cx, buf))?;
        let received = buf.filled().get(before..).unwrap_or_default();
        if received.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let passed = this.fence.pass(received).map_err(BadChunk::end_request)?;
        if passed < received.len() {
            this.held
                .extend_from_slice(received.get(passed..).unwrap_or_default());
            buf.set_filled(before + passed);
        }
        if passed == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(flood) = &mut this.flood {
            let sent = ready!(this.transport.as_write().poll_write(cx, buf))?;
            flood.sent(buf.get(..sent).unwrap_or_default())?;
            return Poll::Ready(Ok(sent));
        }
        this.unanswered = false;
        loop {
            if this.collected.len() + buf.len() <= COLLECTED_BYTES {
                this.collected.extend_from_slice(buf);
                return Poll::Ready(Ok(buf.len()));
            }
            ready!(poll_released(cx));
            let pieces = [IoSlice::new(&this.collected), IoSlice::new(buf)];
            let sent = ready!(this.transport.as_write().poll_write_vectored(cx, &pieces))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let collected_sent = sent.min(this.collected.len());
            this.collected.drain(..collected_sent);
            if sent > collected_sent {
                return Poll::Ready(Ok(sent - collected_sent));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(flood) = &mut this.flood else {
            let first = bufs.iter().find(|piece| !piece.is_empty());
            return self.poll_write(cx, first.map_or(&[], |piece| piece));
        };
        let mut sent = ready!(this.transport.as_write().poll_write_vectored(cx, bufs))?;
        let total = sent;
        for piece in bufs {
            let part = piece.len().min(sent);
            flood.sent(piece.get(..part).unwrap_or_default())?;
            sent -= part;
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        self.flood.is_some()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_collected(cx))?;
        self.transport.as_write().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_collected(cx))?;
        self.transport.as_write().poll_shutdown(cx)
    }
}

impl Drop for Connection {
    /// An answer that failed half-way is dropped with its beginning still collected: the client shall see that much. A request
    /// that was lost by a panic is answered here, by the last one who has the connection.
    fn drop(&mut self) {
        if self.unanswered && std::thread::panicking() {
            self.collected = Denial::Internal.http1_answer(Watch::current_id().as_str());
        }
        if !self.collected.is_empty() {
            let mut cx = Context::from_waker(Waker::noop());
            let _best_effort = Pin::new(self).poll_flush(&mut cx);
        }
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        let _gone = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        match &self.transport {
            Transport::Plain(stream) => stream.id(),
            Transport::Tls(stream) => stream.id(),
        }
    }
}

impl Ssl for Connection {
    fn get_ssl(&self) -> Option<&TlsRef> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => stream.get_ssl(),
        }
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => stream.get_ssl_digest(),
        }
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        if self.flood.is_some() {
            Some(ALPN::H2)
        } else {
            self.transport.alpn()
        }
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        match &self.transport {
            Transport::Plain(_) => Vec::new(),
            Transport::Tls(stream) => stream.get_timing_digest(),
        }
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        match &self.transport {
            Transport::Plain(stream) => stream.get_socket_digest(),
            Transport::Tls(stream) => stream.get_socket_digest(),
        }
    }
}

impl Peek for Connection {}
