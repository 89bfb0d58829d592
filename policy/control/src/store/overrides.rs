//! Overrides of limits: kept, replaced and removed, each within the caller's transaction. Those of consumers have a table of their own.

use std::sync::Arc;

use sqlx::Row as _;
use tollgate_policy::settings::{Grantee, Override, stored_override};
use tollgate_policy::time::Timestamp;

use super::rows::text;
use super::{Connection, StoreError};

/// Whose override it is, and which.
pub(crate) type Granted = (Grantee, Arc<str>, Override);

/// A grantee's override.
pub(crate) struct OverrideRow;

impl OverrideRow {
    /// Keeps an override, in place of one of the same limit.
    pub(crate) async fn put(
        on: &mut Connection,
        (grantee, name): (Grantee, &str),
        found: &Override,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let query = match grantee {
            Grantee::Consumer => sqlx::query(
                "INSERT INTO overrides (consumer, limit_id, written, created_at)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (consumer, limit_id)
                 DO UPDATE SET written = excluded.written, created_at = excluded.created_at",
            ),
            Grantee::Project | Grantee::Organisation => sqlx::query(
                "INSERT INTO shared_overrides (name, limit_id, written, created_at, grantee)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (grantee, name, limit_id)
                 DO UPDATE SET written = excluded.written, created_at = excluded.created_at",
            ),
        };
        let query = query
            .bind(name)
            .bind(&*found.limit)
            .bind(found.written().to_string())
            .bind(at.millis());
        match grantee {
            Grantee::Consumer => query,
            Grantee::Project | Grantee::Organisation => query.bind(grantee.as_str()),
        }
        .execute(on)
        .await?;
        Ok(())
    }

    pub(crate) async fn delete(
        on: &mut Connection,
        (grantee, name): (Grantee, &str),
        limit: &str,
    ) -> Result<(), StoreError> {
        let query = match grantee {
            Grantee::Consumer => {
                sqlx::query("DELETE FROM overrides WHERE consumer = $1 AND limit_id = $2")
                    .bind(name)
                    .bind(limit)
            }
            Grantee::Project | Grantee::Organisation => sqlx::query(
                "DELETE FROM shared_overrides WHERE name = $1 AND limit_id = $2 AND grantee = $3",
            )
            .bind(name)
            .bind(limit)
            .bind(grantee.as_str()),
        };
        query.execute(on).await?;
        Ok(())
    }

    /// Removes all that a project or an organisation was granted.
    pub(super) async fn delete_shared(
        on: &mut Connection,
        grantee: Grantee,
        name: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM shared_overrides WHERE grantee = $1 AND name = $2")
            .bind(grantee.as_str())
            .bind(name)
            .execute(on)
            .await?;
        Ok(())
    }

    /// All of them, expired ones as well.
    pub(crate) async fn all(on: &mut Connection) -> Result<Vec<Granted>, StoreError> {
        let rows = sqlx::query(
            "SELECT 'consumer' AS grantee, consumer AS name, limit_id, written FROM overrides
             UNION ALL SELECT grantee, name, limit_id, written FROM shared_overrides
             ORDER BY 1, 2, 3",
        )
        .fetch_all(on)
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let grantee: &str = row.try_get("grantee")?;
            let known = Grantee::ALL.into_iter().find(|it| it.as_str() == grantee);
            let strange = || StoreError::Strange(format!("an override of a {grantee}"));
            let read = stored_override(row.try_get("written")?);
            let read = read.map_err(|findings| super::rows::strange(&findings))?;
            found.push((known.ok_or_else(strange)?, text(row, "name")?, read));
        }
        Ok(found)
    }
}
