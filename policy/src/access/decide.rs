//! May this caller call this operation now? One pass over the rules, in a fixed order; the first that refuses decides.
//!
//! The order: what the operation demands at all, the consumer, its credential, its plan, addresses, ACL, terms. Nothing is
//! allocated on the way to a yes unless a rule holds a condition in CEL or a shadow of terms has something to say. Not here:
//! whether the credentials satisfy the operation's security schemes, which is found out while they are verified.

use std::fmt::Arguments;
use std::net::IpAddr;
use std::sync::Arc;

use super::rule::{Difference, Facts, Rule, contained};
use super::standing::{Standing, standing};
use super::{
    ApiAccess, Circumstances, Demand, Grant, Identity, OperationAccess, Outcome, Refusal, RuleRef,
    WhyNot, Witness,
};
use crate::credentials::Claims;
use crate::directory::{Caller, Consumer, Credential, Defined, Subscription, TermsDuty};
use crate::settings::SubscriptionMode;

/// Decides about one call.
///
/// `api` names the API as subscriptions and plans do; `operation` is an index into [`ApiAccess::operations`]. A caller without any
/// credential is judged by networks and ACL only, and only where the operation admits it.
///
/// # Errors
/// The rule that refuses, and why.
pub fn decide(
    access: &ApiAccess,
    api: &str,
    operation: usize,
    identity: &Identity,
    circumstances: &Circumstances<'_>,
    witness: &mut impl Witness,
) -> Result<Grant, Refusal> {
    let Some(operation) = access.operations.get(operation) else {
        let rule = access.own.security.clone();
        witness.rule(
            &rule,
            Outcome::Refused,
            format_args!("there is no such operation"),
        );
        return Err(Refusal {
            rule,
            why: WhyNot::Undecidable,
        });
    };
    let held = identity.caller.as_ref().and_then(|caller| {
        let mut subscriptions = caller.consumer.subscriptions.iter().enumerate();
        subscriptions.find(|(_, held)| *held.api == *api)
    });
    let facts = Facts {
        operation: operation.name(),
        identity,
        plan: held.map(|(_, held)| &*held.plan),
        circumstances,
    };
    let mut decision = Decision {
        access,
        api,
        operation,
        facts,
        grant: Grant::default(),
        witness,
    };
    decision.caller()?;
    // Where plans do not matter, neither does a plan that happens to be held, nor what it asks to be accepted.
    let held = held.filter(|_| access.subscription != SubscriptionMode::Off);
    decision.subscription(held)?;
    decision.networks()?;
    decision.denials()?;
    decision.allowances()?;
    for duty in held.iter().flat_map(|(_, held)| &held.duties) {
        decision.terms(duty)?;
    }
    Ok(decision.grant)
}

/// Decides whether a consumer may ask about itself: whoever may not call for reasons of its own, of its credential or of its address
/// may not. Plans, rules and terms are about operations. A credential that is for certain operations is not for this.
///
/// # Errors
/// The rule that refuses, and why.
pub fn decide_own(
    access: &ApiAccess,
    api: &str,
    identity: &Identity,
    circumstances: &Circumstances<'_>,
    witness: &mut impl Witness,
) -> Result<(), Refusal> {
    let operation = &access.own.itself;
    let facts = Facts {
        operation: operation.name(),
        identity,
        plan: None,
        circumstances,
    };
    let mut decision = Decision {
        access,
        api,
        operation,
        facts,
        grant: Grant::default(),
        witness,
    };
    decision.caller()?;
    decision.networks()
}

/// Whether a token has every scope of a list.
///
/// # Errors
/// The first scope it lacks.
pub fn scopes_satisfied(scopes: &[Arc<str>], claims: &Claims) -> Result<(), Arc<str>> {
    match scopes.iter().find(|scope| !claims.scopes.contains(scope)) {
        Some(lacking) => Err(lacking.clone()),
        None => Ok(()),
    }
}

/// Whether a caller has every role of a list: what a scheme without tokens lists are roles (OpenAPI 3.1, "Security Requirement Object").
/// Nobody's are none.
///
/// # Errors
/// The first role it lacks.
pub fn roles_satisfied(roles: &[Arc<str>], caller: Option<&Caller>) -> Result<(), Arc<str>> {
    let has = |role: &Arc<str>| caller.is_some_and(|it| it.consumer.roles.contains(role));
    match roles.iter().find(|role| !has(role)) {
        Some(lacking) => Err(lacking.clone()),
        None => Ok(()),
    }
}

