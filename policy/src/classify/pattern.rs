//! Expressions and text within one template segment, matched against decoded text.
//!
//! Linear in the text: instead of trying long values first and backing out, literals are placed from the right, each as late
//! as it can stand. That gives every earlier expression the most it can have.

use std::ops::Range;

use smallvec::SmallVec;

use super::target::Part;

/// A segment with expressions: `literals[0] {} literals[1] {} ... literals[n]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    literals: Box<[Box<str>]>,
    spans: bool,
    /// One expression and nothing else: the common case, matched by any text.
    plain: bool,
    /// The last literal is a verb, as in `{x}:publish`.
    verb: bool,
}

/// Where the values of a pattern lie in the text, in order.
pub(super) type Values = SmallVec<[Range<usize>; 4]>;

impl Pattern {
    /// `literals` is one longer than there are expressions. A pattern that spans has one expression.
    pub(super) fn new(literals: Vec<Box<str>>, spans: bool) -> Self {
        let plain = literals.len() == 2 && literals.iter().all(|l| l.is_empty()) && !spans;
        Self {
            literals: literals.into(),
            spans,
            plain,
            verb: false,
        }
    }

    /// Takes a last literal that begins with `:` for a verb.
    pub(super) fn mark_verb(&mut self) {
        self.verb = self
            .literals
            .last()
            .is_some_and(|last| last.starts_with(':'));
    }

    /// The verb, where there is one.
    pub(super) fn verb(&self) -> Option<&str> {
        self.literals
            .last()
            .filter(|_| self.verb)
            .map(|verb| &**verb)
    }

    pub(super) fn literals(&self) -> &[Box<str>] {
        &self.literals
    }

    pub(super) fn expressions(&self) -> usize {
        self.literals.len().saturating_sub(1)
    }

    /// Whether the value may reach over `/`.
    pub(super) fn spans(&self) -> bool {
        self.spans
    }

    /// Whether this is `{x}` alone, within one segment.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether one segment's text fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        if self.plain {
            !text.is_empty()
        } else {
            self.values(text).is_some()
        }
    }

    /// The values in one segment's text, earlier ones as long as they can be.
    pub(super) fn values(&self, text: &str) -> Option<Values> {
        let (last, others) = self.literals.split_last()?;
        let (first, inner) = others.split_first()?;
        let mut values = Values::new();
        let mut end = text.strip_suffix(&**last)?.len();
        for literal in inner.iter().rev() {
            let before = text.get(..end)?;
            let room = before.char_indices().next_back()?.0;
            let start = if literal.is_empty() {
                room
            } else {
                before.get(..room)?.rfind(&**literal)?
            };
            values.push(start + literal.len()..end);
            end = start;
        }
        if !text.starts_with(&**first) || first.len() >= end {
            return None;
        }
        values.push(first.len()..end);
        values.reverse();
        Some(values)
    }

    /// Whether a segment begins as the pattern does.
    pub(super) fn begins(&self, text: &str) -> bool {
        self.literals
            .first()
            .is_some_and(|first| text.starts_with(&**first))
    }

    /// Whether a pattern that spans fits all of `parts`, joined by `/`.
    pub(super) fn matches_across(&self, parts: &[Part<'_>]) -> bool {
        let [first, last] = &*self.literals else {
            return false;
        };
        match parts {
            [] => false,
            [only] => self.values(only.text).is_some(),
            [head, .., tail] => head.text.starts_with(&**first) && tail.text.ends_with(&**last),
        }
    }
}
