//! APIs that come from the control plane: each a bundle of files, held on disk, compiled with the same engine as files of a directory.
//!
//! Promises: a bundle is served whole or not at all; one that is damaged, older, broken or fatal leaves its API on the generation before
//! and touches no other; a start needs no control plane. A generation of which the process dies twice within a minute is put aside. Not
//! here: the conversation with the control plane.

mod held;
mod look;
mod pack;
mod store;
mod trial;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tollgate_policy::settings::UpstreamConfig;
use tollgate_proto::bundles::check;
use tollgate_proto::wire::verdict::Kind;
use tollgate_proto::wire::{self, Bundle, Verdict};

pub(super) use self::held::Held;
pub use self::pack::Packed;

use self::store::{Aside, Store, discard};
use self::trial::{DEATHS, DEATHS_ALONE, Life, Phase, TRIAL, Trial};
use super::Live;
use super::copies::{Kept, Stamp};
use super::entry::Entry;
use super::load::Source;
use super::status::State;

/// How often it is looked whether trials are over.
const LOOK: Duration = Duration::from_secs(5);

/// What a process that holds bundles knows.
#[derive(Debug)]
pub(super) struct Bundles {
    store: Store,
    app: Option<UpstreamConfig>,
    /// By API, and each for moments only.
    known: Mutex<BTreeMap<String, Known>>,
}

/// What is known of one API, besides what it serves.
#[derive(Debug, Default)]
struct Known {
    /// A generation that waits for another API or for a service, and would serve otherwise.
    waiting: Option<Arc<Held>>,
    /// The generation on trial, and since when this process lives with it.
    on_trial: Option<(u64, Instant)>,
    /// What was put aside.
    aside: Option<Aside>,
    /// It serves what it was said not to.
    late: Option<u64>,
}

impl Live {
    /// Takes a bundle in: verifies it, writes it to disk, compiles it, and serves it in place of this API's generation before. What is
    /// held already is good at once. Blocks: not for request threads.
    ///
    /// # Errors
    /// Why it is not served, for the control plane: what was there before still is. Where another API has its host and base path, or its
    /// service tells no descriptors yet, it is tried again by itself, and [`Live::verdicts`] has it once it serves.
    pub fn apply(&self, bundle: Bundle) -> Result<(), String> {
        let Some(bundles) = &self.bundles else {
            return Err("the APIs of this node come from its own files".to_owned());
        };
        check(&bundle)?;
        let _one_at_a_time = self.reloading.lock();
        let api = bundle.api.clone();
        if self.is_held(bundles, &bundle)? {
            return Ok(());
        }
        let held = Arc::new(bundles.take_in(&bundle)?);
        drop(bundle);
        if let Some(why) = &held.trouble {
            tracing::error!(%api, "API {api}: generation {} is held until this process ends only: {why}", held.stamp.generation);
        }
        bundles.know(&api, |known| known.waiting = Some(Arc::clone(&held)));
        self.look(bundles, false);
        self.outcome(bundles, &held)
    }

    /// Serves an API no longer, and forgets it on disk. Blocks.
    pub fn withdraw(&self, api: &str) {
        let Some(bundles) = &self.bundles else { return };
        let _one_at_a_time = self.reloading.lock();
        bundles.known.lock().remove(api);
        let mut entries = self.entries.lock().clone();
        if entries.remove(api).is_some() {
            tracing::info!(%api, "API {api}: withdrawn, so it is no longer served");
            self.publish(entries);
            self.metrics.forget_api(api);
            self.reflections.forget(api);
        }
        if let Err(error) = bundles.store.forget(api) {
            tracing::error!(%api, "API {api}: withdrawn, and comes back at the next start, for it stays on disk: {error}");
        }
        // Another may have waited for its place.
        self.look(bundles, false);
    }

    /// What it serves, for the control plane.
    pub fn held(&self) -> Vec<wire::Held> {
        let entries = self.entries.lock();
        let held = entries.iter().filter_map(|(name, entry)| {
            let stamp = serving(entry)?;
            Some(wire::Held {
                api: name.clone(),
                generation: stamp.generation,
                hash: stamp.hash.clone(),
            })
        });
        held.collect()
    }

