//! Usage: what was used, who reported it, what is missing; and services without an API reporting theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::quota::Metric;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Meters, RunId, UsageBatch, UsageOutcome, UsageRecord};

use super::call::{Call, Reply, new_name as name, text, time};
use super::problem::Problem;
use crate::Control;
use crate::control::now;
use crate::index::Index;
use crate::refusal::Refusal;
use crate::usage::{
    DIMENSIONS, Filter, GapRow, Query, SenderRow, Step, UsageRow, balance, cloud_events, csv,
    is_currency, month_of,
};

/// Parameters of [`list`], besides those of every list.
pub(super) const PARAMETERS: &[&str] = &[
    "organisation",
    "project",
    "consumer",
    "api",
    "operation",
    "plan",
    "price_version",
    "outcome",
    "from",
    "to",
    "granularity",
    "group_by",
    "format",
];
/// Parameters of [`senders`], besides those of every list.
pub(super) const SENDER_PARAMETERS: &[&str] = &["node"];

/// Records of one report.
const RECORDS: usize = 500;
/// Highest number a report may begin with: numbers of records end at 2^63.
const LAST_FIRST: u64 = i64::MAX.unsigned_abs() - 4096;
/// Longest name of an operation, in bytes, as in OpenAPI files.
const OPERATION: usize = 128;
/// What senders that report over HTTP are called, before their name: no node's name begins so.
const SERVICE: &str = "service:";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    pub(super) source: String,
    pub(super) run: String,
    #[serde(default)]
    pub(super) shard: u32,
    pub(super) first: u64,
    #[serde(default)]
    pub(super) records: Vec<NewRecord>,
    #[serde(default)]
    pub(super) closing: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRecord {
    pub(super) at: String,
    pub(super) organisation: Option<String>,
    pub(super) project: Option<String>,
    pub(super) consumer: String,
    pub(super) api: String,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) plan: String,
    #[serde(default)]
    pub(super) price_version: u32,
    pub(super) currency: Option<String>,
    pub(super) outcome: Option<String>,
    #[serde(default = "one")]
    pub(super) calls: u32,
    #[serde(default)]
    pub(super) units: u64,
    #[serde(default)]
    pub(super) units_by_name: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) money: u64,
    #[serde(default)]
    pub(super) request_bytes: u64,
    #[serde(default)]
    pub(super) response_bytes: u64,
    #[serde(default)]
    pub(super) cpu_nanos: u64,
    #[serde(default)]
    pub(super) micros: u64,
    #[serde(default)]
    pub(super) stream_seconds: u64,
    #[serde(default)]
    pub(super) request_messages: u64,
    #[serde(default)]
    pub(super) response_messages: u64,
}

fn one() -> u32 {
    1
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    CloudEvents,
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let page = call.page()?;
    let format = match call.query("format") {
        None | Some("json") => Format::Json,
        Some("csv") => Format::Csv,
        Some("cloudevents") => Format::CloudEvents,
        Some(_) => return Err(Refusal::invalid("format", "json, csv or cloudevents").into()),
    };
    let query = query(control, call, format, page.limit_number(), now())?;
    let store = control.store()?;
    let rows = query.rows(&mut *store.snapshot().await?).await?;
    let last = rows.last().map(|row| Value::Array(row.place()).to_string());
    if format == Format::Json {
        let items = rows.iter().map(UsageRow::shown).collect();
        return Ok(page.reply(items, last));
    }
    let next = last.filter(|_| rows.len() >= page.limit);
    let next = next.map(|after| call.next_link("/v1/usage", &after));
    let (content, body) = match format {
        Format::CloudEvents => {
            let source = &control.inner.usage.settings.event_source;
            let content = "application/cloudevents-batch+json";
            (content, cloud_events(&query, &rows, source))
        }
        Format::Csv | Format::Json => (
            "text/csv; charset=utf-8; header=present",
            csv(&query, &rows),
        ),
    };
    Ok(Reply::text(content, body, next))
}

fn query(
    control: &Control,
    call: &Call,
    format: Format,
    limit: u32,
    now: Timestamp,
) -> Result<Query, Refusal> {
    let moment = |field| time(field, call.query(field).map(str::to_owned).as_ref());
    let (from, to) = (moment("from")?, moment("to")?);
    let step = match call.query("granularity") {
        None | Some("total") => None,
        Some(name) => Some(granularity(name)?),
    };
    if format == Format::CloudEvents && step.is_none() {
        let why = "events are of minutes, hours or days: choose one";
        return Err(Refusal::invalid("granularity", why));
    }
    let bucketed = step.is_some();
    let step = step.unwrap_or_else(|| coarsest(from, to));
    let kept_since = control.inner.usage.settings.kept_since(step, now);
    let from = match from {
        Some(from) => from,
        None if bucketed => month_of(now).max(kept_since),
        None => month_of(now),
    };
    for (field, moment) in [("from", Some(from)), ("to", to)] {
        if moment.is_some_and(|moment| step.bucket(moment) != moment) {
            let why = format!("not the begin of a {} in UTC", step.as_str());
            return Err(Refusal::invalid(field, why));
        }
    }
    if from < kept_since {
        let why = format!(
            "totals by {} are kept since {kept_since}: begin there, or ask for whole hours or days",
            step.as_str()
        );
        return Err(Refusal::invalid("from", why));
    }
    let ended = step.bucket(now);
    let mut query = Query {
        step,
        bucketed,
        from,
        // What is still growing is no event yet.
        to: match format {
            Format::CloudEvents => Some(to.map_or(ended, |to| to.min(ended))),
            Format::Json | Format::Csv => to,
        },
        filters: filters(call),
        by: groups(call)?,
        after: None,
        limit,
    };
    query.after = call
        .query("after")
        .map(|after| place(&query, after))
        .transpose()?;
    Ok(query)
}

