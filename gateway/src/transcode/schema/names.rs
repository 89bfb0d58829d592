//! From a name to an index, in one probe.
//!
//! The names come from a definition, so nobody can choose them to collide; a caller only asks.

/// An open hash table of indexes; the names themselves lie with their owner.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    /// The upper half is of the hash, the lower the index and one; 0 is free.
    slots: Box<[u64]>,
}

impl NameTable {
    /// Of names and what they stand for. The first of equal names wins.
    pub(super) fn of<'n>(names: impl Iterator<Item = (&'n str, u32)> + Clone) -> Self {
        let size = (names.clone().count() * 2).next_power_of_two();
        let mut table = Self {
            slots: vec![0; size].into_boxed_slice(),
        };
        for (name, index) in names {
            table.insert(hash(name.as_bytes()), index);
        }
        table
    }

    fn insert(&mut self, hash: u64, index: u32) {
        let mask = self.slots.len().wrapping_sub(1);
        let entry = (hash & HASH_HALF) | (u64::from(index) + 1);
        let mut at = hash as usize & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == 0 {
                *slot = entry;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// The index whose name `is` the one asked for. Names that differ in case only are tried one after the other.
    #[inline]
    pub(crate) fn find(&self, name: &str, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash(name.as_bytes());
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == 0 {
                return None;
            }
            let index = (slot as u32).wrapping_sub(1);
            if (slot ^ hash) & HASH_HALF == 0 && is(index) {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }
}

const HASH_HALF: u64 = 0xffff_ffff_0000_0000;

/// Blind to the case of ASCII letters, so that one table serves both ways to read enum names.
#[inline]
fn hash(name: &[u8]) -> u64 {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = name.len() as u64;
    let mut mix = |word: u64| {
        let product = u128::from(hash ^ (word | FOLD)) * u128::from(PRIME);
        hash = (product as u64) ^ ((product >> 64) as u64);
    };
    let mut rest = name;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        mix(u64::from_le_bytes(*word));
        rest = after;
    }
    mix(rest
        .iter()
        .fold(0, |word, &byte| word << 8 | u64::from(byte)));
    hash ^ hash << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let names: Vec<String> = (0..1000).map(|n| format!("some_field_{n}")).collect();
        let numbered = names.iter().map(String::as_str).zip(0..);
        let table = NameTable::of(numbered);
        let find = |name: &str| {
            table.find(name, |index| {
                names.get(index as usize).is_some_and(|n| n == name)
            })
        };
        for (name, index) in names.iter().zip(0..) {
            assert_eq!(find(name), Some(index));
        }
        assert_eq!(find("some_field_1000"), None);
        assert_eq!(find(""), None);
        assert_eq!(NameTable::default().find("a", |_| true), None);
    }

    #[test]
    fn names_in_another_case_are_candidates() {
        let table = NameTable::of([("STATUS_ACTIVE", 4)].into_iter());
        assert_eq!(table.find("Status_active", |index| index == 4), Some(4));
        assert_eq!(table.find("Status_active", |_| false), None);
    }
}
