//! Numbers for names: a segment spells a name once.
//!
//! Two tables, neither of which allocates once it is made. The near one knows a name by the address of its `Arc`, which it holds, so
//! that no other name can come to stand there; the far one knows it by its text, for names that come in ever new `Arc`s. When the far one
//! is full both forget, and names get new numbers: a number is never used twice in a segment.

use std::collections::HashMap;
use std::sync::Arc;

/// Names remembered by text.
const KNOWN: usize = 4096;

/// Names remembered by address; a power of two.
const NEAR: usize = 1024;

/// Numbers of one segment's names.
#[derive(Debug)]
pub(super) struct Names {
    near: Box<[Option<(Arc<str>, u32)>]>,
    known: HashMap<Arc<str>, u32>,
    next: u32,
}

/// The number of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// It was defined before.
    Known(u32),
    /// It has to be defined now.
    New(u32),
}

impl Default for Names {
    fn default() -> Self {
        Self {
            near: vec![None; NEAR].into_boxed_slice(),
            known: HashMap::with_capacity(KNOWN),
            next: 1,
        }
    }
}

impl Names {
    /// The number of a name; 0 is the empty one, which is never defined.
    #[inline]
    pub(super) fn number(&mut self, name: &Arc<str>) -> Number {
        if name.is_empty() {
            return Number::Known(0);
        }
        let slot = slot(name);
        if let Some(Some((held, number))) = self.near.get(slot)
            && Arc::ptr_eq(held, name)
        {
            return Number::Known(*number);
        }
        self.far(name, slot)
    }

    /// Forgets all, for a new segment.
    pub(super) fn restart(&mut self) {
        self.forget();
        self.next = 1;
    }

    fn far(&mut self, name: &Arc<str>, slot: usize) -> Number {
        let number = match self.known.get(&**name) {
            Some(number) => Number::Known(*number),
            None => {
                if self.known.len() >= KNOWN {
                    self.forget();
                }
                let number = self.next;
                self.next = self.next.wrapping_add(1);
                self.known.insert(name.clone(), number);
                Number::New(number)
            }
        };
        let (Number::Known(plain) | Number::New(plain)) = number;
        if let Some(near) = self.near.get_mut(slot) {
            *near = Some((name.clone(), plain));
        }
        number
    }

    /// Forgets all names and goes on counting: what has a number now gets another one.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.near.fill(None);
    }
}

/// Fibonacci hashing: addresses of allocations differ in their middle bits.
fn slot(name: &Arc<str>) -> usize {
    let address = Arc::as_ptr(name).addr();
    (address >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - NEAR.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_whatever_arc_it_comes_in() {
        let mut names = Names::default();
        let books: Arc<str> = "books".into();
        assert_eq!(names.number(&books), Number::New(1));
        assert_eq!(names.number(&books), Number::Known(1));
        assert_eq!(names.number(&"books".into()), Number::Known(1));
        assert_eq!(names.number(&"".into()), Number::Known(0));
        assert_eq!(names.number(&"films".into()), Number::New(2));
        names.restart();
        assert_eq!(names.number(&books), Number::New(1));
    }

    #[test]
    fn more_names_than_are_remembered_never_share_a_number() {
        let mut names = Names::default();
        let mut seen = std::collections::HashSet::new();
        for round in 0..3 * KNOWN {
            let Number::New(number) = names.number(&format!("name {round}").into()) else {
                panic!("a new name has no number yet");
            };
            assert!(seen.insert(number));
            assert!(names.known.len() <= KNOWN);
        }
        assert!(names.known.capacity() < 4 * KNOWN, "the table grew");
    }
}
