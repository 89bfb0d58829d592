//! What the journal tells about itself: numbers for metrics, and whether there is room.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether another call can be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// As much as wanted.
    #[default]
    Free,
    /// The bound is near, or no further segment could be made: somebody should look.
    Low,
    /// Only calls in flight may still be recorded.
    Full,
}

impl Room {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Free => 0,
            Self::Low => 1,
            Self::Full => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Free,
            1 => Self::Low,
            _ => Self::Full,
        }
    }
}

/// Numbers for metrics. Those marked *gauge* are brought up to date several times a second; the others count since the start.
#[derive(Debug, Default)]
pub struct JournalState {
    /// Records written by this process.
    pub records: AtomicU64,
    /// Records written by this process that the intake has not confirmed (gauge).
    pub pending: AtomicU64,
    /// Records the intake confirmed, of this and of former runs.
    pub shipped: AtomicU64,
    /// Of these, records of former runs.
    pub replayed: AtomicU64,
    /// Bytes all segments in the state directory take (gauge).
    pub bytes: AtomicU64,
    /// Thousandths of the bound on bytes (gauge).
    pub filled_permille: AtomicU64,
    /// Calls that were served and could not be recorded. Exact.
    pub unmetered: AtomicU64,
    /// Records known to be lost: numbers missing between records that were read back.
    pub gaps: AtomicU64,
    /// Segments set aside because they were damaged.
    pub damaged: AtomicU64,
    /// Times the disk refused to take what was written.
    pub sync_failures: AtomicU64,
    /// Times a batch was not confirmed.
    pub ship_failures: AtomicU64,
    /// Answers whose end waited for the disk.
    pub disk_waits: AtomicU64,
    /// Of these, those that went before it was done, because it took too long.
    pub unsynced: AtomicU64,
    /// Since when there has been no room, in milliseconds since 1970; 0: there is (gauge).
    pub full_since: AtomicU64,
}

impl JournalState {
    pub(super) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn set(gauge: &AtomicU64, value: u64) {
        gauge.store(value, Ordering::Relaxed);
    }
}
