//! What a consumer may see of its own usage: today and this month, at one API, by operation.
//!
//! Days and months are those of UTC. What the gateway spent on it (CPU, time) is the operator's affair.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sqlx::QueryBuilder;
use tollgate_policy::time::Timestamp;

use super::named::Named;
use super::query::{read_sums, sums};
use super::totals::{METRICS, Step, Totals, add};
use crate::store::{Connection, Database, StoreError, text};

/// Metrics a consumer sees.
const SHOWN: [&str; 8] = [
    "calls",
    "units",
    "money",
    "request_bytes",
    "response_bytes",
    "stream_seconds",
    "request_messages",
    "response_messages",
];

/// The usage of `consumer` at `api`. `on` has to be of one state of the store.
pub(crate) async fn own(
    on: &mut Connection,
    consumer: &str,
    api: &str,
    now: Timestamp,
) -> Result<Value, StoreError> {
    let (today, month) = (Step::Day.bucket(now), month_of(now));
    Ok(json!({
        "consumer": consumer,
        "api": api,
        "today": period(on, consumer, api, today, today).await?,
        "month": period(on, consumer, api, month, today).await?,
    }))
}

/// Begin of the month that `now` is in.
pub(crate) fn month_of(now: Timestamp) -> Timestamp {
    let written = now.to_string();
    let month = written
        .get(..7)
        .map(|month| format!("{month}-01T00:00:00Z"));
    month
        .and_then(|begin| Timestamp::parse(&begin))
        .unwrap_or_else(|| Step::Day.bucket(now))
}

/// Sums of the days from `first` to `last`.
async fn period(
    on: &mut Connection,
    consumer: &str,
    api: &str,
    first: Timestamp,
    last: Timestamp,
) -> Result<Value, StoreError> {
    let days = (first, last);
    let tables = "usage_keys k JOIN usage_totals t ON t.key_id = k.id";
    let mut statement = of_days(&format!("{} FROM {tables}", sums()), consumer, api, days);
    statement.push(" GROUP BY k.operation ORDER BY k.operation");
    let rows = statement.build().fetch_all(&mut *on).await?;
    let mut amounts = amounts(on, consumer, api, days).await?;
    let mut operations = Vec::with_capacity(rows.len());
    let (mut total, mut total_named) = (Totals::default(), Named::default());
    for row in &rows {
        let (sums, operation) = (read_sums(row)?, text(row, "operation")?);
        let named = amounts.remove(&operation).unwrap_or_default();
        let named = named.complete(&sums);
        add(&mut total, &sums);
        total_named.add(&named);
        let mut shown = shown(&sums, &named);
        shown.insert("operation".to_owned(), (*operation).into());
        operations.push(Value::Object(shown));
    }
    Ok(json!({
        "from": first.to_string(),
        "total": shown(&total, &total_named),
        "operations": operations,
    }))
}

/// What has a name, by operation.
async fn amounts(
    on: &mut Connection,
    consumer: &str,
    api: &str,
    days: (Timestamp, Timestamp),
) -> Result<HashMap<Arc<str>, Named>, StoreError> {
    let what = format!("{} FROM {}", Named::columns(), Named::TABLES);
    let mut statement = of_days(&what, consumer, api, days);
    statement.push(" GROUP BY k.operation, m.kind, m.name");
    let mut found: HashMap<Arc<str>, Named> = HashMap::new();
    for row in &statement.build().fetch_all(on).await? {
        let operation = text(row, "operation")?;
        found.entry(operation).or_default().read(row)?;
    }
    Ok(found)
}

/// Selects operations and `what`. Each day is named, and the keys are found first: who asks does not make the store read what others
/// used.
fn of_days(
    what: &str,
    consumer: &str,
    api: &str,
    (first, last): (Timestamp, Timestamp),
) -> QueryBuilder<Database> {
    let head = format!("SELECT k.operation, {what} WHERE k.consumer = ");
    let mut statement = QueryBuilder::<Database>::new(head);
    statement.push_bind(consumer.to_owned());
    statement.push(" AND k.api = ").push_bind(api.to_owned());
    statement
        .push(" AND t.step = ")
        .push_bind(Step::Day.seconds());
    statement.push(" AND t.bucket IN (");
    let mut days = statement.separated(", ");
    let mut day = first.millis();
    while day <= last.millis() {
        days.push_bind(day);
        day = day.saturating_add(Step::Day.millis());
    }
    statement.push(")");
    statement
}

fn shown(totals: &Totals, named: &Named) -> Map<String, Value> {
    let all = METRICS.iter().zip(totals);
    let seen = all.filter(|(metric, _)| SHOWN.contains(metric));
    let seen = seen.map(|(metric, total)| ((*metric).to_owned(), (*total).into()));
    let mut shown: Map<String, Value> = seen.collect();
    named.show(&mut shown);
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_with_its_first_day() {
        for (at, begin) in [
            ("2026-11-21T16:00:00.25Z", "2026-11-01T00:00:00Z"),
            ("2028-02-29T23:59:59Z", "2028-02-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            let at = Timestamp::parse(at).unwrap();
            assert_eq!(month_of(at).to_string(), begin);
        }
        // Years that cannot be written.
        let last = Timestamp::from_millis(i64::MAX);
        assert_eq!(month_of(last), Step::Day.bucket(last));
    }
}
