//! Emergency shares: what this node may spend of a counter while nobody grants, once in each window however often it starts.
//!
//! The grantor says with each grant how large shares are; windows that begin while it is away bring shares of that size again, as long as
//! one remembers it ([`REMEMBERED`]). Where it is another process they are kept on the disk, so that a process that starts while nobody
//! grants has them too. Promises: a part of a share is spent only once the file says that it was drawn, and what was drawn in a window is
//! never drawn again in it, by this process or a later one, whether it was spent or not; who draws from several counters draws from all or
//! none; a file that is missing, damaged or from the future gives nothing; of two processes on one state directory only one draws. Nothing
//! is written on the request path: a call that needs a part that was not drawn yet waits for it, for a moment. Not here: how large shares
//! are, and telling the grantor what was spent (cells owe it).

mod file;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tollgate_policy::quota::{Counter, CounterKey, EmergencyShare, LeaseGrant, Limit};
use tollgate_policy::time::Timestamp;

use crate::identity::clock;
use crate::whole_file;

/// Shares known at once: as many as there are cells.
const MOST: usize = 200_000;
/// How long after the grantor's last word there is something in new windows.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);
/// Where there is no room, those it was silent about for so long give way; and so old the file becomes.
const SILENT: Duration = Duration::from_secs(3600);
/// How often room is looked for.
const MAKE_ROOM: Duration = Duration::from_secs(10);
/// By so much clocks of nodes and grantor may differ at the end of a day or month, and ends of a window from one answer to the next.
const SLACK: Duration = Duration::from_secs(60);
/// A share is drawn in so many parts, or in larger ones where a call needs more: as little as one part is lost with a process.
const PARTS: u64 = 4;
/// How long a call waits for a part: a busy disk is slow, and without a part it is refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// Calls that wait for one.
const QUEUE: usize = 1024;
/// Calls whose parts are written together.
const TOGETHER: usize = 256;
/// Between two looks whether there is something to write.
const LOOK: Duration = Duration::from_millis(250);
/// The same, for each thousand shares more: the file is written as a whole.
const LOOK_MORE: Duration = Duration::from_millis(100);

/// The share of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// All of it.
    credit: u64,
    /// Of it, what was given out to be spent in this window.
    drawn: u64,
    /// The end of the window.
    until: Timestamp,
    /// How long the next ones are; `None`: as the limit says.
    period: Option<Duration>,
    /// When the grantor said so.
    told: Timestamp,
}

/// A part of shares that may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// How much.
    pub(super) tokens: u64,
    /// For how long.
    pub(super) lasts: Duration,
}

struct Draw {
    counters: Arc<[Counter]>,
    tokens: u64,
    back: oneshot::Sender<Part>,
}

/// All shares of this node.
#[derive(Debug)]
pub(super) struct Shares {
    /// `None`: they end with the process.
    path: Option<PathBuf>,
    state: Mutex<State>,
    wanted: mpsc::Sender<Draw>,
    draws: Mutex<Option<mpsc::Receiver<Draw>>>,
}

#[derive(Debug, Default)]
struct State {
    shares: HashMap<CounterKey, Share>,
    /// The file says something else.
    changed: bool,
    /// When it was written.
    written: Timestamp,
    /// When room was looked for in vain.
    crowded: Timestamp,
    /// Nobody else uses the file. Before nothing is drawn.
    ours: bool,
    /// Keeps others from it.
    lock: Option<File>,
}

