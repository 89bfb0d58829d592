//! How many unknown credentials one source may have looked up: random keys must not become a flood of questions.
//!
//! A fixed table of buckets, one atomic each; sources that share a bucket share its budget. Nothing grows with the number of sources.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::overload::network_of;

/// Buckets: 8 bytes each.
const BUCKETS: usize = 4096;

/// Look-ups a source may make at once. A shop whose key was just made and not yet known retries a few times.
const BURST: u64 = 40;

/// One more every so often.
const REFILL: Duration = Duration::from_millis(100);

/// Budgets of all sources: generic cell rate, one theoretical arrival time per bucket.
#[derive(Debug)]
pub(super) struct MissBudget {
    began: Instant,
    hasher: RandomState,
    /// Milliseconds since `began` at which a bucket will be full again.
    full_at: Box<[AtomicU64]>,
}

impl Default for MissBudget {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            hasher: RandomState::new(),
            full_at: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl MissBudget {
    /// Gives back what was taken for a credential that turned out to be known: only strangers use up the budget.
    pub(super) fn give_back(&self, source: Option<IpAddr>) {
        let refill = u64::try_from(REFILL.as_millis()).unwrap_or(0);
        if let Some(bucket) = self.bucket(source) {
            let _always = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(full_at.saturating_sub(refill))
            });
        }
    }

    /// Whether `source` has anything left, for what is charged only when it turns out to be bad.
    pub(super) fn left(&self, source: Option<IpAddr>, now: Instant) -> bool {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.began));
        self.bucket(source).is_some_and(|bucket| {
            bucket.load(Ordering::Relaxed) <= now + (BURST - 1) * millis(REFILL)
        })
    }

    fn bucket(&self, source: Option<IpAddr>) -> Option<&AtomicU64> {
        let hash = self.hasher.hash_one(source.map(network_of));
        let hash = usize::try_from(hash % BUCKETS as u64).ok()?;
        self.full_at.get(hash)
    }

    /// Takes one look-up from the budget of `source`; `false`: it is used up.
    pub(super) fn take(&self, source: Option<IpAddr>, now: Instant) -> bool {
        let Some(bucket) = self.bucket(source) else {
            return false;
        };
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.began));
        let refill = millis(REFILL);
        let took = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now) + refill;
            (next <= now + BURST * refill).then_some(next)
        });
        took.is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_held_to_its_budget_and_gets_it_back() {
        let budget = MissBudget::default();
        let source = Some("192.0.2.1".parse().unwrap());
        let start = Instant::now();
        let taken = (0..100).filter(|_| budget.take(source, start)).count();
        assert_eq!(u64::try_from(taken).unwrap(), BURST);
        assert!(!budget.left(source, start));
        assert!(!budget.take(source, start));
        assert!(budget.left(source, start + REFILL * 2));
        assert!(budget.take(source, start + REFILL * 2));
        assert!(budget.take(source, start + Duration::from_secs(3600)));
    }

    #[test]
    fn an_ipv6_customer_is_one_source() {
        let one = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_eq!(one("::ffff:192.0.2.1"), one("192.0.2.1"));
    }
}
