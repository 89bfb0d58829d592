//! Usage records: what a call came to, written to the journal by the worker that served it before the last byte of the answer leaves.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tollgate_policy::settings::ProcessConfig;
use tollgate_proto::{UsageOutcome, UsageRecord};

use crate::identity::clock;
use crate::journey::Admitted;
use crate::request::Exchange;
use crate::usage::{Journal, JournalState, OnFull, ShardWriter, Shipper, UsageLimits};

thread_local! {
    /// This worker's shard.
    static WRITER: RefCell<Option<Arc<ShardWriter>>> = const { RefCell::new(None) };
}

/// The journal of this process.
#[derive(Debug, Default)]
pub struct Metering {
    journal: Option<Journal>,
    node: Arc<str>,
    /// There is none, and what cannot be recorded is refused.
    refuses: bool,
}

impl Metering {
    /// Opens the journal in the state directory, with a shard per worker. Where it cannot be opened, what is billed is refused or
    /// served as the operator wants it, until the next start.
    pub fn start(process: &ProcessConfig) -> (Self, Option<Shipper>) {
        let node = process.usage.node.clone().unwrap_or_else(machine);
        let on_full = if process.usage.serve_unmetered {
            OnFull::ServeUnmetered
        } else {
            OnFull::Refuse
        };
        let limits = UsageLimits {
            total_bytes: process.usage.max_bytes,
            on_full,
            ..UsageLimits::default()
        };
        let directory = process.state_dir.join("usage");
        let opened = Journal::open(&directory, node.clone(), process.workers.max(1), limits);
        let (journal, shipper) = match opened {
            Ok((journal, shipper)) => (Some(journal), Some(shipper)),
            Err(error) => {
                let error = chain(&error);
                tracing::error!("usage cannot be recorded until the next start: {error}");
                (None, None)
            }
        };
        let refuses = journal.is_none() && on_full == OnFull::Refuse;
        let metering = Self {
            journal,
            node,
            refuses,
        };
        (metering, shipper)
    }

    /// Has the calling thread write to this shard from now on.
    pub fn bind(&self, worker: usize) {
        let shard = self.journal.as_ref().and_then(|it| it.shard(worker));
        WRITER.set(shard);
    }

    /// Whether a call that is billed may begin here: it can be recorded, or the operator serves without.
    pub fn admits(&self) -> bool {
        WRITER.with_borrow(|writer| match writer {
            Some(writer) => writer.admits(),
            None => !self.refuses,
        })
    }

    /// Ends the journal in order, within `limit`.
    pub async fn close(&self, limit: Duration) {
        if let Some(journal) = &self.journal
            && !journal.close(limit).await
        {
            tracing::warn!("usage that was not taken in time is sent by the next start");
        }
    }

    /// Adds the journal's numbers to a page of metrics.
    pub fn write_page(&self, page: &mut String) {
        let Some(journal) = &self.journal else {
            return;
        };
        let state: &JournalState = journal.state();
        let (counter, gauge) = ("counter", "gauge");
        let run = journal.run();
        let rows = [
            (
                "records_total",
                "Usage records written.",
                counter,
                &state.records,
            ),
            (
                "pending_records",
                "Usage records written and not yet stored.",
                gauge,
                &state.pending,
            ),
            (
                "shipped_total",
                "Usage records stored, of former runs too.",
                counter,
                &state.shipped,
            ),
            (
                "unmetered_total",
                "Calls served that could not be recorded.",
                counter,
                &state.unmetered,
            ),
            (
                "lost_records_total",
                "Usage records known to be lost.",
                counter,
                &state.gaps,
            ),
            (
                "damaged_segments_total",
                "Segments set aside.",
                counter,
                &state.damaged,
            ),
            (
                "journal_bytes",
                "Bytes of the usage journal.",
                gauge,
                &state.bytes,
            ),
            (
                "journal_filled_permille",
                "Thousandths of the journal's bound.",
                gauge,
                &state.filled_permille,
            ),
            (
                "journal_full_since_millis",
                "Since when the journal is full; 0: it is not.",
                gauge,
                &state.full_since,
            ),
        ];
        for (name, help, kind, value) in rows {
            let value = value.load(Ordering::Relaxed);
            let node = &self.node;
            // Writing to a string cannot fail.
            let _ = write!(
                page,
                "# HELP tollgate_usage_{name} {help}\n# TYPE tollgate_usage_{name} {kind}\n\
                 tollgate_usage_{name}{{node=\"{node}\",run=\"{run}\"}} {value}\n"
            );
        }
    }
}

/// The name of the machine.
fn machine() -> Arc<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "gateway".into(),
        name => name.chars().take(63).collect::<String>().into(),
    }
}

/// An error with all its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

impl Exchange {
    /// Records a call that is billed. `complete`: its answer was, or is about to be, written whole.
    pub(crate) fn record(&self, admitted: &Admitted, complete: bool) {
        let Some(caller) = &admitted.identified.identity.caller else {
            return;
        };
        let Some(operation) = admitted.operation() else {
            return;
        };
        let api = &admitted.api.config.name;
        let plan = caller.consumer.subscription(api).map(|held| &held.plan);
        let record = UsageRecord {
            at: clock::now(),
            organisation: Arc::clone(&caller.consumer.organisation),
            project: Arc::clone(&caller.consumer.project),
            consumer: Arc::clone(&caller.consumer.name),
            api: Arc::clone(api),
            operation: Arc::clone(&operation.name),
            plan: plan.map_or_else(|| "".into(), |plan| Arc::clone(&plan.name)),
            price_version: plan.map_or(0, |plan| plan.price.version),
            outcome: self.outcome(complete),
            calls: u32::from(self.upstream.sent),
            units: self.bill.units,
            money: self.bill.money,
            request_bytes: self.body_received,
            response_bytes: self.body_sent,
            cpu_nanos: self.shared.costs.of_call(),
            micros: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        };
        WRITER.with_borrow(|writer| {
            if let Some(writer) = writer {
                // Counted there, where there is no room.
                let _unmetered = writer.append(&record);
            }
        });
    }

    fn outcome(&self, complete: bool) -> UsageOutcome {
        match self.upstream.status {
            0 => UsageOutcome::Failed,
            _ if !complete => UsageOutcome::Aborted,
            500.. => UsageOutcome::ServerError,
            400.. => UsageOutcome::ClientError,
            _ => UsageOutcome::Served,
        }
    }
}
