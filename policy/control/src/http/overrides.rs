//! Overrides: what single consumers are granted beside their plans, or held to below them.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tollgate_policy::settings::{Override, stored_override};

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

fn view(found: &Override) -> Value {
    let mut shown_one = found.written();
    put_member(&mut shown_one, "origin", shown(&found.origin));
    shown_one
}

/// The limit a path names.
fn limit(call: &Call) -> String {
    format!("plan/{}/{}", call.path("plan"), call.path("limit"))
}

fn held<'i>(
    index: &'i Index,
    consumer: &str,
    limit: &str,
) -> Result<Option<&'i Override>, Refusal> {
    if !index.consumers.contains_key(consumer) {
        return Err(Refusal::missing("consumer", consumer));
    }
    let found = index
        .overrides(consumer)
        .iter()
        .find(|it| *it.limit == *limit);
    if let Some(found) = found {
        changeable("override", limit, &found.origin)?;
    }
    Ok(found)
}

pub(super) fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let consumer = call.path("consumer");
    let index = control.inner.index.read();
    if !index.consumers.contains_key(consumer) {
        return Err(Refusal::missing("consumer", consumer).into());
    }
    let items: Vec<Value> = index.overrides(consumer).iter().map(view).collect();
    Ok(Reply::shown(json!({ "items": items, "next": null })))
}

/// What is asked for, if the plan has such a limit.
fn asked(index: &Index, call: &Call, limit: &str) -> Result<Override, Problem> {
    let mut body = call.body::<Map<String, Value>>()?;
    if body.insert("limit".to_owned(), limit.into()).is_some() {
        return Err(Refusal::invalid("limit", "stands in the path").into());
    }
    let found = stored_override(&Value::from(body).to_string());
    let found = found.map_err(|findings| Refusal::invalid("override", told(&findings)))?;
    let plan = call.path("plan");
    let plan = index
        .plans
        .get(plan)
        .ok_or_else(|| Refusal::missing("plan", plan))?;
    let of = plan.limits.iter().find(|it| *it.id == *limit);
    let of = of.ok_or_else(|| Refusal::missing("limit", limit))?;
    if found.applied(of).is_none() {
        let why = format!(
            "the limit counts {}: this is no amount of it",
            of.metric.as_str()
        );
        return Err(Refusal::invalid("amount", why).into());
    }
    if found.expires.is_some_and(|at| at <= now()) {
        return Err(Refusal::invalid("expires", "is over already").into());
    }
    Ok(found)
}

pub(super) async fn put(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let (consumer, limit) = (call.path("consumer"), limit(call));
    let mut change = control.begin().await?;
    let (before, found) = {
        let index = control.inner.index.read();
        let before = held(&index, consumer, &limit)?.cloned();
        (before, asked(&index, call, &limit)?)
    };
    let reply = Reply::shown(view(&found));
    if before.as_ref() == Some(&found) {
        return Ok(reply);
    }
    let detail = json!({
        "before": before.as_ref().map(Override::written),
        "after": found.written(),
    });
    let entry = call.entry("override.put", consumer, detail);
    OverrideRow::put(change.on(), consumer, &found, entry.at).await?;
    change.note(entry);
    let consumer = Arc::from(consumer);
    change.edit(Edit::Override { consumer, found });
    change.commit().await?;
    Ok(reply)
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let (consumer, limit) = (call.path("consumer"), limit(call));
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let before = held(&index, consumer, &limit)?;
        let before = before.ok_or_else(|| Refusal::missing("override", &limit))?;
        before.written()
    };
    OverrideRow::delete(change.on(), consumer, &limit).await?;
    change.note(call.entry("override.delete", consumer, json!({ "before": before })));
    change.edit(Edit::NoOverride {
        consumer: Arc::from(consumer),
        limit: limit.into(),
    });
    change.commit().await?;
    Ok(Reply::done())
}
