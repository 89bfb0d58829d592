//! Tokens that let a node join: kept by their keyed hash, used once, each within the caller's transaction.

use std::sync::Arc;

use tollgate_policy::credentials::Digest;
use tollgate_policy::time::Timestamp;

use super::rows::{digest, optional_time, text, time};
use super::{Connection, Row, StoreError};
use crate::text::hex;

type Done = Result<(), StoreError>;

/// A token as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct JoinTokenRow {
    pub(crate) id: Arc<str>,
    pub(crate) digest: Digest,
    /// SPIFFE ID of whoever uses it.
    pub(crate) identity: Arc<str>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) used_at: Option<Timestamp>,
    /// The node that used it; empty: none.
    pub(crate) used_by: Arc<str>,
}

impl JoinTokenRow {
    pub(crate) async fn insert(&self, on: &mut Connection) -> Done {
        sqlx::query(
            "INSERT INTO join_tokens (id, digest, identity, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&*self.id)
        .bind(hex(&self.digest.0))
        .bind(&*self.identity)
        .bind(self.created_at.millis())
        .bind(self.expires.millis())
        .execute(on)
        .await?;
        Ok(())
    }

    pub(crate) async fn find(
        on: &mut Connection,
        digest: &Digest,
    ) -> Result<Option<Self>, StoreError> {
        let row = sqlx::query("SELECT * FROM join_tokens WHERE digest = $1")
            .bind(hex(&digest.0))
            .fetch_optional(on)
            .await?;
        row.as_ref().map(Self::read).transpose()
    }

    /// Uses it up; `false`: it was used already, or is gone.
    pub(crate) async fn take(
        on: &mut Connection,
        id: &str,
        node: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE join_tokens SET used_at = $1, used_by = $2 WHERE id = $3 AND used_at IS NULL",
        )
        .bind(at.millis())
        .bind(node)
        .bind(id)
        .execute(on)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The identity of whoever joined last as the node of this name, as far as it is remembered.
    pub(crate) async fn used_by(
        on: &mut Connection,
        node: &str,
    ) -> Result<Option<String>, StoreError> {
        let found = sqlx::query_scalar(
            "SELECT identity FROM join_tokens WHERE used_by = $1 ORDER BY used_at DESC LIMIT 1",
        );
        Ok(found.bind(node).fetch_optional(on).await?)
    }

    /// Tokens, by identifier, after one.
    pub(crate) async fn page(
        on: &mut Connection,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT * FROM join_tokens WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(on)
            .await?;
        rows.iter().map(Self::read).collect()
    }

    /// `false`: there is none of this identifier.
    pub(crate) async fn delete(on: &mut Connection, id: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM join_tokens WHERE id = $1")
            .bind(id)
            .execute(on)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Forgets those that expired before `then`, used or not.
    pub(crate) async fn forget(on: &mut Connection, then: Timestamp) -> Done {
        sqlx::query("DELETE FROM join_tokens WHERE expires_at < $1")
            .bind(then.millis())
            .execute(on)
            .await?;
        Ok(())
    }

    pub(crate) async fn count(on: &mut Connection) -> Result<i64, StoreError> {
        let counted = sqlx::query_scalar("SELECT COUNT(*) FROM join_tokens");
        Ok(counted.fetch_one(on).await?)
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        use sqlx::Row as _;
        let used_by: Option<&str> = row.try_get("used_by")?;
        Ok(Self {
            id: text(row, "id")?,
            digest: digest(row.try_get("digest")?)?,
            identity: text(row, "identity")?,
            created_at: time(row, "created_at")?,
            expires: time(row, "expires_at")?,
            used_at: optional_time(row, "used_at")?,
            used_by: used_by.unwrap_or_default().into(),
        })
    }
}
