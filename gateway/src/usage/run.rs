//! Directories of runs: each process writes to its own, and holds a lock on it as long as it lives.
//!
//! ```text
//! usage/lock                    held for moments, by whoever makes or claims a run's directory
//! usage/<run>/lock              held by the process that writes, later by the one that replays; contains the node's name
//! usage/<run>/00000-0000000000.usage
//! ```
//!
//! During a hand-over two processes live at once in one state directory: a run whose lock is held is somebody's, and is left alone.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_proto::RunId;

use super::frame::LONGEST_NODE;
use super::segment::{DAMAGED, parse_name};

const LOCK: &str = "lock";

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// The directory of a run, held until dropped.
#[derive(Debug)]
pub(super) struct RunDirectory {
    pub(super) path: PathBuf,
    pub(super) run: RunId,
    /// Empty if it cannot be read.
    pub(super) node: Arc<str>,
    _lock: File,
}

/// A run whose process is gone.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) directory: RunDirectory,
    /// Its segments by shard, in order.
    pub(super) segments: BTreeMap<u32, Vec<(u64, PathBuf)>>,
}

/// Makes the directory in which the runs of a state directory lie; only this user may enter.
pub(super) fn make_root(usage: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(usage)
}

/// Makes and takes the directory of a new run.
pub(super) fn create(usage: &Path, run: RunId, node: &Arc<str>) -> io::Result<RunDirectory> {
    let _moment = moment(usage)?;
    let path = usage.join(run.to_string());
    DirBuilder::new().mode(0o700).create(&path)?;
    match lock_for(&path, node) {
        Ok(lock) => {
            File::open(usage)?.sync_all()?;
            Ok(RunDirectory {
                path,
                run,
                node: node.clone(),
                _lock: lock,
            })
        }
        Err(error) => {
            // It is tried again, under another name.
            let _ = fs::remove_file(path.join(LOCK));
            let _ = fs::remove_dir(&path);
            Err(error)
        }
    }
}

fn lock_for(path: &Path, node: &Arc<str>) -> io::Result<File> {
    let mut lock = open_lock(path)?;
    lock.try_lock().map_err(io::Error::from)?;
    lock.write_all(node.as_bytes())?;
    lock.sync_all()?;
    Ok(lock)
}

/// Takes the first run that has segments and that nobody holds; `passed` are not looked at.
pub(super) fn claim(usage: &Path, passed: &[RunId]) -> io::Result<Option<Former>> {
    let _moment = moment(usage)?;
    for entry in fs::read_dir(usage)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(run) = name.and_then(parse_run) else {
            continue;
        };
        if passed.contains(&run) {
            continue;
        }
        match take(path, run) {
            Ok(Some(former)) if former.segments.is_empty() => former.directory.remove(),
            Ok(Some(former)) => return Ok(Some(former)),
            Ok(None) => {}
            // One that cannot be read must not keep the others waiting.
            Err(error) => tracing::warn!(%run, %error, "usage: cannot look at a former run"),
        }
    }
    Ok(None)
}

/// Bytes that everything below takes on disk.
pub(super) fn bytes(usage: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(usage) else {
        return 0;
    };
    let mut sum = 0u64;
    for entry in entries.flatten() {
        // What is removed meanwhile takes nothing.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        sum = sum.saturating_add(if metadata.is_dir() {
            bytes(&entry.path())
        } else {
            metadata.blocks().saturating_mul(BLOCK).max(metadata.len())
        });
    }
    sum
}

impl RunDirectory {
    /// Removes the directory if nothing of worth is left in it.
    pub(super) fn remove(&self) {
        let kept = fs::read_dir(&self.path)
            .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() != LOCK));
        if !kept {
            let _ = fs::remove_file(self.path.join(LOCK));
            // Somebody who looks at it this moment makes the lock anew; he will remove it.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn take(path: PathBuf, run: RunId) -> io::Result<Option<Former>> {
    let lock = open_lock(&path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut node = String::new();
    let length = u64::try_from(LONGEST_NODE).unwrap_or(0);
    if Read::take(&lock, length).read_to_string(&mut node).is_err() {
        node.clear();
    }
    let mut segments: BTreeMap<u32, Vec<(u64, PathBuf)>> = BTreeMap::new();
    for entry in fs::read_dir(&path)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some((shard, index)) = name.and_then(parse_name) {
            segments.entry(shard).or_default().push((index, path));
        } else if name.is_some_and(|name| name != LOCK && !name.ends_with(DAMAGED)) {
            tracing::warn!(path = %path.display(), "usage: not a segment; left alone");
        }
    }
    for segments in segments.values_mut() {
        segments.sort();
    }
    let directory = RunDirectory {
        path,
        run,
        node: node.into(),
        _lock: lock,
    };
    Ok(Some(Former {
        directory,
        segments,
    }))
}

/// So that nobody claims a directory between its making and its locking.
fn moment(usage: &Path) -> io::Result<File> {
    let lock = open_lock(usage)?;
    lock.lock()?;
    Ok(lock)
}

fn open_lock(directory: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(LOCK))
}

fn parse_run(name: &str) -> Option<RunId> {
    let run = RunId(u128::from_str_radix(name, 16).ok()?);
    (run.to_string() == name).then_some(run)
}
