//! The directory in memory: what files define and what the store holds, merged, ready to answer who a credential leads to.
//!
//! Promises: an answer costs a few look-ups, whatever the number of consumers; a change touches what it concerns; what a file
//! defines wins over the store, and revocations, suspensions and acceptances win over files. What cannot be judged (a project,
//! plan or document that is gone) restricts, it never opens. Not here: reading files or the store.

mod build;
mod edit;
mod overrides;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use tollgate_policy::credentials::Digest;
use tollgate_policy::directory::{
    Caller, Consumer, Credential, CredentialRef, Defined, Plan, Revoked, Secret, Subscription,
    TermsDuty, TermsVersion,
};
use tollgate_policy::settings::{LimitOverride, Network, overridden};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Resolved, TermsText};

pub(crate) use edit::{Edit, Effects};

/// Terms required by any API: what `apis` names them by.
const ANY: &str = "*";

/// The merged directory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// State of the directory; grows with each change.
    pub(crate) generation: u64,
    /// Which store it was merged from; empty: none.
    pub(crate) installation: Arc<str>,
    pub(crate) organisations: BTreeMap<Arc<str>, Organisation>,
    pub(crate) projects: BTreeMap<Arc<str>, Project>,
    pub(crate) plans: BTreeMap<Arc<str>, Arc<Plan>>,
    pub(crate) terms: BTreeMap<Arc<str>, Terms>,
    pub(crate) consumers: BTreeMap<Arc<str>, Held>,
    credentials: HashMap<CredentialRef, Registered>,
    /// Logins and certificates of consumers that were deleted, with their names; they count where no consumer has them now.
    withdrawn: HashMap<CredentialRef, Arc<str>>,
    /// Keys from files, by public identifier.
    pub(crate) file_keys: BTreeMap<Arc<str>, FileKey>,
    pub(crate) suspended: HashSet<Arc<str>>,
    /// Per consumer: terms, with the highest version accepted.
    accepted: HashMap<Arc<str>, Vec<(Arc<str>, u32)>>,
    revoked: HashSet<Revoked>,
    /// What is granted beside plans and APIs, until it expires.
    overrides: overrides::Overrides,
    /// What the merge found: clashes and references that lead nowhere.
    pub(crate) remarks: Vec<String>,
}

/// An organisation.
#[derive(Debug)]
pub(crate) struct Organisation {
    pub(crate) title: String,
    pub(crate) origin: Defined,
}

/// A project.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) organisation: Arc<str>,
    pub(crate) title: String,
    pub(crate) origin: Defined,
}

/// A document with its versions, lowest first.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) title: String,
    pub(crate) apis: Vec<Arc<str>>,
    pub(crate) shadow: bool,
    pub(crate) versions: Vec<(TermsVersion, Arc<str>)>,
    pub(crate) origin: Defined,
}

/// A consumer, small: there may be a hundred thousand.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) project: Arc<str>,
    pub(crate) roles: Box<[Arc<str>]>,
    pub(crate) explains: bool,
    /// Suspended by its file.
    pub(crate) suspended: bool,
    /// (API, plan), by API.
    pub(crate) subscriptions: Vec<(Arc<str>, Arc<str>)>,
    /// Credentials besides keys; most have none.
    pub(crate) others: Option<Box<Others>>,
    pub(crate) origin: Defined,
    /// As it is answered; made when first asked for.
    built: OnceLock<Arc<Consumer>>,
}

/// Credentials that are no keys.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Others {
    /// (issuer, client).
    pub(crate) logins: Vec<(Arc<str>, Arc<str>)>,
    pub(crate) certificates: Vec<Arc<str>>,
    /// (name, Argon2id hash).
    pub(crate) users: Vec<(Arc<str>, Secret)>,
}

/// A key from a file.
#[derive(Clone, Debug)]
pub(crate) struct FileKey {
    pub(crate) consumer: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) digest: Digest,
    pub(crate) origin: Defined,
}

/// What a credential leads to.
#[derive(Debug)]
struct Registered {
    id: Arc<str>,
    consumer: Arc<str>,
    limits: Option<Box<Limits>>,
}

/// Restrictions of a credential; most have none.
#[derive(Clone, Debug, Default, PartialEq)]
struct Limits {
    not_before: Option<Timestamp>,
    expires: Option<Timestamp>,
    operations: Option<Vec<Arc<str>>>,
    networks: Vec<Network>,
    referrers: Vec<Arc<str>>,
    password: Option<Secret>,
}

