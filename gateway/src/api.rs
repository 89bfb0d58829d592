//! One API as the data plane serves it: an immutable snapshot, compiled apart from all others.
//!
//! It keeps what the request path reads and drops the rest of the OpenAPI file: a file of 1,000 operations stays small.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tollgate_policy::access::{ApiAccess, Demand};
use tollgate_policy::classify::Classifier;
use tollgate_policy::openapi::{self, Description, SchemeKind};
use tollgate_policy::quota::{Cost, Limit};
use tollgate_policy::settings::{
    ApiConfig, Durability, FailureMode, Priority, Recheck, too_many_meters,
};
use tollgate_policy::{Finding, Place, Severity};

use crate::apis::{MAX_BASE_SEGMENTS, base_segments};
use crate::authoriser::Authoriser;
use crate::cost::Account;
use crate::identity::issuer::Issuer;
use crate::node::Mesh;
use crate::telemetry::{Metrics, OperationMetrics};
use crate::transcode::face::Face;
use crate::upstream::Cluster;

/// How long known callers are served without contact to the control plane, where nothing is said.
const STALE_OK: Duration = Duration::from_secs(72 * 3600);

/// One published OpenAPI file with its hosts, base paths, upstream and policy. Immutable.
#[derive(Debug)]
pub struct Api {
    /// What was configured.
    pub config: ApiConfig,
    /// `info.version` of the file.
    pub version: String,
    /// Counts up with each swap; 1 at first load.
    pub generation: u64,
    /// Routes.
    pub classifier: Classifier,
    /// Its service is one of the installation: calls go to sidecars.
    pub in_mesh: bool,
    /// Who may call what.
    pub access: Arc<ApiAccess>,
    /// Who issues tokens, by index of `access.issuers`.
    pub issuers: Vec<Arc<Issuer>>,
    /// An external judge.
    pub authoriser: Option<Arc<Authoriser>>,
    /// Operations, by index of the classifier.
    pub operations: Vec<Operation>,
    /// Base paths served.
    pub bases: Vec<Arc<str>>,
    /// Limits on its calls, whatever plan they are made under.
    pub limits: Vec<Arc<Limit>>,
    /// The gRPC service behind it; `None`: it speaks HTTP itself.
    pub face: Option<Arc<Face>>,
    /// Endpoints.
    pub cluster: Arc<Cluster>,
    /// Series of requests that are no operation.
    pub unclassified: Arc<OperationMetrics>,
    /// Counts for `/apis`; shared by all generations.
    pub traffic: Arc<Traffic>,
}

/// What the path needs of an operation.
#[derive(Debug)]
pub struct Operation {
    /// Label-safe name, unique within the API.
    pub name: Arc<str>,
    /// `operationId` as written.
    pub id: Option<Arc<str>>,
    /// Method, in upper case.
    pub method: Arc<str>,
    /// Path template as written.
    pub template: Arc<str>,
    /// Everything said about it, with nothing left to ask.
    pub settings: Resolved,
    /// Header names (lower case) the file declares: these pass even where their spelling would have them dropped.
    pub declared_headers: Vec<Arc<str>>,
    /// Series.
    pub metrics: Arc<OperationMetrics>,
}

/// Settings of one operation after API file, OpenAPI file and upstream were merged.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// From the request's first byte to the answer's last; `None`: unlimited.
    pub total: Option<Duration>,
    /// Until the head of the answer.
    pub first_byte: Duration,
    /// Between two reads or writes of a body.
    pub idle: Duration,
    /// How often to try again.
    pub retries: u8,
    /// It may become a WebSocket.
    pub websocket: bool,
    /// Bytes of a request body; `None`: what the process allows (`limits.body_bytes`).
    pub max_body: Option<u64>,
    /// What a call is worth when not every one can be served.
    pub priority: Priority,
    /// How well the record of a call is kept.
    pub durability: Durability,
    /// How long callers known from before are served while nobody can say whether they were revoked.
    pub stale_ok: Duration,
    /// What a gateway's admission is worth where the caller cannot be looked up.
    pub on_unavailable: FailureMode,
    /// When a call that goes on is judged again.
    pub recheck: Recheck,
    /// A credential is demanded, and demanding it is ours.
    pub demands: bool,
    /// `WWW-Authenticate` values (RFC 9110 section 11.6.1). At least one where a credential is looked at, which is also
    /// where callers without one may pass.
    pub challenges: Vec<Cow<'static, str>>,
    /// What a call costs, in metrics where that is not said by themselves.
    pub costs: Vec<Cost>,
}

