//! Where requests come from, and how many each source may send.
//!
//! A fixed table of two rows; a source has one place in each, chosen by a keyed hash that nobody outside can predict. A source is refused
//! only if both its places say so, so that sharing one of them with a flood costs nothing, and it never gets more than its limit. Nothing
//! grows with the number of sources, and no entry has to be found, made or thrown away. The arithmetic (generic cell rate) is governor's,
//! whose own keyed tables grow with their keys.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use tollgate_policy::settings::Network;

/// Places of a row, of 16 bytes each: half a MiB in all, made when the first source that counts is seen. With a thousand floods at
/// once one source of 250 shares both its places with some.
const PLACES: u64 = 1 << 14;

/// Seconds' worth of requests a quiet source may send at once: a page that loads all its parts.
const BURST_SECONDS: u32 = 2;

/// The lower half of an address or a product.
const LOW: u128 = u64::MAX as u128;

/// How many requests sources may send.
pub(super) type Rate = RateLimiter<Source, Requests, Carried, NoOpMiddleware<Nanos>>;

/// One source, by its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source([u16; 2]);

/// What is known about all sources.
#[derive(Debug)]
pub(super) struct Table {
    /// Drawn at start: nobody outside knows who shares a place with whom.
    keys: [u64; 4],
    rows: OnceLock<[Box<[Counted]>; 2]>,
}

/// What is counted at one place: times, in nanoseconds since the guard began, at which nothing will be left of what was asked.
#[derive(Debug, Default)]
pub(super) struct Counted {
    requests: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            keys: [0_u64, 1, 2, 3].map(|number| random.hash_one(number) | 1),
            rows: OnceLock::new(),
        }
    }
}

impl Table {
    /// The places of an address. Two keyed multiplications, each folded: a fifth of the cost of the hash maps are made with, and
    /// enough where all there is to gain is a place shared with a stranger.
    pub(super) fn source(&self, client: IpAddr) -> Source {
        let folded = |bits: u64, key: u64| {
            let product = u128::from(bits) * u128::from(key);
            u64::try_from(product >> 64).unwrap_or(0) ^ u64::try_from(product & LOW).unwrap_or(0)
        };
        let [first, second, third, fourth] = self.keys;
        let network = network_of(client);
        // What differs between networks: the upper half of IPv6, the lower one of IPv4.
        let network = u64::try_from((network >> 64) ^ (network & LOW)).unwrap_or(0);
        let hash = folded(folded(network ^ first, second) ^ third, fourth);
        let place = |bits: u64| u16::try_from(bits % PLACES).unwrap_or(0);
        Source([place(hash), place(hash >> 32)])
    }

    /// What is counted of a source. Both are there: places are made below the length of a row.
    pub(super) fn counted(&self, source: Source) -> Option<[&Counted; 2]> {
        let [first, second] = self.rows.get_or_init(|| [row(), row()]);
        let Source([in_first, in_second]) = source;
        let first = first.get(usize::from(in_first))?;
        Some([first, second.get(usize::from(in_second))?])
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let rows = self
            .rows
            .get()
            .map_or(0, |rows| rows.iter().map(|row| size_of_val(&**row)).sum());
        size_of::<Self>() + rows
    }
}

fn row() -> Box<[Counted]> {
    (0..PLACES).map(|_| Counted::default()).collect()
}

/// A limit of so many requests per second.
pub(super) fn rate(per_second: NonZeroU32, table: Arc<Table>) -> Rate {
    let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1));
    NOW.set(0);
    RateLimiter::new(
        Quota::per_second(per_second).allow_burst(burst),
        Requests(table),
        Carried,
    )
}

/// Takes one request of a source from its limit; `false`: there is none left.
pub(super) fn admits(rate: &Rate, source: Source, now: u64) -> bool {
    NOW.set(now);
    rate.check_key(&source).is_ok()
}

/// The store of governor's limiter: our table.
#[derive(Debug)]
pub(super) struct Requests(Arc<Table>);

impl StateStore for Requests {
    type Key = Source;

    fn measure_and_replace<T, F, E>(&self, source: &Source, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Some([first, second]) = self.0.counted(*source) else {
            return judge(None).map(|(outcome, _)| outcome);
        };
        let outcome = replace(&first.requests, &judge);
        replace(&second.requests, &judge).or(outcome)
    }
}

fn replace<T, E>(
    cell: &AtomicU64,
    judge: &impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
) -> Result<T, E> {
    let mut before = cell.load(Relaxed);
    loop {
        let known = NonZeroU64::new(before).map(|it| Nanos::from(it.get()));
        let (outcome, after) = judge(known)?;
        match cell.compare_exchange_weak(before, after.into(), Relaxed, Relaxed) {
            Ok(_) => return Ok(outcome),
            Err(now) => before = now,
        }
    }
}

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// The clock governor asks: it answers with the time the request was read at, which is known. Asking the system costs as much as the
/// whole of the rest, and tests bring their own time.
#[derive(Debug)]
pub(super) struct Carried;

impl Clock for Carried {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(NOW.get())
    }
}

/// Networks that are not counted, as bits and mask of IPv6 addresses (IPv4 mapped into them).
#[derive(Debug)]
pub(super) struct Exempt(Box<[(u128, u128)]>);

impl Exempt {
    pub(super) fn new(networks: &[Network]) -> Self {
        let pair = |network: &Network| {
            let width: u32 = if network.address.is_ipv4() { 32 } else { 128 };
            let free = width.saturating_sub(network.prefix.into());
            let mask = u128::MAX.checked_shl(free).unwrap_or(0);
            (bits(network.address) & mask, mask)
        };
        Self(networks.iter().map(pair).collect())
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let bits = bits(address.to_canonical());
        self.0.iter().any(|(network, mask)| bits & mask == *network)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Whom an address counts as: IPv4 as it is, IPv6 by /64, because one subscriber has a whole /64.
pub(crate) fn network_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

/// The same as an address, for names: `192.0.2.7`, `2001:db8::`.
pub(crate) fn network_named(address: IpAddr) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(network_of(address))).to_canonical()
}
