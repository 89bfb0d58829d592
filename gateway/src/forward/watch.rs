//! Limits no read timeout can hold: a request body that trickles, and the total time of an exchange.
//!
//! A body that sends one byte a second never lets a read time out. The watch counts instead, beside the request, and cuts it off.
//! Nothing ticks for requests without a body and without a total limit.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How often an armed watch looks.
const LOOK: Duration = Duration::from_secs(1);

/// A body may be slower than its rate for so long: connections start slowly.
const GRACE: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The watch of the request this task serves.
    pub static WATCH: Arc<Watch>;
}

/// What is watched of one request.
#[derive(Debug, Default)]
pub struct Watch {
    armed: Notify,
    deadline: OnceLock<Instant>,
    cut: OnceLock<&'static str>,
    body_began: OnceLock<Instant>,
    body_bytes: AtomicU64,
    body_done: AtomicBool,
}

impl Watch {
    /// The watch of the current request; none outside a worker.
    pub fn current() -> Option<Arc<Self>> {
        WATCH.try_with(Arc::clone).ok()
    }

    /// The whole exchange has to be over by then.
    pub fn ends_at(&self, deadline: Instant) {
        let _set_already = self.deadline.set(deadline);
        self.armed.notify_one();
    }

    /// The request has to end now, for this reason.
    pub fn cut(&self, reason: &'static str) {
        let _cut_already = self.cut.set(reason);
        self.armed.notify_one();
    }

    /// A request body begins.
    pub fn body_begins(&self) {
        let _begun_already = self.body_began.set(Instant::now());
        self.armed.notify_one();
    }

    /// More of the body came.
    pub fn body_came(&self, bytes: usize, end: bool) {
        self.body_bytes
            .fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        if end {
            self.body_done.store(true, Ordering::Relaxed);
        }
    }

    /// Returns when the request has to be cut off, and why. `rate` is in bytes per second.
    pub async fn expired(&self, rate: u64) -> &'static str {
        self.armed.notified().await;
        loop {
            if let Some(reason) = self.cut.get() {
                return reason;
            }
            let now = Instant::now();
            if self.deadline.get().is_some_and(|end| now >= *end) {
                return "total_timeout";
            }
            if self.body_trickles(now, rate) {
                return "body_too_slow";
            }
            let left = self
                .deadline
                .get()
                .map(|end| end.saturating_duration_since(now));
            let wait = left.map_or(LOOK, |left| left.min(LOOK));
            tokio::select! {
                () = pingora_timeout::sleep(wait) => {}
                () = self.armed.notified() => {}
            }
        }
    }

    fn body_trickles(&self, now: Instant, rate: u64) -> bool {
        let Some(began) = self.body_began.get() else {
            return false;
        };
        if self.body_done.load(Ordering::Relaxed) {
            return false;
        }
        let late = now.duration_since(*began).saturating_sub(GRACE);
        self.body_bytes.load(Ordering::Relaxed) < rate.saturating_mul(late.as_secs())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn begun(ago: Duration, bytes: usize, done: bool) -> (Watch, Instant) {
        let watch = Watch::default();
        watch.body_begins();
        watch.body_came(bytes, done);
        let now = *watch.body_began.get().unwrap() + ago;
        (watch, now)
    }

    #[test]
    fn a_body_may_start_slowly_but_not_trickle() {
        for (seconds, bytes, done, cut) in [
            (5, 0, false, false),
            (7, 0, false, true),
            (7, 2048, false, false),
            (15, 2048, false, true),
            (15, 10 * 1024, false, false),
            (3600, 1, true, false),
        ] {
            let (watch, now) = begun(Duration::from_secs(seconds), bytes, done);
            assert_eq!(
                watch.body_trickles(now, 1024),
                cut,
                "{seconds} s, {bytes} bytes"
            );
        }
    }

    #[test]
    fn nothing_is_cut_without_a_body() {
        let watch = Watch::default();
        assert!(!watch.body_trickles(Instant::now() + Duration::from_secs(99), 1024));
    }
}
