//! One worker: a thread, a single-threaded runtime, a proxy, and its connections.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tollgate_policy::settings::DoorLimits;

use super::sites::Share;
use crate::denial::Denial;
use crate::forward::Forwarder;
use crate::forward::watch::{WATCH, Watch};
use crate::listener::{self, Door, Drain};
use crate::request::{Exchange, Seen, Shared};
use crate::telemetry::{RequestId, TraceContext};
use crate::upstream::pool;

/// How often a worker looks through its idle connections to the services.
const POOL_SWEEP: Duration = Duration::from_secs(1);

/// Attempts pingora may make for one request; ours are counted per operation and end earlier.
const MOST_ATTEMPTS: usize = 4;

/// Idle connections kept per worker by the pump's own pool.
const PUMP_POOL: usize = 256;

/// Connections that never reached the journey: how they are refused, and who is told.
pub(super) fn door(limits: &DoorLimits, shared: &Arc<Shared>) -> Door {
    let told = shared.clone();
    Door::new(
        limits.clone(),
        shared.metrics.clone(),
        Arc::new(|denial: &Denial| denial.http1_answer(RequestId::accept_or_new(None).as_str())),
        Arc::new(move |client: Option<SocketAddr>, denial: &Denial| {
            told.metrics.malformed(denial.code());
            let mut exchange = Exchange::new(told.clone());
            exchange.request_id = RequestId::accept_or_new(None);
            exchange.trace = TraceContext::accept_or_new(None).0;
            exchange.refuse(denial.clone(), None, None);
            exchange.report(&Seen {
                head: None,
                client,
                tls: false,
                status: denial.status(),
                response_bytes: 0,
                aborted: false,
            });
        }),
    )
}

/// Serves until the drain is over. Runs on a thread of its own.
pub(super) fn work(mine: Vec<Share>, shared: Arc<Shared>, door: Arc<Door>, drain: Drain) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    runtime.block_on(async move {
        let app = Arc::new(GatewayApp::new(shared, door.limits.clone()));
        for share in mine {
            let listener = match share.socket.into_listener() {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(%error, listener = &*share.name, "cannot serve a listener");
                    continue;
                }
            };
            tokio::spawn(listener::serve(
                listener,
                share.name,
                share.tls,
                share.config.proxy_protocol_from,
                app.clone(),
                door.clone(),
                drain.clone(),
            ));
        }
        let sweeping = tokio::spawn(sweep());
        drain.started().await;
        app.http_cleanup().await;
        drain.wait_idle(Duration::MAX).await;
        sweeping.abort();
        pool::clear();
    });
}

async fn sweep() {
    let mut ticks = tokio::time::interval(POOL_SWEEP);
    loop {
        ticks.tick().await;
        pool::sweep();
    }
}

/// The application every connection of a worker is served by.
struct GatewayApp {
    proxy: Arc<HttpProxy<Forwarder>>,
    limits: DoorLimits,
    options: HttpServerOptions,
    shared: Arc<Shared>,
}

impl GatewayApp {
    fn new(shared: Arc<Shared>, limits: DoorLimits) -> Self {
        let conf = ServerConf {
            max_retries: MOST_ATTEMPTS,
            upstream_keepalive_pool_size: PUMP_POOL,
            ..ServerConf::default()
        };
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.keep_alive);
        let forwarder = Forwarder::new(shared.clone());
        Self {
            proxy: Arc::new(pingora_proxy::http_proxy(&Arc::new(conf), forwarder)),
            limits,
            options,
            shared,
        }
    }
}

#[async_trait]
impl HttpServerApp for GatewayApp {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let watch = Arc::new(Watch::default());
        let served = Caught {
            future: self.proxy.process_new_http(session, shutdown),
        };
        let ended = tokio::select! {
            biased;
            ended = WATCH.scope(watch.clone(), served) => ended,
            cause = watch.expired(self.limits.body_min_rate) => {
                self.shared.metrics.malformed(cause);
                Some(None)
            }
        };
        match ended {
            Some(reused) => reused,
            None => {
                tracing::error!("a request panicked; it alone is lost");
                self.shared.metrics.malformed(Denial::Internal.code());
                None
            }
        }
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(listener::h2_options(&self.limits))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// Turns a panic of a future into `None`.
struct Caught<F> {
    future: F,
}

impl<T, F: Future<Output = T> + Unpin> Future for Caught<F> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let future = Pin::new(&mut self.future);
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
            Err(_) => Poll::Ready(None),
        }
    }
}
