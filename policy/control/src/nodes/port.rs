//! The port of an installation: gRPC for nodes and the HTTP API, over TLS 1.3 with certificates of the built-in authority.
//!
//! Promises: who shows a certificate is verified, is of this domain, is not revoked, and is a [`NodePeer`] in the extensions of what it
//! asks; without one only `Join` is answered, and the HTTP API to the admin credential. A connection lives no longer than the certificate
//! it was made with, and ends when that is revoked. Connections, handshakes, streams and heads are bounded; those without a certificate
//! are short. Not here: what nodes ask for beside certificates; that router is handed in.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tollgate_policy::credentials::certificate;
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_proto::Announcement;
use tollgate_proto::wire::identity_server::IdentityServer;
use tonic::Status;

use super::identity::{Certificates, is_revoked, revoked};
use crate::Control;
use crate::ca::Ca;
use crate::http::{
    ACCEPT_PAUSE, Administration, CONNECTION_TIMEOUT, HEAD_LIST, HEAD_TIMEOUT, RESETS,
    SHUTDOWN_TIMEOUT, brief,
};

/// Connections of nodes at once; each has one or two.
const NODES: usize = 4096;
/// Connections without a certificate at once.
const STRANGERS: usize = 64;
/// Handshakes at once; more wait in the backlog of the socket.
const HANDSHAKES: usize = 256;
/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls at once on a node's connection.
const STREAMS: u32 = 64;
/// How often a silent connection of a node is asked whether it lives, and how long an answer may take.
const PING: Duration = Duration::from_secs(10);
/// What calls get to end once their connection has to.
const PARTING: Duration = Duration::from_secs(5);
/// Bytes of a request for a certificate.
const LARGEST: usize = 16 * 1024;

/// Everything a node speaks is below here.
const WIRE: &str = "/tollgate.control.v1.";
/// The one service that is open to who has no certificate.
const IDENTITY: &str = "/tollgate.control.v1.Identity/";

/// Who is on the other end: in the extensions of every gRPC request that came with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePeer(pub WorkloadId);

