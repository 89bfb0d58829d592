//! Writes what was added up in memory into the store's totals.
//!
//! Minutes, hours and days are written together, in the transaction that also moves the senders' numbers. A roll-up by a task of
//! its own would write less, but then hours and days were right only some time later, a task that fell behind or died showed as
//! missing usage, and minutes could not be dropped before it had run. The price is small: a group of batches is added up before, so
//! it writes three rows for each key, and for each name of what it came to, not for each record.

use std::collections::{BTreeMap, HashMap};

use sqlx::{QueryBuilder, Row as _};
use tollgate_policy::time::Timestamp;

use super::totals::{Key, METRICS, Meter, Step, Sums, Tally, Totals};
use crate::store::{Connection, Database, StoreError};

/// Keys whose number is remembered; then it is begun anew. Some 200 bytes each.
const REMEMBERED: usize = 100_000;
/// Rows of one statement: few different sizes, so that prepared statements are found again.
const SIZES: [usize; 3] = [64, 8, 1];

/// Numbers of keys and of meters. They never change; what a transaction that failed made up is forgotten with [`KeyNumbers::forget`].
#[derive(Debug, Default)]
pub(crate) struct KeyNumbers {
    known: HashMap<Key, i64>,
    meters: HashMap<Meter, i64>,
}

impl KeyNumbers {
    /// Forgets all.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.meters.clear();
    }

    async fn of(&mut self, on: &mut Connection, key: &Key) -> Result<i64, StoreError> {
        if let Some(number) = self.known.get(key) {
            return Ok(*number);
        }
        let number = match find(on, key).await? {
            Some(number) => number,
            None => insert(on, key).await?,
        };
        if self.known.len() >= REMEMBERED {
            self.forget();
        }
        self.known.insert(key.clone(), number);
        Ok(number)
    }

    async fn of_meter(&mut self, on: &mut Connection, meter: &Meter) -> Result<i64, StoreError> {
        if let Some(number) = self.meters.get(meter) {
            return Ok(*number);
        }
        let number = match find_meter(on, meter).await? {
            Some(number) => number,
            None => insert_meter(on, meter).await?,
        };
        if self.meters.len() >= REMEMBERED {
            self.forget();
        }
        self.meters.insert(meter.clone(), number);
        Ok(number)
    }
}

async fn find_meter(on: &mut Connection, meter: &Meter) -> Result<Option<i64>, StoreError> {
    let (kind, name) = meter.stored();
    let found = sqlx::query_scalar("SELECT id FROM usage_meters WHERE kind = $1 AND name = $2")
        .bind(kind)
        .bind(name)
        .fetch_optional(on)
        .await?;
    Ok(found)
}

async fn insert_meter(on: &mut Connection, meter: &Meter) -> Result<i64, StoreError> {
    let (kind, name) = meter.stored();
    let made = sqlx::query(
        "INSERT INTO usage_meters (id, kind, name)
         SELECT COALESCE(MAX(id), 0) + 1, $1, $2 FROM usage_meters RETURNING id",
    )
    .bind(kind)
    .bind(name)
    .fetch_one(on)
    .await?;
    Ok(made.try_get("id")?)
}

async fn find(on: &mut Connection, key: &Key) -> Result<Option<i64>, StoreError> {
    let found = sqlx::query_scalar(
        "SELECT id FROM usage_keys WHERE organisation = $1 AND project = $2 AND consumer = $3 AND api = $4
             AND operation = $5 AND plan = $6 AND price_version = $7 AND outcome = $8",
    )
    .bind(&*key.organisation)
    .bind(&*key.project)
    .bind(&*key.consumer)
    .bind(&*key.api)
    .bind(&*key.operation)
    .bind(&*key.plan)
    .bind(i64::from(key.price_version))
    .bind(key.outcome.as_str())
    .fetch_optional(on)
    .await?;
    Ok(found)
}

