//! What one call holds of its quota, until it ended.

use std::sync::Arc;

use smallvec::SmallVec;
use tollgate_policy::access::RuleRef;
use tollgate_policy::quota::cell::Taken;
use tollgate_policy::quota::{CostSource, Metric};

use super::charges::{Charges, Settled, after, before};

/// Taken from each toll of a call. Dropped unsettled, the call never reached its service: all comes back.
#[derive(Debug)]
pub struct Reservation {
    charges: Arc<Charges>,
    /// By index of the tolls.
    paid: SmallVec<[Paid; 3]>,
    /// By index of what is billed: what it was thought to be before the call.
    thought: SmallVec<[u64; 2]>,
    /// Limits that would have refused, were they not shadows.
    pub shadowed: SmallVec<[Arc<RuleRef>; 1]>,
    settled: bool,
}

/// How one toll was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paid {
    /// Taken from what was at hand.
    Taken(Taken),
    /// Nothing was at hand: so much is owed already.
    Owed(u64),
}

/// What a call came to, for its usage record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Cost units of all names.
    pub units: u64,
    /// Micro-units of the plan's currency.
    pub money: u64,
}

impl Reservation {
    /// Nothing is paid yet. `value` reads whole numbers from the request.
    pub(super) fn new(charges: Arc<Charges>, value: impl Fn(&CostSource) -> Option<u64>) -> Self {
        let thought = charges.billed.iter().map(|cost| before(cost, &value));
        Self {
            thought: thought.collect(),
            charges,
            paid: SmallVec::new(),
            shadowed: SmallVec::new(),
            settled: false,
        }
    }

    pub(super) fn pays(&mut self, paid: Paid) {
        self.paid.push(paid);
    }

    /// What it is taken from.
    pub fn charges(&self) -> &Charges {
        &self.charges
    }

    /// Settles, once: what was taken too much comes back, what was too little is owed.
    pub fn settle(&mut self, settled: &Settled<'_>) -> Bill {
        let mut bill = Bill::default();
        if std::mem::replace(&mut self.settled, true) {
            return bill;
        }
        for (toll, paid) in self.charges.tolls.iter().zip(&self.paid) {
            match *paid {
                // It was tried, and that counts.
                Paid::Taken(taken) if toll.tried && !settled.reached => {
                    toll.held.cell.settle(taken, taken.tokens);
                }
                Paid::Taken(taken) => {
                    let actual = toll.cost.after(taken.tokens, settled);
                    toll.held.cell.settle(taken, actual);
                }
                // What is owed stays owed; what it came to beyond that is added.
                Paid::Owed(owed) => {
                    let actual = toll.cost.after(owed, settled);
                    toll.held.cell.charge(actual.saturating_sub(owed));
                }
            }
        }
        for (cost, thought) in self.charges.billed.iter().zip(&self.thought) {
            let actual = after(cost, *thought, settled);
            let sum = match cost.metric {
                Metric::Money => &mut bill.money,
                _ => &mut bill.units,
            };
            *sum = sum.saturating_add(actual);
        }
        bill
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle(&Settled {
            reached: false,
            request_bytes: 0,
            response_bytes: 0,
            said: &[],
        });
    }
}
