//! What holds when strangers, or everybody, ask for too much, without anybody having configured it.
//!
//! Two questions, both before anything costly: did this source ask or fail too often (`sources`, `scanning`; before classification),
//! and is this worker so far behind that calls must be turned away, and whose (`saturation`, `fairness`; after it).
//! Promises: a request that passes meets no lock, no allocation and no system call, and nothing grows with the number of sources. A
//! refusal is cheap to make, and while the worker is behind it is slow to deliver: who waits for an answer asks for nothing else.
//! Not here: connections (`listener::permits`), look-ups of unknown credentials (`identity::budget`), what a consumer was sold.

mod fairness;
mod saturation;
mod scanning;
mod sources;
mod turned_away;
mod worker;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tollgate_policy::settings::{OverloadConfig, Priority};

use crate::api::Traffic;
use crate::denial::Denial;
use crate::journey::Journey;
use scanning::Scanning;
use sources::{Exempt, Rate, Source, Table};
pub(crate) use sources::{network_named, network_of};
pub use turned_away::{TurnedAway, Why};
pub(crate) use worker::Gauges;
use worker::{Paused, Place};

/// Most seconds in `Retry-After` beyond what is needed, so that those refused together do not come back together.
const JITTER: u32 = 5;

/// The guard of a process.
pub struct Overload {
    began: Instant,
    table: Arc<Table>,
    exempt: Exempt,
    rate: Option<Rate>,
    scanning: Option<Scanning>,
    queue_delay: Option<Duration>,
    /// How many were refused, for differences between refusals.
    turn: AtomicU32,
    workers: Mutex<Vec<Arc<Gauges>>>,
}

/// What one request has to do with the guard.
#[derive(Debug, Default)]
pub struct Held {
    source: Option<Source>,
    place: Option<Place>,
}

impl Overload {
    /// As configured; nobody was seen yet.
    pub fn new(config: &OverloadConfig) -> Arc<Self> {
        let table = Arc::<Table>::default();
        Arc::new(Self {
            began: Instant::now(),
            exempt: Exempt::new(&config.exempt),
            rate: config
                .requests_per_address
                .map(|limit| sources::rate(limit, table.clone())),
            scanning: config.failures_per_address.map(Scanning::new),
            table,
            queue_delay: config.queue_delay,
            turn: AtomicU32::new(0),
            workers: Mutex::default(),
        })
    }

    /// Before anything else: may this source ask at all? Who has no address (a Unix socket) is a neighbour and may.
    ///
    /// # Errors
    /// It asked too often, or failed too often.
    pub(crate) fn enter(
        &self,
        client: Option<IpAddr>,
        now: Instant,
        held: &mut Held,
    ) -> Result<(), Denial> {
        let limited = self.rate.is_some() || self.scanning.is_some();
        let Some(client) = client.filter(|client| limited && !self.exempt.contains(*client)) else {
            return Ok(());
        };
        let (source, now) = (self.table.source(client), self.since_began(now));
        if let Some(scanning) = &self.scanning
            && let Some(wait) = scanning.wait(&self.table, source, now)
        {
            return Err(self.turned_away(Why::Failures, wait));
        }
        if let Some(rate) = &self.rate
            && !sources::admits(rate, source, now)
        {
            return Err(self.turned_away(Why::Requests, Duration::ZERO));
        }
        held.source = Some(source);
        Ok(())
    }

    /// After classification: is there room for a call of this API, or must it give way to others?
    ///
    /// # Errors
    /// The worker is behind, and this API asked for more than its share.
    pub(crate) fn take_place(
        &self,
        api: &Arc<Traffic>,
        priority: Priority,
        now: Instant,
        held: &mut Held,
    ) -> Result<(), Denial> {
        match worker::arrive(api, priority, now) {
            Ok(place) => {
                held.place = place;
                Ok(())
            }
            Err(worker::Behind) => Err(self.turned_away(Why::Saturated, Duration::ZERO)),
        }
    }

    /// A worker that is behind delivers a refusal late: on a connection that waits for its answer nothing else is asked, which is worth
    /// more than the refusal costs. Bounded: with many waiting already it is delivered at once, as it is by a worker that is not behind.
    pub(crate) async fn pause(&self, denial: &Denial) {
        if matches!(denial, Denial::TurnedAway(_))
            && let Some(paused) = Paused::begin()
        {
            // Spread by a quarter, so that those refused together do not come back together.
            let spread = paused.pause() / 256 * (self.turn() % 64);
            // Boxed: the future of every other request shall not be larger for it.
            Box::pin(tokio::time::sleep(paused.pause() + spread)).await;
            drop(paused);
        }
    }

    /// How a request ended: failures count against its source, good answers for it.
    pub(crate) fn judge(&self, held: &Held, journey: &Journey, status: u16, now: Instant) {
        let (Some(source), Some(scanning)) = (held.source, &self.scanning) else {
            return;
        };
        let now = self.since_began(now);
        match (journey, status) {
            (Journey::Refused { denial, .. }, _) if is_failed_attempt(denial) => {
                scanning.failed(&self.table, source, now);
            }
            // Where the service judges credentials, it is its 401 that tells of guessing. Its 404 tells nothing: asking whether a thing
            // exists is an ordinary use of an API.
            (Journey::Admitted(_), 401) => scanning.failed(&self.table, source, now),
            (Journey::Admitted(_) | Journey::Own(_), 200..=399) => {
                scanning.succeeded(&self.table, source, now);
            }
            (
                Journey::Arrived | Journey::Admitted(_) | Journey::Own(_) | Journey::Refused { .. },
                _,
            ) => {}
        }
    }

    /// Watches over the loop of the calling worker, for as long as it runs.
    pub(crate) async fn watch_worker(self: Arc<Self>) {
        if let Some(delay) = self.queue_delay {
            let gauges = Arc::<Gauges>::default();
            self.workers.lock().push(gauges.clone());
            worker::watch(delay, gauges).await;
        }
    }

    /// What each worker showed last, in the order they started.
    pub(crate) fn workers(&self) -> Vec<Arc<Gauges>> {
        self.workers.lock().clone()
    }

    /// A refusal, with the whole seconds until the next try may succeed, and some more.
    fn turned_away(&self, why: Why, wait: Duration) -> Denial {
        let needed = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
        let retry_after = needed.saturating_add(1 + self.turn() % JITTER);
        Denial::TurnedAway(TurnedAway { why, retry_after })
    }

    /// A number that differs from one refusal to the next, without asking a source of randomness (Weyl's sequence).
    fn turn(&self) -> u32 {
        self.turn.fetch_add(0x9E37_79B9, Relaxed) >> 16
    }

    fn since_began(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.began);
        // Five hundred years fit, so that nothing is lost that `as_nanos`, twice as wide, would keep.
        passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos())
    }
}

impl fmt::Debug for Overload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Overload")
            .field("queue_delay", &self.queue_delay)
            .finish_non_exhaustive()
    }
}

/// Whether whoever is refused so may be searching: for paths, for credentials.
fn is_failed_attempt(denial: &Denial) -> bool {
    matches!(
        denial,
        Denial::UnknownApi
            | Denial::UnknownOperation
            | Denial::MethodNotAllowed(_)
            | Denial::CredentialRequired(_)
            | Denial::CredentialInvalid(_)
            | Denial::TooManyUnknown
    )
}

#[cfg(test)]
mod tests;
