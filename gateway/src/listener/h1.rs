//! One HTTP/1.1 connection: request after request, each from a complete head.
//!
//! Promises: every head, also a pipelined one, passes `door::head` before the parser sees it; requests are answered in order;
//! a refusal reaches the client before the connection is closed. Not here: answering requests.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;

use super::accept::Door;
use super::fence::Fence;
use super::head::{self, Arrival, Expected};
use super::stream::Connection;
use crate::denial::Denial;

/// A client that takes nothing of its answer for this long is gone or does not want it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a refused client may take to read the refusal. Closing with unread bytes resets the connection, and the client
/// would never see why.
const LINGER: Duration = Duration::from_secs(2);

/// How much a refused client may still send meanwhile.
const LINGER_BYTES: usize = 256 * 1024;

/// Serves a connection whose first request has arrived, until it ends.
pub(super) async fn serve<A>(
    mut connection: Box<Connection>,
    mut arrival: Arrival,
    peer: Option<SocketAddr>,
    app: &Arc<A>,
    door: &Door,
    shutdown: &ShutdownWatch,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut draining = shutdown.clone();
    let mut left = door.limits.requests_per_connection.max(1);
    loop {
        let head_bytes = match arrival {
            Arrival::Head(head_bytes) => head_bytes,
            Arrival::Refused(denial) => return refuse(connection, &denial, peer, door).await,
            // HTTP/2 is not expected behind the first request, so it is not told.
            Arrival::Silence | Arrival::H2 => return close(connection).await,
        };
        left -= 1;
        let last = left == 0 || *draining.borrow();
        let session = match begin(connection, head_bytes, last, door) {
            Ok(session) => session,
            Err((connection, denial)) => return refuse(connection, &denial, peer, door).await,
        };
        let Some(reused) = app.process_new_http(session, shutdown).await else {
            return;
        };
        let Ok(ours) = reused.consume().0.into_any().downcast::<Connection>() else {
            return;
        };
        connection = ours;
        if last {
            return close(connection).await;
        }
        connection.rest();
        let expected = Expected { h2: false };
        arrival = head::arrive(&mut connection, &door.limits, expected, &mut draining).await;
    }
}

/// The session of the request whose head has arrived.
fn begin(
    mut connection: Box<Connection>,
    head_bytes: usize,
    last: bool,
    door: &Door,
) -> Result<ServerSession, (Box<Connection>, Denial)> {
    let head = connection.held().get(..head_bytes).unwrap_or_default();
    // The parser does not like the empty line that may come first.
    let empty_line = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let head = head.get(empty_line..).unwrap_or_default();
    if let Err(denial) = crate::door::head::check(head, door.limits.head_fields) {
        return Err((connection, denial));
    }
    let fence = Fence::of(head);
    // Without a fence nobody knows where the next request begins.
    let last = last || fence == Fence::Open;
    let mut head = connection.begin_request(head_bytes, fence);
    if empty_line > 0 {
        drop(head.split_to(empty_line));
    }
    let mut session = ServerSession::new_http1(connection);
    session.set_pipelined_prefix(head);
    session.set_keepalive(Some(door.limits.keep_alive.as_secs().max(1)));
    session.set_keepalive_reuses_remaining(last.then_some(0));
    session.set_write_timeout(Some(WRITE_TIMEOUT));
    Ok(session)
}

/// Answers a request that never gets further than the door.
async fn refuse(
    mut connection: Box<Connection>,
    denial: &Denial,
    peer: Option<SocketAddr>,
    door: &Door,
) {
    let answer = (door.on_refused)(peer, denial);
    let linger = async {
        connection.write_all(&answer).await?;
        connection.shutdown().await?;
        connection.forget_held();
        let mut drained = 0;
        while drained < LINGER_BYTES {
            match poll_fn(|cx| connection.poll_receive(cx)).await? {
                0 => break,
                more => drained += more,
            }
            connection.forget_held();
        }
        std::io::Result::Ok(())
    };
    let _client_gone_or_slow = pingora_timeout::timeout(LINGER, linger).await;
}

/// Ends the connection politely (TLS says goodbye); whoever does not take it is dropped.
async fn close(mut connection: Box<Connection>) {
    let _gone = pingora_timeout::timeout(LINGER, connection.shutdown()).await;
}
