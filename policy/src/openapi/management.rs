//! `x-google-management` and `x-google-quota`: limits per project, and what operations cost in the metrics they count.
//!
//! Leniently: what cannot be read is a warning and limits nothing, and the rest counts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;

use super::finder::Finder;
use super::reference::Spot;
use super::{clip, text_of};
use crate::directory::Defined;
use crate::quota::{
    Cost, CostSource, Counts, LONGEST_METER, Limit, Metric, OnUnavailable, Scope, Subject, Window,
};
use crate::source::{Entry, Node};

/// Limits of a description, and metrics of an operation, that are read.
const MAX: usize = 64;

/// Longest name of a limit.
const LONGEST_NAME: usize = 63;

/// The limits of the document; their `id` is their name.
pub(super) fn limits(root: Spot<'_>, finder: &mut Finder) -> Vec<Arc<Limit>> {
    let Some(management) = root.get("x-google-management") else {
        return Vec::new();
    };
    let metrics = management.node.get("metrics").and_then(Node::as_list);
    let metrics = metrics.unwrap_or_default().iter();
    let metrics: HashSet<_> = metrics.filter_map(|it| it.get("name")?.as_str()).collect();
    let Some(quota) = management.get("quota") else {
        return Vec::new();
    };
    let Some(list) = quota.node.get("limits").and_then(Node::as_list) else {
        let what = "`x-google-management.quota` has no list of `limits`";
        finder.warn(quota.place(), CODE, what, "write one, or remove `quota`");
        return Vec::new();
    };
    let mut found: Vec<Arc<Limit>> = Vec::new();
    for node in list.iter().take(MAX) {
        let spot = quota.at(node);
        let Some(limit) = limit(spot, &metrics, finder) else {
            continue;
        };
        if found.iter().any(|other| other.name == limit.name) {
            let what = format!("limit `{}` stands twice, and counts once", limit.name);
            let remedy = "give each limit a name of its own";
            finder.warn(spot.place(), CODE, what, remedy);
            continue;
        }
        found.push(Arc::new(limit));
    }
    if list.len() > MAX {
        let what = format!("of {} limits the first {MAX} count", list.len());
        finder.warn(quota.place(), CODE, what, "keep those that matter");
    }
    found
}

const CODE: &str = "bad-quota";

fn limit(spot: Spot<'_>, metrics: &HashSet<&str>, finder: &mut Finder) -> Option<Limit> {
    let text = |key| spot.node.get(key).and_then(text_of);
    let mut warn = |what: String, remedy: &str| finder.warn(spot.place(), CODE, what, remedy);
    let (Some(written), Some(metric)) = (text("name"), text("metric")) else {
        let what = "a limit without `name` or `metric` is not read".to_owned();
        warn(what, "write both");
        return None;
    };
    let name = name(&written);
    if name.is_empty() || !is_metric(&metric) {
        let what = format!(
            "limit `{}` has no name or no metric we can count",
            clip(&written)
        );
        warn(what, "write letters, digits and `-`, at most 63");
        return None;
    }
    if !metrics.contains(metric.as_str()) {
        let what = format!("metric `{}` does not stand among `metrics`", clip(&metric));
        warn(what, "declare it there; it is counted all the same");
    }
    let unit = text("unit").unwrap_or_default();
    let window = window(&unit).unwrap_or_else(|| {
        let what = format!(
            "unit `{}` of limit `{name}` is read as 1/min/{{project}}",
            clip(&unit)
        );
        warn(what, "write 1/min/{project} or 1/d/{project}");
        MINUTE
    });
    let amount = amount(spot, &name, &mut warn)?;
    Some(Limit {
        id: name.as_str().into(),
        name: name.into(),
        metric: Metric::Units(metric.into()),
        amount,
        window,
        burst: None,
        subject: Subject::Project,
        scope: Scope::Api,
        operations: None,
        on_unavailable: OnUnavailable::default(),
        counts: Counts::default(),
        shadow: false,
        origin: Defined::File(spot.place()),
    })
}

/// What `values` say; `None`, where that is no limit.
fn amount(spot: Spot<'_>, name: &str, warn: &mut impl FnMut(String, &str)) -> Option<u64> {
    let values = spot.node.get("values");
    let standard = values.and_then(|values| values.get("STANDARD"));
    let amount = match standard.and_then(whole) {
        // Without end.
        Some(-1) => return None,
        Some(amount) if amount >= 0 => u64::try_from(amount).ok()?,
        _ => {
            let what = format!("limit `{name}` has no whole number in `values.STANDARD`");
            warn(
                what,
                "write `values: {STANDARD: 1000}`; until then it limits nothing",
            );
            return None;
        }
    };
    if values
        .and_then(Node::as_map)
        .is_some_and(|map| map.len() > 1)
    {
        let what = format!("of the values of limit `{name}` only `STANDARD` counts");
        warn(what, "write the others as limits of plans");
    }
    Some(amount)
}

const MINUTE: Window = Window::Span(Duration::from_secs(60));

