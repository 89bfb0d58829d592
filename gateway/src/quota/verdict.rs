//! What reserving came to, in the answer a caller gets and in the words log and explanations keep.

use std::borrow::Cow;

use tollgate_policy::access::{Outcome, Values, Witness};
use tollgate_policy::quota::CostSource;
use tollgate_policy::quota::cell::Ticks;

use super::{Charges, Named, Unpaid};
use crate::api::Api;
use crate::journey::Asked;
use crate::verdict::RequestValues;

/// What a call says of its cost. Naming less than one buys nothing for nothing.
pub(crate) fn cost_of(source: &CostSource, api: &Api, asked: &Asked<'_>) -> Named {
    let values = RequestValues { api, asked };
    let mut named = Named::default();
    let mut reads = |text: &str| match text.trim().parse::<u64>() {
        Ok(cost) => named.largest = named.largest.max(Some(cost.max(1))),
        Err(_) => named.unreadable = true,
    };
    // Nobody knows which of several the service goes by.
    match source {
        CostSource::Path(name) => values.path(name).iter().for_each(|text| reads(text)),
        CostSource::Query(name) => values.query_all(name).for_each(|text| reads(&text)),
        CostSource::Header(name) => {
            let elements = values.header_all(name).flat_map(|line| line.split(','));
            elements.for_each(reads);
        }
        CostSource::Fixed | CostSource::ResponseHeader(_) | CostSource::ResponseBytes { .. } => {}
    }
    named
}

/// Which limit refused, with its place, for the log.
pub(crate) fn reason_of(why: &Unpaid) -> Cow<'static, str> {
    let Some(limit) = why.limit() else {
        return Cow::Borrowed("the usage journal is full");
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
    refused: Option<&Unpaid>,
    now: Ticks,
    witness: &mut impl Witness,
) {
    if !witness.attentive() {
        return;
    }
    let culprit = refused.and_then(Unpaid::limit);
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
