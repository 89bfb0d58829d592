//! The audit log: every administrative act, and the decisions data planes report, each record bound to the one before it.
//!
//! Promises: records are only added (the database refuses anything else), within the transaction of what they tell of; each
//! carries the SHA-256 of the one before, and the last one's hash stands in `state_dir/audit-head` as well, so that a changed,
//! missing or cut-off record is found by [`verify`]. Secrets never enter. Retention: nothing is ever removed here; to shorten
//! the log, stop the process, keep the backup as the archive, and begin with an empty state directory's log. Not here: a
//! defence against who can rewrite both the database and the head file; ship the head elsewhere for that.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;
use tollgate_policy::time::Timestamp;

use crate::secret_file;
use crate::store::{Connection, Row, Store, StoreError};
use crate::text::hex;

/// Records read at a time while walking the log.
const STEP: u32 = 1000;

/// What the first record is bound to.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Notes that the log was found shorter than it had been.
pub(crate) const TRUNCATED: &str = "audit.truncated";

/// Where the last record's hash is kept outside the database.
pub(crate) fn head_path(state_dir: &Path) -> PathBuf {
    state_dir.join("audit-head")
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    /// Who: `admin`, `consumer:<name>`, `node`, `tollgate`.
    pub(crate) actor: String,
    /// What, such as `key.create`.
    pub(crate) action: &'static str,
    /// To what: a name or an identifier.
    pub(crate) subject: String,
    /// Before, after, and why; no secrets.
    pub(crate) detail: Value,
    pub(crate) from: Option<IpAddr>,
}

/// The last record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) hash: String,
}

impl Head {
    /// As `audit-head` holds it.
    fn text(&self) -> String {
        format!("{} {}\n", self.seq, self.hash)
    }

    /// Writes `audit-head`. What it tells of stands already: a head that cannot be written is an alarm, not a failure.
    pub(crate) async fn keep(&self, state_dir: &Path) {
        let (path, text) = (head_path(state_dir), self.text());
        let writing = move || secret_file::replace(&path, text.as_bytes());
        match tokio::task::spawn_blocking(writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "audit-head could not be written"),
            Err(error) => tracing::error!(%error, "audit-head was not written"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.trim_end().split_once(' ')?;
        Some(Self {
            seq: seq.parse().ok()?,
            hash: hash.to_owned(),
        })
    }

    /// The last record in the database.
    pub(crate) async fn stored(on: &mut Connection) -> Result<Self, StoreError> {
        let row = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
            .fetch_optional(on)
            .await?;
        let Some(row) = row else {
            return Ok(Self {
                seq: 0,
                hash: BEGINNING.to_owned(),
            });
        };
        Ok(Self {
            seq: seq_of(&row)?,
            hash: row.try_get("hash")?,
        })
    }
}

/// A record as it is kept and shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) at: String,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) detail: Value,
    pub(crate) from: String,
    pub(crate) hash: String,
}

/// What a walk through the log found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Records walked.
    pub records: u64,
    /// Hash of the last one.
    pub head: String,
    /// The first record that is not as it was written; `None`: all are.
    pub broken: Option<Broken>,
}

/// Where the chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Number of the record.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Adds entries after `head`; the new head.
pub(crate) async fn append(
    on: &mut Connection,
    head: &Head,
    entries: &[Entry],
) -> Result<Head, StoreError> {
    let mut head = head.clone();
    for entry in entries {
        let seq = head.seq + 1;
        let detail = entry.detail.to_string();
        let from = entry.from.map(|a| a.to_string()).unwrap_or_default();
        let links = Links {
            seq,
            at: entry.at.millis(),
            actor: &entry.actor,
            action: entry.action,
            subject: &entry.subject,
            detail: &detail,
            address: &from,
        };
        let hash = links.hash(&head.hash);
        sqlx::query(
            "INSERT INTO audit (seq, at, actor, action, subject, detail, address, previous, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(i64::try_from(seq).unwrap_or(i64::MAX))
        .bind(links.at)
        .bind(links.actor)
        .bind(links.action)
        .bind(links.subject)
        .bind(links.detail)
        .bind(links.address)
        .bind(&head.hash)
        .bind(&hash)
        .execute(&mut *on)
        .await?;
        head = Head { seq, hash };
    }
    Ok(head)
}

/// The part of a record that its hash covers.
struct Links<'a> {
    seq: u64,
    at: i64,
    actor: &'a str,
    action: &'a str,
    subject: &'a str,
    detail: &'a str,
    address: &'a str,
}

