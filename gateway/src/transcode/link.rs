//! HTTP/2 connections to gRPC services, shared by all transcoded calls of this worker: of REST, Connect, gRPC-Web and WebSockets. Native
//! gRPC goes through the pump, whose connections are pingora's.
//!
//! Each thread has its own: a connection stays on the reactor that polls it. Several calls that find no connection wait for one
//! handshake, and for one failure. Connections are made by the same peers as the pump's (`upstream::peer`), so TLS is judged alike.
//!
//! A call that is read slowly must not hold up the others: the window of the connection is the sum of the windows of its streams.
//! Streams have connections apart from single answers: an answer is read as fast as it comes, a stream as fast as its caller reads.
//! Not here: which endpoint (`upstream`), and what is said (`call`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, OrErr, Result};
use tokio::sync::OnceCell;

use crate::upstream::pool::PoolKey;

/// Single answers that share a connection: what servers commonly allow.
const ANSWERS: usize = 100;

/// Streams that share a connection. Each may hold a window of unread messages.
const STREAMS: usize = 32;

/// Bytes a service may send of one answer before they are read.
const WINDOW: u32 = 65_535;

/// Fields of an answer's head or trailers, in bytes.
const LARGEST_HEAD: u32 = 64 * 1024;

/// What the library may keep for DATA frames that were not read. A window of messages of one byte, each in a frame of its own, costs
/// this much: less would have one slow stream end the connection of all.
const FRAME_BUDGET: usize = 3 * 1024 * 1024 * STREAMS;

/// How long a connection without calls is kept where its peer does not say.
const KEPT: Duration = Duration::from_secs(50);

/// What the calls of a connection have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// Address, TLS policy, cluster.
    pub pool: PoolKey,
    /// For streams.
    pub streams: bool,
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    sender: SendRequest<Bytes>,
    busy: AtomicUsize,
    most: usize,
    closed: AtomicBool,
    /// Milliseconds since `born`, when its last call ended.
    idle_since: AtomicU64,
    born: Instant,
    kept: Duration,
}

/// A place for one call on a connection, until dropped.
#[derive(Debug)]
pub struct Seat {
    link: Arc<Link>,
    /// The connection was there before this call.
    pub reused: bool,
}

/// The one handshake that all wait for.
type Door = Arc<OnceCell<std::result::Result<Arc<Link>, Arc<Error>>>>;

#[derive(Default)]
struct Links {
    open: HashMap<LinkKey, Vec<Arc<Link>>>,
    doors: HashMap<LinkKey, Door>,
}

thread_local! {
    static LINKS: RefCell<Links> = RefCell::default();
}

/// A place on a connection to `peer`, an open one before a new one.
///
/// # Errors
/// It cannot be connected to, or does not speak HTTP/2.
pub async fn seat(
    connector: &TransportConnector,
    peer: &HttpPeer,
    key: &LinkKey,
) -> std::result::Result<Seat, Arc<Error>> {
    loop {
        if let Some(seat) = free(key) {
            return Ok(seat);
        }
        let door =
            LINKS.with_borrow_mut(|links| links.doors.entry(key.clone()).or_default().clone());
        let opened = door
            .get_or_init(|| open(connector, peer, key))
            .await
            .clone();
        LINKS.with_borrow_mut(|links| {
            if links
                .doors
                .get(key)
                .is_some_and(|current| Arc::ptr_eq(current, &door))
            {
                links.doors.remove(key);
            }
        });
        // Full already, where many waited: again.
        if let Some(link) = Link::enter(opened?) {
            return Ok(Seat {
                link,
                reused: false,
            });
        }
    }
}

/// Closes what has been without calls for too long, or is closed already. Meant for once a second.
pub fn sweep() {
    let now = Instant::now();
    LINKS.with_borrow_mut(|links| {
        links.open.retain(|_, list| {
            list.retain(|link| !link.closed.load(Relaxed) && !link.is_stale(now));
            !list.is_empty()
        });
    });
}

