//! What compiling the routes brings to light: overlaps, identical, shadowed and unroutable templates.
//!
//! Bounded work: pairs are found by walking the trie against itself with a budget, never by comparing all with all.

use std::collections::HashSet;

use crate::finding::{Finding, Severity};
use crate::openapi::{Description, Operation};

use super::pattern::Pattern;
use super::template::Segment;
use super::trie::{NodeIndex, Route, Trie};

/// Overlaps that are listed one by one.
const LISTED_OVERLAPS: usize = 200;
/// Pairs of nodes looked at for overlaps: some tens of milliseconds at worst.
const PAIR_BUDGET: usize = 200_000;

/// A template that is left out.
pub(super) fn unroutable(operation: &Operation, template: &str, why: &str) -> Finding {
    finding(
        operation,
        Severity::Warning,
        "unroutable-template",
        format!("{} {template} is not served: {why}", operation.method),
        "write each expression as `{name}`",
    )
}

/// All findings about routable templates.
pub(super) fn of(trie: &Trie, description: &Description) -> Vec<Finding> {
    let mut report = Report {
        trie,
        description,
        findings: Vec::new(),
        told: HashSet::new(),
    };
    report.repeated();
    report.identical();
    report.shadowed();
    report.overlaps();
    report.findings
}

struct Report<'t> {
    trie: &'t Trie,
    description: &'t Description,
    findings: Vec<Finding>,
    /// Pairs of operations already told of: an operation has a route for each base.
    told: HashSet<(usize, usize)>,
}

impl<'t> Report<'t> {
    fn repeated(&mut self) {
        let mut last = None;
        for route in &self.trie.routes {
            if last == Some(route.operation) {
                continue;
            }
            last = Some(route.operation);
            if let Some(name) = route.template.repeated() {
                let what = format!("{} uses `{{{name}}}` twice", named(route));
                self.findings.extend(self.operation(route).map(|operation| {
                    let remedy = "give each expression of a template its own name";
                    finding(
                        operation,
                        Severity::Warning,
                        "repeated-expression",
                        what,
                        remedy,
                    )
                }));
            }
        }
    }

    fn identical(&mut self) {
        for node in &self.trie.nodes {
            let answers = self.trie.answers(node);
            for (index, later) in answers.iter().enumerate() {
                let winner = answers
                    .iter()
                    .take(index)
                    .find(|a| a.method == later.method);
                let Some((winner, loser)) = winner.and_then(|w| self.pair(w.route, later.route))
                else {
                    continue;
                };
                let labels = winner.fragment != loser.fragment;
                let code = if labels {
                    "shadowed"
                } else {
                    "identical-template"
                };
                let what = format!(
                    "{} is never reached: {} is the same",
                    named(loser),
                    named(winner)
                );
                let remedy = "serve them under different paths or methods";
                self.tell(loser, winner, Severity::Warning, code, what, remedy);
            }
        }
    }

    /// A template that goes on after a wildcard with which another ends: that one takes every call.
    fn shadowed(&mut self) {
        let mut waiting: Vec<(NodeIndex, Vec<(usize, usize)>)> = vec![(0, Vec::new())];
        while let Some((index, taken)) = waiting.pop() {
            let Some(node) = self.trie.node(index) else {
                continue;
            };
            for answer in self.trie.answers(node) {
                let earlier = taken.iter().find(|(method, _)| *method == answer.method);
                if let Some((winner, loser)) =
                    earlier.and_then(|(_, r)| self.pair(*r, answer.route))
                {
                    let what = format!(
                        "{} is never reached: {} takes its calls",
                        named(loser),
                        named(winner)
                    );
                    let remedy = "let the value not span segments (`x-multi-segment`), or serve it elsewhere";
                    self.tell(loser, winner, Severity::Warning, "shadowed", what, remedy);
                }
            }
            for branch in self.trie.branches(node) {
                let mut taken = taken.clone();
                let wildcard = matches!(&branch.segment, Segment::Pattern(p)
                    if p.spans() && p.literals().iter().all(|l| l.is_empty()));
                if let Some(child) = self.trie.node(branch.child).filter(|_| wildcard) {
                    taken.extend(self.trie.answers(child).iter().map(|a| (a.method, a.route)));
                }
                waiting.push((branch.child, taken));
            }
            for (_, child) in literals(self.trie, index) {
                waiting.push((*child, taken.clone()));
            }
        }
    }

    fn overlaps(&mut self) {
        let mut waiting: Vec<(NodeIndex, NodeIndex)> = vec![(0, 0)];
        let (mut looked, mut found) = (0, 0);
        while let Some((a, b)) = waiting.pop() {
            looked += 1;
            if looked > PAIR_BUDGET {
                break;
            }
            let (Some(one), Some(other)) = (self.trie.node(a), self.trie.node(b)) else {
                continue;
            };
            if one.below & other.below == 0 {
                continue;
            }
            if a != b {
                found += self.overlap(a, b, LISTED_OVERLAPS.saturating_sub(found));
            }
            self.pairs_below(a, b, &mut waiting);
        }
        if found > LISTED_OVERLAPS || looked > PAIR_BUDGET {
            let at_least = if looked > PAIR_BUDGET {
                "at least "
            } else {
                ""
            };
            self.findings.push(Finding {
                severity: Severity::Note,
                code: "overlap",
                place: crate::finding::Place::file(self.description.file.clone()),
                what: format!(
                    "{at_least}{found} pairs of templates overlap; the first {LISTED_OVERLAPS} are listed"
                ),
                remedy: String::new(),
            });
        }
    }

