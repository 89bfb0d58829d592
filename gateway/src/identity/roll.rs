//! The roll of credentials that calls stand on.
//!
//! An answer of the directory is forgotten whenever something changed, and when its cache is full; a call that was admitted by it goes
//! on. The roll outlives the answer, so that a later revocation still finds the call. Asked only when an answer is fetched or
//! something was announced: no request waits for its lock. Not here: ending calls (`standing`).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tollgate_policy::directory::CredentialRef;

use super::standing::Standing;

/// Entries before the first look for those nobody stands on any more.
const FIRST_SWEEP: usize = 1024;

/// Who stands on what. As large as the answers held and the calls under way, doubled at most.
#[derive(Debug, Default)]
pub(super) struct Roll {
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    of: HashMap<CredentialRef, Entry>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    standing: Weak<Standing>,
    /// None where a certificate speaks for itself.
    consumer: Option<Arc<str>>,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl Roll {
    /// What calls with this credential stand on: the same for all of them, until it is withdrawn.
    pub(super) fn enter(
        &self,
        reference: &CredentialRef,
        consumer: Option<&Arc<str>>,
    ) -> Arc<Standing> {
        let entries = &mut *self.entries.lock();
        let known = entries.of.get(reference);
        let known = known.filter(|entry| entry.consumer.as_ref() == consumer);
        let standing = known.and_then(|entry| entry.standing.upgrade());
        if let Some(standing) = standing.filter(|standing| !standing.withdrawn()) {
            return standing;
        }
        let standing = Arc::<Standing>::default();
        let entry = Entry {
            standing: Arc::downgrade(&standing),
            consumer: consumer.cloned(),
        };
        if let Some(other) = entries.of.insert(reference.clone(), entry)
            && other.consumer.as_ref() != consumer
            && let Some(orphan) = other.standing.upgrade()
        {
            // The credential changed hands: nobody stands on it as the consumer it was.
            orphan.withdraw();
        }
        if entries.of.len() >= entries.sweep_at {
            entries
                .of
                .retain(|_, entry| entry.standing.strong_count() > 0);
            entries.sweep_at = FIRST_SWEEP.max(entries.of.len() * 2);
        }
        standing
    }

    /// Withdraws what is `hit`.
    pub(super) fn withdraw(&self, hit: impl Fn(&CredentialRef, Option<&Arc<str>>) -> bool) {
        for (reference, entry) in &self.entries.lock().of {
            if hit(reference, entry.consumer.as_ref())
                && let Some(standing) = entry.standing.upgrade()
            {
                standing.withdraw();
            }
        }
    }

    /// What somebody stands on, of these consumers or of all consumers.
    pub(super) fn stood_on(
        &self,
        consumers: Option<&[Arc<str>]>,
    ) -> Vec<(CredentialRef, Arc<Standing>)> {
        let entries = self.entries.lock();
        let meant = |consumer| consumers.is_none_or(|all| all.contains(consumer));
        let live = entries
            .of
            .iter()
            .filter(|(_, entry)| entry.consumer.as_ref().is_some_and(meant));
        live.filter_map(|(reference, entry)| Some((reference.clone(), entry.standing.upgrade()?)))
            .filter(|(_, standing)| !standing.withdrawn())
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn user(number: usize) -> CredentialRef {
        CredentialRef::User(number.to_string().into())
    }

    #[test]
    fn what_was_forgotten_is_found_as_long_as_somebody_stands_on_it() {
        let (roll, shop): (_, Arc<str>) = (Roll::default(), "shop".into());
        let first = roll.enter(&user(1), Some(&shop));
        assert!(Arc::ptr_eq(&first, &roll.enter(&user(1), Some(&shop))));
        drop(roll.enter(&user(2), Some(&shop)));
        assert_eq!(roll.stood_on(None).len(), 1);
        assert_eq!(roll.stood_on(Some(&["other".into()])).len(), 0);
        roll.withdraw(|reference, _| *reference == user(1));
        assert!(first.withdrawn());
        assert!(!roll.enter(&user(1), Some(&shop)).withdrawn());
    }

    #[test]
    fn a_credential_that_changes_hands_carries_nobody_over() {
        let roll = Roll::default();
        let first = roll.enter(&user(1), Some(&"shop".into()));
        let second = roll.enter(&user(1), Some(&"other".into()));
        assert_eq!((first.withdrawn(), second.withdrawn()), (true, false));
        let third = roll.enter(&user(1), None);
        assert_eq!((second.withdrawn(), third.withdrawn()), (true, false));
        assert_eq!(roll.stood_on(None).len(), 0, "of no consumer");
        roll.withdraw(|reference, consumer| *reference == user(1) && consumer.is_none());
        assert!(third.withdrawn());
    }

    #[test]
    fn it_does_not_grow_beyond_what_is_stood_on() {
        let (roll, shop): (_, Arc<str>) = (Roll::default(), "shop".into());
        let kept: Vec<_> = (0..100)
            .map(|number| roll.enter(&user(number), Some(&shop)))
            .collect();
        for number in 100..10 * FIRST_SWEEP {
            drop(roll.enter(&user(number), Some(&shop)));
        }
        assert!(roll.entries.lock().of.len() <= FIRST_SWEEP);
        assert_eq!(roll.stood_on(None).len(), kept.len());
    }
}
