//! How many names of cost units the operations of an API have: each is a number that usage keeps for ever more calls, so a file that
//! makes up new ones without end is not served.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ApiConfig;
use crate::finding::{Finding, Place, Severity};
use crate::openapi::Description;
use crate::quota::{METERS_PER_API, METERS_PER_CALL, Metric};

/// Whether an operation, or the API as a whole, costs something in too many names.
pub fn too_many_meters(config: &ApiConfig, description: &Description) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut all: BTreeSet<Metric> = BTreeSet::new();
    for operation in &description.operations {
        let costs = config.settings_for(operation).costs.unwrap_or_default();
        let costs = costs.into_iter().map(|cost| cost.metric);
        let units: BTreeSet<Metric> = costs.filter(|it| matches!(it, Metric::Units(_))).collect();
        if units.len() > METERS_PER_CALL {
            let what = format!(
                "a call of `{}` costs something in {} names of cost units, all places that say so together; {METERS_PER_CALL} are kept",
                operation.name,
                units.len()
            );
            found.push(finding(description, what));
        }
        all.extend(units);
    }
    if all.len() > METERS_PER_API {
        let what = format!(
            "the operations cost something in {} names of cost units together; {METERS_PER_API} are kept",
            all.len()
        );
        found.push(finding(description, what));
    }
    found
}

fn finding(description: &Description, what: String) -> Finding {
    Finding {
        severity: Severity::Error,
        code: "too-many-meters",
        place: Place::file(Arc::clone(&description.file)),
        what,
        remedy: "give what means the same the same name".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;
    use crate::openapi::load_text;
    use crate::settings::SecurityMode;

    /// So many operations, each with costs in these names.
    fn found(operations: usize, names: impl Fn(usize) -> Vec<String>) -> Vec<String> {
        let mut text = "openapi: 3.1.0\ninfo: { title: T, version: '1' }\npaths:\n".to_owned();
        for n in 0..operations {
            let costs = names(n);
            let costs: Vec<String> = costs.iter().map(|name| format!("{name}: 1")).collect();
            let costs = costs.join(", ");
            let quota = "x-google-quota: { metricCosts: {";
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  /p{n}:\n    get: {{ {quota} {costs} }} }}, responses: {{}} }}"
            );
        }
        let description = load_text("api.yaml", &text).unwrap();
        let path = Path::new("api.yaml");
        let config = ApiConfig::for_spec(path, "http://127.0.0.1", SecurityMode::Off).unwrap();
        let found = too_many_meters(&config, &description);
        found.into_iter().map(|it| it.what).collect()
    }

    #[test]
    fn names_of_cost_units_have_a_bound_by_call_and_by_api() {
        let meters = |from: usize, count: usize| -> Vec<String> {
            (from..from + count).map(|n| format!("meter{n}")).collect()
        };
        assert!(found(3, |n| meters(n * 16, 16)).is_empty());
        assert!(found(9, |_| meters(0, 16)).is_empty(), "the same names");
        let call = found(1, |_| meters(0, 17));
        assert!(call.concat().contains("17 names of cost units"), "{call:?}");
        let api = found(5, |n| meters(n * 13, 13));
        assert!(
            api.concat().contains("65 names of cost units together"),
            "{api:?}"
        );
    }
}