/// Counts of one API since the process started.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests that were finished.
    pub requests: AtomicU64,
    /// Refused by us.
    pub refused: AtomicU64,
    /// Failed upstream (502, 503, 504).
    pub failed: AtomicU64,
    /// What serving it costs.
    pub cost: Arc<Account>,
}

impl Api {
    /// Compiles one API; `face` has an entry for each operation of the description. Does no I/O but reading the PEM files its upstream names.
    ///
    /// # Errors
    /// Findings of which at least one is an error.
    pub fn compile(
        config: ApiConfig,
        mut description: Description,
        face: Option<Face>,
        generation: u64,
        previous: Option<&Api>,
        metrics: &Metrics,
    ) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        if let Some(base) = &config.base_path {
            for operation in &mut description.operations {
                operation.bases = vec![Arc::clone(base)];
            }
        }
        let bases = distinct_bases(&description);
        let mut findings = std::mem::take(&mut description.findings);
        findings.extend(unservable(&config, &description, &bases));
        findings.extend(unused_entries(&config, &description));
        findings.extend(too_many_meters(&config, &description));
        // What is found before is also what later parts stumble over: it is told alone.
        let mut findings = only_warnings(findings)?;
        let (classifier, overlaps) = Classifier::compile(&description);
        findings.extend(overlaps);
        let mut findings = only_warnings(findings)?;
        let (access, judged) = ApiAccess::compile(&config, &description);
        findings.extend(judged);
        let authoriser = config.authoriser.as_ref().map(Authoriser::new);
        let authoriser = authoriser.transpose().unwrap_or_else(|what| {
            findings.push(authoriser_error(&config, what));
            None
        });
        let issuers = issuers_of(&access).unwrap_or_else(|finding| {
            findings.push(finding);
            Vec::new()
        });
        let mut findings = only_warnings(findings)?;
        let before = previous.map(|api| &*api.cluster);
        let cluster = Cluster::new(&config.name, &config.upstream, before);
        let cluster = cluster.map_err(|what| {
            findings.push(upstream_error(&config, what));
            std::mem::take(&mut findings)
        })?;
        // Series come last: an API that cannot be served leaves none behind.
        let operations = operations_of(&config, &description, &access, metrics);
        let mut endpoints = config.upstream.endpoints.iter();
        let api = Self {
            in_mesh: endpoints.any(|endpoint| endpoint.service().is_some()),
            version: std::mem::take(&mut description.version),
            generation,
            classifier,
            issuers,
            access: Arc::new(access),
            authoriser,
            operations,
            bases,
            limits: config.limits_for(&description),
            face: face.map(Arc::new),
            cluster,
            unclassified: metrics.operation(&config.name, "", ""),
            traffic: previous
                .map(|api| Arc::clone(&api.traffic))
                .unwrap_or_default(),
            config,
        };
        Ok((api, findings))
    }

    /// Keeps endpoints and the keys of issuers up to date, on the current runtime.
    pub fn maintain(&self, mesh: &Mesh) {
        self.cluster.maintain_in(mesh);
        for issuer in &self.issuers {
            issuer.keys.maintain();
        }
    }

    /// How many operations demand a credential.
    pub fn demanding(&self) -> usize {
        self.operations
            .iter()
            .filter(|operation| operation.settings.demands)
            .count()
    }
}

impl Operation {
    fn new(
        config: &ApiConfig,
        described: &openapi::Operation,
        demand: &Demand,
        metrics: &Metrics,
    ) -> Self {
        Self {
            name: Arc::clone(&described.name),
            id: described.id.clone(),
            method: Arc::clone(&described.method),
            template: Arc::clone(&described.template),
            settings: Resolved::new(config, described, demand),
            declared_headers: described.headers.clone(),
            metrics: metrics.operation(&config.name, &described.name, &described.method),
        }
    }
}

