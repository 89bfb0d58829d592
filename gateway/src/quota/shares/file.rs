//! The file of emergency shares: a checksum, and JSON. Written whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tollgate_policy::quota::CounterKey;
use tollgate_policy::time::Timestamp;

use super::{Keys, Share};

/// Begins the file.
const FORMAT: &[u8] = b"tollgate shares 1\n";
/// Shares in a file. Of those nobody drew from the rest is left out.
pub(super) const MOST: usize = 20_000;

#[derive(Serialize, Deserialize)]
struct Written {
    /// When, in milliseconds since 1970.
    at: i64,
    shares: Vec<WrittenShare>,
}

#[derive(Serialize, Deserialize)]
struct WrittenShare {
    /// Of each counter: limit, API, operation, subject.
    counters: Vec<[String; 4]>,
    credit: u64,
    drawn: u64,
    until: i64,
}

/// As it is written; `None`: more were drawn from than a file may tell.
pub(super) fn encode(shares: &HashMap<Keys, Share>, now: Timestamp) -> Option<Vec<u8>> {
    let (drawn, fresh): (Vec<_>, Vec<_>) = shares.iter().partition(|(_, share)| share.drawn > 0);
    if drawn.len() > MOST {
        return None;
    }
    let told = drawn.into_iter().chain(fresh).take(MOST);
    let written = Written {
        at: now.millis(),
        shares: told
            .map(|(keys, share)| WrittenShare {
                counters: keys.iter().map(names).collect(),
                credit: share.credit,
                drawn: share.drawn,
                until: share.until.millis(),
            })
            .collect(),
    };
    let body = serde_json::to_vec(&written).ok()?;
    let mut file = FORMAT.to_vec();
    file.extend(crc32fast::hash(&body).to_be_bytes());
    file.extend(body);
    Some(file)
}

/// What a former process left that still counts. By a clock that says it was written later, no window is known, and nothing is left of any.
pub(super) fn read(path: &Path, now: Timestamp) -> Vec<(Keys, Share)> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "{} cannot be read: no emergency shares are left", path.display());
            return Vec::new();
        }
    };
    let Some(written) = decode(&bytes) else {
        tracing::warn!(
            "{} is damaged: no emergency shares are left",
            path.display()
        );
        return Vec::new();
    };
    let back = now.millis() < written.at;
    let shares = written.shares.into_iter().take(MOST).map(|it| {
        let keys: Keys = it.counters.into_iter().map(key).collect();
        let share = Share {
            credit: it.credit,
            drawn: if back { u64::MAX } else { it.drawn },
            until: Timestamp::from_millis(it.until),
        };
        (keys, share)
    });
    shares.filter(|(_, share)| now < share.until).collect()
}

fn decode(bytes: &[u8]) -> Option<Written> {
    let rest = bytes.strip_prefix(FORMAT)?;
    let (sum, body) = rest.split_first_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
        return None;
    }
    serde_json::from_slice(body).ok()
}

fn names(key: &CounterKey) -> [String; 4] {
    [&key.limit, &key.api, &key.operation, &key.subject].map(ToString::to_string)
}

fn key([limit, api, operation, subject]: [String; 4]) -> CounterKey {
    CounterKey {
        limit: limit.into(),
        api: api.into(),
        operation: operation.into(),
        subject: subject.into(),
    }
}

/// Keeps others from the file at `path` for as long as what is returned lives; `None`: somebody else does.
pub(super) fn lock(path: &Path) -> io::Result<Option<File>> {
    let beside = path.with_extension("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Has no file be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
