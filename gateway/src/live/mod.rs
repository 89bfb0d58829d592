//! Live configuration: each API is loaded, compiled and swapped apart from all others; a broken file leaves its API on the
//! previous version and touches no other.
//!
//! Readers take one `ArcSwap` load and never wait. Everything here that reads files blocks, and runs off the request threads.

mod conflicts;
mod fingerprint;
mod known_good;
mod load;
pub mod state_dir;
mod status;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch as watch_channel;
use tollgate_policy::settings::ApiConfig;
use tollgate_policy::{Finding, Severity};

pub use self::status::ApiStatus;

use self::conflicts::{Claimant, Ruling, claims};
use self::fingerprint::Fingerprint;
use self::known_good::{GENERATIONS, KnownGood};
use self::load::{Loaded, Source};
use self::status::State;
use crate::api::Api;
use crate::apis::Apis;
use crate::telemetry::Metrics;

/// Where the APIs come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// `--spec FILE --upstream URL`: one API, no configuration directory.
    Single(Box<ApiConfig>),
    /// `--config DIR`: `DIR/apis/*.yaml`.
    Directory(PathBuf),
}

/// Loads, watches, reloads.
#[derive(Debug)]
pub struct Live {
    apis: Arc<ArcSwap<Apis>>,
    origin: Origin,
    known_good: Option<KnownGood>,
    metrics: Arc<Metrics>,
    /// By name. Held for moments only.
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One reload at a time.
    reloading: Mutex<()>,
    /// How often the files were looked at.
    reloads: watch_channel::Sender<u64>,
    /// Where clusters look after themselves, once [`Live::maintain`] was called.
    runtime: Mutex<Option<Handle>>,
}

/// One API file and what became of it.
#[derive(Clone, Debug)]
struct Entry {
    source: Source,
    /// Of the files of the last attempt.
    fingerprint: Fingerprint,
    state: State,
    serving: Option<Served>,
    /// One finding per line; empty for none.
    last_error: String,
}

/// The version that serves.
#[derive(Clone, Debug)]
struct Served {
    api: Arc<Api>,
    warnings: Vec<String>,
    loaded_at: SystemTime,
}

/// A look at one API file.
struct Attempt {
    name: String,
    source: Source,
    before: Option<Entry>,
    fingerprint: Fingerprint,
    outcome: Outcome,
}

enum Outcome {
    Unchanged,
    Loaded(Loaded),
    LastKnownGood(Loaded, String),
    Broken(String),
}

