//! `plans.yaml`, `consumers.yaml` and `terms.yaml` with its texts: read together, because they refer to one another.
//!
//! Promises: 100,000 consumers are read in seconds; every mistake of the three files is told at once, each with its place. Not
//! here: whether the APIs they name exist, and what the store adds.

mod consumers;
mod plans;
mod terms;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::consumers::Consumers;
use self::plans::Plans;
use self::terms::Terms;
use super::DirectoryConfig;
use super::decode::{Text, nearest};
use super::mention::Mention;
use super::override_check;
use super::plain_file;
use super::reader::Reader;
use super::value::Wrong;
use crate::finding::{Finding, Place, Severity};

/// Environment lookup.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads `plans.yaml`, `consumers.yaml` and `terms.yaml` of `dir`, each of which may be absent. `environment` answers
/// `${NAME}`. With the meaning come the files it was read from and those that would be, were they there: a change of any is a
/// change of the directory.
///
/// # Errors
/// Everything that is wrong with them, file by file.
pub fn read_directory(
    dir: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(DirectoryConfig, Vec<PathBuf>), Vec<Finding>> {
    read_with_mentions(dir, environment).map(|read| (read.config, read.files))
}

/// A directory, and what only a check looks at.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) config: DirectoryConfig,
    pub(super) files: Vec<PathBuf>,
    /// APIs and operations that are named.
    pub(super) mentions: Vec<Mention>,
    pub(super) warnings: Vec<Finding>,
}

/// As [`read_directory`], with mentions and warnings.
pub(super) fn read_with_mentions(
    dir: &Path,
    environment: Environment<'_>,
) -> Result<Directory, Vec<Finding>> {
    let paths = ["plans.yaml", "consumers.yaml", "terms.yaml"].map(|name| dir.join(name));
    let [plans_file, consumers_file, terms_file] = &paths;
    let mut findings = Vec::new();
    let plans = read::<Plans>(plans_file, environment, &mut findings);
    let consumers = read::<Consumers>(consumers_file, environment, &mut findings);
    let terms = read::<Terms>(terms_file, environment, &mut findings);
    // What refers to a file that is broken itself is not judged: one mistake should not look like a hundred.
    if let (Some(plans), Some(consumers)) = (&plans, &consumers) {
        consumers.check_plans(plans, &mut findings);
        findings.extend(override_check::of_plans(
            &plans.plans,
            &consumers.consumers,
            consumers.granted(),
        ));
    }
    if let (Some(plans), Some(terms)) = (&plans, &terms) {
        plans.check_terms(terms, &mut findings);
    }
    let broken = findings.iter().any(|it| it.severity == Severity::Error);
    let (Some(plans), Some(consumers), Some(terms), false) = (plans, consumers, terms, broken)
    else {
        return Err(findings);
    };
    let mut files = paths.to_vec();
    files.extend(terms.files);
    let mut mentions = plans.mentions;
    mentions.extend(consumers.mentions);
    mentions.extend(terms.mentions);
    Ok(Directory {
        config: DirectoryConfig {
            organisations: consumers.organisations,
            projects: consumers.projects,
            consumers: consumers.consumers,
            plans: plans.plans,
            terms: terms.terms,
        },
        files,
        mentions,
        warnings: findings,
    })
}

/// One of the three files.
trait File: Default {
    /// Its written shape.
    type Written: for<'n> serde::Deserialize<'n>;

    /// Bytes of it at most.
    const LONGEST: u64 = plain_file::MAX_SETTINGS;

    /// Its meaning; mistakes go to `reader`.
    fn mean(reader: &mut Reader, written: &Self::Written) -> Self;
}

/// The meaning of a file, of an absent one too; `None` where it is wrong.
fn read<F: File>(
    path: &Path,
    environment: Environment<'_>,
    findings: &mut Vec<Finding>,
) -> Option<F> {
    // What cannot be asked for is opened, which says why.
    if path.try_exists().is_ok_and(|there| !there) {
        return Some(F::default());
    }
    let read = || {
        let mut reader = Reader::open_within(path, F::LONGEST).map_err(|finding| vec![finding])?;
        let written = reader.decode::<F::Written>(environment);
        let meaning = written.map(|written| F::mean(&mut reader, &written));
        reader.conclude(meaning)
    };
    match read() {
        Ok((meaning, warnings)) => {
            findings.extend(warnings);
            Some(meaning)
        }
        Err(wrong) => {
            findings.extend(wrong);
            None
        }
    }
}

/// What may stand once only: where it stood first.
#[derive(Default)]
struct Taken<K>(HashMap<K, u32>);

impl<K: std::hash::Hash + Eq> Taken<K> {
    /// Takes `key` for `at`, or says that it is taken.
    fn take(&mut self, reader: &mut Reader, field: &str, at: &Text, key: K, what: &str) {
        if let Some(line) = self.0.get(&key) {
            let wrong = Wrong::new(
                format!("{what} stands twice, first in line {line}"),
                "keep one of the two",
            );
            reader.refuse(field, at, wrong);
            return;
        }
        self.0.insert(key, at.line);
    }
}

/// A name that refers to nothing.
fn unknown<'n>(
    name: &str,
    kind: &str,
    place: &Place,
    known: impl Iterator<Item = &'n Arc<str>>,
    otherwise: &str,
) -> Finding {
    Finding {
        severity: Severity::Error,
        code: "unknown-name",
        place: place.clone(),
        what: format!("there is no {kind} `{name}`"),
        remedy: match nearest(name, known.map(|name| &**name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => otherwise.to_owned(),
        },
    }
}

/// What people read: one line.
fn title(text: &str) -> Result<String, Wrong> {
    match text.len() <= 200 && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            "is no title: one line of at most 200 bytes",
            "make it shorter",
        )),
    }
}
