//! Limits held against the operations they are about: names that are not there, metrics nothing costs, calls that can never pass.
//! Nothing of it keeps a file from being served.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::ApiConfig;
use super::directory_file::Directory;
use super::mention::{Named, unknown_operation, warning};
use crate::directory::{Defined, Plan};
use crate::finding::{Finding, Place};
use crate::openapi::Description;
use crate::quota::{Cost, CostSource, Limit, Metric};

/// Metrics whose meaning is given.
const SEEN: [&str; 6] = [
    "calls",
    "bytes",
    "money",
    "concurrent",
    "messages",
    "stream_seconds",
];

/// What calls of one operation cost.
#[derive(Debug)]
pub(super) struct Charge {
    /// Its label-safe name, `METHOD /template`, `operationId`, and gRPC method.
    names: Vec<String>,
    costs: Vec<Cost>,
}

impl Charge {
    /// What the calls of each operation of an API cost.
    pub(super) fn all(config: &ApiConfig, description: &Description) -> Vec<Self> {
        let of = |operation: &crate::openapi::Operation| Self {
            names: operation.names().iter().map(ToString::to_string).collect(),
            costs: config.settings_for(operation).costs.unwrap_or_default(),
        };
        description.operations.iter().map(of).collect()
    }

    fn is_one_of(&self, names: Option<&[impl AsRef<str>]>) -> bool {
        names.is_none_or(|list| {
            let mut named = list.iter().map(AsRef::as_ref);
            named.any(|name: &str| self.names.iter().any(|own| own == name))
        })
    }

    fn cost(&self, metric: &Metric) -> Option<&Cost> {
        self.costs.iter().find(|cost| cost.metric == *metric)
    }

    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// The limits of one API.
pub(super) fn own(config: &ApiConfig, description: &Description) -> Vec<Finding> {
    let charges = Charge::all(config, description);
    let of = format!("of {}", description.file);
    let mut found = Vec::new();
    for limit in config.limits_for(description) {
        let all: Vec<&Charge> = charges.iter().collect();
        judge(&limit, &all, &of, &mut found);
    }
    found
}

/// The limits of all plans. What cannot be known, because an API is not there or could not be read, is not judged.
pub(super) fn across(directory: &Directory, apis: &BTreeMap<String, Named>) -> Vec<Finding> {
    let mut found = Vec::new();
    for plan in &directory.config.plans {
        let Some(opened) = opened(plan, apis) else {
            continue;
        };
        let of = format!("that plan `{}` opens", plan.name);
        for limit in &plan.limits {
            judge(limit, &opened, &of, &mut found);
        }
    }
    found
}

/// The operations a plan opens; `None` where that cannot be said.
fn opened<'a>(plan: &Plan, apis: &'a BTreeMap<String, Named>) -> Option<Vec<&'a Charge>> {
    let mut found: Vec<&Charge> = Vec::new();
    for part in &plan.apis {
        let any = &*part.api == "*";
        let here: Vec<&Named> = match any {
            true => apis.values().collect(),
            false => vec![apis.get(&*part.api)?],
        };
        for api in here {
            if api.is_unread() {
                return None;
            }
            let operations = part.operations.as_deref();
            found.extend(api.charges.iter().filter(|it| it.is_one_of(operations)));
        }
    }
    (!apis.is_empty()).then_some(found)
}

fn judge(limit: &Limit, charges: &[&Charge], of: &str, found: &mut Vec<Finding>) {
    let Defined::File(place) = &limit.origin else {
        return;
    };
    let known: HashSet<String> = charges.iter().flat_map(|it| it.names.clone()).collect();
    let before = found.len();
    for name in limit.operations.iter().flatten() {
        if !known.contains(&**name) {
            found.push(unknown_operation(name, place, &known, of));
        }
    }
    // One mistake should not look like two.
    if found.len() > before {
        return;
    }
    let named = limit.operations.as_deref();
    let reached = charges.iter().filter(|it| it.is_one_of(named));
    let reached: Vec<&Charge> = reached.copied().collect();
    found.extend(unreachable(limit, &reached, place).or_else(|| too_dear(limit, &reached, place)));
}

/// A limit on what no call costs.
fn unreachable(limit: &Limit, charges: &[&Charge], place: &Place) -> Option<Finding> {
    let costs_something = |charge: &&Charge| match charge.cost(&limit.metric) {
        Some(cost) => cost.reserve > 0 || cost.source != CostSource::Fixed,
        // Calls and bytes cost what they are.
        None => !matches!(limit.metric, Metric::Money | Metric::Units(_)),
    };
    if charges.iter().any(costs_something) {
        return None;
    }
    let metric = limit.metric.as_str();
    let what = format!(
        "limit `{}` counts `{metric}`, which no operation it is about costs: it can never be reached",
        limit.name
    );
    let otherwise = match limit.metric {
        Metric::Money => "write what calls cost: `cost: { money: 0.002 }`".to_owned(),
        Metric::Calls
        | Metric::Bytes
        | Metric::Concurrent
        | Metric::Messages
        | Metric::StreamSeconds
        | Metric::Units(_) => {
            format!("write what calls cost: `cost: {{ {metric}: 1 }}`")
        }
    };
    let costed = charges.iter().flat_map(|charge| &charge.costs);
    let known: BTreeSet<&str> = costed.map(|cost| cost.metric.as_str()).collect();
    let known = known.into_iter().chain(SEEN);
    let near = super::nearest(metric, known.filter(|name| *name != metric));
    Some(warning("unreachable-limit", place, what, near, &otherwise))
}

/// A call that costs more than there ever is at once.
fn too_dear(limit: &Limit, charges: &[&Charge], place: &Place) -> Option<Finding> {
    let (field, most) = match limit.burst {
        Some(burst) => ("burst", burst),
        None => ("amount", limit.amount),
    };
    // What allows nothing says so elsewhere.
    if limit.amount == 0 {
        return None;
    }
    let fixed = charges.iter().filter_map(|charge| {
        let cost = charge.cost(&limit.metric)?;
        (cost.source == CostSource::Fixed).then_some((cost.reserve, charge.name()))
    });
    let (dearest, name) = fixed.max_by_key(|(cost, _)| *cost)?;
    if dearest <= most {
        return None;
    }
    let written = |amount| super::amount::written(&limit.metric, amount);
    let what = format!(
        "a call of `{name}` costs {} in `{}`, more than `{field}` of limit `{}` ({}): it can never pass",
        written(dearest),
        limit.metric.as_str(),
        limit.name,
        written(most),
    );
    let otherwise = format!("write at least {} for `{field}`", written(dearest));
    Some(warning("never-passes", place, what, None, &otherwise))
}

#[cfg(test)]
mod tests;
