//! Consumers, their subscriptions, and stopping them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::directory::Secret;

use super::call::{Call, Reply, bounded, new_name, text, texts};
use super::ownership::{changeable, same, shown};
use super::problem::Problem;
use super::projects::page;
use crate::Control;
use crate::index::{Edit, Held, Index, Others};
use crate::refusal::Refusal;
use crate::store::{ConsumerRow, suspend as keep_suspension};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConsumer {
    name: String,
    project: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    explains: bool,
    #[serde(default)]
    subscriptions: Vec<NewSubscription>,
    #[serde(default)]
    logins: Vec<NewLogin>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    users: Vec<NewUser>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSubscription {
    api: String,
    plan: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLogin {
    issuer: String,
    client: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: String,
    /// Argon2id, in PHC form. The password itself never comes here.
    password_hash: String,
}

/// What is not said stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    project: Option<String>,
    roles: Option<Vec<String>>,
    explains: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    plan: String,
}

impl NewConsumer {
    fn row(self) -> Result<ConsumerRow, Refusal> {
        bounded("subscriptions", &self.subscriptions)?;
        bounded("logins", &self.logins)?;
        bounded("users", &self.users)?;
        let subscription = |s: &NewSubscription| {
            Ok((
                text("subscriptions", &s.api)?,
                new_name("subscriptions", &s.plan)?,
            ))
        };
        let login = |l: &NewLogin| Ok((text("logins", &l.issuer)?, text("logins", &l.client)?));
        let mut row = ConsumerRow {
            name: new_name("name", &self.name)?,
            project: new_name("project", &self.project)?,
            roles: texts("roles", &self.roles)?,
            explains: self.explains,
            subscriptions: self
                .subscriptions
                .iter()
                .map(subscription)
                .collect::<Result<_, Refusal>>()?,
            logins: self
                .logins
                .iter()
                .map(login)
                .collect::<Result<_, Refusal>>()?,
            certificates: texts("certificates", &self.certificates)?,
            users: self
                .users
                .iter()
                .map(user)
                .collect::<Result<_, Refusal>>()?,
        };
        row.subscriptions.sort();
        let mut apis: Vec<_> = row.subscriptions.iter().map(|(api, _)| api).collect();
        apis.dedup();
        if apis.len() != row.subscriptions.len() {
            return Err(Refusal::invalid("subscriptions", "at most one per API"));
        }
        Ok(row)
    }
}

fn user(given: &NewUser) -> Result<(Arc<str>, Secret), Refusal> {
    let hash = text("users", &given.password_hash)?;
    if !hash.starts_with("$argon2id$") {
        let why = "password_hash is an Argon2id hash in PHC form ($argon2id$…)";
        return Err(Refusal::invalid("users", why));
    }
    let name = text("users", &given.name)?;
    if name.contains(':') {
        return Err(Refusal::invalid(
            "users",
            "a user name holds no colon (RFC 7617)",
        ));
    }
    Ok((name, Secret::new(hash)))
}

/// Whether an existing consumer is what a row would make.
fn equal(held: &Held, row: &ConsumerRow) -> bool {
    let none = Others::default();
    let others = held.others.as_deref().unwrap_or(&none);
    held.project == row.project
        && *held.roles == *row.roles
        && held.explains == row.explains
        && held.subscriptions == row.subscriptions
        && others.logins == row.logins
        && others.certificates == row.certificates
        && others.users == row.users
}

/// Whatever a new consumer refers to must exist, and its credentials be nobody else's.
fn check(index: &Index, row: &ConsumerRow) -> Result<(), Refusal> {
    if !index.projects.contains_key(&row.project) {
        let why = format!("there is no project `{}`", row.project);
        return Err(Refusal::invalid("project", why));
    }
    for (_, plan) in &row.subscriptions {
        check_plan(index, plan)?;
    }
    let mut seen = std::collections::HashSet::new();
    for reference in row.references() {
        if let Some(owner) = index.owner(&reference) {
            let why = format!("a credential of these is consumer `{owner}`'s already");
            return Err(Refusal::invalid("name", why));
        }
        if !seen.insert(reference) {
            return Err(Refusal::invalid("name", "a credential is named twice"));
        }
    }
    Ok(())
}

fn check_plan(index: &Index, plan: &str) -> Result<(), Refusal> {
    if index.plans.contains_key(plan) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "plan",
        format!("there is no plan `{plan}`"),
    ))
}

