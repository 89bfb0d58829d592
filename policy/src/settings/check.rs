//! What `tollgate check` says about files, without serving them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::api_file::read_with_places;
use super::directory_file::read_with_mentions;
use super::limit_check::{self, Charge};
use super::mention::{self, Named};
use super::meter_check::too_many_meters;
use super::override_check;
use super::{
    ApiConfig, HostPattern, ProcessConfig, SecurityMode, plain_file, read_process, reader,
};
use crate::access::ApiAccess;
use crate::classify::Classifier;
use crate::finding::{Finding, Place, Severity};
use crate::openapi::{self, Description};
use crate::source::Value;

/// Finds out what operations an API has: from its OpenAPI file, and from descriptors where it has any, which takes more than this crate.
pub type Describe<'a> = &'a dyn Fn(&ApiConfig) -> Result<Description, Vec<Finding>>;

/// Environment lookup.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The outcome of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything found, file by file.
    pub findings: Vec<Finding>,
    /// One entry per API that could be read.
    pub summaries: Vec<Summary>,
    /// What of plans, consumers and terms could be read; `None` where none was looked for or something is wrong.
    pub objects: Option<Objects>,
}

/// Plans, consumers and terms in a line.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The directory.
    pub directory: String,
    /// Plans.
    pub plans: usize,
    /// Consumers.
    pub consumers: usize,
    /// Terms.
    pub terms: usize,
}

/// One API in a line.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The OpenAPI file.
    pub file: String,
    /// `info.title`.
    pub title: String,
    /// `info.version`.
    pub version: String,
    /// Operations that can be routed.
    pub operations: usize,
    /// Findings of the classifier: templates that overlap, repeat or hide one another.
    pub overlaps: usize,
}

impl Report {
    /// Whether anything but notes was found.
    pub fn failed(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity > Severity::Note)
    }
}

/// Checks an OpenAPI file, an API file, `tollgate.yaml`, or a configuration directory. Of `plans.yaml`, `consumers.yaml` and
/// `terms.yaml` any stands for all three.
pub fn check(path: &Path, environment: Environment<'_>, describe: Describe<'_>) -> Report {
    let mut report = Report::default();
    if path.is_dir() {
        directory(path, environment, describe, &mut report);
        return report;
    }
    match kind(path) {
        Ok(Kind::Description) => alone(path, &mut report),
        Ok(Kind::Api) => drop(api(path, environment, describe, &mut report)),
        Ok(Kind::Process) => process(path, environment, &mut report),
        Ok(Kind::Directory) => {
            let parent = path.parent().unwrap_or(Path::new(""));
            objects(parent, environment, None, &mut report);
        }
        Err(finding) => report.findings.push(finding),
    }
    report
}

