//! What the control plane did, as metrics: the intake above all.

use std::fmt::Write as _;

use super::UsageFigures;
use crate::Control;

impl Control {
    /// Adds the control plane's numbers to a page of metrics (Prometheus text format).
    pub fn write_page(&self, page: &mut String) {
        let figures = self.usage_figures();
        let mut row = |name: &str, help: &str, read: fn(&UsageFigures) -> u64| {
            let value = read(&figures);
            // Writing to a string cannot fail.
            let _ = write!(
                page,
                "# HELP tollgate_intake_{name} {help}\n# TYPE tollgate_intake_{name} counter\n\
                 tollgate_intake_{name} {value}\n"
            );
        };
        row("records_total", "Usage records added up.", |it| it.records);
        row(
            "duplicates_total",
            "Usage records that had come before.",
            |it| it.duplicates,
        );
        row(
            "missing_total",
            "Usage records that are missing: each is lost, unless it comes late.",
            |it| it.missing,
        );
        row(
            "found_total",
            "Usage records that came after they had been missing.",
            |it| it.found,
        );
        row(
            "refused_total",
            "Batches of usage that could not be stored, and come again.",
            |it| it.refused,
        );
        row(
            "incomplete_runs_total",
            "Runs whose usage was reported as possibly incomplete.",
            |it| it.incomplete,
        );
        self.inner.claims.write_page(page);
    }
}
