//! What `/apis` and `tollgate status` show of each API.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tollgate_policy::settings::HostPattern;

use super::Entry;
use crate::api::Api;

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
    /// Operations that demand a credential and therefore answer 401.
    pub demanding: usize,
    /// Hosts, empty for any.
    pub hosts: Vec<String>,
    /// Base paths.
    pub bases: Vec<String>,
    /// When this generation was loaded, RFC 3339.
    pub loaded_at: String,
    /// The last error, one finding per line; empty for none.
    pub last_error: String,
    /// Warnings of the served generation.
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
    pub(super) fn of(name: &str, entry: &Entry) -> Self {
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
                .unwrap_or_default(),
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

/// `2026-01-31T09:05:00Z` (RFC 3339). Days to date after Howard Hinnant's `civil_from_days`, for times since 1970.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, expected) in table {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
