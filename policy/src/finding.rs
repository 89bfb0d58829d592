//! What is wrong with a file, said to the person who can fix it: where, what, remedy.

use std::fmt;
use std::sync::Arc;

/// A position in a file somebody wrote. Lines and columns count from 1; 0 means the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Line, from 1; 0 where the finding is about the whole file.
    pub line: u32,
    /// Column in characters, from 1; 0 where the finding is about the whole line.
    pub column: u32,
}

impl Place {
    /// The whole file.
    pub fn file(file: impl Into<Arc<str>>) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong (an overlap that precedence resolves). Never makes `check` fail.
    Note,
    /// Something is not served as its author may expect; the rest is. Makes `check` exit 1.
    Warning,
    /// The file cannot be served. Makes `check` exit 1 and a reload keep the previous version.
    Error,
}

/// One thing found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Short stable name in kebab-case, such as `duplicate-key`.
    pub code: &'static str,
    /// Where.
    pub place: Place,
    /// What is wrong: lower case, no full stop.
    pub what: String,
    /// What to do about it: lower case, no full stop.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(
            f,
            "{}: {severity}[{}]: {}",
            self.place, self.code, self.what
        )?;
        if self.remedy.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.remedy)
        }
    }
}
