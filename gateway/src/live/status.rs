//! What `/apis` and `tollgate status` show of each API.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tollgate_policy::settings::HostPattern;

use super::entry::Entry;
use crate::api::Api;
use crate::telemetry::rfc3339;

/// State of one API, as `/apis` and `tollgate status` show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiStatus {
    /// Name.
    pub name: String,
    /// The file it comes from.
    pub file: String,
    /// `serving`, `serving_previous` (the file is broken), `serving_last_known_good` (broken since start), `refused` (nothing
    /// usable), `conflicting` (another API has its host and base path).
    pub state: String,
    /// `info.version`.
    pub version: String,
    /// Generation served; 0 for none.
    pub generation: u64,
    /// Operations served.
    pub operations: usize,
    /// Operations that demand a credential.
    pub demanding: usize,
    /// Hosts, empty for any.
    pub hosts: Vec<String>,
    /// Base paths.
    pub bases: Vec<String>,
    /// When this generation was loaded, RFC 3339.
    pub loaded_at: String,
    /// The last error, one finding per line; empty for none.
    pub last_error: String,
    /// Warnings of the served generation, and what keeps its descriptors from being refreshed.
    pub warnings: Vec<String>,
    /// Requests finished.
    pub requests: u64,
    /// Refused by us.
    pub refused: u64,
    /// Failed upstream.
    pub failed: u64,
}

/// How an API is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Serving,
    ServingPrevious,
    ServingLastKnownGood,
    Refused,
    Conflicting,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::ServingPrevious => "serving_previous",
            Self::ServingLastKnownGood => "serving_last_known_good",
            Self::Refused => "refused",
            Self::Conflicting => "conflicting",
        }
    }
}

impl ApiStatus {
    pub(super) fn of(name: &str, entry: &Entry, trouble: Option<String>) -> Self {
        let api = entry.serving.as_ref().map(|served| &*served.api);
        let count = |of: fn(&Api) -> u64| api.map_or(0, of);
        Self {
            name: name.to_owned(),
            file: entry.source.file().display().to_string(),
            state: entry.state.as_str().to_owned(),
            version: api.map(|api| api.version.clone()).unwrap_or_default(),
            generation: count(|api| api.generation),
            operations: api.map_or(0, |api| api.operations.len()),
            demanding: api.map_or(0, Api::demanding),
            hosts: api.map(hosts).unwrap_or_default(),
            bases: api.map(bases).unwrap_or_default(),
            loaded_at: entry
                .serving
                .as_ref()
                .map(|s| rfc3339(s.loaded_at))
                .unwrap_or_default(),
            last_error: entry.last_error.clone(),
            warnings: entry
                .serving
                .as_ref()
                .map(|s| s.warnings.clone())
                .unwrap_or_default()
                .into_iter()
                .chain(trouble)
                .collect(),
            requests: count(|api| api.traffic.requests.load(Ordering::Relaxed)),
            refused: count(|api| api.traffic.refused.load(Ordering::Relaxed)),
            failed: count(|api| api.traffic.failed.load(Ordering::Relaxed)),
        }
    }
}

/// Hosts as written: `api.example.com`, `*.example.com`.
pub(super) fn hosts(api: &Api) -> Vec<String> {
    let written = |host: &HostPattern| match host {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    };
    api.config.hosts.iter().map(written).collect()
}

/// Base paths; the empty one as `/`.
pub(super) fn bases(api: &Api) -> Vec<String> {
    let shown = |base: &str| {
        if base.is_empty() {
            "/".to_owned()
        } else {
            base.to_owned()
        }
    };
    api.bases.iter().map(|base| shown(base)).collect()
}
