//! One API as the data plane serves it: an immutable snapshot, compiled apart from all others.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tollgate_policy::Finding;
use tollgate_policy::classify::Classifier;
use tollgate_policy::openapi::Description;
use tollgate_policy::settings::ApiConfig;

use crate::telemetry::{Metrics, OperationMetrics};
use crate::upstream::Cluster;

/// One published OpenAPI file with its hosts, base paths, upstream and policy. Immutable.
#[derive(Debug)]
pub struct Api {
    /// What was configured.
    pub config: ApiConfig,
    /// `info.version` of the file.
    pub version: String,
    /// Counts up with each swap; 1 at first load.
    pub generation: u64,
    /// Routes.
    pub classifier: Classifier,
    /// Operations, by index of the classifier.
    pub operations: Vec<Operation>,
    /// Base paths served.
    pub bases: Vec<Arc<str>>,
    /// Endpoints.
    pub cluster: Arc<Cluster>,
    /// Series of requests that are no operation.
    pub unclassified: Arc<OperationMetrics>,
    /// Counts for `/apis`; shared by all generations.
    pub traffic: Arc<Traffic>,
}

/// What the path needs of an operation.
#[derive(Debug)]
pub struct Operation {
    /// As described in the file.
    pub described: tollgate_policy::openapi::Operation,
    /// Series.
    pub metrics: Arc<OperationMetrics>,
}

/// Counts of one API since the process started.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests that were finished.
    pub requests: AtomicU64,
    /// Refused by us.
    pub refused: AtomicU64,
    /// Failed upstream (502, 503, 504).
    pub failed: AtomicU64,
}

impl Api {
    /// Compiles one API. Does no I/O but reading the PEM files its upstream names.
    ///
    /// # Errors
    /// Findings of which at least one is an error.
    pub fn compile(
        config: ApiConfig,
        description: Description,
        generation: u64,
        previous: Option<&Api>,
        metrics: &Metrics,
    ) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let _ = (config, description, generation, previous, metrics);
        Err(Vec::new())
    }
}
