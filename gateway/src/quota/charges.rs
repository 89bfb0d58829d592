//! What a call is charged: its limits and its cost in each metric, put together once per caller and operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::access::RuleRef;
use tollgate_policy::directory::Caller;
use tollgate_policy::quota::cell::{Closest, Ticks};
use tollgate_policy::quota::{
    Cost, CostSource, Counter, CounterKey, Counts, Limit, Metric, OnUnavailable, Scope, Subject,
};
use tollgate_policy::settings::under;

use super::cells::{HeldCell, Varying};
use super::{Call, Exceeded, rule_of};
use crate::api::Api;

/// All tolls of one caller's calls to one operation.
#[derive(Debug)]
pub struct Charges {
    pub(super) tolls: Vec<Toll>,
    /// What is billed, whether a limit is about it or not: the operation's costs in money and cost units.
    pub(super) billed: Vec<Cost>,
}

/// A cost in one metric, and the cell it is taken from.
#[derive(Debug)]
pub struct Toll {
    pub(super) held: Arc<HeldCell>,
    pub(super) cost: Charged,
    /// What its smallest limit can ever hold: a call that costs more never passes.
    pub(super) most: u64,
    /// It counts calls that did not reach their service, too.
    pub(super) tried: bool,
    /// The first of its limits.
    first: Arc<Limit>,
}

/// How much is taken.
#[derive(Debug)]
pub(super) enum Charged {
    /// As the operation says.
    Said(Cost),
    /// Request and response bodies, known in the end.
    Bodies,
    /// Messages of a stream.
    Messages,
    /// Seconds of a stream.
    Seconds,
}

/// A cost the service tells in a response header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The header, lower case.
    pub header: Arc<str>,
    /// Its whole number.
    pub value: u64,
}

/// What a call says of its cost, in whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The largest of them.
    pub largest: Option<u64>,
    /// It also says something else.
    pub unreadable: bool,
}

/// What is known of a call when it ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled<'s> {
    /// It reached the service.
    pub reached: bool,
    /// Bytes of request body.
    pub request_bytes: u64,
    /// Bytes of response body.
    pub response_bytes: u64,
    /// Messages of a stream, both ways.
    pub messages: u64,
    /// Whole seconds it was open.
    pub seconds: u64,
    /// What the service's response headers say about costs.
    pub said: &'s [Said],
}

impl Charges {
    /// The limit that would refuse a call, as far as is known here; nothing is taken.
    pub fn would_refuse(
        &self,
        value: impl Fn(&CostSource) -> Named,
        now: Ticks,
    ) -> Option<Exceeded> {
        let mut tolls = self.tolls.iter();
        tolls.find_map(|toll| toll.would_refuse(toll.cost.before(&value), now))
    }

    /// Response headers of the service that costs are read from.
    pub fn response_headers(&self) -> impl Iterator<Item = &Arc<str>> {
        let tolls = self.tolls.iter().filter_map(|toll| match &toll.cost {
            Charged::Said(cost) => Some(cost),
            Charged::Bodies | Charged::Messages | Charged::Seconds => None,
        });
        tolls
            .chain(&self.billed)
            .filter_map(|cost| match &cost.source {
                CostSource::ResponseHeader(name) => Some(name),
                _ => None,
            })
    }
}

impl Charged {
    /// What has to be there before the call.
    pub(super) fn before(&self, value: impl Fn(&CostSource) -> Named) -> u64 {
        match self {
            // One, so that nothing passes once all is used.
            Self::Bodies | Self::Messages | Self::Seconds => 1,
            Self::Said(cost) => before(cost, value),
        }
    }

    /// What it came to, where `reserved` was taken.
    pub(super) fn after(&self, reserved: u64, settled: &Settled<'_>) -> u64 {
        match self {
            _ if !settled.reached => 0,
            Self::Bodies => settled.request_bytes.saturating_add(settled.response_bytes),
            Self::Messages => settled.messages,
            Self::Seconds => settled.seconds,
            Self::Said(cost) => after(cost, reserved, settled),
        }
    }
}

