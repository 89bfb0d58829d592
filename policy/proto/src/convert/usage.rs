//! Usage on its way to the intake, and the receipts that let it be forgotten.

use std::collections::HashSet;
use std::sync::Arc;

use tollgate_policy::time::Timestamp;

use super::{Malformed, cut, list, name, text};
use crate::{Meters, RunId, UsageBatch, UsageOutcome, UsageReceipt, UsageRecord, wire};

/// The receipt for a batch.
pub fn usage_receipt(batch: &UsageBatch, receipt: UsageReceipt) -> wire::UsageReceipt {
    wire::UsageReceipt {
        run: batch.run.0.to_be_bytes().to_vec(),
        shard: batch.shard,
        node: batch.node.to_string(),
        next: Some(receipt.next),
        refused: String::new(),
    }
}

/// Why a batch was not taken. `why` must not be empty.
pub fn refused_usage(batch: &UsageBatch, why: &str) -> wire::UsageReceipt {
    wire::UsageReceipt {
        next: None,
        refused: cut(why),
        ..usage_receipt(batch, UsageReceipt { next: 0 })
    }
}

/// What the intake said, and of whose records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// [`UsageBatch::node`].
    pub node: Arc<str>,
    /// [`UsageBatch::run`].
    pub run: RunId,
    /// [`UsageBatch::shard`].
    pub shard: u32,
    /// The receipt, or why there is none.
    pub receipt: Result<UsageReceipt, String>,
}

impl TryFrom<wire::UsageReceipt> for Received {
    type Error = Malformed;

    fn try_from(said: wire::UsageReceipt) -> Result<Self, Malformed> {
        let refused = text(said.refused, "usage_receipt.refused")?;
        // A receipt lets records be forgotten: one that says nothing, or both, is none.
        let receipt = match (said.next, &*refused) {
            (Some(next), "") => Ok(UsageReceipt { next }),
            (None, why) if !why.is_empty() => Err(why.to_owned()),
            (Some(_) | None, _) => return Err(Malformed("usage_receipt.next")),
        };
        Ok(Self {
            node: name(said.node, "usage_receipt.node")?,
            run: run(said.run, "usage_receipt.run")?,
            shard: said.shard,
            receipt,
        })
    }
}

impl From<&UsageBatch> for wire::UsageBatch {
    fn from(batch: &UsageBatch) -> Self {
        Self {
            run: batch.run.0.to_be_bytes().to_vec(),
            shard: batch.shard,
            first: batch.first,
            records: batch.records.iter().map(wire::UsageRecord::from).collect(),
            closing: batch.closing,
            node: batch.node.to_string(),
        }
    }
}

impl TryFrom<wire::UsageBatch> for UsageBatch {
    type Error = Malformed;

    fn try_from(batch: wire::UsageBatch) -> Result<Self, Malformed> {
        let mut names = Names::default();
        let records = list(batch.records, "usage_batch.records", |it| {
            record(it, &mut names)
        })?;
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        if batch.first.checked_add(count).is_none() {
            return Err(Malformed("usage_batch.first"));
        }
        Ok(Self {
            node: name(batch.node, "usage_batch.node")?,
            run: run(batch.run, "usage_batch.run")?,
            shard: batch.shard,
            first: batch.first,
            records,
            closing: batch.closing,
        })
    }
}

impl From<&UsageRecord> for wire::UsageRecord {
    fn from(record: &UsageRecord) -> Self {
        Self {
            at_millis: record.at.millis(),
            organisation: record.organisation.to_string(),
            project: record.project.to_string(),
            consumer: record.consumer.to_string(),
            api: record.api.to_string(),
            operation: record.operation.to_string(),
            plan: record.plan.to_string(),
            price_version: record.price_version,
            outcome: wire::Outcome::from(record.outcome).into(),
            calls: record.calls,
            units: record.units.total(),
            money: record.money,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            cpu_nanos: record.cpu_nanos,
            micros: record.micros,
            stream_seconds: record.stream_seconds,
            request_messages: record.request_messages,
            response_messages: record.response_messages,
            units_by_name: meters(&record.units),
            currency: record.currency.to_string(),
        }
    }
}

