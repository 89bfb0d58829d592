//! One worker: a thread, a single-threaded runtime, a proxy, and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pingora_core::apps::HttpServerApp;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tollgate_policy::settings::{Direction, DoorLimits};

use super::guard::{Guarded, refused_unread};
use super::sites::Share;
use crate::denial::Denial;
use crate::forward::Forwarder;
use crate::identity::standing;
use crate::journey::Shared;
use crate::listener::{self, Door, Drain};
use crate::transcode::link;
use crate::upstream::pool;

/// How often a worker looks through its idle connections to the services, and through its calls that go on.
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
        shared.costs.nobody().clone(),
        Arc::new(move |client: Option<SocketAddr>, denial: &Denial| {
            let id = refused_unread(&told, client, denial);
            denial.http1_answer(id.as_str())
        }),
    )
}

/// Serves until the drain is over. Runs on a thread of its own; says `started` once it accepts.
pub(super) fn work(
    index: usize,
    mine: Vec<Share>,
    shared: Arc<Shared>,
    door: Arc<Door>,
    drain: Drain,
    started: Sender<()>,
) {
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
    shared.metering.bind(index);
    runtime.block_on(async move {
        let limits = door.limits.clone();
        let withdrawals = shared.identities.directory.withdrawals();
        tokio::spawn(standing::enforce(withdrawals));
        tokio::spawn(shared.overload.clone().watch_worker());
        let proxy = proxy(&shared);
        let app = |direction| {
            let (proxy, shared, limits) = (proxy.clone(), shared.clone(), limits.clone());
            Arc::new(Guarded::new(proxy, shared, limits, direction))
        };
        let (inbound, outbound) = (app(Direction::Inbound), app(Direction::Outbound));
        for share in mine {
            let listener = match share.socket.into_listener() {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(%error, listener = &*share.name, "cannot serve a listener");
                    continue;
                }
            };
            let app = match share.config.direction {
                Direction::Inbound => &inbound,
                Direction::Outbound => &outbound,
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
        let _nobody_waits = started.send(());
        drop(started);
        let sweeping = tokio::spawn(sweep());
        drain.started().await;
        proxy.http_cleanup().await;
        drain.wait_idle(Duration::MAX).await;
        sweeping.abort();
        pool::clear();
        link::clear();
    });
}

async fn sweep() {
    let mut ticks = tokio::time::interval(POOL_SWEEP);
    loop {
        ticks.tick().await;
        pool::sweep();
        link::sweep();
        for call in standing::look(Instant::now()) {
            // Beside the others: it may have to ask for quota.
            tokio::spawn(call.look_again());
        }
    }
}

/// A worker's own proxy, with its own connections to the services.
fn proxy(shared: &Arc<Shared>) -> Arc<HttpProxy<Forwarder>> {
    let conf = ServerConf {
        max_retries: MOST_ATTEMPTS,
        upstream_keepalive_pool_size: PUMP_POOL.min(pool::idle_limit()),
        ..ServerConf::default()
    };
    let forwarder = Forwarder::new(shared.clone());
    Arc::new(pingora_proxy::http_proxy(&Arc::new(conf), forwarder))
}
