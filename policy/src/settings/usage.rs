//! `usage` of `tollgate.yaml`: how what was served is written down.

use std::sync::Arc;

/// The usage journal of a process, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageConfig {
    /// What this process is called in usage records; `None`: the name of the machine.
    pub node: Option<Arc<str>>,
    /// Bytes the journal may take on disk, for when nobody takes what it holds. Default 1 GiB.
    pub max_bytes: u64,
    /// Whether calls that are billed are served when there is no room to record them (default: no).
    pub serve_unmetered: bool,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            node: None,
            max_bytes: 1 << 30,
            serve_unmetered: false,
        }
    }
}
