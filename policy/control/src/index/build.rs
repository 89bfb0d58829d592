//! The directory put together from files and store: files first, then what the store adds.

use std::sync::{Arc, OnceLock};

use tollgate_policy::credentials::Digest;
use tollgate_policy::directory::{CredentialRef, Defined};
use tollgate_policy::settings::{ConsumerConfig, DirectoryConfig, KeyConfig};

use super::{FileKey, Held, Index, Limits, Organisation, Others, Project, Terms};
use crate::store::Contents;

/// Remarks kept; more are counted.
const MAX_REMARKS: usize = 100;

impl Index {
    /// Merges. `digest` is the keyed hash under the installation's pepper.
    pub(crate) fn merge(
        files: &DirectoryConfig,
        contents: Contents,
        digest: impl Fn(&str) -> Digest,
    ) -> Self {
        let mut index = Self {
            generation: contents.generation,
            installation: contents.installation.clone(),
            ..Self::default()
        };
        index.credentials.reserve(contents.keys.len());
        index.revoked = contents.revocations.iter().cloned().collect();
        index.suspended = contents.suspensions.iter().cloned().collect();
        index.add_files(files, digest);
        index.add_contents(contents);
        index.remark_dangling();
        let found = index.remarks.len();
        if found > MAX_REMARKS {
            index.remarks.truncate(MAX_REMARKS);
            let rest = found - MAX_REMARKS;
            index.remarks.push(format!("and {rest} more"));
        }
        index
    }

    fn add_files(&mut self, files: &DirectoryConfig, digest: impl Fn(&str) -> Digest) {
        for found in &files.organisations {
            let organisation = Organisation {
                title: found.title.clone(),
                origin: Defined::File(found.place.clone()),
            };
            self.organisations
                .insert(Arc::clone(&found.name), organisation);
        }
        for found in &files.projects {
            let project = Project {
                organisation: Arc::clone(&found.organisation),
                title: found.title.clone(),
                origin: Defined::File(found.place.clone()),
            };
            self.projects.insert(Arc::clone(&found.name), project);
        }
        for plan in &files.plans {
            self.plans.insert(Arc::clone(&plan.name), Arc::clone(plan));
        }
        for found in &files.terms {
            let terms = Terms {
                title: found.title.clone(),
                apis: found.apis.clone(),
                shadow: found.shadow,
                versions: found.versions.clone(),
                origin: Defined::File(found.place.clone()),
            };
            self.terms.insert(Arc::clone(&found.name), terms);
        }
        for consumer in &files.consumers {
            self.add_file_consumer(consumer, &digest);
        }
        for (grantee, name, one) in files.overrides() {
            self.put_override(grantee, name, one.clone());
        }
    }

    fn add_file_consumer(&mut self, found: &ConsumerConfig, digest: impl Fn(&str) -> Digest) {
        let others = Others {
            logins: found.logins.clone(),
            certificates: found.certificates.clone(),
            users: found.users.clone(),
        };
        let mut subscriptions = found.subscriptions.clone();
        subscriptions.sort();
        self.put_others(&found.name, &others);
        let held = Held {
            project: Arc::clone(&found.project),
            roles: found.roles.clone().into_boxed_slice(),
            explains: found.explains,
            suspended: found.suspended,
            subscriptions,
            others: (others != Others::default()).then(|| Box::new(others)),
            origin: Defined::File(found.place.clone()),
            built: OnceLock::new(),
        };
        self.consumers.insert(Arc::clone(&found.name), held);
        for key in &found.keys {
            self.add_file_key(&found.name, key, digest(key.secret.reveal()));
        }
    }

    fn add_file_key(&mut self, consumer: &Arc<str>, key: &KeyConfig, digest: Digest) {
        // A dot, which names do not have, keeps these apart from each other and from keys of the store.
        let id: Arc<str> = format!("key_{consumer}.{}", key.name).into();
        let limits = Limits {
            not_before: key.not_before,
            expires: key.expires,
            operations: key.operations.clone(),
            networks: key.networks.clone(),
            referrers: key.referrers.clone(),
            password: None,
        };
        self.register(
            CredentialRef::Key(digest),
            consumer,
            Arc::clone(&id),
            limits,
        );
        let file_key = FileKey {
            consumer: Arc::clone(consumer),
            name: Arc::clone(&key.name),
            digest,
            origin: Defined::File(key.place.clone()),
        };
        self.file_keys.insert(id, file_key);
    }

    fn add_contents(&mut self, contents: Contents) {
        for row in contents.organisations {
            if !self.clashes(
                "organisation",
                &row.name,
                self.organisations.contains_key(&row.name),
            ) {
                self.put_organisation(row, Defined::Store);
            }
        }
        for row in contents.projects {
            if !self.clashes("project", &row.name, self.projects.contains_key(&row.name)) {
                self.put_project(row, Defined::Store);
            }
        }
        for row in contents.plans {
            if !self.clashes("plan", &row.name, self.plans.contains_key(&row.name)) {
                self.put_plan(row);
            }
        }
        for (row, versions) in contents.terms {
            if !self.clashes("terms", &row.name, self.terms.contains_key(&row.name)) {
                let name = Arc::clone(&row.name);
                self.put_terms(row);
                if let Some(terms) = self.terms.get_mut(&name) {
                    terms.versions = versions;
                }
            }
        }
        for row in contents.consumers {
            if !self.clashes(
                "consumer",
                &row.name,
                self.consumers.contains_key(&row.name),
            ) {
                self.put_consumer(row);
            }
        }
        for row in contents.keys {
            self.put_key(row);
        }
        self.withdrawn = contents.withdrawn.into_iter().collect();
        for (grantee, name, found) in contents.overrides {
            self.put_override(grantee, &name, found);
        }
        for (consumer, terms, version) in contents.acceptances {
            self.put_acceptance(&consumer, &terms, version);
        }
    }

    fn clashes(&mut self, kind: &str, name: &str, taken: bool) -> bool {
        if taken {
            self.remarks.push(format!(
                "{kind} {name} is in the store and in a file; the file counts"
            ));
        }
        taken
    }

    fn remark_dangling(&mut self) {
        let mut remarks = Vec::new();
        for (name, held) in &self.consumers {
            if !self.projects.contains_key(&held.project) {
                remarks.push(format!(
                    "consumer {name} is refused: its project {} is gone",
                    held.project
                ));
            }
            for (api, plan) in &held.subscriptions {
                if !self.plans.contains_key(plan) {
                    remarks.push(format!(
                        "consumer {name} has no subscription to {api}: plan {plan} is gone"
                    ));
                }
            }
        }
        for (name, plan) in &self.plans {
            for terms in plan.terms.iter().filter(|t| !self.terms.contains_key(*t)) {
                remarks.push(format!(
                    "plan {name} counts not: its terms {terms} are gone"
                ));
            }
        }
        self.remark_overrides(&mut remarks);
        self.remarks.extend(remarks);
    }
}
