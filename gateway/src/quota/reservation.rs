//! What one call holds of its quota, until it ended.

use std::sync::Arc;

use smallvec::SmallVec;
use tollgate_policy::access::RuleRef;
use tollgate_policy::quota::Metric;
use tollgate_policy::quota::cell::Taken;

use super::charges::{Charges, Settled};

/// Taken from each toll of a call. Dropped unsettled, the call never reached its service: all comes back.
#[derive(Debug)]
pub struct Reservation {
    charges: Arc<Charges>,
    /// By index of the tolls; `None`: nothing was at hand, and it is owed already.
    taken: SmallVec<[Option<Taken>; 3]>,
    /// Limits that would have refused, were they not shadows.
    pub shadowed: SmallVec<[Arc<RuleRef>; 1]>,
    settled: bool,
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
    pub(super) fn new(charges: Arc<Charges>) -> Self {
        Self {
            charges,
            taken: SmallVec::new(),
            shadowed: SmallVec::new(),
            settled: false,
        }
    }

    pub(super) fn took(&mut self, taken: Option<Taken>) {
        self.taken.push(taken);
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
        for (toll, taken) in self.charges.tolls.iter().zip(&self.taken) {
            let reserved = taken.map_or(0, |taken| taken.tokens);
            let actual = match taken {
                Some(taken) => {
                    let actual = toll.actual(reserved, settled);
                    toll.held.cell.settle(*taken, actual);
                    actual
                }
                None => toll.actual(1, settled),
            };
            if toll.is_shadow() {
                continue;
            }
            match toll.metric() {
                Metric::Units(_) => bill.units = bill.units.saturating_add(actual),
                Metric::Money => bill.money = bill.money.saturating_add(actual),
                _ => {}
            }
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
