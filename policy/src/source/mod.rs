//! Text files as one generic tree with positions: JSON and YAML alike.
//!
//! Duplicate keys are errors with a line. Size, depth, node count and alias expansion are limited. Not here: what the
//! values mean, and reading files.

mod json;
mod limits;
mod map;
mod node;
mod yaml;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use limits::{Limits, MAX_ALIASED_NODES, MAX_BYTES, MAX_DEPTH, MAX_NODES};
pub use map::{Entry, Map};
pub use node::{Node, Value};

use crate::finding::{Finding, Place, Severity};

/// One file read into a tree.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Its root value.
    pub root: Node,
}

impl Document {
    /// Reads `text`: JSON where the first character that is not white space is `{` or `[` and it parses as JSON,
    /// YAML otherwise.
    ///
    /// # Errors
    /// One finding with line and column: syntax, duplicate key, or a limit exceeded.
    pub fn parse(file: &str, text: &str) -> Result<Self, Finding> {
        Self::parse_within(file, text, &Limits::default())
    }

    /// As [`Document::parse`], within `limits`.
    ///
    /// # Errors
    /// As for [`Document::parse`].
    pub fn parse_within(file: &str, text: &str, limits: &Limits) -> Result<Self, Finding> {
        if !without_mark(text).trim_start().starts_with(['{', '[']) {
            return Self::parse_with(file, text, limits, yaml::parse);
        }
        let refused = match Self::parse_with(file, text, limits, json::parse) {
            Ok(document) => return Ok(document),
            Err(finding) => finding,
        };
        // A duplicate or a limit is no sign of YAML. Where neither reads it, the JSON error is the one that helps.
        if refused.code != json::SYNTAX {
            return Err(refused);
        }
        Self::parse_with(file, text, limits, yaml::parse).map_err(|_| refused)
    }

    /// Reads `text` as JSON (RFC 8259) and nothing else; a byte order mark is skipped.
    ///
    /// # Errors
    /// As for [`Document::parse`].
    pub fn parse_json(file: &str, text: &str) -> Result<Self, Finding> {
        Self::parse_with(file, text, &Limits::default(), json::parse)
    }

    /// Reads `text` as YAML 1.2, one document, core schema; a byte order mark is skipped.
    ///
    /// # Errors
    /// As for [`Document::parse`].
    pub fn parse_yaml(file: &str, text: &str) -> Result<Self, Finding> {
        Self::parse_with(file, text, &Limits::default(), yaml::parse)
    }

    fn parse_with(
        file: &str,
        text: &str,
        limits: &Limits,
        reader: impl FnOnce(&str, &Limits) -> Result<Node, Mistake>,
    ) -> Result<Self, Finding> {
        let file: Arc<str> = file.into();
        let read = if text.len() > limits.bytes {
            Err(Mistake::too_large(limits))
        } else {
            reader(without_mark(text), limits)
        };
        match read {
            Ok(root) => Ok(Self { file, root }),
            Err(mistake) => Err(mistake.into_finding(file)),
        }
    }

    /// The finding for a file that has more bytes than a document may have; it need not be read for that.
    pub fn too_large(file: &str) -> Finding {
        Mistake::too_large(&Limits::default()).into_finding(file.into())
    }

    /// The place of a node of this document.
    pub fn place(&self, node: &Node) -> Place {
        Place {
            file: self.file.clone(),
            line: node.line,
            column: node.column,
        }
    }
}

/// Editors on some systems put U+FEFF before the text; it is no part of it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Why a text was not read; becomes a finding once the file's name is added.
#[derive(Debug)]
struct Mistake {
    line: u32,
    column: u32,
    code: &'static str,
    what: String,
}

impl Mistake {
    fn at(line: u32, column: u32, code: &'static str, what: impl Into<String>) -> Self {
        Self {
            line,
            column,
            code,
            what: what.into(),
        }
    }

    fn duplicate(line: u32, column: u32, key: &str, first_line: u32) -> Self {
        let key: String = key.chars().take(80).collect();
        let what = format!("key `{key}` stands twice in one mapping, first in line {first_line}");
        Self::at(line, column, "duplicate-key", what)
    }

    fn too_large(limits: &Limits) -> Self {
        let what = format!("the file has more than {} bytes", limits.bytes);
        Self::at(1, 1, "too-large", what)
    }

    fn too_deep(line: u32, column: u32, limits: &Limits) -> Self {
        let what = format!("nested more than {} levels deep", limits.depth);
        Self::at(line, column, "too-deep", what)
    }

    fn too_many_nodes(line: u32, column: u32, limits: &Limits) -> Self {
        let what = format!("more than {} values", limits.nodes);
        Self::at(line, column, "too-many-values", what)
    }

    fn too_many_aliased(line: u32, column: u32, limits: &Limits) -> Self {
        let added = limits.aliased_nodes;
        let what = format!("anchors and aliases add more than {added} values");
        Self::at(line, column, "alias-expansion", what)
    }

    fn into_finding(self, file: Arc<str>) -> Finding {
        let remedy = match self.code {
            "duplicate-key" => "keep one of the two",
            "alias-expansion" => "write the repeated part once and refer to it by `$ref`",
            "too-large" | "too-deep" | "too-many-values" => "split the file, or flatten it",
            _ => "correct the text at this place",
        };
        Finding {
            severity: Severity::Error,
            code: self.code,
            place: Place {
                file,
                line: self.line,
                column: self.column,
            },
            what: self.what,
            remedy: remedy.to_owned(),
        }
    }
}

/// A position or count as findings hold it; files are limited far below its end.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
