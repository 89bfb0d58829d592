//! Accepting connections and bringing them to the first request.
//!
//! The order is the order of cost: permits → PROXY protocol → TLS → first bytes → HTTP/1.1 or HTTP/2. Promises: a lack of
//! descriptors does not spin, and what was accepted before a drain is served. Not here: what follows the first request's head.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::{ALPN, SocketDigest};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Semaphore;
use tollgate_policy::settings::{DoorLimits, Network};

use super::drain::{self, Drain};
use super::head::{self, Arrival, Expected};
use super::permits::{AddressPermit, Permits, listener_permit};
use super::proxy_protocol;
use super::socket::{Accepted, Listener};
use super::stream::{Connection, Socket, Transport};
use super::tls::TlsKeys;
use super::{h1, h2, mutual};
use crate::cost::{self, Account};
use crate::denial::Denial;
use crate::descriptors;
use crate::telemetry::Metrics;

/// Told of every refusal at the door (the client's address where it has one, and why); gives the complete HTTP/1.1 answer, with
/// `connection: close`. One call does both, so that the record and the answer bear the same id.
pub type RefusalHook = Arc<dyn Fn(Option<SocketAddr>, &Denial) -> Vec<u8> + Send + Sync>;

/// Pause after an accept that failed for lack of descriptors or memory; the listening socket stays readable, so without
/// it the loop would burn the core that is needed to close something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections taken from the queue after the drain began: more than a queue holds by default would be a flood.
const QUEUE_DRAIN: usize = 4096;

/// What all listeners and workers share.
pub struct Door {
    /// Limits of what strangers may do.
    pub limits: DoorLimits,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// Who wants to know of refusals, and how they look on the wire.
    pub on_refused: RefusalHook,
    /// What connections cost until they are some API's.
    pub nobody: Arc<Account>,
    permits: Arc<Permits>,
}

