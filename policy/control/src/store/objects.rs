//! Objects made through the API: written and removed, each within the caller's transaction.

use std::sync::Arc;

use sqlx::Row as _;
use tollgate_policy::directory::{CredentialRef, TermsVersion};
use tollgate_policy::settings::{Grantee, written_limits};
use tollgate_policy::time::Timestamp;

use super::rows::written;
use super::{
    Connection, ConsumerRow, KeyRow, OrganisationRow, OverrideRow, PlanRow, ProjectRow, StoreError,
    TermsRow,
};
use crate::text::hex;

type Done = Result<(), StoreError>;

impl OrganisationRow {
    pub(crate) async fn insert(&self, on: &mut Connection, at: Timestamp) -> Done {
        sqlx::query("INSERT INTO organisations (name, title, created_at) VALUES ($1, $2, $3)")
            .bind(&*self.name)
            .bind(&self.title)
            .bind(at.millis())
            .execute(on)
            .await?;
        Ok(())
    }

    pub(crate) async fn delete(on: &mut Connection, name: &str) -> Done {
        OverrideRow::delete_shared(on, Grantee::Organisation, name).await?;
        sqlx::query("DELETE FROM organisations WHERE name = $1")
            .bind(name)
            .execute(on)
            .await?;
        Ok(())
    }
}

