//! Quota on its way from the grantor to a data plane: tokens handed out in advance.

use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::quota::{CounterKey, Limit};

/// One process that spends; random, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId(pub u64);

/// A counter a call touches.
#[derive(Clone, Debug, PartialEq)]
pub struct Counter {
    /// Its names.
    pub key: CounterKey,
    /// Its limit, overrides applied.
    pub limit: Arc<Limit>,
}

/// What a data plane asks for one cell: a set of counters of one metric that are drawn from together.
#[derive(Clone, Debug)]
pub struct LeaseAsk {
    /// The cell, by a number of the holder's choice. A cell has at most one lease at a time.
    pub cell: u64,
    /// What it draws from; at least one, all of the same metric.
    pub counters: Arc<[Counter]>,
    /// The lease the numbers below are about; 0 for none.
    pub lease: u64,
    /// Tokens spent of that lease, from its beginning on. Telling it twice does no harm.
    pub spent: u64,
    /// Tokens that were spent beyond the lease and are owed since (costs that were only known after the call), from the beginning of
    /// the lease on.
    pub owed: u64,
    /// Tokens to have at hand from now on, those left of the lease included; 0 gives the lease back.
    pub want: u64,
}

/// What the grantor answers to an ask.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseGrant {
    /// The lease; another number than the ask's where that one ended. 0: nothing was granted.
    pub lease: u64,
    /// Tokens of the lease in all, from its beginning on.
    pub tokens: u64,
    /// How long the lease may be spent from, counted from when the ask was sent.
    pub lifetime: Duration,
    /// The counter that is closest to its limit, an index into the ask's.
    pub closest: usize,
    /// What that counter had left after this grant, beyond all leases.
    pub rest: u64,
    /// Until that counter starts anew, or has refilled enough for one more; `None` where it never does.
    pub reset: Option<Duration>,
    /// Emergency credit while the grantor is away: tokens the holder may spend beyond the lease, once in `reset`.
    pub credit: u64,
    /// Set where a limit that is only a shadow would have refused: an index into the ask's counters.
    pub shadowed: Option<usize>,
}
