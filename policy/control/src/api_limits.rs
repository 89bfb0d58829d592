//! The limits of APIs, as far as the control plane has to know them: what is overridden has to be there. Whoever loads APIs in this
//! process tells them; nodes count by what they were given.

use std::sync::Arc;

use tollgate_policy::quota::Limit;

use crate::Control;
use crate::index::Index;
use crate::refusal::Refusal;

/// The limits of an API, by its name; `None`: there is no such API.
pub type ApiLimits = Arc<dyn Fn(&str) -> Option<Vec<Arc<Limit>>> + Send + Sync>;

impl Control {
    /// Says where limits of APIs are asked for from now on.
    pub fn knows_apis(&self, limits: ApiLimits) {
        *self.inner.api_limits.write() = Some(limits);
    }

    /// The limit of a plan (`plan/<plan>/<name>`) or an API (`api/<api>/<name>`).
    pub(crate) fn limit(&self, index: &Index, id: &str) -> Result<Arc<Limit>, Refusal> {
        let named = id.split_once('/');
        let (kind, name) = named.unwrap_or_default();
        let (name, _) = name.split_once('/').unwrap_or((name, ""));
        let limits = match kind {
            "api" => self.of_api(name)?,
            _ => {
                let plan = index.plans.get(name);
                let plan = plan.ok_or_else(|| Refusal::missing("plan", name))?;
                plan.limits.clone()
            }
        };
        let found = limits.into_iter().find(|it| *it.id == *id);
        found.ok_or_else(|| Refusal::missing("limit", id))
    }

    fn of_api(&self, api: &str) -> Result<Vec<Arc<Limit>>, Refusal> {
        let known = self.inner.api_limits.read().clone();
        let known = known.ok_or_else(|| {
            Refusal::Unavailable("APIs are not loaded here yet; try again in a moment".to_owned())
        })?;
        known(api).ok_or_else(|| Refusal::missing("API", api))
    }
}
