//! Organisations and their projects.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, Page, Reply, new_name, text};
use super::ownership::{changeable, same, shown};
use super::problem::Problem;
use crate::Control;
use crate::index::{Edit, Organisation, Project};
use crate::refusal::Refusal;
use crate::store::{OrganisationRow, ProjectRow};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrganisation {
    name: String,
    #[serde(default)]
    title: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewProject {
    name: String,
    organisation: String,
    #[serde(default)]
    title: String,
}

/// A page of a sorted map.
pub(super) fn page<V>(
    page: &Page,
    all: &BTreeMap<Arc<str>, V>,
    show: impl Fn(&Arc<str>, &V) -> Value,
) -> Reply {
    let after = page.after.as_deref();
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let found: Vec<_> = all
        .range::<str, _>((start, Bound::Unbounded))
        .take(page.limit)
        .collect();
    let last = found.last().map(|(name, _)| name.to_string());
    let items = found.into_iter().map(|(name, value)| show(name, value));
    page.reply(items.collect(), last)
}

fn title(given: String) -> Result<String, Refusal> {
    if !given.is_empty() {
        text("title", &given)?;
    }
    Ok(given)
}

fn shown_organisation(name: &str, held: &Organisation) -> Value {
    json!({ "name": name, "title": held.title, "origin": shown(&held.origin) })
}

pub(super) fn list_organisations(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let index = control.inner.index.read();
    let show = |name: &Arc<str>, held: &Organisation| shown_organisation(name, held);
    Ok(page(&wanted, &index.organisations, show))
}

pub(super) fn show_organisation(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("organisation");
    let index = control.inner.index.read();
    let held = index.organisations.get(name);
    let held = held.ok_or_else(|| Refusal::missing("organisation", name))?;
    Ok(Reply::shown(shown_organisation(name, held)))
}

pub(super) async fn create_organisation(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let body: NewOrganisation = call.body()?;
    let row = OrganisationRow {
        name: new_name("name", &body.name)?,
        title: title(body.title)?,
    };
    let view = json!({ "name": &*row.name, "title": row.title, "origin": { "kind": "store" } });
    let mut change = control.begin().await?;
    if let Some(held) = control.inner.index.read().organisations.get(&row.name) {
        same(
            "organisation",
            &row.name,
            &held.origin,
            held.title == row.title,
        )?;
        return Ok(Reply::shown(view));
    }
    let entry = call.entry("organisation.create", &row.name, json!({ "after": view }));
    row.insert(change.on(), entry.at).await?;
    change.note(entry);
    change.edit(Edit::Organisation(row));
    change.commit().await?;
    Ok(Reply::created(view))
}

pub(super) async fn delete_organisation(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("organisation");
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let held = index.organisations.get(name);
        let held = held.ok_or_else(|| Refusal::missing("organisation", name))?;
        changeable("organisation", name, &held.origin)?;
        let mut projects = index.projects.iter();
        if let Some((by, _)) = projects.find(|(_, p)| *p.organisation == *name) {
            return Err(in_use("organisation", name, format!("project `{by}`")));
        }
        shown_organisation(name, held)
    };
    OrganisationRow::delete(change.on(), name).await?;
    change.note(call.entry("organisation.delete", name, json!({ "before": before })));
    change.edit(Edit::NoOrganisation(Arc::from(name)));
    change.commit().await?;
    Ok(Reply::done())
}

/// Others refer to it.
pub(super) fn in_use(kind: &'static str, name: &str, by: String) -> Problem {
    let name = name.to_owned();
    Refusal::InUse { kind, name, by }.into()
}

fn shown_project(name: &str, held: &Project) -> Value {
    json!({
        "name": name,
        "organisation": &*held.organisation,
        "title": held.title,
        "origin": shown(&held.origin),
    })
}

pub(super) fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let index = control.inner.index.read();
    let show = |name: &Arc<str>, held: &Project| shown_project(name, held);
    Ok(page(&wanted, &index.projects, show))
}

pub(super) fn show(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("project");
    let index = control.inner.index.read();
    let held = index.projects.get(name);
    let held = held.ok_or_else(|| Refusal::missing("project", name))?;
    Ok(Reply::shown(shown_project(name, held)))
}

pub(super) async fn create(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let body: NewProject = call.body()?;
    let row = ProjectRow {
        name: new_name("name", &body.name)?,
        organisation: new_name("organisation", &body.organisation)?,
        title: title(body.title)?,
    };
    let view = json!({
        "name": &*row.name,
        "organisation": &*row.organisation,
        "title": row.title,
        "origin": { "kind": "store" },
    });
    let mut change = control.begin().await?;
    {
        let index = control.inner.index.read();
        if let Some(held) = index.projects.get(&row.name) {
            let equal = held.title == row.title && held.organisation == row.organisation;
            same("project", &row.name, &held.origin, equal)?;
            return Ok(Reply::shown(view));
        }
        if !index.organisations.contains_key(&row.organisation) {
            let why = format!("there is no organisation `{}`", row.organisation);
            return Err(Refusal::invalid("organisation", why).into());
        }
    }
    let entry = call.entry("project.create", &row.name, json!({ "after": view }));
    row.insert(change.on(), entry.at).await?;
    change.note(entry);
    change.edit(Edit::Project(row));
    change.commit().await?;
    Ok(Reply::created(view))
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("project");
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let held = index.projects.get(name);
        let held = held.ok_or_else(|| Refusal::missing("project", name))?;
        changeable("project", name, &held.origin)?;
        let mut consumers = index.consumers.iter();
        if let Some((by, _)) = consumers.find(|(_, c)| *c.project == *name) {
            return Err(in_use("project", name, format!("consumer `{by}`")));
        }
        shown_project(name, held)
    };
    ProjectRow::delete(change.on(), name).await?;
    change.note(call.entry("project.delete", name, json!({ "before": before })));
    change.edit(Edit::NoProject(Arc::from(name)));
    change.commit().await?;
    Ok(Reply::done())
}
