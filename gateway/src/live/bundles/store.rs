//! Bundles on disk: of each API the two last generations that served, and what is known of one that was put aside.
//!
//! `<state_dir>/bundles/<api>/<generation>/` holds copies (see `copies`) and, while it is new, its `trial`. What the process died of is
//! renamed to `aside-<generation>`, and the file `aside` says so. Where the state directory refuses, a temporary directory holds a
//! generation for the life of the process.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tollgate_proto::bundles::is_api_name;
use tollgate_proto::wire::Bundle;

use super::super::copies::{
    Copies, Kept, Stamp, create_directory, remove_directory, write_durably,
};
use super::trial::Trial;

/// Generations kept of an API.
const KEPT: usize = 2;

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    /// `None`: nothing outlives the process.
    root: Option<PathBuf>,
    /// The temporary directory, once it was needed.
    spare: Mutex<Option<PathBuf>>,
}

/// A generation of which the process died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aside {
    pub(super) stamp: Stamp,
    /// Why, in words.
    pub(super) reason: String,
}

/// A generation as it was just written.
pub(super) struct Written {
    pub(super) kept: Kept,
    /// Why it will not be there after a restart.
    pub(super) trouble: Option<String>,
}

impl Store {
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        Self {
            root: state_dir.map(|state_dir| state_dir.join("bundles")),
            spare: Mutex::new(None),
        }
    }

    /// APIs of which something is held.
    pub(super) fn apis(&self) -> Vec<String> {
        let mut names = self.root.as_deref().map(names).unwrap_or_default();
        names.retain(|name| is_api_name(name));
        names.sort();
        names
    }

    /// Generations on disk, newest first.
    pub(super) fn generations(&self, api: &str) -> Vec<u64> {
        let names = self.directory(api).map(|it| names(&it)).unwrap_or_default();
        generations(&names)
    }

    /// Where a generation lies.
    pub(super) fn place(&self, api: &str, generation: u64) -> Option<PathBuf> {
        Some(self.directory(api)?.join(generation.to_string()))
    }

    /// A generation, checked.
    ///
    /// # Errors
    /// It is absent or damaged, in words.
    pub(super) fn read(&self, api: &str, generation: u64) -> Result<Kept, String> {
        let place = self.place(api, generation).ok_or("there is no disk")?;
        let kept = Kept::verified(place)?;
        let right = kept.stamp.as_ref().map(|stamp| stamp.generation) == Some(generation);
        match right && kept.api_file.is_some() {
            true => Ok(kept),
            false => Err("its manifest is that of another".to_owned()),
        }
    }

    /// Writes a bundle to a fresh place, durably, on trial; elsewhere where the state directory refuses.
    ///
    /// # Errors
    /// Nor can it be written elsewhere, in words.
    pub(super) fn write(&self, bundle: &Bundle) -> Result<Written, String> {
        let told = |error: io::Error| error.to_string();
        let copies = Copies::of_bundle(bundle).map_err(told)?;
        let place = self.place(&bundle.api, bundle.generation);
        let kept = match place {
            Some(place) => written(&copies, &place, true).map_err(told),
            None => Err("there is no state directory".to_owned()),
        };
        let trouble = match kept.and_then(Kept::verified) {
            Ok(kept) => {
                return Ok(Written {
                    kept,
                    trouble: None,
                });
            }
            Err(trouble) => trouble,
        };
        let spare = self
            .spare()
            .map_err(|error| format!("{trouble}; {error}"))?;
        let place = spare.join(&bundle.api).join(bundle.generation.to_string());
        let kept = written(&copies, &place, false).map_err(told);
        let kept = kept.and_then(Kept::verified);
        Ok(Written {
            kept: kept.map_err(|error| format!("{trouble}; {error}"))?,
            trouble: Some(trouble),
        })
    }

    /// Removes what is neither `serving` nor the generation before it, and what was put aside before.
    pub(super) fn prune(&self, api: &str, serving: u64) {
        let spare = self.spare.lock().as_ref().map(|spare| spare.join(api));
        for (directory, kept) in [(self.directory(api), KEPT), (spare, 1)] {
            let Some(directory) = directory else { continue };
            let names = names(&directory);
            let older = generations(&names);
            let older: Vec<_> = older.into_iter().filter(|it| *it <= serving).collect();
            for generation in older.iter().skip(kept) {
                discard(&directory.join(generation.to_string()));
            }
            if self
                .aside(api)
                .is_some_and(|aside| aside.stamp.generation > serving)
            {
                continue;
            }
            for name in names.iter().filter(|name| name.starts_with("aside")) {
                discard(&directory.join(name));
            }
        }
    }

    /// Renames a generation that shall not be loaded again, and notes why.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn put_aside(&self, api: &str, aside: &Aside) -> io::Result<()> {
        let generation = aside.stamp.generation;
        let (Some(directory), Some(place)) = (self.directory(api), self.place(api, generation))
        else {
            return Ok(());
        };
        // First what it was: a crash in between is another look at the same trial.
        let fresh = directory.join("aside.new");
        let text = format!("{}{}\n", aside.stamp.line(), aside.reason);
        write_durably(&fresh, text.as_bytes())?;
        fs::rename(&fresh, directory.join("aside"))?;
        let target = directory.join(format!("aside-{generation}"));
        remove_directory(&target)?;
        fs::rename(place, target)?;
        fs::File::open(&directory)?.sync_all()
    }

    /// What was put aside of an API.
    pub(super) fn aside(&self, api: &str) -> Option<Aside> {
        let text = fs::read_to_string(self.directory(api)?.join("aside")).ok()?;
        let (stamp, reason) = text.split_once('\n')?;
        Some(Aside {
            stamp: Stamp::parse(stamp.strip_prefix("bundle ")?)?,
            reason: reason.trim_end().to_owned(),
        })
    }

    /// Forgets an API.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn forget(&self, api: &str) -> io::Result<()> {
        if let Some(spare) = &*self.spare.lock() {
            discard(&spare.join(api));
        }
        self.directory(api)
            .map_or(Ok(()), |it| remove_directory(&it))
    }

    fn directory(&self, api: &str) -> Option<PathBuf> {
        self.root.as_ref().map(|root| root.join(api))
    }

    /// A temporary directory of our own, not one that somebody else prepared.
    fn spare(&self) -> io::Result<PathBuf> {
        let mut spare = self.spare.lock();
        if let Some(spare) = &*spare {
            return Ok(spare.clone());
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = since.map(|it| it.as_nanos()).unwrap_or_default();
        let name = format!("tollgate-bundles-{}-{nanos}", std::process::id());
        let made = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&made)?;
        *spare = Some(made.clone());
        Ok(made)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.lock().take() {
            discard(&spare);
        }
    }
}

/// Writes copies to `place`, complete or not at all.
fn written(copies: &Copies, place: &Path, on_trial: bool) -> io::Result<PathBuf> {
    let parent = place.parent().unwrap_or(place);
    let fresh = parent.join("new");
    let write = || {
        create_directory(parent)?;
        remove_directory(&fresh)?;
        copies.write(&fresh)?;
        if on_trial {
            Trial::default().write(&fresh)?;
        }
        remove_directory(place)?;
        fs::rename(&fresh, place)?;
        fs::File::open(parent)?.sync_all()?;
        Ok(place.to_owned())
    };
    let done = write();
    if done.is_err() {
        discard(&fresh);
    }
    done
}

/// Best effort: what stays costs room, and is removed with the next generation.
pub(super) fn discard(path: &Path) {
    let removed = match path.is_dir() {
        true => remove_directory(path),
        false => fs::remove_file(path),
    };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("{} stays: {error}", path.display());
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// Newest first.
fn generations(names: &[String]) -> Vec<u64> {
    let mut found: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}