/// What a cost is before the call.
pub(super) fn before(cost: &Cost, value: impl Fn(&CostSource) -> Named) -> u64 {
    match cost.source {
        CostSource::Path(_) | CostSource::Query(_) | CostSource::Header(_) => {
            let Named {
                largest,
                unreadable,
            } = value(&cost.source);
            match largest {
                Some(largest) if unreadable => largest.max(cost.reserve),
                Some(largest) => largest,
                None => cost.reserve,
            }
        }
        CostSource::Fixed => cost.reserve,
        CostSource::ResponseHeader(_) | CostSource::ResponseBytes { .. } => cost.reserve.max(1),
    }
}

/// What a cost came to, where `reserved` was thought of before.
pub(super) fn after(cost: &Cost, reserved: u64, settled: &Settled<'_>) -> u64 {
    match &cost.source {
        _ if !settled.reached => 0,
        CostSource::Fixed | CostSource::Path(_) | CostSource::Query(_) | CostSource::Header(_) => {
            reserved
        }
        CostSource::ResponseHeader(name) => {
            let said = settled.said.iter().find(|said| said.header == *name);
            said.map_or(cost.reserve, |said| said.value)
        }
        CostSource::ResponseBytes { per } => settled.response_bytes.div_ceil(*per.max(&1)),
    }
}

impl Toll {
    /// Whether it is only counted.
    pub fn is_shadow(&self) -> bool {
        self.held.cell.is_shadow()
    }

    /// The limit closest to its end, and how it stands.
    pub fn closest(&self, now: Ticks) -> (&Arc<Limit>, Closest) {
        let closest = self.held.cell.closest(now);
        let counter = self.held.cell.counters().get(closest.counter);
        (counter.map_or(&self.first, |it| &it.limit), closest)
    }

    /// All its limits.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.held.cell.counters().iter().map(|it| &it.limit)
    }

    /// The rule it is, by its closest limit.
    pub fn rule(&self) -> Arc<RuleRef> {
        rule_of(self.closest(0).0)
    }

    /// Whether a call of this cost would be refused, as far as is known here.
    pub fn would_refuse(&self, cost: u64, now: Ticks) -> Option<Exceeded> {
        let (_, closest) = self.closest(now);
        let over = closest.reset == Some(Duration::ZERO);
        let refused =
            !self.is_shadow() && self.held.cell.is_known() && !over && closest.left < cost;
        refused.then(|| self.exceeded(now))
    }

    pub(super) fn exceeded(&self, now: Ticks) -> Exceeded {
        let (limit, closest) = self.closest(now);
        Exceeded {
            limit: Arc::clone(limit),
            left: closest.left,
            retry: closest.reset,
        }
    }

    pub(super) fn strictest(&self) -> Arc<Limit> {
        let closed = |it: &&Arc<Limit>| it.on_unavailable == OnUnavailable::FailClosed;
        Arc::clone(self.limits().find(closed).unwrap_or(&self.first))
    }
}

