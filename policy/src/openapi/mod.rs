//! OpenAPI files as Tollgate reads them: Swagger 2.0, OpenAPI 3.0, 3.1 and 3.2, leniently.
//!
//! A bad schema or operation is a finding, not a lost file. What a caller must show is never guessed: security that
//! cannot be read admits nobody. Not here: matching (`classify`), judging credentials.

mod extension;
mod finder;
mod issuer;
mod management;
mod model;
mod name;
mod parameter;
mod paths;
mod reference;
mod security;
mod server;

#[cfg(test)]
mod tests;

pub use model::*;

use std::path::Path;
use std::sync::Arc;

use crate::finding::Finding;
use crate::source::{Document, Node, Value};
use finder::Finder;
use reference::{Library, Spot};

/// Reads an OpenAPI file and the neighbours it refers to (relative `$ref`s, never the network).
///
/// # Errors
/// Findings that make the file unusable: unreadable, no JSON or YAML, no OpenAPI document, over a limit.
/// Everything less is in [`Description::findings`].
pub fn load(path: &Path) -> Result<Description, Vec<Finding>> {
    let text = reference::read_text(path).map_err(|finding| vec![finding])?;
    let file = path.display().to_string();
    let document = Document::parse(&file, &text).map_err(|finding| vec![finding])?;
    describe(&Library::beside(path, document))
}

/// Reads an OpenAPI text on its own: `$ref`s to other files are findings. `file` is only a name.
///
/// # Errors
/// As for [`load`].
pub fn load_text(file: &str, text: &str) -> Result<Description, Vec<Finding>> {
    let document = Document::parse(file, text).map_err(|finding| vec![finding])?;
    describe(&Library::alone(document))
}

/// Label-safe names for operations of these ids, unique among themselves.
pub fn label_safe_names(ids: &[Arc<str>]) -> Vec<Arc<str>> {
    let wishes: Vec<_> = ids.iter().map(|id| (Some(&**id), String::new())).collect();
    name::names(&wishes)
}

fn describe(library: &Library) -> Result<Description, Vec<Finding>> {
    let root = library.root();
    let mut finder = Finder::default();
    let dialect = dialect(root, &mut finder).map_err(|finding| vec![finding])?;
    let info = |key| {
        root.node
            .get("info")
            .and_then(|info| text_of(info.get(key)?))
    };
    let file = root.document.file.clone();
    let title = info("title").unwrap_or_else(|| file_name(&file));
    let version = info("version").unwrap_or_default();
    let limits = extension::limits(root, &mut finder);
    let paths = paths::read(library, dialect, &mut finder);
    Ok(Description {
        file,
        title,
        version,
        dialect,
        operations: paths.operations,
        settings: paths.settings,
        limits,
        servers: server::hints(root.node, dialect),
        findings: finder.into_findings(),
        files: library.files(),
    })
}

/// The dialect by the document's own word; what comes after 3.2 is read as 3.2.
fn dialect(root: Spot<'_>, finder: &mut Finder) -> Result<Dialect, Finding> {
    let (key, node) = match (root.node.get("openapi"), root.node.get("swagger")) {
        (Some(node), _) => ("openapi", node),
        (None, Some(node)) => ("swagger", node),
        (None, None) => {
            return Err(finder::unusable(
                root.place(),
                "not-openapi",
                "no OpenAPI description: neither `openapi` nor `swagger` stands in it",
                "begin the file with `openapi: 3.1.0`",
            ));
        }
    };
    let version = text_of(node).unwrap_or_default();
    let is = |line: &str| version == line || version.starts_with(&format!("{line}."));
    if key == "swagger" {
        return if is("2") {
            Ok(Dialect::Swagger20)
        } else {
            Err(finder::unusable(
                root.document.place(node),
                "unknown-version",
                &format!("Swagger version `{}` is not read", clip(&version)),
                "convert the file to Swagger 2.0 or OpenAPI 3",
            ))
        };
    }
    for (line, dialect) in [
        ("3.0", Dialect::OpenApi30),
        ("3.1", Dialect::OpenApi31),
        ("3.2", Dialect::OpenApi32),
    ] {
        if is(line) {
            return Ok(dialect);
        }
    }
    finder.warn(
        root.at(node).place(),
        "unknown-version",
        format!(
            "OpenAPI version `{}` is not known and read as 3.2",
            clip(&version)
        ),
        "use a version from 3.0 to 3.2",
    );
    Ok(Dialect::OpenApi32)
}

/// Text, or a number as its text: authors write `version: 1.0` without quotes.
fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text) => Some(text.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn file_name(file: &Arc<str>) -> String {
    let name = Path::new(&**file).file_name();
    name.map_or_else(
        || file.to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// A stranger's text as far as a message may hold it.
fn clip(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
