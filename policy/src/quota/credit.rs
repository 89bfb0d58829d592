//! Emergency credit of a cell: what may be spent of its limits while nobody grants, once in a window.

use super::cell::Ticks;

/// What is left of it.
#[derive(Debug, Default)]
pub(super) struct Credit {
    left: u64,
    until: Ticks,
    /// It comes in parts from whoever keeps it; what grants offer is not for here.
    pub(super) is_lent: bool,
}

impl Credit {
    /// A grant offers so much until the end of the window. A new window brings new credit.
    pub(super) fn offered(&mut self, tokens: u64, until: Ticks, sent: Ticks) {
        if sent >= self.until && !self.is_lent {
            (self.left, self.until) = (tokens, until);
        }
    }

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
