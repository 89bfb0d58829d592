//! Sources that fail again and again: they try paths that do not exist, or credentials that nobody has.
//!
//! A source has a debt. Each failure adds one, each good answer takes one away, time takes a minute's worth away in a minute; from a
//! minute's worth on the source is refused. So number and ratio both count: a scanner is refused after its first hundred attempts, and the
//! office it shares an address with is not, as long as at least every second answer there is a good one. Refusals add no debt, and
//! a debt has an end: whoever stops is forgiven within two minutes.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::sources::{Source, Table};

/// The debt from which on a source is refused, as time.
const MINUTE: u64 = 60_000_000_000;

/// The greatest debt: failures that were under way together shall not add up to an hour.
const MOST: u64 = 2 * MINUTE;

/// The limit of failures.
#[derive(Debug)]
pub(super) struct Scanning {
    /// Nanoseconds one failure stands for.
    step: u64,
}

impl Scanning {
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        Self {
            step: MINUTE / u64::from(per_minute.get()),
        }
    }

    /// How long a source has to wait; `None`: it may ask.
    pub(super) fn wait(&self, table: &Table, source: Source, now: u64) -> Option<Duration> {
        let places = table.counted(source)?;
        let debts = places.map(|it| it.failures.load(Relaxed).saturating_sub(now));
        let debt = debts.into_iter().min()?;
        // The failure that makes it a minute's worth is the last one.
        let beyond = (debt + self.step).checked_sub(MINUTE + 1)?;
        Some(Duration::from_nanos(beyond))
    }

    pub(super) fn failed(&self, table: &Table, source: Source, now: u64) {
        let adds = |cell: &AtomicU64| {
            let added = |free_at: u64| Some((free_at.max(now) + self.step).min(now + MOST));
            let _always = cell.fetch_update(Relaxed, Relaxed, added);
        };
        for place in table.counted(source).into_iter().flatten() {
            adds(&place.failures);
        }
    }

    /// Costs nothing where nothing is owed, which is nearly always.
    pub(super) fn succeeded(&self, table: &Table, source: Source, now: u64) {
        let less = |free_at: u64| (free_at > now).then(|| free_at.saturating_sub(self.step));
        for place in table.counted(source).into_iter().flatten() {
            let _nothing_owed = place.failures.fetch_update(Relaxed, Relaxed, less);
        }
    }
}
