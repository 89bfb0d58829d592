//! A mapping in document order whose keys are unique and found quickly.
//!
//! Most maps of a description have three entries and a few have thousands: small ones are searched, large ones indexed.

use std::collections::HashMap;

use super::Node;

/// Entries from which on an index is kept; below, comparing is faster than hashing.
const INDEXED_FROM: usize = 16;

/// A mapping in document order, with keys as text (integer keys of YAML become their text). Keys are unique.
#[derive(Clone, Debug, Default)]
pub struct Map {
    entries: Vec<Entry>,
    /// Position by key; none while the map is small.
    #[allow(
        clippy::box_collection,
        reason = "every value of a tree is as large as a map, and few are indexed"
    )]
    index: Option<Box<HashMap<Box<str>, usize>>>,
}

/// One key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key as text.
    pub key: Box<str>,
    /// Line of the key, from 1.
    pub line: u32,
    /// Column of the key, from 1.
    pub column: u32,
    /// The value.
    pub node: Node,
}

impl Map {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The entry of `key`, with the key's own position.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.index {
            Some(index) => self.entries.get(*index.get(key)?),
            None => self.entries.iter().find(|entry| &*entry.key == key),
        }
    }

    /// All entries in document order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// All entries in document order, given away.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// The key is there already: its first line, and the map is unchanged.
    pub fn push(&mut self, entry: Entry) -> Result<(), u32> {
        if let Some(first) = self.entry(&entry.key) {
            return Err(first.line);
        }
        if let Some(index) = &mut self.index {
            index.insert(entry.key.clone(), self.entries.len());
        }
        self.entries.push(entry);
        if self.index.is_none() && self.entries.len() >= INDEXED_FROM {
            let keys = self.entries.iter().map(|entry| entry.key.clone());
            self.index = Some(Box::new(keys.zip(0..).collect()));
        }
        Ok(())
    }
}
