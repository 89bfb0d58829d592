//! One HTTP/2 connection: its streams are accepted here and served one by one, each as a task of its own.
//!
//! Promises that the preface is complete before anything is allocated for the connection, that floods are cut (`flood`), that an
//! idle connection is closed after the keep-alive time, and that *every* well-formed stream reaches the application: pingora's own
//! loop answers some of them itself, with a bare 400 that nobody hears of. Not here: what a stream reads and writes
//! (`h2_session`), judging its head (`door::head`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::{Digest, GetSocketDigest, GetTimingDigest, Ssl};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Notify;
use tollgate_policy::settings::DoorLimits;

use super::accept::Door;
use super::drain;
use super::flood::Flood;
use super::h2_session::H2Session;
use super::stream::Connection;
use crate::cost;

/// Streams reset by the client before we took them up. The library's default; more is rapid reset.
const PENDING_RESETS: usize = 20;

/// Streams we reset for protocol errors of the client. The library would allow 1,024.
const LOCAL_ERROR_RESETS: usize = 64;

/// What an application behind [`super::serve`] returns from `h2_options`.
pub fn h2_options(limits: &DoorLimits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS));
    options
}

/// Serves a connection whose preface has arrived, until it ends.
pub(super) async fn serve<A>(
    mut connection: Box<Connection>,
    listener: &Arc<str>,
    app: &Arc<A>,
    door: &Door,
    shutdown: &ShutdownWatch,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let flood = Flood::new(Arc::clone(&door.metrics), Arc::clone(listener));
    connection.speak_h2(Box::new(flood));
    let digest = Arc::new(Digest {
        ssl_digest: connection.get_ssl_digest(),
        timing_digest: connection.get_timing_digest(),
        proxy_digest: None,
        socket_digest: connection.get_socket_digest(),
    });
    let options = app.h2_options().unwrap_or_else(|| h2_options(&door.limits));
    let handshake = options.handshake::<_, Bytes>(connection);
    let Ok(Ok(mut streams)) = pingora_timeout::timeout(door.limits.head_timeout, handshake).await
    else {
        return;
    };
    let active = Arc::new(Active::default());
    let mut draining = shutdown.clone();
    let mut closing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain::started(&mut draining), if !closing => {
                // What the client sent before it heard of the end is still served.
                streams.graceful_shutdown();
                closing = true;
                continue;
            }
            // Accepting is what drives the whole connection.
            accepted = streams.accept() => accepted,
            () = active.idle_for(door.limits.keep_alive) => return,
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        let session = H2Session::new(request, respond, Arc::clone(&digest));
        let (app, shutdown) = (Arc::clone(app), shutdown.clone());
        let busy = active.begin();
        let nobody = Arc::clone(&door.nobody);
        tokio::spawn(async move {
            let _busy = busy;
            let session = ServerSession::new_custom(Box::new(session));
            let served = async {
                app.process_new_http(session, &shutdown).await;
            };
            cost::timed(&nobody, false, served).await;
        });
    }
}

/// Streams being served.
#[derive(Debug, Default)]
struct Active {
    count: AtomicUsize,
    idle: Notify,
}

impl Active {
    fn begin(self: &Arc<Self>) -> Busy {
        self.count.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Returns when no stream has been served for so long. Each accepted stream begins the wait anew.
    async fn idle_for(&self, limit: Duration) {
        while self.count.load(Ordering::Relaxed) != 0 {
            self.idle.notified().await;
        }
        pingora_timeout::sleep(limit).await;
    }
}

/// One stream being served, until dropped.
struct Busy(Arc<Active>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}
