//! A change under way: through the store, then into memory, then told to whoever listens.
//!
//! Promises: one at a time; what was not committed did not happen; what was is seen in memory before it is announced. Not here: what may
//! be changed by whom (`http`).

use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use tokio::sync::{MutexGuard, broadcast};
use tollgate_proto::Announcement;

use crate::audit::{self, Entry, Head};
use crate::control::{Control, Inner};
use crate::index::{Edit, Effects, Index};
use crate::refusal::Refusal;
use crate::store::{Connection, Transaction, next_generation};

/// A change under way. Dropped without [`Change::commit`], nothing has happened.
pub(crate) struct Change<'a> {
    inner: &'a Inner,
    head: MutexGuard<'a, Head>,
    transaction: Transaction,
    edits: Vec<Edit>,
    entries: Vec<Entry>,
}

impl Control {
    /// Begins a change; others wait until it is committed or dropped.
    pub(crate) async fn begin(&self) -> Result<Change<'_>, Refusal> {
        let head = self.inner.writer.lock().await;
        let transaction = self.store()?.begin().await?;
        Ok(Change {
            inner: &self.inner,
            head,
            transaction,
            edits: Vec::new(),
            entries: Vec::new(),
        })
    }

    /// Adds to the audit log what changes nothing else.
    pub(crate) async fn note(&self, entry: Entry) -> Result<(), Refusal> {
        let mut change = self.begin().await?;
        change.note(entry);
        change.commit().await
    }
}

impl Change<'_> {
    /// The store, within this change.
    pub(crate) fn on(&mut self) -> &mut Connection {
        &mut self.transaction
    }

    /// What changes in memory once it is committed.
    pub(crate) fn edit(&mut self, edit: Edit) {
        self.edits.push(edit);
    }

    /// What the audit log says of it.
    pub(crate) fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Commits, then changes the memory, then announces.
    pub(crate) async fn commit(mut self) -> Result<(), Refusal> {
        // During a hand-over another process writes too. A log that became shorter is not believed: its gap shall show.
        let stored = Head::stored(&mut self.transaction).await?;
        let last = match stored.seq > self.head.seq {
            true => &stored,
            false => &*self.head,
        };
        let head = audit::append(&mut self.transaction, last, &self.entries).await?;
        let counted = match self.edits.is_empty() {
            true => None,
            false => Some(next_generation(&mut self.transaction).await?),
        };
        self.transaction.commit().await?;
        if let Some(counted) = counted {
            // Only where nobody else counted in between: else what they changed is still to be read.
            let before = counted.saturating_sub(1);
            let seen = &self.inner.seen;
            let _others =
                seen.compare_exchange(before, counted, Ordering::AcqRel, Ordering::Acquire);
        }
        // From here on nothing waits until memory and store agree again.
        *self.head = head;
        if !self.edits.is_empty() {
            let (generation, effects) = apply(&self.inner.index, self.edits);
            announce(&self.inner.announcements, generation, effects);
            self.inner.overrides_changed.notify_one();
        }
        self.head.keep(&self.inner.state_dir).await;
        Ok(())
    }
}

fn apply(index: &RwLock<Index>, edits: Vec<Edit>) -> (u64, Effects) {
    let mut effects = Effects::default();
    let mut index = index.write();
    for edit in edits {
        index.apply(edit, &mut effects);
    }
    index.generation += 1;
    (index.generation, effects)
}

/// What restricts goes first.
pub(crate) fn announce(to: &broadcast::Sender<Announcement>, generation: u64, effects: Effects) {
    // Sending fails only when nobody listens.
    if !effects.revoked.is_empty() {
        let what = effects.revoked.into();
        let _ = to.send(Announcement::Revoked { generation, what });
    }
    if effects.everything {
        let _ = to.send(Announcement::Everything { generation });
    } else if !effects.consumers.is_empty() {
        let consumers = effects.consumers.into();
        let _ = to.send(Announcement::Changed {
            generation,
            consumers,
        });
    }
}
