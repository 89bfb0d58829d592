//! `auth`, `acl`, `networks` and `authoriser` of an API file, as meant: who may call, judged how.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Network;
use crate::directory::Secret;
use crate::finding::Place;

/// `auth` of an API file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthConfig {
    /// Whether a caller needs a plan.
    pub subscription: SubscriptionMode,
    /// Credentials we verified are passed on instead of stripped.
    pub forward_credentials: bool,
    /// Who issues tokens, by name. Those an OpenAPI file names itself (`x-google-issuer`) are added when it is compiled;
    /// of two with the same `iss` the one here counts.
    pub issuers: BTreeMap<Arc<str>, IssuerConfig>,
    /// What satisfies a security scheme of the OpenAPI file, by its name there. A scheme that is not named is satisfied by
    /// what its kind suggests: API keys by keys of Tollgate, `bearer`, `oauth2` and `openIdConnect` by tokens of the issuer the
    /// OpenAPI file names for it, else of any issuer above (and by keys of Tollgate), `basic` by users (and keys as user name), `mutualTLS` by certificates of the listener's roots.
    pub schemes: BTreeMap<Arc<str>, SchemeConfig>,
    /// Claims and facts about the caller that become header fields for the service: (claim, field name in lower case).
    pub forward_claims: Vec<(Arc<str>, Arc<str>)>,
}

/// Whether a caller needs a plan for the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubscriptionMode {
    /// Whoever is a consumer needs one; a token whose client is no consumer passes without (the default).
    #[default]
    Consumers,
    /// Every caller needs one.
    Required,
    /// Plans do not matter for this API.
    Off,
}

/// What satisfies one security scheme.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchemeConfig {
    /// Names of the issuers whose tokens count; empty: the one the OpenAPI file names, else all of the API file.
    pub issuers: Vec<Arc<str>>,
    /// SPIFFE IDs or subjects that count, `*` at the end matches any rest; empty: all that the listener's roots vouch for.
    pub certificates: Vec<Arc<str>>,
    /// Where it is said; `None` for schemes that no file names.
    pub place: Option<Place>,
}

/// Who issues tokens, and how they are verified.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuerConfig {
    /// Expected `iss`, exactly.
    pub issuer: Arc<str>,
    /// Accepted `aud`; a token needs one of them. Empty: any, and `check` warns.
    pub audiences: Vec<Arc<str>>,
    /// Accepted algorithms; a token's own word is never enough.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub keys: KeySource,
    /// How far clocks may differ. Default 30 s.
    pub leeway: Duration,
    /// How long keys are used while they cannot be fetched anew. Default 24 h.
    pub stale_for: Duration,
    /// Keys may come from private addresses. Default false.
    pub allow_private: bool,
    /// Claims that name the client, the first present counts. Default `azp`, `client_id`, `sub`.
    pub client_claims: Vec<Arc<str>>,
    /// Claims that hold scopes (text with spaces, or a list). Default `scope`, `scp`.
    pub scope_claims: Vec<Arc<str>>,
    /// Claims that hold roles; dots lead into objects. Default `roles`.
    pub role_claims: Vec<Arc<str>>,
    /// Root certificates by which its keys and its introspection are believed; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Tokens that are not JWTs are asked about there (RFC 7662).
    pub introspection: Option<IntrospectionConfig>,
    /// Where it is said.
    pub place: Place,
}

impl IssuerConfig {
    /// An issuer of whom nothing more is known than its name and where its keys are: every default, any audience.
    pub fn new(issuer: Arc<str>, keys: KeySource, place: Place) -> Self {
        let names = |list: &[&str]| list.iter().map(|name| Arc::from(*name)).collect();
        Self {
            issuer,
            audiences: Vec::new(),
            algorithms: match keys {
                KeySource::Secret(_) => vec![Algorithm::Hs256],
                KeySource::Discovery(_) | KeySource::Url(_) | KeySource::File(_) => {
                    Algorithm::USUAL.to_vec()
                }
            },
            keys,
            leeway: Duration::from_secs(30),
            stale_for: Duration::from_secs(24 * 3_600),
            allow_private: false,
            client_claims: names(&["azp", "client_id", "sub"]),
            scope_claims: names(&["scope", "scp"]),
            role_claims: names(&["roles"]),
            ca: None,
            introspection: None,
            place,
        }
    }
}

/// Signature algorithms of RFC 7518 and RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
    Hs256,
    Hs384,
    Hs512,
}

impl Algorithm {
    /// What issuers with public keys use unless they say otherwise: OpenID Connect demands the first, the second is its
    /// smaller successor.
    pub const USUAL: [Self; 2] = [Self::Rs256, Self::Es256];

