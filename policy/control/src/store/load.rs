//! The whole directory, read once at start and at each reload.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use sqlx::Row as _;
use std::time::Duration;
use tollgate_policy::directory::{CredentialRef, Price, Revoked, Secret, TermsVersion};
use tollgate_policy::settings::stored_limits;

use super::facts::RevocationRow;
use super::rows::{list, number, optional_list, strange, text, time};
use super::{
    Connection, ConsumerRow, Granted, KeyRow, OrganisationRow, OverrideRow, PlanRow, ProjectRow,
    Row, StoreError, TermsRow,
};

/// Rows read at a time.
const PAGE: i64 = 2000;

const SUBSCRIPTIONS: &str = "SELECT consumer, api, plan FROM subscriptions
    WHERE consumer > $1 AND consumer <= $2 ORDER BY consumer, api";
const LOGINS: &str = "SELECT consumer, issuer, client FROM logins
    WHERE consumer > $1 AND consumer <= $2 ORDER BY consumer, issuer, client";
const CERTIFICATES: &str = "SELECT consumer, name FROM certificates
    WHERE consumer > $1 AND consumer <= $2 ORDER BY consumer, name";
const USERS: &str = "SELECT consumer, name, password FROM users
    WHERE consumer > $1 AND consumer <= $2 ORDER BY consumer, name";

/// A document with its versions, each with its text.
type Document = (TermsRow, Vec<(TermsVersion, Arc<str>)>);

/// All the store knows that is answered from memory.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) generation: u64,
    /// Which store it is; empty: none.
    pub(crate) installation: Arc<str>,
    pub(crate) organisations: Vec<OrganisationRow>,
    pub(crate) projects: Vec<ProjectRow>,
    pub(crate) plans: Vec<PlanRow>,
    pub(crate) consumers: Vec<ConsumerRow>,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) suspensions: Vec<Arc<str>>,
    /// Documents with their versions, lowest first.
    pub(crate) terms: Vec<Document>,
    /// (consumer, terms, version), in the order they were given; version 0 ends those before it.
    pub(crate) acceptances: Vec<(Arc<str>, Arc<str>, u32)>,
    pub(crate) revocations: Vec<Revoked>,
    /// Logins and certificates of consumers that were deleted, with the consumer's name.
    pub(crate) withdrawn: Vec<(CredentialRef, Arc<str>)>,
    /// Overrides with whom they are for, expired ones as well.
    pub(crate) overrides: Vec<Granted>,
}

impl Contents {
    /// Reads everything. The caller holds a transaction, so that all is of one state.
    pub(crate) async fn read(on: &mut Connection) -> Result<Self, StoreError> {
        let mut names = Names::default();
        Ok(Self {
            generation: super::objects::generation(on).await?,
            installation: installation(on).await?,
            organisations: organisations(on).await?,
            projects: projects(on).await?,
            plans: plans(on).await?,
            consumers: consumers(on, &mut names).await?,
            keys: keys(on, &mut names).await?,
            suspensions: suspensions(on).await?,
            terms: terms(on).await?,
            acceptances: acceptances(on, &mut names).await?,
            revocations: revocations(on).await?,
            withdrawn: withdrawn(on, &mut names).await?,
            overrides: OverrideRow::all(on).await?,
        })
    }
}

async fn installation(on: &mut Connection) -> Result<Arc<str>, StoreError> {
    let id: String = sqlx::query_scalar("SELECT id FROM installation")
        .fetch_one(on)
        .await?;
    Ok(id.into())
}

/// Names that many rows repeat, each kept once.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn once(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        self.0.insert(Arc::clone(&name));
        name
    }

    fn text(&mut self, row: &Row, column: &str) -> Result<Arc<str>, StoreError> {
        Ok(self.once(row.try_get(column)?))
    }
}

async fn rows(on: &mut Connection, statement: &'static str) -> Result<Vec<Row>, StoreError> {
    Ok(sqlx::query(statement).fetch_all(on).await?)
}

async fn organisations(on: &mut Connection) -> Result<Vec<OrganisationRow>, StoreError> {
    let rows = rows(on, "SELECT name, title FROM organisations").await?;
    let read = |row: &Row| {
        Ok(OrganisationRow {
            name: text(row, "name")?,
            title: row.try_get("title")?,
        })
    };
    rows.iter().map(read).collect()
}

