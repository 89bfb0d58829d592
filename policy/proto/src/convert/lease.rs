//! Quota: frames of asks, and of what was granted.

use std::time::Duration;

use tollgate_policy::quota::{Counter, CounterKey, EmergencyShare, HolderId, LeaseAsk, LeaseGrant};

use super::{Common, Malformed, cut, list, needed, text, to_millis};
use crate::{Answer, wire};

/// One frame of asks. `number` is the sender's choice and comes back with the answer.
pub fn leases_request(number: u64, holder: HolderId, asks: &[LeaseAsk]) -> wire::LeasesRequest {
    wire::LeasesRequest {
        number,
        holder: holder.0,
        asks: asks.iter().map(wire::LeaseAsk::from).collect(),
    }
}

/// What a frame asks, and for whom.
///
/// # Errors
/// One of the asks cannot be used, or nobody asks.
pub fn lease_asks(request: wire::LeasesRequest) -> Result<(HolderId, Vec<LeaseAsk>), Malformed> {
    // Two that forgot to say who they are would be taken for one, and spend each other's leases.
    if request.holder == 0 {
        return Err(Malformed("leases_request.holder"));
    }
    let mut common = Common::default();
    let asks = list(request.asks, "leases_request.asks", |it| {
        ask(it, &mut common)
    })?;
    Ok((HolderId(request.holder), asks))
}

/// The answer to the frame of this number: one grant per ask, in the same order.
pub fn leases_response(number: u64, grants: &[LeaseGrant]) -> wire::LeasesResponse {
    wire::LeasesResponse {
        number,
        grants: grants.iter().map(wire::LeaseGrant::from).collect(),
        refused: String::new(),
    }
}

/// The answer to the frame of this number: why there are no grants. `why` must not be empty.
pub fn refused_leases(number: u64, why: &str) -> wire::LeasesResponse {
    wire::LeasesResponse {
        number,
        grants: Vec::new(),
        refused: cut(why),
    }
}

/// What was answered to `asks`: [`Answer::Leased`] or [`Answer::Refused`].
///
/// # Errors
/// The answer does not fit the asks: another number of grants, or one that names a counter its ask does not have.
pub fn leased(response: wire::LeasesResponse, asks: &[LeaseAsk]) -> Result<Answer, Malformed> {
    let refused = text(response.refused, "leases_response.refused")?;
    if !refused.is_empty() && response.grants.is_empty() {
        return Ok(Answer::Refused(refused.to_string()));
    }
    if !refused.is_empty() || response.grants.len() != asks.len() {
        return Err(Malformed("leases_response.grants"));
    }
    let mut fitting = asks.iter();
    let grants = list(response.grants, "leases_response.grants", |grant| {
        let grant = LeaseGrant::try_from(grant)?;
        let counters = fitting.next().map_or(0, |ask| ask.counters.len());
        if grant.closest >= counters {
            return Err(Malformed("lease_grant.closest"));
        }
        Ok(grant)
    })?;
    Ok(Answer::Leased(grants))
}

impl From<&LeaseAsk> for wire::LeaseAsk {
    fn from(ask: &LeaseAsk) -> Self {
        Self {
            cell: ask.cell,
            number: ask.number,
            counters: ask.counters.iter().map(wire::Counter::from).collect(),
            lease: ask.lease,
            spent: ask.spent,
            closed: ask.closed,
            owed: ask.owed,
            owed_known: ask.owed_known,
            want: ask.want,
            needed: ask.needed,
        }
    }
}

impl TryFrom<wire::LeaseAsk> for LeaseAsk {
    type Error = Malformed;

    fn try_from(it: wire::LeaseAsk) -> Result<Self, Malformed> {
        ask(it, &mut Common::default())
    }
}

