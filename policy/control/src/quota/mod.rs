//! The grantor of this installation: one task that answers asks for quota, and stores what it hands out before it says so.
//!
//! Promises: asks that wait together are answered after one commit; what cannot be stored is not handed out; a queue that is full
//! refuses. Not here: the rules by which quota is handed out (`tollgate_policy::quota`).

mod circle;
mod clock;
mod ledger;
mod own;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::{broadcast, mpsc, oneshot};
use tollgate_policy::quota::{CounterKey, Grantor, HolderId, LeaseAsk, LeaseGrant, Limit};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Announcement, Answer};

pub(crate) use circle::Circle;
use clock::{Clock, Told};
use ledger::Ledger;
pub(crate) use ledger::{Counted, Wanted};
pub(crate) use own::{own, shown};

use crate::control::now;
use crate::store::StoreError;

/// Frames that wait; more are refused.
const QUEUE: usize = 1024;
/// Frames answered by one commit.
const BATCH: usize = 256;
/// How often silent holders and old counters are looked for.
const SWEEP: Duration = Duration::from_millis(250);
/// How often a ledger that cannot be used is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often windows that are long over are removed from the disk.
const FORGET: Duration = Duration::from_secs(3600);

/// Asks of one holder, and the way back.
type Frame = (HolderId, Vec<LeaseAsk>, oneshot::Sender<Answer>);

/// The way to the grantor.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    frames: mpsc::Sender<Frame>,
    ledger: Arc<RwLock<Option<Ledger>>>,
}

impl Quota {
    /// The way, and what has to run for it to lead anywhere.
    pub(crate) fn new(
        state_dir: PathBuf,
        announcements: broadcast::Sender<Announcement>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (frames, queue) = mpsc::channel(QUEUE);
        let ledger = Arc::new(RwLock::new(None));
        let desk = Desk {
            state_dir,
            ledger: Arc::clone(&ledger),
            grantor: Grantor::default(),
            version: None,
            unstored: HashMap::new(),
            clock: Clock::new(Instant::now(), now()),
            troubled: false,
            announcements,
        };
        (Self { frames, ledger }, desk.run(queue))
    }

    /// Hands asks over. Without a place in the queue the answer is a refusal.
    pub(crate) fn ask(&self, holder: HolderId, asks: Vec<LeaseAsk>, back: oneshot::Sender<Answer>) {
        if let Err(full) = self.frames.try_send((holder, asks, back)) {
            let (_, _, back) = full.into_inner();
            let _ = back.send(Answer::Refused("too many asks for quota wait".into()));
        }
    }

    /// How counters stand on disk, in order of limit and subject, after a place in that order: those that are wanted, of subjects
    /// that are.
    pub(crate) async fn list(
        &self,
        wanted: &Wanted,
        of: impl Fn(&str) -> bool,
        after: &CounterKey,
        limit: u32,
    ) -> Result<Vec<Counted>, StoreError> {
        let ledger = self.ledger.read().clone();
        match ledger {
            Some(ledger) => ledger.list(wanted, of, after, limit).await,
            None => Err(StoreError::Strange(
                "the ledger of quota cannot be used; the log says why".to_owned(),
            )),
        }
    }
}

struct Desk {
    state_dir: PathBuf,
    ledger: Arc<RwLock<Option<Ledger>>>,
    grantor: Grantor,
    /// Of the ledger, when the grantor last knew all of it; `None`: it knows nothing.
    version: Option<i64>,
    /// How counters stand that no commit holds yet: no more than there are.
    unstored: HashMap<CounterKey, Counted>,
    clock: Clock,
    /// The last change could not be stored; said once.
    troubled: bool,
    announcements: broadcast::Sender<Announcement>,
}