struct Decision<'d, W> {
    access: &'d ApiAccess,
    api: &'d str,
    operation: &'d OperationAccess,
    facts: Facts<'d>,
    grant: Grant,
    witness: &'d mut W,
}

impl<'d, W: Witness> Decision<'d, W> {
    /// What holds for a caller whatever it calls.
    fn caller(&mut self) -> Result<(), Refusal> {
        self.demand()?;
        if let Some(caller) = &self.facts.identity.caller {
            self.consumer(&caller.consumer)?;
            self.credential(&caller.credential)?;
        }
        Ok(())
    }

    /// Guards against a caller that reached this point without what the operation demands.
    fn demand(&mut self) -> Result<(), Refusal> {
        let closed = match &self.operation.demand {
            Demand::Public => false,
            Demand::Unreadable => true,
            Demand::Alternatives { anonymous, .. } => {
                !anonymous && self.facts.identity.is_anonymous()
            }
        };
        if closed {
            let rule = self.access.own.security.clone();
            let detail = format_args!("the operation admits nobody like this caller");
            return Err(self.refuse(rule, WhyNot::Undecidable, detail));
        }
        Ok(())
    }

    fn consumer(&mut self, consumer: &'d Consumer) -> Result<(), Refusal> {
        let rule = || named("consumer", &consumer.name, &consumer.origin);
        if consumer.suspended {
            return Err(self.refuse(rule().into(), WhyNot::Suspended, format_args!("suspended")));
        }
        self.tell(rule, Outcome::Passed, format_args!("not suspended"));
        Ok(())
    }

    fn credential(&mut self, credential: &'d Credential) -> Result<(), Refusal> {
        let rule = || named("credential", &credential.id, &Defined::Store);
        let now = self.facts.circumstances.now;
        if let Some(start) = credential.not_before.filter(|start| now < *start) {
            let detail = format_args!("valid from {start}");
            return Err(self.refuse(rule().into(), WhyNot::CredentialExpired, detail));
        }
        if let Some(end) = credential.expires.filter(|end| now >= *end) {
            let detail = format_args!("expired at {end}");
            return Err(self.refuse(rule().into(), WhyNot::CredentialExpired, detail));
        }
        if let Some(restriction) = self.restriction(credential) {
            let detail = format_args!("{restriction}");
            return Err(self.refuse(rule().into(), WhyNot::CredentialRestricted, detail));
        }
        self.tell(
            rule,
            Outcome::Passed,
            format_args!("within its time and restrictions"),
        );
        Ok(())
    }

