//! What a worker knows about itself: how far its loop is behind, which calls are under way, and who waits for a refusal.
//!
//! Kept by the thread, so that a call touches no memory that another core writes. Other threads (an explanation, a test) know nothing, and
//! turn nobody away.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tollgate_policy::settings::Priority;

use super::fairness::{Key, Shares};
use super::saturation::{Happened, Pressure, Saturation};
use crate::api::Traffic;

/// Calls under way in a worker below which nobody is turned away. So few are worth a few milliseconds of work: if the worker is behind
/// all the same, the machine is busy with something else, and turning calls away would not help.
const FEWEST: u32 = 64;

/// Refusals held back at once by a worker. Each holds a connection, or a stream of one, that was there anyway.
const MOST_PAUSED: u32 = 8192;

/// The shortest pause, and how much each refusal that waits already adds: so a worker delivers at most 2,000 refusals a second, a few
/// per cent of its time, from however many connections a flood comes. The longest pause is four seconds.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_micros(500));

/// How often lateness is measured while there is work, and while there is none.
const TICK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// The shortest time between two lines in the log that say that calls are turned away.
const SILENCE: Duration = Duration::from_secs(10);

thread_local! {
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// What the metrics page shows of a worker.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Nanoseconds its loop was late, at the least, in the last window.
    pub(crate) late: AtomicU64,
    /// Calls under way.
    pub(crate) in_flight: AtomicU32,
    /// Calls a second; 0 for no limit.
    pub(crate) limit: AtomicU32,
}

/// The calls of this worker must give way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Behind;

struct Local {
    gauges: Arc<Gauges>,
    saturation: Saturation,
    pressure: Pressure,
    shares: Shares,
    happened: Happened,
    arrived: u32,
    in_flight: u32,
    paused: u32,
    told_at: Option<Instant>,
}

/// Runs `what` on the state of this worker; `None` where there is none (or no more, at the end of a thread).
fn local<T>(what: impl FnOnce(&mut Local) -> T) -> Option<T> {
    LOCAL
        .try_with(|local| local.try_borrow_mut().ok()?.as_mut().map(what))
        .ok()?
}

/// A call comes. It keeps its place to its end; on a thread that is no worker there are no places.
pub(super) fn arrive(
    api: &Arc<Traffic>,
    priority: Priority,
    now: Instant,
) -> Result<Option<Place>, Behind> {
    match local(|it| it.arrive(api, priority, now)) {
        None => Ok(None),
        Some(Ok(key)) => Ok(Some(Place(key))),
        Some(Err(behind)) => Err(behind),
    }
}

/// The place of a call under way, until dropped.
#[derive(Debug)]
pub(super) struct Place(Option<Key>);

impl Drop for Place {
    fn drop(&mut self) {
        local(|it| it.leave(self.0));
    }
}

/// A refusal that is held back, until dropped.
#[derive(Debug)]
pub(super) struct Paused(Duration);

impl Paused {
    /// `None`: deliver it now.
    pub(super) fn begin() -> Option<Self> {
        local(Local::pauses).flatten().map(Self)
    }

    /// For how long.
    pub(super) fn pause(&self) -> Duration {
        self.0
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        local(|it| it.paused = it.paused.saturating_sub(1));
    }
}

/// Measures how late the loop of this thread is, for as long as it runs.
pub(super) async fn watch(target: Duration, gauges: Arc<Gauges>) {
    LOCAL.set(Some(Local::new(target, gauges, Instant::now())));
    let (busy, mut pause) = TICK;
    loop {
        let due = Instant::now() + pause;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        let idle = local(|it| it.fired(now.saturating_duration_since(due), now));
        pause = match idle {
            Some(true) => TICK.1,
            Some(false) | None => busy,
        };
    }
}

impl Local {
    fn new(target: Duration, gauges: Arc<Gauges>, now: Instant) -> Self {
        Self {
            gauges,
            saturation: Saturation::new(target, now),
            pressure: Pressure::Calm,
            // What comes at once may make the loop as late as it may be anyway, twice.
            shares: Shares::new(target * 2),
            happened: Happened::default(),
            arrived: 0,
            in_flight: 0,
            paused: 0,
            told_at: None,
        }
    }

    /// Whether a call may pass, and by what its API is found where APIs are counted.
    fn arrive(
        &mut self,
        api: &Arc<Traffic>,
        priority: Priority,
        now: Instant,
    ) -> Result<Option<Key>, Behind> {
        self.arrived += 1;
        let key = match self.pressure {
            Pressure::Calm => None,
            Pressure::Watched => Some(self.shares.count(api, now)),
            Pressure::Shedding(_) => {
                let room = self.in_flight < FEWEST;
                let key = self.shares.admits(api, priority, room, now);
                self.happened.shed += u32::from(key.is_none());
                Some(key.ok_or(Behind)?)
            }
        };
        self.in_flight += 1;
        Ok(key)
    }

    /// A call ended.
    fn leave(&mut self, key: Option<Key>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.happened.served += 1;
        if let Some(key) = key {
            self.shares.leave(key);
        }
    }

    /// One more refusal is held back, for so long; `None`: deliver it now.
    fn pauses(&mut self) -> Option<Duration> {
        if self.pressure == Pressure::Calm || self.paused >= MOST_PAUSED {
            return None;
        }
        let (shortest, each) = PAUSE;
        self.paused += 1;
        Some(shortest.max(each * self.paused))
    }

    /// A timer fired so late; whether the worker is idle.
    fn fired(&mut self, late: Duration, now: Instant) -> bool {
        let Some((window, late)) = self.saturation.fired(late, now) else {
            return false;
        };
        let happened = std::mem::take(&mut self.happened);
        let before = std::mem::replace(
            &mut self.pressure,
            self.saturation.judge(window, late, happened),
        );
        match self.pressure {
            Pressure::Calm if before != Pressure::Calm => self.shares.forget(),
            Pressure::Calm | Pressure::Watched => {}
            Pressure::Shedding(limit) => {
                self.shares.divide(limit, window);
                if !matches!(before, Pressure::Shedding(_)) {
                    self.tell(late, limit, now);
                }
            }
        }
        self.show(late);
        std::mem::take(&mut self.arrived) == 0 && self.pressure == Pressure::Calm
    }

    fn tell(&mut self, late: Duration, limit: f64, now: Instant) {
        let recently = |told: Instant| now.saturating_duration_since(told) < SILENCE;
        if !self.told_at.is_some_and(recently) {
            tracing::warn!(
                late_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX),
                calls_per_second = whole(limit),
                "a worker is saturated; APIs that ask for more than their share are turned away"
            );
            self.told_at = Some(now);
        }
    }

    fn show(&self, late: Duration) {
        let nanoseconds = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.gauges.late.store(nanoseconds, Relaxed);
        self.gauges.in_flight.store(self.in_flight, Relaxed);
        let limit = match self.pressure {
            Pressure::Calm | Pressure::Watched => 0,
            Pressure::Shedding(limit) => whole(limit),
        };
        self.gauges.limit.store(limit, Relaxed);
    }
}

/// A rate as a whole number; the cast saturates.
fn whole(rate: f64) -> u32 {
    rate as u32
}

#[cfg(test)]
mod tests;
