//! Objects as the store keeps them, and how they are read from rows.

use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use tollgate_policy::credentials::Digest;
use tollgate_policy::directory::{CredentialRef, Price, Secret};
use tollgate_policy::finding::Finding;
use tollgate_policy::quota::Limit;
use tollgate_policy::settings::Network;
use tollgate_policy::time::Timestamp;

use super::{Row, StoreError};
use crate::text::{network_text, parse_network};

/// An organisation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OrganisationRow {
    pub(crate) name: Arc<str>,
    pub(crate) title: String,
}

/// A project.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProjectRow {
    pub(crate) name: Arc<str>,
    pub(crate) organisation: Arc<str>,
    pub(crate) title: String,
}

/// An API a plan opens, and the operations of it; `None`: all.
pub(crate) type OpenedApi = (Arc<str>, Option<Vec<Arc<str>>>);

/// A plan, with what it opens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlanRow {
    pub(crate) name: Arc<str>,
    pub(crate) apis: Vec<OpenedApi>,
    pub(crate) roles: Vec<Arc<str>>,
    pub(crate) terms: Vec<Arc<str>>,
    pub(crate) limits: Vec<Arc<Limit>>,
    pub(crate) price: Price,
}

/// A consumer, with all that hangs on it but its keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConsumerRow {
    pub(crate) name: Arc<str>,
    pub(crate) project: Arc<str>,
    pub(crate) roles: Vec<Arc<str>>,
    pub(crate) explains: bool,
    /// (API, plan).
    pub(crate) subscriptions: Vec<(Arc<str>, Arc<str>)>,
    /// (issuer, client).
    pub(crate) logins: Vec<(Arc<str>, Arc<str>)>,
    pub(crate) certificates: Vec<Arc<str>>,
    /// (name, Argon2id hash).
    pub(crate) users: Vec<(Arc<str>, Secret)>,
}

impl ConsumerRow {
    /// Its credentials besides keys.
    pub(crate) fn references(&self) -> Vec<CredentialRef> {
        let logins = self.logins.iter().cloned();
        let logins = logins.map(|(issuer, client)| CredentialRef::Login { issuer, client });
        let certificates = self.certificates.iter().cloned();
        let certificates = certificates.map(CredentialRef::Certificate);
        let users = self.users.iter();
        let users = users.map(|(name, _)| CredentialRef::User(Arc::clone(name)));
        logins.chain(certificates).chain(users).collect()
    }
}

/// A key. Its secret is nowhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyRow {
    pub(crate) id: Arc<str>,
    pub(crate) consumer: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) digest: Digest,
    pub(crate) created_at: Timestamp,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) operations: Option<Vec<Arc<str>>>,
    pub(crate) networks: Vec<Network>,
    pub(crate) referrers: Vec<Arc<str>>,
}

/// A document without its versions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TermsRow {
    pub(crate) name: Arc<str>,
    pub(crate) title: String,
    pub(crate) apis: Vec<Arc<str>>,
    pub(crate) shadow: bool,
}

/// What was written here and cannot be read any more.
pub(super) fn strange(findings: &[Finding]) -> StoreError {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    StoreError::Strange(lines.join("; "))
}

/// A text column.
pub(crate) fn text(row: &Row, column: &str) -> Result<Arc<str>, StoreError> {
    Ok(Arc::from(row.try_get::<&str, _>(column)?))
}

/// A number that must fit.
pub(crate) fn number<N: TryFrom<i64>>(row: &Row, column: &str) -> Result<N, StoreError> {
    let number: i64 = row.try_get(column)?;
    N::try_from(number).map_err(|_| StoreError::Strange(format!("{column} {number}")))
}

/// A time.
pub(crate) fn time(row: &Row, column: &str) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

/// A time or none.
pub(crate) fn optional_time(row: &Row, column: &str) -> Result<Option<Timestamp>, StoreError> {
    let millis: Option<i64> = row.try_get(column)?;
    Ok(millis.map(Timestamp::from_millis))
}

/// A JSON array of texts.
pub(super) fn list(row: &Row, column: &str) -> Result<Vec<Arc<str>>, StoreError> {
    Ok(optional_list(row, column)?.unwrap_or_default())
}

/// A JSON array of texts, or none.
pub(super) fn optional_list(row: &Row, column: &str) -> Result<Option<Vec<Arc<str>>>, StoreError> {
    let Some(written) = row.try_get::<Option<&str>, _>(column)? else {
        return Ok(None);
    };
    // Most lists are empty.
    if written == "[]" {
        return Ok(Some(Vec::new()));
    }
    let texts: Vec<String> = json(written)?;
    Ok(Some(texts.into_iter().map(Arc::from).collect()))
}

/// A list as it is written.
pub(super) fn written(list: &[impl AsRef<str>]) -> String {
    let texts: Vec<&str> = list.iter().map(AsRef::as_ref).collect();
    to_json(&texts)
}

fn to_json(value: &impl Serialize) -> String {
    // Lists of texts can always be written.
    serde_json::to_string(value).unwrap_or_default()
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Strange(error.to_string()))
}

impl KeyRow {
    /// Reads a row of `keys`.
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let networks = list(row, "networks")?;
        let networks = networks.iter().map(|text| {
            parse_network(text).ok_or_else(|| StoreError::Strange(format!("network {text}")))
        });
        Ok(Self {
            id: text(row, "id")?,
            consumer: text(row, "consumer")?,
            name: text(row, "name")?,
            digest: digest(row.try_get("digest")?)?,
            created_at: time(row, "created_at")?,
            not_before: optional_time(row, "not_before")?,
            expires: optional_time(row, "expires_at")?,
            operations: optional_list(row, "operations")?,
            networks: networks.collect::<Result<_, _>>()?,
            referrers: list(row, "referrers")?,
        })
    }

    /// Networks as they are written.
    pub(super) fn networks_written(&self) -> String {
        let texts: Vec<String> = self.networks.iter().map(network_text).collect();
        written(&texts)
    }
}

/// A digest from hexadecimal.
pub(super) fn digest(text: &str) -> Result<Digest, StoreError> {
    crate::text::parse_digest(text).ok_or_else(|| StoreError::Strange("a malformed digest".into()))
}

/// An address, or none where it is empty.
pub(super) fn address<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}
