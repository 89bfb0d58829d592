//! `$ref`: from one place of a description to another, in the same file or in one beside it.
//!
//! Promises: files of this disk only, never a URL; every file read once, at most [`MAX_FILES`]; cycles end.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::clip;
use super::finder::unusable;
use crate::finding::{Finding, Place};
use crate::source::{Document, MAX_BYTES, Node, Value};

/// Files one description may consist of. The largest real one split into files and read for its operations needs fewer.
const MAX_FILES: usize = 200;

/// `$ref`s followed one after another until a value must be there. Real chains have two or three.
const MAX_HOPS: usize = 32;

/// A node and the document it stands in, which its own `$ref`s are relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'l> {
    /// The document.
    pub(super) document: &'l Document,
    /// Its file on disk; `None` where the text stands alone.
    path: Option<&'l Path>,
    /// The node.
    pub(super) node: &'l Node,
}

impl<'l> Spot<'l> {
    /// Another node of the same document.
    pub(super) fn at(self, node: &'l Node) -> Self {
        Self { node, ..self }
    }

    /// The value of `key`, where this is a mapping that has it.
    pub(super) fn get(self, key: &str) -> Option<Self> {
        self.node.get(key).map(|node| self.at(node))
    }

    /// Where it stands.
    pub(super) fn place(self) -> Place {
        self.document.place(self.node)
    }
}

/// A reference that leads nowhere: why, and what to do about it.
#[derive(Clone, Debug)]
pub(super) struct DeadEnd {
    /// What is wrong, for the end of a message.
    pub(super) why: String,
    /// What to do.
    pub(super) remedy: String,
}

impl DeadEnd {
    /// The reference itself is wrong.
    fn wrong(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            remedy: "correct the `$ref`".to_owned(),
        }
    }
}

/// The files of one description, read when they are first needed.
#[derive(Debug)]
pub(super) struct Library {
    first: Shelf,
    others: Vec<OnceCell<Result<Shelf, DeadEnd>>>,
    /// Slot in `others` by file.
    slots: RefCell<HashMap<PathBuf, usize>>,
    used: Cell<usize>,
}

#[derive(Debug)]
struct Shelf {
    path: Option<PathBuf>,
    document: Document,
}

impl Shelf {
    fn root(&self) -> Spot<'_> {
        let Self { path, document } = self;
        Spot {
            document,
            path: path.as_deref(),
            node: &document.root,
        }
    }
}

impl Library {
    /// A description whose neighbours may be read.
    pub(super) fn beside(path: &Path, document: Document) -> Self {
        Self::new(Some(path.to_owned()), document)
    }

    /// A description without neighbours.
    pub(super) fn alone(document: Document) -> Self {
        Self::new(None, document)
    }

    fn new(path: Option<PathBuf>, document: Document) -> Self {
        let slots = if path.is_some() { MAX_FILES - 1 } else { 0 };
        Self {
            first: Shelf { path, document },
            others: std::iter::repeat_with(OnceCell::new).take(slots).collect(),
            slots: RefCell::default(),
            used: Cell::new(0),
        }
    }