async fn insert(on: &mut Connection, key: &Key) -> Result<i64, StoreError> {
    let made = sqlx::query(
        "INSERT INTO usage_keys
             (id, organisation, project, consumer, api, operation, plan, price_version, outcome)
         SELECT COALESCE(MAX(id), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8 FROM usage_keys
         RETURNING id",
    )
    .bind(&*key.organisation)
    .bind(&*key.project)
    .bind(&*key.consumer)
    .bind(&*key.api)
    .bind(&*key.operation)
    .bind(&*key.plan)
    .bind(i64::from(key.price_version))
    .bind(key.outcome.as_str())
    .fetch_one(on)
    .await?;
    Ok(made.try_get("id")?)
}

/// Step, bucket and number of the key.
type Place = (i64, i64, i64);

/// Adds a tally to the totals, within the transaction `on`.
pub(crate) async fn write(
    on: &mut Connection,
    tally: &Tally,
    numbers: &mut KeyNumbers,
) -> Result<(), StoreError> {
    let mut rows: BTreeMap<Place, Sums> = BTreeMap::new();
    for (key, minutes) in tally.sums() {
        let number = numbers.of(on, key).await?;
        for (minute, sums) in minutes {
            for step in Step::ALL {
                let bucket = step.bucket(Timestamp::from_millis(*minute)).millis();
                let place = (step.seconds(), bucket, number);
                rows.entry(place).or_default().add(sums);
            }
        }
    }
    let mut amounts = Vec::new();
    for (place, sums) in &rows {
        for (meter, amount) in &sums.amounts {
            let meter = numbers.of_meter(on, meter).await?;
            amounts.push((*place, meter, *amount));
        }
    }
    let totals: Vec<_> = rows.iter().map(|(place, it)| (*place, it.totals)).collect();
    let mut rest = totals.as_slice();
    for size in SIZES {
        while let Some((some, more)) = rest.split_at_checked(size) {
            upsert(on, some).await?;
            rest = more;
        }
    }
    let mut rest = amounts.as_slice();
    for size in SIZES {
        while let Some((some, more)) = rest.split_at_checked(size) {
            upsert_amounts(on, some).await?;
            rest = more;
        }
    }
    Ok(())
}

async fn upsert_amounts(on: &mut Connection, rows: &[(Place, i64, u64)]) -> Result<(), StoreError> {
    let mut statement = QueryBuilder::<Database>::new(
        "INSERT INTO usage_amounts (step, bucket, key_id, meter_id, amount) ",
    );
    statement.push_values(rows, |mut row, ((step, bucket, number), meter, amount)| {
        row.push_bind(*step).push_bind(*bucket).push_bind(*number);
        row.push_bind(*meter);
        row.push_bind(i64::try_from(*amount).unwrap_or(i64::MAX));
    });
    statement.push(" ON CONFLICT (step, bucket, key_id, meter_id) DO UPDATE SET ");
    statement.push(saturating_sum("usage_amounts", "amount"));
    statement.build().execute(on).await?;
    Ok(())
}

async fn upsert(on: &mut Connection, rows: &[(Place, Totals)]) -> Result<(), StoreError> {
    let columns = METRICS.join(", ");
    let mut statement = QueryBuilder::<Database>::new(format!(
        "INSERT INTO usage_totals (step, bucket, key_id, {columns}) "
    ));
    statement.push_values(rows, |mut row, ((step, bucket, number), sums)| {
        row.push_bind(*step).push_bind(*bucket).push_bind(*number);
        for sum in sums {
            row.push_bind(i64::try_from(*sum).unwrap_or(i64::MAX));
        }
    });
    statement.push(" ON CONFLICT (step, bucket, key_id) DO UPDATE SET ");
    statement.push(saturating_sums());
    statement.build().execute(on).await?;
    Ok(())
}

fn saturating_sums() -> String {
    METRICS
        .map(|metric| saturating_sum("usage_totals", metric))
        .join(", ")
}

/// Without the comparison a sum that grows too large became a fraction in SQLite, and an error in PostgreSQL.
fn saturating_sum(table: &str, column: &str) -> String {
    format!(
        "{column} = CASE WHEN {table}.{column} > {max} - excluded.{column}
         THEN {max} ELSE {table}.{column} + excluded.{column} END",
        max = i64::MAX,
    )
}
