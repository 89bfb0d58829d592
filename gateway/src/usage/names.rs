//! Numbers for names: a segment spells a name once.
//!
//! Two tables, neither of which allocates once it is made. The near one knows a name by the address of its `Arc`, which it holds, so
//! that no other name can come to stand there; the far one knows it by its text, for names that come in ever new `Arc`s. Both tell plans
//! of one name apart by their currencies. When the far one is full both forget, and names get new numbers: a number is never used twice in a segment.

use std::collections::HashMap;
use std::sync::Arc;

use super::frame::Name;

/// Names remembered by text.
const KNOWN: usize = 4096;

/// Names remembered by address; a power of two.
const SLOTS: usize = 1024;

/// Numbers of one segment's names.
#[derive(Debug)]
pub(super) struct Names {
    near: Box<[Option<Near>]>,
    known: HashMap<Text, u32>,
    next: u32,
}

/// A name, and of a plan its currency.
type Text = (Arc<str>, Option<Arc<str>>);

/// A name at the address it was seen at, and its number.
type Near = (Text, u32);

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
            near: vec![None; SLOTS].into_boxed_slice(),
            known: HashMap::with_capacity(KNOWN),
            next: 1,
        }
    }
}

impl Names {
    /// The number of a name; 0 is the empty one, which is never defined.
    #[inline]
    pub(super) fn number(&mut self, name: Name<'_>) -> Number {
        if name.is_empty() {
            return Number::Known(0);
        }
        let slot = slot(name.text);
        if let Some(Some((held, number))) = self.near.get(slot)
            && is_at(held, name)
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

    fn far(&mut self, name: Name<'_>, slot: usize) -> Number {
        let text = (Arc::clone(name.text), name.currency.cloned());
        let number = match self.known.get(&text) {
            Some(number) => Number::Known(*number),
            None => {
                if self.known.len() >= KNOWN {
                    self.forget();
                }
                let number = self.next;
                self.next = self.next.wrapping_add(1);
                self.known.insert(text.clone(), number);
                Number::New(number)
            }
        };
        let (Number::Known(plain) | Number::New(plain)) = number;
        if let Some(near) = self.near.get_mut(slot) {
            *near = Some((text, plain));
        }
        number
    }

    /// Forgets all names and goes on counting: what has a number now gets another one.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.near.fill(None);
    }
}

/// Whether it is the name that is held, at the same address.
#[inline]
fn is_at((text, currency): &Text, name: Name<'_>) -> bool {
    let same = match (currency, name.currency) {
        (None, None) => true,
        (Some(held), Some(asked)) => Arc::ptr_eq(held, asked),
        (Some(_), None) | (None, Some(_)) => false,
    };
    same && Arc::ptr_eq(text, name.text)
}

/// Fibonacci hashing: addresses of allocations differ in their middle bits.
fn slot(name: &Arc<str>) -> usize {
    let address = Arc::as_ptr(name).addr();
    (address >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (usize::BITS - SLOTS.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_whatever_arc_it_comes_in() {
        let mut names = Names::default();
        let books: Arc<str> = "books".into();
        assert_eq!(number(&mut names, &books), Number::New(1));
        assert_eq!(number(&mut names, &books), Number::Known(1));
        assert_eq!(number(&mut names, &"books".into()), Number::Known(1));
        assert_eq!(number(&mut names, &"".into()), Number::Known(0));
        assert_eq!(number(&mut names, &"films".into()), Number::New(2));
        names.restart();
        assert_eq!(number(&mut names, &books), Number::New(1));
    }

    fn number(names: &mut Names, text: &Arc<str>) -> Number {
        names.number(Name {
            text,
            currency: None,
        })
    }

    #[test]
    fn a_plan_has_a_number_for_each_of_its_currencies() {
        let mut names = Names::default();
        let (gold, none): (Arc<str>, Arc<str>) = ("gold".into(), "".into());
        let (euro, franc): (Arc<str>, Arc<str>) = ("EUR".into(), "CHF".into());
        let mut priced = |text: &Arc<str>, currency: &Arc<str>| {
            names.number(Name {
                text,
                currency: Some(currency),
            })
        };
        assert_eq!(priced(&gold, &euro), Number::New(1));
        assert_eq!(priced(&gold, &franc), Number::New(2));
        assert_eq!(priced(&gold, &"EUR".into()), Number::Known(1));
        assert_eq!(priced(&none, &euro), Number::New(3));
        assert_eq!(number(&mut names, &gold), Number::New(4));
    }

    #[test]
    fn more_names_than_are_remembered_never_share_a_number() {
        let mut names = Names::default();
        let mut seen = std::collections::HashSet::new();
        for round in 0..3 * KNOWN {
            let Number::New(number) = number(&mut names, &format!("name {round}").into()) else {
                panic!("a new name has no number yet");
            };
            assert!(seen.insert(number));
            assert!(names.known.len() <= KNOWN);
        }
        assert!(names.known.capacity() < 4 * KNOWN, "the table grew");
    }
}
