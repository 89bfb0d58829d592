//! How quota stands, as it is shown: to operators, and to a consumer what it has used and has left.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_policy::directory::{Consumer, Subscription};
use tollgate_policy::quota::{Balance, Counter, CounterKey, Limit, Scope, Standing, Subject};
use tollgate_policy::settings::written_limits;
use tollgate_policy::time::Timestamp;

use super::Quota;
use crate::store::StoreError;

/// Counters of one limit and subject that a consumer is shown: one for each operation at most.
const SHOWN: u32 = 500;

/// A counter.
pub(crate) fn shown(counter: Counter, standing: Standing, now: Timestamp) -> Value {
    let Balance {
        key,
        limit,
        used,
        left,
        reset,
    } = Balance::at(counter, standing, now);
    json!({
        "limit": &*key.limit,
        "subject": &*key.subject,
        "api": &*key.api,
        "operation": &*key.operation,
        "metric": limit.metric.as_str(),
        "amount": limit.amount,
        "used": used,
        "left": left,
        "resets": reset.map(|after| now.plus(after).to_string()),
        "written": written_limits(std::slice::from_ref(&limit)).get(0).cloned(),
    })
}

/// What a consumer has used and has left of its plan's limits at one API. Limits by credential, end user and address are told with
/// each answer, in `RateLimit`.
pub(crate) async fn own(
    quota: &Quota,
    consumer: &Consumer,
    held: &Subscription,
    now: Timestamp,
) -> Result<Vec<Value>, StoreError> {
    let mut all = Vec::new();
    for limit in &held.limits {
        let Some(subject) = subject(limit, consumer) else {
            continue;
        };
        let counted = counters(quota, limit, &subject).await?;
        let here = |counter: &Counter| counter.key.api.is_empty() || counter.key.api == held.api;
        let mut counted: Vec<Value> = counted
            .into_iter()
            .filter(|(counter, _)| here(counter))
            .map(|(counter, standing)| {
                // As it is sold now, not as it was when it was counted.
                let limit = Arc::clone(limit);
                shown(Counter { limit, ..counter }, standing, now)
            })
            .collect();
        if counted.is_empty() {
            let amount = limit.burst.unwrap_or(limit.amount);
            counted.push(json!({
                "limit": &*limit.id,
                "subject": subject,
                "api": if limit.scope == Scope::Everything { "" } else { &held.api },
                "operation": "",
                "metric": limit.metric.as_str(),
                "amount": limit.amount,
                "used": 0,
                "left": amount,
                "resets": Value::Null,
                "written": written_limits(std::slice::from_ref(limit)).get(0).cloned(),
            }));
        }
        all.append(&mut counted);
    }
    Ok(all)
}

async fn counters(
    quota: &Quota,
    limit: &Limit,
    subject: &str,
) -> Result<Vec<super::Counted>, StoreError> {
    let start = CounterKey {
        limit: "".into(),
        api: "".into(),
        operation: "".into(),
        subject: "".into(),
    };
    quota
        .list(Some(subject), Some(&limit.id), &start, SHOWN)
        .await
}

fn subject(limit: &Limit, consumer: &Consumer) -> Option<String> {
    match limit.subject {
        Subject::Organisation => Some(format!("organisation:{}", consumer.organisation)),
        Subject::Project => Some(format!("project:{}", consumer.project)),
        Subject::Consumer => Some(format!("consumer:{}", consumer.name)),
        // What others use is not its business.
        Subject::Everybody => None,
        Subject::Credential | Subject::EndUser | Subject::Address => None,
    }
}
