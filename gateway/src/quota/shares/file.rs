//! The file of emergency shares: a checksum, and JSON. Written whole or not at all.

use std::cmp::Reverse;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_policy::quota::CounterKey;
use tollgate_policy::time::Timestamp;

use super::Share;

/// Begins the file, of any version.
const NAME: &[u8] = b"tollgate shares ";
/// Begins the file.
const FORMAT: &[u8] = b"tollgate shares 2\n";
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
    /// Limit, API, operation, subject.
    counter: [String; 4],
    credit: u64,
    drawn: u64,
    /// Times in milliseconds since 1970, the period in milliseconds.
    until: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<u64>,
    told: i64,
}

/// As it is written: those that were drawn from in their windows, then those whose windows last longest. `None`: more were drawn from than a
/// file may tell.
pub(super) fn encode(mut shares: Vec<(CounterKey, Share)>, now: Timestamp) -> Option<Vec<u8>> {
    let drawn = shares.iter().filter(|(_, share)| share.is_drawn(now));
    if drawn.count() > MOST {
        return None;
    }
    shares
        .sort_unstable_by_key(|(_, share)| Reverse((share.is_drawn(now), share.until, share.told)));
    let told = shares.iter().take(MOST);
    let written = Written {
        at: now.millis(),
        shares: told
            .map(|(key, share)| WrittenShare {
                counter: names(key),
                credit: share.credit,
                drawn: share.drawn,
                until: share.until.millis(),
                period: share
                    .period
                    .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
                told: share.told.millis(),
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
pub(super) fn read(path: &Path, now: Timestamp) -> Vec<(CounterKey, Share)> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "{} cannot be read: no emergency shares are left", path.display());
            return Vec::new();
        }
    };
    let Some(written) = decode(&bytes) else {
        let other = bytes.starts_with(NAME) && !bytes.starts_with(FORMAT);
        let why = if other {
            "of another version"
        } else {
            "damaged"
        };
        tracing::warn!("{} is {why}: no emergency shares are left", path.display());
        return Vec::new();
    };
    let back = now.millis() < written.at;
    let shares = written.shares.into_iter().take(MOST).map(|it| {
        let share = Share {
            credit: it.credit,
            drawn: if back { u64::MAX } else { it.drawn },
            until: Timestamp::from_millis(it.until),
            period: it.period.map(Duration::from_millis),
            told: Timestamp::from_millis(it.told),
        };
        (key(it.counter), share)
    });
    shares.filter(|(_, share)| share.is_kept(now)).collect()
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
