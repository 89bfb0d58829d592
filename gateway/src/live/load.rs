//! From files to one compiled API. Whatever goes wrong, a panic included, stays with that API.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tollgate_policy::settings::{self, ApiConfig};
use tollgate_policy::{Finding, Place, Severity};

use super::Origin;
use super::bundles::Held;
use super::copies::Kept;
use super::reflections::Reflections;
use crate::api::Api;
use crate::telemetry::Metrics;
use crate::transcode::face::{Described, Reflected, describe};

/// Bounds what a directory filled by mistake can cost.
const MAX_APIS: usize = 10_000;

/// What one API is made of.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Said on the command line.
    Given(Arc<ApiConfig>),
    /// A file of the directory.
    File(PathBuf),
    /// A bundle, as held.
    Bundle(Arc<Held>),
}

/// A successful load.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// The API.
    pub(super) api: Arc<Api>,
    /// Notes and warnings.
    pub(super) findings: Vec<Finding>,
    /// Files of the OpenAPI description, the named one first, and of descriptors.
    pub(super) spec_files: Vec<PathBuf>,
}

impl Source {
    /// The file an author would look into.
    pub(super) fn file(&self) -> &Path {
        match self {
            Self::Given(config) => &config.file,
            Self::File(file) => file,
            Self::Bundle(held) => held.file(),
        }
    }

    /// The API file, where there is one.
    pub(super) fn api_file(&self) -> Option<&Path> {
        match self {
            Self::Given(_) => None,
            Self::File(file) => Some(file),
            Self::Bundle(held) => held.kept.api_file.as_deref(),
        }
    }

    /// When it was written; now, where that cannot be told.
    pub(super) fn modified(&self) -> SystemTime {
        let file = self.api_file().unwrap_or_else(|| self.file());
        fs::metadata(file)
            .and_then(|metadata| metadata.modified())
            .unwrap_or_else(|_| SystemTime::now())
    }

    /// The generation of what is loaded now.
    pub(super) fn generation(&self, previous: Option<&Api>) -> u64 {
        match self {
            Self::Given(_) | Self::File(_) => previous.map_or(0, |api| api.generation) + 1,
            Self::Bundle(held) => held.stamp.generation,
        }
    }

    pub(super) fn read(&self) -> Result<ApiConfig, Vec<Finding>> {
        match self {
            Self::Given(config) => Ok((**config).clone()),
            Self::File(file) => settings::read_api(file, &environment),
            Self::Bundle(held) => held.read(&environment),
        }
    }
}

/// All APIs of the origin by name, and files that are ignored, in words.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn sources(origin: &Origin) -> Result<(BTreeMap<String, Source>, Vec<String>), String> {
    let directory = match origin {
        Origin::Single(config) => {
            let source = Source::Given(Arc::new((**config).clone()));
            return Ok((
                BTreeMap::from([(config.name.to_string(), source)]),
                Vec::new(),
            ));
        }
        Origin::Directory(directory) => directory.join("apis"),
        Origin::Bundles { .. } => return Ok(Default::default()),
    };
    let unreadable = |error| format!("cannot read {}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&directory).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let is_yaml = file
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !hidden {
            files.push(file);
        }
    }
    files.sort();
    let (mut sources, mut ignored) = (BTreeMap::new(), Vec::new());
    for file in files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if sources.len() >= MAX_APIS {
            ignored.push(format!(
                "{} is ignored: more than {MAX_APIS} APIs",
                file.display()
            ));
        } else if let Some(Source::File(first)) = sources.get(&name) {
            let (file, first) = (file.display(), first.display());
            ignored.push(format!("{file} is ignored: {first} has the same name"));
        } else {
            sources.insert(name, Source::File(file));
        }
    }
    Ok((sources, ignored))
}

/// Loads and compiles. `files` receives every file that was looked at, also when this fails.
pub(super) fn load(
    source: &Source,
    name: &str,
    generation: u64,
    previous: Option<&Api>,
    metrics: &Metrics,
    reflections: &Reflections,
    files: &mut Vec<PathBuf>,
) -> Result<Loaded, Vec<Finding>> {
    contained(source.file(), || {
        check_name(source, name)?;
        let config = source.read()?;
        files.extend(pem_files(&config).cloned());
        reflections.prepare(name, &config)?;
        let reflected = reflections.file(name);
        compile(config, &reflected, generation, previous, metrics, files)
    })
}

