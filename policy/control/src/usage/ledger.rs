//! Senders and gaps, as they are shown.

use std::sync::Arc;

use sqlx::Row as _;
use tollgate_policy::time::Timestamp;

use crate::store::{Connection, Row, StoreError, number, optional_time, text, time};

/// Whether all of a sender has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderState {
    /// It may send more.
    Open,
    /// It ended in order.
    Complete,
    /// It fell silent, and its node speaks in another run: what it did not send may be lost.
    PossiblyIncomplete,
}

impl SenderState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::PossiblyIncomplete => "possibly_incomplete",
        }
    }
}

/// How far a sender has come.
#[derive(Clone, Debug)]
pub(crate) struct SenderRow {
    pub(crate) node: Arc<str>,
    pub(crate) run: Arc<str>,
    pub(crate) shard: u32,
    /// The number expected next.
    pub(crate) next: u64,
    /// Records added up.
    pub(crate) records: u64,
    /// Numbers below `next` that never came.
    pub(crate) missing: u64,
    pub(crate) state: SenderState,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_seen: Timestamp,
}

impl SenderRow {
    /// Senders after that name, of one node where one is given.
    pub(crate) async fn page(
        on: &mut Connection,
        node: Option<&str>,
        after: (&str, &str, u32),
        limit: u32,
        silent_since: Timestamp,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query(
            "SELECT s.*,
                 (SELECT CAST(COALESCE(SUM(g.last_missing - g.first_missing + 1), 0) AS BIGINT)
                  FROM usage_gaps g WHERE g.node = s.node AND g.run = s.run AND g.shard = s.shard
                  AND g.closed_at IS NULL) AS missing,
                 EXISTS (SELECT 1 FROM usage_superseded o WHERE o.node = s.node AND o.run = s.run
                  AND o.shard = s.shard) AS superseded
             FROM usage_senders s
             WHERE (s.node, s.run, s.shard) > ($1, $2, $3) AND s.node = COALESCE($4, s.node)
             ORDER BY s.node, s.run, s.shard LIMIT $5",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(after.2))
        .bind(node)
        .bind(i64::from(limit))
        .fetch_all(on)
        .await?;
        rows.iter()
            .map(|row| Self::read(row, silent_since))
            .collect()
    }

    fn read(row: &Row, silent_since: Timestamp) -> Result<Self, StoreError> {
        let last_seen = time(row, "last_seen")?;
        let state = if row.try_get("complete")? {
            SenderState::Complete
        } else if row.try_get("superseded")? && last_seen < silent_since {
            SenderState::PossiblyIncomplete
        } else {
            SenderState::Open
        };
        Ok(Self {
            node: text(row, "node")?,
            run: text(row, "run")?,
            shard: number(row, "shard")?,
            next: number(row, "next_number")?,
            records: number(row, "records")?,
            missing: number(row, "missing")?,
            state,
            first_seen: time(row, "first_seen")?,
            last_seen,
        })
    }
}

/// Numbers that were skipped, both ends included.
#[derive(Clone, Debug)]
pub(crate) struct GapRow {
    pub(crate) seq: u64,
    pub(crate) node: Arc<str>,
    pub(crate) run: Arc<str>,
    pub(crate) shard: u32,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) found_at: Timestamp,
    /// When they came after all.
    pub(crate) closed_at: Option<Timestamp>,
}

impl GapRow {
    /// Gaps after number `after`, in the order they were found.
    pub(crate) async fn page(
        on: &mut Connection,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT * FROM usage_gaps WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(on)
            .await?;
        let read = |row: &Row| {
            Ok(Self {
                seq: number(row, "seq")?,
                node: text(row, "node")?,
                run: text(row, "run")?,
                shard: number(row, "shard")?,
                first: number(row, "first_missing")?,
                last: number(row, "last_missing")?,
                found_at: time(row, "found_at")?,
                closed_at: optional_time(row, "closed_at")?,
            })
        };
        rows.iter().map(read).collect()
    }
}
