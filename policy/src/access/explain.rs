//! Every rule that took part in a decision, in words.
//!
//! Collects what `decide` tells, in its order. Not for the request path: it allocates for every rule.

use std::fmt;

use super::{Outcome, RuleRef, Witness};

/// What was told about a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Explanation {
    /// One line for each rule, in the order they were looked at.
    pub lines: Vec<Line>,
}

/// One rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// Kind of the rule, as in [`RuleRef::kind`].
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// `file:line:column`; `None` for rules that come with Tollgate or from the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// How it turned out.
    pub outcome: Outcome,
    /// Why, with the values that counted; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Witness for Explanation {
    fn rule(&mut self, rule: &RuleRef, outcome: Outcome, detail: fmt::Arguments<'_>) {
        self.lines.push(Line {
            kind: rule.kind,
            name: rule.name.to_string(),
            place: rule.place.as_ref().map(ToString::to_string),
            outcome,
            detail: detail.to_string(),
        });
    }
}

/// `apis/bookstore.yaml:41:5 acl partners-only: refused (consumer shop-web is not one of partner-a)`
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place} ")?;
        }
        write!(f, "{} {}: {}", self.kind, self.name, self.outcome)?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.detail)
        }
    }
}

/// One line for each rule.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::NotApplicable => "not applicable",
            Self::Refused => "refused",
            Self::Shadowed => "would refuse, but is a shadow",
        })
    }
}
