//! Fields of a limit that are one of a few words.

use super::super::decode::nearest;
use super::super::value::Wrong;
use crate::quota::{Counts, OnUnavailable, Scope};

pub(super) const SCOPES: [(&str, Scope); 3] = [
    ("everything", Scope::Everything),
    ("api", Scope::Api),
    ("operation", Scope::Operation),
];

pub(super) const FAIL_MODES: [(&str, OnUnavailable); 3] = [
    ("fail_open", OnUnavailable::FailOpen),
    ("degraded", OnUnavailable::Degraded),
    ("fail_closed", OnUnavailable::FailClosed),
];

pub(super) const COUNTS: [(&str, Counts); 2] =
    [("reached", Counts::Reached), ("tried", Counts::Tried)];

/// What the word stands for.
pub(super) fn one_of<T: Copy, const N: usize>(
    text: &str,
    known: [(&str, T); N],
) -> Result<T, Wrong> {
    if let Some((_, found)) = known.iter().find(|(name, _)| *name == text) {
        return Ok(*found);
    }
    let names = known.map(|(name, _)| name);
    let remedy = match nearest(text, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("write one of {}", names.join(", ")),
    };
    Err(Wrong::new(format!("`{text}` is not known here"), remedy))
}

/// The word for it.
pub(super) fn name_of<T: PartialEq, const N: usize>(
    value: T,
    known: [(&'static str, T); N],
) -> &'static str {
    let found = known.into_iter().find(|(_, one)| *one == value);
    found.map_or("", |(name, _)| name)
}
