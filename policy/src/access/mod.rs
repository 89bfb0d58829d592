//! Who may call an operation: what its credentials must be, and the rules that decide once they are known.
//!
//! Compiled once per API from the API file and the OpenAPI file; evaluated without allocation where no rule holds a CEL condition. Pure:
//! time, addresses and verified credentials come in as values. Not here: verifying a credential (`credentials`), and the
//! answer a refused caller gets.

mod api;
mod cel;
mod compile;
mod cost;
mod decide;
mod explain;
mod remote;
mod rule;
mod standing;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests;

pub use api::*;
pub(crate) use cost::LONGEST_EXPRESSION;
pub use decide::{decide, decide_own, roles_satisfied, scopes_satisfied};
pub use explain::{Explanation, Line};
pub use remote::{Told, decide_remote};

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::credentials::Claims;
use crate::directory::{Caller, Subscription};
use crate::finding::Place;
use crate::time::Timestamp;

/// Who calls, after identification. All parts are verified.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// The consumer and its credential, where one is known.
    pub caller: Option<Arc<Caller>>,
    /// What the token says, where one was shown.
    pub claims: Option<Arc<Claims>>,
    /// SPIFFE ID or subject of the client certificate, where one counted.
    pub certificate: Option<Arc<str>>,
}

impl Identity {
    /// Nobody in particular.
    pub fn is_anonymous(&self) -> bool {
        self.caller.is_none() && self.claims.is_none() && self.certificate.is_none()
    }

    /// Its subscription to `api`.
    pub fn subscription(&self, api: &str) -> Option<&Subscription> {
        self.caller.as_ref()?.consumer.subscription(api)
    }
}

/// What a rule may look at besides the identity.
#[derive(Clone, Copy)]
pub struct Circumstances<'c> {
    /// The moment of the decision.
    pub now: Timestamp,
    /// Client address after PROXY protocol and trusted hops.
    pub client: Option<IpAddr>,
    /// Method in upper case.
    pub method: &'c str,
    /// Host asked for, lower case.
    pub host: &'c str,
    /// Canonical path, still encoded.
    pub path: &'c str,
    /// `Origin`, else `Referer`.
    pub referrer: Option<&'c str>,
    /// Values of the request by name.
    pub values: &'c dyn Values,
}

/// Values of a request, looked up only by rules that ask for them.
pub trait Values {
    /// A path parameter, decoded once.
    fn path(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The first query parameter of this name, decoded.
    fn query(&self, name: &str) -> Option<Cow<'_, str>>;
    /// A header field; credentials are never shown.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// A rule, for explanations and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// What kind of rule: `security`, `consumer`, `credential`, `subscription`, `plan`, `network`, `acl`, `terms`, `authoriser`.
    pub kind: &'static str,
    /// Its name: of the plan, the terms, the ACL rule.
    pub name: Arc<str>,
    /// Where it is said; `None` for rules that come with Tollgate or from the store.
    pub place: Option<Place>,
}

/// The caller may. What the later steps need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// Index into the consumer's subscriptions. `None` where plans do not matter for the API.
    pub subscription: Option<usize>,
    /// Terms that are in their grace period: name, the version to accept, and the moment from which calls are refused. Of
    /// several, those that end first.
    pub grace: Option<(Arc<str>, u32, Timestamp)>,
    /// Shadow rules that would have refused.
    pub shadowed: smallvec::SmallVec<[Arc<RuleRef>; 1]>,
}

/// The caller may not: by which rule, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The rule.
    pub rule: Arc<RuleRef>,
    /// Why.
    pub why: WhyNot,
}

/// Why a caller may not.
#[derive(Clone, Debug, PartialEq)]
pub enum WhyNot {
    /// The consumer is suspended.
    Suspended,
    /// The consumer has no plan for this API.
    NotSubscribed,
    /// The plan does not open this operation.
    NotInPlan,
    /// The credential is not for this operation, address or referrer.
    CredentialRestricted,
    /// The credential is outside its time.
    CredentialExpired,
    /// The token lacks a scope.
    Scope(Arc<str>),
    /// The address is not allowed.
    Network,
    /// An ACL rule forbids it, or none allows it.
    Acl,
    /// These terms have to be accepted, in this version.
    Terms {
        /// Name.
        terms: Arc<str>,
        /// Version to accept.
        version: u32,
    },
    /// The external authoriser said no.
    Authoriser,
    /// A rule could not be evaluated: a condition failed, or a remote party did not answer. Fails closed.
    Undecidable,
}

/// Told about every rule that takes part. The request path uses [`Silent`], `explain` collects.
pub trait Witness {
    /// Whether it listens at all. Where it does not, nothing is put into words for it.
    fn attentive(&self) -> bool {
        true
    }

    /// One rule was looked at.
    fn rule(&mut self, rule: &RuleRef, outcome: Outcome, detail: std::fmt::Arguments<'_>);
}

/// How a rule turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has nothing against the call.
    Passed,
    /// It is not about this call.
    NotApplicable,
    /// It refuses.
    Refused,
    /// It would refuse, were it not a shadow.
    Shadowed,
}

/// A witness that keeps nothing.
#[derive(Debug)]
pub struct Silent;

impl Witness for Silent {
    fn attentive(&self) -> bool {
        false
    }

    fn rule(&mut self, _: &RuleRef, _: Outcome, _: std::fmt::Arguments<'_>) {}
}