fn view(index: &Index, name: &Arc<str>, held: &Held) -> Value {
    let none = Others::default();
    let others = held.others.as_deref().unwrap_or(&none);
    let project = index.projects.get(&held.project);
    let subscriptions = held.subscriptions.iter();
    let subscriptions = subscriptions.map(|(api, plan)| json!({ "api": &**api, "plan": &**plan }));
    let logins = others.logins.iter();
    let logins = logins.map(|(issuer, client)| json!({ "issuer": &**issuer, "client": &**client }));
    json!({
        "name": &**name,
        "project": &*held.project,
        "organisation": project.map_or("", |p| &*p.organisation),
        "roles": held.roles.iter().map(|r| &**r).collect::<Vec<_>>(),
        "explains": held.explains,
        "suspended": index.is_suspended(name, held),
        "subscriptions": subscriptions.collect::<Vec<_>>(),
        "logins": logins.collect::<Vec<_>>(),
        "certificates": others.certificates.iter().map(|c| &**c).collect::<Vec<_>>(),
        // Names alone: a hash is a secret too.
        "users": others.users.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        "origin": shown(&held.origin),
    })
}

/// The consumer a path names, as shown.
fn named(index: &Index, name: &str) -> Result<Value, Refusal> {
    let found = index.consumers.get_key_value(name);
    let (name, held) = found.ok_or_else(|| Refusal::missing("consumer", name))?;
    Ok(view(index, name, held))
}

pub(super) fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let index = control.inner.index.read();
    let show = |name: &Arc<str>, held: &Held| view(&index, name, held);
    Ok(page(&wanted, &index.consumers, show))
}

pub(super) fn show(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let index = control.inner.index.read();
    Ok(Reply::shown(named(&index, call.path("consumer"))?))
}

pub(super) async fn create(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let row = call.body::<NewConsumer>()?.row()?;
    let name = Arc::clone(&row.name);
    let mut change = control.begin().await?;
    {
        let index = control.inner.index.read();
        if let Some(held) = index.consumers.get(&name) {
            same("consumer", &name, &held.origin, equal(held, &row))?;
            return Ok(Reply::shown(view(&index, &name, held)));
        }
        check(&index, &row)?;
    }
    let detail = json!({ "after": {
        "project": &*row.project,
        "subscriptions": row.subscriptions.iter().map(|(a, p)| [&**a, &**p]).collect::<Vec<_>>(),
        "logins": row.logins.len(),
        "certificates": row.certificates.len(),
        "users": row.users.len(),
    }});
    let entry = call.entry("consumer.create", &name, detail);
    row.insert(change.on(), entry.at).await?;
    change.note(entry);
    change.edit(Edit::Consumer(row));
    change.commit().await?;
    let index = control.inner.index.read();
    Ok(Reply::created(named(&index, &name)?))
}

/// Credentials and subscriptions have ways of their own.
pub(super) async fn change(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("consumer");
    let wanted: Changes = call.body()?;
    let mut change = control.begin().await?;
    let (before, project, roles, explains) = {
        let index = control.inner.index.read();
        let held = index.consumers.get(name);
        let held = held.ok_or_else(|| Refusal::missing("consumer", name))?;
        changeable("consumer", name, &held.origin)?;
        let project = match &wanted.project {
            Some(project) => new_name("project", project)?,
            None => Arc::clone(&held.project),
        };
        if !index.projects.contains_key(&project) {
            let why = format!("there is no project `{project}`");
            return Err(Refusal::invalid("project", why).into());
        }
        let roles = match &wanted.roles {
            Some(roles) => texts("roles", roles)?,
            None => held.roles.to_vec(),
        };
        let explains = wanted.explains.unwrap_or(held.explains);
        let before = plain_of(&held.project, &held.roles, held.explains);
        (before, project, roles, explains)
    };
    let after = plain_of(&project, &roles, explains);
    if after != before {
        ConsumerRow::change(change.on(), name, (&project, &roles, explains)).await?;
        let detail = json!({ "before": before, "after": after });
        change.note(call.entry("consumer.change", name, detail));
        let consumer = Arc::from(name);
        change.edit(Edit::Changed {
            consumer,
            project,
            roles,
            explains,
        });
        change.commit().await?;
    }
    let index = control.inner.index.read();
    Ok(Reply::shown(named(&index, name)?))
}

