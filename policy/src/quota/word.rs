//! The one number a cell is: which lease, and how many tokens are left of it.

/// Tokens left, in the lower 48 bits of the word, are offset by this, so that slots may be below zero for a while.
pub(super) const ZERO: u64 = 1 << 47;
const LEFT: u64 = (1 << 48) - 1;

pub(super) const fn left(word: u64) -> i64 {
    ((word & LEFT) as i64) - (ZERO as i64)
}

pub(super) const fn lease(word: u64) -> u16 {
    (word >> 48) as u16
}

/// `None` beyond 2^47 tokens.
pub(super) fn with_left(word: u64, tokens: i64) -> Option<u64> {
    let offset = u64::try_from(tokens.checked_add(1 << 47)?).ok()?;
    (offset <= LEFT).then_some((word & !LEFT) | offset)
}

pub(super) const fn with_next_lease(word: u64) -> u64 {
    (word & LEFT) | (lease(word).wrapping_add(1) as u64) << 48
}
