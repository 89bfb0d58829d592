//! What the journal may take, how often it does what, and what happens when it is full.

use std::time::Duration;

use super::frame::{HEADER, LONGEST_BODY, NAMES_PER_RECORD, WORD};

/// Smallest segment: a record whose six names are all new and of the greatest length fits several times.
const SMALLEST_SEGMENT: u64 = 64 * 1024;

/// Sizes, times and policy of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageLimits {
    /// Bytes of a segment file. Made smaller where many shards share few bytes.
    pub segment_bytes: u64,
    /// Bytes all segments of this state directory may take, of former runs and damaged ones too.
    pub total_bytes: u64,
    /// Bytes at the end of a shard's last segment that are for calls in flight: from there on [`super::Room::Full`].
    pub reserve_bytes: u64,
    /// Records are on disk, safe from a power cut, after about this time.
    pub sync_every: Duration,
    /// Longest wait of [`super::ShardWriter::synced`].
    pub sync_wait: Duration,
    /// Records wait at most this long for company before they are sent to the intake.
    pub ship_every: Duration,
    /// How often a shard without records says that it is there.
    pub sign_every: Duration,
    /// What to do with a billable call when there is no room to record it.
    pub on_full: OnFull,
}

/// What to do with a billable call that cannot be recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Refuse it before it is forwarded.
    #[default]
    Refuse,
    /// Serve it, and count that it was not recorded.
    ServeUnmetered,
}

impl Default for UsageLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 4 << 20,
            total_bytes: 1 << 30,
            reserve_bytes: 512 << 10,
            sync_every: Duration::from_millis(50),
            sync_wait: Duration::from_secs(2),
            ship_every: Duration::from_millis(250),
            sign_every: Duration::from_secs(60),
            on_full: OnFull::Refuse,
        }
    }
}

impl UsageLimits {
    /// The same for this number of shards: each must find room for several segments, and a reserve leaves most of a segment.
    pub(super) fn fitted(mut self, shards: usize) -> Self {
        let shards = u64::try_from(shards.max(1)).unwrap_or(u64::MAX);
        let share = self.total_bytes / shards.saturating_mul(8).max(1);
        self.segment_bytes = self
            .segment_bytes
            .min(share)
            .clamp(SMALLEST_SEGMENT, u64::from(u32::MAX / 2))
            .next_multiple_of(4096);
        self.reserve_bytes = self.reserve_bytes.min(self.segment_bytes / 4);
        self
    }
}

/// All definitions of a record, the record itself and the closing.
const _: () = assert!(
    SMALLEST_SEGMENT > (HEADER + (NAMES_PER_RECORD + 2) * (WORD + LONGEST_BODY)) as u64 * 2
);
