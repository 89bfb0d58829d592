//! What a set of files held when it was read, small enough to keep: tells whether anything changed.
//!
//! Guards against mistakes and bit rot, not against an adversary, who could as well change the files themselves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Larger files are told apart by length and time alone. The loader refuses them anyway.
const MAX_HASHED_BYTES: u64 = 64 * 1024 * 1024;

/// Content of files by path; `None` where a file could not be read or was written while it was being loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<PathBuf, Option<u64>>);

impl Fingerprint {
    /// Reads the files as they are now.
    pub(super) fn of<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> Self {
        Self(
            paths
                .into_iter()
                .map(|path| (path.clone(), hash_file(path).ok()))
                .collect(),
        )
    }

    /// What was loaded at `started` from `files`, of which some were seen before (`self`) and some only now. A new one that
    /// was written since is marked as unknown, so that the next look takes it for changed.
    pub(super) fn after_load(&self, files: &[PathBuf], started: SystemTime) -> Self {
        let seen = |path: &PathBuf| match self.0.get(path) {
            Some(hash) => *hash,
            None if written_since(path, started) => None,
            None => hash_file(path).ok(),
        };
        Self(
            files
                .iter()
                .map(|path| (path.clone(), seen(path)))
                .collect(),
        )
    }

    /// The files' content is still what it was.
    pub(super) fn still_holds(&self) -> bool {
        self.0.values().all(Option::is_some) && *self == Self::of(self.0.keys())
    }

    /// The content of one file, where known.
    pub(super) fn hash_of(&self, path: &Path) -> Option<u64> {
        self.0.get(path).copied().flatten()
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }
}

/// 64-bit FNV-1a: the same in every release, as checksums on disk outlive the binary that wrote them.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Reads a whole file of at most `limit` bytes.
pub(super) fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("over {limit} bytes"),
        ));
    }
    Ok(bytes)
}

fn hash_file(path: &Path) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    if metadata.len() > MAX_HASHED_BYTES {
        return Ok(hash(
            format!("{} {:?}", metadata.len(), metadata.modified()?).as_bytes(),
        ));
    }
    Ok(hash(&read_limited(path, MAX_HASHED_BYTES)?))
}

fn written_since(path: &Path, started: SystemTime) -> bool {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|time| time >= started)
}
