//! Live configuration: each API is loaded, compiled and swapped apart from all others; a broken file leaves its API on the
//! previous version and touches no other.
//!
//! Readers take one `ArcSwap` load and never wait. Everything here that reads files blocks, and runs off the request threads.

mod attempt;
mod bundles;
mod conflicts;
mod copies;
mod entry;
mod fingerprint;
mod known_good;
mod load;
mod reflections;
pub mod state_dir;
mod status;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch as watch_channel;
use tollgate_policy::settings::{ApiConfig, UpstreamConfig};
use tollgate_policy::{Finding, Severity};

pub use self::bundles::Packed;
pub use self::status::ApiStatus;

use self::attempt::Attempt;
use self::bundles::Bundles;
use self::entry::{Entry, Settled};
use self::known_good::KnownGood;
use self::load::Source;
use self::reflections::Reflections;
use crate::api::Api;
use crate::apis::Apis;
use crate::descriptors;
use crate::node::Mesh;
use crate::telemetry::Metrics;

/// Where the APIs come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// `--spec FILE --upstream URL`: one API, no configuration directory.
    Single(Box<ApiConfig>),
    /// `--config DIR`: `DIR/apis/*.yaml`.
    Directory(PathBuf),
    /// Bundles of the control plane, held in the state directory: see [`Live::apply`].
    Bundles {
        /// The service this process stands before: called instead of the upstreams that API files name.
        app: Option<Box<UpstreamConfig>>,
    },
}

/// Loads, watches, reloads.
#[derive(Debug)]
pub struct Live {
    apis: Arc<ArcSwap<Apis>>,
    origin: Origin,
    known_good: Option<KnownGood>,
    /// Where the APIs come from the control plane.
    bundles: Option<Bundles>,
    metrics: Arc<Metrics>,
    reflections: Arc<Reflections>,
    /// By name. Held for moments only.
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One reload at a time.
    reloading: Mutex<()>,
    /// A reload waits for its turn: it will see what others would see who come now.
    waiting: AtomicBool,
    /// Files could not be read for lack of descriptors: another look is due.
    postponed: AtomicBool,
    /// How often the files were looked at.
    reloads: watch_channel::Sender<u64>,
    /// Where services of the installation live, and who we are to them.
    mesh: OnceLock<Mesh>,
    /// Where clusters look after themselves, once [`Live::maintain`] was called.
    runtime: Mutex<Option<Handle>>,
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
        let (known_good, bundles) = match &origin {
            Origin::Bundles { app } => (
                None,
                Some(Bundles::new(state_dir.as_deref(), app.as_deref().cloned())),
            ),
            Origin::Single(_) | Origin::Directory(_) => {
                (state_dir.as_deref().map(KnownGood::new), None)
            }
        };
        let live = Self {
            apis: Arc::default(),
            origin,
            known_good,
            bundles,
            metrics,
            reflections: Arc::new(Reflections::new(state_dir.as_deref())),
            entries: Mutex::default(),
            reloading: Mutex::new(()),
            waiting: AtomicBool::new(false),
            postponed: AtomicBool::new(false),
            reloads: watch_channel::Sender::new(0),
            mesh: OnceLock::new(),
            runtime: Mutex::new(None),
        };
        match &live.bundles {
            Some(bundles) => live.begin(bundles),
            None => live.refresh()?,
        }
        Ok(Arc::new(live))
    }

    /// Makes it part of an installation, once, before clusters are maintained.
    pub fn join(&self, mesh: Mesh) {
        let _joined_before = self.mesh.set(mesh);
    }

    fn mesh(&self) -> &Mesh {
        self.mesh.get_or_init(Mesh::none)
    }

    /// What the request path reads.
    pub fn apis(&self) -> &Arc<ArcSwap<Apis>> {
        &self.apis
    }

    /// Looks at all files again and swaps what changed. Called by the watcher and on SIGHUP. Blocks: not for request threads.
    /// Returns at once where another call waits for its turn already: that one sees the same.
    pub fn reload(&self) {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let one_at_a_time = self.reloading.lock();
        // Before anything is read: who comes from now on may have changed what was read already.
        self.waiting.store(false, Ordering::Release);
        match self.refresh() {
            Ok(()) => {}
            Err(error) if descriptors::tells_of_lack(&error) => self.postpone("apis/"),
            Err(error) => tracing::error!("{error}; all APIs stay as they are"),
        }
        drop(one_at_a_time);
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
        reflections::start(self);
        bundles::start(self);
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
                api.maintain(self.mesh());
            }
        }
        Ok(())
    }

    /// Every API and its state, by name.
    pub fn statuses(&self) -> Vec<ApiStatus> {
        self.entries
            .lock()
            .iter()
            .map(|(name, entry)| ApiStatus::of(name, entry, self.reflections.trouble(name)))
            .collect()
    }

    /// Another look is due although nothing changed.
    fn postponed(&self) -> bool {
        self.postponed.load(Ordering::Acquire)
    }

    /// Every file whose change may change an API.
    fn files(&self) -> Vec<PathBuf> {
        let entries = self.entries.lock();
        let files = entries.values().flat_map(|entry| entry.fingerprint.files());
        files.cloned().collect()
    }

    /// Another look is due: this could not be read for lack of descriptors, which says nothing about what it holds.
    fn postpone(&self, what: &str) {
        self.postponed.store(true, Ordering::Release);
        if descriptors::may_tell() {
            tracing::warn!(
                "{what}: too many open files to read it; it stays as it is, trying again"
            );
        }
    }

    fn refresh(&self) -> Result<(), String> {
        self.postponed.store(false, Ordering::Release);
        if let Some(bundles) = &self.bundles {
            self.look(bundles, true);
            return Ok(());
        }
        let (sources, ignored) = load::sources(&self.origin)?;
        let before = self.entries.lock().clone();
        for text in &ignored {
            tracing::error!("{text}");
        }
        self.forget_removed(&before, &sources);
        let attempts: Vec<Attempt> = sources
            .into_iter()
            .map(|(name, source)| self.attempt(before.get(&name), name, source))
            .collect();
        self.conclude(attempts);
        Ok(())
    }

    /// Decides what serves from now on, of all APIs at once.
    fn conclude(&self, attempts: Vec<Attempt>) {
        let rulings = conflicts::rule(&attempts.iter().map(Attempt::claimant).collect::<Vec<_>>());
        let mut entries = BTreeMap::new();
        let mut fresh = Vec::new();
        for (attempt, ruling) in attempts.into_iter().zip(rulings) {
            let Settled {
                name,
                entry,
                fresh: files,
            } = self.settle(attempt, ruling);
            fresh.extend(files.map(|files| (name.clone(), files)));
            entries.insert(name, entry);
        }
        self.publish(entries.clone());
        for (name, spec_files) in fresh {
            self.keep(&name, entries.get(&name), &spec_files);
        }
    }

    /// What has no file any more.
    fn forget_removed(&self, before: &BTreeMap<String, Entry>, sources: &BTreeMap<String, Source>) {
        for name in before.keys().filter(|name| !sources.contains_key(*name)) {
            tracing::info!(api = %name, "API {name}: its file is gone, so it is no longer served");
            self.metrics.forget_api(name);
            self.reflections.forget(name);
            if let Some(Err(error)) = self.known_good.as_ref().map(|store| store.forget(name)) {
                tracing::warn!(api = %name, "API {name}: last-known-good stays on disk: {error}");
            }
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
}

/// Findings of at least this severity, one per line.
fn lines(findings: &[Finding], least: Severity) -> String {
    let lines = findings.iter().filter(|finding| finding.severity >= least);
    lines
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