/// Loads a kept copy. `reflected` is where the original of its descriptors lies, if the service is asked for them.
pub(super) fn load_kept(
    source: &Source,
    kept: &Kept,
    metrics: &Metrics,
    reflected: &Path,
) -> Result<Loaded, Vec<Finding>> {
    contained(source.file(), || {
        let config = match &kept.api_file {
            Some(copy) => {
                let copy_of = |file: &Path| kept.copy_of(file);
                settings::read_kept_api(copy, source.file(), &copy_of, &environment)?
            }
            None => ApiConfig {
                spec: kept.spec.clone(),
                ..source.read()?
            },
        };
        let reflected = kept.copy_of(reflected);
        compile(config, &reflected, 1, None, metrics, &mut Vec::new())
    })
}

fn compile(
    config: ApiConfig,
    reflected: &Path,
    generation: u64,
    previous: Option<&Api>,
    metrics: &Metrics,
    files: &mut Vec<PathBuf>,
) -> Result<Loaded, Vec<Finding>> {
    let Described { description, face } = describe(&config, &Reflected::File(reflected), files)?;
    let spec_files = description.files.clone();
    let (api, findings) = Api::compile(config, description, face, generation, previous, metrics)?;
    Ok(Loaded {
        api: Arc::new(api),
        findings,
        spec_files,
    })
}

/// Names are labels of metrics and directories of the state, so they are checked before anything is done with them.
fn check_name(source: &Source, name: &str) -> Result<(), Vec<Finding>> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.is_empty() && name.len() <= 63 && name.bytes().all(plain) {
        return Ok(());
    }
    Err(vec![Finding {
        severity: Severity::Error,
        code: "api-name",
        place: Place::file(source.file().display().to_string()),
        what: format!("`{name}` is no name for an API"),
        remedy: "name the file with at most 63 of a-z, 0-9 and -, and the ending .yaml".to_owned(),
    }])
}

/// The certificates and keys an API file names: what they hold is part of the API as well.
fn pem_files(config: &ApiConfig) -> impl Iterator<Item = &PathBuf> {
    let tls = config.upstream.tls.iter();
    let tls = tls.flat_map(|tls| {
        let pair = tls.client_certificate.iter();
        tls.ca
            .iter()
            .chain(pair.flat_map(|(chain, key)| [chain, key]))
    });
    let issuers = config.auth.issuers.values();
    let issuers = issuers.filter_map(|issuer| issuer.ca.as_ref());
    let authoriser = config.authoriser.as_ref();
    tls.chain(issuers)
        .chain(authoriser.and_then(|it| it.ca.as_ref()))
}

/// Turns a panic into a finding: a fault of ours in one file must not end the process or spare another API its turn.
fn contained<T>(
    file: &Path,
    work: impl FnOnce() -> Result<T, Vec<Finding>>,
) -> Result<T, Vec<Finding>> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(vec![Finding {
            severity: Severity::Error,
            code: "internal",
            place: Place::file(file.display().to_string()),
            what: format!("loading failed inside Tollgate: {}", panic_text(&*panic)),
            remedy: "please report this with the file".to_owned(),
        }])
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic")
}

/// `${NAME}` in API files.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_error_of_its_file() {
        let outcome: Result<(), _> = contained(Path::new("apis/a.yaml"), || panic!("at {}", 7));
        let findings = outcome.unwrap_err();
        assert_eq!(findings[0].severity, Severity::Error);
        assert!(
            findings[0]
                .to_string()
                .starts_with("apis/a.yaml: error[internal]")
        );
        assert!(findings[0].what.ends_with("at 7"));
    }

    #[test]
    fn of_two_files_with_one_name_the_first_counts_and_hidden_files_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let apis = directory.path().join("apis");
        fs::create_dir(&apis).unwrap();
        for file in ["b.yml", "b.yaml", "a.yml", ".c.yaml", "d.yaml~", "..data"] {
            fs::write(apis.join(file), "").unwrap();
        }
        let origin = Origin::Directory(directory.path().to_owned());
        let (sources, ignored) = sources(&origin).unwrap();
        assert_eq!(sources.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(sources["b"].file().ends_with("b.yaml"));
        assert!(ignored.len() == 1 && ignored[0].contains("b.yml is ignored"));
    }
}
