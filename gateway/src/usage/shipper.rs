//! Sends records to the intake, in order, each batch until the intake says that it is stored.
//!
//! One lane for each shard of this run and one for all former runs, so that an old backlog does not hold up new records. A lane has one
//! batch on its way. A segment is removed when the intake has stored all of it; a damaged one is kept aside once what could be read of
//! it is stored. Sending a batch twice is harmless, so every doubt ends in sending again.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tollgate_proto::{Answer, ControlClient, Question, RunId, UsageBatch};

use super::Shared;
use super::frame::{NoHeader, Place};
use super::reader::{Cursor, Portion};
use super::run::{self, Former};
use super::segment::{Segment, set_aside};
use super::state::JournalState;
use super::writer::ShardWriter;

/// Records of a batch.
const MOST: usize = 1000;

/// How long the intake may take to store a batch.
const DEADLINE: Duration = Duration::from_secs(5);

/// Waits after the first and after many batches that were not stored.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Between two looks for runs whose process died.
const RESCAN: Duration = Duration::from_secs(5);

/// Bytes of a former segment that are read; none is made larger.
const LARGEST: u64 = 2 << 30;

/// Sends records to the intake.
#[derive(Debug)]
pub struct Shipper {
    pub(super) shared: Arc<Shared>,
    pub(super) shards: Vec<Arc<ShardWriter>>,
    /// Everything of this run is stored.
    pub(super) finished: watch::Sender<bool>,
}

impl Shipper {
    /// Sends until the journal is closed and everything of this run is stored.
    pub async fn run(self, client: ControlClient) {
        let mut lanes = JoinSet::new();
        for shard in &self.shards {
            let lane = Lane::own(&self.shared, &client, shard);
            lanes.spawn(own_segments(shard.clone(), lane));
        }
        let former = tokio::spawn(former_runs(self.shared.clone(), client));
        while let Some(lane) = lanes.join_next().await {
            if let Err(error) = lane {
                tracing::error!(%error, "usage: a lane to the intake ended");
            }
        }
        // It ends with the journal; what it is at will be sent by the next process.
        former.abort();
        let _ = former.await;
        let shared = self.shared.clone();
        let _ = spawn_blocking(move || shared.directory.remove()).await;
        self.finished.send_replace(true);
    }
}

/// Everything one shard of this run writes, until it is closed.
async fn own_segments(shard: Arc<ShardWriter>, mut lane: Lane) {
    loop {
        // Asked first: when it is closed, no segment comes after.
        let closed = shard.closed();
        let oldest = shard.unshipped.lock().front().cloned();
        let Some(segment) = oldest else {
            if closed {
                return;
            }
            lane.rest(&shard).await;
            continue;
        };
        let cursor = Cursor::new(segment.file.clone(), segment.place);
        match lane.ship(cursor, Some((&shard, &segment))).await {
            Ok(damaged) => {
                shard.unshipped.lock().pop_front();
                let path = segment.path.clone();
                lane.done_with(path, damaged).await;
            }
            Err(error) => {
                lane.fail(&format!("a segment cannot be read: {error}"))
                    .await
            }
        }
    }
}

/// What former runs left, one run after the other, and again from time to time: their processes may end later.
async fn former_runs(shared: Arc<Shared>, client: ControlClient) {
    let mut passed = vec![shared.run];
    loop {
        let (usage, not) = (shared.usage.clone(), passed.clone());
        match spawn_blocking(move || run::claim(&usage, &not)).await {
            Ok(Ok(Some(former))) => {
                let run = former.directory.run;
                if let Err(error) = replay(&shared, &client, former).await {
                    tracing::error!(%run, %error, "usage: a former run is left alone");
                    passed.push(run);
                }
                continue;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "usage: cannot look for former runs"),
            Err(error) => tracing::error!(%error, "usage: cannot look for former runs"),
        }
        tokio::time::sleep(RESCAN).await;
    }
}

