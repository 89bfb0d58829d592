//! Plans: limits and rights sold to consumers.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::directory::Plan;
use tollgate_policy::finding::Finding;
use tollgate_policy::settings::{stored_limits, stored_price, written_limits};

use super::call::{Call, Reply, bounded, new_name, text, texts};
use super::ownership::{changeable, same, shown};
use super::problem::Problem;
use super::projects::{in_use, page};
use crate::Control;
use crate::index::Edit;
use crate::refusal::Refusal;
use crate::store::PlanRow;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPlan {
    name: String,
    apis: Vec<NewPlanApi>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    terms: Vec<String>,
    /// In the shape of plans.yaml.
    limits: Option<Value>,
    price: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPlanApi {
    api: String,
    operations: Option<Vec<String>>,
}

impl NewPlan {
    fn row(self) -> Result<PlanRow, Refusal> {
        bounded("apis", &self.apis)?;
        let mut apis = Vec::with_capacity(self.apis.len());
        for opened in &self.apis {
            let operations = opened.operations.as_deref();
            let operations = operations
                .map(|list| texts("operations", list))
                .transpose()?;
            apis.push((text("apis", &opened.api)?, operations));
        }
        let names: HashSet<_> = apis.iter().map(|(api, _)| Arc::clone(api)).collect();
        if names.len() != apis.len() {
            return Err(Refusal::invalid("apis", "an API is named twice"));
        }
        apis.sort();
        let name = new_name("name", &self.name)?;
        let limits = self.limits.map(|limits| {
            let read = stored_limits(&name, &limits.to_string());
            read.map_err(|findings| Refusal::invalid("limits", told(&findings)))
        });
        let price = self.price.map(|price| {
            let read = stored_price(&price.to_string());
            read.map_err(|findings| Refusal::invalid("price", told(&findings)))
        });
        Ok(PlanRow {
            name,
            limits: limits.transpose()?.unwrap_or_default(),
            price: price.transpose()?.unwrap_or_default(),
            apis,
            roles: texts("roles", &self.roles)?,
            terms: texts("terms", &self.terms)?,
        })
    }
}

/// What is wrong, as one text: places would be those of a body nobody sees.
pub(super) fn told(findings: &[Finding]) -> String {
    let told = findings
        .iter()
        .map(|it| format!("{}; {}", it.what, it.remedy));
    told.collect::<Vec<_>>().join(". ")
}

fn view(plan: &Plan) -> Value {
    let apis = plan.apis.iter().map(|opened| {
        json!({ "api": &*opened.api, "operations": opened.operations.as_deref().map(plain) })
    });
    json!({
        "name": &*plan.name,
        "apis": apis.collect::<Vec<_>>(),
        "roles": plain(&plan.roles),
        "terms": plain(&plan.terms),
        "limits": written_limits(&plan.limits),
        "price": { "version": plan.price.version, "currency": &*plan.price.currency },
        "origin": shown(&plan.origin),
    })
}

/// Texts as JSON shows them.
pub(super) fn plain(texts: &[Arc<str>]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

fn equal(plan: &Plan, row: &PlanRow) -> bool {
    let apis = plan.apis.iter().map(|held| (&held.api, &held.operations));
    plan.roles == row.roles
        && plan.terms == row.terms
        && plan.limits == row.limits
        && plan.price == row.price
        && apis.eq(row.apis.iter().map(|(api, operations)| (api, operations)))
}

pub(super) fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let index = control.inner.index.read();
    Ok(page(&wanted, &index.plans, |_, plan: &Arc<Plan>| {
        view(plan)
    }))
}

pub(super) fn show(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("plan");
    let index = control.inner.index.read();
    let plan = index.plans.get(name);
    let plan = plan.ok_or_else(|| Refusal::missing("plan", name))?;
    Ok(Reply::shown(view(plan)))
}

pub(super) async fn create(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let row = call.body::<NewPlan>()?.row()?;
    let name = Arc::clone(&row.name);
    let mut change = control.begin().await?;
    {
        let index = control.inner.index.read();
        if let Some(plan) = index.plans.get(&name) {
            same("plan", &name, &plan.origin, equal(plan, &row))?;
            return Ok(Reply::shown(view(plan)));
        }
        if let Some(gone) = row.terms.iter().find(|t| !index.terms.contains_key(*t)) {
            return Err(Refusal::invalid("terms", format!("there are no terms `{gone}`")).into());
        }
    }
    let detail = json!({ "after": { "terms": plain(&row.terms), "roles": plain(&row.roles),
        "limits": written_limits(&row.limits), "price_version": row.price.version,
        "apis": row.apis.iter().map(|(api, _)| &**api).collect::<Vec<_>>() }});
    let entry = call.entry("plan.create", &name, detail);
    row.insert(change.on(), entry.at).await?;
    change.note(entry);
    change.edit(Edit::Plan(row));
    change.commit().await?;
    let index = control.inner.index.read();
    let plan = index.plans.get(&name);
    let plan = plan.ok_or_else(|| Refusal::missing("plan", &name))?;
    Ok(Reply::created(view(plan)))
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("plan");
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let plan = index.plans.get(name);
        let plan = plan.ok_or_else(|| Refusal::missing("plan", name))?;
        changeable("plan", name, &plan.origin)?;
        if let Some(by) = index.user_of_plan(name) {
            return Err(in_use("plan", name, format!("consumer `{by}`")));
        }
        view(plan)
    };
    PlanRow::delete(change.on(), name).await?;
    change.note(call.entry("plan.delete", name, json!({ "before": before })));
    change.edit(Edit::NoPlan(Arc::from(name)));
    change.commit().await?;
    Ok(Reply::done())
}
