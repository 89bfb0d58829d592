//! A small table each worker has for itself, before a cache all workers share: what was found once is found again without a lock.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;

/// Slots. A worker talks to few callers at a time; the shared cache knows the rest.
const SLOTS: usize = 1024;

/// A direct-mapped table. What was put before the owner's epoch moved is not found again.
#[derive(Debug)]
pub(super) struct Near<K, V> {
    slots: Vec<Option<Slot<K, V>>>,
}

#[derive(Debug)]
struct Slot<K, V> {
    owner: usize,
    epoch: u64,
    key: K,
    value: V,
}

impl<K: Hash + Eq, V: Clone> Near<K, V> {
    /// An empty table. Its slots are made at first use.
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// What `owner` put under `key` in this epoch.
    pub(super) fn get(&self, owner: usize, epoch: u64, key: &K) -> Option<V> {
        let slot = self.slots.get(index_of(key))?.as_ref()?;
        let same = slot.epoch == epoch && slot.owner == owner && slot.key == *key;
        same.then(|| slot.value.clone())
    }

    /// Keeps `value`; another key of the same slot gives way.
    pub(super) fn put(&mut self, owner: usize, epoch: u64, key: K, value: V) {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        if let Some(place) = self.slots.get_mut(index_of(&key)) {
            *place = Some(Slot {
                owner,
                epoch,
                key,
                value,
            });
        }
    }
}

fn index_of<K: Hash>(key: &K) -> usize {
    // Keyed, so that nobody can choose credentials that push each other out.
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    let hash = HASHER.get_or_init(RandomState::new).hash_one(key);
    usize::try_from(hash).unwrap_or(0) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_and_another_owner_find_nothing() {
        let mut near = Near::new();
        assert_eq!(near.get(1, 1, &"a"), None);
        near.put(1, 1, "a", 7);
        assert_eq!(near.get(1, 1, &"a"), Some(7));
        assert_eq!(near.get(1, 2, &"a"), None);
        assert_eq!(near.get(2, 1, &"a"), None);
        assert_eq!(near.get(1, 1, &"b"), None);
    }
}
