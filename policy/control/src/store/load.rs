//! The whole directory, read once at start and at each reload.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use sqlx::Row as _;
use std::time::Duration;
use tollgate_policy::directory::{Revoked, Secret, TermsVersion};

use super::facts::RevocationRow;
use super::rows::{list, number, optional_list, text, time};
use super::{
    Connection, ConsumerRow, KeyRow, OrganisationRow, PlanRow, ProjectRow, Row, StoreError,
    TermsRow,
};

/// All the store knows that is answered from memory.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) generation: u64,
    pub(crate) organisations: Vec<OrganisationRow>,
    pub(crate) projects: Vec<ProjectRow>,
    pub(crate) plans: Vec<PlanRow>,
    pub(crate) consumers: Vec<ConsumerRow>,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) suspensions: Vec<Arc<str>>,
    /// Documents with their versions, lowest first.
    pub(crate) terms: Vec<(TermsRow, Vec<(TermsVersion, Arc<str>)>)>,
    /// (consumer, terms, highest version).
    pub(crate) acceptances: Vec<(Arc<str>, Arc<str>, u32)>,
    pub(crate) revocations: Vec<Revoked>,
}

impl Contents {
    /// Reads everything. The caller holds a transaction, so that all is of one state.
    pub(crate) async fn read(on: &mut Connection) -> Result<Self, StoreError> {
        let mut names = Names::default();
        Ok(Self {
            generation: super::objects::generation(on).await?,
            organisations: organisations(on).await?,
            projects: projects(on).await?,
            plans: plans(on).await?,
            consumers: consumers(on, &mut names).await?,
            keys: keys(on, &mut names).await?,
            suspensions: suspensions(on).await?,
            terms: terms(on).await?,
            acceptances: acceptances(on, &mut names).await?,
            revocations: revocations(on).await?,
        })
    }
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
    let rows = rows(on, "SELECT name, roles, terms FROM plans").await?;
    let mut plans = Vec::with_capacity(rows.len());
    for row in &rows {
        let name = text(row, "name")?;
        plans.push(PlanRow {
            apis: opened.remove(&name).unwrap_or_default(),
            name,
            roles: list(row, "roles")?,
            terms: list(row, "terms")?,
        });
    }
    Ok(plans)
}

async fn consumers(on: &mut Connection, names: &mut Names) -> Result<Vec<ConsumerRow>, StoreError> {
    let found = rows(
        on,
        "SELECT name, project, roles, explains FROM consumers ORDER BY name",
    )
    .await?;
    let mut consumers = Vec::with_capacity(found.len());
    let mut place = HashMap::with_capacity(found.len());
    for row in &found {
        let name = names.text(row, "name")?;
        place.insert(Arc::clone(&name), consumers.len());
        consumers.push(ConsumerRow {
            name,
            project: names.text(row, "project")?,
            roles: list(row, "roles")?,
            explains: row.try_get("explains")?,
            subscriptions: Vec::new(),
            logins: Vec::new(),
            certificates: Vec::new(),
            users: Vec::new(),
        });
    }
    let mut of =
        |row: &Row, consumers: &mut Vec<ConsumerRow>, put: &mut dyn FnMut(&mut ConsumerRow)| {
            let name: &str = row.try_get("consumer")?;
            if let Some(consumer) = place.get_mut(name).and_then(|at| consumers.get_mut(*at)) {
                put(consumer);
            }
            Ok::<_, StoreError>(())
        };
    for row in &rows(
        on,
        "SELECT consumer, api, plan FROM subscriptions ORDER BY api",
    )
    .await?
    {
        let pair = (names.text(row, "api")?, names.text(row, "plan")?);
        of(row, &mut consumers, &mut |c| {
            c.subscriptions.push(pair.clone())
        })?;
    }
    for row in &rows(on, "SELECT consumer, issuer, client FROM logins").await? {
        let pair = (names.text(row, "issuer")?, text(row, "client")?);
        of(row, &mut consumers, &mut |c| c.logins.push(pair.clone()))?;
    }
    for row in &rows(on, "SELECT consumer, name FROM certificates").await? {
        let name = text(row, "name")?;
        of(row, &mut consumers, &mut |c| {
            c.certificates.push(Arc::clone(&name))
        })?;
    }
    for row in &rows(on, "SELECT consumer, name, password FROM users").await? {
        let user = (text(row, "name")?, Secret::new(text(row, "password")?));
        of(row, &mut consumers, &mut |c| c.users.push(user.clone()))?;
    }
    Ok(consumers)
}

async fn keys(on: &mut Connection, names: &mut Names) -> Result<Vec<KeyRow>, StoreError> {
    let rows = rows(on, "SELECT * FROM keys").await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut key = KeyRow::read(row)?;
        key.consumer = names.once(&key.consumer);
        keys.push(key);
    }
    Ok(keys)
}

async fn suspensions(on: &mut Connection) -> Result<Vec<Arc<str>>, StoreError> {
    let rows = rows(on, "SELECT consumer FROM suspensions").await?;
    rows.iter().map(|row| text(row, "consumer")).collect()
}

async fn terms(
    on: &mut Connection,
) -> Result<Vec<(TermsRow, Vec<(TermsVersion, Arc<str>)>)>, StoreError> {
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

async fn acceptances(
    on: &mut Connection,
    names: &mut Names,
) -> Result<Vec<(Arc<str>, Arc<str>, u32)>, StoreError> {
    let rows = rows(
        on,
        "SELECT consumer, terms, MAX(version) AS version FROM acceptances GROUP BY consumer, terms",
    )
    .await?;
    let mut acceptances = Vec::with_capacity(rows.len());
    for row in &rows {
        let (consumer, terms) = (names.text(row, "consumer")?, names.text(row, "terms")?);
        acceptances.push((consumer, terms, number(row, "version")?));
    }
    Ok(acceptances)
}

async fn revocations(on: &mut Connection) -> Result<Vec<Revoked>, StoreError> {
    let rows = rows(on, "SELECT * FROM revocations ORDER BY seq").await?;
    let read = |row: &Row| RevocationRow::read(row).map(|row| row.what);
    rows.iter().map(read).collect()
}
