//! The values of a matched template's expressions, and what the door must know of them.
//!
//! Works on one template that is known to match. Does not refuse anything itself.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::pattern::Pattern;
use super::target::{Part, Target};
use super::template::{Expression, Segment, Template};
use super::trie::Route;
use super::{Matched, Parameters};

/// Makes the answer from the winning route.
pub(super) fn matched<'p>(route: &'p Route, target: &Target<'_, 'p>) -> Matched<'p> {
    let mut matched = Matched {
        operation: route.operation,
        route: route.way,
        base: &route.base,
        parameters: Parameters::new(),
        encoded_slash_refused: false,
        encoded_percent_refused: false,
        semicolon_refused: false,
    };
    // The common case: every value is a whole part, and nothing can have to be refused.
    if route.template.simple && !target.suspicious {
        for expression in &route.template.expressions {
            let value = value(target, expression.segment);
            matched.parameters.push((&expression.name, value));
        }
        return matched;
    }
    let mut reader = Reader {
        target,
        expressions: route.template.expressions.iter(),
        suspicious: target.suspicious,
        matched,
    };
    for (segment, range) in route
        .template
        .segments
        .iter()
        .zip(spread(&route.template, target))
    {
        let start = range.start;
        let parts = target.parts.get(range).unwrap_or_default();
        match (segment, parts) {
            (Segment::Literal(text), _) => {
                reader.matched.encoded_percent_refused |= reader.suspicious && twice_encoded(text);
            }
            (Segment::Pattern(pattern), [part]) => reader.within(pattern, part, start),
            (Segment::Pattern(pattern), parts) => reader.across(pattern, parts),
        }
    }
    reader.matched
}

/// A whole part as it is handed out.
fn value<'p>(target: &Target<'_, 'p>, index: usize) -> Cow<'p, str> {
    if target.encoded() {
        return target.decoded.get(index).cloned().unwrap_or_default();
    }
    let raw = target.parts.get(index).and_then(|part| {
        let end = part.start + part.text.len();
        target.path.get(part.start..end)
    });
    Cow::Borrowed(raw.unwrap_or_default())
}

struct Reader<'r, 't, 'p> {
    target: &'r Target<'t, 'p>,
    expressions: std::slice::Iter<'p, Expression>,
    /// Whether the path holds anything that may have to be refused.
    suspicious: bool,
    matched: Matched<'p>,
}

impl<'p> Reader<'_, '_, 'p> {
    fn within(&mut self, pattern: &Pattern, part: &Part<'_>, index: usize) {
        let whole = value(self.target, index);
        if pattern.is_plain() {
            self.push(whole);
            return;
        }
        let mut percent_allowed = true;
        for value in pattern.values(part.text).unwrap_or_default() {
            let value = match &whole {
                Cow::Borrowed(text) => Cow::Borrowed(text.get(value).unwrap_or_default()),
                Cow::Owned(text) => Cow::Owned(text.get(value).unwrap_or_default().to_owned()),
            };
            percent_allowed &= self
                .expressions
                .as_slice()
                .first()
                .is_some_and(|e| e.encoded_percent);
            self.push(value);
        }
        // A `%XX` may lie across the border of two values, or of a value and the template's text.
        if self.suspicious && !percent_allowed {
            self.matched.encoded_percent_refused |= twice_encoded(part.text);
        }
    }

    fn across(&mut self, pattern: &Pattern, parts: &[Part<'_>]) {
        let ([before, after], Some(first), Some(last)) =
            (pattern.literals(), parts.first(), parts.last())
        else {
            return;
        };
        if !self.target.encoded() {
            let end = last.start + last.text.len();
            let range = first.start + before.len()..end.saturating_sub(after.len());
            self.push(Cow::Borrowed(
                self.target.path.get(range).unwrap_or_default(),
            ));
            return;
        }
        let mut joined = String::new();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                joined.push('/');
            }
            joined.push_str(part.text);
        }
        let range = before.len()..joined.len().saturating_sub(after.len());
        self.push(Cow::Owned(joined.get(range).unwrap_or_default().to_owned()));
    }

    fn push(&mut self, value: Cow<'p, str>) {
        let Some(expression) = self.expressions.next() else {
            return;
        };
        if self.suspicious {
            let matched = &mut self.matched;
            matched.encoded_slash_refused |=
                !expression.wild && !expression.encoded_slash && value.contains('/');
            matched.encoded_percent_refused |= !expression.encoded_percent && twice_encoded(&value);
            matched.semicolon_refused |= !expression.matrix && value.contains(';');
        }
        self.matched.parameters.push((&expression.name, value));
    }
}

/// Whether decoded text still holds a percent-encoded byte.
fn twice_encoded(text: &str) -> bool {
    let is_escape = |window: &[u8]| match window {
        [b'%', high, low] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        _ => false,
    };
    text.as_bytes().windows(3).any(is_escape)
}

/// Which parts of the path each template segment stands for, wildcards as long as they can be, the first one first.
fn spread(template: &Template, target: &Target<'_, '_>) -> impl Iterator<Item = Range<usize>> {
    let mut ends: SmallVec<[usize; 12]> = SmallVec::new();
    let wildcards = template.segments.iter().filter(|s| spans(s)).count();
    let spare = target.parts.len().saturating_sub(template.segments.len());
    if wildcards < 2 {
        // What the others leave is the wildcard's.
        let mut end = 0;
        for segment in &template.segments {
            end += if spans(segment) { 1 + spare } else { 1 };
            ends.push(end);
        }
    } else {
        several(template, target, &mut ends);
    }
    let starts = std::iter::once(0).chain(ends.clone());
    starts.zip(ends).map(|(start, end)| start..end)
}

/// With several wildcards: from the back, at which positions the rest of the template fits; then forwards, the farthest each time.
fn several(template: &Template, target: &Target<'_, '_>, ends: &mut SmallVec<[usize; 12]>) {
    let last = target.parts.len();
    let mut fits: Vec<Vec<bool>> = vec![(0..=last).map(|position| position == last).collect()];
    for segment in template.segments.iter().rev() {
        let rest = fits.last().map(Vec::as_slice).unwrap_or_default();
        let here = (0..=last).map(|start| farthest(segment, target, start, rest).is_some());
        let here = here.collect();
        fits.push(here);
    }
    fits.pop();
    let mut start = 0;
    for (segment, rest) in template.segments.iter().zip(fits.iter().rev()) {
        let Some(end) = farthest(segment, target, start, rest) else {
            return;
        };
        ends.push(end);
        start = end;
    }
}

fn farthest(
    segment: &Segment,
    target: &Target<'_, '_>,
    start: usize,
    rest_fits: &[bool],
) -> Option<usize> {
    let last = if spans(segment) {
        target.parts.len()
    } else {
        start + 1
    };
    (start + 1..=last).rev().find(|end| {
        let parts = target.parts.get(start..*end);
        rest_fits.get(*end) == Some(&true)
            && parts.is_some_and(|parts| segment_fits(segment, parts))
    })
}

fn segment_fits(segment: &Segment, parts: &[Part<'_>]) -> bool {
    match (segment, parts) {
        (Segment::Literal(text), [part]) => **text == *part.text,
        (Segment::Pattern(pattern), [part]) => pattern.matches(part.text),
        (Segment::Pattern(pattern), parts) => pattern.spans() && pattern.matches_across(parts),
        (Segment::Literal(_), _) => false,
    }
}

fn spans(segment: &Segment) -> bool {
    matches!(segment, Segment::Pattern(pattern) if pattern.spans())
}
