//! References in values: `${NAME}` is replaced by an environment variable, `file:PATH` by a file's text.
//!
//! Secrets are never written in a configuration file. The environment comes in as a function; a value that came out of a
//! reference is not looked at again.

use std::path::Path;

use super::plain_file;
use super::value::Wrong;

/// Longest text a `file:` reference may bring in: a secret, not a document.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Answers `${NAME}`.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where references are resolved.
pub(super) struct References<'a> {
    /// Environment lookup; `None` where references are not honoured (in a description somebody else wrote).
    pub(super) environment: Option<Environment<'a>>,
    /// What relative paths are relative to.
    pub(super) directory: &'a Path,
}

impl References<'_> {
    /// References are text like any other, in what strangers write.
    pub(super) fn unread() -> References<'static> {
        References {
            environment: None,
            directory: Path::new(""),
        }
    }

    /// `written` with its references replaced. `$${` stands for a literal `${`.
    pub(super) fn resolve(&self, written: &str) -> Result<String, Wrong> {
        let Some(environment) = self.environment else {
            return Ok(written.to_owned());
        };
        if let Some(path) = written.strip_prefix("file:") {
            return self.file(path);
        }
        let mut resolved = String::with_capacity(written.len());
        let mut rest = written;
        while let Some(start) = rest.find("${") {
            let (before, found) = rest.split_at(start);
            let inner = found.strip_prefix("${").unwrap_or_default();
            if let Some(escaped) = before.strip_suffix('$') {
                resolved.push_str(escaped);
                resolved.push_str("${");
                rest = inner;
                continue;
            }
            resolved.push_str(before);
            let Some((name, after)) = inner.split_once('}') else {
                return Err(Wrong::new(
                    format!("`{written}` has a `${{` without `}}`"),
                    "write `${NAME}`, or `$${` for a literal `${`",
                ));
            };
            let Some(value) = environment(name) else {
                return Err(Wrong::new(
                    format!("the environment variable `{name}` is not set"),
                    format!("set {name} before starting"),
                ));
            };
            resolved.push_str(&value);
            rest = after;
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    /// Whether `written` is one reference and nothing else.
    pub(super) fn refers(&self, written: &str) -> bool {
        let variable = written
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'));
        let whole = variable.is_some_and(|name| !name.contains(['$', '{', '}']));
        self.environment.is_some() && (whole || written.starts_with("file:"))
    }

    fn file(&self, path: &str) -> Result<String, Wrong> {
        let path = self.directory.join(path);
        let unreadable = |cause: String| {
            Wrong::new(
                format!("cannot read `{}`: {cause}", path.display()),
                "make the file readable, or correct the path after `file:`",
            )
        };
        let text = plain_file::read(&path, MAX_FILE_BYTES).map_err(unreadable)?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }
}