/// The `apis/*.yaml` of a configuration directory, by file name.
///
/// # Errors
/// The directory cannot be read.
pub fn api_files(directory: &Path) -> Result<Vec<PathBuf>, Finding> {
    let apis = directory.join("apis");
    let unreadable = |error: std::io::Error| {
        finding(
            Severity::Error,
            "unreadable-directory",
            Place::file(apis.display().to_string()),
            format!("cannot be read: {error}"),
            "a configuration directory has one file per API in apis/",
        )
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&apis).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ours = path
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if ours && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

enum Kind {
    Description,
    Api,
    Process,
    Directory,
}

fn kind(path: &Path) -> Result<Kind, Finding> {
    // Whatever it is: the longest of all that we read.
    let document = reader::parsed(path, plain_file::MAX_CONSUMERS)?;
    let has = |key: &str| matches!(&document.root.value, Value::Map(map) if map.get(key).is_some());
    if has("openapi") || has("swagger") || has("paths") {
        return Ok(Kind::Description);
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let named = stem == Some("tollgate");
    let objects = matches!(stem, Some("plans" | "consumers" | "terms"));
    Ok(if objects && !has("spec") {
        Kind::Directory
    } else if named || has("listeners") || has("admin") {
        Kind::Process
    } else {
        Kind::Api
    })
}

fn directory(
    path: &Path,
    environment: Environment<'_>,
    describe: Describe<'_>,
    report: &mut Report,
) {
    let file = path.join("tollgate.yaml");
    if file.exists() {
        process(&file, environment, report);
    }
    let files = match api_files(path) {
        Ok(files) => files,
        Err(finding) => return report.findings.push(finding),
    };
    if files.is_empty() {
        report.findings.push(finding(
            Severity::Note,
            "no-apis",
            Place::file(path.join("apis").display().to_string()),
            "no API is configured".to_owned(),
            "write one file per API, such as apis/bookstore.yaml",
        ));
    }
    let mut taken = BTreeMap::new();
    let mut apis = BTreeMap::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let read = api(&file, environment, describe, report);
        let named = read.map(|(config, bases, named)| {
            claim(&config, &bases, &mut taken, report);
            named
        });
        apis.insert(name.into_owned(), named.unwrap_or_default());
    }
    objects(path, environment, Some(&apis), report);
}

/// Plans, consumers and terms; held against the APIs where those are known.
fn objects(
    path: &Path,
    environment: Environment<'_>,
    apis: Option<&BTreeMap<String, Named>>,
    report: &mut Report,
) {
    match read_with_mentions(path, environment) {
        Ok(directory) => {
            report.objects = Some(Objects {
                directory: path.display().to_string(),
                plans: directory.config.plans.len(),
                consumers: directory.config.consumers.len(),
                terms: directory.config.terms.len(),
            });
            report.findings.extend(directory.warnings.iter().cloned());
            if let Some(apis) = apis {
                report.findings.extend(mention::across(&directory, apis));
                report
                    .findings
                    .extend(limit_check::across(&directory, apis));
                let overrides = override_check::across(&directory.config, apis);
                report.findings.extend(overrides);
            }
        }
        Err(findings) => report.findings.extend(findings),
    }
}

fn process(path: &Path, environment: Environment<'_>, report: &mut Report) {
    let unsaid = ProcessConfig::default_for(1, PathBuf::new());
    if let Err(findings) = read_process(path, unsaid, environment) {
        report.findings.extend(findings);
    }
}

fn api(
    path: &Path,
    environment: Environment<'_>,
    describe: Describe<'_>,
    report: &mut Report,
) -> Option<(ApiConfig, Vec<String>, Named)> {
    let mut placed = match read_with_places(path, environment) {
        Ok(read) => read,
        Err(findings) => {
            report.findings.extend(findings);
            return None;
        }
    };
    let (description, bases) = described(describe(&placed.config), report)?;
    let (access, mut found) = ApiAccess::compile(&placed.config, &description);
    let charges = Charge::all(&placed.config, &description);
    let limits = placed.config.limits_for(&description);
    let named = Named::of(&access, charges, limits);
    found.append(&mut placed.warnings);
    found.extend(mention::own(&placed, &named, &description));
    found.extend(limit_check::own(&placed.config, &description));
    found.extend(too_many_meters(&placed.config, &description));
    found.sort_by(|one, other| order(one).cmp(&order(other)));
    report.findings.append(&mut found);
    let config = placed.config;
    let bases = match &config.base_path {
        Some(base) => vec![base.to_string()],
        None => bases,
    };
    Some((config, bases, named))
}

/// A description without an API file, as `--spec` serves it.
fn alone(path: &Path, report: &mut Report) {
    let Some((description, _)) = described(openapi::load(path), report) else {
        return;
    };
    // The service does not matter for who may call.
    let service = "http://127.0.0.1";
    match ApiConfig::for_spec(path, service, SecurityMode::Enforce) {
        Ok(config) => {
            let found = ApiAccess::compile(&config, &description).1;
            report.findings.extend(found);
            report
                .findings
                .extend(limit_check::own(&config, &description));
            report
                .findings
                .extend(too_many_meters(&config, &description));
        }
        Err(finding) => report.findings.push(finding),
    }
}

/// By file, line and column.
fn order(finding: &Finding) -> (&str, u32, u32) {
    let place = &finding.place;
    (&place.file, place.line, place.column)
}

fn described(
    described: Result<Description, Vec<Finding>>,
    report: &mut Report,
) -> Option<(Description, Vec<String>)> {
    let description = match described {
        Ok(description) => description,
        Err(findings) => {
            report.findings.extend(findings);
            return None;
        }
    };
    let (classifier, overlaps) = Classifier::compile(&description);
    report.summaries.push(Summary {
        file: description.file.to_string(),
        title: description.title.clone(),
        version: description.version.clone(),
        operations: description.operations.len(),
        overlaps: overlaps.len(),
    });
    report.findings.extend(description.findings.iter().cloned());
    report.findings.extend(overlaps);
    let bases = classifier.bases().iter().map(ToString::to_string).collect();
    Some((description, bases))
}

/// Notes what an API claims; a host and base path that is taken already is a conflict.
fn claim(
    config: &ApiConfig,
    bases: &[String],
    taken: &mut BTreeMap<(String, String), String>,
    report: &mut Report,
) {
    let mut hosts: Vec<_> = config.hosts.iter().map(written_host).collect();
    if hosts.is_empty() {
        hosts.push("any host".to_owned());
    }
    for (host, base) in hosts
        .iter()
        .flat_map(|host| bases.iter().map(move |base| (host, base)))
    {
        let file = config.file.display().to_string();
        let Some(first) = taken.get(&(host.clone(), base.clone())) else {
            taken.insert((host.clone(), base.clone()), file);
            continue;
        };
        report.findings.push(finding(
            Severity::Error,
            "conflict",
            Place::file(file),
            format!("{host} with base path `{base}/` belongs to {first} already"),
            "give one of the two other `hosts` or another `base_path`; until then this one is refused",
        ));
    }
}

fn written_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    }
}

fn finding(
    severity: Severity,
    code: &'static str,
    place: Place,
    what: String,
    remedy: &str,
) -> Finding {
    Finding {
        severity,
        code,
        place,
        what,
        remedy: remedy.to_owned(),
    }
}
