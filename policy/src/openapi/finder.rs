//! The findings of one load, in the order they were made, each once and not without end.

use std::collections::HashSet;

use crate::finding::{Finding, Place, Severity};

/// Findings kept of one file. A file with more has one mistake many times; the rest is counted.
const MAX_FINDINGS: usize = 2_000;

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Finder {
    findings: Vec<Finding>,
    /// Shared parts are read once per operation that uses them, and reported once.
    seen: HashSet<(&'static str, String, u32, u32)>,
    dropped: usize,
}

impl Finder {
    /// Worth knowing, nothing is wrong.
    pub(super) fn note(
        &mut self,
        place: Place,
        code: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (what, remedy) = (what.into(), remedy.into());
        self.add(Finding {
            severity: Severity::Note,
            code,
            place,
            what,
            remedy,
        });
    }

    /// Something is not served as its author may expect.
    pub(super) fn warn(
        &mut self,
        place: Place,
        code: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (what, remedy) = (what.into(), remedy.into());
        self.add(Finding {
            severity: Severity::Warning,
            code,
            place,
            what,
            remedy,
        });
    }

    /// A finding made elsewhere; what does not fail the load is no error here.
    pub(super) fn adopt(&mut self, mut finding: Finding) {
        finding.severity = finding.severity.min(Severity::Warning);
        self.add(finding);
    }

    fn add(&mut self, finding: Finding) {
        let place = &finding.place;
        let seen = (
            finding.code,
            place.file.to_string(),
            place.line,
            place.column,
        );
        // One place may have several mistakes of one kind, such as two undeclared parameters in one key.
        let known = !self.seen.insert(seen);
        if known && self.findings.contains(&finding) {
            return;
        }
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.dropped += 1;
        }
    }

    /// All findings; the last one says how many more there were.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        if let (1.., Some(last)) = (self.dropped, self.findings.last()) {
            self.findings.push(Finding {
                severity: Severity::Warning,
                code: "more-findings",
                place: Place::file(last.place.file.clone()),
                what: format!("{} more findings are not listed", self.dropped),
                remedy: "repair the ones above first".to_owned(),
            });
        }
        self.findings
    }
}

/// A finding that makes the file unusable.
pub(super) fn unusable(place: Place, code: &'static str, what: &str, remedy: &str) -> Finding {
    let (what, remedy) = (what.to_owned(), remedy.to_owned());
    Finding {
        severity: Severity::Error,
        code,
        place,
        what,
        remedy,
    }
}
