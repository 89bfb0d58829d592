//! What a consumer may see of its own usage: today and this month, at one API, by operation.
//!
//! Days and months are those of UTC. What the gateway spent on it (CPU, time) is the operator's affair.

use serde_json::{Map, Value, json};
use sqlx::QueryBuilder;
use tollgate_policy::time::Timestamp;

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

/// The usage of `consumer` at `api`.
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

/// Sums of the days from `first` to `last`. Each day is named, and the keys are found first: who asks does not make the store read
/// what others used.
async fn period(
    on: &mut Connection,
    consumer: &str,
    api: &str,
    first: Timestamp,
    last: Timestamp,
) -> Result<Value, StoreError> {
    let mut statement = QueryBuilder::<Database>::new(format!(
        "SELECT k.operation, {} FROM usage_keys k JOIN usage_totals t ON t.key_id = k.id WHERE k.consumer = ",
        sums()
    ));
    statement.push_bind(consumer);
    statement.push(" AND k.api = ").push_bind(api);
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
    statement.push(") GROUP BY k.operation ORDER BY k.operation");
    let rows = statement.build().fetch_all(on).await?;
    let (mut operations, mut total) = (Vec::with_capacity(rows.len()), Totals::default());
    for row in &rows {
        let sums = read_sums(row)?;
        add(&mut total, &sums);
        let mut shown = shown(&sums);
        let operation = text(row, "operation")?;
        shown.insert("operation".to_owned(), (*operation).into());
        operations.push(Value::Object(shown));
    }
    Ok(json!({
        "from": first.to_string(),
        "total": shown(&total),
        "operations": operations,
    }))
}

fn shown(totals: &Totals) -> Map<String, Value> {
    let named = METRICS.iter().zip(totals);
    let seen = named.filter(|(metric, _)| SHOWN.contains(metric));
    seen.map(|(metric, total)| ((*metric).to_owned(), (*total).into()))
        .collect()
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
