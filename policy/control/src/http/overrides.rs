//! Overrides: what organisations, projects and consumers are granted beside plans and APIs, or held to below them.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tollgate_policy::settings::{Grantee, Override, stored_override};

use super::call::{Call, Reply};
use super::ownership::{changeable, shown};
use super::plans::told;
use super::problem::Problem;
use crate::Control;
use crate::control::now;
use crate::index::{Edit, Index};
use crate::refusal::Refusal;
use crate::store::OverrideRow;
use crate::text::put as put_member;

/// Parameters of [`list_all`], besides those of every list.
pub(super) const PARAMETERS: &[&str] = &["subject"];

/// Overrides of one grantee; they are told with each of its consumers.
const MOST: usize = 256;

/// Whom an override is for, and of which limit it is.
struct Named {
    grantee: Grantee,
    name: String,
    limit: String,
}

impl Named {
    /// `consumers/{consumer}/overrides/{plan}/{limit}`.
    fn of_consumer(call: &Call) -> Self {
        Self {
            grantee: Grantee::Consumer,
            name: call.path("consumer").to_owned(),
            limit: format!("plan/{}/{}", call.path("plan"), call.path("limit")),
        }
    }

    /// `overrides/{subject}/{owner}/{name}/{limit}`.
    fn of_subject(call: &Call) -> Result<Self, Refusal> {
        let (grantee, name) = subject(call.path("subject"))?;
        let owner = call.path("owner");
        if !matches!(owner, "plan" | "api") {
            let why = "a limit is one of a plan or of an api";
            return Err(Refusal::invalid("owner", why));
        }
        Ok(Self {
            grantee,
            name: name.to_owned(),
            limit: format!("{owner}/{}/{}", call.path("name"), call.path("limit")),
        })
    }

    /// What the audit log calls it.
    fn subject(&self) -> String {
        match self.grantee {
            Grantee::Consumer => self.name.clone(),
            Grantee::Project | Grantee::Organisation => written(self.grantee, &self.name),
        }
    }

    /// The override there is now. One of a file is not changed here.
    fn held<'i>(&self, index: &'i Index) -> Result<Option<&'i Override>, Refusal> {
        if !index.has_grantee(self.grantee, &self.name) {
            return Err(Refusal::missing(self.grantee.as_str(), &self.name));
        }
        let mut held = index.overrides(self.grantee, &self.name).iter();
        let found = held.find(|it| *it.limit == *self.limit);
        if let Some(found) = found {
            changeable("override", &self.limit, &found.origin)?;
        }
        Ok(found)
    }
}

/// `project:web`.
fn subject(text: &str) -> Result<(Grantee, &str), Refusal> {
    let (kind, name) = text.split_once(':').unwrap_or_default();
    let grantee = Grantee::ALL.into_iter().find(|it| it.as_str() == kind);
    let why = "write organisation:NAME, project:NAME or consumer:NAME";
    let grantee = grantee.filter(|_| !name.is_empty());
    Ok((
        grantee.ok_or_else(|| Refusal::invalid("subject", why))?,
        name,
    ))
}

fn written(grantee: Grantee, name: &str) -> String {
    format!("{}:{name}", grantee.as_str())
}

fn view(grantee: Grantee, name: &str, found: &Override) -> Value {
    let mut shown_one = found.written();
    put_member(&mut shown_one, "subject", written(grantee, name));
    put_member(&mut shown_one, "origin", shown(&found.origin));
    shown_one
}

pub(super) fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let consumer = call.path("consumer");
    let index = control.inner.index.read();
    if !index.consumers.contains_key(consumer) {
        return Err(Refusal::missing("consumer", consumer).into());
    }
    let held = index.overrides(Grantee::Consumer, consumer).iter();
    let items: Vec<Value> = held
        .map(|it| view(Grantee::Consumer, consumer, it))
        .collect();
    Ok(Reply::shown(json!({ "items": items, "next": null })))
}

