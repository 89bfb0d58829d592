//! Why a message could not be turned into the other form, and at which of its fields.

use std::borrow::Cow;
use std::fmt;

use super::wire::Malformed;

/// A message that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError {
    /// The field, as `book.items[3].price` or `labels["a"]`; empty where the message as a whole is meant.
    pub path: String,
    /// What is wrong with it, to be read by who wrote the message.
    pub what: Cow<'static, str>,
}

/// The error as it travels inside: a word wide, for it is in the way of every success.
pub(crate) type Fault = Box<CodecError>;

/// The longest path that is told, in bytes; the innermost part is kept.
const LONGEST_PATH: usize = 2048;

/// The longest part of a map key that is told, in characters.
const LONGEST_KEY: usize = 40;

impl CodecError {
    /// An error of the message as a whole.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            path: String::new(),
            what: what.into(),
        }
    }

    pub(crate) fn fault(what: impl Into<Cow<'static, str>>) -> Fault {
        Box::new(Self::new(what))
    }

    /// The same error, seen from the message that has the field.
    #[must_use]
    pub fn in_field(mut self, name: &str) -> Self {
        self.enter_field(name);
        self
    }

    fn enter_field(&mut self, name: &str) {
        if !self.path.is_empty() && !self.path.starts_with('[') {
            self.prepend(".");
        }
        self.prepend(name);
    }

    fn enter_brackets(&mut self, inner: &str) {
        if !self.path.is_empty() && !self.path.starts_with('[') {
            self.prepend(".");
        }
        self.prepend(&format!("[{inner}]"));
    }

    fn prepend(&mut self, part: &str) {
        if self.path.len() + part.len() <= LONGEST_PATH {
            self.path.insert_str(0, part);
        }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.path, self.what)
        }
    }
}

impl std::error::Error for CodecError {}

impl From<Malformed> for CodecError {
    fn from(malformed: Malformed) -> Self {
        Self::new(malformed.0)
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Box::new(malformed.into())
    }
}

/// The same error, seen from the message that has the field.
#[cold]
pub(crate) fn in_field(mut fault: Fault, name: &str) -> Fault {
    fault.enter_field(name);
    fault
}

/// The same error, seen from the list.
#[cold]
pub(crate) fn in_index(mut fault: Fault, index: usize) -> Fault {
    fault.enter_brackets(&index.to_string());
    fault
}

/// The same error, seen from the map.
#[cold]
pub(crate) fn in_key(mut fault: Fault, key: &str) -> Fault {
    let mut shown: String = key.chars().take(LONGEST_KEY).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    fault.enter_brackets(&format!("{shown:?}"));
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_written_as_a_reader_would() {
        let error = CodecError::fault("expected a number").in_field("price");
        let error = in_field(in_index(Box::new(error), 3), "items").in_field("book");
        assert_eq!(error.to_string(), "book.items[3].price: expected a number");
        let error = in_field(in_key(CodecError::fault("too large"), "a\"b"), "labels");
        assert_eq!(error.to_string(), r#"labels["a\"b"]: too large"#);
        assert_eq!(CodecError::new("no JSON").to_string(), "no JSON");
    }

    #[test]
    fn a_path_does_not_grow_without_bound() {
        let mut error = CodecError::fault("x");
        for _ in 0..10_000 {
            error = in_key(in_field(error, "some_field"), &"k".repeat(1000));
        }
        assert!(error.path.len() <= LONGEST_PATH);
    }
}
