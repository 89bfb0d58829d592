//! Usage records: what a call came to, written to the journal by the worker that served it before the last byte of the answer leaves.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tollgate_policy::settings::{Durability, ProcessConfig};
use tollgate_proto::{UsageOutcome, UsageRecord};

use crate::forward::watch::Watch;
use crate::identity::clock;
use crate::journey::Admitted;
use crate::request::Exchange;
use crate::usage::{Journal, JournalState, OnFull, ShardWriter, Shipper, UsageLimits};

/// Between two attempts to open a journal that could not be opened.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Workers that count apart; more of them share.
const WORKERS: usize = 16;

thread_local! {
    /// This worker's shard.
    static WRITER: RefCell<Option<Arc<ShardWriter>>> = const { RefCell::new(None) };
    /// Which worker this is.
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The journal of this process.
#[derive(Debug, Default)]
pub struct Metering {
    journal: OnceLock<Journal>,
    node: Arc<str>,
    /// How it is opened; `None`: this process has none.
    opening: Option<Opening>,
    /// Calls answered that are billed, counted before they are recorded: by worker, so that none waits for another.
    billed: [Count; WORKERS],
    /// Calls served while it could not be opened.
    unopened: AtomicU64,
}

/// A number on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicU64);

/// All that is needed to open a journal.
#[derive(Clone, Debug)]
struct Opening {
    directory: PathBuf,
    node: Arc<str>,
    shards: usize,
    limits: UsageLimits,
}

impl Opening {
    fn open(&self) -> Result<(Journal, Shipper), String> {
        let opened = Journal::open(
            &self.directory,
            Arc::clone(&self.node),
            self.shards,
            self.limits.clone(),
        );
        opened.map_err(|error| chain(&error))
    }
}

impl Metering {
    /// Opens the journal in the state directory, with a shard per worker. Where it cannot be opened, what is billed is refused or
    /// served as the operator wants it, until [`Self::opened`] could do it.
    pub fn start(process: &ProcessConfig) -> (Self, Option<Shipper>) {
        let node = process.usage.node.clone().unwrap_or_else(machine);
        let on_full = if process.usage.serve_unmetered {
            OnFull::ServeUnmetered
        } else {
            OnFull::Refuse
        };
        let opening = Opening {
            directory: process.state_dir.join("usage"),
            node: node.clone(),
            shards: process.workers.max(1),
            limits: UsageLimits {
                total_bytes: process.usage.max_bytes,
                on_full,
                ..UsageLimits::default()
            },
        };
        let (journal, shipper) = match opening.open() {
            Ok((journal, shipper)) => (OnceLock::from(journal), Some(shipper)),
            Err(error) => {
                tracing::error!("usage cannot be recorded; trying every second: {error}");
                (OnceLock::new(), None)
            }
        };
        let metering = Self {
            journal,
            node,
            opening: Some(opening),
            ..Self::default()
        };
        (metering, shipper)
    }

    /// Opens a journal that could not be opened before, as soon as that is possible; `None`: there is one, or is to be none. What it
    /// gives is to be run.
    pub async fn opened(&self) -> Option<Shipper> {
        let opening = self.opening.clone()?;
        while self.journal.get().is_none() {
            tokio::time::sleep(TRY_AGAIN).await;
            let opening = opening.clone();
            if let Ok(Ok((journal, shipper))) = spawn_blocking(move || opening.open()).await {
                tracing::info!("usage is recorded again");
                return self.journal.set(journal).is_ok().then_some(shipper);
            }
        }
        None
    }

    /// Has the calling thread write to this shard from now on.
    pub fn bind(&self, worker: usize) {
        WORKER.set(Some(worker));
        let shard = self.journal.get().and_then(|it| it.shard(worker));
        WRITER.set(shard);
    }

    /// Whether a call that is billed may begin here: it can be recorded, or the operator serves without.
    pub fn admits(&self) -> bool {
        let admits = || WRITER.with_borrow(|writer| writer.as_ref().map(|it| it.admits()));
        if let Some(admits) = admits() {
            return admits;
        }
        // It may have been opened since.
        if let (Some(worker), Some(_)) = (WORKER.get(), self.journal.get()) {
            self.bind(worker);
        }
        // A thread that is no worker records nothing, and refuses only what no worker could record.
        let refuses = |it: &Opening| it.limits.on_full == OnFull::Refuse;
        let unrecordable =
            self.journal.get().is_none() && self.opening.as_ref().is_some_and(refuses);
        admits().unwrap_or(!unrecordable)
    }

    /// Ends the journal in order, within `limit`.
    pub async fn close(&self, limit: Duration) {
        if let Some(journal) = self.journal.get()
            && !journal.close(limit).await
        {
            tracing::warn!("usage that was not taken in time is sent by the next start");
        }
    }

    /// A call that is billed was answered.
    fn count(&self) {
        let worker = WORKER.get().unwrap_or_default() % WORKERS;
        if let Some(count) = self.billed.get(worker) {
            count.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that were not taken yet.
    pub fn waiting(&self) -> u64 {
        let journal = self.journal.get();
        journal.map_or(0, |it| it.state().pending.load(Ordering::Relaxed))
    }

    /// Adds the journal's numbers to a page of metrics.
    pub fn write_page(&self, page: &mut String) {
        if self.opening.is_some() {
            let billed = self.billed.iter().map(|it| it.0.load(Ordering::Relaxed));
            let unopened = self.unopened.load(Ordering::Relaxed);
            let node = &self.node;
            for (name, help, value) in [
                ("billed", "Calls answered that are billed.", billed.sum()),
                (
                    "unopened",
                    "Of these, calls that could not be recorded because there was no journal.",
                    unopened,
                ),
            ] {
                // Writing to a string cannot fail.
                let _ = write!(
                    page,
                    "# HELP tollgate_usage_{name}_total {help}\n# TYPE tollgate_usage_{name}_total counter\n\
                     tollgate_usage_{name}_total{{node=\"{node}\"}} {value}\n"
                );
            }
        }
        let Some(journal) = self.journal.get() else {
            return;
        };
        let state: &JournalState = journal.state();
        let (node, run) = (&self.node, journal.run());
        for (name, kind, help, read) in ROWS {
            let value = read(state).load(Ordering::Relaxed);
            let _ = write!(
                page,
                "# HELP tollgate_usage_{name} {help}\n# TYPE tollgate_usage_{name} {kind}\n\
                 tollgate_usage_{name}{{node=\"{node}\",run=\"{run}\"}} {value}\n"
            );
        }
    }
}

/// Name, kind, help and place of a number.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    fn(&JournalState) -> &AtomicU64,
);

/// The journal's part of the page.
const ROWS: [Row; 11] = [
    ("records_total", "counter", "Usage records written.", |it| {
        &it.records
    }),
    (
        "pending_records",
        "gauge",
        "Usage records written and not yet stored.",
        |it| &it.pending,
    ),
    (
        "shipped_total",
        "counter",
        "Usage records stored, of former runs too.",
        |it| &it.shipped,
    ),
    (
        "unmetered_total",
        "counter",
        "Calls served that could not be recorded.",
        |it| &it.unmetered,
    ),
    (
        "disk_waits_total",
        "counter",
        "Answers whose end waited until their record was on the disk.",
        |it| &it.disk_waits,
    ),
    (
        "unsynced_total",
        "counter",
        "Of these, answers that went when the disk had taken too long.",
        |it| &it.unsynced,
    ),
    (
        "lost_records_total",
        "counter",
        "Usage records known to be lost.",
        |it| &it.gaps,
    ),
    (
        "damaged_segments_total",
        "counter",
        "Segments set aside.",
        |it| &it.damaged,
    ),
    (
        "journal_bytes",
        "gauge",
        "Bytes of the usage journal.",
        |it| &it.bytes,
    ),
    (
        "journal_filled_permille",
        "gauge",
        "Thousandths of the journal's bound.",
        |it| &it.filled_permille,
    ),
    (
        "journal_full_since_millis",
        "gauge",
        "Since when the journal is full; 0: it is not.",
        |it| &it.full_since,
    ),
];

/// The end of the answer waits until the record is on the disk; not for ever, since it was served.
fn hold_back(writer: &ShardWriter, number: u64) {
    let Some(watch) = Watch::current() else {
        return;
    };
    let synced = writer.synced(number);
    let state = writer.state();
    watch.hold.until(async move {
        state.disk_waits.fetch_add(1, Ordering::Relaxed);
        if synced.await.is_err() {
            state.unsynced.fetch_add(1, Ordering::Relaxed);
            tracing::error!("usage: the disk takes too long; an answer went before its record was safe from a power cut");
        }
    });
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
        // Whoever admitted it bills it.
        if admitted.identified.admitted_by.is_some() {
            return;
        }
        let Some(operation) = admitted.operation() else {
            return;
        };
        let durability = operation.settings.durability;
        if durability == Durability::Metric {
            return;
        }
        self.shared.metering.count();
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
            currency: plan.map_or_else(|| "".into(), |plan| Arc::clone(&plan.price.currency)),
            outcome: self.outcome(complete),
            calls: u32::from(self.upstream.sent),
            units: self.bill.units.clone(),
            money: self.bill.money,
            request_bytes: self.body_received,
            response_bytes: self.body_sent,
            cpu_nanos: self.shared.costs.of_call(),
            micros: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            stream_seconds: self.streamed.seconds,
            request_messages: self.streamed.request_messages,
            response_messages: self.streamed.response_messages,
        };
        WRITER.with_borrow(|writer| {
            let Some(writer) = writer else {
                self.shared
                    .metering
                    .unopened
                    .fetch_add(1, Ordering::Relaxed);
                return;
            };
            // Where there is no room, it is counted there.
            let number = writer.append(&record).ok();
            if let Some(number) = number.filter(|_| durability == Durability::Disk) {
                hold_back(writer, number);
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