    /// Tells of the templates that end at two nodes which the same call can reach. Returns how many pairs there are.
    fn overlap(&mut self, a: NodeIndex, b: NodeIndex, listed: usize) -> usize {
        let (Some(one), Some(other)) = (self.trie.node(a), self.trie.node(b)) else {
            return 0;
        };
        let mut found = 0;
        for ours in self.trie.answers(one) {
            let theirs = self
                .trie
                .answers(other)
                .iter()
                .find(|t| t.method == ours.method);
            let Some((first, second)) = theirs.and_then(|t| self.pair(ours.route, t.route)) else {
                continue;
            };
            let (first, second) = if wins(first, second) {
                (first, second)
            } else {
                (second, first)
            };
            if found < listed {
                let what = format!(
                    "{} also matches calls that are {}",
                    named(second),
                    named(first)
                );
                self.tell(second, first, Severity::Note, "overlap", what, "");
            }
            found += 1;
        }
        found
    }

    fn pairs_below(&self, a: NodeIndex, b: NodeIndex, waiting: &mut Vec<(NodeIndex, NodeIndex)>) {
        let (Some(one), Some(other)) = (self.trie.node(a), self.trie.node(b)) else {
            return;
        };
        let (ours, theirs) = (self.trie.branches(one), self.trie.branches(other));
        for (index, mine) in ours.iter().enumerate() {
            let skip = if a == b { index } else { 0 };
            for their in theirs.iter().skip(skip) {
                if let (Segment::Pattern(p), Segment::Pattern(q)) = (&mine.segment, &their.segment)
                    && meet(p, q)
                {
                    waiting.push((mine.child, their.child));
                }
            }
        }
        self.literals_against(a, theirs, waiting);
        if a == b {
            let children = literals(self.trie, a).iter();
            waiting.extend(children.map(|(_, child)| (*child, *child)));
            return;
        }
        self.literals_against(b, ours, waiting);
        let (few, many) = (literals(self.trie, a), literals(self.trie, b));
        let by_text: std::collections::HashMap<&str, NodeIndex> =
            few.iter().map(|(text, child)| (&**text, *child)).collect();
        for (text, child) in many {
            waiting.extend(by_text.get(&**text).map(|other| (*other, *child)));
        }
    }

    fn literals_against(
        &self,
        parent: NodeIndex,
        branches: &[super::trie::Branch],
        waiting: &mut Vec<(NodeIndex, NodeIndex)>,
    ) {
        for (text, child) in literals(self.trie, parent) {
            for branch in branches {
                if let Segment::Pattern(pattern) = &branch.segment
                    && pattern.matches(text)
                {
                    waiting.push((*child, branch.child));
                }
            }
        }
    }

    fn pair(&self, a: usize, b: usize) -> Option<(&'t Route, &'t Route)> {
        let trie = self.trie;
        Some((trie.routes.get(a)?, trie.routes.get(b)?))
    }

    fn operation(&self, route: &Route) -> Option<&Operation> {
        self.description.operations.get(route.operation)
    }

    fn tell(
        &mut self,
        about: &Route,
        other: &Route,
        severity: Severity,
        code: &'static str,
        what: String,
        remedy: &str,
    ) {
        if about.operation == other.operation
            || !self.told.insert((about.operation, other.operation))
        {
            return;
        }
        let operation = self.description.operations.get(about.operation);
        self.findings
            .extend(operation.map(|o| finding(o, severity, code, what, remedy)));
    }
}

/// Whether two patterns can fit one text: their beginnings and their ends agree as far as both go.
fn meet(a: &Pattern, b: &Pattern) -> bool {
    let ends = |p: &Pattern| Some((p.literals().first()?.clone(), p.literals().last()?.clone()));
    let (Some((a_first, a_last)), Some((b_first, b_last))) = (ends(a), ends(b)) else {
        return false;
    };
    (a_first.starts_with(&*b_first) || b_first.starts_with(&*a_first))
        && (a_last.ends_with(&*b_last) || b_last.ends_with(&*a_last))
}

/// Whether the first of two overlapping routes has precedence.
fn wins(a: &Route, b: &Route) -> bool {
    let mut ranks = a.template.segments.iter().zip(&b.template.segments);
    let decisive = ranks.find_map(|(x, y)| Some(x.rank().cmp(&y.rank())).filter(|o| o.is_ne()));
    let key = |r: &Route| (r.template.segments.len(), r.operation);
    decisive.map_or(key(a) < key(b), std::cmp::Ordering::is_lt)
}

fn literals(trie: &Trie, index: NodeIndex) -> &[(Box<str>, NodeIndex)] {
    let found = usize::try_from(index)
        .ok()
        .and_then(|index| trie.literals.get(index));
    found.map(Vec::as_slice).unwrap_or_default()
}

fn named(route: &Route) -> String {
    format!("{} {}{}", route.method, route.base, route.key)
}

fn finding(
    operation: &Operation,
    severity: Severity,
    code: &'static str,
    what: String,
    remedy: &str,
) -> Finding {
    Finding {
        severity,
        code,
        place: operation.place.clone(),
        what,
        remedy: remedy.to_owned(),
    }
}