fn granularity(name: &str) -> Result<Step, Refusal> {
    let step = Step::ALL.into_iter().find(|step| step.as_str() == name);
    step.ok_or_else(|| Refusal::invalid("granularity", "minute, hour, day or total"))
}

/// The coarsest totals that make up the period.
fn coarsest(from: Option<Timestamp>, to: Option<Timestamp>) -> Step {
    let ends = || [from, to].into_iter().flatten();
    let fits = |step: &Step| ends().all(|end| step.bucket(end) == end);
    Step::ALL
        .into_iter()
        .rev()
        .find(fits)
        .unwrap_or(Step::Minute)
}

fn filters(call: &Call) -> Vec<Filter> {
    let asked = DIMENSIONS.into_iter().filter_map(|dimension| {
        let value = call.query(dimension)?.to_owned();
        Some(Filter { dimension, value })
    });
    asked.collect()
}

fn groups(call: &Call) -> Result<Vec<&'static str>, Refusal> {
    let mut by = Vec::new();
    let asked = call.query("group_by").unwrap_or_default();
    for name in asked.split(',').filter(|name| !name.is_empty()) {
        match DIMENSIONS.into_iter().find(|dimension| *dimension == name) {
            Some(dimension) if !by.contains(&dimension) => by.push(dimension),
            Some(_) | None => {
                let why = format!("some of {}, each once, with commas", DIMENSIONS.join(", "));
                return Err(Refusal::invalid("group_by", why));
            }
        }
    }
    Ok(by)
}

fn place(query: &Query, after: &str) -> Result<Vec<Value>, Refusal> {
    let place = serde_json::from_str(after).ok();
    let place = place.filter(|place: &Vec<Value>| query.has_place(place));
    place.ok_or_else(|| Refusal::invalid("after", "not a `next` of an earlier page"))
}

pub(super) async fn senders(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let page = call.page()?;
    let wrong = || Refusal::invalid("after", "not a `next` of an earlier page");
    let after: (String, String, u32) = match &page.after {
        Some(after) => serde_json::from_str(after).map_err(|_| wrong())?,
        None => Default::default(),
    };
    let silent_since = now().minus(control.inner.usage.settings.silence);
    let store = control.store()?;
    let rows = SenderRow::page(
        &mut *store.read().await?,
        call.query("node"),
        (&after.0, &after.1, after.2),
        page.limit_number(),
        silent_since,
    )
    .await?;
    let last = rows
        .last()
        .map(|row| json!([&*row.node, &*row.run, row.shard]).to_string());
    let view = |row: &SenderRow| {
        json!({
            "node": &*row.node,
            "run": &*row.run,
            "shard": row.shard,
            "next": row.next,
            "records": row.records,
            "missing": row.missing,
            "state": row.state.as_str(),
            "first_seen": row.first_seen.to_string(),
            "last_seen": row.last_seen.to_string(),
        })
    };
    Ok(page.reply(rows.iter().map(view).collect(), last))
}

pub(super) async fn gaps(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let page = call.page()?;
    let store = control.store()?;
    let after = page.after_number()?;
    let rows = GapRow::page(&mut *store.read().await?, after, page.limit_number()).await?;
    let last = rows.last().map(|row| row.seq.to_string());
    let view = |row: &GapRow| {
        json!({
            "seq": row.seq,
            "node": &*row.node,
            "run": &*row.run,
            "shard": row.shard,
            "from": row.first,
            "to": row.last,
            "found_at": row.found_at.to_string(),
            "closed_at": row.closed_at.map(|at| at.to_string()),
        })
    };
    Ok(page.reply(rows.iter().map(view).collect(), last))
}

pub(super) async fn show_balance(control: &Control) -> Result<Reply, Problem> {
    let store = control.store()?;
    let mut snapshot = store.snapshot().await?;
    let balance = balance(&mut snapshot).await?;
    Ok(Reply::shown(json!({
        "received": balance.received,
        "added_up": balance.added_up,
        "missing": balance.missing,
        "balanced": balance.received == balance.added_up,
    })))
}

pub(super) async fn report(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let next = taken(control, call.body()?).await?;
    Ok(Reply::shown(json!({ "next": next })))
}

/// Takes a report in; the number that is expected next.
pub(super) async fn taken(control: &Control, report: Report) -> Result<u64, Refusal> {
    let batch = {
        let index = control.inner.index.read();
        batch(&index, report)?
    };
    let receipt = control.inner.usage.submit(batch).await;
    Ok(receipt.map_err(Refusal::Unavailable)?.next)
}