/// What a call touches; `None`: nothing.
pub(super) fn of(
    call: &Call<'_>,
    sold: &[Arc<Limit>],
    varying: &Varying,
    cell: impl Fn(Vec<Counter>) -> Arc<HeldCell>,
) -> Option<Arc<Charges>> {
    let operation = call.api.operations.get(call.operation)?;
    let caller = call.identified.identity.caller.as_deref();
    let access = call.api.access.operations.get(call.operation)?;
    let is_about = |limit: &Arc<Limit>| {
        let names = limit.operations.as_ref();
        names.is_none_or(|names| access.is_named_in(names))
    };
    let mut groups: BTreeMap<(Metric, bool, Counts), Vec<Counter>> = BTreeMap::new();
    let sold = sold.iter().cloned();
    for limit in own(call.api, caller).chain(sold).filter(is_about) {
        let (api, operation) = (&call.api.config.name, Some(&operation.name));
        let key = key(&limit, api, operation, caller, varying);
        let group = groups.entry((limit.metric.clone(), limit.shadow, limit.counts));
        group.or_default().push(Counter { key, limit });
    }
    let tolls = groups
        .into_iter()
        .filter_map(|((metric, _, counts), counters)| {
            let cost = charged(&metric, &operation.settings.costs)?;
            let first = Arc::clone(&counters.first()?.limit);
            let holds = |it: &Counter| it.limit.burst.unwrap_or(it.limit.amount);
            let most = counters.iter().map(holds).min().unwrap_or(0);
            let held = cell(counters);
            Some(Toll {
                tried: counts == Counts::Tried && metric != Metric::Concurrent,
                held,
                cost,
                most,
                first,
            })
        });
    let tolls: Vec<Toll> = tolls.collect();
    let costs = operation.settings.costs.iter();
    let billed = costs.filter(|cost| matches!(cost.metric, Metric::Money | Metric::Units(_)));
    let billed: Vec<Cost> = billed.cloned().collect();
    let nothing = tolls.is_empty() && billed.is_empty();
    (!nothing).then(|| Arc::new(Charges { tolls, billed }))
}

/// The API's own limits as this caller has them.
pub(super) fn own(api: &Api, caller: Option<&Caller>) -> impl Iterator<Item = Arc<Limit>> {
    let granted = caller.map_or(&[][..], |it| &it.consumer.overrides);
    api.limits.iter().map(|limit| under(limit, granted))
}

/// The counter of a limit for one caller.
pub(super) fn key(
    limit: &Limit,
    api: &Arc<str>,
    operation: Option<&Arc<str>>,
    caller: Option<&Caller>,
    varying: &Varying,
) -> CounterKey {
    let named = |held: bool, name: Option<&Arc<str>>| match name {
        Some(name) if held => Arc::clone(name),
        _ => "".into(),
    };
    CounterKey {
        limit: Arc::clone(&limit.id),
        api: named(limit.scope != Scope::Everything, Some(api)),
        operation: named(limit.scope == Scope::Operation, operation),
        subject: subject(limit.subject, caller, varying),
    }
}

/// What the operation costs in a metric; `None`: nothing.
fn charged(metric: &Metric, said: &[Cost]) -> Option<Charged> {
    if let Some(cost) = said.iter().find(|cost| cost.metric == *metric) {
        let free = cost.source == CostSource::Fixed && cost.reserve == 0;
        return (!free).then(|| Charged::Said(cost.clone()));
    }
    match metric {
        Metric::Calls | Metric::Concurrent => Some(Charged::Said(Cost {
            metric: metric.clone(),
            reserve: 1,
            source: CostSource::Fixed,
        })),
        Metric::Bytes => Some(Charged::Bodies),
        Metric::Messages => Some(Charged::Messages),
        Metric::StreamSeconds => Some(Charged::Seconds),
        Metric::Money | Metric::Units(_) => None,
    }
}

/// Whose counter it is. A caller that is nobody counts by its address, one without address with all others like it.
fn subject(subject: Subject, caller: Option<&Caller>, varying: &Varying) -> Arc<str> {
    let address = || match varying.address {
        Some(address) => format!("address:{address}"),
        None => "address:unknown".to_owned(),
    };
    let name = match (subject, caller) {
        (Subject::Everybody, _) => "everybody".to_owned(),
        (Subject::Address, _) | (_, None) => address(),
        (Subject::Organisation, Some(it)) => format!("organisation:{}", it.consumer.organisation),
        (Subject::Project, Some(it)) => format!("project:{}", it.consumer.project),
        (Subject::Consumer, Some(it)) => format!("consumer:{}", it.consumer.name),
        (Subject::Credential, Some(it)) => format!("credential:{}", it.credential.id),
        (Subject::EndUser, Some(it)) => match &varying.user {
            Some(user) => format!("user:{}:{user}", it.consumer.name),
            None => format!("credential:{}", it.credential.id),
        },
    };
    name.into()
}
