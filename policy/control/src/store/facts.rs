//! Facts: acceptances, revocations, suspensions. The first two are only ever added; the database refuses anything else.

use std::net::IpAddr;
use std::sync::Arc;

use sqlx::Row as _;
use tollgate_policy::directory::Revoked;
use tollgate_policy::time::Timestamp;
use tollgate_proto::Acceptance;

use super::rows::{address, digest, number, optional_time, text, time};
use super::{Connection, Row, StoreError};
use crate::text::hex;

type Done = Result<(), StoreError>;

/// An acceptance as it was recorded.
#[derive(Clone, Debug)]
pub(crate) struct AcceptanceRow {
    pub(crate) seq: u64,
    pub(crate) consumer: Arc<str>,
    pub(crate) credential: Arc<str>,
    pub(crate) terms: Arc<str>,
    pub(crate) version: u32,
    pub(crate) text_hash: Arc<str>,
    pub(crate) purpose: Arc<str>,
    pub(crate) at: Timestamp,
    pub(crate) from: Option<IpAddr>,
}

impl AcceptanceRow {
    /// Records an acceptance of the text with `text_hash`.
    pub(crate) async fn insert(
        on: &mut Connection,
        acceptance: &Acceptance,
        text_hash: &str,
    ) -> Done {
        sqlx::query(
            "INSERT INTO acceptances
                 (seq, consumer, credential, terms, version, text_hash, purpose, accepted_at, address)
             SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8 FROM acceptances",
        )
        .bind(&*acceptance.consumer)
        .bind(&*acceptance.credential)
        .bind(&*acceptance.terms)
        .bind(i64::from(acceptance.version))
        .bind(text_hash)
        .bind(&acceptance.purpose)
        .bind(acceptance.at.millis())
        .bind(acceptance.from.map(|a| a.to_string()).unwrap_or_default())
        .execute(on)
        .await?;
        Ok(())
    }

    /// Ends what a consumer of this name accepted: a row of version 0, of no terms, where there is anything to end.
    pub(super) async fn end(on: &mut Connection, consumer: &str, at: Timestamp) -> Done {
        sqlx::query(
            "INSERT INTO acceptances
                 (seq, consumer, credential, terms, version, text_hash, purpose, accepted_at, address)
             SELECT MAX(seq) + 1, $1, 'deleted', '', 0, '', '', $2, '' FROM acceptances
             HAVING SUM(CASE WHEN consumer = $1 THEN 1 ELSE 0 END) > 0",
        )
        .bind(consumer)
        .bind(at.millis())
        .execute(on)
        .await?;
        Ok(())
    }

    /// Acceptances of `terms` after number `after`, oldest first.
    pub(crate) async fn page(
        on: &mut Connection,
        terms: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM acceptances WHERE terms = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(terms)
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(on)
        .await?;
        rows.iter().map(Self::read).collect()
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            seq: number(row, "seq")?,
            consumer: text(row, "consumer")?,
            credential: text(row, "credential")?,
            terms: text(row, "terms")?,
            version: number(row, "version")?,
            text_hash: text(row, "text_hash")?,
            purpose: text(row, "purpose")?,
            at: time(row, "accepted_at")?,
            from: address(row.try_get("address")?),
        })
    }
}

/// A revocation as it was recorded.
#[derive(Clone, Debug)]
pub(crate) struct RevocationRow {
    pub(crate) seq: u64,
    pub(crate) what: Revoked,
    pub(crate) reason: Arc<str>,
    pub(crate) at: Timestamp,
}

impl RevocationRow {
    pub(crate) async fn insert(
        on: &mut Connection,
        what: &Revoked,
        reason: &str,
        at: Timestamp,
    ) -> Done {
        let expires = match what {
            Revoked::Token { expires, .. } => *expires,
            _ => None,
        };
        let (kind, issuer, subject, before) = match what {
            Revoked::Key(digest) => ("key", "", hex(&digest.0), None),
            Revoked::Token { issuer, id, .. } => ("token", &**issuer, id.to_string(), None),
            Revoked::Subject {
                issuer,
                subject,
                before,
            } => ("subject", &**issuer, subject.to_string(), Some(*before)),
            Revoked::Certificate(name) => ("certificate", "", name.to_string(), None),
            Revoked::Consumer(name) => ("consumer", "", name.to_string(), None),
        };
        sqlx::query(
            "INSERT INTO revocations
                 (seq, kind, issuer, subject, before_at, reason, revoked_at, expires_at)
             SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4, $5, $6, $7 FROM revocations",
        )
        .bind(kind)
        .bind(issuer)
        .bind(subject)
        .bind(before.map(Timestamp::millis))
        .bind(reason)
        .bind(at.millis())
        .bind(expires.map(Timestamp::millis))
        .execute(on)
        .await?;
        Ok(())
    }

    /// Revocations after number `after`, oldest first.
    pub(crate) async fn page(
        on: &mut Connection,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT * FROM revocations WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(on)
            .await?;
        rows.iter().map(Self::read).collect()
    }

    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let issuer = text(row, "issuer")?;
        let subject = text(row, "subject")?;
        let what = match row.try_get::<&str, _>("kind")? {
            "key" => Revoked::Key(digest(&subject)?),
            "token" => Revoked::Token {
                issuer,
                id: subject,
                expires: optional_time(row, "expires_at")?,
            },
            "subject" => Revoked::Subject {
                issuer,
                subject,
                before: optional_time(row, "before_at")?
                    .unwrap_or(Timestamp::from_millis(i64::MAX)),
            },
            "certificate" => Revoked::Certificate(subject),
            "consumer" => Revoked::Consumer(subject),
            other => return Err(StoreError::Strange(format!("revocation of a {other}"))),
        };
        Ok(Self {
            seq: number(row, "seq")?,
            what,
            reason: text(row, "reason")?,
            at: time(row, "revoked_at")?,
        })
    }
}

/// Suspends a consumer, or lets it go on.
pub(crate) async fn suspend(
    on: &mut Connection,
    consumer: &str,
    suspended: bool,
    at: Timestamp,
) -> Done {
    let statement = if suspended {
        "INSERT INTO suspensions (consumer, at) VALUES ($1, $2) ON CONFLICT (consumer) DO NOTHING"
    } else {
        "DELETE FROM suspensions WHERE consumer = $1 AND at <= $2"
    };
    // A suspension may carry a later time where the clock was set back.
    let at = if suspended { at.millis() } else { i64::MAX };
    sqlx::query(statement)
        .bind(consumer)
        .bind(at)
        .execute(on)
        .await?;
    Ok(())
}