fn batch(index: &Index, report: Report) -> Result<UsageBatch, Refusal> {
    let source = name("source", &report.source)?;
    if report.records.len() > RECORDS {
        let why = format!("more than {RECORDS} entries");
        return Err(Refusal::invalid("records", why));
    }
    let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let run = Some(&*report.run).filter(|run| run.len() == 32 && run.bytes().all(digits));
    let run = run.and_then(|run| u128::from_str_radix(run, 16).ok());
    let why = "32 lower-case hexadecimal digits, made at random at each start";
    let run = run.ok_or_else(|| Refusal::invalid("run", why))?;
    if report.first > LAST_FIRST {
        return Err(Refusal::invalid("first", "numbers of records end at 2^63"));
    }
    let records = report.records.into_iter().enumerate().map(|(n, record)| {
        record.read(index).map_err(|refusal| match refusal {
            Refusal::Invalid { field, why } => {
                Refusal::invalid("records", format!("entry {n}: {field}: {why}"))
            }
            other => other,
        })
    });
    Ok(UsageBatch {
        node: format!("{SERVICE}{source}").into(),
        run: RunId(run),
        shard: report.shard,
        first: report.first,
        records: records.collect::<Result<_, _>>()?,
        closing: report.closing,
    })
}

impl NewRecord {
    fn read(self, index: &Index) -> Result<UsageRecord, Refusal> {
        let why = "a time is written as in 2026-11-21T16:00:00Z";
        let at = Timestamp::parse(&self.at).ok_or_else(|| Refusal::invalid("at", why))?;
        let consumer = name("consumer", &self.consumer)?;
        let (organisation, project) = match (&self.organisation, &self.project) {
            // Of a consumer that was deleted meanwhile, usage can still be reported.
            (Some(organisation), Some(project)) => (
                name("organisation", organisation)?,
                name("project", project)?,
            ),
            (None, None) => match index.consumer(&consumer) {
                Some(known) => (Arc::clone(&known.organisation), Arc::clone(&known.project)),
                None => return Err(Refusal::missing("consumer", &consumer)),
            },
            (Some(_), None) | (None, Some(_)) => {
                return Err(Refusal::invalid(
                    "project",
                    "name it with its organisation, or none",
                ));
            }
        };
        Ok(UsageRecord {
            at,
            organisation,
            project,
            consumer,
            api: name("api", &self.api)?,
            operation: operation(&self.operation)?,
            plan: match self.plan.is_empty() {
                true => Arc::from(""),
                false => name("plan", &self.plan)?,
            },
            price_version: self.price_version,
            currency: currency(self.currency.as_deref())?,
            outcome: outcome(self.outcome.as_deref())?,
            calls: self.calls,
            units: units(self.units, &self.units_by_name)?,
            money: self.money,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            cpu_nanos: self.cpu_nanos,
            micros: self.micros,
            stream_seconds: self.stream_seconds,
            request_messages: self.request_messages,
            response_messages: self.response_messages,
        })
    }
}

/// Those without a name of their own, and those that have one.
fn units(unnamed: u64, named: &BTreeMap<String, u64>) -> Result<Meters, Refusal> {
    let fits = |name: &str| {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        (1..=Meters::LONGEST_NAME).contains(&name.len())
            && name.bytes().all(safe)
            && matches!(Metric::named(name), Metric::Units(_))
    };
    if named.len() > Meters::MOST || !named.keys().all(|name| fits(name)) {
        let why = format!(
            "at most {} names of cost units: letters, digits and `-_./`, at most {}; money, calls and bytes have members of their own",
            Meters::MOST,
            Meters::LONGEST_NAME
        );
        return Err(Refusal::invalid("units_by_name", why));
    }
    let mut meters = Meters::from(unnamed);
    for (name, amount) in named {
        meters.add(&Arc::from(name.as_str()), *amount);
    }
    Ok(meters)
}

fn currency(code: Option<&str>) -> Result<Arc<str>, Refusal> {
    match code {
        None => Ok(Arc::default()),
        Some(code) if is_currency(code) => Ok(Arc::from(code)),
        Some(_) => Err(Refusal::invalid("currency", "three capital letters: EUR")),
    }
}

/// As names of operations are made from OpenAPI files.
fn operation(name: &str) -> Result<Arc<str>, Refusal> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/{}-".contains(&byte);
    if name.len() > OPERATION || !name.bytes().all(safe) {
        let why = format!("1 to {OPERATION} of letters, digits and _.:/{{}}-");
        return Err(Refusal::invalid("operation", why));
    }
    text("operation", name)
}

fn outcome(name: Option<&str>) -> Result<UsageOutcome, Refusal> {
    let Some(name) = name else {
        return Ok(UsageOutcome::Served);
    };
    let found = UsageOutcome::ALL
        .into_iter()
        .find(|outcome| outcome.as_str() == name);
    let why = "served, client_error, server_error, failed or aborted";
    found.ok_or_else(|| Refusal::invalid("outcome", why))
}