fn ask(ask: wire::LeaseAsk, common: &mut Common) -> Result<LeaseAsk, Malformed> {
    if ask.number == 0 {
        return Err(Malformed("lease_ask.number"));
    }
    let counters = list(ask.counters, "lease_ask.counters", |it| counter(it, common))?;
    let mut metrics = counters.iter().map(|counter| &counter.limit.metric);
    let first = needed(metrics.next(), "lease_ask.counters")?;
    if metrics.any(|metric| metric != first) {
        return Err(Malformed("lease_ask.counters"));
    }
    Ok(LeaseAsk {
        cell: ask.cell,
        number: ask.number,
        counters: counters.into(),
        lease: ask.lease,
        spent: ask.spent,
        closed: ask.closed,
        owed: ask.owed,
        owed_known: ask.owed_known,
        want: ask.want,
        needed: ask.needed,
    })
}

impl From<&Counter> for wire::Counter {
    fn from(counter: &Counter) -> Self {
        Self {
            key: Some(wire::CounterKey::from(&counter.key)),
            limit: Some(wire::Limit::from(&*counter.limit)),
        }
    }
}

impl TryFrom<wire::Counter> for Counter {
    type Error = Malformed;

    fn try_from(it: wire::Counter) -> Result<Self, Malformed> {
        counter(it, &mut Common::default())
    }
}

fn counter(it: wire::Counter, common: &mut Common) -> Result<Counter, Malformed> {
    let key = CounterKey::try_from(needed(it.key, "counter.key")?)?;
    let limit = common.limit(needed(it.limit, "counter.limit")?)?;
    if key.limit != limit.id {
        return Err(Malformed("counter.limit"));
    }
    Ok(Counter { key, limit })
}

/// Counters, as they are sent.
pub fn written_counters(counters: &[Counter]) -> Vec<wire::Counter> {
    counters.iter().map(wire::Counter::from).collect()
}

/// Counters, as they were meant.
///
/// # Errors
/// One of them cannot be used.
pub fn counters(written: Vec<wire::Counter>) -> Result<Vec<Counter>, Malformed> {
    let mut common = Common::default();
    list(written, "about_consumer.limits", |it| {
        counter(it, &mut common)
    })
}

impl From<&LeaseGrant> for wire::LeaseGrant {
    fn from(grant: &LeaseGrant) -> Self {
        Self {
            number: grant.number,
            lease: grant.lease,
            tokens: grant.tokens,
            owed: grant.owed,
            lifetime_millis: to_millis(grant.lifetime),
            // More than any ask has: refused where it is read.
            closest: u32::try_from(grant.closest).unwrap_or(u32::MAX),
            rest: grant.rest,
            reset_millis: grant.reset.map(to_millis),
            credit: grant
                .emergency
                .iter()
                .map(|share| share.tokens)
                .min()
                .unwrap_or(0),
            emergency: grant
                .emergency
                .iter()
                .map(|share| wire::EmergencyShare {
                    tokens: share.tokens,
                    ends_millis: share.ends.map(to_millis),
                    period_millis: share.period.map(to_millis),
                })
                .collect(),
        }
    }
}

impl TryFrom<wire::LeaseGrant> for LeaseGrant {
    type Error = Malformed;

    fn try_from(grant: wire::LeaseGrant) -> Result<Self, Malformed> {
        let closest = usize::try_from(grant.closest).ok();
        Ok(Self {
            number: grant.number,
            lease: grant.lease,
            tokens: grant.tokens,
            owed: grant.owed,
            lifetime: Duration::from_millis(grant.lifetime_millis),
            closest: closest
                .filter(|closest| *closest < super::LONGEST_LIST)
                .ok_or(Malformed("lease_grant.closest"))?,
            rest: grant.rest,
            reset: grant.reset_millis.map(Duration::from_millis),
            emergency: list(grant.emergency, "lease_grant.emergency", |share| {
                Ok(EmergencyShare {
                    tokens: share.tokens,
                    ends: share.ends_millis.map(Duration::from_millis),
                    period: share.period_millis.map(Duration::from_millis),
                })
            })?,
        })
    }
}
