//! Whether a credential still counts, for calls that are already under way.
//!
//! Each worker keeps a list of its identified calls; a revocation marks the credential and wakes the workers, which end the calls that
//! stand on it. Noting a call costs a slot of a list of this thread, no lock.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use smallvec::SmallVec;
use tokio::sync::watch;

use crate::forward::watch::Watch;
use crate::request::ongoing::Ongoing;

/// Set once, when the credential is revoked.
#[derive(Debug, Default)]
pub struct Standing {
    withdrawn: AtomicBool,
}

impl Standing {
    /// Whether it was revoked.
    pub fn withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Revokes it.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Release);
    }
}

/// What a call stands on.
pub type Standings = SmallVec<[Arc<Standing>; 2]>;

#[derive(Debug)]
struct Entry {
    standings: Standings,
    watch: Arc<Watch>,
    /// It goes on, and is judged again while it does.
    ongoing: Option<Arc<Ongoing>>,
    /// Looks at the list it was found at.
    looks: u32,
}

thread_local! {
    static CALLS: RefCell<Vec<Option<Entry>>> = const { RefCell::new(Vec::new()) };
    static FREE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A call on this thread's list; leaves it when dropped. Workers are single-threaded: it is dropped where it was made.
#[derive(Debug)]
pub struct Listed {
    slot: usize,
}

impl Listed {
    /// From now on the call is judged again while it goes on.
    pub(crate) fn goes_on(&self, ongoing: Arc<Ongoing>) {
        CALLS.with_borrow_mut(|calls| {
            if let Some(entry) = calls.get_mut(self.slot).and_then(Option::as_mut) {
                entry.ongoing = Some(ongoing);
            }
        });
    }
}

/// Looks of [`look`] after which a call is one of those that take long.
const LONG: u32 = 2;

/// Calls of this thread that have to be judged again now. To be asked about once a second: calls that were there twice become long ones.
pub(crate) fn look(now: Instant) -> Vec<Arc<Ongoing>> {
    let mut due = Vec::new();
    CALLS.with_borrow_mut(|calls| {
        for entry in calls.iter_mut().flatten() {
            match &entry.ongoing {
                Some(ongoing) if ongoing.is_due(now) => due.push(ongoing.clone()),
                Some(_) => {}
                None => {
                    entry.looks = entry.looks.saturating_add(1);
                    if entry.looks == LONG {
                        entry.watch.is_long_now();
                    }
                }
            }
        }
    });
    due
}

/// Notes a call that has to end when one of `standings` is withdrawn.
pub fn list(standings: Standings, watch: Arc<Watch>) -> Listed {
    let entry = Some(Entry {
        standings,
        watch,
        ongoing: None,
        looks: 0,
    });
    let free = FREE.with_borrow_mut(Vec::pop);
    let slot = CALLS.with_borrow_mut(|calls| match free {
        Some(slot) => {
            if let Some(place) = calls.get_mut(slot) {
                *place = entry;
            }
            slot
        }
        None => {
            calls.push(entry);
            calls.len() - 1
        }
    });
    Listed { slot }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let entry = CALLS
            .try_with(|calls| calls.borrow_mut().get_mut(self.slot).and_then(Option::take))
            .ok()
            .flatten();
        if entry.is_some() {
            let _ended = FREE.try_with(|free| free.borrow_mut().push(self.slot));
        }
    }
}

/// Ends the calls of this thread whose credential was withdrawn, whenever there was a withdrawal. Runs on each worker.
pub async fn enforce(mut withdrawals: watch::Receiver<u64>) {
    while withdrawals.changed().await.is_ok() {
        sweep();
    }
}

fn sweep() {
    CALLS.with_borrow(|calls| {
        for entry in calls.iter().flatten() {
            if entry.standings.iter().any(|standing| standing.withdrawn()) {
                entry.watch.revoke();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::watch::Cut;

    #[tokio::test]
    async fn a_call_ends_when_its_credential_is_withdrawn_and_no_other_does() {
        let (revoked, kept) = (Arc::new(Standing::default()), Arc::new(Standing::default()));
        let (first, second) = (Arc::new(Watch::default()), Arc::new(Watch::default()));
        let _first = list(SmallVec::from_elem(revoked.clone(), 1), first.clone());
        let _second = list(SmallVec::from_elem(kept, 1), second.clone());
        drop(list(
            SmallVec::from_elem(revoked.clone(), 1),
            second.clone(),
        ));
        revoked.withdraw();
        sweep();
        assert_eq!(first.expired(1).await, Cut::Revoked);
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), second.expired(1));
        assert!(waiting.await.is_err());
    }
}
