//! Idle HTTP/1 connections of this thread, for the direct path to an upstream.
//!
//! Every engine thread has its own: a connection stays on the reactor that polls it, and nothing is locked. A closed
//! connection is found at reuse or by [`sweep`], not by a task per connection. It opens no connections.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::unconstrained;

use super::EndpointAddress;

/// Idle connections kept per thread over all endpoints, at most: descriptors are shared with clients.
pub const MAX_IDLE_PER_THREAD: usize = 2048;

/// What [`limit_idle`] left of it.
static IDLE_LIMIT: AtomicUsize = AtomicUsize::new(MAX_IDLE_PER_THREAD);

/// What connections must have in common to be exchangeable: everything that went into making them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Cluster, TLS policy, server name, protocol.
    pub group_key: u64,
    /// The address connected to.
    pub address: EndpointAddress,
}

/// What the pool of this thread did since the thread began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounters {
    /// Connections handed out again.
    pub reused: u64,
    /// Nothing usable was there.
    pub missed: u64,
    /// Closed by the other side, or with bytes nobody asked for, while idle.
    pub dead: u64,
    /// Closed for their age.
    pub expired: u64,
    /// Closed because the pool was full.
    pub crowded: u64,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    until: Instant,
}

#[derive(Debug, Default)]
struct Pool {
    /// Newest last.
    idle: HashMap<PoolKey, VecDeque<Idle>>,
    total: usize,
    counters: PoolCounters,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Takes the newest live connection. Must run on the runtime that opened it.
pub fn take(key: &PoolKey) -> Option<Stream> {
    POOL.with_borrow_mut(|pool| pool.take(key, Instant::now()))
}

/// Keeps a connection whose last answer was read to its end, for `keep_alive` at most.
pub fn put(key: &PoolKey, stream: Stream, keep_alive: Duration) {
    // A time beyond what the clock can hold is no time at all.
    if let Some(until) = Instant::now().checked_add(keep_alive) {
        POOL.with_borrow_mut(|pool| pool.put(key, stream, until));
    }
}

/// Closes what is too old or was closed by the other side; how many. Meant for once a second.
pub fn sweep() -> usize {
    POOL.with_borrow_mut(|pool| pool.sweep(Instant::now()))
}

/// Closes everything: the thread drains.
pub fn clear() {
    POOL.with_borrow_mut(|pool| {
        pool.idle.clear();
        pool.total = 0;
    });
}

/// Lowers the number of idle connections each thread keeps over all endpoints, where few descriptors are to be had.
pub fn limit_idle(per_thread: usize) {
    IDLE_LIMIT.store(per_thread.min(MAX_IDLE_PER_THREAD), Relaxed);
}

/// The number of idle connections each thread keeps over all endpoints.
pub fn idle_limit() -> usize {
    IDLE_LIMIT.load(Relaxed)
}

/// Of these, what one endpoint may have: after a flood all of its connections are reused, and other endpoints keep theirs.
pub fn idle_limit_per_key() -> usize {
    (idle_limit() / 2).max(1)
}

/// How many connections are idle on this thread.
pub fn idle() -> usize {
    POOL.with_borrow(|pool| pool.total)
}

/// The counters of this thread.
pub fn counters() -> PoolCounters {
    POOL.with_borrow(|pool| pool.counters)
}

impl Pool {
    fn take(&mut self, key: &PoolKey, now: Instant) -> Option<Stream> {
        if let Some(list) = self.idle.get_mut(key) {
            while let Some(mut idle) = list.pop_back() {
                self.total -= 1;
                if idle.until <= now {
                    self.counters.expired += 1;
                } else if is_quiet(&mut idle.stream) {
                    self.counters.reused += 1;
                    return Some(idle.stream);
                } else {
                    self.counters.dead += 1;
                }
            }
        }
        self.counters.missed += 1;
        None
    }

    fn put(&mut self, key: &PoolKey, stream: Stream, until: Instant) {
        if self.total >= idle_limit() {
            self.counters.crowded += 1;
            return;
        }
        if !self.idle.contains_key(key) {
            self.idle.insert(key.clone(), VecDeque::new());
        }
        if let Some(list) = self.idle.get_mut(key) {
            list.push_back(Idle { stream, until });
            self.total += 1;
            if list.len() > idle_limit_per_key() {
                list.pop_front();
                self.total -= 1;
                self.counters.crowded += 1;
            }
        }
    }

    fn sweep(&mut self, now: Instant) -> usize {
        let before = self.total;
        let (counters, total) = (&mut self.counters, &mut self.total);
        self.idle.retain(|_, list| {
            list.retain_mut(|idle| {
                let expired = idle.until <= now;
                let keep = !expired && is_quiet(&mut idle.stream);
                counters.expired += u64::from(expired);
                counters.dead += u64::from(!expired && !keep);
                *total -= usize::from(!keep);
                keep
            });
            !list.is_empty()
        });
        before - self.total
    }
}

/// Nothing to read: neither an end nor bytes nobody asked for, which would be taken for the next answer. Asks the
/// reactor, so without a system call unless something happened on the connection.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0_u8; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    let read = poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer));
    // Outside tokio's budget for one task: once that is spent, every socket would seem quiet.
    let read = pin!(unconstrained(read));
    read.poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
}