/// `1/min/{project}`; `None` for what is none.
fn window(unit: &str) -> Option<Window> {
    let length = unit.strip_prefix("1/")?.strip_suffix("/{project}")?;
    let seconds = match length {
        "s" => 1,
        "min" => 60,
        "h" => 3_600,
        "d" => return Some(Window::Day(Tz::UTC)),
        "mo" => return Some(Window::Month(Tz::UTC)),
        _ => return None,
    };
    Some(Window::Span(Duration::from_secs(seconds)))
}

/// What can be told apart wherever usage is shown, and is short enough to be kept with it.
fn is_metric(name: &str) -> bool {
    let shown = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    (1..=LONGEST_METER).contains(&name.len()) && name.bytes().all(shown)
}

/// A limit's name in our letters.
fn name(written: &str) -> String {
    let fit = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    };
    let name: String = written.chars().map(fit).take(LONGEST_NAME).collect();
    name.trim_matches('-').to_owned()
}

/// Whole numbers of 64 bits are written as numbers or, as JSON of Google has them, as text.
fn whole(node: &Node) -> Option<i64> {
    text_of(node)?.parse().ok()
}

/// What `x-google-quota` says that calls cost; `None` where there is none.
pub(super) fn costs(owner: Spot<'_>, finder: &mut Finder) -> Option<Vec<Cost>> {
    let quota = owner.get("x-google-quota")?;
    let Some(metrics) = quota.node.get("metricCosts").and_then(Node::as_map) else {
        let what = "`x-google-quota` has no `metricCosts`, so calls cost nothing by it";
        finder.warn(
            quota.place(),
            CODE,
            what,
            "write `metricCosts: {metric: 1}`",
        );
        return None;
    };
    let entries = metrics.iter().take(MAX);
    Some(
        entries
            .filter_map(|entry| cost(quota, entry, finder))
            .collect(),
    )
}

fn cost(quota: Spot<'_>, entry: &Entry, finder: &mut Finder) -> Option<Cost> {
    let spot = quota.at(&entry.node);
    let reserve = whole(&entry.node).and_then(|cost| u64::try_from(cost).ok());
    if reserve.is_none() {
        let what = format!(
            "the cost in `{}` is no whole number from 0",
            clip(&entry.key)
        );
        let remedy = "write one; until then calls cost nothing in it";
        finder.warn(spot.place(), CODE, what, remedy);
    }
    if !is_metric(&entry.key) {
        let what = format!("`{}` is no metric we can count", clip(&entry.key));
        let remedy =
            "write letters, digits and `-_./`, at most 63; until then calls cost nothing in it";
        finder.warn(spot.place(), CODE, what, remedy);
        return None;
    }
    Some(Cost {
        metric: Metric::Units((&*entry.key).into()),
        reserve: reserve?,
        source: CostSource::Fixed,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::finding::Severity;
    use crate::openapi::load_text;

    #[test]
    fn odd_limits_are_warnings_and_the_rest_counts() {
        let right = "unit: '1/min/{project}', values: {STANDARD: 5}";
        let long = "m".repeat(64);
        let table = [
            ("{metric: m}".to_owned(), 0, "without `name` or `metric`"),
            (
                format!("{{name: a, metric: other, {right}}}"),
                1,
                "`other` does not stand among",
            ),
            (
                format!("{{name: a, metric: {long}, {right}}}"),
                0,
                "no metric we can count",
            ),
            (
                format!("{{name: '##', metric: m, {right}}}"),
                0,
                "has no name",
            ),
            (
                "{name: a, metric: m, values: {STANDARD: 5}}".to_owned(),
                1,
                "is read as 1/min",
            ),
            (
                "{name: a, metric: m, unit: 2/min, values: {STANDARD: 5}}".to_owned(),
                1,
                "unit `2/min`",
            ),
            (
                "{name: a, metric: m, unit: '1/h/{project}'}".to_owned(),
                0,
                "no whole number",
            ),
            (
                "{name: a, metric: m, unit: '1/s/{project}', values: {STANDARD: 1.5}}".to_owned(),
                0,
                "no whole number",
            ),
            (
                "{name: a, metric: m, unit: '1/s/{project}', values: {STANDARD: 1, HIGH: 2}}"
                    .to_owned(),
                1,
                "only `STANDARD` counts",
            ),
            (
                format!("{{name: A, metric: m, {right}}}, {{name: a, metric: m, {right}}}"),
                1,
                "stands twice",
            ),
            ("a".to_owned(), 0, "without `name` or `metric`"),
        ];
        for (limits, count, words) in table {
            let text = format!(
                "openapi: 3.0.0\nx-google-management:\n  metrics: [{{name: m}}]\n  quota: {{limits: [{limits}]}}\npaths: {{}}\n"
            );
            let description = load_text("spec.yaml", &text).unwrap();
            let [finding] = &*description.findings else {
                panic!("{limits}: {:?}", description.findings)
            };
            assert!(finding.what.contains(words), "{limits}: {finding}");
            assert_eq!(
                (finding.severity, finding.place.line),
                (Severity::Warning, 4)
            );
            assert_eq!(description.limits.len(), count, "{limits}");
        }
        let text = "openapi: 3.0.0\nx-google-management: {quota: {limit: 1}}\npaths: {}\n";
        let description = load_text("spec.yaml", text).unwrap();
        assert_eq!(description.findings.len(), 1);
    }
}
