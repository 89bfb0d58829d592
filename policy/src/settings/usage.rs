//! `usage` of `tollgate.yaml`: how what was served is written down.

use std::sync::Arc;
use std::time::Duration;

/// The usage journal of a process, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageConfig {
    /// What this process is called in usage records; `None`: the name of the machine.
    pub node: Option<Arc<str>>,
    /// Bytes the journal may take on disk, for when nobody takes what it holds. Default 1 GiB.
    pub max_bytes: u64,
    /// Whether calls that are billed are served when there is no room to record them (default: no).
    pub serve_unmetered: bool,
    /// How long totals are kept. Where the control plane is.
    pub keep: UsageRetention,
    /// `source` of exported CloudEvents; tells installations apart. Where the control plane is.
    pub event_source: String,
}

/// How well the record of a call is kept before the call ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// There is none: numbers in metrics are enough.
    Metric,
    /// It survives the death of the process.
    #[default]
    Process,
    /// It survives a power cut: the end of the answer waits for the disk.
    Disk,
}

/// How long totals of usage are kept, by the step they are added up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRetention {
    /// By minute. Default 2 days.
    pub minutes: Duration,
    /// By hour. Default 60 days.
    pub hours: Duration,
    /// By day; also what is known of senders that ended, and of gaps. Default 800 days.
    pub days: Duration,
}

impl Default for UsageRetention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            minutes: days(2),
            hours: days(60),
            days: days(800),
        }
    }
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            node: None,
            max_bytes: 1 << 30,
            serve_unmetered: false,
            keep: UsageRetention::default(),
            event_source: "/tollgate/usage".to_owned(),
        }
    }
}