impl ProjectRow {
    pub(crate) async fn insert(&self, on: &mut Connection, at: Timestamp) -> Done {
        sqlx::query(
            "INSERT INTO projects (name, organisation, title, created_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(&*self.name)
        .bind(&*self.organisation)
        .bind(&self.title)
        .bind(at.millis())
        .execute(on)
        .await?;
        Ok(())
    }

    pub(crate) async fn delete(on: &mut Connection, name: &str) -> Done {
        OverrideRow::delete_shared(on, Grantee::Project, name).await?;
        sqlx::query("DELETE FROM projects WHERE name = $1")
            .bind(name)
            .execute(on)
            .await?;
        Ok(())
    }
}

impl PlanRow {
    pub(crate) async fn insert(&self, on: &mut Connection, at: Timestamp) -> Done {
        sqlx::query(
            "INSERT INTO plans (name, roles, terms, limits, price_version, currency, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&*self.name)
        .bind(written(&self.roles))
        .bind(written(&self.terms))
        .bind(written_limits(&self.limits).to_string())
        .bind(i64::from(self.price.version))
        .bind(&*self.price.currency)
        .bind(at.millis())
        .execute(&mut *on)
        .await?;
        for (api, operations) in &self.apis {
            sqlx::query("INSERT INTO plan_apis (plan, api, operations) VALUES ($1, $2, $3)")
                .bind(&*self.name)
                .bind(&**api)
                .bind(operations.as_deref().map(written))
                .execute(&mut *on)
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn delete(on: &mut Connection, name: &str) -> Done {
        sqlx::query("DELETE FROM plans WHERE name = $1")
            .bind(name)
            .execute(on)
            .await?;
        Ok(())
    }
}

impl ConsumerRow {
    pub(crate) async fn insert(&self, on: &mut Connection, at: Timestamp) -> Done {
        sqlx::query(
            "INSERT INTO consumers (name, project, roles, explains, created_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&*self.name)
        .bind(&*self.project)
        .bind(written(&self.roles))
        .bind(self.explains)
        .bind(at.millis())
        .execute(&mut *on)
        .await?;
        for (api, plan) in &self.subscriptions {
            Self::subscribe(on, &self.name, api, plan).await?;
        }
        self.insert_credentials(on).await
    }

    async fn insert_credentials(&self, on: &mut Connection) -> Done {
        for (issuer, client) in &self.logins {
            sqlx::query("INSERT INTO logins (issuer, client, consumer) VALUES ($1, $2, $3)")
                .bind(&**issuer)
                .bind(&**client)
                .bind(&*self.name)
                .execute(&mut *on)
                .await?;
        }
        for name in &self.certificates {
            sqlx::query("INSERT INTO certificates (name, consumer) VALUES ($1, $2)")
                .bind(&**name)
                .bind(&*self.name)
                .execute(&mut *on)
                .await?;
        }
        for (name, password) in &self.users {
            sqlx::query("INSERT INTO users (name, password, consumer) VALUES ($1, $2, $3)")
                .bind(&**name)
                .bind(password.reveal())
                .bind(&*self.name)
                .execute(&mut *on)
                .await?;
        }
        Ok(())
    }

    /// Binds the consumer to a plan at an API, in place of the plan it had there.
    pub(crate) async fn subscribe(
        on: &mut Connection,
        consumer: &str,
        api: &str,
        plan: &str,
    ) -> Done {
        sqlx::query(
            "INSERT INTO subscriptions (consumer, api, plan) VALUES ($1, $2, $3)
             ON CONFLICT (consumer, api) DO UPDATE SET plan = excluded.plan",
        )
        .bind(consumer)
        .bind(api)
        .bind(plan)
        .execute(on)
        .await?;
        Ok(())
    }

    pub(crate) async fn unsubscribe(on: &mut Connection, consumer: &str, api: &str) -> Done {
        sqlx::query("DELETE FROM subscriptions WHERE consumer = $1 AND api = $2")
            .bind(consumer)
            .bind(api)
            .execute(on)
            .await?;
        Ok(())
    }

    /// Changes what a consumer is besides what hangs on it.
    pub(crate) async fn change(
        on: &mut Connection,
        name: &str,
        (project, roles, explains): (&str, &[Arc<str>], bool),
    ) -> Done {
        sqlx::query("UPDATE consumers SET project = $2, roles = $3, explains = $4 WHERE name = $1")
            .bind(name)
            .bind(project)
            .bind(written(roles))
            .bind(explains)
            .execute(on)
            .await?;
        Ok(())
    }

    /// Removes the consumer and its credentials, and names those. What it accepted stays on record, and counts not for whoever
    /// gets its name next. Its logins and certificates stay on record too: they are refused until somebody else has them.
    pub(crate) async fn delete(
        on: &mut Connection,
        name: &str,
        at: Timestamp,
    ) -> Result<Vec<CredentialRef>, StoreError> {
        let gone = credentials_of(on, name).await?;
        super::AcceptanceRow::end(on, name, at).await?;
        for statement in [
            "INSERT INTO withdrawn_logins (issuer, client, consumer)
             SELECT issuer, client, consumer FROM logins WHERE consumer = $1
             ON CONFLICT (issuer, client) DO UPDATE SET consumer = excluded.consumer",
            "INSERT INTO withdrawn_certificates (name, consumer)
             SELECT name, consumer FROM certificates WHERE consumer = $1
             ON CONFLICT (name) DO UPDATE SET consumer = excluded.consumer",
            "DELETE FROM keys WHERE consumer = $1",
            "DELETE FROM suspensions WHERE consumer = $1",
            "DELETE FROM overrides WHERE consumer = $1",
            "DELETE FROM consumers WHERE name = $1",
        ] {
            sqlx::query(statement).bind(name).execute(&mut *on).await?;
        }
        Ok(gone)
    }
}

async fn credentials_of(on: &mut Connection, name: &str) -> Result<Vec<CredentialRef>, StoreError> {
    let mut found = Vec::new();
    for key in KeyRow::of_consumer(on, name).await? {
        found.push(CredentialRef::Key(key.digest));
    }
    let logins = sqlx::query("SELECT issuer, client FROM logins WHERE consumer = $1")
        .bind(name)
        .fetch_all(&mut *on)
        .await?;
    for row in &logins {
        found.push(CredentialRef::Login {
            issuer: super::rows::text(row, "issuer")?,
            client: super::rows::text(row, "client")?,
        });
    }
    let certificates = sqlx::query("SELECT name FROM certificates WHERE consumer = $1")
        .bind(name)
        .fetch_all(&mut *on)
        .await?;
    for row in &certificates {
        found.push(CredentialRef::Certificate(super::rows::text(row, "name")?));
    }
    let users = sqlx::query("SELECT name FROM users WHERE consumer = $1")
        .bind(name)
        .fetch_all(&mut *on)
        .await?;
    for row in &users {
        found.push(CredentialRef::User(super::rows::text(row, "name")?));
    }
    Ok(found)
}

impl KeyRow {
    pub(crate) async fn insert(&self, on: &mut Connection) -> Done {
        sqlx::query(
            "INSERT INTO keys (id, consumer, name, digest, created_at, not_before, expires_at,
                               operations, networks, referrers)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&*self.id)
        .bind(&*self.consumer)
        .bind(&*self.name)
        .bind(hex(&self.digest.0))
        .bind(self.created_at.millis())
        .bind(self.not_before.map(Timestamp::millis))
        .bind(self.expires.map(Timestamp::millis))
        .bind(self.operations.as_deref().map(written))
        .bind(self.networks_written())
        .bind(written(&self.referrers))
        .execute(on)
        .await?;
        Ok(())
    }

    /// The key of this public identifier.
    pub(crate) async fn find(on: &mut Connection, id: &str) -> Result<Option<Self>, StoreError> {
        let row = sqlx::query("SELECT * FROM keys WHERE id = $1")
            .bind(id)
            .fetch_optional(on)
            .await?;
        row.as_ref().map(Self::read).transpose()
    }

    /// A consumer's keys, oldest first.
    pub(crate) async fn of_consumer(
        on: &mut Connection,
        consumer: &str,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT * FROM keys WHERE consumer = $1 ORDER BY created_at, id")
            .bind(consumer)
            .fetch_all(on)
            .await?;
        rows.iter().map(Self::read).collect()
    }

    pub(crate) async fn expire(on: &mut Connection, id: &str, at: Timestamp) -> Done {
        sqlx::query("UPDATE keys SET expires_at = $2 WHERE id = $1")
            .bind(id)
            .bind(at.millis())
            .execute(on)
            .await?;
        Ok(())
    }

    pub(crate) async fn delete(on: &mut Connection, id: &str) -> Done {
        sqlx::query("DELETE FROM keys WHERE id = $1")
            .bind(id)
            .execute(on)
            .await?;
        Ok(())
    }
}

impl TermsRow {
    pub(crate) async fn insert(&self, on: &mut Connection, at: Timestamp) -> Done {
        sqlx::query(
            "INSERT INTO terms (name, title, apis, shadow, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&*self.name)
        .bind(&self.title)
        .bind(written(&self.apis))
        .bind(self.shadow)
        .bind(at.millis())
        .execute(on)
        .await?;
        Ok(())
    }

    /// Removes the document and its versions.
    pub(crate) async fn delete(on: &mut Connection, name: &str) -> Done {
        sqlx::query("DELETE FROM terms WHERE name = $1")
            .bind(name)
            .execute(on)
            .await?;
        Ok(())
    }

    /// Adds a version.
    pub(crate) async fn add(
        on: &mut Connection,
        terms: &str,
        version: &TermsVersion,
        text: &Arc<str>,
    ) -> Done {
        let grace = i64::try_from(version.grace.as_millis()).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO terms_versions
                 (terms, version, effective, grace, text_hash, text, purpose_required)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(terms)
        .bind(i64::from(version.version))
        .bind(version.effective.millis())
        .bind(grace)
        .bind(&*version.text_hash)
        .bind(&**text)
        .bind(version.purpose_required)
        .execute(on)
        .await?;
        Ok(())
    }
}

/// How many changes the directory has seen, by whichever process.
pub(crate) async fn generation(on: &mut Connection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'generation'")
        .fetch_optional(on)
        .await?;
    let value: i64 = row.map_or(Ok(0), |row| row.try_get("value"))?;
    Ok(u64::try_from(value).unwrap_or(0))
}

/// Counts one more, and says how many there are.
pub(crate) async fn next_generation(on: &mut Connection) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "INSERT INTO meta (name, value) VALUES ('generation', 1)
         ON CONFLICT (name) DO UPDATE SET value = meta.value + 1
         RETURNING value",
    )
    .fetch_one(on)
    .await?;
    let value: i64 = row.try_get("value")?;
    Ok(u64::try_from(value).unwrap_or(0))
}