    /// What the credential is not for. Where it is restricted, what is not known does not fit.
    fn restriction(&self, credential: &Credential) -> Option<&'static str> {
        let seen = self.facts.circumstances;
        let operations = credential.operations.as_deref();
        if operations.is_some_and(|names| !self.operation.is_named_in(names)) {
            return Some("not for this operation");
        }
        let networks = &credential.networks;
        if !networks.is_empty()
            && !seen
                .client
                .is_some_and(|client| contained(networks, client))
        {
            return Some("not for this address");
        }
        let from = |referrer| {
            credential
                .referrers
                .iter()
                .any(|own| comes_from(own, referrer))
        };
        if !credential.referrers.is_empty() && !seen.referrer.is_some_and(from) {
            return Some("not for this origin or referrer");
        }
        None
    }

    fn subscription(&mut self, held: Option<(usize, &'d Subscription)>) -> Result<(), Refusal> {
        let (identity, api) = (self.facts.identity, self.api);
        let own = &self.access.own.subscription;
        if let Some((index, subscription)) = held {
            self.grant.subscription = Some(index);
            return self.plan(subscription);
        }
        let needed = match self.access.subscription {
            SubscriptionMode::Off => false,
            SubscriptionMode::Consumers => identity.caller.is_some(),
            SubscriptionMode::Required => !identity.is_anonymous(),
        };
        if needed {
            let detail = format_args!("the caller has no plan for {api}");
            return Err(self.refuse(own.clone(), WhyNot::NotSubscribed, detail));
        }
        self.tell(
            || RuleRef::clone(own),
            Outcome::NotApplicable,
            format_args!("no plan needed"),
        );
        Ok(())
    }

    fn plan(&mut self, subscription: &'d Subscription) -> Result<(), Refusal> {
        let (plan, operation) = (&*subscription.plan, self.facts.operation);
        let rule = || named("plan", &plan.name, &plan.origin);
        let opened = plan.apis.iter().any(|part| {
            let same = *part.api == *self.api || &*part.api == "*";
            let all = part.operations.as_deref();
            same && all.is_none_or(|names| self.operation.is_named_in(names))
        });
        if !opened {
            let detail = format_args!("does not open {operation}");
            return Err(self.refuse(rule().into(), WhyNot::NotInPlan, detail));
        }
        self.tell(rule, Outcome::Passed, format_args!("opens {operation}"));
        Ok(())
    }

    fn networks(&mut self) -> Result<(), Refusal> {
        let lists = &self.access.networks;
        if lists.allow.is_empty() && lists.deny.is_empty() {
            return Ok(());
        }
        let rule = &self.access.own.network;
        let client = self.facts.circumstances.client;
        let passes = |client: IpAddr| {
            let allowed = lists.allow.is_empty() || contained(&lists.allow, client);
            allowed && !contained(&lists.deny, client)
        };
        let Some(client) = client else {
            let detail = format_args!("the client's address is not known");
            return self.against(rule.clone(), lists.shadow, WhyNot::Network, detail);
        };
        if !passes(client) {
            let detail = format_args!("{client} may not call");
            return self.against(rule.clone(), lists.shadow, WhyNot::Network, detail);
        }
        self.tell(
            || RuleRef::clone(rule),
            Outcome::Passed,
            format_args!("{client} may call"),
        );
        Ok(())
    }

    /// Rules that deny: one that matches refuses, and so does one that cannot tell.
    fn denials(&mut self) -> Result<(), Refusal> {
        let access = self.access;
        for rule in self
            .operation
            .denials
            .iter()
            .filter_map(|index| access.rules.get(*index))
        {
            let reference = &rule.reference;
            match rule.matches(&self.facts) {
                Ok(()) => {
                    let detail = format_args!("the call matches");
                    self.against(reference.clone(), rule.config.shadow, WhyNot::Acl, detail)?;
                }
                Err(why) if why.is_undecided() => {
                    let (shadow, detail) = (rule.config.shadow, format_args!("{why}"));
                    self.against(reference.clone(), shadow, WhyNot::Undecidable, detail)?;
                }
                Err(why) => {
                    let rule = || RuleRef::clone(reference);
                    self.tell(rule, Outcome::NotApplicable, format_args!("{why}"));
                }
            }
        }
        Ok(())
    }

    /// Rules that allow: where there are any, one has to match. Shadows are asked only where no rule is enforced, for beside
    /// enforced ones they could but admit more.
    fn allowances(&mut self) -> Result<(), Refusal> {
        let access = self.access;
        let rules = || {
            self.operation
                .allowances
                .iter()
                .filter_map(|index| access.rules.get(*index))
        };
        let shadow = rules().all(|rule| rule.config.shadow);
        let counts = |rule: &&'d Rule| rule.config.shadow == shadow;
        let (mut first, mut undecided) = (None, None);
        for rule in rules().filter(counts) {
            match rule.matches(&self.facts) {
                Ok(()) => {
                    self.tell_allowances(shadow, Some(rule));
                    return Ok(());
                }
                Err(why) if why.is_undecided() => undecided = undecided.or(Some(rule)),
                Err(_) => first = first.or(Some(rule)),
            }
        }
        let (rule, why) = match (undecided, first) {
            (Some(rule), _) => (rule, WhyNot::Undecidable),
            (None, Some(rule)) => (rule, WhyNot::Acl),
            (None, None) => return Ok(()),
        };
        self.tell_allowances(shadow, None);
        if shadow {
            self.grant.shadowed.push(rule.reference.clone());
            return Ok(());
        }
        Err(Refusal {
            rule: rule.reference.clone(),
            why,
        })
    }

    /// Tells how each rule that allows turned out, once it is known which matched.
    #[inline]
    fn tell_allowances(&mut self, shadow: bool, matched: Option<&'d Rule>) {
        if !self.witness.attentive() {
            return;
        }
        let rules = self.operation.allowances.iter();
        let rules = rules.filter_map(|index| self.access.rules.get(*index));
        let otherwise = match (matched.is_some(), shadow) {
            (true, _) => Outcome::NotApplicable,
            (false, true) => Outcome::Shadowed,
            (false, false) => Outcome::Refused,
        };
        for rule in rules {
            let told = match rule.matches(&self.facts) {
                _ if rule.config.shadow != shadow => Err((Outcome::NotApplicable, None)),
                Ok(()) => Ok(()),
                Err(why) => Err((otherwise, Some(why))),
            };
            tell_allowance(self.witness, &rule.reference, told);
        }
    }

    fn terms(&mut self, duty: &'d TermsDuty) -> Result<(), Refusal> {
        let rule = || named("terms", &duty.terms, &duty.origin);
        match standing(duty, self.facts.circumstances.now) {
            Standing::Accepted => {
                let accepted = duty.accepted;
                self.tell(
                    rule,
                    Outcome::Passed,
                    format_args!("accepted in version {accepted}"),
                );
            }
            Standing::Grace { version, until } => {
                let detail = format_args!("version {version} has to be accepted before {until}");
                self.tell(rule, Outcome::Passed, detail);
                let first = self
                    .grant
                    .grace
                    .as_ref()
                    .is_none_or(|(_, _, other)| until < *other);
                if first && !duty.shadow {
                    self.grant.grace = Some((duty.terms.clone(), version, until));
                }
            }
            Standing::Due { version } => {
                let accepted = duty.accepted;
                let detail = format_args!("version {version} is required, {accepted} accepted");
                let why = WhyNot::Terms {
                    terms: duty.terms.clone(),
                    version,
                };
                return self.against(rule().into(), duty.shadow, why, detail);
            }
        }
        Ok(())
    }

    /// A rule is against the call: a refusal, or a note where it is a shadow.
    #[cold]
    fn against(
        &mut self,
        rule: Arc<RuleRef>,
        shadow: bool,
        why: WhyNot,
        detail: Arguments<'_>,
    ) -> Result<(), Refusal> {
        if !shadow {
            return Err(self.refuse(rule, why, detail));
        }
        self.witness.rule(&rule, Outcome::Shadowed, detail);
        self.grant.shadowed.push(rule);
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, rule: Arc<RuleRef>, why: WhyNot, detail: Arguments<'_>) -> Refusal {
        self.witness.rule(&rule, Outcome::Refused, detail);
        Refusal { rule, why }
    }

    /// Tells of a rule that does not refuse. Its name is only put together for those who listen.
    #[inline]
    fn tell(&mut self, rule: impl FnOnce() -> RuleRef, outcome: Outcome, detail: Arguments<'_>) {
        if self.witness.attentive() {
            self.witness.rule(&rule(), outcome, detail);
        }
    }
}

fn tell_allowance(
    witness: &mut impl Witness,
    rule: &RuleRef,
    told: Result<(), (Outcome, Option<Difference<'_>>)>,
) {
    match told {
        Ok(()) => witness.rule(rule, Outcome::Passed, format_args!("the call matches")),
        Err((outcome, Some(why))) => witness.rule(rule, outcome, format_args!("{why}")),
        Err((outcome, None)) => {
            witness.rule(
                rule,
                outcome,
                format_args!("a shadow beside rules that are enforced"),
            );
        }
    }
}

/// A rule that is an object of the directory.
fn named(kind: &'static str, name: &Arc<str>, origin: &Defined) -> RuleRef {
    let place = match origin {
        Defined::File(place) => Some(place.clone()),
        Defined::Store => None,
    };
    RuleRef {
        kind,
        name: name.clone(),
        place,
    }
}

/// Whether a call comes from an origin or a page below `own`. Only whole names count: `https://a.example` does not open
/// `https://a.example.net`.
fn comes_from(own: &str, referrer: &str) -> bool {
    match referrer.strip_prefix(own) {
        Some(rest) => own.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?', '#']),
        // An origin is written without the slash that ends it in a list.
        None => own.strip_suffix('/') == Some(referrer),
    }
}
