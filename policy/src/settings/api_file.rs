//! `apis/<name>.yaml`: as written, and turned into [`ApiConfig`]. Not here: the OpenAPI file it names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::acl_file::{Scope, WrittenNetworks, WrittenRule, networks, rules};
use super::auth_file::{WrittenAuth, auth};
use super::authoriser_file::{WrittenAuthoriser, authoriser};
use super::decode::Text;
use super::grpc_file::{self, WrittenGrpc};
use super::limit_file::{Owner, WrittenLimit, api_limit, limits};
use super::operation_file::{WrittenOperation, settings};
use super::origin::origin;
use super::reader::Reader;
use super::upstream_file::{WrittenUpstream, plain, target, upstream};
use super::value::{self, Wrong};
use super::{
    ApiConfig, AuthConfig, HostPattern, HostRewrite, NetworkLists, OperationSettings, Rewrite,
    SecurityMode,
};
use crate::finding::{Finding, Place, Severity};
use crate::openapi;
use crate::quota::Limit;
use crate::workload::{Kind, WorkloadId};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    spec: Option<Text>,
    hosts: Option<Vec<Text>>,
    base_path: Option<Text>,
    service: Option<Text>,
    admissions_from: Option<Vec<Text>>,
    upstream: Option<WrittenUpstream>,
    security: Option<Text>,
    auth: Option<WrittenAuth>,
    acl: Option<Vec<WrittenRule>>,
    networks: Option<WrittenNetworks>,
    websocket_origins: Option<Vec<Text>>,
    limits: Option<Vec<WrittenLimit>>,
    authoriser: Option<WrittenAuthoriser>,
    rewrite: Option<WrittenRewrite>,
    grpc: Option<WrittenGrpc>,
    defaults: Option<WrittenOperation>,
    operations: Option<BTreeMap<Text, Option<WrittenOperation>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRewrite {
    host: Option<Text>,
    base_path: Option<Text>,
}