async fn replay(shared: &Arc<Shared>, client: &ControlClient, former: Former) -> io::Result<()> {
    let Former {
        directory,
        segments,
    } = former;
    tracing::info!(run = %directory.run, shards = segments.len(), "usage: sending what a former run left");
    let segments: BTreeMap<u32, Vec<(u64, PathBuf)>> = segments;
    for (shard, segments) in segments {
        let mut lane = Lane::former(shared, client, directory.run, shard, &directory.node);
        for (index, path) in segments {
            let place = Place {
                run: directory.run,
                shard,
                index,
            };
            let damaged = lane.former_segment(&path, place).await?;
            lane.done_with(path, damaged).await;
        }
    }
    spawn_blocking(move || directory.remove())
        .await
        .map_err(io::Error::other)
}

/// The way of one shard's records.
struct Lane {
    shared: Arc<Shared>,
    client: ControlClient,
    node: Arc<str>,
    run: RunId,
    shard: u32,
    /// Number of the next record to be sent.
    floor: u64,
    /// It is known that nothing was left out below.
    anchored: bool,
    /// Batches in a row that were not stored.
    failures: u32,
}

impl Lane {
    fn own(shared: &Arc<Shared>, client: &ControlClient, shard: &ShardWriter) -> Self {
        Self {
            anchored: true,
            ..Self::former(shared, client, shared.run, shard.number, &shared.node)
        }
    }

