//! The pen of one worker: writes a record into mapped memory and returns its number.
//!
//! Once [`ShardWriter::append`] has returned a number, the record survives the death of the process. In the ordinary case it takes one
//! lock nobody else wants, allocates nothing and enters the kernel never; once per segment it takes the one that was prepared.
//! Not here: making segments and syncing (`keeper.rs`), sending (`shipper.rs`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tollgate_proto::UsageRecord;

use super::Shared;
use super::frame::{Frame, HEADER, Header, NAMES_PER_RECORD, Place, WORD, names};
use super::limits::OnFull;
use super::map::Pen;
use super::names::{Names, Number};
use super::segment::{Segment, Spare};
use super::state::{JournalState, Room};

/// There is no room for the record; it was counted as unmetered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room to record usage")]
pub struct Full;

/// The disk did not confirm a record in time. It is written, and may still be lost in a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk did not confirm in time")]
pub struct NotSynced;

/// Writes the records of one worker.
#[derive(Debug)]
pub struct ShardWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u32,
    active: Mutex<Active>,
    spare: Mutex<Option<Spare>>,
    /// Segments made so far.
    pub(super) made: AtomicU64,
    /// Number of the next record.
    appended: AtomicU64,
    /// Everything below is stored by the intake.
    acked: AtomicU64,
    /// Everything below survives a power cut.
    synced: watch::Sender<u64>,
    room: AtomicU8,
    /// Segments that are not on disk in full, oldest first.
    pub(super) unsynced: Mutex<Vec<Arc<Segment>>>,
    /// Segments that are not with the intake in full, oldest first.
    pub(super) unshipped: Mutex<VecDeque<Arc<Segment>>>,
    /// There may be something to ship.
    pub(super) news: Notify,
    /// Nothing will be appended.
    closed: AtomicBool,
}

/// What the lock guards.
#[derive(Debug)]
struct Active {
    page: Option<Page>,
    next: u64,
    names: Names,
    frame: Frame,
}

/// The segment being written.
#[derive(Debug)]
struct Page {
    segment: Arc<Segment>,
    pen: Pen,
    seed: u32,
    at: usize,
    /// From here on the rest is for calls in flight, unless another segment is ready.
    reserve: usize,
}

