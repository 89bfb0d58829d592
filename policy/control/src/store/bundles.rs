//! Bundles: the two last generations of each API, and what was counted and withdrawn, each within the caller's transaction.

use prost::Message as _;
use sqlx::Row as _;
use tollgate_policy::time::Timestamp;
use tollgate_proto::bundles::content_hash;
use tollgate_proto::wire::Bundle;

use super::rows::{number, text, time};
use super::{Connection, StoreError};

/// A published bundle.
pub(crate) struct BundleRow {
    pub(crate) bundle: Bundle,
    pub(crate) published_at: Timestamp,
}

/// How far an API was counted.
pub(crate) struct BundleCount {
    pub(crate) api: String,
    pub(crate) generation: u64,
    pub(crate) withdrawn: bool,
}

impl BundleRow {
    /// Publishes a generation; only the one before it stays.
    pub(crate) async fn put(
        on: &mut Connection,
        bundle: &Bundle,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let generation = stored(bundle.generation)?;
        let files = Bundle {
            files: bundle.files.clone(),
            ..Bundle::default()
        };
        sqlx::query(
            "INSERT INTO bundles (api, generation, hash, service, files, published_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&bundle.api)
        .bind(generation)
        .bind(&bundle.hash)
        .bind(&bundle.service)
        .bind(files.encode_to_vec())
        .bind(at.millis())
        .execute(&mut *on)
        .await?;
        sqlx::query(
            "DELETE FROM bundles WHERE api = $1 AND generation < (SELECT MAX(generation) FROM bundles
                 WHERE api = $1 AND generation < $2)",
        )
        .bind(&bundle.api)
        .bind(generation)
        .execute(&mut *on)
        .await?;
        BundleCount::put(on, &bundle.api, bundle.generation, false).await
    }

    /// All of them, older ones first. One that is damaged is left out: what nodes hold of it they keep.
    pub(crate) async fn all(on: &mut Connection) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query(
            "SELECT api, generation, hash, service, files, published_at FROM bundles ORDER BY api, generation",
        )
        .fetch_all(on)
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let files: Vec<u8> = row.try_get("files")?;
            let files = Bundle::decode(files.as_slice()).unwrap_or_default().files;
            let bundle = Bundle {
                api: text(row, "api")?.to_string(),
                generation: number(row, "generation")?,
                hash: row.try_get("hash")?,
                files,
                service: text(row, "service")?.to_string(),
            };
            if content_hash(&bundle.files) != bundle.hash {
                let (api, generation) = (&bundle.api, bundle.generation);
                tracing::error!(%api, "API {api}: the stored bundle of generation {generation} is damaged");
                continue;
            }
            found.push(Self {
                bundle,
                published_at: time(row, "published_at")?,
            });
        }
        Ok(found)
    }
}

impl BundleCount {
    /// Counts an API up to a generation.
    pub(crate) async fn put(
        on: &mut Connection,
        api: &str,
        generation: u64,
        withdrawn: bool,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO bundle_counts (api, generation, withdrawn) VALUES ($1, $2, $3)
             ON CONFLICT (api) DO UPDATE
             SET generation = excluded.generation, withdrawn = excluded.withdrawn",
        )
        .bind(api)
        .bind(stored(generation)?)
        .bind(withdrawn)
        .execute(&mut *on)
        .await?;
        if withdrawn {
            sqlx::query("DELETE FROM bundles WHERE api = $1")
                .bind(api)
                .execute(on)
                .await?;
        }
        Ok(())
    }

    /// Of one API.
    pub(crate) async fn of(on: &mut Connection, api: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT generation FROM bundle_counts WHERE api = $1")
            .bind(api)
            .fetch_optional(on)
            .await?;
        row.map_or(Ok(0), |row| number(&row, "generation"))
    }

    /// Of all APIs.
    pub(crate) async fn all(on: &mut Connection) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT api, generation, withdrawn FROM bundle_counts")
            .fetch_all(on)
            .await?;
        let row = |row| {
            Ok(Self {
                api: text(row, "api")?.to_string(),
                generation: number(row, "generation")?,
                withdrawn: row.try_get("withdrawn")?,
            })
        };
        rows.iter().map(row).collect()
    }
}

fn stored(generation: u64) -> Result<i64, StoreError> {
    i64::try_from(generation).map_err(|_| StoreError::Strange("no more generations".to_owned()))
}
