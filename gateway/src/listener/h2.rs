//! One HTTP/2 connection: handed to pingora's machinery, with our limits around it.
//!
//! Promises that the preface is complete before anything is allocated for the connection, and that floods are cut
//! (`flood`). Not here: streams, answering requests.

use std::sync::Arc;

use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::ShutdownWatch;
use tollgate_policy::settings::DoorLimits;

use super::accept::Door;
use super::flood::Flood;
use super::stream::Connection;

/// Streams reset by the client before we took them up. The library's default; more is rapid reset.
const PENDING_RESETS: usize = 20;

/// Streams we reset for protocol errors of the client. The library would allow 1,024.
const LOCAL_ERROR_RESETS: usize = 64;

/// What an application behind [`super::serve`] returns from `h2_options`. Its `server_options` sets `h2_idle_timeout` to
/// `keep_alive` and leaves `h2c` off: the listener tells HTTP/2 apart itself.
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
    app.process_new(connection, shutdown).await;
}
