//! The journal's own thread: everything that may wait for the disk.
//!
//! Several times a second it makes the segments that will be needed, has written what was appended, tells the shipper that there is
//! something to ship, and looks how much room there is. While nothing happens it sleeps a second at a time; the first record rouses it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tollgate_policy::time::Timestamp;

use super::segment::{Flushed, prepare};
use super::state::{JournalState, Room};
use super::writer::ShardWriter;
use super::{Shared, run};

/// Between two attempts to make a segment on a full disk, and between two looks when nothing happens.
const PATIENCE: Duration = Duration::from_secs(1);

/// Thousandths of the bound at which somebody is told; from the second on, room is low.
const WATERMARKS: [u64; 3] = [500, 800, 950];

/// Records that are worth waking the shipper before its time.
const MANY: u64 = 1000;

/// Keeps the shards supplied and their records safe.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    shards: Vec<Tended>,
    /// No segment is made before.
    retry: Option<Instant>,
    measured: Option<Instant>,
    /// Watermarks that are passed.
    passed: usize,
    /// Why no segment can be made, as far as it was told.
    refused: bool,
}

#[derive(Debug)]
struct Tended {
    shard: Arc<ShardWriter>,
    /// The shipper knows of everything below.
    told: u64,
    told_at: Instant,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, shards: &[Arc<ShardWriter>]) -> Self {
        let tended = |shard: &Arc<ShardWriter>| Tended {
            shard: shard.clone(),
            told: 0,
            told_at: Instant::now(),
        };
        Self {
            shared,
            shards: shards.iter().map(tended).collect(),
            retry: None,
            measured: None,
            passed: 0,
            refused: false,
        }
    }

    /// Begins. The first segments are there when this returns, if the disk has room for them.
    pub(super) fn start(mut self) -> io::Result<JoinHandle<()>> {
        self.pass();
        let shared = self.shared.clone();
        let thread = thread::Builder::new()
            .name("usage-keeper".to_owned())
            .spawn(move || self.keep())?;
        let _ = shared.keeper.set(thread.thread().clone());
        Ok(thread)
    }

    fn keep(mut self) {
        loop {
            // Asked first: what was closed before is kept by the pass that follows.
            let stop = self.shared.stop.load(Ordering::Acquire);
            let busy = self.pass();
            if stop {
                return;
            }
            if busy {
                thread::park_timeout(self.shared.limits.sync_every);
                continue;
            }
            self.shared.idle.store(true, Ordering::SeqCst);
            // A record that came in between did not see that we sleep.
            if !self.shards.iter().any(Tended::behind) {
                thread::park_timeout(PATIENCE);
            }
            self.shared.idle.store(false, Ordering::Relaxed);
        }
    }

    /// One round; whether there was anything to do.
    fn pass(&mut self) -> bool {
        let behind = self.shards.iter().any(Tended::behind);
        self.supply();
        let every = self.shared.limits.ship_every;
        for tended in &mut self.shards {
            tended.tell(every);
        }
        for tended in &self.shards {
            self.sync(&tended.shard);
        }
        if self
            .measured
            .is_none_or(|measured| measured.elapsed() >= PATIENCE)
        {
            self.measure();
        }
        self.survey();
        behind
    }

    /// Makes a segment for each shard that has none in hand.
    fn supply(&mut self) {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        self.retry = None;
        let wanting: Vec<_> = self
            .shards
            .iter()
            .map(|tended| tended.shard.clone())
            .filter(|shard| shard.wants_spare())
            .collect();
        for shard in wanting {
            match self.make(&shard) {
                Ok(()) => self.refused = false,
                Err(error) => {
                    if !self.refused {
                        tracing::error!(%error, "usage: cannot make another segment; trying every second");
                    }
                    self.refused = true;
                    self.retry = Some(Instant::now() + PATIENCE);
                    return;
                }
            }
        }
    }

    fn make(&mut self, shard: &ShardWriter) -> io::Result<()> {
        let limits = &self.shared.limits;
        let length = limits.segment_bytes;
        let total = limits.total_bytes;
        if self.measure().saturating_add(length) > total {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("the segments may take {total} bytes, and do"),
            ));
        }
        let spare = prepare(&self.shared.directory.path, shard.next_place(), length)?;
        shard.supply(spare);
        Ok(())
    }

    /// Has written what was appended, and tells those who wait for it.
    fn sync(&self, shard: &ShardWriter) {
        // Asked first: what is appended from here on may or may not be written.
        let mut safe = shard.appended();
        let segments = shard.unsynced.lock().clone();
        let mut blocked = false;
        for segment in segments {
            let flushed = segment.flush().unwrap_or_else(|error| {
                tracing::error!(path = %segment.path.display(), %error, "usage: the disk refuses records");
                JournalState::add(&self.shared.state.sync_failures, 1);
                Flushed::Broken
            });
            let done = match flushed {
                Flushed::Open => false,
                Flushed::Done => true,
                // What it holds is safe only with the intake.
                Flushed::Broken => {
                    let stored = segment.end().is_some_and(|end| end <= shard.acked());
                    blocked |= !stored;
                    stored
                }
            };
            if done {
                let mut unsynced = shard.unsynced.lock();
                unsynced.retain(|other| other.place != segment.place);
            }
        }
        if blocked {
            safe = shard.acked();
        }
        shard.advance_synced(safe);
    }

    /// Adds up what lies on the disk, and says so where a watermark is passed.
    fn measure(&mut self) -> u64 {
        let bytes = run::bytes(&self.shared.usage);
        let total = self.shared.limits.total_bytes.max(1);
        let permille = bytes.saturating_mul(1000) / total;
        let state = &self.shared.state;
        JournalState::set(&state.bytes, bytes);
        JournalState::set(&state.filled_permille, permille);
        self.measured = Some(Instant::now());
        let passed = WATERMARKS.iter().filter(|mark| permille >= **mark).count();
        if passed > self.passed {
            tracing::warn!(bytes, total, permille, "usage: segments pile up");
        } else if passed < self.passed {
            tracing::info!(bytes, total, permille, "usage: segments become fewer");
        }
        self.passed = passed;
        bytes
    }

    /// How much room there is, and how far everybody is.
    fn survey(&self) {
        let before = self.shared.room.load(Ordering::Relaxed);
        let [_, low, _] = WATERMARKS;
        let state = &self.shared.state;
        let near = state.filled_permille.load(Ordering::Relaxed) >= low;
        let (mut room, mut records, mut pending) = (Room::Free, 0u64, 0u64);
        for Tended { shard, .. } in &self.shards {
            if !shard.closed() {
                room = room.max(shard.survey(near));
            }
            let appended = shard.appended();
            records = records.saturating_add(appended);
            pending = pending.saturating_add(appended.saturating_sub(shard.acked()));
        }
        JournalState::set(&state.records, records);
        JournalState::set(&state.pending, pending);
        self.note_full(room);
        // Not over what a writer said in the meantime; the next round will see.
        let _ = self.shared.room.compare_exchange(
            before,
            room.code(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    fn note_full(&self, room: Room) {
        let since = &self.shared.state.full_since;
        let was = since.load(Ordering::Relaxed) != 0;
        if room == Room::Full && !was {
            let now = Timestamp::from(SystemTime::now()).millis();
            JournalState::set(since, u64::try_from(now).unwrap_or(1).max(1));
            tracing::error!("usage: there is no room to record calls");
        } else if room != Room::Full && was {
            JournalState::set(since, 0);
            tracing::info!("usage: there is room again");
        }
    }
}

impl Tended {
    /// Something was appended that is not safe or that the shipper does not know of, or there was a turn.
    fn behind(&self) -> bool {
        let appended = self.shard.appended();
        appended > self.told || self.shard.unsynced.lock().len() > 1
    }

    /// Tells the shipper, not too often.
    fn tell(&mut self, every: Duration) {
        let appended = self.shard.appended();
        let news = appended.saturating_sub(self.told);
        if news >= MANY || news > 0 && self.told_at.elapsed() >= every {
            self.told = appended;
            self.told_at = Instant::now();
            self.shard.news.notify_one();
        }
    }
}