/// What all connections share.
struct Port {
    control: Control,
    ca: Arc<Ca>,
    administration: Administration,
    grpc: TowerToHyperService<Router>,
    nodes: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// Moves whenever open connections have to look whether they still may be.
struct Signals {
    revoked: watch::Receiver<u64>,
    ending: watch::Receiver<bool>,
}

impl Clone for Signals {
    fn clone(&self) -> Self {
        Self {
            revoked: self.revoked.clone(),
            ending: self.ending.clone(),
        }
    }
}

/// Serves until `shutdown` completes. `grpc` answers what nodes ask for; `Identity` is added to it here.
///
/// # Errors
/// The listener cannot be used by the runtime, or the authority can make no certificate.
pub async fn serve(
    listener: std::net::TcpListener,
    control: Control,
    ca: Arc<Ca>,
    grpc: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    ca.tls().map_err(io::Error::other)?;
    // A second port on the same control plane has the same authority.
    let _same = control.inner.ca.set(Arc::clone(&ca));
    let (ended, ending) = watch::channel(false);
    let (again, looked) = watch::channel(0);
    let announcements = control.inner.announcements.subscribe();
    let mut connections = JoinSet::new();
    connections.spawn(watch_revocations(announcements, again));
    let signals = Signals {
        revoked: looked,
        ending,
    };
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let port = Arc::new(Port::new(control, ca, grpc));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&handshakes).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((stream, peer)) => {
                    let (port, signals) = (Arc::clone(&port), signals.clone());
                    connections.spawn(port.connection(stream, peer, permit.ok(), signals));
                }
                Err(error) => {
                    tracing::warn!(%error, "the port for nodes cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    ended.send_replace(true);
    drop(signals);
    let rest = async { while connections.join_next().await.is_some() {} };
    // Dropping the set ends what is still running then.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await;
    Ok(())
}

/// One look-out for all connections.
async fn watch_revocations(
    mut announcements: broadcast::Receiver<Announcement>,
    again: watch::Sender<u64>,
) {
    loop {
        tokio::select! {
            () = again.closed() => return,
            announced = announcements.recv() => match announced {
                Ok(Announcement::Revoked { .. } | Announcement::Everything { .. })
                | Err(broadcast::error::RecvError::Lagged(_)) => {
                    again.send_modify(|count| *count += 1);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

impl Port {
    fn new(control: Control, ca: Arc<Ca>, grpc: Router) -> Self {
        let identity = Certificates::new(control.clone(), Arc::clone(&ca));
        let identity = IdentityServer::new(identity).max_decoding_message_size(LARGEST);
        let grpc = grpc.route_service(&format!("{IDENTITY}{{method}}"), identity);
        let own = WorkloadId::new(ca.domain(), Kind::Control, "");
        let own = own.ok().map(|id| id.dns_name());
        let hosts = ca.hosts().iter().cloned().chain(own).collect();
        Self {
            administration: Administration::new(control.clone(), hosts),
            control,
            ca,
            grpc: TowerToHyperService::new(grpc),
            nodes: Arc::new(Semaphore::new(NODES)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        handshaking: Option<OwnedSemaphorePermit>,
        signals: Signals,
    ) {
        let _best_effort = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let config = match self.ca.tls() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "nobody can be served at the port for nodes");
                return;
            }
        };
        let shaking = TlsAcceptor::from(config).accept(stream);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%remote, %error, "a handshake failed at the port for nodes");
                return;
            }
            Err(_) => return,
        };
        let Ok(node) = self.node_of(&stream) else {
            tracing::warn!(%remote, "a certificate that names no node of this domain was refused");
            return;
        };
        let seats = if node.is_some() {
            &self.nodes
        } else {
            &self.strangers
        };
        let Ok(_seat) = Arc::clone(seats).try_acquire_owned() else {
            tracing::warn!(%remote, "too many connections to the port for nodes");
            return;
        };
        drop(handshaking);
        let about = Arc::new(About {
            local,
            remote,
            node: node.as_ref().map(|(id, _)| id.clone()),
        });
        match node {
            None => self.serve_stranger(stream, about).await,
            Some((id, ends)) => self.serve_node(stream, about, (id, ends), signals).await,
        }
    }

    /// Who the certificate names and when it ends; `None` where none was shown.
    fn node_of(
        &self,
        stream: &TlsStream<TcpStream>,
    ) -> Result<Option<(WorkloadId, Timestamp)>, NoNode> {
        let (_, session) = stream.get_ref();
        let Some([leaf, ..]) = session.peer_certificates() else {
            return Ok(None);
        };
        let (id, ends) = read(leaf).ok_or(NoNode)?;
        if id.domain() != self.ca.domain() {
            return Err(NoNode);
        }
        Ok(Some((id, ends)))
    }

    async fn serve_stranger(self: Arc<Self>, stream: TlsStream<TcpStream>, about: Arc<About>) {
        let service = service_fn(move |request| {
            let (port, about) = (Arc::clone(&self), Arc::clone(&about));
            async move { port.answer(request, &about).await }
        });
        let server = brief();
        let serving = server.serve_connection(TokioIo::new(stream), service);
        // What goes wrong on a connection is the peer's affair.
        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
    }

    async fn serve_node(
        self: Arc<Self>,
        stream: TlsStream<TcpStream>,
        about: Arc<About>,
        (id, ends): (WorkloadId, Timestamp),
        signals: Signals,
    ) {
        let over = self.over(id, ends, signals);
        let service = {
            let port = Arc::clone(&self);
            service_fn(move |request| {
                let (port, about) = (Arc::clone(&port), Arc::clone(&about));
                async move { port.answer(request, &about).await }
            })
        };
        let server = lasting();
        let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = serving.as_mut() => return,
            () = over => {}
        }
        serving.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(PARTING, serving).await;
    }

    /// Completes when a connection of this identity has to end.
    fn over(
        &self,
        id: WorkloadId,
        ends: Timestamp,
        mut signals: Signals,
    ) -> impl Future<Output = ()> + use<> {
        let control = self.control.clone();
        let left = ends.since(self.ca.now());
        async move {
            let revoked = async {
                while signals.revoked.changed().await.is_ok() {
                    if matches!(is_revoked(&control, &id), Ok(true)) {
                        return;
                    }
                }
                // Nothing will be revoked any more.
                std::future::pending().await
            };
            let ending = async {
                let _sender_gone = signals.ending.wait_for(|ended| *ended).await;
            };
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = revoked => {}
                () = ending => {}
            }
        }
    }

    async fn answer(
        &self,
        mut request: http::Request<Incoming>,
        about: &About,
    ) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        if !path.starts_with(WIRE) {
            return self
                .administration
                .answer(request, about.local.ip(), about.remote)
                .await;
        }
        let is_open = path.starts_with(IDENTITY);
        if let Err(status) = self.may_ask(about.node.as_ref(), is_open) {
            return Ok(status.into_http());
        }
        let extensions = request.extensions_mut();
        extensions.insert(about.remote);
        if let Some(id) = &about.node {
            extensions.insert(NodePeer(id.clone()));
        }
        self.grpc.call(request).await
    }

    fn may_ask(&self, node: Option<&WorkloadId>, is_open: bool) -> Result<(), Status> {
        match node {
            None if is_open => Ok(()),
            None => Err(Status::unauthenticated(
                "this is for nodes: show a certificate of this installation",
            )),
            Some(id) if is_revoked(&self.control, id)? => Err(revoked(id)),
            Some(_) => Ok(()),
        }
    }
}

/// Between whom a connection is.
struct About {
    local: SocketAddr,
    remote: SocketAddr,
    node: Option<WorkloadId>,
}

/// A certificate that names no node of this domain.
struct NoNode;

fn read(leaf: &CertificateDer<'_>) -> Option<(WorkloadId, Timestamp)> {
    let read = certificate::identity(leaf).ok()?;
    let id: WorkloadId = read.spiffe_id?.parse().ok()?;
    (id.kind() != Kind::Control).then_some((id, read.not_after))
}

/// How nodes are served: as long as they answer.
fn lasting() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_LIST)
        .max_pending_accept_reset_streams(usize::from(RESETS))
        .keep_alive_interval(Some(PING))
        .keep_alive_timeout(PING);
    server
}
