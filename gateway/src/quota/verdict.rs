//! What reserving came to, in the answer a caller gets and in the words log and explanations keep.

use std::borrow::Cow;

use tollgate_policy::access::{Outcome, Values, Witness};
use tollgate_policy::quota::CostSource;
use tollgate_policy::quota::cell::Ticks;

use super::{Charges, Unreserved};
use crate::api::Api;
use crate::denial::Denial;
use crate::journey::Asked;
use crate::verdict::RequestValues;

/// The whole number a call's cost is read from. Naming less than one buys nothing for nothing.
pub(crate) fn cost_of(source: &CostSource, api: &Api, asked: &Asked<'_>) -> Option<u64> {
    let values = RequestValues { api, asked };
    let text = match source {
        CostSource::Query(name) => values.query(name)?,
        CostSource::Header(name) => values.header(name)?,
        CostSource::Fixed | CostSource::ResponseHeader(_) | CostSource::ResponseBytes { .. } => {
            return None;
        }
    };
    text.trim().parse::<u64>().ok().map(|cost| cost.max(1))
}

/// The answer to a call that was not charged.
pub(crate) fn unreserved(why: Unreserved) -> Denial {
    match why {
        Unreserved::Exceeded(exceeded) => Denial::QuotaExhausted(exceeded),
        Unreserved::Unknown(limit) => Denial::QuotaUnknown(limit),
    }
}

/// Which limit refused, with its place, for the log.
pub(crate) fn reason_of(why: &Unreserved) -> Cow<'static, str> {
    let limit = match why {
        Unreserved::Exceeded(exceeded) => &exceeded.limit,
        Unreserved::Unknown(limit) => limit,
    };
    let rule = super::rule_of(limit);
    Cow::Owned(match &rule.place {
        Some(place) => format!("limit {} ({place})", rule.name),
        None => format!("limit {}", rule.name),
    })
}

/// Tells a witness how every limit of a call stands. `refused` is the one that refused it.
pub(crate) fn tell(
    charges: &Charges,
    refused: Option<&Unreserved>,
    now: Ticks,
    witness: &mut impl Witness,
) {
    if !witness.attentive() {
        return;
    }
    let culprit = refused.map(|why| match why {
        Unreserved::Exceeded(exceeded) => &exceeded.limit,
        Unreserved::Unknown(limit) => limit,
    });
    for toll in &charges.tolls {
        let (closest, stand) = toll.closest(now);
        for limit in toll.limits() {
            let outcome = if culprit.is_some_and(|culprit| culprit.id == limit.id) {
                Outcome::Refused
            } else {
                Outcome::Passed
            };
            let rule = super::rule_of(limit);
            let (amount, metric) = (limit.amount, limit.metric.as_str());
            if limit.id == closest.id {
                let left = stand.left;
                witness.rule(
                    &rule,
                    outcome,
                    format_args!("{left} of {amount} {metric} left"),
                );
            } else {
                witness.rule(&rule, outcome, format_args!("of {amount} {metric}"));
            }
        }
    }
}
