//! Emergency shares: what this node may spend of a limit while nobody grants, once in a window however often it starts.
//!
//! The grantor says with each grant how large a share is. It is kept on the disk, so that a process that starts while nobody grants has it
//! too. Promises: a part of a share is spent only once the file says that it was drawn, and what was drawn in a window is never drawn
//! again in it, by this process or a later one, whether it was spent or not; a file that is missing, damaged or from the future gives
//! nothing; of two processes on one state directory only one draws. Nothing is written on the request path: a call that needs a part
//! that was not drawn yet waits for it, for a moment. Not here: how large shares are, and telling the grantor what was spent (cells owe
//! it).

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
use tollgate_policy::quota::{CounterKey, LeaseGrant};
use tollgate_policy::time::Timestamp;

use crate::identity::clock;
use crate::whole_file;

/// Shares known at once: as many as there are cells.
const MOST: usize = 200_000;
/// A share is drawn in so many parts, or in larger ones where a call needs more: as little as one part is lost with a process.
const PARTS: u64 = 4;
/// How long a call waits for a part.
const PATIENCE: Duration = Duration::from_millis(250);
/// Calls that wait for one.
const QUEUE: usize = 1024;
/// Calls whose parts are written together.
const TOGETHER: usize = 256;
/// Between two looks whether there is something to write.
const LOOK: Duration = Duration::from_millis(250);
/// The same, for each thousand shares more: the file is written as a whole.
const LOOK_MORE: Duration = Duration::from_millis(100);
/// A window that ends sooner is over before anybody has started again.
const BRIEF: Duration = Duration::from_secs(1);

/// The counters a share is of: those that one cell draws from.
type Keys = Arc<[CounterKey]>;

/// A share in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// All of it.
    credit: u64,
    /// Of it, what was given out to be spent.
    drawn: u64,
    /// The end of the window.
    until: Timestamp,
}

/// A part of a share that may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// How much.
    pub(super) tokens: u64,
    /// For how long.
    pub(super) lasts: Duration,
}

struct Draw {
    keys: Keys,
    tokens: u64,
    back: oneshot::Sender<Part>,
}

/// All shares of this node.
#[derive(Debug)]
pub(super) struct Shares {
    path: PathBuf,
    state: Mutex<State>,
    wanted: mpsc::Sender<Draw>,
    draws: Mutex<Option<mpsc::Receiver<Draw>>>,
}

#[derive(Debug, Default)]
struct State {
    shares: HashMap<Keys, Share>,
    /// The file says something else.
    changed: bool,
    /// While this is held, nobody else uses the file. Without it nothing is drawn.
    lock: Option<File>,
}

impl std::fmt::Debug for Draw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draw")
            .field("keys", &self.keys)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Shares {
    /// What a former process left in `state_dir`. Reads a file.
    pub(super) fn open(state_dir: &Path) -> Arc<Self> {
        let (wanted, draws) = mpsc::channel(QUEUE);
        let shares = Self {
            path: state_dir.join("shares"),
            state: Mutex::default(),
            wanted,
            draws: Mutex::new(Some(draws)),
        };
        shares.take_over(clock::now());
        Arc::new(shares)
    }

    /// The grantor said how large a share is, in an answer to what was asked at `sent`.
    pub(super) fn offered(&self, keys: &Keys, grant: &LeaseGrant, sent: Timestamp) {
        let ends = |reset| sent.plus(reset);
        let until = grant.reset.map_or(Timestamp::from_millis(i64::MAX), ends);
        let mut state = self.state.lock();
        if let Some(share) = state.shares.get_mut(keys)
            && sent < share.until
        {
            let other = share.credit != grant.credit;
            share.credit = grant.credit;
            state.changed |= other;
            return;
        }
        if grant.credit == 0 || state.shares.len() >= MOST && !state.make_room(sent) {
            state.changed |= state.shares.remove(keys).is_some();
            return;
        }
        let share = Share {
            credit: grant.credit,
            drawn: 0,
            until,
        };
        state.shares.insert(Arc::clone(keys), share);
        state.changed |= until > sent.plus(BRIEF);
    }

    /// Draws a part of at least so many tokens, if there is as much. Waits until the file says so.
    pub(super) async fn draw(&self, keys: &Keys, tokens: u64) -> Option<Part> {
        let rest = self.state.lock().rest(keys, clock::now());
        if rest < tokens.max(1) {
            return None;
        }
        let (back, drawn) = oneshot::channel();
        let draw = Draw {
            keys: Arc::clone(keys),
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
        {
            let mut state = self.state.lock();
            for draw in draws.drain(..) {
                if let Some(part) = state.draw(&draw.keys, draw.tokens, now) {
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
        let now = clock::now();
        let (owned, changed) = {
            let state = self.state.lock();
            (state.lock.is_some(), state.changed)
        };
        if !owned {
            let shares = Arc::clone(self);
            let taken = tokio::task::spawn_blocking(move || shares.take_over(now)).await;
            if let Err(error) = taken {
                tracing::error!(%error, "emergency shares are not taken over");
            }
        } else if changed {
            self.write(now).await;
        }
    }

    /// Writes the file. True: a later process will not draw what was drawn.
    async fn write(self: &Arc<Self>, now: Timestamp) -> bool {
        let bytes = {
            let mut state = self.state.lock();
            state.shares.retain(|_, share| now < share.until);
            state.changed = false;
            file::encode(&state.shares, now)
        };
        let Some(bytes) = bytes else {
            tracing::warn!("too many emergency shares were drawn; no more are, in their windows");
            return false;
        };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = whole_file::write(&path, &bytes);
            // Without a file a later process has no shares at all: that is as good.
            written.or_else(|error| {
                file::remove(&path)?;
                tracing::warn!(%error, "emergency shares are not kept for the next start");
                Ok::<_, io::Error>(())
            })
        });
        match written.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "emergency shares cannot be drawn");
                false
            }
            Err(error) => {
                tracing::error!(%error, "emergency shares cannot be drawn");
                false
            }
        }
    }

    /// Makes the file this process's own, as soon as nobody else has it. What others drew is not drawn again.
    fn take_over(&self, now: Timestamp) {
        let lock = match file::lock(&self.path) {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "there are no emergency shares");
                return;
            }
        };
        let left = file::read(&self.path, now);
        let mut state = self.state.lock();
        state.shares.extend(left);
        state.lock = Some(lock);
    }
}

impl State {
    /// What may still be drawn.
    fn rest(&self, keys: &Keys, now: Timestamp) -> u64 {
        let share = self.shares.get(keys).filter(|share| now < share.until);
        let share = share.filter(|_| self.lock.is_some());
        share.map_or(0, |share| share.credit.saturating_sub(share.drawn))
    }

    fn draw(&mut self, keys: &Keys, tokens: u64, now: Timestamp) -> Option<Part> {
        let rest = self.rest(keys, now);
        let share = self.shares.get_mut(keys)?;
        let part = (share.credit / PARTS).max(tokens).max(1).min(rest);
        if part < tokens || part == 0 {
            return None;
        }
        share.drawn += part;
        Some(Part {
            tokens: part,
            lasts: share.until.since(now),
        })
    }

    /// Forgets shares of windows that are over. False: there are none.
    fn make_room(&mut self, now: Timestamp) -> bool {
        self.shares.retain(|_, share| now < share.until);
        self.shares.len() < MOST
    }
}
