//! What happened: metrics, access records, trace context, request ids.
//!
//! Promises: the request path adds to atomics and copies bytes, and neither waits nor allocates per series; whatever
//! a stranger sends, the number of series stays that of the configuration. Not here: sending traces anywhere.

mod access_log;
pub(crate) mod digits;
mod json;
mod metrics;
mod process;
mod request_id;
mod series;
mod trace;

pub use access_log::{AccessLog, AccessRecord};
pub use metrics::Metrics;
pub use request_id::RequestId;
pub use series::{Finished, OperationMetrics};
pub use trace::TraceContext;
