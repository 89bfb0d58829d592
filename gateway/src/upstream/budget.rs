//! The retry budget of one cluster: a share of the calls of the last ten seconds, and a small minimum.
//!
//! Lock-free counters in one-second slots. Two threads that meet at the turn of a second may miscount a call or two;
//! the budget bounds a retry storm, it does not account for anything.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Seconds looked back.
const WINDOW: u64 = 10;
/// Retries in a window that need no calls: a quiet API may retry too.
const MINIMUM: u64 = 10;

#[derive(Debug, Default)]
struct Slot {
    second: AtomicU64,
    calls: AtomicU32,
    retries: AtomicU32,
}

/// Counts calls and retries. Seconds are those of [`super::endpoint::now`].
#[derive(Debug)]
pub(super) struct RetryBudget {
    percent: u64,
    slots: [Slot; 10],
}

impl RetryBudget {
    pub(super) fn new(percent: u8) -> Self {
        Self {
            percent: u64::from(percent),
            slots: Default::default(),
        }
    }

    pub(super) fn count_call(&self, second: u64) {
        if let Some(slot) = self.slot(second) {
            slot.calls.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn take_retry(&self, second: u64) -> bool {
        let (mut calls, mut retries) = (0_u64, 0_u64);
        for slot in &self.slots {
            if slot.second.load(Relaxed) + WINDOW > second {
                calls += u64::from(slot.calls.load(Relaxed));
                retries += u64::from(slot.retries.load(Relaxed));
            }
        }
        let allowed = retries < MINIMUM + calls * self.percent / 100;
        if allowed && let Some(slot) = self.slot(second) {
            slot.retries.fetch_add(1, Relaxed);
        }
        allowed
    }

    fn slot(&self, second: u64) -> Option<&Slot> {
        let slot = self.slots.get(usize::try_from(second % WINDOW).ok()?)?;
        let seen = slot.second.load(Relaxed);
        if seen != second
            && slot
                .second
                .compare_exchange(seen, second, Relaxed, Relaxed)
                .is_ok()
        {
            slot.calls.store(0, Relaxed);
            slot.retries.store(0, Relaxed);
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &RetryBudget, second: u64) -> usize {
        (0..10_000)
            .take_while(|_| budget.take_retry(second))
            .count()
    }

    #[test]
    fn a_quiet_cluster_may_retry_ten_times_in_ten_seconds() {
        let budget = RetryBudget::new(20);
        assert_eq!(taken(&budget, 100), 10);
        assert_eq!(taken(&budget, 109), 0);
        assert_eq!(taken(&budget, 110), 10);
    }

    #[test]
    fn retries_are_a_share_of_recent_calls() {
        let budget = RetryBudget::new(20);
        for _ in 0..1000 {
            budget.count_call(50);
        }
        assert_eq!(taken(&budget, 55), 210);
        for _ in 0..100 {
            budget.count_call(60);
        }
        // The calls of second 50 have left the window, the retries of second 55 have not.
        assert_eq!(taken(&budget, 60), 0);
        assert_eq!(taken(&budget, 65), 30);
    }
}
