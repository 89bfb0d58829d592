//! Quota at the data plane: the steps `reserve` and `settle`.
//!
//! What a call costs is taken from cells, one per set of counters and metric, with one atomic step each. A call waits only where a
//! cell is empty, and then not for long: what nobody can say is answered as the limit's policy wants. Asking the grantor is
//! [`renewal`]'s, beside the request path.

pub mod alerts;
mod cells;
mod charges;
mod exceeded;
pub mod fields;
pub mod own;
pub mod renewal;
mod reservation;
mod shares;
mod unpaid;
pub(crate) mod verdict;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tollgate_policy::access::{Identity, RuleRef};
use tollgate_policy::directory::Defined;
use tollgate_policy::quota::cell::{Taken, Ticks, Untaken};
use tollgate_policy::quota::{CostSource, Counter, HolderId, Limit, OnUnavailable};
use tollgate_proto::ControlClient;

pub use charges::{Charges, Named, Said, Settled, Toll};
pub use exceeded::Exceeded;
pub use reservation::{Bill, Reservation, Tab};
pub use unpaid::Unpaid;

use crate::api::Api;
use crate::identity::Identified;
use cells::{Cells, HeldCell};
use reservation::Paid;
use shares::Shares;

/// How long a call waits for quota.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a grantor that did not answer is not waited for, in milliseconds.
const AWAY: u64 = 1_000;
/// Cells that wait to be asked for; more count as a grantor that is away.
const QUEUE: usize = 4096;
/// How often a call that waits looks again: others may take what was granted.
const LOOKS: usize = 4;

/// All that is needed to charge calls. One per process.
#[derive(Debug)]
pub struct Quotas {
    started: Instant,
    holder: HolderId,
    cells: Cells,
    empty: mpsc::Sender<Arc<HeldCell>>,
    /// Until then the grantor is known not to answer.
    away_until: AtomicU64,
    /// Taken by the one who renews.
    renewed: Mutex<Option<(ControlClient, mpsc::Receiver<Arc<HeldCell>>)>>,
    /// What may be spent while nobody grants.
    shares: Arc<Shares>,
}

/// Who calls what, as far as counters depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// The snapshot.
    pub api: &'c Arc<Api>,
    /// Index of its operation.
    pub operation: usize,
    /// Who calls.
    pub identified: &'c Identified,
    /// From where.
    pub client: Option<IpAddr>,
}

impl Quotas {
    /// With nothing at hand. [`renewal::Renewal`] asks `control` for more.
    pub fn new(control: ControlClient) -> Arc<Self> {
        Self::with(control, Shares::in_memory())
    }

    /// The same, where `control` leads to another process: emergency shares last over restarts, in `state_dir`. Reads a file.
    pub fn remote(control: ControlClient, state_dir: &Path) -> Arc<Self> {
        Self::with(control, Shares::open(state_dir))
    }

    fn with(control: ControlClient, shares: Arc<Shares>) -> Arc<Self> {
        let (empty, emptied) = mpsc::channel(QUEUE);
        Arc::new(Self {
            started: Instant::now(),
            holder: HolderId(random()),
            cells: Cells::new(),
            shares,
            empty,
            away_until: AtomicU64::new(0),
            renewed: Mutex::new(Some((control, emptied))),
        })
    }

