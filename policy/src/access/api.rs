//! What access to one API is compiled to: schemes, issuers, the demand and the rules of each operation.
//!
//! Complete in itself and immutable: everything is an index into a list of this file, so that the request path looks nothing up by
//! name. Not here: how it is made (`compile`) and how it decides (`decide`).

use std::sync::Arc;

use super::RuleRef;
use super::rule::Rule;
use crate::finding::Finding;
use crate::openapi::Description;
use crate::settings::{ApiConfig, IssuerConfig, NetworkLists, RuleConfig, SubscriptionMode};

/// Who may call the operations of one API.
#[derive(Debug)]
pub struct ApiAccess {
    /// Every security scheme that an operation demands.
    pub schemes: Vec<Scheme>,
    /// Issuers whose tokens may count: those of the API file in the order of their names, then those the OpenAPI file names.
    pub issuers: Vec<Arc<NamedIssuer>>,
    /// One entry for each operation of the description, in its order.
    pub operations: Vec<OperationAccess>,
    /// Whether an authoriser has a say, see [`ApiConfig::authoriser`]: it is no shadow.
    pub authoriser: bool,
    /// Whether a caller needs a plan.
    pub subscription: SubscriptionMode,
    pub(super) rules: Vec<Rule>,
    pub(super) networks: NetworkLists,
    pub(super) own: OwnRules,
}

impl ApiAccess {
    /// Compiles what an API file and its OpenAPI file say about callers.
    ///
    /// The result is closed where a finding is an error: a condition that does not compile refuses, a scheme whose issuer is
    /// unknown is satisfied by no token.
    pub fn compile(config: &ApiConfig, description: &Description) -> (Self, Vec<Finding>) {
        super::compile::compile(config, description)
    }

    /// The operation that rules, plans and credentials call so, as an index into [`Self::operations`].
    pub fn operation(&self, name: &str) -> Option<usize> {
        let called = |one: &OperationAccess| one.names.iter().any(|own| **own == *name);
        self.operations.iter().position(called)
    }

    /// What rules, plans and credentials may call the operations.
    pub(crate) fn operation_names(&self) -> impl Iterator<Item = &str> {
        let all = self.operations.iter().flat_map(|one| one.names.iter());
        all.map(|name| &**name)
    }

    /// Every rule once. One that hangs on operations names none.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &RuleConfig> {
        self.rules.iter().map(|rule| &rule.config)
    }
}

/// A security scheme of the OpenAPI file, with what satisfies it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheme {
    /// Name in the OpenAPI file.
    pub name: Arc<str>,
    /// Where its credential is shown.
    pub place: CredentialPlace,
    /// Indexes of [`ApiAccess::issuers`] whose tokens count. Empty: no token counts.
    pub issuers: Vec<usize>,
    /// SPIFFE IDs or subjects that count, `*` at the end matches any rest; empty: all that the listener's roots vouch for.
    pub certificates: Vec<Arc<str>>,
    /// Nobody knows what it is: never satisfied.
    pub unknown: bool,
}

impl Scheme {
    /// Whether a verified certificate of this SPIFFE ID or subject counts here.
    pub fn admits_certificate(&self, subject: &str) -> bool {
        let fits = |pattern: &Arc<str>| match pattern.strip_suffix('*') {
            Some(beginning) => subject.starts_with(beginning),
            None => **pattern == *subject,
        };
        self.place == CredentialPlace::Certificate
            && (self.certificates.is_empty() || self.certificates.iter().any(fits))
    }
}

/// Where a credential is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialPlace {
    /// A header field, lower case.
    Header(Arc<str>),
    /// A query parameter.
    Query(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: Basic`.
    Basic,
    /// The certificate of the client's TLS connection.
    Certificate,
    /// Nowhere: the scheme is unknown.
    Nowhere,
}

/// An issuer and the name the API file gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedIssuer {
    /// Name within the API: that of the API file, or of the scheme whose definition names it.
    pub name: Arc<str>,
    /// Who it is.
    pub config: IssuerConfig,
}

/// Access to one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationAccess {
    /// What its callers have to show.
    pub demand: Demand,
    /// Whether a rule holds a condition in CEL: such a decision allocates, and needs the request's values.
    pub needs_cel: bool,
    /// What rules, plans and credentials call it; the label-safe name comes first.
    pub(super) names: Box<[Arc<str>]>,
    /// Indexes of the rules that deny.
    pub(super) denials: Vec<usize>,
    /// Indexes of the rules that allow.
    pub(super) allowances: Vec<usize>,
}

impl OperationAccess {
    /// Whether a list of operations, as plans and credentials hold them, names this one.
    pub fn is_named_in(&self, operations: &[Arc<str>]) -> bool {
        let named = |operation: &Arc<str>| self.names.iter().any(|name| **name == **operation);
        operations.iter().any(named)
    }

    /// Its label-safe name.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }
}

/// What the callers of an operation have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    Public,
    /// The file's demand could not be read: nobody passes.
    Unreadable,
    /// One of several combinations.
    Alternatives {
        /// Each suffices; all its schemes are needed. The empty combination is left out.
        combinations: Vec<Vec<SchemeDemand>>,
        /// A caller without any credential may pass as well.
        anonymous: bool,
    },
}

impl Demand {
    /// Whether a caller without any credential may pass.
    pub fn admits_anonymous(&self) -> bool {
        match self {
            Self::Public => true,
            Self::Unreadable => false,
            Self::Alternatives { anonymous, .. } => *anonymous,
        }
    }
}

/// One scheme that is demanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeDemand {
    /// Index into [`ApiAccess::schemes`].
    pub scheme: usize,
    /// Scopes a token needs, all of them.
    pub scopes: Vec<Arc<str>>,
}

/// The rules that come with every API, ready to be named in a refusal.
#[derive(Clone, Debug)]
pub(super) struct OwnRules {
    pub(super) security: Arc<RuleRef>,
    pub(super) subscription: Arc<RuleRef>,
    pub(super) network: Arc<RuleRef>,
    /// What consumers ask about themselves, as an operation: every rule about callers holds, and no rule about operations.
    pub(super) itself: OperationAccess,
}
