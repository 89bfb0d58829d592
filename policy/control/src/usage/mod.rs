//! Usage: what data planes and other services say was served, taken in exactly once, added up, kept and shown.
//!
//! Promises: a receipt is sent after what it speaks of was committed; what comes twice changes nothing; what never came is a named
//! range and an alarm. Not here: prices (totals carry units by name, money by currency, and the version of the price), and the quota
//! that is left.

mod balance;
mod export;
mod housekeeping;
mod intake;
mod ledger;
mod named;
mod own;
mod page;
mod query;
mod sender;
mod totals;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{MutexGuard, mpsc, oneshot};
use tollgate_policy::settings::{UsageConfig, UsageRetention};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Answer, UsageBatch, UsageReceipt};

use crate::Control;
use crate::audit::Head;
use crate::refusal::Refusal;
use crate::store::{Connection, StoreError, Transaction};

pub(crate) use balance::balance;
pub(crate) use export::{cloud_events, csv};
pub(crate) use housekeeping::keep_house;
pub(crate) use intake::intake;
pub(crate) use ledger::{GapRow, SenderRow};
pub(crate) use own::{month_of, own};
pub(crate) use query::{Filter, Query, UsageRow};
pub(crate) use totals::{DIMENSIONS, Step, is_currency};

/// Batches that may wait to be stored; more are refused, and come again.
const QUEUE: usize = 32;
/// Records of one batch at most. With [`QUEUE`] it bounds the memory of what waits to some tens of megabytes.
pub const MAX_BATCH: usize = 4096;
/// Longest name of a node, in bytes.
const NODE: usize = 255;

/// How usage is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSettings {
    /// How long totals are kept.
    pub keep: UsageRetention,
    /// A run that did not end in order is reported after this silence, once its node speaks in another run.
    pub silence: Duration,
    /// `source` of exported CloudEvents; tells installations apart.
    pub event_source: String,
}

impl Default for UsageSettings {
    fn default() -> Self {
        Self::of(&UsageConfig::default())
    }
}

impl UsageSettings {
    /// As the process is configured.
    pub fn of(config: &UsageConfig) -> Self {
        Self {
            keep: config.keep,
            silence: Duration::from_secs(300),
            event_source: config.event_source.clone(),
        }
    }

    fn kept(&self, step: Step) -> Duration {
        match step {
            Step::Minute => self.keep.minutes,
            Step::Hour => self.keep.hours,
            Step::Day => self.keep.days,
        }
    }

    /// Begin of the first bucket of which nothing was dropped yet.
    pub(crate) fn kept_since(&self, step: Step, now: Timestamp) -> Timestamp {
        let step_length = Duration::from_millis(step.millis().unsigned_abs());
        step.bucket(now.minus(self.kept(step)).plus(step_length))
    }
}

/// What the intake did since it began, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageFigures {
    /// Records added up.
    pub records: u64,
    /// Records that had come before.
    pub duplicates: u64,
    /// Numbers that were skipped: each is a record lost, unless it comes late.
    pub missing: u64,
    /// Numbers that came after they had been missing.
    pub found: u64,
    /// Batches that could not be stored, and were sent back.
    pub refused: u64,
    /// Runs that were reported as possibly incomplete.
    pub incomplete: u64,
}

#[derive(Debug, Default)]
struct Counters {
    records: AtomicU64,
    duplicates: AtomicU64,
    missing: AtomicU64,
    found: AtomicU64,
    refused: AtomicU64,
    incomplete: AtomicU64,
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// A batch, with the way back.
pub(crate) type Waiting = (UsageBatch, oneshot::Sender<Answer>);

/// The part of a control plane that takes usage in.
#[derive(Debug)]
pub(crate) struct Usage {
    queue: mpsc::Sender<Waiting>,
    counters: Counters,
    pub(crate) settings: UsageSettings,
}

impl Usage {
    /// Also what [`intake`] reads from.
    pub(crate) fn new(settings: UsageSettings) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let usage = Self {
            queue,
            counters: Counters::default(),
            settings,
        };
        (usage, waiting)
    }

