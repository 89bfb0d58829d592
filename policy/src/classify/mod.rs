//! From method and path to one operation.
//!
//! A segment trie with full backtracking: literal before mixed before parameter before wildcard. The cost of a look-up does
//! not grow with the number of operations, and no allocation happens while nothing is percent-encoded (many parameters and
//! templates with several wildcards aside). Does not judge dot segments, `//` or backslashes, and refuses nothing that the
//! operation's settings decide: it tells what it saw.

mod explain;
mod findings;
mod pattern;
mod search;
mod target;
mod template;
mod trie;
mod values;

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::finding::Finding;
use crate::openapi::{Description, Operation, PathParameter};

use search::Search;
use target::{Path, Target};
use template::Template;
use trie::{Route, Trie};

/// All routes of one API, compiled.
#[derive(Debug)]
pub struct Classifier {
    trie: Trie,
}

/// The operation a call is. Borrows names from the classifier and values from the target, so that nothing is counted or copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched<'p> {
    /// Index into `Description::operations`.
    pub operation: usize,
    /// By which of its routes: 0 for its own, from 1 for `Operation::other_routes`.
    pub route: usize,
    /// The base path the call came under, as in `Operation::bases`.
    pub base: &'p str,
    /// Values of the template expressions, in template order (base path first).
    pub parameters: Parameters<'p>,
    /// The decoded parameter values contain a `/` that was percent-encoded, in a parameter that is no wildcard and does not
    /// allow it.
    pub encoded_slash_refused: bool,
    /// Something is percent-encoded twice (`%25` and two hex digits) outside a parameter that allows it.
    pub encoded_percent_refused: bool,
    /// A value contains `;`, encoded or not, in a parameter that is not of `style: matrix`. A `;` that the template itself
    /// spells out is meant.
    pub semicolon_refused: bool,
}

/// Names and decoded values in template order.
pub type Parameters<'p> = SmallVec<[(&'p str, Cow<'p, str>); 4]>;

/// Why a call is no operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclassified {
    /// Bad percent-encoding, or bytes that are no UTF-8 once decoded: 400.
    BadEncoding,
    /// No template matches: 404.
    NoTemplate,
    /// Templates match, none has the method: 405 with these, sorted, without repeats, HEAD added where GET is.
    NoMethod {
        /// For the `Allow` field.
        allow: Vec<Arc<str>>,
    },
}

impl Classifier {
    /// Compiles all routes. The findings tell of overlaps, identical and shadowed templates.
    pub fn compile(description: &Description) -> (Self, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut routes = Vec::new();
        for (index, operation) in description.operations.iter().enumerate() {
            for (way, of) in ways(operation).enumerate() {
                for base in &operation.bases {
                    let full = format!("{base}{}", of.route);
                    let verbs = operation.grpc.is_some();
                    let template = match Template::parse(&full, of.path_parameters, verbs) {
                        Ok(template) => template,
                        Err(why) => {
                            findings.push(findings::unroutable(operation, of.template, &why));
                            break;
                        }
                    };
                    routes.push(Route {
                        operation: index,
                        way,
                        base: Arc::clone(base),
                        method: Arc::clone(of.method),
                        key: Arc::clone(of.template),
                        fragment: operation.fragment,
                        template,
                    });
                }
            }
        }
        let classifier = Self {
            trie: Trie::build(routes),
        };
        findings.extend(findings::of(&classifier.trie, description));
        (classifier, findings)
    }

    /// Classifies a call by method and origin-form target (a query is cut off).
    ///
    /// # Errors
    /// See [`Unclassified`].
    pub fn classify<'p>(
        &'p self,
        method: &str,
        target: &'p str,
    ) -> Result<Matched<'p>, Unclassified> {
        let path = Path::parse(target)?.ok_or(Unclassified::NoTemplate)?;
        let target = Target::new(&path);
        let search = Search::new(&self.trie, &target, method);
        match search
            .winner()
            .and_then(|route| self.trie.routes.get(route))
        {
            Some(route) => Ok(values::matched(route, &target)),
            None => Err(self.unclassified(&search)),
        }
    }

    /// Says in words why a call is classified as it is, line by line.
    pub fn explain(&self, method: &str, target: &str) -> Vec<String> {
        explain::lines(&self.trie, method, target)
    }

    /// Base paths of all routes, without repeats.
    pub fn bases(&self) -> Vec<Arc<str>> {
        let mut bases: Vec<_> = self
            .trie
            .routes
            .iter()
            .map(|r| Arc::clone(&r.base))
            .collect();
        bases.sort_unstable();
        bases.dedup();
        bases
    }

    fn unclassified(&self, search: &Search<'_, '_, '_>) -> Unclassified {
        let ends = search.ends();
        if ends.is_empty() {
            return Unclassified::NoTemplate;
        }
        let nodes = ends.iter().filter_map(|end| self.trie.node(*end));
        let answers = nodes.flat_map(|node| self.trie.answers(node));
        let declared = answers.filter_map(|answer| self.trie.methods.get(answer.method));
        let mut allow: Vec<Arc<str>> = declared.cloned().collect();
        if allow.iter().any(|method| **method == *"GET") {
            allow.push("HEAD".into());
        }
        allow.sort_unstable();
        allow.dedup();
        Unclassified::NoMethod { allow }
    }
}

/// One way to call an operation.
struct Way<'o> {
    method: &'o Arc<str>,
    template: &'o Arc<str>,
    route: &'o str,
    path_parameters: &'o [PathParameter],
}

/// All ways to call an operation, its own route first.
fn ways(operation: &Operation) -> impl Iterator<Item = Way<'_>> {
    let own = Way {
        method: &operation.method,
        template: &operation.template,
        route: &operation.route,
        path_parameters: &operation.path_parameters,
    };
    let others = operation.other_routes.iter().map(|other| Way {
        method: &other.method,
        template: &other.template,
        route: &other.route,
        path_parameters: &other.path_parameters,
    });
    std::iter::once(own).chain(others)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests;
