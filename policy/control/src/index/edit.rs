//! Changes to the directory in memory, and whom they concern.

use std::sync::{Arc, OnceLock};

use tollgate_policy::credentials::Digest;
use tollgate_policy::directory::{CredentialRef, Defined, Plan, PlanApi, Revoked, TermsVersion};
use tollgate_policy::settings::{Grantee, Override};

use super::{Held, Index, Limits, Organisation, Others, Project, Registered, Terms};
use crate::store::{ConsumerRow, KeyRow, OrganisationRow, PlanRow, ProjectRow, TermsRow};

/// A change that the store has committed.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Organisation(OrganisationRow),
    NoOrganisation(Arc<str>),
    Project(ProjectRow),
    NoProject(Arc<str>),
    Plan(PlanRow),
    NoPlan(Arc<str>),
    Terms(TermsRow),
    NoTerms(Arc<str>),
    Version {
        terms: Arc<str>,
        version: TermsVersion,
        text: Arc<str>,
    },
    Consumer(ConsumerRow),
    Changed {
        consumer: Arc<str>,
        project: Arc<str>,
        roles: Vec<Arc<str>>,
        explains: bool,
    },
    NoConsumer {
        name: Arc<str>,
        credentials: Vec<CredentialRef>,
    },
    Subscription {
        consumer: Arc<str>,
        api: Arc<str>,
        plan: Option<Arc<str>>,
    },
    Suspended {
        consumer: Arc<str>,
        suspended: bool,
    },
    Key(KeyRow),
    NoKey {
        consumer: Arc<str>,
        digest: Digest,
    },
    Accepted {
        consumer: Arc<str>,
        terms: Arc<str>,
        version: u32,
    },
    Override {
        grantee: Grantee,
        name: Arc<str>,
        found: Override,
    },
    NoOverride {
        grantee: Grantee,
        name: Arc<str>,
        limit: Arc<str>,
    },
    Revoked(Revoked),
}

/// Whom changes concern.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) revoked: Vec<Revoked>,
    pub(crate) consumers: Vec<Arc<str>>,
    pub(crate) everything: bool,
}

impl Index {
    /// Makes a change. The caller raises the generation.
    pub(crate) fn apply(&mut self, edit: Edit, effects: &mut Effects) {
        match edit {
            Edit::Organisation(row) => self.put_organisation(row, Defined::Store),
            Edit::NoOrganisation(name) => {
                self.organisations.remove(&name);
                self.drop_overrides(Grantee::Organisation, &name);
            }
            Edit::Project(row) => {
                self.put_project(row, Defined::Store);
                self.forget_built(effects);
            }
            Edit::NoProject(name) => {
                self.projects.remove(&name);
                self.drop_overrides(Grantee::Project, &name);
                self.forget_built(effects);
            }
            Edit::Plan(row) => {
                self.put_plan(row);
                self.forget_built(effects);
            }
            Edit::NoPlan(name) => {
                self.plans.remove(&name);
                self.forget_built(effects);
            }
            Edit::Terms(row) => {
                self.put_terms(row);
                self.forget_built(effects);
            }
            Edit::NoTerms(name) => {
                self.terms.remove(&name);
                self.forget_built(effects);
            }
            Edit::Version {
                terms,
                version,
                text,
            } => {
                if let Some(held) = self.terms.get_mut(&terms) {
                    held.versions.push((version, text));
                    held.versions.sort_by_key(|(v, _)| v.version);
                }
                self.forget_built(effects);
            }
            other => self.apply_to_consumer(other, effects),
        }
    }