pub(super) fn list_all(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let page = call.page()?;
    let wrong = || Refusal::invalid("after", "not a `next` of an earlier page");
    let after: Option<(String, String)> = match &page.after {
        Some(after) => Some(serde_json::from_str(after).map_err(|_| wrong())?),
        None => None,
    };
    let after = match &after {
        Some((whose, limit)) => Some((subject(whose).map_err(|_| wrong())?, &**limit)),
        None => None,
    };
    let wanted = call.query("subject").map(subject).transpose()?;
    let index = control.inner.index.read();
    let items = index
        .all_overrides()
        .map(|(grantee, name, found)| ((grantee, &**name), &*found.limit, found))
        .filter(|(whose, ..)| wanted.is_none_or(|wanted| *whose == wanted))
        .filter(|(whose, limit, _)| after.is_none_or(|after| (*whose, *limit) > after))
        .take(page.limit);
    let items: Vec<_> = items.collect();
    let last = items
        .last()
        .map(|((grantee, name), limit, _)| json!([written(*grantee, name), limit]).to_string());
    let shown = items
        .into_iter()
        .map(|((grantee, name), _, found)| view(grantee, name, found));
    Ok(page.reply(shown.collect(), last))
}

/// What is asked for, if there is such a limit and it is the grantee's.
fn asked(
    control: &Control,
    index: &Index,
    call: &Call,
    named: &Named,
) -> Result<Override, Problem> {
    let mut body = call.body::<Map<String, Value>>()?;
    let limit = named.limit.as_str();
    if body.insert("limit".to_owned(), limit.into()).is_some() {
        return Err(Refusal::invalid("limit", "stands in the path").into());
    }
    let found = stored_override(&Value::from(body).to_string());
    let found = found.map_err(|findings| Refusal::invalid("override", told(&findings)))?;
    let of = control.limit(index, limit)?;
    if let Some((what, remedy)) = named.grantee.is_none_of(&of) {
        return Err(Refusal::invalid("limit", format!("{what}; {remedy}")).into());
    }
    if found.applied(&of).is_none() {
        let why = format!(
            "the limit counts {}: this is no amount of it",
            of.metric.as_str()
        );
        return Err(Refusal::invalid("amount", why).into());
    }
    if found.expires.is_some_and(|at| at <= now()) {
        return Err(Refusal::invalid("expires", "is over already").into());
    }
    let held = index.overrides(named.grantee, &named.name);
    if held.len() >= MOST && held.iter().all(|it| *it.limit != *limit) {
        let why = format!("there are {MOST} already; make a plan of its own instead");
        return Err(Refusal::invalid("limit", why).into());
    }
    Ok(found)
}

pub(super) async fn put(control: &Control, call: &Call) -> Result<Reply, Problem> {
    put_named(control, call, Named::of_consumer(call)).await
}

pub(super) async fn put_any(control: &Control, call: &Call) -> Result<Reply, Problem> {
    put_named(control, call, Named::of_subject(call)?).await
}

async fn put_named(control: &Control, call: &Call, named: Named) -> Result<Reply, Problem> {
    let mut change = control.begin().await?;
    let (before, found) = {
        let index = control.inner.index.read();
        let before = named.held(&index)?.cloned();
        (before, asked(control, &index, call, &named)?)
    };
    let (grantee, name) = (named.grantee, &*named.name);
    let reply = Reply::shown(view(grantee, name, &found));
    if before.as_ref() == Some(&found) {
        return Ok(reply);
    }
    let detail = json!({
        "before": before.as_ref().map(Override::written),
        "after": found.written(),
    });
    let entry = call.entry("override.put", &named.subject(), detail);
    OverrideRow::put(change.on(), (grantee, name), &found, entry.at).await?;
    change.note(entry);
    let name = Arc::from(name);
    change.edit(Edit::Override {
        grantee,
        name,
        found,
    });
    change.commit().await?;
    Ok(reply)
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    delete_named(control, call, Named::of_consumer(call)).await
}

pub(super) async fn delete_any(control: &Control, call: &Call) -> Result<Reply, Problem> {
    delete_named(control, call, Named::of_subject(call)?).await
}

async fn delete_named(control: &Control, call: &Call, named: Named) -> Result<Reply, Problem> {
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let before = named.held(&index)?;
        let before = before.ok_or_else(|| Refusal::missing("override", &named.limit))?;
        before.written()
    };
    let (grantee, name) = (named.grantee, &*named.name);
    OverrideRow::delete(change.on(), (grantee, name), &named.limit).await?;
    let detail = json!({ "before": before });
    change.note(call.entry("override.delete", &named.subject(), detail));
    change.edit(Edit::NoOverride {
        grantee,
        name: Arc::from(name),
        limit: named.limit.into(),
    });
    change.commit().await?;
    Ok(Reply::done())
}