    /// Hands a batch to the intake, which answers when it is stored; refuses it at once where it cannot be.
    pub(crate) fn offer(&self, batch: UsageBatch, back: oneshot::Sender<Answer>) {
        let refused = match acceptable(&batch) {
            Err(why) => Some((why, back)),
            Ok(()) => self.queue.try_send((batch, back)).err().map(|full| {
                let why = "too much usage is waiting to be stored".to_owned();
                (why, full.into_inner().1)
            }),
        };
        if let Some((why, back)) = refused {
            count(&self.counters.refused, 1);
            // An asker that went away asks again.
            let _ = back.send(Answer::Refused(why));
        }
    }

    /// Hands a batch to the intake and waits until it is stored.
    pub(crate) async fn submit(&self, batch: UsageBatch) -> Result<UsageReceipt, String> {
        let (back, answered) = oneshot::channel();
        self.offer(batch, back);
        match answered.await {
            Ok(Answer::Received(receipt)) => Ok(receipt),
            Ok(Answer::Refused(why)) => Err(why),
            Ok(other) => Err(format!("an unexpected answer: {other:?}")),
            Err(_) => Err("the control plane is ending".to_owned()),
        }
    }
}

fn acceptable(batch: &UsageBatch) -> Result<(), String> {
    if batch.node.is_empty() || batch.node.len() > NODE || batch.node.chars().any(char::is_control)
    {
        return Err(format!(
            "a node's name has 1 to {NODE} bytes, no control characters"
        ));
    }
    if batch.records.len() > MAX_BATCH {
        return Err(format!("more than {MAX_BATCH} records in a batch"));
    }
    let count = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
    let end = batch.first.checked_add(count);
    match end.map(i64::try_from) {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => Err("numbers of records end at 2^63".to_owned()),
    }
}

impl Control {
    /// What the intake of usage did since this process began.
    pub fn usage_figures(&self) -> UsageFigures {
        let counters = &self.inner.usage.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UsageFigures {
            records: read(&counters.records),
            duplicates: read(&counters.duplicates),
            missing: read(&counters.missing),
            found: read(&counters.found),
            refused: read(&counters.refused),
            incomplete: read(&counters.incomplete),
        }
    }

    /// Drops totals, senders and gaps that are older than the settings say, as it also happens by itself. How many rows.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn purge_usage(&self, now: Timestamp) -> Result<u64, StoreError> {
        let purged = housekeeping::purge(self, now).await;
        purged.map_err(|refusal| StoreError::Strange(refusal.to_string()))
    }

    /// Reports runs that ended without a word, as it also happens by itself. How many were new.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn report_incomplete_usage(&self, now: Timestamp) -> Result<u64, StoreError> {
        let reported = housekeeping::report(self, now).await;
        reported.map_err(|refusal| StoreError::Strange(refusal.to_string()))
    }

    /// The currency of a plan's prices, if this is their version now. What it was in an earlier one is not known any more.
    fn currency(&self, plan: &str, version: u32) -> Option<Arc<str>> {
        let index = self.inner.index.read();
        let price = &index.plans.get(plan)?.price;
        (price.version == version).then(|| Arc::clone(&price.currency))
    }

    /// Begins to write what neither the directory nor the audit log tells of. Others wait until it is committed or dropped.
    async fn turn(&self) -> Result<Turn<'_>, Refusal> {
        let turn = self.inner.writer.lock().await;
        let transaction = self.store()?.begin().await?;
        Ok(Turn {
            transaction,
            _turn: turn,
        })
    }
}

/// A change of usage under way. Dropped without [`Turn::commit`], nothing has happened.
struct Turn<'a> {
    transaction: Transaction,
    _turn: MutexGuard<'a, Head>,
}

impl Turn<'_> {
    fn on(&mut self) -> &mut Connection {
        &mut self.transaction
    }

    async fn commit(self) -> Result<(), Refusal> {
        Ok(self.transaction.commit().await?)
    }
}
