//! Overrides held against the limits they are about: names that are not there, limits of others, quantities of something else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::decode::nearest;
use super::mention::{Named, warning};
use super::{ConsumerConfig, DirectoryConfig, Grantee, Override};
use crate::directory::{Defined, Plan};
use crate::finding::{Finding, Place, Severity};
use crate::quota::Limit;

/// Overrides of plans' limits: of what no plan has, of what is not the grantee's, and of plans the grantee has no part in.
pub(super) fn of_plans<'c>(
    plans: &[Arc<Plan>],
    consumers: &[ConsumerConfig],
    granted: impl Iterator<Item = (Grantee, &'c Arc<str>, &'c Override)>,
) -> Vec<Finding> {
    let limits = plans.iter().flat_map(|plan| &plan.limits);
    let limits: HashMap<&str, &Arc<Limit>> = limits.map(|it| (&*it.id, it)).collect();
    let consumers = consumers.iter().filter(|it| !it.overrides.is_empty());
    let consumers: HashMap<&Arc<str>, &ConsumerConfig> =
        consumers.map(|it| (&it.name, it)).collect();
    let mut found = Vec::new();
    for (grantee, name, one) in granted.filter(|it| it.2.api().is_none()) {
        let Defined::File(place) = &one.origin else {
            continue;
        };
        let Some(limit) = limits.get(&*one.limit) else {
            let near = nearest(&one.limit, limits.keys().copied());
            let what = format!("there is no limit `{}`", one.limit);
            let missing = warning("unknown-name", place, what, near, "write it in plans.yaml");
            found.push(error(missing));
            continue;
        };
        found.extend(misplaced(grantee, one, limit, place).map(error));
        if grantee == Grantee::Consumer {
            let consumer = consumers.get(name);
            found.extend(consumer.and_then(|it| useless(it, one, place)));
        }
    }
    found
}

/// Overrides of APIs' limits. What cannot be known, because an API could not be read, is not judged.
pub(super) fn across(config: &DirectoryConfig, apis: &BTreeMap<String, Named>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (grantee, _, one) in config.overrides() {
        let (Some(name), Defined::File(place)) = (one.api(), &one.origin) else {
            continue;
        };
        let Some(api) = apis.get(name) else {
            let what = format!("there is no API `{name}`");
            let near = nearest(name, apis.keys().map(String::as_str));
            let otherwise = "write its file in apis/, or correct the name";
            found.push(warning("unknown-api", place, what, near, otherwise));
            continue;
        };
        if api.is_unread() {
            continue;
        }
        match api.limits.iter().find(|it| it.id == one.limit) {
            Some(limit) => found.extend(misplaced(grantee, one, limit, place)),
            None => {
                let what = format!("there is no limit `{}`", one.limit);
                let near = nearest(&one.limit, api.limits.iter().map(|it| &*it.id));
                let otherwise = "write it in the API's file, or correct the name";
                found.push(warning("unknown-limit", place, what, near, otherwise));
            }
        }
    }
    found
}

/// What is not the grantee's to have more of, or no amount of what the limit counts.
fn misplaced(grantee: Grantee, one: &Override, limit: &Limit, place: &Place) -> Option<Finding> {
    if let Some((what, remedy)) = grantee.is_none_of(limit) {
        return Some(warning("bad-value", place, what, None, &remedy));
    }
    let metric = limit.metric.as_str();
    let what = format!(
        "`{}` counts {metric}, and this is no amount of it",
        one.limit
    );
    let wrong = || warning("bad-value", place, what, None, "write it as the limit does");
    one.applied(limit).is_none().then(wrong)
}

/// Of a plan that a consumer did not subscribe to. Projects and organisations have consumers that no file knows.
fn useless(consumer: &ConsumerConfig, one: &Override, place: &Place) -> Option<Finding> {
    let plan = one.limit.split('/').nth(1)?;
    let mut sold = consumer.subscriptions.iter();
    if sold.any(|(_, sold)| **sold == *plan) {
        return None;
    }
    let what = format!("`{}` has no part in plan `{plan}`", consumer.name);
    let remedy = "name a limit of a plan it subscribed to";
    Some(warning("useless-override", place, what, None, remedy))
}

fn error(finding: Finding) -> Finding {
    Finding {
        severity: Severity::Error,
        ..finding
    }
}
