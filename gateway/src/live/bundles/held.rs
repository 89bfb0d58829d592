//! A bundle as it is held, and its API file as this machine reads it.

use std::path::Path;

use tollgate_policy::settings::{self, ApiConfig, UpstreamConfig, UpstreamProtocol};
use tollgate_policy::{Finding, Place, Severity};

use super::super::copies::{Kept, Stamp};

/// A bundle, as held.
#[derive(Debug)]
pub(in crate::live) struct Held {
    pub(super) name: String,
    pub(in crate::live) kept: Kept,
    pub(in crate::live) stamp: Stamp,
    pub(super) app: Option<UpstreamConfig>,
    /// Why it will not be there after a restart.
    pub(super) trouble: Option<String>,
}

impl Held {
    /// The API file, where it lies on the control plane's machine.
    pub(in crate::live) fn file(&self) -> &Path {
        let file = self.kept.original.as_deref();
        file.unwrap_or(&self.kept.directory)
    }

    /// Its API file, with the references of this machine.
    pub(in crate::live) fn read(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ApiConfig, Vec<Finding>> {
        let copy_of = |file: &Path| self.kept.copy_of(file);
        let copy = self.kept.api_file.as_deref().unwrap_or(self.file());
        let mut config = settings::read_kept_api(copy, self.file(), &copy_of, environment)?;
        if *config.name != *self.name {
            return Err(vec![Finding {
                severity: Severity::Error,
                code: "api-name",
                place: Place::file(self.file().display().to_string()),
                what: format!("this is the file of another API than `{}`", self.name),
                remedy: "publish each API under the name of its file".to_owned(),
            }]);
        }
        if let Some(app) = &self.app {
            stand_before(app, &mut config);
        }
        Ok(config)
    }
}

/// Has the app called instead of what the file names. How long to wait and how often to try stays as the file says.
fn stand_before(app: &UpstreamConfig, config: &mut ApiConfig) {
    let upstream = &mut config.upstream;
    upstream.endpoints.clone_from(&app.endpoints);
    upstream.tls.clone_from(&app.tls);
    upstream.protocol = match config.grpc {
        // There is no other way to speak gRPC.
        Some(_) => UpstreamProtocol::Http2,
        None => app.protocol,
    };
}
