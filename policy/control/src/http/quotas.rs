//! How quota stands: every counter that was ever drawn from and whose window is not long over.

use serde_json::Value;
use tollgate_policy::quota::CounterKey;

use super::call::{Call, Reply};
use super::problem::Problem;
use crate::Control;
use crate::control::now;
use crate::quota;
use crate::refusal::Refusal;

/// Parameters of [`list`], besides those of every list.
pub(super) const PARAMETERS: &[&str] = &["subject", "quota_limit"];

pub(super) async fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let page = call.page()?;
    let after = place(page.after.as_deref())?;
    let (subject, limit) = (call.query("subject"), call.query("quota_limit"));
    let rows = control
        .inner
        .quota
        .list(subject, limit, &after, page.limit_number());
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
