//! What a control plane publishes: the files of each API of a configuration directory that was loaded by this engine.
//!
//! Private keys and secrets are never among them: references lead to the node's own, and so do client certificates. Not here: generations.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_policy::access::ApiAccess;
use tollgate_policy::settings::{ApiConfig, DescriptorSource, KeySource};
use tollgate_proto::bundles::check_files;
use tollgate_proto::wire::BundleFile;

use super::super::copies::Copies;
use super::super::entry::Entry;
use super::super::fingerprint::{Fingerprint, read_limited};
use super::super::status::State;
use super::super::{Live, watch};
use super::lacks_descriptions;

/// Bytes of a file of public keys.
const MAX_KEYS: u64 = 4 << 20;

/// One API of a directory, ready to be published or not.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Name.
    pub api: String,
    /// All it is compiled from; `None` where it is broken.
    pub files: Option<Vec<BundleFile>>,
    /// The service it stands before; empty: none.
    pub service: String,
    /// Who may call it; `None` where it is broken, or its service did not say yet what it serves.
    pub access: Option<Arc<ApiAccess>>,
    /// What is wrong with it, and warnings; one finding each.
    pub findings: Vec<String>,
}

impl Live {
    /// Every API of the directory with its files, as they were when they were loaded last. Blocks.
    pub fn packed(&self) -> Vec<Packed> {
        let entries: BTreeMap<String, Entry> = self.entries.lock().clone();
        let packed = entries.iter().map(|(name, entry)| self.pack(name, entry));
        packed.collect()
    }

    /// Tells whether anything may have changed of what [`Live::packed`] has, and [`Live::reload`] is due. Blocks.
    pub fn stamp(&self) -> u64 {
        let mut directories = watch::directories(self);
        for api in self.apis().load().all() {
            let keys = key_files(&api.config).into_iter();
            directories.extend(keys.filter_map(|file| file.parent().map(Path::to_owned)));
        }
        watch::signature(&directories)
    }

    fn pack(&self, name: &str, entry: &Entry) -> Packed {
        let mut packed = Packed {
            api: name.to_owned(),
            files: None,
            service: String::new(),
            access: None,
            findings: entry.last_error.lines().map(str::to_owned).collect(),
        };
        let gathered = match (&entry.serving, entry.state) {
            (Some(served), State::Serving) => {
                packed.findings.extend(served.warnings.iter().cloned());
                let config = &served.api.config;
                packed.service = service(config);
                packed.access = Some(Arc::clone(&served.api.access));
                let reflected = self.reflections.file(name);
                gather(entry, config, &reflected)
            }
            _ if lacks_descriptions(&entry.last_error) => match entry.source.read() {
                Ok(config) if config.spec.is_none() => {
                    packed.service = service(&config);
                    unasked(entry, &config)
                }
                _ => return packed,
            },
            _ => return packed,
        };
        let files = gathered.map_err(|error| error.to_string());
        match files.and_then(|files| check_files(&files).map(|()| files)) {
            Ok(files) => packed.files = Some(files),
            Err(why) => {
                let file = entry.source.file().display();
                let line = format!("{file}: error[not-published]: {why}");
                packed.findings.push(line);
            }
        }
        packed
    }
}

fn service(config: &ApiConfig) -> String {
    config.service.as_deref().unwrap_or_default().to_owned()
}

/// The files of an API that was loaded.
fn gather(entry: &Entry, config: &ApiConfig, reflected: &Path) -> io::Result<Vec<BundleFile>> {
    let loaded = &entry.fingerprint;
    let api_file = entry.source.api_file();
    let tls = config.upstream.tls.as_ref();
    let pair = tls.and_then(|tls| tls.client_certificate.as_ref());
    let own = |file: &Path| {
        pair.is_some_and(|(chain, key)| file == chain || file == key)
            || file == reflected
            || Some(file) == api_file
    };
    let files = loaded.files().filter(|file| loaded.hash_of(file).is_some());
    let mut files: Vec<PathBuf> = files.filter(|file| !own(file)).cloned().collect();
    let first = description(config);
    // The first is taken for the description.
    files.sort_by_key(|file| first != Some(file));
    finish(Copies::read(api_file, &files, loaded)?, config)
}

/// The files of a gRPC API whose service did not answer here: nodes ask it themselves.
fn unasked(entry: &Entry, config: &ApiConfig) -> io::Result<Vec<BundleFile>> {
    let rules = config.grpc.as_ref().and_then(|grpc| grpc.rules.clone());
    let files: Vec<PathBuf> = rules.into_iter().collect();
    let api_file = entry.source.api_file();
    let all: Vec<PathBuf> = api_file
        .map(Path::to_owned)
        .into_iter()
        .chain(files.clone())
        .collect();
    finish(
        Copies::read(api_file, &files, &Fingerprint::of(&all))?,
        config,
    )
}

fn finish(mut copies: Copies, config: &ApiConfig) -> io::Result<Vec<BundleFile>> {
    for file in key_files(config) {
        let bytes = read_limited(file, MAX_KEYS)?;
        copies.add("file", std::path::absolute(file)?, bytes)?;
    }
    let files = copies.into_files();
    if let Some(file) = files.iter().find(|file| holds_private_key(&file.content)) {
        let text = format!(
            "`{}` holds a private key, which stays where it is",
            file.path
        );
        return Err(io::Error::other(text));
    }
    Ok(files)
}

/// The file an API is described by.
fn description(config: &ApiConfig) -> Option<&PathBuf> {
    let described = config.grpc.as_ref().and_then(|grpc| match &grpc.source {
        DescriptorSource::Set(file) => Some(file),
        DescriptorSource::Protos { files, .. } => files.first(),
        DescriptorSource::Reflection { .. } => None,
    });
    config.spec.as_ref().or(described)
}

/// Files of issuers' public keys.
fn key_files(config: &ApiConfig) -> Vec<&PathBuf> {
    let issuers = config.auth.issuers.values();
    let files = issuers.filter_map(|issuer| match &issuer.keys {
        KeySource::File(file) => Some(file),
        KeySource::Discovery(_) | KeySource::Url(_) | KeySource::Secret(_) => None,
    });
    files.collect()
}

fn holds_private_key(content: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    content.windows(MARK.len()).any(|window| window == MARK)
}
