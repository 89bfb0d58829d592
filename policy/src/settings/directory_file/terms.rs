//! `terms.yaml` and the texts it names: documents consumers have to accept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::Deserialize;

use super::super::TermsConfig;
use super::super::decode::Text;
use super::super::mention::Mention;
use super::super::names;
use super::super::plain_file;
use super::super::reader::Reader;
use super::super::value::{self, Wrong};
use super::{File, title};
use crate::directory::TermsVersion;

/// Bytes of a text. People have to read it.
pub(super) const MAX_TEXT: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    terms: Option<BTreeMap<Text, WrittenTerms>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTerms {
    title: Option<Text>,
    apis: Option<Vec<Text>>,
    shadow: Option<Text>,
    versions: Vec<WrittenVersion>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenVersion {
    version: Text,
    text: Text,
    effective: Text,
    grace: Option<Text>,
    purpose: Option<Text>,
}

/// The terms, and the files their texts are in.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) terms: Vec<TermsConfig>,
    pub(super) mentions: Vec<Mention>,
    pub(super) files: Vec<PathBuf>,
}

impl File for Terms {
    type Written = Written;

    fn mean(reader: &mut Reader, written: &Written) -> Self {
        let mut found = Self::default();
        for (at, written) in written.terms.iter().flatten() {
            if let Some(terms) = found.one(reader, at, written) {
                found.terms.push(terms);
            }
        }
        found.files.sort();
        found.files.dedup();
        found
    }
}

impl Terms {
    fn one(
        &mut self,
        reader: &mut Reader,
        at: &Text,
        written: &WrittenTerms,
    ) -> Option<TermsConfig> {
        let field = |inner: &str| format!("terms.{}.{inner}", at.text);
        let name = reader.value("terms", Some(at), names::object);
        let title = reader.value(&field("title"), written.title.as_ref(), title);
        let shadow = reader.value(&field("shadow"), written.shadow.as_ref(), value::switch);
        let apis = reader.list(&field("apis"), written.apis.as_ref(), names::object);
        for one in written.apis.iter().flatten() {
            self.mentions.push(Mention {
                api: one.text.as_str().into(),
                operation: None,
                place: reader.place(one),
            });
        }
        let versions = self.versions(reader, &field("versions"), at, &written.versions);
        Some(TermsConfig {
            name: name?,
            title: title.unwrap_or_else(|| at.text.clone()),
            versions,
            apis,
            shadow: shadow.unwrap_or_default(),
            place: reader.place(at),
        })
    }

    fn versions(
        &mut self,
        reader: &mut Reader,
        field: &str,
        at: &Text,
        written: &[WrittenVersion],
    ) -> Vec<(TermsVersion, Arc<str>)> {
        if written.is_empty() {
            let wrong = Wrong::new("is empty", "write the first version, or remove the terms");
            reader.refuse(field, at, wrong);
        }
        let mut found: Vec<(TermsVersion, Arc<str>, &WrittenVersion)> = Vec::new();
        for one in written {
            if let Some((version, text)) = self.version(reader, field, one) {
                found.push((version, text, one));
            }
        }
        found.sort_by_key(|(version, _, _)| version.version);
        for pair in found.windows(2) {
            let [(earlier, _, _), (later, _, at)] = pair else {
                continue;
            };
            if earlier.version == later.version {
                let what = format!("{} stands twice", later.version);
                let wrong = Wrong::new(what, "count up: 1, 2, 3");
                reader.refuse(&format!("{field}.version"), &at.version, wrong);
            } else if later.effective < earlier.effective {
                let wrong = Wrong::new(
                    format!("is before version {} takes effect", earlier.version),
                    "later versions take effect later",
                );
                reader.refuse(&format!("{field}.effective"), &at.effective, wrong);
            }
        }
        let meant = found.into_iter();
        meant.map(|(version, text, _)| (version, text)).collect()
    }

    fn version(
        &mut self,
        reader: &mut Reader,
        field: &str,
        written: &WrittenVersion,
    ) -> Option<(TermsVersion, Arc<str>)> {
        let within = |inner: &str| format!("{field}.{inner}");
        let number = |text: &str| value::number::<u32>(text, 1, 1_000_000);
        let version = reader.value(&within("version"), Some(&written.version), number);
        let effective = &written.effective;
        let effective = reader.value(&within("effective"), Some(effective), value::moment);
        let grace = reader.value(&within("grace"), written.grace.as_ref(), value::days);
        let purpose = reader.value(&within("purpose"), written.purpose.as_ref(), purpose);
        let text = self.text(reader, &within("text"), &written.text);
        let text: Arc<str> = text?.into();
        let version = TermsVersion {
            version: version?,
            effective: effective?,
            grace: grace.unwrap_or_default(),
            text_hash: hash(&text),
            purpose_required: purpose.unwrap_or_default(),
        };
        Some((version, text))
    }

    fn text(&mut self, reader: &mut Reader, field: &str, written: &Text) -> Option<String> {
        if written.referred {
            let wrong = Wrong::new(
                "refers to a text where its path is due",
                "write the path alone, such as terms/bookstore.md",
            );
            reader.refuse(field, written, wrong);
            return None;
        }
        let path = reader.path(written);
        self.files.push(path.clone());
        match read(&path) {
            Ok(text) => Some(text),
            Err(cause) => {
                let place = reader.place(written);
                let what = format!("`{field}`: cannot read `{}`: {cause}", path.display());
                let remedy = "write the path of a Markdown file, relative to terms.yaml";
                reader.push("unreadable-text", place, what, remedy.to_owned());
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let text = plain_file::read(path, MAX_TEXT)?;
    match text.trim().is_empty() {
        true => Err("it is empty".to_owned()),
        false => Ok(text),
    }
}

fn purpose(text: &str) -> Result<bool, Wrong> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(Wrong::new(
            format!("`{text}` is neither required nor optional"),
            "write one of them",
        )),
    }
}

fn hash(text: &str) -> Arc<str> {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut written = String::with_capacity(64);
    for byte in digest.as_ref() {
        // Writing to a text cannot fail.
        let _ = write!(written, "{byte:02x}");
    }
    written.into()
}