    /// What became of bundles and was not answered by [`Live::apply`]: what was put aside, and what serves after all. To be told whenever
    /// a connection begins.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let Some(bundles) = &self.bundles else {
            return Vec::new();
        };
        let known = bundles.known.lock();
        let mut verdicts = Vec::new();
        for (api, known) in &*known {
            let mut verdict = |kind: Kind, generation, reason: &str| {
                verdicts.push(Verdict {
                    kind: kind.into(),
                    api: api.clone(),
                    generation,
                    reason: reason.to_owned(),
                });
            };
            if let Some(aside) = &known.aside {
                verdict(Kind::RolledBack, aside.stamp.generation, &aside.reason);
            }
            if let Some(generation) = known.late {
                verdict(Kind::Ack, generation, "");
            }
        }
        verdicts
    }

    /// The process ends in order: that is no death of what is on trial.
    pub fn leave(&self) {
        let Some(bundles) = &self.bundles else { return };
        for (api, known) in &*bundles.known.lock() {
            if let Some((generation, _)) = known.on_trial {
                bundles.put_to_trial(api, generation, None);
            }
        }
    }

    /// Ends the trials of what the process has lived with long enough by `now`.
    pub(super) fn end_trials(&self, now: Instant) {
        let Some(bundles) = &self.bundles else { return };
        let _one_at_a_time = self.reloading.lock();
        for (api, known) in &mut *bundles.known.lock() {
            let over = |since: Instant| now.saturating_duration_since(since) >= TRIAL;
            let Some((generation, _)) = known.on_trial.filter(|(_, since)| over(*since)) else {
                continue;
            };
            known.on_trial = None;
            let ended = bundles
                .store
                .place(api, generation)
                .map(|it| Trial::end(&it));
            if let Some(Err(error)) = ended {
                tracing::warn!(%api, "API {api}: the trial of generation {generation} stays on disk: {error}");
            }
        }
    }

    /// Whether a bundle is held already.
    fn is_held(&self, bundles: &Bundles, bundle: &Bundle) -> Result<bool, String> {
        let (api, generation) = (&bundle.api, bundle.generation);
        let entry = self.entries.lock().get(api).cloned();
        if let Some(held) = entry.as_ref().and_then(serving) {
            if held.generation > generation {
                let held = held.generation;
                return Err(format!(
                    "generation {generation} is older than what is held, {held}"
                ));
            }
            if held.generation == generation {
                return match held.hash == bundle.hash {
                    true => Ok(true),
                    false => Err(format!(
                        "generation {generation} is held with another content"
                    )),
                };
            }
        }
        let known = bundles.known.lock();
        let aside = known.get(api).and_then(|known| known.aside.as_ref());
        match aside {
            Some(Aside { stamp, reason })
                if stamp.hash == bundle.hash || stamp.generation > generation =>
            {
                Err(format!(
                    "generation {} was put aside: {reason}",
                    stamp.generation
                ))
            }
            _ => Ok(false),
        }
    }

    /// What to answer about a bundle that was just looked at.
    fn outcome(&self, bundles: &Bundles, held: &Arc<Held>) -> Result<(), String> {
        let (api, generation) = (&held.name, held.stamp.generation);
        let entry = self.entries.lock().get(api).cloned();
        if entry.as_ref().and_then(serving) == Some(&held.stamp) {
            bundles.know(api, |known| known.late = None);
            return Ok(());
        }
        let why = match &entry {
            Some(entry) if !entry.last_error.is_empty() => entry.last_error.clone(),
            _ => "this process could not open its files; it is tried again".to_owned(),
        };
        if entry.as_ref().is_none_or(may_wait) || self.postponed() {
            tracing::warn!(%api, "API {api}: generation {generation} waits");
            return Err(why);
        }
        bundles.know(api, |known| known.waiting = None);
        discard(&held.kept.directory);
        Err(why)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Bundles {
    pub(super) fn new(state_dir: Option<&Path>, app: Option<UpstreamConfig>) -> Self {
        Self {
            store: Store::new(state_dir),
            app,
            known: Mutex::default(),
        }
    }

    fn know<T>(&self, api: &str, change: impl FnOnce(&mut Known) -> T) -> T {
        change(self.known.lock().entry(api.to_owned()).or_default())
    }

    fn waiting(&self) -> BTreeMap<String, Arc<Held>> {
        let known = self.known.lock();
        let waiting = known.iter().filter_map(|(api, known)| {
            let held = known.waiting.as_ref()?;
            Some((api.clone(), Arc::clone(held)))
        });
        waiting.collect()
    }

    fn take_in(&self, bundle: &Bundle) -> Result<Held, String> {
        let written = self.store.write(bundle);
        let written = written.map_err(|why| format!("it cannot be kept anywhere: {why}"))?;
        self.of(&bundle.api, written.kept, written.trouble)
    }

    fn held(&self, api: &str, generation: u64) -> Result<Held, String> {
        self.of(api, self.store.read(api, generation)?, None)
    }

    fn of(&self, api: &str, kept: Kept, trouble: Option<String>) -> Result<Held, String> {
        let stamp = kept.stamp.clone().ok_or("it has no generation")?;
        Ok(Held {
            name: api.to_owned(),
            stamp,
            kept,
            app: self.app.clone(),
            trouble,
        })
    }

    /// Notes how far a generation came, where it is on trial; `None`: nothing can be its fault for now.
    fn put_to_trial(&self, api: &str, generation: u64, phase: Option<Phase>) {
        let Some(place) = self.store.place(api, generation) else {
            return;
        };
        let Some(trial) = Trial::read(&place) else {
            return;
        };
        let next = Trial {
            phase: phase.unwrap_or_default(),
            life: phase.map(|_| Life::own()),
            ..trial
        };
        if let Err(error) = next.write(&place) {
            tracing::warn!(%api, "API {api}: should generation {generation} end this process, that cannot be noted: {error}");
        }
        if phase == Some(Phase::Serving) {
            self.know(api, |known| {
                known.on_trial = Some((generation, Instant::now()))
            });
        }
    }

    /// Finds the trials of processes that died, and puts aside what two of them died of.
    fn count_deaths(&self) {
        let mut dead = Vec::new();
        for api in self.store.apis() {
            let aside = self.store.aside(&api);
            self.know(&api, |known| known.aside = aside);
            for generation in self.store.generations(&api) {
                let place = self.store.place(&api, generation);
                let trial = place.as_deref().and_then(Trial::read);
                let died = |life: Life| !life.goes_on_elsewhere();
                if let Some(trial) = trial.filter(|it| it.life.is_some_and(died)) {
                    dead.push((api.clone(), generation, trial));
                }
            }
        }
        let compiling = dead.iter().any(|(_, _, it)| it.phase == Phase::Compiling);
        for (api, generation, trial) in dead {
            // While one was compiled nothing else was new: the others go free.
            let guilty = !compiling || trial.phase == Phase::Compiling;
            let deaths = trial.deaths.saturating_add(u32::from(guilty));
            // With nothing to go back to, deaths that may have been anybody's doing are borne longer than being without the API.
            let alone = self.store.generations(&api).len() < 2 && trial.phase != Phase::Compiling;
            self.note_deaths(
                &api,
                generation,
                deaths,
                if alone { DEATHS_ALONE } else { DEATHS },
            );
        }
    }

    fn note_deaths(&self, api: &str, generation: u64, deaths: u32, borne: u32) {
        let Some(place) = self.store.place(api, generation) else {
            return;
        };
        let trial = Trial {
            deaths,
            ..Trial::default()
        };
        if let Err(error) = trial.write(&place) {
            tracing::warn!(%api, "API {api}: a death cannot be noted: {error}");
        }
        if deaths < borne {
            tracing::warn!(%api, "API {api}: a process died within {TRIAL:?} of generation {generation}");
            return;
        }
        let reason = format!("the process died {deaths} times within {TRIAL:?} of it");
        tracing::error!(%api, "API {api}: generation {generation} is put aside: {reason}");
        let Ok(held) = self.held(api, generation) else {
            // Damaged: it is not loaded either.
            return;
        };
        let aside = Aside {
            stamp: held.stamp,
            reason,
        };
        if let Err(error) = self.store.put_aside(api, &aside) {
            tracing::error!(%api, "API {api}: that cannot be noted on disk: {error}");
        }
        self.know(api, |known| known.aside = Some(aside));
    }
}

/// Ends trials on the current runtime, until `live` is dropped.
pub(super) fn start(live: &Arc<Live>) {
    if live.bundles.is_some() {
        tokio::spawn(run(Arc::downgrade(live)));
    }
}

async fn run(live: Weak<Live>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(live) = live.upgrade() else { return };
        // Files are written off the threads of requests.
        let ended = tokio::task::spawn_blocking(move || live.end_trials(Instant::now()));
        if let Err(error) = ended.await {
            tracing::error!("trials are not ended: {error}");
        }
    }
}

/// The bundle an entry serves.
fn serving(entry: &Entry) -> Option<&Stamp> {
    let served = entry.serving.as_ref()?;
    match &entry.source {
        Source::Bundle(held) if held.stamp.generation == served.api.generation => Some(&held.stamp),
        _ => None,
    }
}

/// Nothing is wrong with the bundle itself.
fn may_wait(entry: &Entry) -> bool {
    entry.state == State::Conflicting || lacks_descriptions(&entry.last_error)
}

/// The service is to be asked, and did not answer yet.
fn lacks_descriptions(error: &str) -> bool {
    error.contains("error[reflection]")
}
