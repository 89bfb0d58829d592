//! Overrides in memory: those of files and of the store, until they expire.
//!
//! Promises: a limit of a consumer is overridden once, by a file before the store; what expired is forgotten and the consumer made
//! anew. The time comes in as a value. Not here: what becomes of a limit under an override.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_policy::directory::Defined;
use tollgate_policy::settings::Override;
use tollgate_policy::time::Timestamp;

use super::{Effects, Index};

/// Overrides by consumer.
pub(super) type Overrides = HashMap<Arc<str>, Vec<Override>>;

impl Index {
    /// A consumer's overrides that are in force, by limit.
    pub(crate) fn overrides(&self, consumer: &str) -> &[Override] {
        self.overrides.get(consumer).map_or(&[], Vec::as_slice)
    }

    /// Takes over an override in place of another of the same limit, unless that one comes from a file.
    pub(super) fn put_override(&mut self, consumer: &Arc<str>, found: Override) {
        let held = self.overrides.entry(Arc::clone(consumer)).or_default();
        match held.iter_mut().find(|other| other.limit == found.limit) {
            Some(other) if other.origin != Defined::Store && found.origin == Defined::Store => {
                self.remarks.push(format!(
                    "the override of {} for consumer {consumer} is in the store and in a file; the file counts",
                    found.limit
                ));
            }
            Some(other) => *other = found,
            None => {
                held.push(found);
                held.sort_by(|one, other| one.limit.cmp(&other.limit));
            }
        }
    }

    pub(super) fn drop_override(&mut self, consumer: &str, limit: &str) {
        if let Some(held) = self.overrides.get_mut(consumer) {
            held.retain(|it| *it.limit != *limit);
        }
    }

    /// When the next override expires.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        let all = self.overrides.values().flatten();
        all.filter_map(|it| it.expires).min()
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now: Timestamp, effects: &mut Effects) {
        let over = |it: &Override| it.expires.is_some_and(|at| at <= now);
        let mut concerned = Vec::new();
        self.overrides.retain(|consumer, held| {
            let before = held.len();
            held.retain(|it| !over(it));
            if held.len() < before {
                concerned.push(Arc::clone(consumer));
            }
            !held.is_empty()
        });
        for consumer in concerned {
            self.touch(consumer, effects);
        }
    }
}
