//! The part of the metrics page about what serving costs.

use std::fmt::Write as _;
use std::sync::Arc;

use super::series::head;
use crate::api::Api;
use crate::cost::{Account, Costs};

/// Label of what is no API's.
const NOBODY: &str = "none";

/// Adds to the page what each API costs.
pub fn write_costs(page: &mut String, costs: &Costs, apis: &[Arc<Api>]) {
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&Account) -> String| {
        head(page, name, kind, help);
        let mut line = |api: &str, account: &Account| {
            let value = value(account);
            // Writing to a string cannot fail. Names of APIs need no escaping.
            let _ = writeln!(page, "{name}{{api=\"{api}\"}} {value}");
        };
        for api in apis {
            line(&api.config.name, &api.traffic.cost);
        }
        line(NOBODY, costs.nobody());
    };
    family(
        "tollgate_api_cpu_seconds_total",
        "counter",
        "CPU time of the process by API, sampled; with `none` the sum is process_cpu_seconds_total.",
        |it| {
            let micros = it.cpu_nanos() / 1_000;
            format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
        },
    );
    family(
        "tollgate_api_connections",
        "gauge",
        "Connections of clients whose last call was the API's.",
        |it| it.connections().to_string(),
    );
    family(
        "tollgate_api_quota_cache_bytes",
        "gauge",
        "Memory of quota that is held for callers of the API.",
        |it| it.cache_bytes().to_string(),
    );
}
