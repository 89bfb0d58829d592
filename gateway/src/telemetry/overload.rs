//! The part of the metrics page about the workers' loops. What the guard refused is counted as every denial is, by cause.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::series::{head, line};
use crate::overload::{Gauges, Overload};

/// Adds to the page how far the workers are behind, and what they do about it.
pub fn write_overload(page: &mut String, overload: &Overload) {
    let workers = overload.workers();
    let mut family = |name: &str, help: &str, value: fn(&Gauges) -> String| {
        head(page, name, "gauge", help);
        for (index, gauges) in workers.iter().enumerate() {
            let value = value(gauges);
            line(page, format_args!("{name}{{worker=\"{index}\"}} {value}"));
        }
    };
    family(
        "tollgate_worker_lag_seconds",
        "How late the loop of a worker was in the last window.",
        |it| {
            let late = Duration::from_nanos(it.late.load(Relaxed));
            format!("{}.{:06}", late.as_secs(), late.subsec_micros())
        },
    );
    family(
        "tollgate_worker_calls_in_flight",
        "Calls of a worker that hold a place.",
        |it| it.in_flight.load(Relaxed).to_string(),
    );
    family(
        "tollgate_worker_calls_per_second_limit",
        "Calls a second a saturated worker admits; +Inf where it keeps up.",
        |it| match it.limit.load(Relaxed) {
            0 => "+Inf".to_owned(),
            limit => limit.to_string(),
        },
    );
}
