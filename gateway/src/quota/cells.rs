//! The cells of this process, by the counters they draw from; and what each caller is charged, found without a lock.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::Notify;
use tollgate_policy::directory::Caller;
use tollgate_policy::quota::cell::Cell;
use tollgate_policy::quota::{Counter, CounterKey, Subject};

use super::Call;
use super::charges::{self, Charges};
use crate::api::Api;
use crate::cost::Account;
use crate::overload::network_named;

/// Cells of a process; those used longest ago give way.
const CELLS: usize = 200_000;
/// Callers each worker finds without a lock.
const NEAR: usize = 2048;

/// A cell, with those who wait for it.
#[derive(Debug)]
pub(super) struct HeldCell {
    /// What is at hand.
    pub(super) cell: Cell,
    /// Woken at each answer.
    pub(super) answered: Notify,
    /// Tokens waited for.
    pub(super) waiting: AtomicU64,
    /// Already on its way to be asked for.
    pub(super) queued: AtomicBool,
    /// Among those whose leases are renewed or given back.
    pub(super) remembered: AtomicBool,
    _room: Room,
}

/// Memory that is counted for an API.
#[derive(Debug)]
struct Room {
    account: Arc<Account>,
    bytes: u64,
}

impl Room {
    /// Of a cell: itself, and its counters with their names.
    fn of(counters: &[Counter], account: &Arc<Account>) -> Self {
        let name = |it: &Counter| it.key.subject.len() + it.key.operation.len();
        let named: usize = counters.iter().map(name).sum();
        let bytes = size_of::<HeldCell>() + 2 * size_of_val(counters) + named;
        let room = Self {
            account: Arc::clone(account),
            bytes: u64::try_from(bytes).unwrap_or(0),
        };
        room.account.holds(room.bytes);
        room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.account.lets_go(self.bytes);
    }
}

impl HeldCell {
    /// Somebody waits for so many tokens.
    pub(super) fn wait_for(&self, tokens: u64) {
        let add = |waiting: u64| Some(waiting.saturating_add(tokens));
        let _ = self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }
}

/// All cells.
#[derive(Debug)]
pub(super) struct Cells {
    cells: quick_cache::sync::Cache<Arc<[CounterKey]>, Arc<HeldCell>>,
    last: AtomicU64,
}

/// The parts of a call that its counters may depend on besides caller and operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Varying {
    pub(super) address: Option<IpAddr>,
    pub(super) user: Option<Arc<str>>,
}

struct Slot {
    api: Weak<Api>,
    caller: Option<Weak<Caller>>,
    operation: usize,
    varying: Varying,
    charges: Option<Arc<Charges>>,
}

thread_local! {
    static NEAREST: RefCell<Vec<Option<Slot>>> = const { RefCell::new(Vec::new()) };
}

impl Cells {
    pub(super) fn new() -> Self {
        Self {
            cells: quick_cache::sync::Cache::new(CELLS),
            last: AtomicU64::new(0),
        }
    }

    /// What a call touches. Found again without a lock and without allocation.
    pub(super) fn charges(&self, call: &Call<'_>) -> Option<Arc<Charges>> {
        let subscription = call.identified.identity.subscription(&call.api.config.name);
        let sold = subscription.map_or(&[][..], |held| &held.limits);
        let operation = call.api.operations.get(call.operation)?;
        let free = operation.settings.costs.is_empty();
        if call.api.limits.is_empty() && sold.is_empty() && free {
            return None;
        }
        let varying = varying(call, sold);
        let index = index_of(call, &varying);
        let found = NEAREST.with_borrow(|slots| {
            let slot = slots.get(index)?.as_ref()?;
            slot.is(call, &varying).then(|| slot.charges.clone())
        });
        if let Some(charges) = found {
            return charges;
        }
        let charges = charges::of(call, sold, &varying, |counters| {
            self.cell(counters, &call.api.traffic.cost)
        });
        NEAREST.with_borrow_mut(|slots| {
            if slots.is_empty() {
                slots.resize_with(NEAR, || None);
            }
            if let Some(place) = slots.get_mut(index) {
                *place = Some(Slot {
                    api: Arc::downgrade(call.api),
                    caller: call.identified.identity.caller.as_ref().map(Arc::downgrade),
                    operation: call.operation,
                    varying,
                    charges: charges.clone(),
                });
            }
        });
        charges
    }

    /// The cell of these counters. One whose limits changed is left to itself: it gives back what it holds when its lease ends.
    pub(super) fn cell(&self, counters: Vec<Counter>, account: &Arc<Account>) -> Arc<HeldCell> {
        let keys: Arc<[CounterKey]> = counters.iter().map(|it| it.key.clone()).collect();
        if let Some(held) = self.cells.get(&keys)
            && **held.cell.counters() == *counters
        {
            return held;
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let room = Room::of(&counters, account);
        let held = Arc::new(HeldCell {
            _room: room,
            cell: Cell::new(number, counters.into()),
            answered: Notify::new(),
            waiting: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            remembered: AtomicBool::new(false),
        });
        self.cells.insert(keys, Arc::clone(&held));
        held
    }
}

impl Slot {
    fn is(&self, call: &Call<'_>, varying: &Varying) -> bool {
        let caller = call.identified.identity.caller.as_ref();
        let same = match (&self.caller, caller) {
            (None, None) => true,
            (Some(held), Some(caller)) => Weak::as_ptr(held) == Arc::as_ptr(caller),
            _ => false,
        };
        // The slot keeps both places in memory taken: no other can have their addresses.
        same && Weak::as_ptr(&self.api) == Arc::as_ptr(call.api)
            && self.operation == call.operation
            && self.varying == *varying
    }
}

fn varying(call: &Call<'_>, sold: &[Arc<tollgate_policy::quota::Limit>]) -> Varying {
    let limits = || call.api.limits.iter().chain(sold);
    let identity = &call.identified.identity;
    let nobody = identity.caller.is_none();
    let by_address = limits().any(|limit| limit.subject == Subject::Address) || nobody;
    let by_user = limits().any(|limit| limit.subject == Subject::EndUser);
    let subject = identity.claims.as_ref().map(|claims| &claims.subject);
    Varying {
        address: call.client.filter(|_| by_address).map(network_named),
        user: subject.filter(|it| by_user && !it.is_empty()).cloned(),
    }
}

fn index_of(call: &Call<'_>, varying: &Varying) -> usize {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    let caller = call.identified.identity.caller.as_ref().map(Arc::as_ptr);
    let key = (Arc::as_ptr(call.api), caller, call.operation, varying);
    let hash = HASHER.get_or_init(RandomState::new).hash_one(key);
    usize::try_from(hash).unwrap_or(0) % NEAR
}