    fn apply_to_consumer(&mut self, edit: Edit, effects: &mut Effects) {
        match edit {
            Edit::Consumer(row) => {
                effects.consumers.push(Arc::clone(&row.name));
                for reference in row.references() {
                    // Whoever keeps the answer that it is withdrawn has to ask again.
                    effects.consumers.extend(self.withdrawn.remove(&reference));
                }
                self.put_consumer(row);
            }
            Edit::Changed {
                consumer,
                project,
                roles,
                explains,
            } => {
                if let Some(held) = self.consumers.get_mut(&consumer) {
                    held.project = project;
                    held.roles = roles.into_boxed_slice();
                    held.explains = explains;
                }
                self.touch(consumer, effects);
            }
            Edit::NoConsumer { name, credentials } => self.forget(name, &credentials, effects),
            Edit::Subscription {
                consumer,
                api,
                plan,
            } => {
                if let Some(held) = self.consumers.get_mut(&consumer) {
                    held.subscriptions.retain(|(a, _)| *a != api);
                    held.subscriptions.extend(plan.map(|plan| (api, plan)));
                    held.subscriptions.sort();
                }
                self.touch(consumer, effects);
            }
            Edit::Suspended {
                consumer,
                suspended,
            } => self.suspend(consumer, suspended, effects),
            Edit::Override {
                grantee,
                name,
                found,
            } => {
                self.put_override(grantee, &name, found);
                self.touch_grantee(grantee, name, effects);
            }
            Edit::NoOverride {
                grantee,
                name,
                limit,
            } => {
                self.drop_override(grantee, &name, &limit);
                self.touch_grantee(grantee, name, effects);
            }
            other => self.apply_fact(other, effects),
        }
    }

    /// Keys, and what no file undoes.
    fn apply_fact(&mut self, edit: Edit, effects: &mut Effects) {
        match edit {
            Edit::Key(row) => {
                effects.consumers.push(Arc::clone(&row.consumer));
                self.put_key(row);
            }
            Edit::NoKey { consumer, digest } => {
                self.credentials.remove(&CredentialRef::Key(digest));
                effects.revoked.push(Revoked::Key(digest));
                effects.consumers.push(consumer);
            }
            Edit::Accepted {
                consumer,
                terms,
                version,
            } => {
                self.put_acceptance(&consumer, &terms, version);
                self.touch(consumer, effects);
            }
            Edit::Revoked(what) => {
                if let Revoked::Consumer(name) = &what {
                    self.touch(Arc::clone(name), effects);
                }
                self.revoked.insert(what.clone());
                effects.revoked.push(what);
            }
            Edit::Organisation(_)
            | Edit::NoOrganisation(_)
            | Edit::Project(_)
            | Edit::NoProject(_)
            | Edit::Plan(_)
            | Edit::NoPlan(_)
            | Edit::Terms(_)
            | Edit::NoTerms(_)
            | Edit::Version { .. }
            | Edit::Consumer(_)
            | Edit::Changed { .. }
            | Edit::NoConsumer { .. }
            | Edit::Subscription { .. }
            | Edit::Suspended { .. }
            | Edit::Override { .. }
            | Edit::NoOverride { .. } => debug_assert!(false, "these are no facts"),
        }
    }

    fn forget(&mut self, name: Arc<str>, credentials: &[CredentialRef], effects: &mut Effects) {
        self.consumers.remove(&name);
        self.suspended.remove(&name);
        self.accepted.remove(&name);
        self.drop_overrides(Grantee::Consumer, &name);
        for reference in credentials {
            self.credentials.remove(reference);
            match reference {
                CredentialRef::Login { .. } | CredentialRef::Certificate(_) => {
                    self.withdrawn.insert(reference.clone(), Arc::clone(&name));
                }
                CredentialRef::Key(_) | CredentialRef::User(_) => {}
            }
        }
        effects.consumers.push(Arc::clone(&name));
        effects.revoked.push(Revoked::Consumer(name));
    }

    fn suspend(&mut self, consumer: Arc<str>, suspended: bool, effects: &mut Effects) {
        if suspended {
            self.suspended.insert(Arc::clone(&consumer));
            let revoked = Revoked::Consumer(Arc::clone(&consumer));
            effects.revoked.push(revoked);
        } else {
            self.suspended.remove(&consumer);
        }
        self.touch(consumer, effects);
    }

    /// What was made of a consumer is made anew.
    pub(super) fn touch(&mut self, consumer: Arc<str>, effects: &mut Effects) {
        if let Some(held) = self.consumers.get_mut(&consumer) {
            held.built = OnceLock::new();
        }
        effects.consumers.push(consumer);
    }

    fn forget_built(&mut self, effects: &mut Effects) {
        for held in self.consumers.values_mut() {
            held.built = OnceLock::new();
        }
        effects.everything = true;
    }

    pub(super) fn put_organisation(&mut self, row: OrganisationRow, origin: Defined) {
        let title = row.title;
        self.organisations
            .insert(row.name, Organisation { title, origin });
    }