/// Forgets all connections: they close when their calls are over.
pub fn clear() {
    LINKS.with_borrow_mut(|links| links.open.clear());
}

/// Connections open on this thread.
pub fn count() -> usize {
    LINKS.with_borrow(|links| links.open.values().map(Vec::len).sum())
}

fn free(key: &LinkKey) -> Option<Seat> {
    LINKS.with_borrow_mut(|links| {
        let list = links.open.get_mut(key)?;
        list.retain(|link| !link.closed.load(Relaxed));
        // The fullest that has room: what is not needed any more becomes idle.
        let fitting = list.iter().filter(|link| link.has_room());
        let link = fitting.max_by_key(|link| link.busy.load(Relaxed))?;
        let link = Link::enter(Arc::clone(link))?;
        Some(Seat { link, reused: true })
    })
}

async fn open(
    connector: &TransportConnector,
    peer: &HttpPeer,
    key: &LinkKey,
) -> std::result::Result<Arc<Link>, Arc<Error>> {
    let opened = handshake(connector, peer, key.streams).await;
    let link = opened.map_err(|error| Arc::from(error.into_up()))?;
    LINKS.with_borrow_mut(|links| {
        links
            .open
            .entry(key.clone())
            .or_default()
            .push(Arc::clone(&link));
    });
    Ok(link)
}

async fn handshake(
    connector: &TransportConnector,
    peer: &HttpPeer,
    streams: bool,
) -> Result<Arc<Link>> {
    let stream = connector.new_stream(peer).await?;
    let by_tls = !peer.sni.is_empty();
    if by_tls && !matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
        let text = "the service does not speak HTTP/2, which gRPC needs";
        return Error::e_explain(ErrorType::H2Error, text);
    }
    let most = if streams { STREAMS } else { ANSWERS };
    let window = WINDOW.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
    let handshake = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(window)
        .max_header_list_size(LARGEST_HEAD)
        .data_frame_budget(FRAME_BUDGET)
        .handshake(stream);
    let limit = peer.options.connection_timeout.unwrap_or(KEPT);
    let shaken = pingora_timeout::timeout(limit, handshake).await;
    let (sender, connection) = shaken
        .or_err(
            ErrorType::ConnectTimedout,
            "HTTP/2 was not agreed on in time",
        )?
        .or_err(ErrorType::H2Error, "HTTP/2 could not be agreed on")?;
    let link = Arc::new(Link {
        sender,
        busy: AtomicUsize::new(0),
        most,
        closed: AtomicBool::new(false),
        idle_since: AtomicU64::new(0),
        born: Instant::now(),
        kept: peer.options.idle_timeout.unwrap_or(KEPT),
    });
    let watched = Arc::downgrade(&link);
    tokio::spawn(async move {
        let _reason = connection.await;
        if let Some(link) = watched.upgrade() {
            link.closed.store(true, Relaxed);
        }
    });
    Ok(link)
}

impl Link {
    fn enter(link: Arc<Self>) -> Option<Arc<Self>> {
        if link.closed.load(Relaxed) || !link.has_room() {
            return None;
        }
        link.busy.fetch_add(1, Relaxed);
        Some(link)
    }

    fn has_room(&self) -> bool {
        // A service that allows none at all would leave everybody waiting for a connection that helps nobody.
        let allowed = self.sender.current_max_send_streams().clamp(1, self.most);
        self.busy.load(Relaxed) < allowed
    }

    fn is_stale(&self, now: Instant) -> bool {
        let idle_since = self.born + Duration::from_millis(self.idle_since.load(Relaxed));
        self.busy.load(Relaxed) == 0 && now.saturating_duration_since(idle_since) >= self.kept
    }
}

impl Seat {
    /// What requests are sent by.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.link.sender.clone()
    }

    /// No more calls on this connection: it turned out to be closed, or closing.
    pub(super) fn condemn(&self) {
        self.link.closed.store(true, Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = u64::try_from(self.link.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.link.idle_since.store(now, Relaxed);
        self.link.busy.fetch_sub(1, Relaxed);
    }
}
