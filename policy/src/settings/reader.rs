//! From a file to its tree, and from single values to findings: what the readers of all our files share.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::decode::{Text, decode};
use super::plain_file;
use super::reference::References;
use super::value::Wrong;
use crate::directory::Secret;
use crate::finding::{Finding, Place, Severity};
use crate::source::{Document, Map, Node, Value};

/// Reads one file of ours and collects what is wrong with it.
pub(super) struct Reader {
    document: Document,
    /// Where each key at the top of the file stands.
    keys: Vec<(Box<str>, u32, u32)>,
    directory: PathBuf,
    findings: Vec<Finding>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Finding> {
        Self::open_within(path, plain_file::MAX_SETTINGS)
    }

    /// As [`Reader::open`], for a file of at most `limit` bytes.
    pub(super) fn open_within(path: &Path, limit: u64) -> Result<Self, Finding> {
        let mut document = parsed(path, limit)?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        // A file of comments alone says nothing, which is not the same as something wrong.
        if matches!(document.root.value, Value::Null) {
            document.root.value = Value::Map(Map::default());
        }
        let entries = document.root.as_map().into_iter().flat_map(Map::iter);
        let keys = entries
            .map(|entry| (entry.key.clone(), entry.line, entry.column))
            .collect();
        Ok(Self {
            document,
            keys,
            directory,
            findings: Vec::new(),
        })
    }

    /// Takes a copy of a file for the file itself: paths lead from there, and findings name it.
    pub(super) fn standing_in_for(mut self, original: &Path) -> Self {
        original
            .parent()
            .unwrap_or(Path::new(""))
            .clone_into(&mut self.directory);
        self.document.file = original.display().to_string().into();
        self
    }

    pub(super) fn on(document: &Document) -> Self {
        Self {
            document: Document {
                file: document.file.clone(),
                root: nothing(),
            },
            keys: Vec::new(),
            directory: PathBuf::new(),
            findings: Vec::new(),
        }
    }

    /// The written shape. Whoever asks twice finds nothing: the tree of a large file is not kept beside what it means.
    pub(super) fn decode<T: for<'n> Deserialize<'n>>(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Option<T> {
        let references = References {
            environment: Some(environment),
            directory: &self.directory,
        };
        let root = std::mem::replace(&mut self.document.root, nothing());
        let (decoded, findings) = decode(&self.document, &root, &references);
        self.findings.extend(findings);
        decoded
    }

    pub(super) fn file(&self) -> Place {
        Place::file(self.document.file.clone())
    }

    pub(super) fn place(&self, at: &Text) -> Place {
        Place {
            file: self.document.file.clone(),
            line: at.line,
            column: at.column,
        }
    }

    /// Where the key `name` stands at the top of the file.
    pub(super) fn key(&self, name: &str) -> Place {
        let found = self.keys.iter().find(|(key, _, _)| **key == *name);
        let (line, column) = found.map_or((0, 0), |(_, line, column)| (*line, *column));
        Place {
            file: self.document.file.clone(),
            line,
            column,
        }
    }

    /// A path of the file, resolved against the file's directory.
    pub(super) fn path(&self, at: &Text) -> PathBuf {
        self.directory.join(&at.text)
    }

    /// The meaning of a field, or nothing where it is unsaid or wrong; the latter becomes a finding.
    pub(super) fn value<T>(
        &mut self,
        field: &str,
        written: Option<&Text>,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let written = written?;
        parse(&written.text)
            .map_err(|wrong| self.refuse(field, written, wrong))
            .ok()
    }

    /// The meaning of each item of a list.
    pub(super) fn list<T>(
        &mut self,
        field: &str,
        written: Option<&Vec<Text>>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let items = written.map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| self.value(field, Some(item), &parse))
            .collect()
    }

    pub(super) fn refuse(&mut self, field: &str, at: &Text, wrong: Wrong) {
        let place = self.place(at);
        self.push(
            "bad-value",
            place,
            format!("`{field}`: {}", wrong.what),
            wrong.remedy,
        );
    }

    pub(super) fn missing(&mut self, field: &str, remedy: &str) {
        let place = self.file();
        self.push(
            "missing-field",
            place,
            format!("`{field}` is missing"),
            remedy.to_owned(),
        );
    }

    /// A secret: by reference only, and never quoted in a message.
    pub(super) fn secret(&mut self, field: &str, written: Option<&Text>) -> Option<Secret> {
        let written = written?;
        if written.referred && !written.text.is_empty() {
            return Some(Secret::new(written.text.as_str()));
        }
        let (code, what) = match written.referred {
            true => ("bad-value", "the secret is empty"),
            false => (
                "literal-secret",
                "a secret must not stand in a file of settings",
            ),
        };
        let remedy = "write ${NAME} for an environment variable, or file:PATH";
        let place = self.place(written);
        self.push(code, place, format!("`{field}`: {what}"), remedy.to_owned());
        None
    }

    /// As [`Reader::list`], for lists that say "any" by their absence: an empty one is a mistake.
    pub(super) fn some<T>(
        &mut self,
        field: &str,
        at: &Text,
        written: Option<&Vec<Text>>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<T> {
        if written.is_some_and(Vec::is_empty) {
            let remedy = "name at least one, or remove the field, which means any";
            self.refuse(field, at, Wrong::new("is empty", remedy));
        }
        self.list(field, written, parse)
    }

    /// A list that needs an item has none; a place is known only where something stands.
    pub(super) fn empty(&mut self, field: &str, remedy: &str) {
        let place = self.file();
        let what = format!("`{field}` is empty");
        self.push("bad-value", place, what, remedy.to_owned());
    }

    pub(super) fn push(&mut self, code: &'static str, place: Place, what: String, remedy: String) {
        self.findings.push(Finding {
            severity: Severity::Error,
            code,
            place,
            what,
            remedy,
        });
    }

    /// Something may not be what its author expects; the file counts all the same.
    pub(super) fn warn(&mut self, code: &'static str, place: Place, what: String, remedy: &str) {
        self.findings.push(Finding {
            severity: Severity::Warning,
            code,
            place,
            what,
            remedy: remedy.to_owned(),
        });
    }

    /// The meaning, if nothing was wrong.
    pub(super) fn finish<T>(self, meaning: Option<T>) -> Result<T, Vec<Finding>> {
        self.conclude(meaning).map(|(meaning, _)| meaning)
    }

    /// The meaning with its warnings, if nothing was wrong.
    pub(super) fn conclude<T>(
        mut self,
        meaning: Option<T>,
    ) -> Result<(T, Vec<Finding>), Vec<Finding>> {
        self.findings
            .sort_by_key(|finding| (finding.place.line, finding.place.column));
        let wrong = |finding: &Finding| finding.severity == Severity::Error;
        match meaning {
            Some(meaning) if !self.findings.iter().any(wrong) => Ok((meaning, self.findings)),
            _ => Err(self.findings),
        }
    }
}

/// The tree of a file that is a plain one of at most `limit` bytes.
pub(super) fn parsed(path: &Path, limit: u64) -> Result<Document, Finding> {
    let file = path.display().to_string();
    let text = plain_file::read(path, limit).map_err(|cause| Finding {
        severity: Severity::Error,
        code: "unreadable-file",
        place: Place::file(file.clone()),
        what: format!("cannot be read: {cause}"),
        remedy: "check that the file exists, is readable and is UTF-8 text".to_owned(),
    })?;
    Document::parse(&file, &text)
}

fn nothing() -> Node {
    Node {
        line: 1,
        column: 1,
        value: Value::Null,
    }
}