impl std::fmt::Debug for Draw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draw")
            .field("counters", &self.counters)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Shares {
    /// None yet, and none kept: those of a process that grants, too.
    pub(super) fn in_memory() -> Arc<Self> {
        let shares = Self::at(None);
        shares.state.lock().ours = true;
        Arc::new(shares)
    }

    /// What a former process left in `state_dir`. Reads a file.
    pub(super) fn open(state_dir: &Path) -> Arc<Self> {
        let path = state_dir.join("shares");
        let shares = Self::at(Some(path.clone()));
        shares.take_over(&path, clock::now());
        Arc::new(shares)
    }

    fn at(path: Option<PathBuf>) -> Self {
        let (wanted, draws) = mpsc::channel(QUEUE);
        Self {
            path,
            state: Mutex::default(),
            wanted,
            draws: Mutex::new(Some(draws)),
        }
    }

    /// The grantor said how large shares are, in an answer to what was asked at `sent`.
    pub(super) fn offered(&self, counters: &[Counter], grant: &LeaseGrant, sent: Timestamp) {
        // A grantor of another version may know of none.
        if grant.emergency.len() != counters.len() {
            return;
        }
        let mut state = self.state.lock();
        for (counter, share) in counters.iter().zip(&grant.emergency) {
            if counter.limit.has_emergency_share() {
                state.offered(&counter.key, share, sent);
            }
        }
    }

    /// Draws a part of at least so many tokens from all of these that have shares, if there is as much. Waits until the file says so.
    pub(super) async fn draw(&self, counters: &Arc<[Counter]>, tokens: u64) -> Option<Part> {
        let now = clock::now();
        let there = {
            let mut state = self.state.lock();
            let shared = counters.iter().filter(|it| it.limit.has_emergency_share());
            let rest = shared.map(|it| state.rest(it, now)).min();
            rest.is_some_and(|rest| rest >= tokens.max(1))
        };
        if !there {
            return None;
        }
        let (back, drawn) = oneshot::channel();
        let draw = Draw {
            counters: Arc::clone(counters),
            tokens,
            back,
        };
        self.wanted.try_send(draw).ok()?;
        // A part that comes too late stays drawn, and is spent by nobody.
        tokio::time::timeout(PATIENCE, drawn).await.ok()?.ok()
    }

    /// Writes what is to be written until `stop` turns true. Once per process.
    pub(super) async fn keep(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let Some(mut draws) = self.draws.lock().take() else {
            return;
        };
        let mut together = Vec::with_capacity(TOGETHER);
        loop {
            let thousands = u32::try_from(self.state.lock().shares.len() / 1000);
            let look = LOOK + LOOK_MORE.saturating_mul(thousands.unwrap_or(u32::MAX));
            tokio::select! {
                taken = draws.recv_many(&mut together, TOGETHER) => {
                    if taken == 0 {
                        return;
                    }
                    self.give(&mut together).await;
                }
                () = tokio::time::sleep(look) => self.look().await,
                () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                    self.look().await;
                    return;
                }
            }
        }
    }

    /// Gives parts out, once the file says that they are drawn.
    async fn give(self: &Arc<Self>, draws: &mut Vec<Draw>) {
        let now = clock::now();
        let mut given = Vec::with_capacity(draws.len());
        // Of those who wait together each gets what it needs, so that the first leave something for the last.
        let ahead = draws.len() == 1;
        {
            let mut state = self.state.lock();
            for draw in draws.drain(..).filter(|draw| !draw.back.is_closed()) {
                if let Some(part) = state.draw(&draw.counters, draw.tokens, ahead, now) {
                    given.push((draw, part));
                }
            }
        }
        if given.is_empty() || !self.write(now).await {
            return;
        }
        for (draw, part) in given {
            let _asker_gone = draw.back.send(part);
        }
    }

    async fn look(self: &Arc<Self>) {
        let Some(path) = &self.path else { return };
        let now = clock::now();
        let (ours, changed) = {
            let state = self.state.lock();
            (state.ours, state.changed)
        };
        if !ours {
            let (shares, path) = (Arc::clone(self), path.clone());
            let taken = tokio::task::spawn_blocking(move || shares.take_over(&path, now)).await;
            if let Err(error) = taken {
                tracing::error!(%error, "emergency shares are not taken over");
            }
        } else if changed {
            self.write(now).await;
        }
    }

    /// Writes the file. True: a later process will not draw what was drawn.
    async fn write(self: &Arc<Self>, now: Timestamp) -> bool {
        let Some(path) = self.path.clone() else {
            return true;
        };
        let shares: Vec<_> = {
            let mut state = self.state.lock();
            state.shares.retain(|_, share| share.is_kept(now));
            (state.changed, state.written) = (false, now);
            let all = state.shares.iter();
            all.map(|(key, share)| (key.clone(), *share)).collect()
        };
        let written = tokio::task::spawn_blocking(move || {
            let Some(bytes) = file::encode(shares, now) else {
                return Err(io::Error::other(
                    "more were drawn from in their windows than a file may tell",
                ));
            };
            let written = whole_file::write(&path, &bytes);
            // Without a file a process that starts has no shares until it is granted something.
            written.or_else(|error| {
                file::remove(&path)?;
                tracing::warn!(%error, "emergency shares are not kept for the next start");
                Ok::<_, io::Error>(())
            })
        });
        let written = written.await.map_err(io::Error::other).flatten();
        if let Err(error) = &written {
            tracing::error!(%error, "emergency shares cannot be drawn");
            self.state.lock().changed = true;
        }
        written.is_ok()
    }

    /// Makes the file this process's own, as soon as nobody else has it. What others drew is not drawn again.
    fn take_over(&self, path: &Path, now: Timestamp) {
        let lock = match file::lock(path) {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "there are no emergency shares");
                return;
            }
        };
        let left = file::read(path, now);
        let mut state = self.state.lock();
        for (key, share) in left {
            let known = state.shares.entry(key).or_insert(share);
            if now < share.until {
                known.drawn = known.drawn.max(share.drawn);
            }
        }
        (state.ours, state.lock) = (true, Some(lock));
    }
}