/// Reads `apis/<name>.yaml`. `environment` answers `${NAME}`.
///
/// # Errors
/// Everything that is wrong with the file, in its order.
pub fn read_api(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ApiConfig, Vec<Finding>> {
    read_with_places(path, environment).map(|placed| placed.config)
}

/// Reads a copy of `original` made earlier, beside copies of its OpenAPI file and of what `grpc` names, of which `kept` says where they
/// lie. Whatever else it names (roots, public keys) is taken from a copy where there is one; else, as secrets and private keys always
/// are, it is looked for where the original leads.
///
/// # Errors
/// As [`read_api`].
pub fn read_kept_api(
    copy: &Path,
    original: &Path,
    kept: &dyn Fn(&Path) -> std::path::PathBuf,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ApiConfig, Vec<Finding>> {
    let reader = Reader::open(copy).map_err(|finding| vec![finding])?;
    let mut reader = reader.standing_in_for(original);
    let directory = original.parent().unwrap_or(Path::new(""));
    let copied = |text: &Text| -> Option<String> {
        let copy = kept(&directory.join(&text.text));
        copy.is_file().then(|| copy.display().to_string())
    };
    let meaning = reader
        .decode::<Written>(environment)
        .and_then(|mut written| {
            if let Some(named) = &mut written.spec {
                named.text = kept(&reader.path(named)).display().to_string();
            }
            if let Some(grpc) = &mut written.grpc {
                grpc.moved(|text| kept(&reader.path(text)));
            }
            let upstream = written.upstream.iter_mut();
            let upstream = upstream.flat_map(WrittenUpstream::public_files);
            let auth = written.auth.iter_mut().flat_map(WrittenAuth::public_files);
            let authoriser = written.authoriser.iter_mut();
            let authoriser = authoriser.flat_map(WrittenAuthoriser::public_files);
            for text in upstream.chain(auth).chain(authoriser) {
                if let Some(copy) = copied(text) {
                    text.text = copy;
                }
            }
            config(&mut reader, original, &written)
        });
    reader.conclude(meaning).map(|(placed, _)| placed.config)
}

/// An API, and what only a check looks at.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) config: ApiConfig,
    /// The place of each key under `operations:`.
    pub(super) operations: Vec<(String, Place)>,
    pub(super) warnings: Vec<Finding>,
}

/// As [`read_api`], with places and warnings.
pub(super) fn read_with_places(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Placed, Vec<Finding>> {
    let mut reader = Reader::open(path).map_err(|finding| vec![finding])?;
    let meaning = reader
        .decode::<Written>(environment)
        .and_then(|written| config(&mut reader, path, &written));
    reader
        .conclude(meaning)
        .map(|(placed, warnings)| Placed { warnings, ..placed })
}

fn config(reader: &mut Reader, path: &Path, written: &Written) -> Option<Placed> {
    let name = api_name(reader, path);
    let spec = spec(reader, written);
    let grpc = written.grpc.as_ref();
    let grpc = grpc.map(|written| grpc_file::grpc(reader, written));
    let upstream = match &written.upstream {
        Some(written) => upstream(reader, written),
        None => {
            reader.missing("upstream", "write `upstream: http://host:port`");
            None
        }
    };
    if grpc.is_some() {
        grpc_file::fits(reader, upstream.as_ref());
    }
    let (operations, places) = operations(reader, written.operations.as_ref());
    // Everything is read before the first `?`, so that one missing field hides no other mistake.
    let hosts = reader.list("hosts", written.hosts.as_ref(), value::host);
    let base_path = reader.value("base_path", written.base_path.as_ref(), value::base_path);
    let service = reader.value("service", written.service.as_ref(), service);
    let security = security(reader, written);
    let auth = auth(reader, written.auth.as_ref());
    let acl = written.acl.as_deref().unwrap_or_default();
    let acl = rules(reader, "acl", acl, Scope::Api);
    let networks = networks(reader, written.networks.as_ref());
    let origins = written.websocket_origins.as_ref();
    let websocket_origins = reader.list("websocket_origins", origins, origin);
    let limits = written.limits.as_deref().unwrap_or_default();
    let owner = Owner::Api(name.as_deref().unwrap_or_default());
    let limits = self::limits(reader, "limits", limits, owner);
    let authoriser = authoriser(reader, written.authoriser.as_ref());
    let rewrite = rewrite(reader, written.rewrite.as_ref());
    let defaults = written.defaults.as_ref();
    let defaults = defaults.map(|it| settings(reader, "defaults", it));
    let config = ApiConfig {
        name: name?,
        file: path.to_owned(),
        spec: spec?,
        grpc: match grpc {
            Some(grpc) => Some(grpc?),
            None => None,
        },
        hosts,
        base_path,
        service,
        admissions_from: reader.list("admissions_from", written.admissions_from.as_ref(), gateway),
        upstream: upstream?,
        security,
        auth,
        acl,
        networks,
        websocket_origins,
        limits,
        authoriser,
        rewrite,
        defaults: defaults.unwrap_or_default(),
        operations,
    };
    Some(Placed {
        config,
        operations: places,
        warnings: Vec::new(),
    })
}

/// Whoever writes rules and switches off what they need is told so.
fn security(reader: &mut Reader, written: &Written) -> SecurityMode {
    let said = written.security.as_ref();
    let mode = reader.value("security", said, value::security);
    let rules = [
        ("auth", written.auth.is_some()),
        ("acl", written.acl.is_some()),
    ];
    let idle: Vec<_> = rules.iter().filter(|(_, there)| *there).collect();
    if let (Some(SecurityMode::Off), Some(said), [(first, _), ..]) = (mode, said, idle.as_slice()) {
        let place = reader.place(said);
        let what = format!("`security` is off beside `{first}`: nobody is asked who they are");
        let remedy = "write `security: enforce`, or remove the rules";
        reader.warn("security-off", place, what, remedy);
    }
    mode.unwrap_or_default()
}

fn api_name(reader: &mut Reader, path: &Path) -> Option<Arc<str>> {
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&stem.len()) && stem.bytes().all(fit) {
        return Some(stem.into());
    }
    let place = reader.file();
    reader.push(
        "bad-name",
        place,
        format!("`{stem}` cannot be the name of an API"),
        "rename the file: lower-case letters, digits and `-`, at most 63".to_owned(),
    );
    None
}

/// The OpenAPI file; the inner `None` where a gRPC service does without.
fn spec(reader: &mut Reader, written: &Written) -> Option<Option<std::path::PathBuf>> {
    match &written.spec {
        Some(spec) => existing_spec(reader, spec).map(Some),
        None if written.grpc.is_some() => Some(None),
        None => {
            let remedy =
                "write `spec: ../specs/name.yaml`, the OpenAPI file, or `grpc` for a gRPC service";
            reader.missing("spec", remedy);
            None
        }
    }
}

fn existing_spec(reader: &mut Reader, spec: &Text) -> Option<std::path::PathBuf> {
    let path = reader.path(spec);
    if path.is_file() {
        return Some(path);
    }
    let place = reader.place(spec);
    reader.push(
        "missing-spec",
        place,
        format!("`spec`: there is no file `{}`", path.display()),
        "paths are relative to the directory of this file".to_owned(),
    );
    None
}

/// The name of a gateway, as it stands in identities.
fn gateway(text: &str) -> Result<Arc<str>, Wrong> {
    let id = WorkloadId::new("domain", Kind::Gateway, text);
    id.map(|id| Arc::clone(id.name())).map_err(|_| {
        Wrong::new(
            format!("`{text}` is no name of a gateway"),
            "write the NAME of spiffe://DOMAIN/gateway/NAME, of a-z, 0-9 and -",
        )
    })
}

/// The name of a service, as it stands in identities.
fn service(text: &str) -> Result<Arc<str>, Wrong> {
    let id = WorkloadId::new("domain", Kind::Service, text);
    id.map(|id| Arc::clone(id.name())).map_err(|_| {
        Wrong::new(
            format!("`{text}` is no name of a service"),
            "write 1 to 63 of a-z, 0-9 and -, with no - at either end",
        )
    })
}

fn rewrite(reader: &mut Reader, written: Option<&WrittenRewrite>) -> Rewrite {
    let unsaid = WrittenRewrite::default();
    let written = written.unwrap_or(&unsaid);
    let host = |text: &str| match text {
        "preserve" => Ok(HostRewrite::Preserve),
        "upstream" => Ok(HostRewrite::Upstream),
        name => fixed_host(name),
    };
    Rewrite {
        host: reader
            .value("rewrite.host", written.host.as_ref(), host)
            .unwrap_or_default(),
        base_path: reader.value(
            "rewrite.base_path",
            written.base_path.as_ref(),
            value::base_path,
        ),
    }
}

fn fixed_host(text: &str) -> Result<HostRewrite, Wrong> {
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "1"));
    if value::name(name) && port.parse::<u16>().is_ok() {
        return Ok(HostRewrite::Fixed(text.to_ascii_lowercase().into()));
    }
    Err(Wrong::new(
        format!("`{text}` is no host"),
        "write preserve, upstream, or a host name",
    ))
}