impl Desk {
    async fn run(mut self, mut queue: mpsc::Receiver<Frame>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut forget = tokio::time::interval(FORGET);
        let mut opened: Option<tokio::time::Instant> = None;
        loop {
            let usable = self.ledger.read().is_some();
            let due = opened.is_none_or(|at| at.elapsed() >= TRY_AGAIN);
            if !usable && due {
                opened = Some(tokio::time::Instant::now());
                self.open().await;
            }
            tokio::select! {
                taken = queue.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.answer(&mut batch).await;
                }
                _ = sweep.tick() => {
                    let now = self.now();
                    self.grantor.sweep(now);
                }
                _ = forget.tick() => {
                    let ledger = self.ledger.read().clone();
                    if let Some(ledger) = ledger && let Err(error) = ledger.forget(now()).await {
                        tracing::warn!(%error, "counters of windows that are over are not removed");
                    }
                }
            }
        }
    }

    async fn open(&mut self) {
        let opened = async {
            let ledger = Ledger::open(&self.state_dir).await?;
            let term = ledger.next_term().await?;
            Ok::<_, StoreError>((ledger, term))
        };
        match opened.await {
            Ok((ledger, term)) => {
                self.begin(term);
                *self.ledger.write() = Some(ledger);
            }
            Err(error) => tracing::error!(%error, "no quota is handed out"),
        }
    }

    /// A grantor that knows nothing and reads what is stored.
    fn begin(&mut self, term: u32) {
        self.grantor = Grantor::new(term);
        self.version = None;
        self.unstored.clear();
    }

    /// The time quota is counted by.
    fn now(&mut self) -> Timestamp {
        match self.clock.tell(Instant::now(), now()) {
            Told::Now(now) => now,
            Told::Back(now) => {
                // Its windows lie ahead. What is stored of them is carried over; a new term is counted by opening anew.
                *self.ledger.write() = None;
                now
            }
        }
    }

    async fn answer(&mut self, batch: &mut Vec<Frame>) {
        let ledger = self.ledger.read().clone();
        let granted = match ledger {
            Some(ledger) => self.grant(&ledger, batch).await,
            None => Err(StoreError::Strange("the ledger cannot be used".to_owned())),
        };
        match granted {
            Ok(grants) => {
                if std::mem::take(&mut self.troubled) {
                    tracing::info!("quota is stored and handed out again");
                }
                for ((_, _, back), grants) in batch.drain(..).zip(grants) {
                    let _ = back.send(Answer::Leased(grants));
                }
                self.tell();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.troubled, true) {
                    tracing::error!(%error, "quota could not be stored and is not handed out");
                }
                for (_, _, back) in batch.drain(..) {
                    let _ = back.send(Answer::Refused("quota cannot be counted".into()));
                }
            }
        }
    }

    /// One commit for all. Where it fails, the grantor goes on holding as gone what it would have handed out, until its holders
    /// ask again and it learns that they never had it.
    async fn grant(
        &mut self,
        ledger: &Ledger,
        batch: &[Frame],
    ) -> Result<Vec<Vec<LeaseGrant>>, StoreError> {
        let mut change = ledger.begin().await?;
        let version = ledger.version(&mut change).await?;
        let now = self.now();
        self.learn(ledger, &mut change, version, now, batch).await?;
        let grants = batch
            .iter()
            .map(|(holder, asks, _)| {
                let grant = |ask| self.grantor.ask(now, *holder, ask);
                asks.iter().map(grant).collect()
            })
            .collect();
        let changes = self.grantor.take_changes().into_iter();
        self.unstored
            .extend(changes.map(|change| (change.0.key.clone(), change)));
        if self.unstored.is_empty() {
            change.rollback().await.map_err(|e| ledger.error(e))?;
            self.version = Some(version);
            return Ok(grants);
        }
        let changes: Vec<Counted> = self.unstored.values().cloned().collect();
        let version = ledger.store(&mut change, &changes).await?;
        change.commit().await.map_err(|e| ledger.error(e))?;
        self.unstored.clear();
        self.version = Some(version);
        Ok(grants)
    }

    /// What the ledger knows of the counters asked about: of those the grantor never saw, and of all where another process
    /// changed it meanwhile.
    async fn learn(
        &mut self,
        ledger: &Ledger,
        change: &mut crate::store::Transaction,
        version: i64,
        now: Timestamp,
        batch: &[Frame],
    ) -> Result<(), StoreError> {
        let foreign = self.version.is_some_and(|known| known != version);
        let mut wanted: HashMap<CounterKey, Arc<Limit>> = HashMap::new();
        for counter in batch
            .iter()
            .flat_map(|(_, asks, _)| asks)
            .flat_map(|ask| ask.counters.iter())
        {
            if foreign || !self.grantor.knows(&counter.key) {
                wanted.insert(counter.key.clone(), Arc::clone(&counter.limit));
            }
        }
        if foreign {
            let held = self.grantor.balances(now);
            wanted.extend(held.map(|balance| (balance.key, balance.limit)));
            // It was never handed out, or its holder will ask again.
            self.unstored.clear();
        }
        let keys: Vec<CounterKey> = wanted.keys().cloned().collect();
        for (key, standing) in ledger.load(change, &keys).await? {
            if let Some(limit) = wanted.get(&key) {
                self.grantor.restore(now, &key, limit, standing);
            }
        }
        Ok(())
    }

    fn tell(&mut self) {
        for alert in self.grantor.take_alerts() {
            tracing::warn!(
                limit = &*alert.key.limit,
                subject = &*alert.key.subject,
                api = &*alert.key.api,
                percent = alert.percent,
                "a limit is used to {} %",
                alert.percent,
            );
            let ends = Timestamp::from_millis(alert.window.end);
            // Sending fails only when nobody listens.
            let _ = self.announcements.send(Announcement::Quota {
                key: alert.key,
                percent: alert.percent,
                begins: Timestamp::from_millis(alert.window.begin),
                ends: (alert.window.end < i64::MAX).then_some(ends),
            });
        }
    }
}