impl Limits {
    /// Nothing to keep where nothing is restricted.
    fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl Index {
    /// Who a credential leads to.
    pub(crate) fn resolve(&self, reference: &CredentialRef) -> Resolved {
        Resolved {
            caller: self.caller(reference),
            generation: self.generation,
        }
    }

    fn caller(&self, reference: &CredentialRef) -> Option<Arc<Caller>> {
        let Some(registered) = self.credentials.get(reference) else {
            return self.deleted(reference);
        };
        let revoked = match reference {
            CredentialRef::Key(digest) => self.is_revoked(&Revoked::Key(*digest)),
            CredentialRef::Certificate(name) => {
                self.is_revoked(&Revoked::Certificate(Arc::clone(name)))
            }
            CredentialRef::Login { .. } | CredentialRef::User(_) => false,
        };
        if revoked {
            return None;
        }
        let consumer = self.consumer(&registered.consumer)?;
        Some(Arc::new(Caller {
            consumer,
            credential: registered.credential(),
        }))
    }

    /// The consumer that had a login or certificate before it was deleted, suspended for ever. For who is nobody's client may call
    /// without a plan: deleting a consumer must not open what it could not do.
    fn deleted(&self, reference: &CredentialRef) -> Option<Arc<Caller>> {
        let name = self.withdrawn.get(reference)?;
        let id = match reference {
            CredentialRef::Login { issuer, client } => format!("login:{issuer}:{client}"),
            CredentialRef::Certificate(name) => format!("certificate:{name}"),
            CredentialRef::Key(_) | CredentialRef::User(_) => return None,
        };
        let nowhere: Arc<str> = Arc::from("");
        let consumer = Consumer {
            name: Arc::clone(name),
            project: Arc::clone(&nowhere),
            organisation: nowhere,
            suspended: true,
            roles: Vec::new(),
            explains: false,
            subscriptions: Vec::new(),
            overrides: Vec::new(),
            origin: Defined::Store,
        };
        Some(Arc::new(Caller {
            consumer: Arc::new(consumer),
            credential: Registered::unrestricted(id.into(), name).credential(),
        }))
    }

    /// A consumer as it is answered.
    pub(crate) fn consumer(&self, name: &str) -> Option<Arc<Consumer>> {
        let (name, held) = self.consumers.get_key_value(name)?;
        let built = held.built.get_or_init(|| Arc::new(self.build(name, held)));
        Some(Arc::clone(built))
    }

    fn build(&self, name: &Arc<str>, held: &Held) -> Consumer {
        let project = self.projects.get(&held.project);
        let granted = self.granted(name, held);
        Consumer {
            name: Arc::clone(name),
            project: Arc::clone(&held.project),
            organisation: project.map_or_else(|| Arc::from(""), |p| Arc::clone(&p.organisation)),
            // Rules about a project that is gone cannot be judged.
            suspended: project.is_none() || self.is_suspended(name, held),
            roles: held.roles.to_vec(),
            explains: held.explains,
            subscriptions: held
                .subscriptions
                .iter()
                .filter_map(|(api, plan)| self.subscription(name, api, plan, &granted))
                .collect(),
            overrides: granted
                .iter()
                .filter(|it| it.limit.starts_with("api/"))
                .cloned()
                .collect(),
            origin: held.origin.clone(),
        }
    }

    /// Whether a file, an operator or a revocation stopped a consumer.
    pub(crate) fn is_suspended(&self, name: &Arc<str>, held: &Held) -> bool {
        held.suspended
            || self.suspended.contains(name)
            || self.is_revoked(&Revoked::Consumer(Arc::clone(name)))
    }

    /// `None` where the plan, or a document it requires, is gone.
    fn subscription(
        &self,
        consumer: &str,
        api: &Arc<str>,
        plan: &str,
        granted: &[LimitOverride],
    ) -> Option<Subscription> {
        let plan = self.plans.get(plan)?;
        let mut duties = Vec::new();
        for name in self.required(api, Some(plan)) {
            let (name, terms) = self.terms.get_key_value(&name)?;
            duties.push(TermsDuty {
                terms: Arc::clone(name),
                accepted: self.accepted(consumer, name),
                versions: terms.versions.iter().map(|(v, _)| v.clone()).collect(),
                shadow: terms.shadow,
                origin: terms.origin.clone(),
            });
        }
        Some(Subscription {
            api: Arc::clone(api),
            plan: Arc::clone(plan),
            duties,
            limits: overridden(&plan.limits, granted),
        })
    }

    /// Names of the terms an API and a plan require, each once.
    fn required(&self, api: &str, plan: Option<&Plan>) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = plan.map(|p| p.terms.clone()).unwrap_or_default();
        for (name, terms) in &self.terms {
            let named = terms.apis.iter().any(|a| **a == *api || **a == *ANY);
            if named && !names.contains(name) {
                names.push(Arc::clone(name));
            }
        }
        names
    }

