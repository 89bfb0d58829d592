//! Whether what was received is what is added up.

use sqlx::Row as _;

use crate::store::{Connection, StoreError, number};

/// Records that were dropped with old totals by day.
pub(super) const PURGED: &str = "usage_records_purged";
/// Records of senders that were forgotten.
pub(super) const FORGOTTEN: &str = "usage_records_forgotten";

/// Counts of records, all of one state of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    /// By the senders' numbers.
    pub(crate) received: u64,
    /// By the totals.
    pub(crate) added_up: u64,
    /// Numbers that never came.
    pub(crate) missing: u64,
}

/// Counts, within one snapshot. What retention dropped is counted on both sides.
pub(crate) async fn balance(on: &mut Connection) -> Result<Balance, StoreError> {
    let row = sqlx::query(
        "SELECT
             (SELECT CAST(COALESCE(SUM(records), 0) AS BIGINT) FROM usage_senders)
             + (SELECT CAST(COALESCE(SUM(value), 0) AS BIGINT) FROM meta WHERE name = $1) AS received,
             (SELECT CAST(COALESCE(SUM(records), 0) AS BIGINT) FROM usage_totals WHERE step = 86400)
             + (SELECT CAST(COALESCE(SUM(value), 0) AS BIGINT) FROM meta WHERE name = $2) AS added_up,
             (SELECT CAST(COALESCE(SUM(last_missing - first_missing + 1), 0) AS BIGINT)
              FROM usage_gaps WHERE closed_at IS NULL) AS missing",
    )
    .bind(FORGOTTEN)
    .bind(PURGED)
    .fetch_one(on)
    .await?;
    let count = |column| number(&row, column);
    Ok(Balance {
        received: count("received")?,
        added_up: count("added_up")?,
        missing: count("missing")?,
    })
}

/// Remembers that records were dropped.
pub(super) async fn remember(
    on: &mut Connection,
    what: &'static str,
    records: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = meta.value + excluded.value",
    )
    .bind(what)
    .bind(records)
    .execute(on)
    .await?;
    Ok(())
}

/// Sum of a column over rows.
pub(super) fn sum(rows: &[crate::store::Row], column: &str) -> Result<i64, StoreError> {
    rows.iter().try_fold(0_i64, |sum, row| {
        Ok(sum.saturating_add(row.try_get(column)?))
    })
}
