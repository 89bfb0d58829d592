//! A counter at the grantor with those who ask for it: what is scarce is shared by what they want.

use std::collections::HashMap;
use std::time::Duration;

use super::book::Book;
use super::{EmergencyShare, HolderId, LeaseAsk, Window};
use crate::time::Timestamp;

/// Of what is left, at most one part in so many is handed out ahead of need.
const AT_ONCE: u64 = 4;
/// How long an ask counts as demand.
pub(super) const DEMAND: Duration = Duration::from_secs(4);
/// What may be spent of a limit while nobody grants is one part in so many: 5 %.
const EMERGENCY: u64 = 20;
/// How long who asked counts as one of those the emergency shares are for.
const REMEMBERED: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Account {
    pub(super) book: Book,
    /// What holders asked for: lately, to share what is scarce, and in the last hour, to share what is for emergencies.
    demands: HashMap<HolderId, Demand>,
    pub(super) asked: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    want: u64,
    at: Timestamp,
    /// As long as the holder counts as told of an emergency share.
    until: Timestamp,
}

impl Account {
    /// Nobody has asked yet.
    pub(super) fn new(book: Book, now: Timestamp) -> Self {
        Self {
            book,
            demands: HashMap::new(),
            asked: now,
        }
    }

    /// Whether somebody counts as told of an emergency share.
    pub(super) fn is_remembered(&self, now: Timestamp) -> bool {
        self.book.limit.has_emergency_share() && self.demands.values().any(|it| now < it.until)
    }

    /// What a holder that asked may spend when it cannot reach us. Of a bucket, a token at a time where more would be more than its part.
    pub(super) fn emergency(&self, now: Timestamp) -> EmergencyShare {
        let holders = u64::try_from(self.demands.len()).unwrap_or(u64::MAX);
        let parts = EMERGENCY.saturating_mul(holders.max(1));
        let limit = &self.book.limit;
        let Some(refill) = self.book.refills_in() else {
            return EmergencyShare {
                tokens: limit.amount / parts,
                ends: self.book.until_reset(now),
                period: match limit.window {
                    Window::Span(length) => Some(length),
                    Window::Day(_) | Window::Month(_) | Window::Lifetime | Window::Gauge => None,
                },
            };
        };
        let (amount, parts) = (u128::from(limit.amount), u128::from(parts));
        let millis = (refill.as_millis() * parts).div_ceil(amount.max(1));
        let period = millis.max(refill.as_millis());
        let tokens = amount * period / (refill.as_millis() * parts).max(1);
        let period = Duration::from_millis(u64::try_from(period).unwrap_or(u64::MAX));
        EmergencyShare {
            tokens: u64::try_from(tokens).unwrap_or(0),
            ends: Some(period),
            period: Some(period),
        }
    }

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
        self.demands.retain(|_, demand| now < demand.until);
        let told = self.book.limit.has_emergency_share();
        let until = now.plus(if told { REMEMBERED } else { DEMAND });
        let at = now;
        self.demands.insert(holder, Demand { want, at, until });
        let left = self.book.available();
        let lately = || self.demands.values().filter(|it| now < it.at.plus(DEMAND));
        let total: u128 = lately().map(|it| u128::from(it.want)).sum();
        let holders = lately().count();
        if u128::from(left) >= total || holders < 2 {
            let ahead = left.saturating_add(outstanding) / AT_ONCE;
            return left.min(ask.needed.max(ahead.saturating_sub(outstanding)));
        }
        let holders = u128::try_from(holders).unwrap_or(u128::MAX);
        let by_demand = u128::from(left) * u128::from(want) / total.max(1);
        let even = u128::from(left) / (2 * holders);
        let part = by_demand.max(even).max(1).min(u128::from(left));
        u64::try_from(part).unwrap_or(left)
    }
}