    /// Highest version of `terms` a consumer accepted; 0 for none.
    pub(crate) fn accepted(&self, consumer: &str, terms: &str) -> u32 {
        let accepted = self.accepted.get(consumer).map(Vec::as_slice);
        let found = accepted
            .unwrap_or_default()
            .iter()
            .find(|(name, _)| **name == *terms);
        found.map_or(0, |(_, version)| *version)
    }

    /// The documents a consumer has to read at an API: of each the version in force, and those to come.
    pub(crate) fn terms_texts(&self, consumer: &str, api: &str, now: Timestamp) -> Vec<TermsText> {
        let held = self.consumers.get(consumer);
        let plan = held
            .and_then(|held| held.subscriptions.iter().find(|(a, _)| **a == *api))
            .and_then(|(_, plan)| self.plans.get(plan));
        let mut texts = Vec::new();
        for name in self.required(api, plan.map(Arc::as_ref)) {
            let Some((name, terms)) = self.terms.get_key_value(&name) else {
                continue;
            };
            let current = in_force(&terms.versions, now);
            let shown = terms.versions.iter().filter(|(v, _)| v.version >= current);
            texts.extend(shown.map(|(version, text)| TermsText {
                terms: Arc::clone(name),
                version: version.version,
                effective: version.effective,
                enforced: version.effective.plus(version.grace),
                text_hash: Arc::clone(&version.text_hash),
                text: Arc::clone(text),
                purpose_required: version.purpose_required,
                accepted: self.accepted(consumer, name),
            }));
        }
        texts
    }

    /// Whether this was revoked.
    pub(crate) fn is_revoked(&self, what: &Revoked) -> bool {
        self.revoked.contains(what)
    }

    /// All that was revoked and may still be shown. The rest stays here: a clock that ran ahead is set back one day.
    pub(crate) fn revoked(&self, now: Timestamp) -> Vec<Revoked> {
        let counts = self.revoked.iter().filter(|it| !it.is_over(now));
        counts.cloned().collect()
    }

    /// Whom a credential belongs to.
    pub(crate) fn owner(&self, reference: &CredentialRef) -> Option<&Arc<str>> {
        self.credentials.get(reference).map(|found| &found.consumer)
    }

    /// Public identifiers of all credentials, with whom they belong to.
    pub(crate) fn credential_owners(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let all = self.credentials.values();
        all.map(|it| (Arc::clone(&it.id), Arc::clone(&it.consumer)))
    }

    /// Who keeps a document from being deleted: whoever requires it, or has accepted it. A document of its name that came later would
    /// count as accepted.
    pub(crate) fn user_of_terms(&self, name: &str, terms: &Terms) -> Option<String> {
        if let Some(api) = terms.apis.first() {
            return Some(format!("API `{api}`, which requires it"));
        }
        let mut plans = self.plans.iter();
        if let Some((plan, _)) = plans.find(|(_, plan)| plan.terms.iter().any(|it| **it == *name)) {
            return Some(format!("plan `{plan}`"));
        }
        let mut accepted = self.accepted.iter();
        let by = accepted.find(|(_, all)| all.iter().any(|(terms, _)| **terms == *name));
        by.map(|(consumer, _)| format!("consumer `{consumer}`, who accepted it"))
    }

    /// Consumers and plans that refer to a plan, project or document, for a refusal to name one.
    pub(crate) fn user_of_plan(&self, plan: &str) -> Option<&Arc<str>> {
        let uses = |held: &Held| held.subscriptions.iter().any(|(_, p)| **p == *plan);
        self.consumers
            .iter()
            .find(|(_, held)| uses(held))
            .map(|(name, _)| name)
    }
}

/// The highest version in force; 0 where none is yet.
fn in_force(versions: &[(TermsVersion, Arc<str>)], now: Timestamp) -> u32 {
    let current = versions.iter().filter(|(v, _)| v.effective <= now);
    current.map(|(v, _)| v.version).max().unwrap_or(0)
}

impl Registered {
    fn unrestricted(id: Arc<str>, consumer: &Arc<str>) -> Self {
        Self {
            id,
            consumer: Arc::clone(consumer),
            limits: None,
        }
    }

    fn credential(&self) -> Credential {
        let limits = self.limits.as_deref().cloned().unwrap_or_default();
        Credential {
            id: Arc::clone(&self.id),
            not_before: limits.not_before,
            expires: limits.expires,
            operations: limits.operations,
            networks: limits.networks,
            referrers: limits.referrers,
            password: limits.password,
        }
    }
}
