//! Health probes of an orchestrator on the port of the traffic: they go to the service as they come, and no policy is about them.
//!
//! Promises: GET and HEAD of exactly these paths, and only where no API has the path; no credential is asked for, nothing is charged
//! and no usage recorded. They are counted and logged as operation `probe` of no API. Not here: answering them.

use std::sync::Arc;

use pingora_http::RequestHeader;
use tollgate_policy::Finding;
use tollgate_policy::openapi;
use tollgate_policy::settings::ApiConfig;

use crate::api::Api;
use crate::denial::Denial;
use crate::journey::Called;
use crate::telemetry::Metrics;

/// The one operation all probes are. Calls are shed before an orchestrator is made to believe that the service is dead.
const DESCRIPTION: &str = r#"
openapi: 3.1.0
info: {title: probe, version: "1"}
paths:
  /:
    get:
      operationId: probe
      x-tollgate: {priority: critical}
      responses: {"200": {description: alive}}
"#;

/// What is probed.
#[derive(Debug)]
pub struct Probes {
    paths: Vec<Box<str>>,
    api: Arc<Api>,
}

impl Probes {
    /// Probes of `paths`, sent on as calls of `app` are.
    ///
    /// # Errors
    /// The service cannot be reached by what is said of it.
    pub fn new(
        paths: Vec<Box<str>>,
        mut app: ApiConfig,
        metrics: &Metrics,
    ) -> Result<Self, Vec<Finding>> {
        // No API of a file has an empty name: they are counted as `none`.
        app.name = "".into();
        let description = openapi::load_text("probe", DESCRIPTION)?;
        let (api, _) = Api::compile(app, description, None, 1, None, metrics)?;
        Ok(Self {
            paths,
            api: Arc::new(api),
        })
    }

    /// Where they go to.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// The call that a request is, which no API took for this reason.
    pub(crate) fn called(&self, why: &Denial, head: &RequestHeader, path: &str) -> Option<Called> {
        let untaken = matches!(why, Denial::UnknownApi | Denial::UnknownOperation);
        let asks = matches!(head.method, http::Method::GET | http::Method::HEAD);
        let probed = || self.paths.iter().any(|probed| **probed == *path);
        (untaken && asks && probed()).then(|| Called {
            api: Arc::clone(&self.api),
            operation: 0,
            route: 0,
            base_length: 0,
        })
    }
}
