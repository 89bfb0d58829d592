//! The usage journal: what was served is written down before the call ends, and sent until somebody has stored it.
//!
//! ```text
//! worker ──append──► segment (mapped file) ──► shipper ──► intake
//!                        ▲ made, synced by the keeper
//! ```
//!
//! It promises: once [`ShardWriter::append`] has returned, the record survives the death of the process, and comes to the intake exactly
//! under one number, however often anything dies; what is lost all the same (a disk that fails, a power cut before the next sync) shows
//! as a missing number or as a run without end. It does not add up, price or bill: the intake does.
//!
//! Start reading in `writer.rs`.

pub mod frame;
mod keeper;
mod limits;
mod map;
mod names;
pub mod parse;
pub mod reader;
mod run;
mod segment;
mod shipper;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tollgate_proto::RunId;

pub use limits::{OnFull, UsageLimits};
pub use shipper::Shipper;
pub use state::{JournalState, Room};
pub use writer::{Full, NotSynced, ShardWriter};

use frame::LONGEST_NODE;
use keeper::Keeper;
use run::RunDirectory;

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be used.
    #[error("cannot keep usage in {path}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node's name is empty or too long.
    #[error("the name of a node has 1 to {LONGEST_NODE} bytes")]
    Node,
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random,
}

/// Where the records of one process are written.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    shards: Vec<Arc<ShardWriter>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    finished: watch::Receiver<bool>,
}

/// What writers, keeper and shipper have in common.
#[derive(Debug)]
struct Shared {
    node: Arc<str>,
    run: RunId,
    limits: UsageLimits,
    /// Where the runs lie.
    usage: PathBuf,
    /// Where this one lies.
    directory: RunDirectory,
    state: Arc<JournalState>,
    /// The least any shard has.
    room: AtomicU8,
    keeper: OnceLock<Thread>,
    /// The keeper sleeps until something happens.
    idle: AtomicBool,
    /// The keeper is to end.
    stop: AtomicBool,
    /// The journal is closed.
    closing: watch::Sender<bool>,
}

impl Journal {
    /// Begins a new run in `directory`, with `shards` writers. The shipper is to be run by the caller; it also sends what former runs
    /// left there. A full disk is no error: see [`Room`].
    ///
    /// # Errors
    /// The directory cannot be made or locked, or the node's name does not fit.
    pub fn open(
        directory: &Path,
        node: Arc<str>,
        shards: usize,
        limits: UsageLimits,
    ) -> Result<(Self, Shipper), JournalError> {
        if node.is_empty() || node.len() > LONGEST_NODE {
            return Err(JournalError::Node);
        }
        let failed = |source| JournalError::Directory {
            path: directory.to_owned(),
            source,
        };
        run::make_root(directory).map_err(failed)?;
        let run = random_run()?;
        let shared = Arc::new(Shared {
            limits: limits.fitted(shards),
            usage: directory.to_owned(),
            directory: run::create(directory, run, &node).map_err(failed)?,
            node,
            run,
            state: Arc::default(),
            room: AtomicU8::new(Room::Free.code()),
            keeper: OnceLock::new(),
            idle: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            closing: watch::Sender::new(false),
        });
        let shards: Vec<_> = (0..u32::try_from(shards).unwrap_or(u32::MAX))
            .map(|number| Arc::new(ShardWriter::new(shared.clone(), number)))
            .collect();
        let keeper = Keeper::new(shared.clone(), &shards).start();
        let (finished, finish) = watch::channel(false);
        let shipper = Shipper {
            shared: shared.clone(),
            shards: shards.clone(),
            finished,
        };
        let journal = Self {
            keeper: Mutex::new(Some(keeper.map_err(failed)?)),
            shared,
            shards,
            finished: finish,
        };
        Ok((journal, shipper))
    }

    /// This process's run.
    pub fn run(&self) -> RunId {
        self.shared.run
    }

    /// The writer of a worker. There are as many as [`Self::open`] was told; numbers beyond begin again.
    pub fn shard(&self, number: usize) -> Option<Arc<ShardWriter>> {
        let position = number.checked_rem(self.shards.len())?;
        self.shards.get(position).cloned()
    }

    /// Whether another call can be recorded by every worker. One atomic load.
    #[inline]
    pub fn room(&self) -> Room {
        Room::from_code(self.shared.room.load(Ordering::Relaxed))
    }

    /// Numbers for metrics.
    pub fn state(&self) -> &Arc<JournalState> {
        &self.shared.state
    }

    /// What it was opened with, fitted to the number of shards.
    pub fn limits(&self) -> &UsageLimits {
        &self.shared.limits
    }

    /// Ends the run in order: nothing is taken any more, and within `limit` what is there is sent. Whether all of it was; otherwise the
    /// next process will.
    pub async fn close(&self, limit: Duration) -> bool {
        for shard in &self.shards {
            shard.close();
        }
        self.shared.closing.send_replace(true);
        let mut finished = self.finished.clone();
        let shipped = tokio::time::timeout(limit, finished.wait_for(|finished| *finished)).await;
        self.shared.stop();
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            let shared = self.shared.clone();
            let end = tokio::task::spawn_blocking(move || {
                // Its last round makes what is left safe from a power cut. It may have been making a segment nobody needs.
                let _ = keeper.join();
                shared.directory.remove();
            });
            let _ = end.await;
        }
        matches!(shipped, Ok(Ok(_)))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    /// Something was appended.
    #[inline]
    fn rouse(&self) {
        if self.idle.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// The keeper is to look at once.
    fn wake(&self) {
        self.idle.store(false, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }

    /// There is no more room than this.
    fn raise(&self, room: Room) {
        self.room.fetch_max(room.code(), Ordering::Relaxed);
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }
}

fn random_run() -> Result<RunId, JournalError> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| JournalError::Random)?;
    Ok(RunId(u128::from_le_bytes(bytes)))
}
