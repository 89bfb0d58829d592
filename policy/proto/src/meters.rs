//! Cost units by name: what one call, or one sum of calls, came to on each meter.
//!
//! Promises: a name stands once, none has nothing, and whatever is added, there are never more than [`Meters::MOST`] names of a
//! publisher's choice: nothing that is added is lost, and no file makes a record grow without end.

use std::sync::{Arc, LazyLock};

use smallvec::SmallVec;
use tollgate_policy::quota::{LONGEST_METER, METERS_PER_CALL, UNNAMED_METER};

/// The name of cost units that have no other, shared by all that is read.
static UNNAMED: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(Meters::UNNAMED));

/// Cost units by name, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meters(SmallVec<[(Arc<str>, u64); 2]>);

impl Meters {
    /// The name of cost units for which their publisher chose none, and of those that were recorded without a name.
    pub const UNNAMED: &str = UNNAMED_METER;

    /// Names beside [`Self::UNNAMED`]. As many as settings let a call have.
    pub const MOST: usize = METERS_PER_CALL;

    /// Bytes of a name. As long as settings let it be.
    pub const LONGEST_NAME: usize = LONGEST_METER;

    /// Adds to a meter; sums stop at the largest number. What has too long a name, none, or one too many, counts as
    /// [`Self::UNNAMED`]. Settings are refused before it comes to that.
    pub fn add(&mut self, name: &Arc<str>, amount: u64) {
        if amount == 0 {
            return;
        }
        match self.0.binary_search_by(|(held, _)| (**held).cmp(name)) {
            Ok(at) => {
                if let Some((_, sum)) = self.0.get_mut(at) {
                    *sum = sum.saturating_add(amount);
                }
            }
            Err(at) if is_unnamed(name) || self.has_room_for(name) => {
                self.0.insert(at, (Arc::clone(name), amount));
            }
            Err(_) => self.add(&UNNAMED, amount),
        }
    }

    /// Adds to the meter without a name of its own.
    pub fn add_unnamed(&mut self, amount: u64) {
        self.add(&UNNAMED, amount);
    }

    /// Each name with its amount.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// Those but [`Self::UNNAMED`].
    pub fn named(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.iter().filter(|(name, _)| !is_unnamed(name))
    }

    /// What is on [`Self::UNNAMED`].
    pub fn unnamed(&self) -> u64 {
        let mut all = self.iter();
        all.find(|(name, _)| is_unnamed(name))
            .map_or(0, |(_, amount)| amount)
    }

    /// All together, as if all names meant the same.
    pub fn total(&self) -> u64 {
        self.iter()
            .fold(0, |sum: u64, (_, amount)| sum.saturating_add(amount))
    }

    fn has_room_for(&self, name: &str) -> bool {
        (1..=Self::LONGEST_NAME).contains(&name.len()) && self.named().count() < Self::MOST
    }
}

/// So many units without a name.
impl From<u64> for Meters {
    fn from(amount: u64) -> Self {
        let mut meters = Self::default();
        meters.add_unnamed(amount);
        meters
    }
}

/// Adds up what is said, in whatever order, however often.
impl<'n> FromIterator<(&'n Arc<str>, u64)> for Meters {
    fn from_iter<I: IntoIterator<Item = (&'n Arc<str>, u64)>>(said: I) -> Self {
        let mut meters = Self::default();
        for (name, amount) in said {
            meters.add(name, amount);
        }
        meters
    }
}

fn is_unnamed(name: &str) -> bool {
    name == Meters::UNNAMED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(meters: &Meters) -> String {
        let pairs = meters
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_name_has_a_sum_of_its_own() {
        let mut meters = Meters::from(3);
        for (name, amount) in [("tokens", 5), ("pages", 2), ("tokens", 7), ("none", 0)] {
            meters.add(&name.into(), amount);
        }
        assert_eq!(shown(&meters), "pages=2 tokens=12 units=3");
        assert_eq!((meters.unnamed(), meters.total()), (3, 17));
        assert_eq!(meters.named().count(), 2);
        meters.add(&"tokens".into(), u64::MAX);
        assert_eq!(meters.total(), u64::MAX);
    }

    #[test]
    fn what_has_no_fitting_name_or_one_too_many_is_kept_without_one() {
        let mut meters = Meters::default();
        for n in 0..40 {
            meters.add(&format!("meter{n:02}").into(), 1);
        }
        assert_eq!(meters.named().count(), Meters::MOST);
        assert_eq!((meters.unnamed(), meters.total()), (24, 40));
        for name in [String::new(), "m".repeat(64)] {
            let mut meters = Meters::default();
            meters.add(&name.into(), 2);
            assert_eq!(shown(&meters), "units=2");
        }
        let mut longest = Meters::default();
        longest.add(&"m".repeat(63).into(), 2);
        assert_eq!(longest.named().count(), 1);
    }
}
