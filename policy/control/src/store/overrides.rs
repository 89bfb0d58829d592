//! Overrides of consumers' limits: kept, replaced and removed, each within the caller's transaction.

use std::sync::Arc;

use sqlx::Row as _;
use tollgate_policy::settings::{Override, stored_override};
use tollgate_policy::time::Timestamp;

use super::rows::text;
use super::{Connection, StoreError};

/// A consumer's override.
pub(crate) struct OverrideRow;

impl OverrideRow {
    /// Keeps an override, in place of one of the same limit.
    pub(crate) async fn put(
        on: &mut Connection,
        consumer: &str,
        found: &Override,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO overrides (consumer, limit_id, written, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (consumer, limit_id)
             DO UPDATE SET written = excluded.written, created_at = excluded.created_at",
        )
        .bind(consumer)
        .bind(&*found.limit)
        .bind(found.written().to_string())
        .bind(at.millis())
        .execute(on)
        .await?;
        Ok(())
    }

    pub(crate) async fn delete(
        on: &mut Connection,
        consumer: &str,
        limit: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM overrides WHERE consumer = $1 AND limit_id = $2")
            .bind(consumer)
            .bind(limit)
            .execute(on)
            .await?;
        Ok(())
    }

    /// All of them, expired ones as well, each with its consumer.
    pub(crate) async fn all(on: &mut Connection) -> Result<Vec<(Arc<str>, Override)>, StoreError> {
        let rows =
            sqlx::query("SELECT consumer, written FROM overrides ORDER BY consumer, limit_id")
                .fetch_all(on)
                .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let read = stored_override(row.try_get("written")?);
            let read = read.map_err(|findings| super::rows::strange(&findings))?;
            found.push((text(row, "consumer")?, read));
        }
        Ok(found)
    }
}