async fn projects(on: &mut Connection) -> Result<Vec<ProjectRow>, StoreError> {
    let rows = rows(on, "SELECT name, organisation, title FROM projects").await?;
    let read = |row: &Row| {
        Ok(ProjectRow {
            name: text(row, "name")?,
            organisation: text(row, "organisation")?,
            title: row.try_get("title")?,
        })
    };
    rows.iter().map(read).collect()
}

async fn plans(on: &mut Connection) -> Result<Vec<PlanRow>, StoreError> {
    let mut opened: HashMap<Arc<str>, Vec<_>> = HashMap::new();
    for row in &rows(
        on,
        "SELECT plan, api, operations FROM plan_apis ORDER BY plan, api",
    )
    .await?
    {
        let opens = (text(row, "api")?, optional_list(row, "operations")?);
        opened.entry(text(row, "plan")?).or_default().push(opens);
    }
    let statement = "SELECT name, roles, terms, limits, price_version, currency FROM plans";
    let rows = rows(on, statement).await?;
    let mut plans = Vec::with_capacity(rows.len());
    for row in &rows {
        let name = text(row, "name")?;
        let limits = stored_limits(&name, row.try_get("limits")?);
        plans.push(PlanRow {
            apis: opened.remove(&name).unwrap_or_default(),
            limits: limits.map_err(|findings| strange(&findings))?,
            price: Price {
                version: number(row, "price_version")?,
                currency: text(row, "currency")?,
            },
            name,
            roles: list(row, "roles")?,
            terms: list(row, "terms")?,
        });
    }
    Ok(plans)
}

/// Consumers with all that hangs on them but keys, a page at a time: rows are larger than what is made of them.
async fn consumers(on: &mut Connection, names: &mut Names) -> Result<Vec<ConsumerRow>, StoreError> {
    let mut consumers: Vec<ConsumerRow> = Vec::new();
    loop {
        let after = consumers.last().map_or("", |c| &*c.name).to_owned();
        let rows = sqlx::query(
            "SELECT name, project, roles, explains FROM consumers
             WHERE name > $1 ORDER BY name LIMIT $2",
        )
        .bind(&after)
        .bind(PAGE)
        .fetch_all(&mut *on)
        .await?;
        let begin = consumers.len();
        for row in &rows {
            consumers.push(ConsumerRow {
                name: names.text(row, "name")?,
                project: names.text(row, "project")?,
                roles: list(row, "roles")?,
                explains: row.try_get("explains")?,
                subscriptions: Vec::new(),
                logins: Vec::new(),
                certificates: Vec::new(),
                users: Vec::new(),
            });
        }
        let Some(page) = consumers.get_mut(begin..).filter(|page| !page.is_empty()) else {
            return Ok(consumers);
        };
        complete(on, names, &after, page).await?;
    }
}

/// Subscriptions and credentials of one page of consumers, which follow `after` and are sorted by name.
async fn complete(
    on: &mut Connection,
    names: &mut Names,
    after: &str,
    page: &mut [ConsumerRow],
) -> Result<(), StoreError> {
    let last = page.last().map_or("", |c| &*c.name).to_owned();
    for row in &range(on, SUBSCRIPTIONS, after, &last).await? {
        let pair = (names.text(row, "api")?, names.text(row, "plan")?);
        of(page, row)?.subscriptions.push(pair);
    }
    for row in &range(on, LOGINS, after, &last).await? {
        let pair = (names.text(row, "issuer")?, text(row, "client")?);
        of(page, row)?.logins.push(pair);
    }
    for row in &range(on, CERTIFICATES, after, &last).await? {
        let name = text(row, "name")?;
        of(page, row)?.certificates.push(name);
    }
    for row in &range(on, USERS, after, &last).await? {
        let user = (text(row, "name")?, Secret::new(text(row, "password")?));
        of(page, row)?.users.push(user);
    }
    Ok(())
}

async fn range(
    on: &mut Connection,
    statement: &'static str,
    after: &str,
    last: &str,
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query(statement).bind(after).bind(last);
    Ok(rows.fetch_all(on).await?)
}