impl Resolved {
    fn new(config: &ApiConfig, described: &openapi::Operation, demand: &Demand) -> Self {
        let said = config.settings_for(described);
        let upstream = &config.upstream;
        Self {
            total: said.total.or(upstream.total_timeout),
            first_byte: said.first_byte.unwrap_or(upstream.first_byte_timeout),
            idle: said.idle.unwrap_or(upstream.idle_timeout),
            retries: said.retries.unwrap_or(upstream.retries),
            websocket: said.websocket.unwrap_or(false),
            max_body: said.max_body,
            costs: said.costs.unwrap_or_default(),
            priority: said.priority.unwrap_or_default(),
            durability: said.durability.unwrap_or_default(),
            stale_ok: said.stale_ok.unwrap_or(STALE_OK),
            on_unavailable: said.on_unavailable.unwrap_or_default(),
            recheck: said.recheck.unwrap_or_default(),
            demands: !demand.admits_anonymous(),
            challenges: match demand {
                Demand::Public => Vec::new(),
                // A wrong credential is answered 401 also where none would have done.
                Demand::Unreadable | Demand::Alternatives { .. } => challenges(config, described),
            },
        }
    }
}

/// What to send in `WWW-Authenticate`: one challenge per kind of scheme, in the order of the file.
fn challenges(config: &ApiConfig, operation: &openapi::Operation) -> Vec<Cow<'static, str>> {
    let mut challenges: Vec<Cow<'static, str>> = Vec::new();
    for scheme in operation.security.alternatives.iter().flatten() {
        let challenge = match &scheme.kind {
            SchemeKind::Bearer => Cow::Borrowed("Bearer"),
            SchemeKind::Basic => Cow::Owned(format!("Basic realm=\"{}\"", config.name)),
            SchemeKind::ApiKeyHeader(name) => api_key("header", name),
            SchemeKind::ApiKeyQuery(name) => api_key("query", name),
            SchemeKind::ApiKeyCookie(name) => api_key("cookie", name),
            SchemeKind::MutualTls | SchemeKind::Unknown => continue,
        };
        if !challenges.contains(&challenge) {
            challenges.push(challenge);
        }
    }
    if challenges.is_empty() {
        // RFC 9110 section 15.5.2: a 401 carries at least one challenge, also where no scheme of the file has one.
        challenges.push(Cow::Borrowed("Bearer"));
    }
    challenges
}

/// There is no registered scheme for API keys; this one tells where the key belongs. Names come from the file, so one that
/// would need quoting is left out.
fn api_key(place: &str, name: &str) -> Cow<'static, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() <= 64 && name.bytes().all(plain) {
        Cow::Owned(format!("ApiKey in=\"{place}\", name=\"{name}\""))
    } else {
        Cow::Borrowed("ApiKey")
    }
}

fn operations_of(
    config: &ApiConfig,
    description: &Description,
    access: &ApiAccess,
    metrics: &Metrics,
) -> Vec<Operation> {
    let described = description.operations.iter().zip(&access.operations);
    described
        .map(|(operation, access)| Operation::new(config, operation, &access.demand, metrics))
        .collect()
}

fn issuers_of(access: &ApiAccess) -> Result<Vec<Arc<Issuer>>, Finding> {
    let issuers = access.issuers.iter();
    let compiled = issuers.map(|issuer| {
        Issuer::new(&issuer.name, &issuer.config).map_err(|what| Finding {
            severity: Severity::Error,
            code: "issuer",
            place: issuer.config.place.clone(),
            what: format!("issuer `{}`: {what}", issuer.name),
            remedy: "correct its `ca`".to_owned(),
        })
    });
    compiled.collect()
}

fn distinct_bases(description: &Description) -> Vec<Arc<str>> {
    let all = description
        .operations
        .iter()
        .flat_map(|operation| &operation.bases);
    let distinct: std::collections::BTreeSet<&Arc<str>> = all.collect();
    distinct.into_iter().cloned().collect()
}

/// What keeps the whole API from being served.
fn unservable(
    config: &ApiConfig,
    description: &Description,
    bases: &[Arc<str>],
) -> Option<Finding> {
    if description.operations.is_empty() {
        return Some(Finding {
            severity: Severity::Error,
            code: "no-operations",
            place: Place::file(Arc::clone(&description.file)),
            what: "no operation can be routed".to_owned(),
            remedy: "add at least one operation under `paths`".to_owned(),
        });
    }
    let too_long = bases
        .iter()
        .find(|base| base_segments(base) > MAX_BASE_SEGMENTS)?;
    Some(Finding {
        severity: Severity::Error,
        code: "base-path-too-long",
        place: Place::file(Arc::clone(&description.file)),
        what: format!("the base path `{too_long}` has more than {MAX_BASE_SEGMENTS} segments"),
        remedy: format!("set a shorter `base_path` in {}", config.file.display()),
    })
}