    /// Whether signer and verifier hold the same secret.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// OpenID Connect discovery: `<issuer>/.well-known/openid-configuration`, or the URL given.
    Discovery(Arc<str>),
    /// A JWKS at a URL.
    Url(Arc<str>),
    /// A JWKS or PEM file.
    File(PathBuf),
    /// The shared secret of HS algorithms.
    Secret(Secret),
}

/// Token introspection (RFC 7662).
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionConfig {
    /// Endpoint.
    pub url: Arc<str>,
    /// Our client identifier there.
    pub client_id: Arc<str>,
    /// Our secret there.
    pub client_secret: Secret,
    /// How long an answer is kept, at most. Default 30 s.
    pub cache: Duration,
    /// How long to wait for an answer. Default 2 s. Without one the call is answered 503: authentication never opens.
    pub deadline: Duration,
}

/// One entry of `acl`: who may call which operations, under which condition.
///
/// A `deny` that matches refuses. Where an operation has `allow` rules, at least one must match.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleConfig {
    /// Unique among the rules of an operation.
    pub name: Arc<str>,
    /// Allow or deny.
    pub effect: Effect,
    /// Operations it is about, by label-safe name, `operationId`, `METHOD /template`; empty: all. `x-tollgate` of one
    /// operation fills this with its own.
    pub operations: Vec<Arc<str>>,
    /// Consumers; empty: any. All fields that are given must match; one value of a field is enough.
    pub consumers: Vec<Arc<str>>,
    /// Projects; empty: any.
    pub projects: Vec<Arc<str>>,
    /// Organisations; empty: any.
    pub organisations: Vec<Arc<str>>,
    /// Plans; empty: any.
    pub plans: Vec<Arc<str>>,
    /// Scopes; empty: any.
    pub scopes: Vec<Arc<str>>,
    /// Roles; empty: any.
    pub roles: Vec<Arc<str>>,
    /// Networks of the client address; empty: any.
    pub networks: Vec<Network>,
    /// From then on.
    pub not_before: Option<crate::time::Timestamp>,
    /// Until then.
    pub not_after: Option<crate::time::Timestamp>,
    /// Minutes of the day in UTC, from (inclusive) to (exclusive); may pass midnight.
    pub hours: Option<(u16, u16)>,
    /// Condition in CEL over `request`, `path`, `query`, `caller`, `claims`, `now`; `None`: none.
    pub when: Option<Arc<str>>,
    /// Evaluated, counted and reported, not enforced.
    pub shadow: bool,
    /// Where it is said.
    pub place: Place,
}

/// What a rule does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The caller may.
    Allow,
    /// The caller may not.
    Deny,
}

/// `networks` of an API file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkLists {
    /// Only from there; empty: from anywhere.
    pub allow: Vec<Network>,
    /// Never from there. Wins over `allow`.
    pub deny: Vec<Network>,
    /// Counted and reported, not enforced.
    pub shadow: bool,
    /// Where it is said; `None` where it is not.
    pub place: Option<Place>,
}

/// `authoriser` of an API file: an external judge over Envoy's `ext_authz`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthoriserConfig {
    /// How it is asked.
    pub transport: AuthoriserTransport,
    /// Where: `http://host:port/prefix`, or `h2c://host:port` for gRPC.
    pub url: Arc<str>,
    /// Root certificates by which it is believed; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// How long to wait. Default 200 ms.
    pub deadline: Duration,
    /// What happens when it does not answer in time. Default `fail_closed`.
    pub failure: FailureMode,
    /// How long an answer may be used again; zero: never. Default zero.
    pub cache: Duration,
    /// How long an old answer may be used while it cannot be asked (`degraded`). Default zero.
    pub stale_ok: Duration,
    /// Attributes an answer depends on, which make its cache key: `consumer`, `operation`, `method`, `path`, `client`,
    /// `header:<name>`. Empty: nothing is cached.
    pub vary: Vec<Arc<str>>,
    /// Request header fields it is shown, lower case. Credentials only if they are named here.
    pub headers: Vec<Arc<str>>,
    /// Counted and reported, not enforced.
    pub shadow: bool,
    /// Where it is said.
    pub place: Place,
}

/// How an external authoriser is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthoriserTransport {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// A request with the original's method, path and chosen header fields; 2xx means yes.
    Http,
}

/// What happens when a remote party cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureMode {
    /// The call passes; counted and logged. Never for authentication.
    FailOpen,
    /// An old answer within `stale_ok` counts, else 503.
    Degraded,
    /// 503.
    #[default]
    FailClosed,
}