    /// The root of the named file.
    pub(super) fn root(&self) -> Spot<'_> {
        self.first.root()
    }

    /// Every file read or tried: one that is missing today may be there tomorrow.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut others: Vec<_> = self
            .slots
            .borrow()
            .iter()
            .map(|(path, slot)| (*slot, path.clone()))
            .collect();
        others.sort();
        self.first
            .path
            .iter()
            .cloned()
            .chain(others.into_iter().map(|(_, path)| path))
            .collect()
    }

    /// Follows `$ref` from `spot` until something else stands there.
    ///
    /// # Errors
    /// Why it leads nowhere.
    pub(super) fn resolve<'l>(&'l self, spot: Spot<'l>) -> Result<Spot<'l>, DeadEnd> {
        self.follow(spot, &mut 0)
    }

    fn follow<'l>(&'l self, mut spot: Spot<'l>, hops: &mut usize) -> Result<Spot<'l>, DeadEnd> {
        while let Some(target) = spot.node.get("$ref") {
            *hops += 1;
            if *hops > MAX_HOPS {
                return Err(DeadEnd::wrong(format!(
                    "more than {MAX_HOPS} references lead to one another, perhaps in a circle"
                )));
            }
            let Some(target) = target.as_str() else {
                let why = format!("`$ref` is {} where text is due", target.kind());
                return Err(DeadEnd::wrong(why));
            };
            spot = self.target(spot, target, hops)?;
        }
        Ok(spot)
    }

    fn target<'l>(
        &'l self,
        from: Spot<'l>,
        target: &str,
        hops: &mut usize,
    ) -> Result<Spot<'l>, DeadEnd> {
        let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
        let mut spot = if file.is_empty() {
            from.at(&from.document.root)
        } else {
            self.file(from, file)?.root()
        };
        let pointer = percent_decoded(fragment);
        let Some(tokens) = pointer.strip_prefix('/') else {
            return if pointer.is_empty() {
                Ok(spot)
            } else {
                let why = format!("`{}` is no JSON pointer", clip(target));
                Err(DeadEnd::wrong(why))
            };
        };
        for token in tokens.split('/') {
            let token = token.replace("~1", "/").replace("~0", "~");
            // The way may lead through another reference.
            let here = match child(spot.node, &token) {
                Some(_) => spot,
                None => self.follow(spot, hops)?,
            };
            let node = child(here.node, &token);
            let missing = || DeadEnd::wrong(format!("`{}` is not there", clip(target)));
            spot = here.at(node.ok_or_else(missing)?);
        }
        Ok(spot)
    }

    fn file<'l>(&'l self, from: Spot<'l>, reference: &str) -> Result<&'l Shelf, DeadEnd> {
        let shown = clip(reference);
        let is_url = reference.starts_with("//")
            || reference
                .split_once(':')
                .is_some_and(|(scheme, _)| !scheme.contains('/'));
        if is_url {
            let why = format!("`{shown}` is a URL, and nothing is fetched from the network");
            return Err(DeadEnd::wrong(why));
        }
        let Some(own) = from.path else {
            let why = format!("`{shown}` is another file, and this text is read alone");
            return Err(DeadEnd::wrong(why));
        };
        let relative = percent_decoded(reference);
        if Path::new(&relative).is_absolute() || relative.contains('\0') {
            return Err(DeadEnd::wrong(format!("`{shown}` is no relative path")));
        }
        let path = plain(&own.parent().unwrap_or(Path::new("")).join(relative));
        if self
            .first
            .path
            .as_deref()
            .is_some_and(|first| plain(first) == path)
        {
            return Ok(&self.first);
        }
        let known = self.slots.borrow().get(&path).copied();
        let slot = known.unwrap_or_else(|| {
            let slot = self.used.get();
            if slot < self.others.len() {
                self.used.set(slot + 1);
                self.slots.borrow_mut().insert(path.clone(), slot);
            }
            slot
        });
        let Some(cell) = self.others.get(slot) else {
            return Err(DeadEnd {
                why: format!(
                    "`{shown}` would be file number {} of this description",
                    MAX_FILES + 1
                ),
                remedy: format!(
                    "join some of its files: a description may have {MAX_FILES} at most"
                ),
            });
        };
        cell.get_or_init(|| open(path))
            .as_ref()
            .map_err(Clone::clone)
    }
}

fn open(path: PathBuf) -> Result<Shelf, DeadEnd> {
    let read =
        read_text(&path).and_then(|text| Document::parse(&path.display().to_string(), &text));
    match read {
        Ok(document) => Ok(Shelf {
            path: Some(path),
            document,
        }),
        Err(finding) => Err(DeadEnd {
            why: format!("{}: {}", finding.place, finding.what),
            remedy: finding.remedy,
        }),
    }
}

/// The text of a file that is a plain one, UTF-8 and not over the limit.
pub(super) fn read_text(path: &Path) -> Result<String, Finding> {
    let unreadable = |what: String| {
        let place = Place::file(path.display().to_string());
        unusable(
            place,
            "unreadable",
            &what,
            "name a readable OpenAPI file in UTF-8",
        )
    };
    let about = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    // A pipe or device would be waited for, or never end.
    if !about.is_file() {
        return Err(unreadable("not a plain file".to_owned()));
    }
    if usize::try_from(about.len()).map_or(true, |bytes| bytes > MAX_BYTES) {
        return Err(Document::too_large(&path.display().to_string()));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

fn child<'n>(node: &'n Node, token: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(map) => map.get(token),
        Value::List(list) => list.get(token.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The path without `.` and `..`, so that a file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(plain.components().next_back(), Some(Component::Normal(_))) =>
            {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// `%41` as `A`; a `%` without two hex digits stays, and so does all where the result is no UTF-8.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let pair = tail.get(..2).filter(|_| *first == b'%');
        let hex = pair
            .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit))
            .and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        bytes.push(hex.unwrap_or(*first));
        rest = if hex.is_some() {
            tail.get(2..).unwrap_or_default()
        } else {
            tail
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}