    /// The holder's clock.
    pub fn ticks(&self, at: Instant) -> Ticks {
        let since = at.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// What a call touches; `None`: no limit is about it.
    pub fn charges(&self, call: &Call<'_>) -> Option<Arc<Charges>> {
        self.cells.charges(call)
    }

    /// Takes what a call costs from all it touches, or nothing of any. `value` reads whole numbers from the request.
    ///
    /// # Errors
    /// A limit is reached, or cannot be checked.
    pub async fn reserve(
        &self,
        charges: Arc<Charges>,
        value: impl Fn(&CostSource) -> Named,
        now: Ticks,
    ) -> Result<Reservation, Unpaid> {
        let mut reservation = Reservation::new(Arc::clone(&charges), &value);
        for toll in &charges.tolls {
            // Dropped on the way out, the reservation gives back what it holds.
            let (paid, passes) = self.pay(toll, toll.cost.before(&value), now).await?;
            reservation.pays(paid);
            if !passes {
                reservation.shadowed.push(toll.rule());
            }
        }
        Ok(reservation)
    }

    /// Counts a call that was refused before it was charged, where such calls count.
    pub fn count_refused(&self, charges: &Charges, value: impl Fn(&CostSource) -> Named) {
        for toll in charges.tolls.iter().filter(|toll| toll.tried) {
            let cost = toll.cost.before(&value).min(toll.most);
            self.owe(&toll.held, cost);
        }
    }

    /// Counts a call that no operation of `api` answers, where such calls count.
    pub fn count_miss(&self, api: &Arc<Api>, identity: &Identity, client: Option<IpAddr>) {
        for counters in own::missed(api, identity, client) {
            let holds = |it: &Counter| it.limit.burst.unwrap_or(it.limit.amount);
            let most = counters.iter().map(holds).min().unwrap_or(0);
            let held = self.cells.cell(counters, &api.traffic.cost);
            self.owe(&held, most.min(1));
        }
    }

    /// Counts what was taken by nobody, and sees to it that the grantor hears of it.
    fn owe(&self, held: &Arc<HeldCell>, tokens: u64) {
        held.cell.charge(tokens);
        // Against `renewal::kept`: one of both sees what the other wrote.
        std::sync::atomic::fence(Ordering::SeqCst);
        if !held.remembered.load(Ordering::Relaxed) {
            // Without a place it is told when a call draws from the cell, or the next is refused.
            self.ask_ahead(held);
        }
    }

    /// Whether the grantor did not answer lately.
    fn is_away(&self, now: Ticks) -> bool {
        now < self.away_until.load(Ordering::Relaxed)
    }

    /// Charges what a call that goes on has come to since it was last asked. What cannot be taken is owed: it was used.
    ///
    /// # Errors
    /// A limit is reached, or cannot be checked.
    pub async fn charge_on(&self, tab: &Tab, settled: &Settled<'_>) -> Result<(), Unpaid> {
        let mut refused = None;
        for (index, toll) in tab.charges.tolls.iter().enumerate() {
            let due = tab.due(index, settled);
            if due == 0 {
                continue;
            }
            match self.pay(toll, due, self.ticks(Instant::now())).await {
                Ok((Paid::Taken(taken), _)) => toll.held.cell.settle(taken, taken.tokens),
                Ok((Paid::Owed(_), _)) => {}
                Err(why) => {
                    self.owe(&toll.held, due);
                    refused.get_or_insert(why);
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// How a toll is paid; false where a shadow would have refused.
    async fn pay(&self, toll: &Toll, cost: u64, now: Ticks) -> Result<(Paid, bool), Unpaid> {
        let held = &toll.held;
        let first = match cost <= toll.most {
            true => held.cell.take(cost, now),
            // Nobody has to be asked about what no window can hold.
            false => Err(Untaken::Refused),
        };
        if let Ok(taken) = first {
            if held.cell.is_low(taken) {
                self.ask_ahead(held);
            }
            return Ok((Paid::Taken(taken), true));
        }
        let (outcome, now) = if first == Err(Untaken::Refused) {
            (Waited::Refused, now)
        } else {
            self.wait(held, cost).await
        };
        let refused = match outcome {
            Waited::Taken(taken) => return Ok((Paid::Taken(taken), true)),
            Waited::Refused => true,
            Waited::Away => false,
        };
        if held.cell.is_shadow() {
            held.cell.charge(cost);
            return Ok((Paid::Owed(cost), !refused));
        }
        if refused {
            return Err(Unpaid::Exceeded(toll.exceeded(now)));
        }
        match held.cell.on_unavailable() {
            OnUnavailable::FailOpen => {
                held.cell.charge(cost);
                Ok((Paid::Owed(cost), true))
            }
            OnUnavailable::Degraded if self.take_credit(held, cost, now).await => {
                Ok((Paid::Owed(cost), true))
            }
            OnUnavailable::Degraded | OnUnavailable::FailClosed => {
                Err(Unpaid::Unknown(toll.strictest()))
            }
        }
    }

    /// Takes of the emergency credit; another part of the shares is drawn where that is needed.
    async fn take_credit(&self, held: &HeldCell, cost: u64, now: Ticks) -> bool {
        if held.cell.take_credit(cost, now) {
            return true;
        }
        let counters = held.cell.counters();
        let part = self.shares.draw(counters, cost).await;
        let now = self.ticks(Instant::now());
        let Some(part) = part else {
            // Somebody else's part may have more than it needs.
            return held.cell.take_credit(cost, now);
        };
        let lasts = u64::try_from(part.lasts.as_millis()).unwrap_or(u64::MAX);
        held.cell
            .add_credit(part.tokens, now.saturating_add(lasts), now);
        held.cell.take_credit(cost, now)
    }

    /// Waits until somebody says whether there is more.
    async fn wait(&self, held: &Arc<HeldCell>, cost: u64) -> (Waited, Ticks) {
        let begun = Instant::now();
        for _ in 0..LOOKS {
            let now = self.ticks(Instant::now());
            if self.is_away(now) {
                return (Waited::Away, now);
            }
            let mut answered = std::pin::pin!(held.answered.notified());
            answered.as_mut().enable();
            held.wait_for(cost);
            if !self.ask_ahead(held) {
                return (Waited::Away, now);
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if tokio::time::timeout(left, answered).await.is_err() {
                return (Waited::Away, self.ticks(Instant::now()));
            }
            let now = self.ticks(Instant::now());
            match held.cell.take(cost, now) {
                Ok(taken) => return (Waited::Taken(taken), now),
                Err(Untaken::Refused) => return (Waited::Refused, now),
                Err(Untaken::Empty) => {}
            }
        }
        // Others were faster each time.
        (Waited::Refused, self.ticks(Instant::now()))
    }

    /// Has more asked for, once. False: there is no place to wait.
    fn ask_ahead(&self, held: &Arc<HeldCell>) -> bool {
        if held.queued.swap(true, Ordering::AcqRel) {
            return true;
        }
        let queued = self.empty.try_send(Arc::clone(held)).is_ok();
        if !queued {
            held.queued.store(false, Ordering::Release);
        }
        queued
    }
}

/// How waiting ended.
enum Waited {
    Taken(Taken),
    Refused,
    Away,
}

/// The rule a limit is, for explanations, shadows and the log.
pub fn rule_of(limit: &Limit) -> Arc<RuleRef> {
    Arc::new(RuleRef {
        kind: "limit",
        name: Arc::clone(&limit.id),
        place: match &limit.origin {
            Defined::File(place) => Some(place.clone()),
            Defined::Store => None,
        },
    })
}

/// Unlike any other, and not for secrets.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
