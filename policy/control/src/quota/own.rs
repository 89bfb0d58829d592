//! How quota stands, as it is shown: to operators, and to a caller what it has used and has left. Whose counters a caller may see is
//! the data plane's to say, which knows who it is.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_policy::quota::{Balance, Counter, CounterKey, Standing};
use tollgate_policy::settings::written_limits;
use tollgate_policy::time::Timestamp;

use super::{Quota, Wanted};
use crate::store::StoreError;

/// Counters of one limit and subject that a caller is shown: one for each operation at most.
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

/// What a caller has used and has left of these: limits as they are sold now, not as they were when they were counted. One that was never
/// counted is shown as it begins.
pub(crate) async fn own(
    quota: &Quota,
    limits: &[Counter],
    now: Timestamp,
) -> Result<Vec<Value>, StoreError> {
    let mut all = Vec::new();
    for Counter { key, limit } in limits {
        let counted = counters(quota, key).await?;
        let here = counted
            .into_iter()
            .filter(|(counter, _)| counter.key.api == key.api);
        let mut stand: Vec<Value> = here
            .map(|(counter, standing)| {
                let limit = Arc::clone(limit);
                shown(Counter { limit, ..counter }, standing, now)
            })
            .collect();
        if stand.is_empty() {
            stand.push(json!({
                "limit": &*limit.id,
                "subject": &*key.subject,
                "api": &*key.api,
                "operation": "",
                "metric": limit.metric.as_str(),
                "amount": limit.amount,
                "used": 0,
                "left": limit.burst.unwrap_or(limit.amount),
                "resets": Value::Null,
                "written": written_limits(std::slice::from_ref(limit)).get(0).cloned(),
            }));
        }
        all.append(&mut stand);
    }
    Ok(all)
}

async fn counters(quota: &Quota, of: &CounterKey) -> Result<Vec<super::Counted>, StoreError> {
    let start = CounterKey {
        limit: "".into(),
        api: "".into(),
        operation: "".into(),
        subject: "".into(),
    };
    let wanted = Wanted {
        subject: Some(of.subject.to_string()),
        limit: Some(of.limit.to_string()),
        ..Wanted::default()
    };
    quota.list(&wanted, |_| true, &start, SHOWN).await
}
