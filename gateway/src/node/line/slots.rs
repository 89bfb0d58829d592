//! When frames go to the control plane: so many a second for callers, quota and usage together, whatever the load. Who has something to
//! say takes the next slot and gathers until then; slots go in the order they were taken, so that nobody keeps others from theirs.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two slots: 20 a second.
const EVERY: Duration = Duration::from_millis(50);
/// Slots in a row where none were used for a while: a caller that was never seen asks who it is, and then for quota.
const AT_ONCE: u32 = 3;

/// The slots of a node.
#[derive(Debug)]
pub(super) struct Slots {
    next: Mutex<Instant>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            next: Mutex::new(Instant::now()),
        }
    }
}

impl Slots {
    /// Takes the next slot, for one frame: it may be sent from then on, which may be now.
    pub(super) fn take(&self) -> Instant {
        let now = Instant::now();
        let unused = now.checked_sub(EVERY * (AT_ONCE - 1)).unwrap_or(now);
        let mut next = self.next.lock();
        let slot = (*next).max(unused);
        *next = slot + EVERY;
        slot.max(now)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_go_at_once_and_the_rest_twenty_a_second() {
        let slots = Slots::default();
        let begun = Instant::now();
        let mut last = begun;
        for _ in 0..100 {
            let slot = slots.take();
            assert!(slot >= last);
            last = slot;
        }
        let wait = EVERY * (100 - 1);
        assert!(
            last - begun >= wait - EVERY * (AT_ONCE - 1),
            "{:?}",
            last - begun
        );
        assert!(last - begun <= wait, "{:?}", last - begun);
        tokio::time::advance(wait * 2).await;
        let now = Instant::now();
        let at_once = (0..10).filter(|_| slots.take() == now).count();
        assert_eq!(at_once, usize::try_from(AT_ONCE).unwrap());
    }
}
