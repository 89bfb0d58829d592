//! Whether the control plane is there, and since when it was not heard.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::slots::Slots;

/// What is known of the contact. Read on the request path: one load and one clock reading that is there anyway.
#[derive(Debug)]
pub struct Contact {
    began: Instant,
    /// Milliseconds since `began`, plus what had passed before; of the last sign of life on the fast lane.
    heard: AtomicU64,
    /// Silence at the start, from before it.
    before: AtomicU64,
    connected: AtomicBool,
    /// Moves whenever it is heard again: who waits to connect need not wait any longer.
    returns: watch::Sender<u64>,
    /// Answers given from memory.
    pub(super) remembered: AtomicU64,
    /// Questions that got no answer at all.
    pub(super) unanswered: AtomicU64,
    /// Frames sent, quota and callers and usage together.
    pub(super) frames: AtomicU64,
    /// When they may be sent.
    pub(super) slots: Slots,
}

/// A silence nobody has measured: nothing was ever heard.
const NEVER: u64 = u64::MAX / 4;

impl Default for Contact {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            before: AtomicU64::new(NEVER),
            connected: AtomicBool::new(false),
            returns: watch::Sender::new(0),
            remembered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            slots: Slots::default(),
        }
    }
}

impl Contact {
    /// How long the fast lane has been silent.
    pub fn silence(&self, now: Instant) -> Duration {
        let now = millis(now.saturating_duration_since(self.began));
        let since = now.saturating_sub(self.heard.load(Ordering::Relaxed));
        Duration::from_millis(since.saturating_add(self.before.load(Ordering::Relaxed)))
    }

    /// Whether the fast lane is connected.
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// A sign of life.
    pub(super) fn heard(&self) {
        let now = millis(self.began.elapsed());
        self.heard.store(now, Ordering::Relaxed);
        self.before.store(0, Ordering::Relaxed);
        if !self.connected.swap(true, Ordering::Relaxed) {
            self.returns.send_modify(|count| *count += 1);
        }
    }

    /// Moves whenever the control plane is heard again.
    pub(super) fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// The stream ended.
    pub(super) fn lost(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    /// What a former process knew: it heard of the control plane so long ago.
    pub(super) fn resume(&self, silence: Duration) {
        self.before.fetch_min(millis(silence), Ordering::Relaxed);
    }

    /// Adds the numbers to a page of metrics.
    pub fn write_page(&self, page: &mut String) {
        use std::fmt::Write as _;
        let silence = self.silence(Instant::now()).as_secs_f64();
        for (name, kind, help, value) in [
            (
                "tollgate_control_connected",
                "gauge",
                "Whether the control plane is there.",
                f64::from(u8::from(self.connected())),
            ),
            (
                "tollgate_control_silence_seconds",
                "gauge",
                "Since the last sign of life of the control plane.",
                silence,
            ),
            (
                "tollgate_control_remembered_total",
                "counter",
                "Callers that were known from before, while nobody answered.",
                counted(&self.remembered),
            ),
            (
                "tollgate_control_unanswered_total",
                "counter",
                "Questions to the control plane without an answer.",
                counted(&self.unanswered),
            ),
            (
                "tollgate_control_frames_total",
                "counter",
                "Messages sent to the control plane.",
                counted(&self.frames),
            ),
        ] {
            let _ = writeln!(
                page,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn counted(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(NEVER)
        .min(NEVER)
}
