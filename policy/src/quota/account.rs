//! A counter at the grantor with those who ask for it: what is scarce is shared by what they want.

use std::collections::HashMap;
use std::time::Duration;

use super::book::Book;
use super::{HolderId, LeaseAsk};
use crate::time::Timestamp;

/// Of what is left, at most one part in so many is handed out ahead of need.
const AT_ONCE: u64 = 4;
/// How long an ask counts as demand.
pub(super) const DEMAND: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Account {
    pub(super) book: Book,
    /// What holders asked for lately, to share what is scarce.
    pub(super) demands: HashMap<HolderId, Demand>,
    pub(super) asked: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    want: u64,
    at: Timestamp,
}

impl Account {
    /// What a holder may have of what is left: where all can have what they want, all it needs and a part of the rest, so that little
    /// is lost with a holder that dies; else its part by what holders want, and never less than half of an even part.
    pub(super) fn share(
        &mut self,
        holder: HolderId,
        ask: &LeaseAsk,
        outstanding: u64,
        now: Timestamp,
    ) -> u64 {
        let want = ask.want;
        self.demands
            .retain(|_, demand| now < demand.at.plus(DEMAND));
        self.demands.insert(holder, Demand { want, at: now });
        let left = self.book.available();
        let total: u128 = self.demands.values().map(|it| u128::from(it.want)).sum();
        if u128::from(left) >= total || self.demands.len() < 2 {
            let ahead = left.saturating_add(outstanding) / AT_ONCE;
            return left.min(ask.needed.max(ahead.saturating_sub(outstanding)));
        }
        let holders = u128::try_from(self.demands.len()).unwrap_or(u128::MAX);
        let by_demand = u128::from(left) * u128::from(want) / total.max(1);
        let even = u128::from(left) / (2 * holders);
        let part = by_demand.max(even).max(1).min(u128::from(left));
        u64::try_from(part).unwrap_or(left)
    }
}