impl Door {
    /// With nobody inside.
    pub fn new(
        limits: DoorLimits,
        metrics: Arc<Metrics>,
        nobody: Arc<Account>,
        on_refused: RefusalHook,
    ) -> Self {
        Self {
            limits,
            metrics,
            on_refused,
            nobody,
            permits: Arc::default(),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Door")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What the connections of one listener share on one worker.
struct Site<A> {
    name: Arc<str>,
    tls: Option<Arc<TlsKeys>>,
    proxy_protocol_from: Vec<Network>,
    app: Arc<A>,
    door: Arc<Door>,
    open: Arc<AtomicUsize>,
    handshakes: Semaphore,
    /// Never looked at, so that a clone of it still tells of a drain that began before.
    shutdown: ShutdownWatch,
}

/// Accepts and serves connections on the current runtime until the drain begins. Connections go on as tasks of their
/// own; [`Drain::wait_idle`] tells when they are done.
pub async fn serve<A>(
    listener: Listener,
    name: Arc<str>,
    tls: Option<Arc<TlsKeys>>,
    proxy_protocol_from: Vec<Network>,
    app: Arc<A>,
    door: Arc<Door>,
    drain: Drain,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let site = Arc::new(Site {
        open: door.permits.listener(&name),
        handshakes: Semaphore::new(door.limits.handshakes),
        shutdown: drain.watch(),
        name,
        tls,
        proxy_protocol_from,
        app,
        door,
    });
    let mut draining = drain.watch();
    loop {
        if drain.draining() {
            break;
        }
        let accepted = tokio::select! {
            biased;
            () = drain::started(&mut draining) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((accepted, peer)) => welcome(&site, accepted, peer, &drain),
            Err(error) => pause(&error, &site.name, &site.door.metrics).await,
        }
    }
    // Closing the socket resets what waits in its queue: serve that first.
    for _ in 0..QUEUE_DRAIN {
        let Ok((accepted, peer)) = listener.accept_waiting() else {
            break;
        };
        welcome(&site, accepted, peer, &drain);
    }
}

/// Accepting failed: waits where the next try would fail as well.
async fn pause(error: &io::Error, listener: &str, metrics: &Metrics) {
    // Of one connection that was gone before we took it: the next one may be fine.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return;
    }
    metrics.connection_refused(listener, "accept_failed");
    if descriptors::may_tell() {
        tracing::warn!(listener, %error, "cannot accept connections; trying again");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Lets a connection in if there is room, on a task of its own.
fn welcome<A>(site: &Arc<Site<A>>, accepted: Accepted, peer: Option<SocketAddr>, drain: &Drain)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let Some(permit) = listener_permit(&site.open, site.door.limits.connections) else {
        site.door.metrics.connection_refused(&site.name, "permits");
        return;
    };
    let behind_proxy = peer.is_some_and(|peer| {
        site.proxy_protocol_from
            .iter()
            .any(|network| network.contains(peer.ip()))
    });
    // A proxy's own address stands for all its clients; theirs is known after its header.
    let address_permit = if behind_proxy {
        Ok(None)
    } else {
        address_permit(site, peer)
    };
    let Ok(address_permit) = address_permit else {
        return;
    };
    let open = Open::new(site, drain);
    let site = Arc::clone(site);
    let nobody = Arc::clone(&site.door.nobody);
    tokio::spawn(async move {
        let _kept = (permit, open);
        let entered = enter(&site, accepted, peer, behind_proxy, address_permit);
        cost::timed(&nobody, true, entered).await;
    });
}

/// Tells metrics and drain that a connection is open, until dropped.
struct Open {
    metrics: Arc<Metrics>,
    name: Arc<str>,
    _guard: drain::ConnectionGuard,
}

impl Open {
    fn new<A>(site: &Site<A>, drain: &Drain) -> Self {
        site.door.metrics.connection_opened(&site.name);
        Self {
            metrics: Arc::clone(&site.door.metrics),
            name: Arc::clone(&site.name),
            _guard: drain.connection(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connection_closed(&self.name);
    }
}

struct NoRoom;

fn address_permit<A>(
    site: &Site<A>,
    peer: Option<SocketAddr>,
) -> Result<Option<AddressPermit>, NoRoom> {
    let Some(peer) = peer else { return Ok(None) };
    let limit = site.door.limits.connections_per_address;
    let permit = site.door.permits.address(peer.ip(), limit);
    if permit.is_none() {
        site.door
            .metrics
            .connection_refused(&site.name, "per_address");
        return Err(NoRoom);
    }
    Ok(permit)
}

/// One connection, from accept to close. The large futures are boxed: a silent connection shall not hold their room.
async fn enter<A>(
    site: &Site<A>,
    mut accepted: Accepted,
    mut peer: Option<SocketAddr>,
    behind_proxy: bool,
    mut address: Option<AddressPermit>,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let digest = SocketDigest::from_raw_fd(accepted.as_raw_fd());
    let mut ahead = BytesMut::new();
    if behind_proxy {
        let limit = site.door.limits.head_timeout;
        let header = Box::pin(proxy_protocol::read(&mut accepted, limit)).await;
        let Ok((client, rest)) = header else {
            site.door
                .metrics
                .connection_refused(&site.name, "proxy_protocol");
            return;
        };
        ahead = rest;
        // A check by the proxy itself carries no client: then it is the peer.
        peer = client.or(peer);
        let Ok(permit) = address_permit(site, peer) else {
            return;
        };
        address = permit;
    }
    if let Some(peer) = peer {
        let _empty_until_now = digest.peer_addr.set(Some(PeerAddress::Inet(peer)));
    }
    let tls = match &site.tls {
        Some(tls) if tls.takes_plain() => {
            let encrypted = Box::pin(begins_tls(site, &accepted, &ahead)).await;
            Some(tls).filter(|_| encrypted)
        }
        tls => tls.as_ref(),
    };
    let socket = Socket::new(accepted, ahead, Arc::new(digest));
    let transport = match tls {
        None => Transport::Plain(socket),
        Some(tls) => match Box::pin(handshake(site, tls, socket)).await {
            Some(transport) => transport,
            None => return,
        },
    };
    first_request(site, Connection::new(transport), peer).await;
    drop(address);
}

async fn begins_tls<A>(site: &Site<A>, accepted: &Accepted, ahead: &[u8]) -> bool {
    let mut draining = site.shutdown.clone();
    mutual::begins_tls(accepted, ahead, site.door.limits.keep_alive, &mut draining).await
}

async fn handshake<A>(site: &Site<A>, tls: &TlsKeys, socket: Socket) -> Option<Transport> {
    let Some(acceptor) = tls.acceptor() else {
        let metrics = &site.door.metrics;
        metrics.connection_refused(&site.name, "no_identity");
        return None;
    };
    let handshake = async {
        // Waiting for a turn counts as handshake time: a queue that is too long must shrink.
        let _turn = site.handshakes.acquire().await;
        acceptor.tls_handshake(socket).await
    };
    let limit = site.door.limits.handshake_timeout;
    // Counted, not logged: a scanner would fill the log.
    let cause = match pingora_timeout::timeout(limit, handshake).await {
        Ok(Ok(stream)) => return Some(Transport::Tls(Box::new(stream))),
        Ok(Err(_)) => "handshake",
        Err(_) => "handshake_timeout",
    };
    site.door.metrics.connection_refused(&site.name, cause);
    None
}

async fn first_request<A>(site: &Site<A>, connection: Connection, peer: Option<SocketAddr>)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut connection = Box::new(connection);
    let alpn_h2 = matches!(connection.transport().alpn(), Some(ALPN::H2));
    let cleartext = matches!(connection.transport(), Transport::Plain(_));
    let expected = Expected {
        h2: alpn_h2 || cleartext,
    };
    let mut draining = site.shutdown.clone();
    let arrival = head::arrive(&mut connection, &site.door.limits, expected, &mut draining).await;
    match arrival {
        Arrival::Silence => {}
        Arrival::H2 => {
            Box::pin(h2::serve(
                connection,
                &site.name,
                &site.app,
                &site.door,
                &site.shutdown,
            ))
            .await;
        }
        // Whoever agreed on HTTP/2 and speaks something else would not understand an answer either.
        Arrival::Head(_) | Arrival::Refused(_) if alpn_h2 => {}
        Arrival::Head(_) | Arrival::Refused(_) => {
            let (app, door, shutdown) = (&site.app, &site.door, &site.shutdown);
            Box::pin(h1::serve(connection, arrival, peer, app, door, shutdown)).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use async_trait::async_trait;
    use pingora_core::apps::ReusedHttpStream;
    use pingora_core::protocols::http::ServerSession;

    use super::*;

    struct Nothing;

    #[async_trait]
    impl HttpServerApp for Nothing {
        async fn process_new_http(
            self: &Arc<Self>,
            _: ServerSession,
            _: &ShutdownWatch,
        ) -> Option<ReusedHttpStream> {
            None
        }
    }

    /// An idle HTTP/1.1 connection is to cost 4 KiB at most, with the kernel's and the runtime's part of it elsewhere.
    #[tokio::test]
    async fn a_silent_connection_holds_little_memory() {
        let limits = DoorLimits::default();
        let refused = Arc::new(|_: Option<SocketAddr>, _: &Denial| Vec::new());
        let door = Door::new(limits, Metrics::new(), Arc::default(), refused);
        let drain = Drain::new();
        let site = Site {
            name: Arc::from("test"),
            tls: None,
            proxy_protocol_from: Vec::new(),
            app: Arc::new(Nothing),
            door: Arc::new(door),
            open: Arc::default(),
            handshakes: Semaphore::new(1),
            shutdown: drain.watch(),
        };
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let task = size_of_val(&enter(&site, Accepted::Unix(ours), None, false, None));
        let connection = size_of::<Connection>();
        assert!(
            task + connection <= 2048,
            "task {task} + connection {connection} bytes"
        );
    }
}
