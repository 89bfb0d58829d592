//! Totals, as they are asked for: of a period, by bucket or altogether, of some, grouped.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sqlx::{QueryBuilder, Row as _};
use tollgate_policy::time::Timestamp;

use super::named::Named;
use super::totals::{METRICS, PRICE_VERSION, Step, Totals};
use crate::store::{Connection, Database, Row, StoreError, number};

/// Sums are taken in two halves: of as many rows as ever fit into a database, neither overflows.
const HALF: i64 = 1 << 32;

/// Totals of one value of a dimension only.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// One of [`super::DIMENSIONS`].
    pub(crate) dimension: &'static str,
    pub(crate) value: String,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// The totals that are read.
    pub(crate) step: Step,
    /// One row for each bucket; otherwise for the whole period.
    pub(crate) bucketed: bool,
    /// Begin of the period, that of a bucket.
    pub(crate) from: Timestamp,
    /// End of the period, that of a bucket; `None`: open.
    pub(crate) to: Option<Timestamp>,
    pub(crate) filters: Vec<Filter>,
    /// Dimensions with a row for each of their values, each once, of [`super::DIMENSIONS`].
    pub(crate) by: Vec<&'static str>,
    /// The place of the last row seen: see [`UsageRow::place`].
    pub(crate) after: Option<Vec<Value>>,
    pub(crate) limit: u32,
}

/// One row of the answer.
#[derive(Clone, Debug)]
pub(crate) struct UsageRow {
    /// Begin of its bucket, or of the period.
    pub(crate) from: Timestamp,
    /// End of its bucket, or of the period.
    pub(crate) to: Option<Timestamp>,
    bucketed: bool,
    /// What it is of, in the order of [`Query::by`].
    pub(crate) of: Vec<(&'static str, Value)>,
    pub(crate) totals: Totals,
    /// What of the totals has which name.
    pub(crate) named: Named,
}

impl UsageRow {
    /// Where it stands in the order of rows.
    pub(crate) fn place(&self) -> Vec<Value> {
        let bucket = self.bucketed.then(|| json!(self.from.millis()));
        let values = self.of.iter().map(|(_, value)| value.clone());
        bucket.into_iter().chain(values).collect()
    }

    /// As a JSON object.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("from".to_owned(), self.from.to_string().into());
        let to = self.to.map(|to| to.to_string());
        shown.insert("to".to_owned(), to.into());
        for (dimension, value) in &self.of {
            shown.insert((*dimension).to_owned(), value.clone());
        }
        for (metric, total) in METRICS.iter().zip(self.totals) {
            shown.insert((*metric).to_owned(), total.into());
        }
        self.named.show(&mut shown);
        Value::Object(shown)
    }
}

impl Query {
    /// Columns that rows are grouped and ordered by.
    fn columns(&self) -> Vec<String> {
        let bucket = self.bucketed.then(|| "t.bucket".to_owned());
        let values = self.by.iter().map(|dimension| format!("k.{dimension}"));
        bucket.into_iter().chain(values).collect()
    }

    /// Whether `after` can be the place of one of its rows.
    pub(crate) fn has_place(&self, after: &[Value]) -> bool {
        let bucket = self.bucketed.then_some(true);
        let numbers = self.by.iter().map(|dimension| *dimension == PRICE_VERSION);
        let numbers: Vec<bool> = bucket.into_iter().chain(numbers).collect();
        let fits = |(value, number): (&Value, &bool)| match number {
            true => value.is_i64(),
            false => value.is_string(),
        };
        numbers.len() == after.len() && after.iter().zip(&numbers).all(fits)
    }

    /// The rows, read in two steps: `on` has to be of one state of the store.
    pub(crate) async fn rows(&self, on: &mut Connection) -> Result<Vec<UsageRow>, StoreError> {
        let columns = self.columns();
        if columns.is_empty() && self.after.is_some() {
            // There is but one row, and it was seen.
            return Ok(Vec::new());
        }
        let mut statement = self.statement(&columns);
        let found = statement.build().fetch_all(&mut *on).await?;
        let rows = found.iter().map(|row| self.row(row));
        let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
        let Some(last) = rows.last().map(UsageRow::place) else {
            return Ok(rows);
        };
        let mut amounts = self.amounts(on, &columns, &last).await?;
        for row in &mut rows {
            let named = amounts.remove(&text(&row.place()));
            row.named = named.unwrap_or_default().complete(&row.totals);
        }
        Ok(rows)
    }

    /// What has a name, of the rows up to `last`, by their places.
    async fn amounts(
        &self,
        on: &mut Connection,
        columns: &[String],
        last: &[Value],
    ) -> Result<HashMap<String, Named>, StoreError> {
        let mut groups = columns.to_vec();
        let mut statement = self.selected(
            &groups,
            &format!("{} FROM {}", Named::columns(), Named::TABLES),
        );
        if !columns.is_empty() {
            compare(&mut statement, columns, "<=", last);
        }
        groups.extend(["m.kind".to_owned(), "m.name".to_owned()]);
        statement.push(format!(" GROUP BY {}", groups.join(", ")));
        let mut found: HashMap<String, Named> = HashMap::new();
        for row in &statement.build().fetch_all(on).await? {
            let bucket = self.bucketed.then(|| row.try_get::<i64, _>("bucket"));
            let bucket = bucket.transpose()?.map(|bucket| json!(bucket));
            let values = self.of(row)?.into_iter().map(|(_, value)| value);
            let place: Vec<Value> = bucket.into_iter().chain(values).collect();
            found.entry(text(&place)).or_default().read(row)?;
        }
        Ok(found)
    }