    pub(super) fn put_project(&mut self, row: ProjectRow, origin: Defined) {
        let project = Project {
            organisation: row.organisation,
            title: row.title,
            origin,
        };
        self.projects.insert(row.name, project);
    }

    pub(super) fn put_plan(&mut self, row: PlanRow) {
        let opens = |(api, operations)| PlanApi { api, operations };
        let plan = Plan {
            name: Arc::clone(&row.name),
            apis: row.apis.into_iter().map(opens).collect(),
            roles: row.roles,
            terms: row.terms,
            limits: row.limits,
            price: row.price,
            origin: Defined::Store,
        };
        self.plans.insert(row.name, Arc::new(plan));
    }

    pub(super) fn put_terms(&mut self, row: TermsRow) {
        let terms = Terms {
            title: row.title,
            apis: row.apis,
            shadow: row.shadow,
            versions: Vec::new(),
            origin: Defined::Store,
        };
        self.terms.insert(row.name, terms);
    }

    pub(super) fn put_consumer(&mut self, row: ConsumerRow) {
        let others = Others {
            logins: row.logins,
            certificates: row.certificates,
            users: row.users,
        };
        self.put_others(&row.name, &others);
        let held = Held {
            project: row.project,
            roles: row.roles.into_boxed_slice(),
            explains: row.explains,
            suspended: false,
            subscriptions: row.subscriptions,
            others: (others != Others::default()).then(|| Box::new(others)),
            origin: Defined::Store,
            built: OnceLock::new(),
        };
        self.consumers.insert(row.name, held);
    }

    pub(super) fn put_others(&mut self, consumer: &Arc<str>, others: &Others) {
        for (issuer, client) in &others.logins {
            let reference = CredentialRef::Login {
                issuer: Arc::clone(issuer),
                client: Arc::clone(client),
            };
            let id = format!("login:{issuer}:{client}");
            self.register(reference, consumer, id.into(), Limits::default());
        }
        for name in &others.certificates {
            let id = format!("certificate:{name}");
            let reference = CredentialRef::Certificate(Arc::clone(name));
            self.register(reference, consumer, id.into(), Limits::default());
        }
        for (name, password) in &others.users {
            let limits = Limits {
                password: Some(password.clone()),
                ..Limits::default()
            };
            let id = format!("user:{name}");
            let reference = CredentialRef::User(Arc::clone(name));
            self.register(reference, consumer, id.into(), limits);
        }
    }

    pub(super) fn put_key(&mut self, row: KeyRow) {
        let limits = Limits {
            not_before: row.not_before,
            expires: row.expires,
            operations: row.operations,
            networks: row.networks,
            referrers: row.referrers,
            password: None,
        };
        self.register(
            CredentialRef::Key(row.digest),
            &row.consumer,
            row.id,
            limits,
        );
    }

    /// Whoever holds a credential already keeps it: files come first.
    pub(super) fn register(
        &mut self,
        reference: CredentialRef,
        consumer: &Arc<str>,
        id: Arc<str>,
        limits: Limits,
    ) {
        if let Some(held) = self.credentials.get(&reference)
            && held.consumer != *consumer
        {
            self.remarks.push(format!(
                "{id} belongs to consumer {} and counts not for {consumer}",
                held.consumer
            ));
            return;
        }
        let consumer = match self.consumers.get_key_value(consumer) {
            // One copy of the name serves all its credentials.
            Some((name, _)) => Arc::clone(name),
            None => Arc::clone(consumer),
        };
        let limits = limits.boxed();
        self.credentials.insert(
            reference,
            Registered {
                id,
                consumer,
                limits,
            },
        );
    }

    pub(super) fn put_acceptance(&mut self, consumer: &Arc<str>, terms: &Arc<str>, version: u32) {
        if version == 0 {
            // The consumer was deleted: another of its name begins with nothing accepted.
            self.accepted.remove(consumer);
            return;
        }
        let accepted = self.accepted.entry(Arc::clone(consumer)).or_default();
        match accepted.iter_mut().find(|(name, _)| name == terms) {
            Some((_, highest)) => *highest = version.max(*highest),
            None => accepted.push((Arc::clone(terms), version)),
        }
    }
}