    fn former(
        shared: &Arc<Shared>,
        client: &ControlClient,
        run: RunId,
        shard: u32,
        node: &Arc<str>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            client: client.clone(),
            node: node.clone(),
            run,
            shard,
            floor: 0,
            anchored: false,
            failures: 0,
        }
    }

    /// Sends a former segment; whether it is damaged.
    async fn former_segment(&mut self, path: &Path, place: Place) -> io::Result<bool> {
        let opened = path.to_owned();
        let cursor = spawn_blocking(move || {
            let file = File::open(opened)?;
            let length = file.metadata()?.len().min(LARGEST);
            let mut cursor = Cursor::new(Arc::new(file), place);
            cursor.extend(length);
            let header = cursor.header()?;
            io::Result::Ok((cursor, header))
        });
        let (cursor, header) = match cursor.await.map_err(io::Error::other)? {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "usage: a segment cannot be opened");
                return Ok(true);
            }
        };
        // The header says nothing a record needs: run, shard and index stand in the path, the node's name in the lock.
        let sound = match header {
            Ok(header) => {
                let sound = header.place == place;
                if sound {
                    self.node = header.node;
                }
                sound
            }
            Err(NoHeader::Blank) => true,
            Err(NoHeader::Damaged) => false,
            Err(NoHeader::Version(version)) => {
                return Err(io::Error::other(format!(
                    "its segments have version {version}"
                )));
            }
        };
        if self.node.is_empty() && !sound {
            return Ok(true);
        }
        match self.ship(cursor, None).await {
            Ok(damaged) => Ok(damaged || !sound),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "usage: a segment cannot be read");
                Ok(true)
            }
        }
    }

    /// Sends a segment to its end; whether something in it could not be read. One of this run ends when it is sealed.
    async fn ship(
        &mut self,
        mut cursor: Cursor,
        live: Option<(&Arc<ShardWriter>, &Segment)>,
    ) -> io::Result<bool> {
        loop {
            // Asked first: once it is sealed, what is committed is all there is.
            let sealed = live.is_none_or(|(_, segment)| segment.sealed());
            if let Some((_, segment)) = live {
                cursor.extend(u64::try_from(segment.committed()).unwrap_or(0));
            }
            let mark = cursor.mark();
            let floor = self.floor;
            let read = spawn_blocking(move || {
                let portion = cursor.portion(MOST, floor);
                (cursor, portion)
            });
            let (back, portion) = read.await.map_err(io::Error::other)?;
            cursor = back;
            if let Some(portion) = portion? {
                let most = live.map_or(u64::MAX, |_| portion.end());
                let reached = (portion.end(), portion.closing);
                let stored = self.send(portion, most).await;
                if let (Some((shard, _)), Some(next)) = (live, stored) {
                    shard.acknowledge(next);
                }
                if stored.is_none_or(|next| next < reached.0) {
                    cursor.rewind(mark);
                    continue;
                }
                if reached.1 {
                    return Ok(cursor.damaged());
                }
            }
            if !cursor.at_end() {
                continue;
            }
            match live {
                Some((shard, _)) if !sealed => self.rest(shard).await,
                _ => return Ok(cursor.damaged()),
            }
        }
    }

    /// Waits for another record. In a long silence it says that the run is alive: one that fell silent without an end is reported as
    /// possibly incomplete.
    async fn rest(&mut self, shard: &ShardWriter) {
        let news = shard.news.notified();
        if tokio::time::timeout(self.shared.limits.sign_every, news)
            .await
            .is_err()
            && self.floor > 0
        {
            let nothing = Portion {
                first: self.floor,
                records: Vec::new(),
                closing: false,
            };
            self.send(nothing, u64::MAX).await;
        }
    }

    /// Sends a portion; the number the intake expects next, if that is a step forward. Otherwise some time has passed.
    async fn send(&mut self, portion: Portion, most: u64) -> Option<u64> {
        let (first, end) = (portion.first, portion.end());
        let empty = portion.records.is_empty();
        let batch = UsageBatch {
            node: self.node.clone(),
            run: self.run,
            shard: self.shard,
            first,
            records: portion.records,
            closing: portion.closing,
        };
        let refused = match self.client.ask(Question::Usage(batch), DEADLINE).await {
            Ok(Answer::Received(receipt)) => {
                let next = receipt.next;
                if next <= most && (next > first || next == first && empty) {
                    self.stored(first, next, end);
                    return Some(next);
                }
                format!("it expects {next}, {first} to {end} were sent")
            }
            Ok(Answer::Refused(reason)) => reason,
            Ok(_) => "it does not answer the question".to_owned(),
            Err(unavailable) => unavailable.to_string(),
        };
        self.fail(&refused).await;
        None
    }

    fn stored(&mut self, first: u64, next: u64, end: u64) {
        let state = &self.shared.state;
        if self.anchored && first > self.floor {
            let gap = first - self.floor;
            tracing::error!(run = %self.run, shard = self.shard, from = self.floor, to = first - 1, "usage: records are lost");
            JournalState::add(&state.gaps, gap);
        }
        let count = next.min(end).saturating_sub(first);
        JournalState::add(&state.shipped, count);
        if self.run != self.shared.run {
            JournalState::add(&state.replayed, count);
        }
        if self.failures > 0 {
            tracing::info!(run = %self.run, shard = self.shard, "usage: the intake stores records again");
        }
        self.failures = 0;
        self.anchored = true;
        self.floor = next.max(self.floor);
    }

    /// Waits before the next attempt.
    async fn fail(&mut self, reason: &str) {
        if self.failures == 0 {
            tracing::warn!(run = %self.run, shard = self.shard, reason, "usage: records wait for the intake");
        }
        JournalState::add(&self.shared.state.ship_failures, 1);
        let (first, longest) = BACKOFF;
        let wait = first
            .saturating_mul(1 << self.failures.min(16))
            .min(longest);
        self.failures = self.failures.saturating_add(1);
        let mut closing = self.shared.closing.subscribe();
        let hurry = *closing.borrow_and_update();
        let wait = jittered(if hurry { first } else { wait });
        // When the journal is closed there is little time left: try once more at once.
        let _ = tokio::time::timeout(wait, closing.changed()).await;
    }

    /// A segment was sent in full: it goes, or is kept aside.
    async fn done_with(&self, path: PathBuf, damaged: bool) {
        if damaged {
            JournalState::add(&self.shared.state.damaged, 1);
        }
        let done = spawn_blocking(move || {
            if damaged {
                set_aside(&path);
            } else if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "usage: cannot remove a segment");
            }
        });
        let _ = done.await;
    }
}

/// Between half of it and all of it, so that many nodes do not come back at once.
fn jittered(wait: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 512;
    wait / 2 + wait.saturating_mul(u32::try_from(random).unwrap_or(0)) / 1024
}