impl Live {
    /// Loads everything once. Never fails for one bad API; `state_dir` holds last-known-good.
    ///
    /// # Errors
    /// The directory cannot be read at all.
    pub fn load(
        origin: Origin,
        state_dir: Option<PathBuf>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, String> {
        let live = Self {
            apis: Arc::default(),
            origin,
            known_good: state_dir.as_deref().map(KnownGood::new),
            metrics,
            entries: Mutex::default(),
            reloading: Mutex::new(()),
            reloads: watch_channel::Sender::new(0),
            runtime: Mutex::new(None),
        };
        live.refresh()?;
        Ok(Arc::new(live))
    }

    /// What the request path reads.
    pub fn apis(&self) -> &Arc<ArcSwap<Apis>> {
        &self.apis
    }

    /// Looks at all files again and swaps what changed. Called by the watcher and on SIGHUP. Blocks: not for request threads.
    pub fn reload(&self) {
        if let Err(error) = self.refresh() {
            tracing::error!("{error}; all APIs stay as they are");
        }
        self.reloads
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Counts reloads that are over, for those who wait for one.
    pub fn reloads(&self) -> watch_channel::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// Watches the files as long as this lives; spawns on the current runtime, also what keeps the clusters (see
    /// [`Live::maintain`]). Where the system offers no notification, files are looked at every few seconds.
    ///
    /// # Errors
    /// There is no current runtime.
    pub fn watch(self: &Arc<Self>) -> Result<(), String> {
        self.maintain()?;
        watch::start(self)
    }

    /// Has all clusters, those of later generations too, resolve names and check health on the current runtime.
    ///
    /// # Errors
    /// There is no current runtime.
    pub fn maintain(&self) -> Result<(), String> {
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        let _no_reload = self.reloading.lock();
        let first = self.runtime.lock().replace(runtime).is_none();
        if first {
            for api in self.apis.load().all() {
                api.cluster.maintain();
            }
        }
        Ok(())
    }

    /// Every API and its state, by name.
    pub fn statuses(&self) -> Vec<ApiStatus> {
        self.entries
            .lock()
            .iter()
            .map(|(name, entry)| ApiStatus::of(name, entry))
            .collect()
    }

    /// Every file whose change may change an API.
    fn files(&self) -> Vec<PathBuf> {
        let entries = self.entries.lock();
        let files = entries.values().flat_map(|entry| entry.fingerprint.files());
        files.cloned().collect()
    }

    fn refresh(&self) -> Result<(), String> {
        let _one_at_a_time = self.reloading.lock();
        let (sources, ignored) = load::sources(&self.origin)?;
        let before = self.entries.lock().clone();
        for text in &ignored {
            tracing::error!("{text}");
        }
        self.withdraw(&before, &sources);
        let attempts: Vec<Attempt> = sources
            .into_iter()
            .map(|(name, source)| self.attempt(before.get(&name), name, source))
            .collect();
        let rulings = conflicts::rule(&attempts.iter().map(Attempt::claimant).collect::<Vec<_>>());
        let mut entries = BTreeMap::new();
        let mut fresh = Vec::new();
        for (attempt, ruling) in attempts.into_iter().zip(rulings) {
            let (name, entry, spec_files) = self.settle(attempt, ruling);
            fresh.extend(spec_files.map(|files| (name.clone(), files)));
            entries.insert(name, entry);
        }
        self.publish(entries.clone());
        for (name, spec_files) in fresh {
            self.keep(&name, entries.get(&name), &spec_files);
        }
        Ok(())
    }

    /// What has no file any more.
    fn withdraw(&self, before: &BTreeMap<String, Entry>, sources: &BTreeMap<String, Source>) {
        for name in before.keys().filter(|name| !sources.contains_key(*name)) {
            tracing::info!(api = %name, "API {name}: its file is gone, so it is no longer served");
            self.metrics.forget_api(name);
            if let Some(Err(error)) = self.known_good.as_ref().map(|store| store.forget(name)) {
                tracing::warn!(api = %name, "API {name}: last-known-good stays on disk: {error}");
            }
        }
    }

    fn attempt(&self, before: Option<&Entry>, name: String, source: Source) -> Attempt {
        let unchanged = before.is_some_and(|entry| {
            // What is not well is tried again: what it lacked may be a file nobody could name.
            entry.state == State::Serving
                && entry.source.file() == source.file()
                && entry.fingerprint.still_holds()
        });
        if let (true, Some(entry)) = (unchanged, before) {
            let fingerprint = entry.fingerprint.clone();
            let before = Some(entry.clone());
            return Attempt {
                name,
                source,
                before,
                fingerprint,
                outcome: Outcome::Unchanged,
            };
        }
        let mut files: Vec<PathBuf> = source.api_file().map(PathBuf::from).into_iter().collect();
        let known = before.iter().flat_map(|entry| entry.fingerprint.files());
        let seen = Fingerprint::of(files.iter().chain(known));
        let started = SystemTime::now();
        let previous = before
            .and_then(|entry| entry.serving.as_ref())
            .map(|served| &*served.api);
        let generation = previous.map_or(0, |api| api.generation) + 1;
        let loaded = load::load(
            &source,
            &name,
            generation,
            previous,
            &self.metrics,
            &mut files,
        );
        let outcome = match loaded {
            Ok(loaded) => Outcome::Loaded(loaded),
            Err(findings) => {
                files.extend(seen.files().cloned());
                self.fall_back(&name, &source, before, lines(&findings, Severity::Warning))
            }
        };
        let fingerprint = seen.after_load(&files, started);
        Attempt {
            name,
            source,
            before: before.cloned(),
            fingerprint,
            outcome,
        }
    }

    /// A broken file: what is left to serve. Only a start looks on disk, later the previous version is in memory.
    fn fall_back(
        &self,
        name: &str,
        source: &Source,
        before: Option<&Entry>,
        error: String,
    ) -> Outcome {
        let Some(store) = self.known_good.as_ref().filter(|_| before.is_none()) else {
            return Outcome::Broken(error);
        };
        for generation in GENERATIONS {
            let kept = match store.read(name, generation) {
                Ok(kept) => kept,
                Err(why) => {
                    tracing::debug!(api = %name, generation, "no last-known-good: {why}");
                    continue;
                }
            };
            match load::load_kept(source, &kept, &self.metrics) {
                Ok(loaded) => return Outcome::LastKnownGood(loaded, error),
                Err(findings) => tracing::warn!(
                    api = %name,
                    "API {name}: last-known-good {generation} cannot be served: {}",
                    lines(&findings, Severity::Error)
                ),
            }
        }
        Outcome::Broken(error)
    }

    /// Turns an attempt into the API's new state; returns the files to keep as last-known-good where it is served anew.
    fn settle(&self, attempt: Attempt, ruling: Ruling) -> (String, Entry, Option<Vec<PathBuf>>) {
        let Attempt {
            name,
            source,
            before,
            fingerprint,
            outcome,
        } = attempt;
        let (earlier_error, earlier_state) = before
            .as_ref()
            .map_or_else(Default::default, |e| (e.last_error.clone(), Some(e.state)));
        let serving = before.and_then(|entry| entry.serving);
        let mut spec_files = None;
        let (state, serving, last_error) = match (outcome, ruling) {
            (Outcome::Unchanged, _) => (State::Serving, serving, String::new()),
            (Outcome::Loaded(_) | Outcome::LastKnownGood(..), Ruling::Refused(conflict)) => {
                (State::Conflicting, serving, conflict)
            }
            (Outcome::Loaded(loaded), Ruling::Granted) => {
                spec_files = Some(loaded.spec_files.clone());
                (
                    State::Serving,
                    Some(self.serve(&name, loaded)),
                    String::new(),
                )
            }
            (Outcome::LastKnownGood(loaded, error), Ruling::Granted) => (
                State::ServingLastKnownGood,
                Some(self.serve(&name, loaded)),
                error,
            ),
            (Outcome::Broken(error), _) => {
                let state = match (&serving, earlier_state) {
                    (None, _) => State::Refused,
                    (_, Some(State::ServingLastKnownGood)) => State::ServingLastKnownGood,
                    (Some(_), _) => State::ServingPrevious,
                };
                (state, serving, error)
            }
        };
        let entry = Entry {
            source,
            fingerprint,
            state,
            serving,
            last_error,
        };
        if earlier_state != Some(State::Serving) || state != State::Serving || spec_files.is_some()
        {
            let generation = entry
                .serving
                .as_ref()
                .map_or(0, |served| served.api.generation);
            self.metrics
                .reloaded(&name, state == State::Serving, generation);
        }
        if entry.last_error != earlier_error || earlier_state != Some(state) {
            tell_trouble(&name, &entry);
        }
        (name, entry, spec_files)
    }

    fn serve(&self, name: &str, loaded: Loaded) -> Served {
        self.tell_loaded(name, &loaded);
        if let Some(runtime) = &*self.runtime.lock() {
            let _context = runtime.enter();
            loaded.api.cluster.maintain();
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

    /// One swap for all that changed; none where nothing did.
    fn publish(&self, entries: BTreeMap<String, Entry>) {
        let serving = entries.values().filter_map(|entry| entry.serving.as_ref());
        let all: Vec<Arc<Api>> = serving.map(|served| Arc::clone(&served.api)).collect();
        let current = self.apis.load();
        let same = current.all().len() == all.len()
            && current
                .all()
                .iter()
                .zip(&all)
                .all(|(old, new)| Arc::ptr_eq(old, new));
        if !same {
            self.apis.store(Arc::new(Apis::new(all)));
        }
        *self.entries.lock() = entries;
    }

    /// Keeps a version that serves for the next start.
    fn keep(&self, name: &str, entry: Option<&Entry>, spec_files: &[PathBuf]) {
        let (Some(store), Some(entry)) = (&self.known_good, entry) else {
            return;
        };
        let kept = store.keep(
            name,
            entry.source.api_file(),
            spec_files,
            &entry.fingerprint,
        );
        if let Err(error) = kept {
            tracing::warn!(api = %name, "API {name}: not kept as last-known-good: {error}");
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
                format!(
                    "{count} demand a credential and answer 401 (`--security off` leaves that to the service)"
                )
            }
            (count, Origin::Directory(_)) => {
                format!(
                    "{count} demand a credential and answer 401 (`security: off` leaves that to the service)"
                )
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

impl Attempt {
    fn claimant(&self) -> Claimant {
        let previous = self
            .before
            .as_ref()
            .and_then(|entry| entry.serving.as_ref());
        Claimant {
            name: self.name.clone(),
            modified: self.source.modified(),
            wanted: match &self.outcome {
                Outcome::Loaded(loaded) | Outcome::LastKnownGood(loaded, _) => {
                    Some(claims(&loaded.api))
                }
                Outcome::Unchanged | Outcome::Broken(_) => None,
            },
            previous: previous.map(|served| claims(&served.api)),
        }
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

/// Findings of at least this severity, one per line.
fn lines(findings: &[Finding], least: Severity) -> String {
    let lines = findings.iter().filter(|finding| finding.severity >= least);
    lines
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