impl Links<'_> {
    fn hash(&self, previous: &str) -> String {
        let canonical = serde_json::json!([
            previous,
            self.seq,
            self.at,
            self.actor,
            self.action,
            self.subject,
            self.detail,
            self.address
        ]);
        hex(digest(&SHA256, canonical.to_string().as_bytes()).as_ref())
    }
}

/// Whether the log is shorter than, or different from, what `audit-head` says: the head it should have.
pub(crate) async fn lost(store: &Store, state_dir: &Path) -> Result<Option<Head>, StoreError> {
    let Ok(text) = std::fs::read_to_string(head_path(state_dir)) else {
        return Ok(None);
    };
    let Some(noted) = Head::parse(&text) else {
        return Ok(Some(Head {
            seq: 0,
            hash: "unreadable".to_owned(),
        }));
    };
    if noted.seq == 0 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT hash FROM audit WHERE seq = $1")
        .bind(i64::try_from(noted.seq).unwrap_or(i64::MAX))
        .fetch_optional(&mut *store.read().await?)
        .await?;
    let found: Option<String> = row.map(|row| row.try_get("hash")).transpose()?;
    Ok((found.as_ref() != Some(&noted.hash)).then_some(noted))
}

/// Walks the whole log.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn verify(store: &Store, state_dir: &Path) -> Result<Verdict, StoreError> {
    let mut walk = Walk {
        seq: 0,
        hash: BEGINNING.to_owned(),
        broken: None,
    };
    loop {
        let rows = rows_after(store, walk.seq, STEP).await?;
        let Some(last) = rows.last() else { break };
        let last = seq_of(last)?;
        for row in &rows {
            walk.step(row)?;
        }
        walk.seq = last;
    }
    if walk.broken.is_none()
        && let Some(noted) = lost(store, state_dir).await?
    {
        walk.broken = Some(Broken {
            seq: noted.seq,
            why: format!(
                "audit-head says that record {} has the hash {}; it is missing or another",
                noted.seq, noted.hash
            ),
        });
    }
    Ok(Verdict {
        records: walk.seq,
        head: walk.hash,
        broken: walk.broken,
    })
}

struct Walk {
    seq: u64,
    hash: String,
    broken: Option<Broken>,
}

impl Walk {
    fn step(&mut self, row: &Row) -> Result<(), StoreError> {
        let seq = seq_of(row)?;
        let hash: String = row.try_get("hash")?;
        let action: &str = row.try_get("action")?;
        let links = Links {
            seq,
            at: row.try_get("at")?,
            actor: row.try_get("actor")?,
            action,
            subject: row.try_get("subject")?,
            detail: row.try_get("detail")?,
            address: row.try_get("address")?,
        };
        let expected = self.seq + 1;
        let why = if seq != expected {
            Some(format!("record {expected} is missing"))
        } else if row.try_get::<&str, _>("previous")? != self.hash {
            Some("it does not follow the record before it".to_owned())
        } else if links.hash(&self.hash) != hash {
            Some("it is not as it was written".to_owned())
        } else if action == TRUNCATED {
            Some("the log had been cut off before it".to_owned())
        } else {
            None
        };
        if let Some(why) = why
            && self.broken.is_none()
        {
            let seq = seq.min(expected);
            self.broken = Some(Broken { seq, why });
        }
        self.seq = seq;
        self.hash = hash;
        Ok(())
    }
}

/// Records after number `after`, oldest first.
pub(crate) async fn page(store: &Store, after: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
    let rows = rows_after(store, after, limit).await?;
    let shown = |row: &Row| {
        let detail: &str = row.try_get("detail")?;
        Ok(Record {
            seq: seq_of(row)?,
            at: Timestamp::from_millis(row.try_get("at")?).to_string(),
            actor: row.try_get("actor")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
            detail: serde_json::from_str(detail).unwrap_or_else(|_| detail.into()),
            from: row.try_get("address")?,
            hash: row.try_get("hash")?,
        })
    };
    rows.iter().map(shown).collect()
}

async fn rows_after(store: &Store, after: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query("SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&mut *store.read().await?)
        .await?;
    Ok(rows)
}

fn seq_of(row: &Row) -> Result<u64, StoreError> {
    let seq: i64 = row.try_get("seq")?;
    u64::try_from(seq).map_err(|_| StoreError::Strange(format!("audit record {seq}")))
}
