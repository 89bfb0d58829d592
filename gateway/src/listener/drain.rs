//! The end of serving: no new connections, idle ones closed, those in work finished.
//!
//! Promises that a connection is counted from accept to close, so that an empty drain means that nothing is lost.
//! Not here: when to drain (signals, hand-over).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::server::ShutdownWatch;
use tokio::sync::{Notify, watch};

/// Whether the process is draining, and how many connections are still open. Clones share their state.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    draining: watch::Sender<bool>,
    connections: AtomicUsize,
    closed: Notify,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    shared: Arc<Shared>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Serving, no connections.
    pub fn new() -> Self {
        let shared = Shared {
            draining: watch::Sender::new(false),
            connections: AtomicUsize::new(0),
            closed: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Begins the drain; may be called more than once.
    pub fn start(&self) {
        self.shared.draining.send_replace(true);
    }

    /// Whether the drain has begun.
    pub fn draining(&self) -> bool {
        *self.shared.draining.borrow()
    }

    /// Turns true when the drain begins; what pingora calls a shutdown watch.
    pub fn watch(&self) -> ShutdownWatch {
        self.shared.draining.subscribe()
    }

    /// Returns when the drain has begun.
    pub async fn started(&self) {
        started(&mut self.watch()).await;
    }

    /// Counts a connection (or any work the drain has to wait for).
    pub fn connection(&self) -> ConnectionGuard {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Connections now open.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Waits until no connection is open, at most `limit`. False when some still are.
    pub async fn wait_idle(&self, limit: Duration) -> bool {
        let idle = async {
            loop {
                let closed = self.shared.closed.notified();
                tokio::pin!(closed);
                // Registered before the count is read: a close in between is not missed.
                closed.as_mut().enable();
                if self.connections() == 0 {
                    return;
                }
                closed.await;
            }
        };
        tokio::time::timeout(limit, idle).await.is_ok()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.shared.connections.fetch_sub(1, Ordering::Release) == 1 {
            self.shared.closed.notify_waiters();
        }
    }
}

/// Returns when the watch says that the drain has begun, or its sender is gone.
pub(super) async fn started(watch: &mut ShutdownWatch) {
    let _sender_gone = watch.wait_for(|draining| *draining).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_the_last_connection() {
        let drain = Drain::new();
        let first = drain.connection();
        let second = drain.connection();
        drain.start();
        assert!(drain.draining());
        assert!(!drain.wait_idle(Duration::from_millis(5)).await);
        drop(first);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.wait_idle(Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        drop(second);
        assert!(waiting.await.unwrap());
    }
}
