//! What is wrong with the shape of a file: the error type of the decoder. Not here: what a value means.

use std::fmt;

use serde::de;

use crate::source::{Entry, Node};

/// What is wrong with a shape. Line 0: not yet known.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) code: &'static str,
    /// Path of the field, as far as it is known: `listeners.address`.
    pub(super) field: String,
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Mistake {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            line: 0,
            column: 0,
            code: "wrong-shape",
            field: String::new(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// The mistake as seen from the mapping around it, where the value is that of `entry`.
    pub(super) fn under(mut self, entry: &Entry) -> Self {
        // An empty value has no place of its own worth pointing at: its key has.
        if self.line == 0 {
            (self.line, self.column) = (entry.line, entry.column);
        }
        self.field = match self.field.as_str() {
            "" => entry.key.to_string(),
            inner => format!("{}.{inner}", entry.key),
        };
        self
    }

    pub(super) fn at(mut self, node: &Node) -> Self {
        if self.line == 0 {
            (self.line, self.column) = (node.line, node.column);
        }
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), "correct the value")
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            code: "missing-field",
            ..Self::new(
                format!("`{field}` is missing"),
                format!("write `{field}: ...` here"),
            )
        }
    }
}