/// The consumer a row names.
fn of<'p>(page: &'p mut [ConsumerRow], row: &Row) -> Result<&'p mut ConsumerRow, StoreError> {
    let name: &str = row.try_get("consumer")?;
    let found = page.binary_search_by(|consumer| (*consumer.name).cmp(name));
    let consumer = found.ok().and_then(|at| page.get_mut(at));
    // A foreign key holds them together.
    consumer.ok_or_else(|| StoreError::Strange(format!("something of no consumer {name}")))
}

async fn keys(on: &mut Connection, names: &mut Names) -> Result<Vec<KeyRow>, StoreError> {
    let mut keys: Vec<KeyRow> = Vec::new();
    loop {
        let after = keys.last().map_or("", |key| &*key.id).to_owned();
        let rows = sqlx::query("SELECT * FROM keys WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(&after)
            .bind(PAGE)
            .fetch_all(&mut *on)
            .await?;
        if rows.is_empty() {
            return Ok(keys);
        }
        for row in &rows {
            let mut key = KeyRow::read(row)?;
            key.consumer = names.once(&key.consumer);
            key.name = names.once(&key.name);
            keys.push(key);
        }
    }
}

async fn suspensions(on: &mut Connection) -> Result<Vec<Arc<str>>, StoreError> {
    let rows = rows(on, "SELECT consumer FROM suspensions").await?;
    rows.iter().map(|row| text(row, "consumer")).collect()
}

async fn terms(on: &mut Connection) -> Result<Vec<Document>, StoreError> {
    let mut versions: HashMap<Arc<str>, Vec<_>> = HashMap::new();
    for row in &rows(on, "SELECT * FROM terms_versions ORDER BY terms, version").await? {
        let version = TermsVersion {
            version: number(row, "version")?,
            effective: time(row, "effective")?,
            grace: Duration::from_millis(number(row, "grace")?),
            text_hash: text(row, "text_hash")?,
            purpose_required: row.try_get("purpose_required")?,
        };
        let held = versions.entry(text(row, "terms")?).or_default();
        held.push((version, text(row, "text")?));
    }
    let rows = rows(on, "SELECT name, title, apis, shadow FROM terms").await?;
    let mut terms = Vec::with_capacity(rows.len());
    for row in &rows {
        let found = TermsRow {
            name: text(row, "name")?,
            title: row.try_get("title")?,
            apis: list(row, "apis")?,
            shadow: row.try_get("shadow")?,
        };
        let versions = versions.remove(&found.name).unwrap_or_default();
        terms.push((found, versions));
    }
    Ok(terms)
}

/// Every acceptance; the highest version is found where they are put together.
async fn acceptances(
    on: &mut Connection,
    names: &mut Names,
) -> Result<Vec<(Arc<str>, Arc<str>, u32)>, StoreError> {
    let (mut acceptances, mut after) = (Vec::new(), 0_i64);
    loop {
        let rows = sqlx::query(
            "SELECT seq, consumer, terms, version FROM acceptances
             WHERE seq > $1 ORDER BY seq LIMIT $2",
        )
        .bind(after)
        .bind(PAGE)
        .fetch_all(&mut *on)
        .await?;
        let Some(last) = rows.last() else {
            return Ok(acceptances);
        };
        after = last.try_get("seq")?;
        for row in &rows {
            let (consumer, terms) = (names.text(row, "consumer")?, names.text(row, "terms")?);
            acceptances.push((consumer, terms, number(row, "version")?));
        }
    }
}

async fn revocations(on: &mut Connection) -> Result<Vec<Revoked>, StoreError> {
    let rows = rows(on, "SELECT * FROM revocations ORDER BY seq").await?;
    let read = |row: &Row| RevocationRow::read(row).map(|row| row.what);
    rows.iter().map(read).collect()
}

async fn withdrawn(
    on: &mut Connection,
    names: &mut Names,
) -> Result<Vec<(CredentialRef, Arc<str>)>, StoreError> {
    let mut withdrawn = Vec::new();
    for row in &rows(on, "SELECT issuer, client, consumer FROM withdrawn_logins").await? {
        let login = CredentialRef::Login {
            issuer: names.text(row, "issuer")?,
            client: text(row, "client")?,
        };
        withdrawn.push((login, names.text(row, "consumer")?));
    }
    for row in &rows(on, "SELECT name, consumer FROM withdrawn_certificates").await? {
        let certificate = CredentialRef::Certificate(text(row, "name")?);
        withdrawn.push((certificate, names.text(row, "consumer")?));
    }
    Ok(withdrawn)
}
