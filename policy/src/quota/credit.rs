//! Emergency credit of a cell: parts of what may be spent of its limits while nobody grants, as whoever keeps the shares gives them.

use super::cell::Ticks;

/// What is left of it.
#[derive(Debug, Default)]
pub(super) struct Credit {
    left: u64,
    until: Ticks,
}

impl Credit {
    /// Adds a part. What is left of credit that ended is nobody's.
    pub(super) fn add(&mut self, tokens: u64, until: Ticks, now: Ticks) {
        if now >= self.until {
            self.left = 0;
        }
        self.left = self.left.saturating_add(tokens);
        self.until = until;
    }

    /// Takes, all or nothing.
    pub(super) fn take(&mut self, tokens: u64, now: Ticks) -> bool {
        let takes = now < self.until && self.left >= tokens;
        if takes {
            self.left -= tokens;
        }
        takes
    }
}