impl ShardWriter {
    pub(super) fn new(shared: Arc<Shared>, number: u32) -> Self {
        Self {
            shared,
            number,
            active: Mutex::new(Active {
                page: None,
                next: 0,
                names: Names::default(),
                frame: Frame::default(),
            }),
            spare: Mutex::new(None),
            made: AtomicU64::new(0),
            appended: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            synced: watch::Sender::new(0),
            room: AtomicU8::new(Room::Full.code()),
            unsynced: Mutex::new(Vec::with_capacity(4)),
            unshipped: Mutex::new(VecDeque::with_capacity(64)),
            news: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Writes a record and returns its number. From then on it survives the death of the process.
    ///
    /// # Errors
    /// [`Full`]: there is no room, or the journal was closed. The record is counted as unmetered.
    pub fn append(&self, record: &UsageRecord) -> Result<u64, Full> {
        let mut active = self.active.lock();
        if !self.write(&mut active, |active| active.put_record(record)) {
            drop(active);
            self.unmetered();
            return Err(Full);
        }
        let sequence = active.next;
        active.next = sequence + 1;
        self.publish(&active);
        drop(active);
        self.shared.rouse();
        Ok(sequence)
    }

    /// Counts a call that was served without a record, because the operator prefers that to refusing it.
    pub fn unmetered(&self) {
        JournalState::add(&self.shared.state.unmetered, 1);
    }

    /// Whether another call can be recorded by this worker. One atomic load.
    #[inline]
    pub fn room(&self) -> Room {
        Room::from_code(self.room.load(Ordering::Relaxed))
    }

    /// Whether a billable call may begin: there is room, or the operator serves unmetered.
    #[inline]
    pub fn admits(&self) -> bool {
        self.room() != Room::Full || self.shared.limits.on_full == OnFull::ServeUnmetered
    }

    /// Waits until the record with this number survives a power cut, or is stored by the intake. Records that wait at the same time
    /// share one write to the disk.
    ///
    /// # Errors
    /// [`NotSynced`] after [`super::UsageLimits::sync_wait`].
    pub fn synced(
        &self,
        sequence: u64,
    ) -> impl Future<Output = Result<(), NotSynced>> + Send + 'static + use<> {
        let mut synced = self.synced.subscribe();
        let wait = self.shared.limits.sync_wait;
        let shared = self.shared.clone();
        async move {
            if *synced.borrow() > sequence {
                return Ok(());
            }
            shared.wake();
            match tokio::time::timeout(wait, synced.wait_for(|next| *next > sequence)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(NotSynced),
            }
        }
    }

    /// Numbers for metrics.
    pub fn state(&self) -> Arc<JournalState> {
        Arc::clone(&self.shared.state)
    }

    /// Number of the next record.
    pub(super) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Everything below is stored by the intake.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// The intake has stored everything below `next`: it is as safe as on the disk here.
    pub(super) fn acknowledge(&self, next: u64) {
        self.acked.fetch_max(next, Ordering::AcqRel);
        self.advance_synced(next);
    }

    /// Everything below `next` survives a power cut.
    pub(super) fn advance_synced(&self, next: u64) {
        self.synced.send_if_modified(|synced| {
            let later = next > *synced;
            *synced = next.max(*synced);
            later
        });
    }

    /// Nothing will be appended.
    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Another segment is needed ahead of need.
    pub(super) fn wants_spare(&self) -> bool {
        !self.closed() && self.spare.lock().is_none()
    }

    /// Another segment, for when this one is full.
    pub(super) fn supply(&self, spare: Spare) {
        let mut place = self.spare.lock();
        // Closed while it was made: nobody will need it.
        if self.closed() {
            spare.segment.remove();
        } else {
            *place = Some(spare);
        }
    }

    /// Looks again how much room there is; `near`: the bound on all segments is.
    pub(super) fn survey(&self, near: bool) -> Room {
        let active = self.active.lock();
        let ready = self.spare.lock().is_some();
        let reserved = active
            .page
            .as_ref()
            .is_none_or(|page| page.at > page.reserve);
        let room = match (ready, reserved) {
            (true, _) if !near => Room::Free,
            (false, true) => Room::Full,
            (true, _) | (false, false) => Room::Low,
        };
        self.room.store(room.code(), Ordering::Relaxed);
        room
    }

    /// Writes that no record follows, and takes no more.
    pub(super) fn close(&self) {
        let mut active = self.active.lock();
        // A shard without records leaves nothing whose end could be in doubt.
        if !self.closed() && active.next > 0 {
            self.write(&mut active, |active| {
                active.frame.closing(active.next);
                active.put_frame()
            });
            self.publish(&active);
        }
        self.closed.store(true, Ordering::Release);
        if let Some(page) = active.page.take() {
            page.segment.seal(active.next);
        }
        if let Some(spare) = self.spare.lock().take() {
            spare.segment.remove();
        }
        self.room.store(Room::Full.code(), Ordering::Relaxed);
        self.news.notify_one();
    }

    /// Writes with `put`; where that does not fit, into a new segment.
    fn write(&self, active: &mut Active, put: impl Fn(&mut Active) -> bool) -> bool {
        if self.closed() {
            return false;
        }
        // On a segment the disk refused, write on only if there is no other: it still survives the process.
        if active
            .page
            .as_ref()
            .is_some_and(|page| page.segment.broken())
        {
            self.turn(active);
        }
        put(active) || (self.turn(active) && put(active))
    }

    /// Takes the segment that was prepared; `false`: there is none.
    fn turn(&self, active: &mut Active) -> bool {
        let Some(Spare { segment, mut pen }) = self.spare.lock().take() else {
            return false;
        };
        let header = Header {
            node: self.shared.node.clone(),
            place: segment.place,
            first: active.next,
        };
        let header = header.encode();
        // Its first word last: a death in between leaves a segment that was never begun, not a damaged one.
        if let Some((word, rest)) = header.split_first_chunk::<WORD>() {
            pen.write(WORD, rest);
            pen.commit(0, u64::from_le_bytes(*word));
        }
        segment.commit(HEADER);
        let reserve = usize::try_from(self.shared.limits.reserve_bytes).unwrap_or(0);
        let page = Page {
            seed: segment.place.seed(),
            at: HEADER,
            reserve: pen.length().saturating_sub(reserve),
            segment: segment.clone(),
            pen,
        };
        if let Some(full) = active.page.replace(page) {
            full.segment.seal(active.next);
        }
        active.names.restart();
        self.unsynced.lock().push(segment.clone());
        self.unshipped.lock().push_back(segment);
        self.room.store(Room::Low.code(), Ordering::Relaxed);
        // Another one is wanted ahead of need.
        self.shared.wake();
        true
    }

    /// Lets the others see what was written, and notices when only the reserve is left.
    #[inline]
    fn publish(&self, active: &Active) {
        if let Some(page) = &active.page {
            page.segment.commit(page.at);
            if page.at > page.reserve && self.spare.lock().is_none() {
                self.room.store(Room::Full.code(), Ordering::Relaxed);
                self.shared.raise(Room::Full);
            }
        }
        self.appended.store(active.next, Ordering::Release);
    }

    /// The place of the next segment.
    pub(super) fn next_place(&self) -> Place {
        Place {
            run: self.shared.run,
            shard: self.number,
            index: self.made.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Active {
    /// Definitions of names that are new here, then the record. `false`: it does not fit.
    fn put_record(&mut self, record: &UsageRecord) -> bool {
        let mut numbers = [0; NAMES_PER_RECORD];
        for (number, name) in numbers.iter_mut().zip(names(record)) {
            *number = match self.names.number(name) {
                Number::Known(number) => number,
                Number::New(number) => {
                    self.frame.name(number, name);
                    if !self.put_frame() {
                        // It has a number by now that nothing defines; a later record must not use it.
                        self.names.forget();
                        return false;
                    }
                    number
                }
            };
        }
        self.frame.record(self.next, record, &numbers);
        self.put_frame()
    }

    fn put_frame(&mut self) -> bool {
        let Some(page) = &mut self.page else {
            return false;
        };
        let end = page.at + self.frame.size();
        let Ok(offset) = u32::try_from(page.at) else {
            return false;
        };
        if end > page.pen.length() {
            return false;
        }
        let word = self.frame.word(offset, page.seed);
        let written =
            page.pen.write(page.at + WORD, self.frame.body()) && page.pen.commit(page.at, word);
        if written {
            page.at = end;
        }
        written
    }
}
