//! Who calls and what was sold to them: consumers, their plans, and the terms they accepted, as a data plane holds them.
//!
//! These are answers, complete in themselves: a [`Caller`] carries all that is needed to decide about its calls, so that a data
//! plane never has to put pieces of different age together. Not here: where they are kept, and how a credential is verified.

use std::sync::Arc;
use std::time::Duration;

use crate::finding::Place;
use crate::quota::Limit;
use crate::settings::{LimitOverride, Network};
use crate::time::Timestamp;

/// What a credential leads to. Immutable; a change makes a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// The application that calls.
    pub consumer: Arc<Consumer>,
    /// The credential it was found by.
    pub credential: Credential,
}

/// The application that calls; belongs to a project, and projects to an organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    /// Unique name: `[a-z0-9-]`, at most 63 bytes.
    pub name: Arc<str>,
    /// Its project.
    pub project: Arc<str>,
    /// The project's organisation.
    pub organisation: Arc<str>,
    /// A suspended consumer is refused whatever it shows.
    pub suspended: bool,
    /// What rules may ask for.
    pub roles: Vec<Arc<str>>,
    /// May ask for the explanation of a decision by header.
    pub explains: bool,
    /// At most one per API.
    pub subscriptions: Vec<Subscription>,
    /// What it, its project and its organisation were granted of APIs' limits. Plans' limits are told as they are granted.
    pub overrides: Vec<LimitOverride>,
    /// Where it was defined.
    pub origin: Defined,
}

impl Consumer {
    /// Its subscription to `api`.
    pub fn subscription(&self, api: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|held| &*held.api == api)
    }
}

/// Binds a consumer, an API and a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Name of the API.
    pub api: Arc<str>,
    /// What it bought.
    pub plan: Arc<Plan>,
    /// The terms plan and API require, and what of them was accepted.
    pub duties: Vec<TermsDuty>,
    /// The plan's limits, with the overrides of the consumer, its project and its organisation applied.
    pub limits: Vec<Arc<Limit>>,
}

/// Limits and rights sold to a consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Unique name: `[a-z0-9-]`, at most 63 bytes.
    pub name: Arc<str>,
    /// The operations it opens, by API. An API that is not named is not part of the plan.
    pub apis: Vec<PlanApi>,
    /// Roles every consumer on this plan has.
    pub roles: Vec<Arc<str>>,
    /// Names of the terms it requires.
    pub terms: Vec<Arc<str>>,
    /// How much it allows.
    pub limits: Vec<Arc<Limit>>,
    /// By what prices its calls are billed.
    pub price: Price,
    /// Where it was defined.
    pub origin: Defined,
}

/// By what prices a plan's calls are billed. What an operation costs in money is written with the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Counts up whenever prices change; usage records carry it, so that what was sold at old prices is billed at old prices.
    pub version: u32,
    /// ISO 4217, such as `EUR`.
    pub currency: Arc<str>,
}

impl Default for Price {
    fn default() -> Self {
        Self {
            version: 1,
            currency: "EUR".into(),
        }
    }
}

/// What a plan opens of one API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanApi {
    /// Name of the API; `*`: any.
    pub api: Arc<str>,
    /// Operations by label-safe name, `operationId`, or `METHOD /template`; `None`: all.
    pub operations: Option<Vec<Arc<str>>>,
}

/// Terms a consumer has to have accepted, with what it has.
#[derive(Clone, Debug, PartialEq)]
pub struct TermsDuty {
    /// Name of the terms.
    pub terms: Arc<str>,
    /// Highest version this consumer accepted; 0 for none.
    pub accepted: u32,
    /// Versions that are or will be in force, lowest first. Empty: nothing is required.
    pub versions: Vec<TermsVersion>,
    /// Counted and reported, not enforced.
    pub shadow: bool,
    /// Where the terms were defined.
    pub origin: Defined,
}

/// One version of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermsVersion {
    /// From 1, counting up.
    pub version: u32,
    /// From then on it has to be accepted.
    pub effective: Timestamp,
    /// How long after `effective` calls still pass, with a warning.
    pub grace: Duration,
    /// SHA-256 of the text, in lower-case hexadecimal.
    pub text_hash: Arc<str>,
    /// Accepting needs a declared purpose.
    pub purpose_required: bool,
}

/// A credential as it was registered. Never holds the secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// Public identifier, such as `key_7f…`; for logins `login:<issuer>:<client>`.
    pub id: Arc<str>,
    /// Before then it is not valid.
    pub not_before: Option<Timestamp>,
    /// From then on it is not valid.
    pub expires: Option<Timestamp>,
    /// Operations it may call, as in [`PlanApi`]; `None`: all its plan opens.
    pub operations: Option<Vec<Arc<str>>>,
    /// Networks it may be used from; empty: any.
    pub networks: Vec<Network>,
    /// Origins or `Referer` prefixes it may be used from, such as `https://shop.example.com/`; empty: any.
    pub referrers: Vec<Arc<str>>,
    /// For `basic`: the password's Argon2id hash in PHC form. A data plane verifies against it and never shows it.
    pub password: Option<Secret>,
}

/// Where an object was defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defined {
    /// In a file: read-only through CLI and API.
    File(Place),
    /// Through the API, in the store.
    Store,
}

/// A text that never appears in a log, a message or a debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself. Whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How a data plane names a credential it was shown, without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialRef {
    /// Keyed hash of an API key.
    Key(crate::credentials::Digest),
    /// A verified token: its issuer, and the claim that names the client.
    Login {
        /// `iss`.
        issuer: Arc<str>,
        /// Value of the claim that names the client.
        client: Arc<str>,
    },
    /// A verified client certificate: its SPIFFE ID, or its subject where it has none.
    Certificate(Arc<str>),
    /// The user name of `basic`, not yet verified: the answer holds the password's hash.
    User(Arc<str>),
}

/// A credential that counts no more, whatever files say. Only restricting facts travel this way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// An API key, by its keyed hash.
    Key(crate::credentials::Digest),
    /// A token, by `iss` and `jti`.
    Token {
        /// `iss`.
        issuer: Arc<str>,
        /// `jti`.
        id: Arc<str>,
        /// When it ends by itself, where whoever revoked it knew.
        expires: Option<Timestamp>,
    },
    /// All tokens of a subject that were issued before a time.
    Subject {
        /// `iss`.
        issuer: Arc<str>,
        /// `sub`.
        subject: Arc<str>,
        /// Tokens issued before then; those without `iat` as well.
        before: Timestamp,
    },
    /// A client certificate, by SPIFFE ID or subject.
    Certificate(Arc<str>),
    /// A consumer, by name: suspended or deleted.
    Consumer(Arc<str>),
}

impl Revoked {
    /// How much longer a revoked token is remembered than it lives: clocks differ, and issuers are believed with leeway.
    const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

    /// From when on it may be forgotten, as what it revokes ended by itself; `None`: never.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Token { expires, .. } => expires.map(|at| at.plus(Self::REMEMBERED)),
            Self::Key(_) | Self::Subject { .. } | Self::Certificate(_) | Self::Consumer(_) => None,
        }
    }

    /// Whether it may be forgotten.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until().is_some_and(|until| until <= now)
    }
}
