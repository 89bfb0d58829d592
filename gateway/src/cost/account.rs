//! What one API costs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What was seen of the work for somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Nanoseconds that polls took.
    pub(super) nanos: u64,
    /// Polls: each has the runtime and the kernel work around it.
    pub(super) polls: u64,
}

impl Weight {
    pub(super) fn plus(self, more: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(more.nanos),
            polls: self.polls.saturating_add(more.polls),
        }
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(before.nanos),
            polls: self.polls.saturating_sub(before.polls),
        }
    }
}

/// Of one API, over all its generations.
#[derive(Debug, Default)]
pub struct Account {
    /// Of polls that were timed, each standing for those that were not.
    nanos: AtomicU64,
    polls: AtomicU64,
    /// Nanoseconds of CPU time.
    cpu: AtomicU64,
    connections: AtomicU64,
    cache_bytes: AtomicU64,
}

impl Account {
    /// Nanoseconds of CPU time of the process that are its.
    pub fn cpu_nanos(&self) -> u64 {
        self.cpu.load(Relaxed)
    }

    /// Connections of clients whose last call was its.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Bytes of quota cells held for its callers.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_bytes.load(Relaxed)
    }

    /// What was weighed so far.
    pub(super) fn weight(&self) -> Weight {
        Weight {
            nanos: self.nanos.load(Relaxed),
            polls: self.polls.load(Relaxed),
        }
    }

    pub(super) fn weigh(&self, weight: Weight) {
        self.nanos.fetch_add(weight.nanos, Relaxed);
        self.polls.fetch_add(weight.polls, Relaxed);
    }

    pub(super) fn bill(&self, nanos: u64) {
        self.cpu.fetch_add(nanos, Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// So many bytes are held for it, until they are let go.
    pub fn holds(&self, bytes: u64) {
        self.cache_bytes.fetch_add(bytes, Relaxed);
    }

    /// See [`Self::holds`].
    pub fn lets_go(&self, bytes: u64) {
        self.cache_bytes.fetch_sub(bytes, Relaxed);
    }
}
