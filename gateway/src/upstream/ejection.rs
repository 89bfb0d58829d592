//! Passive ejection of one endpoint: failures in a row take it out for a while, one probe brings it back.
//!
//! Lock-free: a lost race costs a probe too many or an ejection a moment late, never a wrong permanent state.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The longest ejection, as a multiple of the first.
const LONGEST: u32 = 10;

/// Whether calls may go to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Any number of calls.
    In,
    /// The ejection is over: one call may try it.
    HalfOpen,
    /// None (or the one probe is under way).
    Out,
}

/// Failures in a row and what came of them. Times are nanoseconds of [`super::endpoint::now`].
#[derive(Debug, Default)]
pub(super) struct Ejection {
    failures: AtomicU32,
    rounds: AtomicU32,
    /// 0: not ejected.
    until: AtomicU64,
    probing: AtomicBool,
}

impl Ejection {
    pub(super) fn standing(&self, now: u64) -> Standing {
        let until = self.until.load(Relaxed);
        if until == 0 {
            Standing::In
        } else if now < until || self.probing.load(Relaxed) {
            Standing::Out
        } else {
            Standing::HalfOpen
        }
    }

    /// Claims the one probe; its holder must end it with one of the three methods below.
    pub(super) fn claim_probe(&self) -> bool {
        !self.probing.swap(true, Relaxed)
    }

    /// The probe ended without a verdict.
    pub(super) fn release_probe(&self) {
        self.probing.store(false, Relaxed);
    }

    /// The endpoint answered. `tried`: the call was sent although it was ejected, so that its answer clears it; the
    /// late answer to an earlier call does not.
    pub(super) fn succeeded(&self, tried: bool) {
        // Written only when there is something to change: the line stays shared between threads.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if tried {
            self.rounds.store(0, Relaxed);
            self.until.store(0, Relaxed);
        }
    }

    /// The endpoint failed; `tried` as above. `true` when this failure ejected it.
    pub(super) fn failed(&self, now: u64, tried: bool, after: u32, first: Duration) -> bool {
        if after == 0 {
            return false;
        }
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let until = self.until.load(Relaxed);
        let again = tried && now >= until;
        if !(again || (until == 0 && failures >= after)) {
            return false;
        }
        self.failures.store(0, Relaxed);
        let round = self.rounds.fetch_add(1, Relaxed);
        let factor = 1_u32
            .checked_shl(round)
            .map_or(LONGEST, |factor| factor.min(LONGEST));
        let length = u64::try_from(first.saturating_mul(factor).as_nanos()).unwrap_or(u64::MAX);
        self.until.store(now.saturating_add(length).max(1), Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_nanos(100);

    #[test]
    fn failures_in_a_row_eject_and_an_answer_between_resets_the_count() {
        let ejection = Ejection::default();
        assert!(!ejection.failed(1, false, 2, FIRST));
        ejection.succeeded(false);
        assert!(!ejection.failed(2, false, 2, FIRST));
        assert!(ejection.failed(3, false, 2, FIRST));
        assert_eq!(ejection.standing(102), Standing::Out);
        assert_eq!(ejection.standing(103), Standing::HalfOpen);
    }

    #[test]
    fn one_probe_decides_and_a_failed_one_doubles_the_time_up_to_ten_times() {
        let ejection = Ejection::default();
        assert!(ejection.failed(0, false, 1, FIRST));
        let mut now = 100;
        for factor in [2, 4, 8, 10, 10] {
            assert!(ejection.claim_probe());
            assert!(!ejection.claim_probe());
            assert_eq!(ejection.standing(now), Standing::Out);
            assert!(ejection.failed(now, true, 1, FIRST));
            ejection.release_probe();
            assert_eq!(ejection.standing(now + factor * 100 - 1), Standing::Out);
            now += factor * 100;
            assert_eq!(ejection.standing(now), Standing::HalfOpen);
        }
        ejection.succeeded(true);
        assert_eq!(ejection.standing(now), Standing::In);
    }

    #[test]
    fn zero_switches_ejection_off() {
        let ejection = Ejection::default();
        for now in 0..100 {
            assert!(!ejection.failed(now, false, 0, FIRST));
        }
        assert_eq!(ejection.standing(100), Standing::In);
    }
}
