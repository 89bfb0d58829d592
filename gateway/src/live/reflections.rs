//! Descriptors by server reflection, kept as files in the state directory: such a file is part of its API like any other, so that a change
//! reloads it, a bad one leaves the old in place, and last-known-good holds it.
//!
//! The service is asked when there is no file yet, and again as often as the API file says. A service that does not answer changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tollgate_policy::settings::{ApiConfig, DescriptorSource, GrpcConfig, UpstreamConfig};
use tollgate_policy::{Finding, Severity};

use super::Live;
use crate::transcode::face::descriptors::reflection::{ask, ask_blocking};

/// How soon a service that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// For those who wait for nothing in particular.
const IDLE: Duration = Duration::from_secs(3_600);

/// The services that are asked.
#[derive(Debug)]
pub(super) struct Reflections {
    directory: PathBuf,
    /// By API. Held for moments only.
    targets: Mutex<BTreeMap<String, Target>>,
    /// A target was added.
    changed: Notify,
}

#[derive(Clone, Debug)]
struct Target {
    upstream: UpstreamConfig,
    grpc: GrpcConfig,
    refresh: Duration,
    /// When it is asked next; `None`: never again.
    due: Option<Instant>,
    /// Why it did not answer the last time.
    trouble: Option<String>,
}

impl Reflections {
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        let directory = state_dir.map(|directory| directory.join("reflected"));
        Self {
            directory: directory.unwrap_or_default(),
            targets: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Where the descriptors of an API lie.
    pub(super) fn file(&self, api: &str) -> PathBuf {
        self.directory.join(format!("{api}.binpb"))
    }

    /// Sees to it that an API which wants reflection has descriptors, and that they are kept up to date. Blocks while the service is asked
    /// for the first time.
    ///
    /// # Errors
    /// It has none yet.
    pub(super) fn prepare(&self, api: &str, config: &ApiConfig) -> Result<(), Vec<Finding>> {
        let Some((grpc, refresh)) = wanted(config) else {
            self.targets.lock().remove(api);
            return Ok(());
        };
        let refused = |what: String| {
            vec![Finding {
                severity: Severity::Error,
                code: "reflection",
                place: grpc.place.clone(),
                what: format!("the service's descriptors are not known: {what}"),
                remedy: "start the service with server reflection, or name `descriptors`"
                    .to_owned(),
            }]
        };
        if self.directory.as_os_str().is_empty() {
            return Err(refused(
                "there is no state directory to keep them in".to_owned(),
            ));
        }
        self.follow(api, config, grpc, refresh);
        let file = self.file(api);
        if file.exists() {
            return Ok(());
        }
        let set = ask_blocking(&config.upstream, grpc);
        let written = set.and_then(|set| write(&file, &set).map_err(|error| error.to_string()));
        self.asked(api, written.as_ref().err().cloned());
        written.map_err(refused)
    }

    fn follow(&self, api: &str, config: &ApiConfig, grpc: &GrpcConfig, refresh: Duration) {
        let mut targets = self.targets.lock();
        let known = targets.get(api);
        let same = known.is_some_and(|it| it.upstream == config.upstream && it.grpc == *grpc);
        if !same {
            let target = Target {
                upstream: config.upstream.clone(),
                grpc: grpc.clone(),
                refresh,
                due: Some(Instant::now()),
                trouble: None,
            };
            targets.insert(api.to_owned(), target);
            self.changed.notify_one();
        }
    }

    /// Notes how it went, and when it is due again.
    fn asked(&self, api: &str, trouble: Option<String>) {
        let mut targets = self.targets.lock();
        let Some(target) = targets.get_mut(api) else {
            return;
        };
        let pause = match (&trouble, target.refresh) {
            (None, Duration::ZERO) => None,
            (None, refresh) => Some(refresh),
            (Some(_), Duration::ZERO) => Some(RETRY),
            (Some(_), refresh) => Some(refresh.min(RETRY)),
        };
        target.due = pause.map(|pause| Instant::now() + pause);
        if let Some(why) = trouble.as_ref().filter(|_| target.trouble != trouble) {
            tracing::warn!(%api, "API {api}: no descriptors by reflection: {why}; those held are served");
        }
        target.trouble = trouble;
    }

    pub(super) fn forget(&self, api: &str) {
        if self.targets.lock().remove(api).is_some() {
            // It may never have been there.
            let _ = fs::remove_file(self.file(api));
        }
    }

    /// What is wrong with an API's reflection, for its status.
    pub(super) fn trouble(&self, api: &str) -> Option<String> {
        let targets = self.targets.lock();
        let why = targets.get(api)?.trouble.as_ref()?;
        Some(format!(
            "no descriptors by reflection: {why}; those held are served"
        ))
    }

    fn next(&self) -> Option<(String, Target)> {
        let targets = self.targets.lock();
        let waiting = targets.iter().filter(|(_, target)| target.due.is_some());
        let next = waiting.min_by_key(|(_, target)| target.due);
        next.map(|(api, target)| (api.clone(), target.clone()))
    }
}

/// Asks the services on the current runtime until `live` is dropped.
pub(super) fn start(live: &Arc<Live>) {
    tokio::spawn(run(Arc::downgrade(live), Arc::clone(&live.reflections)));
}

async fn run(live: Weak<Live>, reflections: Arc<Reflections>) {
    loop {
        let next = reflections.next();
        let due = next.as_ref().and_then(|(_, target)| target.due);
        let due = due.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = sleep_until(due) => {}
            () = reflections.changed.notified() => continue,
        }
        let Some((api, target)) = next else { continue };
        if live.strong_count() == 0 {
            return;
        }
        let set = ask(&target.upstream, &target.grpc).await;
        let file = reflections.file(&api);
        let live = live.clone();
        // Files are read and written off the threads of requests.
        let looked = tokio::task::spawn_blocking(move || {
            if fs::read(&file).is_ok_and(|held| Ok(&held) == set.as_ref()) {
                return Ok(());
            }
            write(&file, &set?).map_err(|error| error.to_string())?;
            if let Some(live) = live.upgrade() {
                live.reload();
            }
            Ok(())
        });
        let outcome = looked.await.unwrap_or_else(|error| Err(error.to_string()));
        reflections.asked(&api, outcome.err());
    }
}

/// The settings of an API that wants reflection.
fn wanted(config: &ApiConfig) -> Option<(&GrpcConfig, Duration)> {
    let grpc = config.grpc.as_ref()?;
    match grpc.source {
        DescriptorSource::Reflection { refresh } => Some((grpc, refresh)),
        DescriptorSource::Set(_) | DescriptorSource::Protos { .. } => None,
    }
}

/// Whole or not at all.
fn write(file: &Path, set: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new(""));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let fresh = file.with_extension("new");
    fs::write(&fresh, set)?;
    fs::rename(&fresh, file)
}