fn plain_of(project: &str, roles: &[Arc<str>], explains: bool) -> Value {
    let roles: Vec<&str> = roles.iter().map(|role| &**role).collect();
    json!({ "project": project, "roles": roles, "explains": explains })
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("consumer");
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let held = index.consumers.get(name);
        let held = held.ok_or_else(|| Refusal::missing("consumer", name))?;
        changeable("consumer", name, &held.origin)?;
        named(&index, name)?
    };
    let entry = call.entry("consumer.delete", name, json!({ "before": before }));
    let credentials = ConsumerRow::delete(change.on(), name, entry.at).await?;
    change.note(entry);
    let name = Arc::from(name);
    change.edit(Edit::NoConsumer { name, credentials });
    change.commit().await?;
    Ok(Reply::done())
}

/// Suspending restricts, so it holds for consumers of files as well; a file's own suspension is lifted in the file.
pub(super) async fn suspend(
    control: &Control,
    call: &Call,
    suspended: bool,
) -> Result<Reply, Problem> {
    let name = call.path("consumer");
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let found = index.consumers.get_key_value(name);
        let (name, held) = found.ok_or_else(|| Refusal::missing("consumer", name))?;
        if !suspended && held.suspended {
            changeable("consumer", name, &held.origin)?;
        }
        index.suspended.contains(name)
    };
    if before != suspended {
        let action = if suspended {
            "consumer.suspend"
        } else {
            "consumer.resume"
        };
        let detail = json!({ "before": before, "after": suspended });
        let entry = call.entry(action, name, detail);
        keep_suspension(change.on(), name, suspended, entry.at).await?;
        change.note(entry);
        let consumer = Arc::from(name);
        change.edit(Edit::Suspended {
            consumer,
            suspended,
        });
        change.commit().await?;
    }
    let index = control.inner.index.read();
    Ok(Reply::shown(named(&index, name)?))
}

pub(super) async fn subscribe(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("consumer");
    let api = text("api", call.path("api"))?;
    let plan = new_name("plan", &call.body::<Chosen>()?.plan)?;
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        check_plan(&index, &plan)?;
        plan_held(&index, name, &api)?
    };
    if before.as_ref() != Some(&plan) {
        ConsumerRow::subscribe(change.on(), name, &api, &plan).await?;
        let detail = json!({ "api": &*api, "before": before.as_deref(), "after": &*plan });
        change.note(call.entry("subscription.put", name, detail));
        change.edit(Edit::Subscription {
            consumer: Arc::from(name),
            api,
            plan: Some(plan),
        });
        change.commit().await?;
    }
    let index = control.inner.index.read();
    Ok(Reply::shown(named(&index, name)?))
}

pub(super) async fn unsubscribe(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let (name, api) = (call.path("consumer"), call.path("api"));
    let mut change = control.begin().await?;
    let before = plan_held(&control.inner.index.read(), name, api)?;
    let Some(before) = before else {
        return Err(Refusal::missing("subscription", &format!("{name}/{api}")).into());
    };
    ConsumerRow::unsubscribe(change.on(), name, api).await?;
    let detail = json!({ "api": api, "before": &*before });
    change.note(call.entry("subscription.delete", name, detail));
    change.edit(Edit::Subscription {
        consumer: Arc::from(name),
        api: Arc::from(api),
        plan: None,
    });
    change.commit().await?;
    Ok(Reply::done())
}

/// The plan a consumer of the store has at an API.
fn plan_held(index: &Index, name: &str, api: &str) -> Result<Option<Arc<str>>, Refusal> {
    let held = index.consumers.get(name);
    let held = held.ok_or_else(|| Refusal::missing("consumer", name))?;
    changeable("consumer", name, &held.origin)?;
    let mut subscriptions = held.subscriptions.iter();
    let found = subscriptions.find(|(held, _)| **held == *api);
    Ok(found.map(|(_, plan)| Arc::clone(plan)))
}
