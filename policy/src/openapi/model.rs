//! What Tollgate keeps of an OpenAPI file.

use std::sync::Arc;

use crate::finding::{Finding, Place};
use crate::quota::Limit;
use crate::settings::{IssuerConfig, KeySource, OperationSettings};

/// Which dialect the file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Swagger 2.0.
    Swagger20,
    /// OpenAPI 3.0.x.
    OpenApi30,
    /// OpenAPI 3.1.x.
    OpenApi31,
    /// OpenAPI 3.2.x (and what comes after it, with a finding).
    OpenApi32,
}

/// One OpenAPI file: its operations in document order and what was found wrong with it.
#[derive(Clone, Debug)]
pub struct Description {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// `info.title`, or the file name where it is missing.
    pub title: String,
    /// `info.version`, or empty.
    pub version: String,
    /// The dialect.
    pub dialect: Dialect,
    /// Every operation that can be routed, in document order.
    pub operations: Vec<Operation>,
    /// `x-tollgate` of the document, with `x-google-*` merged below it.
    pub settings: OperationSettings,
    /// `limits` of the document's `x-tollgate`, and those of `x-google-management` with other names. Their `id` is their name: under
    /// what id they are counted is known where the API is, by [`ApiConfig::limits_for`](crate::settings::ApiConfig::limits_for).
    pub limits: Vec<Arc<Limit>>,
    /// Server URLs that name a host (for `--upstream` hints), as written with defaults filled in.
    pub servers: Vec<String>,
    /// What was found, errors excepted (those fail the load).
    pub findings: Vec<Finding>,
    /// Every file read (the named one first): a change of any is a change of the API.
    pub files: Vec<std::path::PathBuf>,
}

/// One operation: method and path template, and what hangs on it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `operationId` as written.
    pub id: Option<Arc<str>>,
    /// Label-safe unique name within the file: `[A-Za-z0-9_.:/{}-]`, at most 128 bytes; the `operationId` where it is fit,
    /// else made from it or from method and template.
    pub name: Arc<str>,
    /// Method in upper case (`GET`), or as written in 3.2 `additionalOperations`.
    pub method: Arc<str>,
    /// The path key exactly as written.
    pub template: Arc<str>,
    /// The template to match: path key without `#fragment`.
    pub route: Arc<str>,
    /// Other ways to call the same operation: those of a gRPC method. Its own route is the first, index 0; these count from 1.
    pub other_routes: Vec<OtherRoute>,
    /// The gRPC method it is, as `package.Service/Method`.
    pub grpc: Option<Arc<str>>,
    /// Whether the key had a `#fragment` (such a route yields to the same method and path without).
    pub fragment: bool,
    /// Base paths this operation is served under (no trailing slash; `""` for none), without repeats.
    pub bases: Vec<Arc<str>>,
    /// Path parameters, as far as declared.
    pub path_parameters: Vec<PathParameter>,
    /// Names of header parameters and apiKey headers the file declares for this operation, lower case.
    pub headers: Vec<Arc<str>>,
    /// What the file demands of the caller.
    pub security: Security,
    /// `x-tollgate` and `x-google-*` merged: operation over path over document.
    pub settings: OperationSettings,
    /// Where it stands.
    pub place: Place,
}

impl Operation {
    /// Under what names settings, rules and plans may speak of it: `operationId`, gRPC method, label-safe name, and each route as
    /// `METHOD template`. Without repeats.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let own = format!("{} {}", self.method, self.template).into();
        let others = self.other_routes.iter();
        let others = others.map(|route| format!("{} {}", route.method, route.template).into());
        let said = self
            .id
            .iter()
            .chain(&self.grpc)
            .chain([&self.name])
            .cloned();
        for name in said.chain([own]).chain(others) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// One more way to call an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRoute {
    /// Method in upper case.
    pub method: Arc<str>,
    /// The template as written, for people.
    pub template: Arc<str>,
    /// The template to match.
    pub route: Arc<str>,
    /// Its path parameters.
    pub path_parameters: Vec<PathParameter>,
}

/// A declared path parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathParameter {
    /// Name as in the template.
    pub name: Arc<str>,
    /// `x-multi-segment: true`: the value may span segments.
    pub multi_segment: bool,
    /// `style: matrix` (3.x): `;` may appear.
    pub matrix: bool,
    /// `allow_encoded` of `x-tollgate` on the parameter: `slash`.
    pub allow_encoded_slash: bool,
    /// `allow_encoded` of `x-tollgate` on the parameter: `percent`.
    pub allow_encoded_percent: bool,
}

/// What an operation demands of its caller: alternatives (OR) of combinations (AND) of schemes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// Each alternative suffices. Empty: the operation is public. An alternative with no scheme (`{}`): anonymous callers may pass.
    pub alternatives: Vec<Vec<SchemeUse>>,
    /// Set where `security` could not be read: then nobody may pass until it is repaired.
    pub unreadable: bool,
}

impl Security {
    /// Whether a caller without any credential may pass.
    pub fn admits_anonymous(&self) -> bool {
        !self.unreadable
            && (self.alternatives.is_empty() || self.alternatives.iter().any(Vec::is_empty))
    }
}

/// One scheme demanded, with its scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeUse {
    /// Name in `securitySchemes` / `securityDefinitions`.
    pub name: Arc<str>,
    /// Scopes or roles.
    pub scopes: Vec<Arc<str>>,
    /// The scheme's kind, for `WWW-Authenticate`.
    pub kind: SchemeKind,
    /// Who issues its tokens, where the definition says so. Only tokens of this issuer satisfy it then.
    pub issuer: Option<Arc<SchemeIssuer>>,
}

/// Who issues the tokens of a scheme: `x-tollgate`, `x-google-issuer` and its kin, or `openIdConnectUrl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeIssuer {
    /// Expected `iss`; `None` where only the discovery document names it.
    pub issuer: Option<Arc<str>>,
    /// Its key set; `None`: found by discovery.
    pub jwks_uri: Option<Arc<str>>,
    /// Accepted `aud`; empty: any.
    pub audiences: Vec<Arc<str>>,
    /// Its OpenID Connect discovery document; `None` where `jwks_uri` is given.
    pub discovery_url: Option<Arc<str>>,
    /// Where the scheme is defined.
    pub place: Place,
}

impl SchemeIssuer {
    /// The issuer with every default; `None` where its name is known to its discovery document alone.
    pub fn config(&self) -> Option<IssuerConfig> {
        let keys = match (&self.jwks_uri, &self.discovery_url) {
            (Some(url), _) => KeySource::Url(Arc::clone(url)),
            (None, Some(url)) => KeySource::Discovery(Arc::clone(url)),
            (None, None) => return None,
        };
        let issuer = self.issuer.clone()?;
        Some(IssuerConfig {
            audiences: self.audiences.clone(),
            ..IssuerConfig::new(issuer, keys, self.place.clone())
        })
    }
}

/// Kind of a security scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemeKind {
    /// `apiKey` in a header.
    ApiKeyHeader(Arc<str>),
    /// `apiKey` in the query.
    ApiKeyQuery(Arc<str>),
    /// `apiKey` in a cookie.
    ApiKeyCookie(Arc<str>),
    /// `http` with `basic`.
    Basic,
    /// `http` with `bearer`, `oauth2` or `openIdConnect`.
    Bearer,
    /// `mutualTLS`.
    MutualTls,
    /// Named but not defined, or of a kind nobody knows: never satisfied.
    Unknown,
}