    fn statement(&self, columns: &[String]) -> QueryBuilder<Database> {
        let tables = "usage_totals t JOIN usage_keys k ON k.id = t.key_id";
        let mut statement = self.selected(columns, &format!("{} FROM {tables}", sums()));
        if !columns.is_empty() {
            let listed = columns.join(", ");
            statement.push(format!(" GROUP BY {listed} ORDER BY {listed} LIMIT "));
            statement.push_bind(i64::from(self.limit));
        }
        statement
    }

    /// Selects columns and `what`, of what is asked for and was not seen.
    fn selected(&self, columns: &[String], what: &str) -> QueryBuilder<Database> {
        let mut head = "SELECT ".to_owned();
        for column in columns {
            // Writing to a string cannot fail.
            let _ = write!(head, "{column}, ");
        }
        head.push_str(what);
        head.push_str(" WHERE t.step = ");
        let mut statement = QueryBuilder::<Database>::new(head);
        statement.push_bind(self.step.seconds());
        statement
            .push(" AND t.bucket >= ")
            .push_bind(self.from.millis());
        if let Some(to) = self.to {
            statement.push(" AND t.bucket < ").push_bind(to.millis());
        }
        for filter in &self.filters {
            statement.push(format!(" AND k.{} = ", filter.dimension));
            match filter.dimension {
                // A text that is no number is the version of no price.
                PRICE_VERSION => statement.push_bind(filter.value.parse::<i64>().unwrap_or(-1)),
                _ => statement.push_bind(filter.value.clone()),
            };
        }
        if let Some(after) = self.after.as_ref().filter(|_| !columns.is_empty()) {
            compare(&mut statement, columns, ">", after);
        }
        statement
    }

    /// What a row is of.
    fn of(&self, row: &Row) -> Result<Vec<(&'static str, Value)>, StoreError> {
        let mut of = Vec::with_capacity(self.by.len());
        for dimension in &self.by {
            let value = match *dimension {
                PRICE_VERSION => json!(row.try_get::<i64, _>(PRICE_VERSION)?),
                dimension => json!(row.try_get::<&str, _>(dimension)?),
            };
            of.push((*dimension, value));
        }
        Ok(of)
    }

    fn row(&self, row: &Row) -> Result<UsageRow, StoreError> {
        let (mut from, mut to) = (self.from, self.to);
        if self.bucketed {
            let bucket: i64 = row.try_get("bucket")?;
            from = Timestamp::from_millis(bucket);
            to = Some(Timestamp::from_millis(
                bucket.saturating_add(self.step.millis()),
            ));
        }
        Ok(UsageRow {
            from,
            to,
            bucketed: self.bucketed,
            of: self.of(row)?,
            totals: read_sums(row)?,
            named: Named::default(),
        })
    }
}

/// Rows before or after a place.
fn compare(
    statement: &mut QueryBuilder<Database>,
    columns: &[String],
    comparison: &str,
    place: &[Value],
) {
    statement.push(format!(" AND ({}) {comparison} (", columns.join(", ")));
    let mut values = statement.separated(", ");
    for value in place {
        match value.as_i64() {
            Some(number) => values.push_bind(number),
            None => values.push_bind(value.as_str().unwrap_or_default().to_owned()),
        };
    }
    statement.push(")");
}

/// A place, to find what belongs there.
fn text(place: &[Value]) -> String {
    let values: Vec<String> = place.iter().map(ToString::to_string).collect();
    values.join(",")
}

/// The sums of all metrics, each in two columns.
pub(super) fn sums() -> String {
    METRICS.map(sum_of).join(", ")
}

/// The sum of a column, in two.
pub(super) fn sum_of(column: &str) -> String {
    format!(
        "CAST(COALESCE(SUM(t.{column} / {HALF}), 0) AS BIGINT) AS {column}_high, \
         CAST(COALESCE(SUM(t.{column} % {HALF}), 0) AS BIGINT) AS {column}_low"
    )
}

/// Reads what [`sums`] selected.
pub(super) fn read_sums(row: &Row) -> Result<Totals, StoreError> {
    let mut totals = Totals::default();
    for (total, metric) in totals.iter_mut().zip(METRICS) {
        *total = read_sum(row, metric)?;
    }
    Ok(totals)
}

/// Reads what [`sum_of`] selected. A sum beyond the largest number is that.
pub(super) fn read_sum(row: &Row, column: &str) -> Result<u64, StoreError> {
    let half = |name: &str| number::<u64>(row, &format!("{column}_{name}"));
    let whole = u128::from(half("high")?) * u128::from(HALF.unsigned_abs());
    Ok(u64::try_from(whole + u128::from(half("low")?)).unwrap_or(u64::MAX))
}