impl Share {
    /// Whether new windows bring it again.
    fn is_remembered(&self, now: Timestamp) -> bool {
        now < self.told.plus(REMEMBERED)
    }

    /// Whether it is worth keeping: new windows bring it again, or it says what was drawn in one that is not over.
    fn is_kept(&self, now: Timestamp) -> bool {
        self.is_remembered(now) || self.is_drawn(now)
    }

    fn is_drawn(&self, now: Timestamp) -> bool {
        self.drawn > 0 && now < self.until
    }

    /// Gives way to that of the present window, where its own is over.
    fn advance(&mut self, limit: &Limit, now: Timestamp) {
        if now < self.until || !self.is_remembered(now) {
            return;
        }
        self.drawn = 0;
        self.until = match self.period {
            Some(period) => {
                let period = period.as_millis().max(1);
                let over = now.since(self.until).as_millis() / period;
                let further = u64::try_from((over + 1) * period).unwrap_or(u64::MAX);
                self.until.plus(Duration::from_millis(further))
            }
            None => {
                let within = now.max(self.until.plus(SLACK));
                Timestamp::from_millis(limit.window.at(within).end)
            }
        };
    }
}

impl State {
    fn offered(&mut self, key: &CounterKey, offer: &EmergencyShare, sent: Timestamp) {
        let until = offer
            .ends
            .map_or(Timestamp::from_millis(i64::MAX), |ends| sent.plus(ends));
        if let Some(share) = self.shares.get_mut(key) {
            let other = share.credit != offer.tokens || share.period != offer.period;
            self.changed |= other || self.written.plus(SILENT) < sent;
            (share.credit, share.period) = (offer.tokens, offer.period);
            share.told = share.told.max(sent);
            if sent >= share.until {
                (share.drawn, share.until) = (0, until);
            } else if until.plus(SLACK) < share.until {
                // The limit has shorter windows now.
                share.until = until;
            }
            return;
        }
        if offer.tokens == 0 || self.shares.len() >= MOST && !self.make_room(sent) {
            return;
        }
        let share = Share {
            credit: offer.tokens,
            drawn: 0,
            until,
            period: offer.period,
            told: sent,
        };
        self.shares.insert(key.clone(), share);
        self.changed = true;
    }

    /// What may still be drawn.
    fn rest(&mut self, counter: &Counter, now: Timestamp) -> u64 {
        let ours = self.ours;
        let share = self.shares.get_mut(&counter.key).filter(|_| ours);
        share.map_or(0, |share| {
            share.advance(&counter.limit, now);
            let lasts = now < share.until;
            if lasts {
                share.credit.saturating_sub(share.drawn)
            } else {
                0
            }
        })
    }

    /// All or nothing. `ahead`: more than is needed now, so that not every call has to draw.
    fn draw(
        &mut self,
        counters: &[Counter],
        tokens: u64,
        ahead: bool,
        now: Timestamp,
    ) -> Option<Part> {
        let shared = || counters.iter().filter(|it| it.limit.has_emergency_share());
        let mut part = u64::MAX;
        for counter in shared() {
            let rest = self.rest(counter, now);
            let credit = self.shares.get(&counter.key)?.credit;
            let more = if ahead { credit / PARTS } else { 0 };
            part = part.min(more.max(tokens).max(1).min(rest));
        }
        if part < tokens || part == 0 || shared().next().is_none() {
            return None;
        }
        let mut until = Timestamp::from_millis(i64::MAX);
        for counter in shared() {
            let share = self.shares.get_mut(&counter.key)?;
            share.drawn += part;
            until = until.min(share.until);
        }
        Some(Part {
            tokens: part,
            lasts: until.since(now),
        })
    }

    /// Forgets shares the grantor has been silent about. False: there are none, or there were none a moment ago.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if now < self.crowded.plus(MAKE_ROOM) {
            return false;
        }
        let told_lately = |share: &Share| now < share.told.plus(SILENT);
        self.shares
            .retain(|_, share| told_lately(share) || share.is_drawn(now));
        let room = self.shares.len() < MOST;
        if !room {
            self.crowded = now;
        }
        room
    }
}
