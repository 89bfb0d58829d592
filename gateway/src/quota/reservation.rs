//! What one call holds of its quota, until it ended.

use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tollgate_policy::access::RuleRef;
use tollgate_policy::quota::cell::Taken;
use tollgate_policy::quota::{CostSource, Metric};
use tollgate_proto::Meters;

use super::charges::{Charges, Named, Settled, after, before};

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
    /// What it is charged while it goes on.
    tab: Option<Arc<Tab>>,
    settled: bool,
}

/// What a call that goes on is charged on its way, beside what was taken before.
#[derive(Debug)]
pub struct Tab {
    pub(super) charges: Arc<Charges>,
    /// By index of the tolls: what was taken, and what was charged since.
    charged: Mutex<SmallVec<[(u64, u64); 3]>>,
}

impl Tab {
    /// What a toll has come to beyond what was charged. From here on it is on the tab: whoever asks charges it.
    pub(super) fn due(&self, index: usize, settled: &Settled<'_>) -> u64 {
        let mut charged = self.charged.lock();
        let (Some(toll), Some((taken, since))) =
            (self.charges.tolls.get(index), charged.get_mut(index))
        else {
            return 0;
        };
        let all = toll.cost.after(*taken, settled);
        let due = all.saturating_sub(taken.saturating_add(*since));
        *since = since.saturating_add(due);
        due
    }

    /// Nothing more goes on it: the call is settled. What was charged, by index of the tolls.
    fn close(&self) -> SmallVec<[(u64, u64); 3]> {
        std::mem::take(&mut *self.charged.lock())
    }
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Cost units by name.
    pub units: Meters,
    /// Micro-units of the plan's currency.
    pub money: u64,
}

impl Reservation {
    /// Nothing is paid yet. `value` reads whole numbers from the request.
    pub(super) fn new(charges: Arc<Charges>, value: impl Fn(&CostSource) -> Named) -> Self {
        let thought = charges.billed.iter().map(|cost| before(cost, &value));
        Self {
            thought: thought.collect(),
            charges,
            paid: SmallVec::new(),
            shadowed: SmallVec::new(),
            tab: None,
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

    /// Where it is charged while it goes on.
    pub fn tab(&mut self) -> Arc<Tab> {
        let taken = self.paid.iter().map(|paid| match *paid {
            Paid::Taken(taken) => (taken.tokens, 0),
            Paid::Owed(owed) => (owed, 0),
        });
        let charges = &self.charges;
        let tab = self.tab.get_or_insert_with(|| {
            Arc::new(Tab {
                charges: Arc::clone(charges),
                charged: Mutex::new(taken.collect()),
            })
        });
        Arc::clone(tab)
    }

    /// Settles, once: what was taken too much comes back, what was too little is owed.
    pub fn settle(&mut self, settled: &Settled<'_>) -> Bill {
        let mut bill = Bill::default();
        if std::mem::replace(&mut self.settled, true) {
            return bill;
        }
        let charged = self.tab.as_ref().map(|tab| tab.close());
        let charged = charged.unwrap_or_default();
        for (index, (toll, paid)) in self.charges.tolls.iter().zip(&self.paid).enumerate() {
            let since = charged.get(index).map_or(0, |(_, since)| *since);
            match *paid {
                // It was tried, and that counts.
                Paid::Taken(taken) if toll.tried && !settled.reached => {
                    toll.held.cell.settle(taken, taken.tokens);
                }
                Paid::Taken(taken) => {
                    let actual = toll.cost.after(taken.tokens, settled);
                    toll.held.cell.settle(taken, actual.saturating_sub(since));
                }
                // What is owed stays owed; what it came to beyond that is added.
                Paid::Owed(owed) => {
                    let actual = toll.cost.after(owed, settled);
                    let more = actual.saturating_sub(owed).saturating_sub(since);
                    toll.held.cell.charge(more);
                }
            }
        }
        for (cost, thought) in self.charges.billed.iter().zip(&self.thought) {
            let actual = after(cost, *thought, settled);
            match &cost.metric {
                Metric::Units(name) => bill.units.add(name, actual),
                Metric::Money => bill.money = bill.money.saturating_add(actual),
                // Nothing else is billed by what it costs.
                Metric::Calls
                | Metric::Bytes
                | Metric::Concurrent
                | Metric::Messages
                | Metric::StreamSeconds => {}
            }
        }
        bill
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Nothing reached the service.
        self.settle(&Settled::default());
    }
}
