//! Administration over HTTP: port 9911, loopback by default, described by `openapi-specs/control.yaml`.
//!
//! Promises: nothing but `/v1/health` is answered without the admin credential; answers no web page that was tricked into
//! asking; a bounded number of short connections and small bodies; a change goes on to its end even when its asker leaves.
//! Not here: TLS, and more than one operator; put a proxy with its own log-in before it for those.

mod call;
mod consumers;
mod door;
mod join_tokens;
mod keys;
mod nodes;
mod overrides;
mod ownership;
mod plans;
mod problem;
mod projects;
mod quotas;
mod reports;
mod revocations;
mod routes;
mod system;
mod terms;
mod usage;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Control;
use call::{Call, Reply};
use door::Door;
use problem::Problem;
use routes::{Operation, ROUTES};

pub use routes::served;

/// Connections at once; more wait in the backlog of the socket.
const CONNECTIONS: usize = 64;
/// Time for the head of a request.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection; a backup of a large store is the longest answer.
pub(crate) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// What running answers get after the shutdown began.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a request head.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// The same, as HTTP/2 counts it.
pub(crate) const HEAD_LIST: u32 = 16 * 1024;
/// Calls at once on a connection of HTTP/2, and those that may be reset before they were looked at.
const STREAMS: u32 = 16;
pub(crate) const RESETS: u8 = 20;
/// Pause after `accept` failed, as it does when file descriptors run out.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves administration until `shutdown` completes. `hosts` are names, besides loopback ones and the address the connection
/// came to, that a request may ask for.
///
/// # Errors
/// The listener cannot be used by the runtime.
pub async fn serve(
    listener: std::net::TcpListener,
    control: Control,
    hosts: Vec<String>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let administration = Administration::new(control, hosts);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let administration = administration.clone();
                    connections.spawn(async move {
                        connection(stream, administration).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control port cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    // Dropping the set ends what is still running then.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await;
    Ok(())
}

/// Administration as it is answered, whatever the connection came over.
#[derive(Clone)]
pub(crate) struct Administration {
    router: TowerToHyperService<Router>,
    door: Arc<Door>,
}

impl Administration {
    /// For requests that name one of `hosts`, a loopback name, or the address they came to.
    pub(crate) fn new(control: Control, hosts: Vec<String>) -> Self {
        Self {
            door: Arc::new(Door::new(control.clone(), hosts)),
            router: TowerToHyperService::new(router(control)),
        }
    }

    /// Answers a request that came to `local`, from `peer`.
    pub(crate) async fn answer(
        &self,
        mut request: http::Request<Incoming>,
        local: IpAddr,
        peer: SocketAddr,
    ) -> Result<Response<Body>, Infallible> {
        let admitted = self.door.admit(&request, local, peer.ip()).await;
        let mut response: Response<Body> = match admitted {
            Err(refusal) if reports::is_grpc(request.headers()) => refusal.into_grpc(),
            Err(refusal) => refusal.into_response(),
            Ok(()) => {
                request.extensions_mut().insert(peer);
                self.router.call(request).await?
            }
        };
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(response)
    }
}

/// How strangers are served: one request, one answer. Without keep-alive nobody holds a place by being idle.
pub(crate) fn brief() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_LIST)
        .max_pending_accept_reset_streams(usize::from(RESETS))
        .keep_alive_interval(Some(HEAD_TIMEOUT));
    server
}

async fn connection(stream: TcpStream, administration: Administration) {
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
        return;
    };
    let service = service_fn(move |request: http::Request<Incoming>| {
        let administration = administration.clone();
        async move { administration.answer(request, local.ip(), peer).await }
    });
    let server = brief();
    let serving = server.serve_connection(TokioIo::new(stream), service);
    // What goes wrong on a connection is the peer's affair.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
}

fn router(control: Control) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let operation = route.operation;
        let handler = move |State(control): State<Control>,
                            path: RawPathParams,
                            request: Request| async move {
            answer(control, operation, &path, request).await
        };
        // The table holds no method that axum does not know.
        if let Ok(filter) = MethodFilter::try_from(route.method.clone()) {
            router = router.route(route.path, on(filter, handler));
        }
    }
    router = router.route_service(reports::PATH, reports::service(control.clone()));
    router
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
        })
        .method_not_allowed_fallback(|| async {
            let what = "this is not done here";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what)
        })
        .with_state(control)
}

