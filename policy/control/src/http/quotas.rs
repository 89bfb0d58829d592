//! How quota stands: every counter that was ever drawn from and whose window is not long over.

use http::StatusCode;
use serde_json::Value;
use tollgate_policy::quota::CounterKey;
use tollgate_policy::settings::{
    parse_limit_id, parse_name, parse_operation, parse_subject, parse_window,
};

use super::call::{Call, Reply};
use super::problem::Problem;
use crate::Control;
use crate::control::now;
use crate::quota::{self, Circle, Wanted};
use crate::refusal::Refusal;

/// Parameters of [`list`], besides those of every list.
pub(super) const PARAMETERS: &[&str] = &[
    "organisation",
    "project",
    "consumer",
    "api",
    "operation",
    "window",
    "subject",
    "quota_limit",
];

pub(super) async fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let page = call.page()?;
    let after = place(page.after.as_deref())?;
    let (wanted, circle) = wanted(control, call)?;
    let is_wanted = |subject: &str| circle.has(&control.inner.index, subject);
    let quota = &control.inner.quota;
    let rows = quota.list(&wanted, is_wanted, &after, page.limit_number());
    let rows = rows.await.map_err(Refusal::from)?;
    let last = rows.last().map(|(counter, _)| {
        let CounterKey {
            limit,
            api,
            operation,
            subject,
        } = &counter.key;
        Value::from(vec![&**limit, &**subject, &**api, &**operation]).to_string()
    });
    let now = now();
    let shown = rows
        .into_iter()
        .map(|(counter, standing)| quota::shown(counter, standing, now));
    Ok(page.reply(shown.collect(), last))
}

/// The filters, which all count together. A value that cannot be one is refused; one that nothing has leads to nothing.
fn wanted(control: &Control, call: &Call) -> Result<(Wanted, Circle), Problem> {
    type Parse = fn(&str) -> Result<String, String>;
    let read = |field: &'static str, parse: Parse| {
        let given = call.query(field).map(parse).transpose();
        given.map_err(|why| {
            let why = format!("{field}: {why}");
            Problem::new(StatusCode::BAD_REQUEST, "bad_query", why)
        })
    };
    let wanted = Wanted {
        api: read("api", parse_name)?,
        operation: read("operation", parse_operation)?,
        window: read("window", parse_window)?,
        subject: read("subject", parse_subject)?,
        limit: read("quota_limit", parse_limit_id)?,
    };
    let organisation = read("organisation", parse_name)?;
    let project = read("project", parse_name)?;
    let consumer = read("consumer", parse_name)?;
    let index = control.inner.index.read();
    let circle = Circle::of(&index, organisation, project, consumer);
    Ok((wanted, circle))
}

/// The counter a page begins after.
fn place(after: Option<&str>) -> Result<CounterKey, Refusal> {
    let wrong = || Refusal::invalid("after", "not a `next` of an earlier page");
    let parts: Vec<String> = match after {
        None => vec![String::new(); 4],
        Some(after) => serde_json::from_str(after).map_err(|_| wrong())?,
    };
    let [limit, subject, api, operation] = <[String; 4]>::try_from(parts).map_err(|_| wrong())?;
    Ok(CounterKey {
        limit: limit.into(),
        api: api.into(),
        operation: operation.into(),
        subject: subject.into(),
    })
}
