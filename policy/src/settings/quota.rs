//! `quota` of `tollgate.yaml`: how limits are told of.

use std::sync::Arc;

/// How the limits of a process are told of, as meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Where limits that come to 50, 80 and 100 % are told, as CloudEvents; `None`: in the log and the metrics alone.
    pub webhook: Option<Arc<str>>,
    /// Also send `X-RateLimit-Limit`, `-Remaining` and `-Reset`. Default: no.
    pub legacy_fields: bool,
}