/// Entries under `operations` of the API file that name no operation: most likely a misspelt `operationId`.
fn unused_entries(config: &ApiConfig, description: &Description) -> Vec<Finding> {
    if config.operations.is_empty() {
        return Vec::new();
    }
    let mut known = std::collections::HashSet::new();
    for operation in &description.operations {
        known.extend(operation.names());
    }
    let unknown = config.operations.keys();
    let unknown = unknown.filter(|key| !known.contains(key.as_str()));
    unknown
        .map(|key| Finding {
            severity: Severity::Warning,
            code: "unknown-operation",
            place: Place::file(config.file.display().to_string()),
            what: format!("`operations` names `{key}`, which the OpenAPI file does not have"),
            remedy: "write an `operationId`, or method and path such as `GET /books/{id}`"
                .to_owned(),
        })
        .collect()
}

fn upstream_error(config: &ApiConfig, what: String) -> Finding {
    Finding {
        severity: Severity::Error,
        code: "upstream",
        place: Place::file(config.file.display().to_string()),
        what,
        remedy: "correct `upstream`".to_owned(),
    }
}

fn authoriser_error(config: &ApiConfig, what: String) -> Finding {
    let place = config.authoriser.as_ref().map(|it| it.place.clone());
    Finding {
        severity: Severity::Error,
        code: "authoriser",
        place: place.unwrap_or_else(|| Place::file(config.file.display().to_string())),
        what,
        remedy: "correct `authoriser`".to_owned(),
    }
}

/// The findings, unless one of them is an error.
fn only_warnings(findings: Vec<Finding>) -> Result<Vec<Finding>, Vec<Finding>> {
    let error = findings.iter().any(|it| it.severity == Severity::Error);
    match error {
        true => Err(findings),
        false => Ok(findings),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests {
    use std::path::Path;

    use tollgate_policy::settings::{OperationSettings, SecurityMode};

    use super::*;

    const DESCRIPTION: &str = "openapi: 3.1.0
security: [{ key: [] }, { token: [] }]
components:
  securitySchemes:
    key: { type: apiKey, in: header, name: X-API-Key }
    token: { type: http, scheme: bearer }
paths:
  /demands: { get: { operationId: demands } }
  /optional: { get: { operationId: optional, security: [{ key: [] }, {}] } }
  /public: { get: { operationId: public, security: [] } }
  /broken: { get: { operationId: broken, security: 7 } }
";

    /// Whether each operation demands, and its challenges.
    fn resolved(change: impl FnOnce(&mut ApiConfig)) -> Vec<(bool, String)> {
        let description = openapi::load_text("spec.yaml", DESCRIPTION).unwrap();
        let file = Path::new("spec.yaml");
        let mut config =
            ApiConfig::for_spec(file, "http://127.0.0.1:1", SecurityMode::Enforce).unwrap();
        change(&mut config);
        let (api, _) = Api::compile(config, description, None, 1, None, &Metrics::new()).unwrap();
        let demanding = api.operations.iter().filter(|it| it.settings.demands);
        assert_eq!(api.demanding(), demanding.count());
        for (operation, access) in api.operations.iter().zip(&api.access.operations) {
            assert_eq!(
                operation.settings.demands,
                !access.demand.admits_anonymous()
            );
        }
        let settings = api.operations.iter().map(|it| &it.settings);
        settings
            .map(|it| (it.demands, it.challenges.join(", ")))
            .collect()
    }

    #[test]
    fn what_may_be_answered_401_has_a_challenge() {
        let key = "ApiKey in=\"header\", name=\"X-API-Key\"";
        let found = |demands, challenges: &str| (demands, challenges.to_owned());
        let both = found(true, &format!("{key}, Bearer"));
        let (optional, public) = (found(false, key), found(false, ""));
        let broken = found(true, "Bearer");
        assert_eq!(
            resolved(|_| {}),
            [both, optional.clone(), public.clone(), broken.clone()]
        );
        let off = |config: &mut ApiConfig| {
            let settings = OperationSettings {
                security_off: Some(true),
                ..OperationSettings::default()
            };
            config.operations.insert("demands".to_owned(), settings);
        };
        assert_eq!(
            resolved(off),
            [public.clone(), optional, public.clone(), broken]
        );
        let nothing = resolved(|config| config.security = SecurityMode::Off);
        assert_eq!(nothing, vec![public; 4]);
    }
}
