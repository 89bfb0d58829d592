//! Rows of usage as CSV (RFC 4180) and as CloudEvents (1.0, JSON batch format).

use serde_json::{Map, Value, json};

use super::named::NAMED;
use super::query::{Query, UsageRow};
use super::totals::{DIMENSIONS, METRICS};

/// Rows as CSV, with a header. Columns that are new come last.
pub(crate) fn csv(query: &Query, rows: &[UsageRow]) -> String {
    let head = ["from", "to"]
        .iter()
        .chain(&query.by)
        .chain(&METRICS)
        .chain(&NAMED);
    let mut text = line(head.map(|name| (*name).to_owned()));
    for row in rows {
        let to = row.to.map(|to| to.to_string()).unwrap_or_default();
        let times = [row.from.to_string(), to].into_iter();
        let values = row.of.iter().map(|(_, value)| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        });
        let totals = row.totals.iter().map(ToString::to_string);
        let named = row.named.cells();
        text.push_str(&line(times.chain(values).chain(totals).chain(named)));
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.map(|cell| quoted(&cell)).collect();
    cells.join(",") + "\r\n"
}

/// A cell. An operation may be named `-x` or worse; what a spreadsheet would take for a formula gets an apostrophe in front.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let guard = if formula { "'" } else { "" };
    if formula || cell.contains([',', '"', '\r', '\n']) {
        format!("\"{guard}{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Rows as a batch of CloudEvents, one for each bucket and what it is of.
///
/// An id names that, and nothing else: exported again, a row has the same id. Where a node reported late its data has grown: a receiver
/// replaces what it has by id.
pub(crate) fn cloud_events(query: &Query, rows: &[UsageRow], source: &str) -> String {
    let step = query.step.as_str();
    let event = |row: &UsageRow| {
        let mut event = json!({
            "specversion": "1.0",
            "id": id(query, row),
            "source": source,
            "type": format!("tollgate.usage.{step}"),
            "time": row.to.unwrap_or(row.from).to_string(),
            "datacontenttype": "application/json",
            "data": data(query, row),
        });
        let of = dimensions(query, row);
        if let (Some((_, consumer)), Some(members)) =
            (of.iter().find(|(name, _)| *name == "consumer"), event.as_object_mut())
            // An event's subject is not empty.
            && consumer.as_str().is_some_and(|name| !name.is_empty())
        {
            members.insert("subject".to_owned(), consumer.clone());
        }
        event
    };
    Value::Array(rows.iter().map(event).collect()).to_string()
}

/// What a row is of, by grouping or by filter, in a fixed order: however it was asked for, it is the same.
fn dimensions(query: &Query, row: &UsageRow) -> Vec<(&'static str, Value)> {
    let mut of = Vec::new();
    for dimension in DIMENSIONS {
        let grouped = row.of.iter().find(|(name, _)| *name == dimension);
        let filtered = query.filters.iter().find(|it| it.dimension == dimension);
        if let Some((_, value)) = grouped {
            of.push((dimension, value.clone()));
        } else if let Some(filter) = filtered {
            of.push((dimension, Value::String(filter.value.clone())));
        }
    }
    of
}

fn id(query: &Query, row: &UsageRow) -> String {
    let of = dimensions(query, row);
    let of = of.iter().map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    });
    let of: Vec<String> = of.collect();
    format!("{}/{}?{}", query.step.as_str(), row.from, of.join("&"))
}

fn data(query: &Query, row: &UsageRow) -> Value {
    let mut data = Map::new();
    for (name, value) in dimensions(query, row) {
        data.insert(name.to_owned(), value);
    }
    if let Value::Object(shown) = row.shown() {
        data.extend(shown);
    }
    Value::Object(data)
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn cells_are_quoted_and_are_no_formulas() {
        for (cell, written) in [
            ("list", "list"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("-x", "\"'-x\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("+1", "\"'+1\""),
            ("", ""),
        ] {
            assert_eq!(quoted(cell), written);
        }
    }
}
