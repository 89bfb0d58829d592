//! A look at one API file: unchanged, loaded, broken, or not to be read for the moment. It changes nothing yet; see `entry`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tollgate_policy::{Finding, Severity};

use super::conflicts::{Claimant, claims};
use super::entry::Entry;
use super::fingerprint::Fingerprint;
use super::known_good::GENERATIONS;
use super::load::{self, Loaded, Source};
use super::status::State;
use super::{Live, lines};
use crate::descriptors::tells_of_lack;

/// A look at one API file.
pub(super) struct Attempt {
    pub(super) name: String,
    pub(super) source: Source,
    /// What was known of the API before.
    pub(super) before: Option<Entry>,
    /// Of the files as they were looked at.
    pub(super) fingerprint: Fingerprint,
    pub(super) outcome: Outcome,
}

/// What came of it.
pub(super) enum Outcome {
    Unchanged,
    Loaded(Loaded),
    /// The file is broken; a copy kept on disk can be served.
    LastKnownGood(Loaded, String),
    Broken(String),
    /// No descriptor was left to read the files with: they say nothing yet.
    Postponed(Box<Entry>),
}

impl Live {
    pub(super) fn attempt(&self, before: Option<&Entry>, name: String, source: Source) -> Attempt {
        if let Some(entry) = before.filter(|entry| entry.is_current(&source)) {
            return Attempt::unchanged(name, entry.clone());
        }
        let mut files: Vec<PathBuf> = source.api_file().map(PathBuf::from).into_iter().collect();
        let known = before.iter().flat_map(|entry| entry.fingerprint.files());
        let seen = Fingerprint::of(files.iter().chain(known));
        let started = SystemTime::now();
        let previous = before
            .and_then(|entry| entry.serving.as_ref())
            .map(|served| &*served.api);
        let generation = source.generation(previous);
        let loaded = load::load(
            &source,
            &name,
            generation,
            previous,
            &self.metrics,
            &self.reflections,
            &mut files,
        );
        let outcome = match loaded {
            Ok(loaded) => Outcome::Loaded(loaded),
            Err(findings) => {
                files.extend(seen.files().cloned());
                self.failed(&name, &source, before, &findings)
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

    fn failed(
        &self,
        name: &str,
        source: &Source,
        before: Option<&Entry>,
        findings: &[Finding],
    ) -> Outcome {
        if lack_descriptors(findings) {
            self.postpone(&format!("API {name}"));
            if let Some(entry) = before {
                return Outcome::Postponed(Box::new(entry.clone()));
            }
        }
        self.fall_back(name, source, before, lines(findings, Severity::Warning))
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
            let reflected = self.reflections.file(name);
            match load::load_kept(source, &kept, &self.metrics, &reflected) {
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
}

impl Attempt {
    /// No look at all, or one that found nothing new.
    pub(super) fn unchanged(name: String, entry: Entry) -> Self {
        Self {
            name,
            source: entry.source.clone(),
            fingerprint: entry.fingerprint.clone(),
            before: Some(entry),
            outcome: Outcome::Unchanged,
        }
    }

    pub(super) fn claimant(&self) -> Claimant {
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
                Outcome::Unchanged | Outcome::Broken(_) | Outcome::Postponed(_) => None,
            },
            previous: previous.map(|served| claims(&served.api)),
        }
    }
}

impl Entry {
    /// It serves what its files say. What is not well is tried again: what it lacked may be a file nobody could name.
    fn is_current(&self, source: &Source) -> bool {
        let same = match (source, &self.source) {
            // What was refused meanwhile is another bundle.
            (Source::Bundle(new), Source::Bundle(held)) => {
                self.serving.is_some() && Arc::ptr_eq(new, held)
            }
            _ => self.state == State::Serving && self.source.file() == source.file(),
        };
        same && self.fingerprint.still_holds()
    }
}

/// The files may be fine: this process could not open them.
fn lack_descriptors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| {
        // Of our own messages alone: text out of a file proves nothing.
        matches!(finding.code, "unreadable" | "unreadable-file" | "upstream")
            && tells_of_lack(&finding.what)
    })
}
