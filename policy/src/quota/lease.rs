//! What a process that serves calls and the grantor say to each other: tokens handed out in advance.

use std::sync::Arc;
use std::time::Duration;

use super::{CounterKey, Limit};

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

/// What a holder asks for one cell: a set of counters of one metric that are drawn from together.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseAsk {
    /// The cell, by a number of the holder's choice. A cell has at most one lease at a time.
    pub cell: u64,
    /// Number of this ask among those of the cell, from 1. Asks that come late are not heeded; nor are answers to any but the last.
    pub number: u64,
    /// What it draws from; at least one, all of the same metric.
    pub counters: Arc<[Counter]>,
    /// The lease the numbers below are about; 0 for none.
    pub lease: u64,
    /// Tokens spent of that lease, from its beginning on; telling it twice does no harm. Of slots: those given up.
    pub spent: u64,
    /// Nothing more will be spent of that lease: what is left of it may be given to others.
    pub closed: bool,
    /// Tokens owed beyond leases, for costs that were only known after the call, from the cell's beginning on.
    pub owed: u64,
    /// How much of it the grantor is known to have counted.
    pub owed_known: u64,
    /// Tokens to have at hand from now on, those left of the lease included. As many as can be had without leaving others short.
    pub want: u64,
    /// How many of them calls are waiting for.
    pub needed: u64,
}

/// What the grantor answers to an ask.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseGrant {
    /// Number of the ask this answers.
    pub number: u64,
    /// The lease; another number than the ask's where that one ended. 0: none, nothing may be spent.
    pub lease: u64,
    /// Tokens of the lease in all, from its beginning on.
    pub tokens: u64,
    /// What is counted as owed by this cell.
    pub owed: u64,
    /// How long the lease may be spent from, counted from when the ask was sent.
    pub lifetime: Duration,
    /// The counter that is closest to its limit, an index into the ask's.
    pub closest: usize,
    /// What that counter had left after this grant, beyond all leases.
    pub rest: u64,
    /// Until that counter starts anew, or has refilled; where nothing was granted: until there is something again. `None`: never.
    pub reset: Option<Duration>,
    /// What the holder may spend of each counter of the ask, in this order, beyond its leases while the grantor is away.
    pub emergency: Vec<EmergencyShare>,
}

/// A holder's part of what a counter allows while nobody grants, once in each period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmergencyShare {
    /// How much.
    pub tokens: u64,
    /// Until the present period ends, counted from when the ask was sent; `None`: never.
    pub ends: Option<Duration>,
    /// How long those after it are; `None`: as [`Limit::window`] says.
    pub period: Option<Duration>,
}
