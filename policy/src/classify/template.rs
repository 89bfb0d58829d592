//! A path template taken apart: segments, expressions, and how two segments rank.
//!
//! Promises that whatever it returns can be routed. Does not match anything (`pattern`) and knows no trie.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use crate::openapi::PathParameter;

use super::pattern::Pattern;
use super::target::decode;

/// A template ready for the trie.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    /// In the order they are written.
    pub(super) expressions: Vec<Expression>,
    /// Every segment is text or `{x}` alone: each stands for one segment of a path, and each value is a whole one.
    pub(super) simple: bool,
}

/// What stands between two slashes of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    /// Decoded text to be met byte for byte.
    Literal(Box<str>),
    /// At least one expression.
    Pattern(Pattern),
}

/// One `{x}` of a template.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    pub(super) name: Arc<str>,
    /// Index of the segment it stands in.
    pub(super) segment: usize,
    pub(super) wild: bool,
    pub(super) encoded_slash: bool,
    pub(super) encoded_percent: bool,
    pub(super) matrix: bool,
}

/// Precedence of a segment; the lower wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    kind: Kind,
    literal: Reverse<usize>,
    expressions: usize,
    leading: Reverse<usize>,
}

/// The first thing that decides between two segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Only text.
    Literal,
    /// Text and expressions.
    Mixed,
    /// Only expressions.
    Parameter,
    /// An expression that spans segments.
    Wildcard,
}

/// Deeper templates are refused, so that the search, which descends once a segment, has a bounded stack.
pub(super) const SEGMENT_LIMIT: usize = 256;

impl Template {
    /// Takes `base + route` apart. With `verbs`, text behind a last expression that begins with `:` is met as it is written alone, never
    /// percent-encoded: it is no data.
    ///
    /// # Errors
    /// Says why the template cannot be routed.
    pub(super) fn parse(
        full: &str,
        declared: &[PathParameter],
        verbs: bool,
    ) -> Result<Self, String> {
        let Some(rest) = full.strip_prefix('/') else {
            return Err(format!("`{full}` does not begin with `/`"));
        };
        let mut template = Self {
            segments: Vec::new(),
            expressions: Vec::new(),
            simple: true,
        };
        for text in rest.split('/') {
            let segment = template.segment(text, declared)?;
            template.simple &= match &segment {
                Segment::Literal(_) => true,
                Segment::Pattern(pattern) => pattern.is_plain(),
            };
            template.segments.push(segment);
        }
        if let (true, Some(Segment::Pattern(last))) = (verbs, template.segments.last_mut()) {
            last.mark_verb();
        }
        if template.segments.len() > SEGMENT_LIMIT {
            return Err(format!("more than {SEGMENT_LIMIT} segments"));
        }
        Ok(template)
    }

    fn segment(&mut self, text: &str, declared: &[PathParameter]) -> Result<Segment, String> {
        let mut literals: Vec<Box<str>> = Vec::new();
        let mut wild = false;
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("`{{` without `}}` in `{text}`"));
            };
            if literal.contains('}') || name.contains('{') {
                return Err(format!("unbalanced braces in `{text}`"));
            }
            let expression = Expression::new(name, self.segments.len(), declared);
            wild |= expression.wild;
            self.expressions.push(expression);
            literals.push(decoded_literal(literal));
            rest = after;
        }
        if rest.contains('}') {
            return Err(format!("`}}` without `{{` in `{text}`"));
        }
        literals.push(decoded_literal(rest));
        match <[Box<str>; 1]>::try_from(literals) {
            Ok([literal]) => Ok(Segment::Literal(literal)),
            Err(literals) if wild && literals.len() > 2 => Err(format!(
                "`{text}` has a parameter that spans segments beside another in one segment"
            )),
            Err(literals) => Ok(Segment::Pattern(Pattern::new(literals, wild))),
        }
    }

    /// An expression name that is used twice.
    pub(super) fn repeated(&self) -> Option<&Arc<str>> {
        self.expressions
            .iter()
            .enumerate()
            .find_map(|(index, expression)| {
                let earlier = self.expressions.iter().take(index);
                earlier
                    .map(|e| &e.name)
                    .find(|name| **name == expression.name)
            })
    }
}

impl Segment {
    pub(super) fn rank(&self) -> Rank {
        match self {
            Self::Literal(_) => Rank {
                kind: Kind::Literal,
                literal: Reverse(0),
                expressions: 0,
                leading: Reverse(0),
            },
            Self::Pattern(pattern) => {
                let literal: usize = pattern.literals().iter().map(|l| l.chars().count()).sum();
                let kind = match (literal, pattern.spans()) {
                    (0, true) => Kind::Wildcard,
                    (0, false) => Kind::Parameter,
                    (_, _) => Kind::Mixed,
                };
                let leading = pattern.literals().first().map_or(0, |l| l.chars().count());
                Rank {
                    kind,
                    literal: Reverse(literal),
                    expressions: pattern.expressions(),
                    leading: Reverse(leading),
                }
            }
        }
    }
}

impl Rank {
    pub(super) fn kind(self) -> Kind {
        self.kind
    }
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Literal => "literal",
            Self::Mixed => "partly literal",
            Self::Parameter => "parameter",
            Self::Wildcard => "wildcard",
        }
    }
}

impl Expression {
    fn new(written: &str, segment: usize, declared: &[PathParameter]) -> Self {
        let name = written
            .strip_prefix(['+', '*'])
            .or_else(|| written.strip_suffix(['+', '*']))
            .unwrap_or(written);
        let marked = name.len() != written.len();
        // Files declare the parameter of `{rest+}` as `rest+` as well as `rest`.
        let parameter = declared
            .iter()
            .find(|p| *p.name == *written || *p.name == *name);
        Self {
            name: name.into(),
            segment,
            wild: marked || parameter.is_some_and(|p| p.multi_segment),
            encoded_slash: parameter.is_some_and(|p| p.allow_encoded_slash),
            encoded_percent: parameter.is_some_and(|p| p.allow_encoded_percent),
            matrix: parameter.is_some_and(|p| p.matrix),
        }
    }
}

/// Literals are compared decoded; one that is not well encoded stands for itself.
fn decoded_literal(text: &str) -> Box<str> {
    decode(text).map_or_else(|_| text.into(), Cow::into)
}
