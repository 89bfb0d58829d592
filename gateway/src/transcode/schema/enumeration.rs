//! Enums and their values as tables.

use std::collections::HashSet;
use std::sync::Arc;

use super::names::NameTable;

/// An enum of a [`Schema`](super::Schema).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnumId(pub(super) u32);

/// An enum.
#[derive(Debug)]
pub struct Enum {
    /// With its package, as `shop.v1.Status`.
    pub name: Box<str>,
    /// The path of the `.proto` file.
    pub file: Arc<str>,
    /// In the order of the definition; the first is the default.
    pub values: Box<[EnumValue]>,
    /// Numbers without a name are kept.
    pub is_open: bool,
    /// What the definition says about it.
    pub comment: Option<Box<str>>,
    /// `google.protobuf.NullValue`, which is `null` in JSON.
    pub(crate) is_null: bool,
    /// Of names, and of names without prefix (as `values.len() + place`).
    names: NameTable,
    /// By number; of aliases the first.
    numbers: Box<[(i32, u32)]>,
}

/// A value of an enum.
#[derive(Debug)]
pub struct EnumValue {
    /// As in the definition.
    pub name: Box<str>,
    /// On the wire.
    pub number: i32,
    /// What the definition says about it.
    pub comment: Option<Box<str>>,
    /// Where the name goes on after the name of the enum; 0 if it does not begin with that.
    stripped_at: usize,
}

impl EnumValue {
    /// The name without that of the enum before it: `ACTIVE` of `STATUS_ACTIVE`. As it is where it has no such prefix, and where
    /// what is left would be no name.
    pub fn stripped(&self) -> &str {
        self.name.get(self.stripped_at..).unwrap_or(&self.name)
    }
}

impl Enum {
    pub(super) fn new(
        name: String,
        file: Arc<str>,
        values: Vec<(Box<str>, i32, Option<Box<str>>)>,
        is_open: bool,
        comment: Option<Box<str>>,
    ) -> Self {
        let prefix = prefix_of(name.rsplit('.').next().unwrap_or_default());
        // Where `ACTIVE` and `STATUS_ACTIVE` are two values, neither loses its prefix to become the other.
        let taken: HashSet<Box<str>> = values.iter().map(|(name, ..)| name.clone()).collect();
        let value = |(name, number, comment): (Box<str>, i32, Option<Box<str>>)| EnumValue {
            stripped_at: stripped_at(&name, &prefix, &taken),
            name,
            number,
            comment,
        };
        let values: Box<[EnumValue]> = values.into_iter().map(value).collect();
        let whole = values.iter().map(|value| &*value.name);
        let stripped = values.iter().map(EnumValue::stripped);
        let names = NameTable::of(whole.chain(stripped).zip(0..));
        let mut numbers: Vec<_> = values.iter().map(|value| value.number).zip(0..).collect();
        numbers.sort_unstable();
        numbers.dedup_by_key(|(number, _)| *number);
        Self {
            is_null: name == "google.protobuf.NullValue",
            name: name.into(),
            file,
            values,
            is_open,
            comment,
            names,
            numbers: numbers.into_boxed_slice(),
        }
    }

    /// The value of a number; of aliases the first.
    #[inline]
    pub fn by_number(&self, number: i32) -> Option<&EnumValue> {
        let at = self
            .numbers
            .binary_search_by_key(&number, |(number, _)| *number);
        let (_, place) = self.numbers.get(at.ok()?)?;
        self.values.get(*place as usize)
    }

    /// The value of a name; also of a `stripped` one, also in `any_case`.
    #[inline]
    pub fn by_name(&self, name: &str, stripped: bool, any_case: bool) -> Option<&EnumValue> {
        let count = self.values.len();
        let candidate = |index: u32| match self.values.get(index as usize) {
            Some(value) => Some((value, &*value.name)),
            None if stripped => {
                let value = self.values.get((index as usize).checked_sub(count)?)?;
                Some((value, value.stripped()))
            }
            None => None,
        };
        let exact = |index| candidate(index).is_some_and(|(_, known)| known == name);
        let alike =
            |index| candidate(index).is_some_and(|(_, known)| known.eq_ignore_ascii_case(name));
        let mut found = self.names.find(name, exact);
        if found.is_none() && any_case {
            found = self.names.find(name, alike);
        }
        candidate(found?).map(|(value, _)| value)
    }

    /// The number of a field that is not set.
    pub fn default_number(&self) -> i32 {
        self.values.first().map_or(0, |value| value.number)
    }
}

/// `BookStatus` as its values begin by convention: `BOOK_STATUS_`.
fn prefix_of(name: &str) -> String {
    let mut prefix = String::with_capacity(name.len() + 4);
    let mut before = '_';
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        let word_ends = before.is_ascii_lowercase()
            || before.is_ascii_digit()
            || letters.peek().is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && before != '_' && word_ends {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
        before = letter;
    }
    prefix.push('_');
    prefix
}

fn stripped_at(name: &str, prefix: &str, taken: &HashSet<Box<str>>) -> usize {
    let is_name = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_alphabetic());
    let rest = name.strip_prefix(prefix).filter(is_name);
    match rest.filter(|rest| !taken.contains(*rest)) {
        Some(_) => prefix.len(),
        None => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn status() -> Enum {
        let value = |name: &str, number| (Box::from(name), number, None);
        Enum::new(
            "shop.v1.BookStatus".to_owned(),
            Arc::from("shop.proto"),
            vec![
                value("BOOK_STATUS_UNSPECIFIED", 0),
                value("BOOK_STATUS_SOLD", 2),
                value("GONE", 2),
                value("BOOK_STATUS_3D", -1),
                value("BOOK_STATUS_GONE", 3),
            ],
            true,
            None,
        )
    }

    #[test]
    fn values_are_found_by_number_and_by_name() {
        let status = status();
        assert_eq!(&*status.by_number(2).unwrap().name, "BOOK_STATUS_SOLD");
        assert_eq!(&*status.by_number(-1).unwrap().name, "BOOK_STATUS_3D");
        assert!(status.by_number(1).is_none());
        assert_eq!(status.by_name("GONE", false, false).unwrap().number, 2);
        assert!(status.by_name("gone", false, false).is_none());
        assert_eq!(status.by_name("gone", false, true).unwrap().number, 2);
        assert!(status.by_name("SOLD", false, true).is_none());
        assert_eq!(status.by_name("sold", true, true).unwrap().number, 2);
        assert_eq!(status.by_name("SOLD", true, false).unwrap().number, 2);
    }

    #[test]
    fn a_prefix_is_stripped_where_a_name_is_left() {
        let status = status();
        let stripped: Vec<_> = status.values.iter().map(EnumValue::stripped).collect();
        let expected = [
            "UNSPECIFIED",
            "SOLD",
            "GONE",
            "BOOK_STATUS_3D",
            "BOOK_STATUS_GONE",
        ];
        assert_eq!(stripped, expected);
    }

    #[test]
    fn names_become_prefixes_by_convention() {
        for (name, prefix) in [
            ("BookStatus", "BOOK_STATUS_"),
            ("HTTPStatus", "HTTP_STATUS_"),
            ("Book2Kind", "BOOK2_KIND_"),
            ("E", "E_"),
        ] {
            assert_eq!(prefix_of(name), prefix);
        }
    }
}