/// Each name with its amount; nothing where all are of the one that goes without saying.
fn meters(units: &Meters) -> Vec<wire::UsageMeter> {
    if units.named().next().is_none() {
        return Vec::new();
    }
    let meter = |(name, amount): (&Arc<str>, u64)| wire::UsageMeter {
        name: name.to_string(),
        amount,
    };
    units.iter().map(meter).collect()
}

impl TryFrom<wire::UsageRecord> for UsageRecord {
    type Error = Malformed;

    fn try_from(it: wire::UsageRecord) -> Result<Self, Malformed> {
        record(it, &mut Names::default())
    }
}

fn record(it: wire::UsageRecord, names: &mut Names) -> Result<UsageRecord, Malformed> {
    let outcome = wire::Outcome::try_from(it.outcome);
    let units = units(it.units, it.units_by_name, names)?;
    Ok(UsageRecord {
        at: Timestamp::from_millis(it.at_millis),
        organisation: names.name(it.organisation, "usage_record.organisation")?,
        project: names.name(it.project, "usage_record.project")?,
        consumer: names.name(it.consumer, "usage_record.consumer")?,
        api: names.name(it.api, "usage_record.api")?,
        operation: names.name(it.operation, "usage_record.operation")?,
        plan: names.name(it.plan, "usage_record.plan")?,
        price_version: it.price_version,
        currency: names.name(it.currency, "usage_record.currency")?,
        outcome: outcome
            .map_err(|_| Malformed("usage_record.outcome"))?
            .try_into()?,
        calls: it.calls,
        units,
        money: it.money,
        request_bytes: it.request_bytes,
        response_bytes: it.response_bytes,
        cpu_nanos: it.cpu_nanos,
        micros: it.micros,
        stream_seconds: it.stream_seconds,
        request_messages: it.request_messages,
        response_messages: it.response_messages,
    })
}

/// By name where names are said; who says none knows but one.
fn units(
    together: u64,
    said: Vec<wire::UsageMeter>,
    names: &mut Names,
) -> Result<Meters, Malformed> {
    const FIELD: &str = "usage_record.units_by_name";
    if said.is_empty() {
        return Ok(Meters::from(together));
    }
    // All that fit, and the one that always does.
    if said.len() > Meters::MOST + 1 {
        return Err(Malformed(FIELD));
    }
    let mut meters = Meters::default();
    for meter in said {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let fits = (1..=Meters::LONGEST_NAME).contains(&meter.name.len());
        if !fits || !meter.name.bytes().all(safe) {
            return Err(Malformed(FIELD));
        }
        meters.add(&names.name(meter.name, FIELD)?, meter.amount);
    }
    Ok(meters)
}

/// Names of one batch, each held once: thousands of records tell of a few of them.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn name(&mut self, name: String, field: &'static str) -> Result<Arc<str>, Malformed> {
        if let Some(known) = self.0.get(name.as_str()) {
            return Ok(Arc::clone(known));
        }
        let name = text(name, field)?;
        self.0.insert(Arc::clone(&name));
        Ok(name)
    }
}

impl From<UsageOutcome> for wire::Outcome {
    fn from(outcome: UsageOutcome) -> Self {
        match outcome {
            UsageOutcome::Served => Self::Served,
            UsageOutcome::ClientError => Self::ClientError,
            UsageOutcome::ServerError => Self::ServerError,
            UsageOutcome::Failed => Self::Failed,
            UsageOutcome::Aborted => Self::Aborted,
        }
    }
}

impl TryFrom<wire::Outcome> for UsageOutcome {
    type Error = Malformed;

    fn try_from(outcome: wire::Outcome) -> Result<Self, Malformed> {
        match outcome {
            wire::Outcome::Unspecified => Err(Malformed("usage_record.outcome")),
            wire::Outcome::Served => Ok(Self::Served),
            wire::Outcome::ClientError => Ok(Self::ClientError),
            wire::Outcome::ServerError => Ok(Self::ServerError),
            wire::Outcome::Failed => Ok(Self::Failed),
            wire::Outcome::Aborted => Ok(Self::Aborted),
        }
    }
}

/// 16 bytes, big-endian.
fn run(bytes: Vec<u8>, field: &'static str) -> Result<RunId, Malformed> {
    let bytes = bytes.try_into().map_err(|_| Malformed(field))?;
    Ok(RunId(u128::from_be_bytes(bytes)))
}
