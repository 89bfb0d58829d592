//! Which endpoint takes the next attempt: the cheaper of two drawn at random among those in use.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use super::EndpointAddress;
use super::endpoint::Endpoint;

thread_local! {
    static SEED: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
}

/// A number below `bound` (0 for 0). xorshift64: cheap and good enough to spread load, nothing else.
pub(super) fn random_below(bound: usize) -> usize {
    let drawn = SEED.with(|seed| {
        let mut x = seed.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        seed.set(x);
        x
    });
    let bound = u64::try_from(bound).unwrap_or(u64::MAX);
    usize::try_from(drawn.checked_rem(bound).unwrap_or(0)).unwrap_or(0)
}

/// Picks by P2C among usable endpoints other than `avoid`; then `avoid` itself if usable; then any, usable or not:
/// calls to endpoints that all look broken are better than refusing everything.
pub(super) fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    avoid: Option<&EndpointAddress>,
    now: u64,
) -> Option<&'a Arc<Endpoint>> {
    if let [only] = endpoints {
        return Some(only);
    }
    let other = |endpoint: &Endpoint| avoid.is_none_or(|avoid| endpoint.address != *avoid);
    two_choices(endpoints, now, |endpoint| {
        endpoint.usable(now) && other(endpoint)
    })
    .or_else(|| two_choices(endpoints, now, |endpoint| endpoint.usable(now)))
    .or_else(|| two_choices(endpoints, now, other))
    .or_else(|| two_choices(endpoints, now, |_| true))
}

fn two_choices(
    endpoints: &[Arc<Endpoint>],
    now: u64,
    fits: impl Fn(&Endpoint) -> bool,
) -> Option<&Arc<Endpoint>> {
    let first = draw(endpoints, &fits)?;
    let second = draw(endpoints, |endpoint| {
        !std::ptr::eq(endpoint, first.as_ref()) && fits(endpoint)
    });
    Some(match second {
        Some(second) if second.cost(now) < first.cost(now) => second,
        _ => first,
    })
}

/// The first that fits, counted from a random place: constant time while most fit.
fn draw(endpoints: &[Arc<Endpoint>], fits: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
    let (before, after) = endpoints.split_at_checked(random_below(endpoints.len()))?;
    after.iter().chain(before).find(|endpoint| fits(endpoint))
}
