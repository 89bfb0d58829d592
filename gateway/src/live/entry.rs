//! One API file and what became of it: an attempt and a ruling turned into the API's new state, and told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tollgate_policy::Severity;

use super::attempt::{Attempt, Outcome};
use super::conflicts::Ruling;
use super::fingerprint::Fingerprint;
use super::load::{Loaded, Source};
use super::status::{self, State};
use super::{Live, Origin};
use crate::api::Api;

/// One API file and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) source: Source,
    /// Of the files of the last attempt.
    pub(super) fingerprint: Fingerprint,
    pub(super) state: State,
    pub(super) serving: Option<Served>,
    /// One finding per line; empty for none.
    pub(super) last_error: String,
}

/// The version that serves.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) api: Arc<Api>,
    pub(super) warnings: Vec<String>,
    pub(super) loaded_at: SystemTime,
}

/// An entry after an attempt.
pub(super) struct Settled {
    pub(super) name: String,
    pub(super) entry: Entry,
    /// The files to keep as last-known-good, where it is served anew.
    pub(super) fresh: Option<Vec<PathBuf>>,
}

impl Live {
    /// Turns an attempt into the API's new state.
    pub(super) fn settle(&self, attempt: Attempt, ruling: Ruling) -> Settled {
        let (name, before) = (attempt.name, attempt.before);
        let mut entry = Entry {
            source: attempt.source,
            fingerprint: attempt.fingerprint,
            state: State::Serving,
            serving: before.as_ref().and_then(|entry| entry.serving.clone()),
            last_error: String::new(),
        };
        let mut fresh = None;
        match (attempt.outcome, ruling) {
            (Outcome::Unchanged, _) => {
                if let Some(before) = &before {
                    entry.state = before.state;
                    entry.last_error.clone_from(&before.last_error);
                }
            }
            (Outcome::Postponed(entry), _) => {
                return Settled {
                    name,
                    entry: *entry,
                    fresh,
                };
            }
            (Outcome::Loaded(_) | Outcome::LastKnownGood(..), Ruling::Refused(conflict)) => {
                entry.state = State::Conflicting;
                entry.last_error = conflict;
            }
            (Outcome::Loaded(loaded), Ruling::Granted) => {
                fresh = Some(loaded.spec_files.clone());
                entry.serving = Some(self.serve(&name, loaded));
            }
            (Outcome::LastKnownGood(loaded, error), Ruling::Granted) => {
                entry.state = State::ServingLastKnownGood;
                entry.serving = Some(self.serve(&name, loaded));
                entry.last_error = error;
            }
            (Outcome::Broken(error), _) => {
                entry.state = broken(before.as_ref());
                entry.last_error = error;
            }
        }
        self.tell(&name, before.as_ref(), &entry, fresh.is_some());
        if let (Source::Bundle(_), None, Some(before)) = (&entry.source, &fresh, before)
            && before.serving.is_some()
        {
            // A bundle that is not served is not what is looked at later.
            entry.source = before.source;
            entry.fingerprint = before.fingerprint;
        }
        Settled { name, entry, fresh }
    }

    fn serve(&self, name: &str, loaded: Loaded) -> Served {
        self.tell_loaded(name, &loaded);
        if let Some(runtime) = &*self.runtime.lock() {
            let _context = runtime.enter();
            loaded.api.maintain(self.mesh());
        }
        let warnings = loaded
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Warning);
        Served {
            warnings: warnings.map(ToString::to_string).collect(),
            api: loaded.api,
            loaded_at: SystemTime::now(),
        }
    }

    /// Counts what happened, and says what went wrong where that is news.
    fn tell(&self, name: &str, before: Option<&Entry>, entry: &Entry, fresh: bool) {
        let earlier = before.map(|entry| entry.state);
        let well = entry.state == State::Serving;
        if fresh || !well || earlier != Some(State::Serving) {
            let serving = entry.serving.as_ref();
            let generation = serving.map_or(0, |served| served.api.generation);
            self.metrics.reloaded(name, well, generation);
        }
        let earlier_error = before.map_or("", |entry| &entry.last_error);
        if entry.last_error != earlier_error || earlier != Some(entry.state) {
            tell_trouble(name, entry);
        }
    }

    fn tell_loaded(&self, name: &str, loaded: &Loaded) {
        let (api, findings) = (&loaded.api, &loaded.findings);
        let hosts = match status::hosts(api) {
            hosts if hosts.is_empty() => "any host".to_owned(),
            hosts => hosts.join(", "),
        };
        let demanding = match (api.demanding(), &self.origin) {
            (0, _) => "none demands a credential".to_owned(),
            (count, Origin::Single(_)) => {
                format!("{count} demand a credential (`--security off` leaves that to the service)")
            }
            (count, Origin::Directory(_) | Origin::Bundles { .. }) => {
                format!("{count} demand a credential (`security: off` leaves that to the service)")
            }
        };
        tracing::info!(
            api = %name,
            generation = api.generation,
            "API {name}: {} operations on {hosts} under {}; {demanding}; {} findings",
            api.operations.len(),
            status::bases(api).join(", "),
            findings.len()
        );
        for finding in findings.iter().filter(|f| f.severity == Severity::Warning) {
            tracing::warn!(api = %name, "{finding}");
        }
    }
}

/// The state of an API whose file is broken.
fn broken(before: Option<&Entry>) -> State {
    match before.map(|entry| (entry.state, entry.serving.is_some())) {
        None | Some((_, false)) => State::Refused,
        Some((State::ServingLastKnownGood, true)) => State::ServingLastKnownGood,
        Some((_, true)) => State::ServingPrevious,
    }
}

/// Says why an API is not served from its file as it is now, and what is served instead.
fn tell_trouble(name: &str, entry: &Entry) {
    let instead = match (entry.state, &entry.serving) {
        (State::Serving, _) => return,
        (State::ServingLastKnownGood, _) => "the last-known-good version is served",
        (_, Some(_)) => "the previous version stays",
        (_, None) => "nothing is served",
    };
    tracing::error!(api = %name, "API {name}: {instead}, because of\n{}", entry.last_error);
}