async fn answer(
    control: Control,
    operation: Operation,
    path: &RawPathParams,
    request: Request,
) -> Response {
    let call = match Call::read(path, request, operation.parameters()).await {
        Ok(call) => call,
        Err(problem) => return problem.into_response(),
    };
    // Not cut short where the asker leaves: between commit and announcement nothing may be lost.
    let done = tokio::spawn(async move { perform(&control, operation, &call).await }).await;
    match done {
        Ok(Ok(reply)) => reply.into_response(),
        Ok(Err(problem)) => problem.into_response(),
        Err(error) => {
            tracing::error!(%error, "an administrative act failed");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, "internal", "see the log").into_response()
        }
    }
}

type Performed<'a> = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send + 'a>>;

/// Boxed, so that its type says it may move between threads.
fn perform<'a>(control: &'a Control, operation: Operation, call: &'a Call) -> Performed<'a> {
    Box::pin(async move {
        match operation {
            Operation::Health => Ok(system::health(control)),
            Operation::ListOrganisations => projects::list_organisations(control, call),
            Operation::CreateOrganisation => projects::create_organisation(control, call).await,
            Operation::ShowOrganisation => projects::show_organisation(control, call),
            Operation::DeleteOrganisation => projects::delete_organisation(control, call).await,
            Operation::ListProjects => projects::list(control, call),
            Operation::CreateProject => projects::create(control, call).await,
            Operation::ShowProject => projects::show(control, call),
            Operation::DeleteProject => projects::delete(control, call).await,
            Operation::ListConsumers => consumers::list(control, call),
            Operation::CreateConsumer => consumers::create(control, call).await,
            Operation::ShowConsumer => consumers::show(control, call),
            Operation::ChangeConsumer => consumers::change(control, call).await,
            Operation::DeleteConsumer => consumers::delete(control, call).await,
            Operation::SuspendConsumer => consumers::suspend(control, call, true).await,
            Operation::ResumeConsumer => consumers::suspend(control, call, false).await,
            Operation::PutSubscription => consumers::subscribe(control, call).await,
            Operation::DeleteSubscription => consumers::unsubscribe(control, call).await,
            Operation::ListPlans => plans::list(control, call),
            Operation::CreatePlan => plans::create(control, call).await,
            Operation::ShowPlan => plans::show(control, call),
            Operation::DeletePlan => plans::delete(control, call).await,
            Operation::ListOverrides => overrides::list(control, call),
            Operation::PutOverride => overrides::put(control, call).await,
            Operation::DeleteOverride => overrides::delete(control, call).await,
            Operation::ListAllOverrides => overrides::list_all(control, call),
            Operation::PutSubjectOverride => overrides::put_any(control, call).await,
            Operation::DeleteSubjectOverride => overrides::delete_any(control, call).await,
            Operation::ListKeys => keys::list(control, call).await,
            Operation::CreateKey => keys::create(control, call).await,
            Operation::RotateKey => keys::rotate(control, call).await,
            Operation::RevokeKey => keys::revoke(control, call).await,
            Operation::DeleteKey => keys::delete(control, call).await,
            Operation::ListJoinTokens => join_tokens::list(control, call).await,
            Operation::CreateJoinToken => join_tokens::create(control, call).await,
            Operation::DeleteJoinToken => join_tokens::delete(control, call).await,
            Operation::ShowCa => join_tokens::show_ca(control),
            Operation::RotateCa => join_tokens::rotate_ca(control, call).await,
            Operation::ListTerms => terms::list(control, call),
            Operation::CreateTerms => terms::create(control, call).await,
            Operation::ShowTerms => terms::show(control, call),
            Operation::DeleteTerms => terms::delete(control, call).await,
            Operation::CreateVersion => terms::create_version(control, call).await,
            Operation::ListAcceptances => terms::list_acceptances(control, call).await,
            Operation::RecordAcceptance => terms::record_acceptance(control, call).await,
            Operation::ListRevocations => revocations::list(control, call).await,
            Operation::CreateRevocation => revocations::create(control, call).await,
            Operation::ListQuotas => quotas::list(control, call).await,
            Operation::ListUsage => usage::list(control, call).await,
            Operation::ListUsageSenders => usage::senders(control, call).await,
            Operation::ListUsageGaps => usage::gaps(control, call).await,
            Operation::ShowUsageBalance => usage::show_balance(control).await,
            Operation::ReportUsage => usage::report(control, call).await,
            Operation::ListNodes => nodes::list(control, call),
            Operation::ShowNode => nodes::show(control, call),
            Operation::ListBundles => nodes::list_bundles(control, call),
            Operation::WithdrawBundle => nodes::withdraw(control, call).await,
            Operation::ListAudit => system::list_audit(control, call).await,
            Operation::VerifyAudit => system::verify_audit(control).await,
            Operation::Backup => system::backup(control, call).await,
            Operation::Reload => system::reload(control, call).await,
        }
    })
}
