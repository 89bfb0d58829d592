//! Who would have been refused: rules in `shadow`, counted by API, rule and consumer.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tollgate_policy::Place;
use tollgate_policy::access::RuleRef;

/// Entries kept; a consumer beyond them is counted under `(others)`.
const MOST: usize = 10_000;

/// Would-be refusals since the start. Held for moments, and only by calls that a shadow rule would have refused.
#[derive(Debug, Default)]
pub struct Shadows {
    counts: Mutex<HashMap<Key, Count>>,
}

/// API, kind and name of the rule, consumer.
type Key = (Arc<str>, &'static str, Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Count {
    calls: u64,
    place: Option<Place>,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShadowLine {
    /// API.
    pub api: String,
    /// Kind of the rule.
    pub kind: String,
    /// Name of the rule.
    pub rule: String,
    /// Where it is said; empty where nowhere.
    pub place: String,
    /// Consumer; empty for callers who are none.
    pub consumer: String,
    /// Calls that would have been refused.
    pub calls: u64,
}

impl Shadows {
    /// Counts one would-be refusal.
    pub fn count(&self, api: &Arc<str>, rule: &Arc<RuleRef>, consumer: &Arc<str>) {
        let key = |consumer| (api.clone(), rule.kind, rule.name.clone(), consumer);
        let mut counts = self.counts.lock();
        let own = key(consumer.clone());
        let key = match counts.contains_key(&own) || counts.len() < MOST {
            true => own,
            false => key("(others)".into()),
        };
        let count = counts.entry(key).or_default();
        count.calls += 1;
        count.place.clone_from(&rule.place);
    }

    /// All of them, sorted.
    pub fn report(&self) -> Vec<ShadowLine> {
        let counts = self.counts.lock();
        let line = |((api, kind, rule, consumer), count): (&Key, &Count)| ShadowLine {
            api: api.to_string(),
            kind: (*kind).to_owned(),
            rule: rule.to_string(),
            place: count
                .place
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            consumer: consumer.to_string(),
            calls: count.calls,
        };
        let mut lines: Vec<_> = counts.iter().map(line).collect();
        drop(counts);
        lines.sort();
        lines
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn would_be_refusals_are_counted_by_rule_and_consumer_within_bounds() {
        let shadows = Shadows::default();
        let rule = Arc::new(RuleRef {
            kind: "acl",
            name: "partners".into(),
            place: None,
        });
        let api: Arc<str> = "books".into();
        for number in 0..MOST + 5 {
            shadows.count(&api, &rule, &format!("c{number:05}").into());
        }
        shadows.count(&api, &rule, &"c00000".into());
        let report = shadows.report();
        assert_eq!((&*report[0].consumer, report[0].calls), ("(others)", 5));
        assert_eq!((&*report[1].consumer, report[1].calls), ("c00000", 2));
        assert_eq!(report.len(), MOST + 1);
    }
}
