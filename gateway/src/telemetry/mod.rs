//! What happened: metrics, access records, trace context, request ids.
//!
//! Promises: the request path adds to atomics and copies bytes, and neither waits nor allocates per series; whatever
//! a stranger sends, the number of series stays that of the configuration. Not here: sending traces anywhere.

mod access_log;
mod callers;
mod cost;
pub(crate) mod digits;
mod json;
mod metrics;
mod overload;
mod process;
mod request_id;
mod series;
mod trace;
mod workloads;

use std::time::SystemTime;

pub use access_log::{AccessLog, AccessRecord};
pub use callers::write_callers;
pub use cost::write_costs;
pub use metrics::Metrics;
pub use overload::write_overload;
pub use request_id::RequestId;
pub use series::{Finished, OperationMetrics};
pub use trace::TraceContext;
pub use workloads::Workloads;

/// A time as logs and status pages show it: `2026-01-31T09:05:00.123Z` (RFC 3339, in UTC).
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let mut text = Vec::new();
    json::write_time(&mut text, time);
    String::from_utf8(text).unwrap_or_default()
}