type Operations = (BTreeMap<String, OperationSettings>, Vec<(String, Place)>);

fn operations(
    reader: &mut Reader,
    written: Option<&BTreeMap<Text, Option<WrittenOperation>>>,
) -> Operations {
    let mut found = Operations::default();
    for (key, written) in written.into_iter().flatten() {
        let field = format!("operations.{}", key.text);
        let settings = written
            .as_ref()
            .map(|it| settings(reader, &field, it))
            .unwrap_or_default();
        found.0.insert(key.text.clone(), settings);
        found.1.push((key.text.clone(), reader.place(key)));
    }
    found
}

impl ApiConfig {
    /// The configuration of `--spec FILE --upstream URL`: any host, every default, named after the file.
    ///
    /// # Errors
    /// The URL is none we speak.
    pub fn for_spec(
        spec: &Path,
        upstream_url: &str,
        security: SecurityMode,
    ) -> Result<Self, Finding> {
        let target = target(upstream_url).map_err(|wrong| Finding {
            severity: Severity::Error,
            code: "bad-value",
            place: Place::file("--upstream"),
            what: wrong.what,
            remedy: wrong.remedy,
        })?;
        let stem = spec
            .file_stem()
            .map(|stem| stem.to_string_lossy().to_lowercase());
        let fit = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = stem.unwrap_or_default().chars().map(fit).take(63).collect();
        let name = name.trim_matches('-');
        Ok(Self {
            name: if name.is_empty() { "api" } else { name }.into(),
            file: spec.to_owned(),
            spec: Some(spec.to_owned()),
            grpc: None,
            hosts: Vec::<HostPattern>::new(),
            base_path: None,
            service: None,
            admissions_from: Vec::new(),
            upstream: plain(target),
            security,
            auth: AuthConfig::default(),
            acl: Vec::new(),
            networks: NetworkLists::default(),
            websocket_origins: Vec::new(),
            limits: Vec::new(),
            authoriser: None,
            rewrite: Rewrite::default(),
            defaults: OperationSettings::default(),
            operations: BTreeMap::new(),
        })
    }

    /// All limits of this API, by the ids they are counted under: those of its file, and of those its description carries the ones
    /// whose name the file does not use.
    pub fn limits_for(&self, description: &openapi::Description) -> Vec<Arc<Limit>> {
        let unsaid = |limit: &&Arc<Limit>| self.limits.iter().all(|own| own.name != limit.name);
        let described = description.limits.iter().filter(unsaid).map(|limit| {
            Arc::new(Limit {
                id: api_limit(&self.name, &limit.name),
                ..Limit::clone(limit)
            })
        });
        self.limits.iter().cloned().chain(described).collect()
    }

    /// What holds for one operation: the file's entry for it, then the file's defaults, then what the description says.
    /// Its `acl`, from the innermost of these places that has one, is about this operation alone.
    pub fn settings_for(&self, operation: &openapi::Operation) -> OperationSettings {
        let names = operation.names().into_iter();
        // A label-safe name that was made up is no name for a file.
        let names =
            names.filter(|name| *name != operation.name || operation.id.as_ref() == Some(name));
        let mut said = names.filter_map(|name| self.operations.get(&*name));
        let said = said.next().unwrap_or(&self.defaults);
        let mut merged = said.or(&self.defaults).or(&operation.settings);
        // A rule that hangs on several operations is about each of them alone.
        for rule in merged.acl.iter_mut().flatten() {
            rule.operations = vec![Arc::clone(&operation.name)];
        }
        merged
    }
}
