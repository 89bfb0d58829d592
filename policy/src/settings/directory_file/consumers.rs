//! `consumers.yaml`: organisations, their projects, and the applications that call.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use serde::Deserialize;

use super::super::decode::Text;
use super::super::directory::granted;
use super::super::mention::Mention;
use super::super::names;
use super::super::override_file::{WrittenOverride, overrides};
use super::super::plain_file;
use super::super::reader::Reader;
use super::super::value::{self, Wrong};
use super::super::{
    ConsumerConfig, Grantee, KeyConfig, OrganisationConfig, Override, ProjectConfig,
};
use super::plans::Plans;
use super::{File, Taken, title, unknown};
use crate::directory::Secret;
use crate::finding::{Finding, Place, Severity};

/// Consumers that files define. Whoever has more keeps them in the store.
const MAX_CONSUMERS: usize = 100_000;

/// Bytes of a key: enough not to be guessed, and short enough for a header.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    organisations: Option<BTreeMap<Text, Option<WrittenOrganisation>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOrganisation {
    title: Option<Text>,
    overrides: Option<Vec<WrittenOverride>>,
    projects: Option<BTreeMap<Text, Option<WrittenProject>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProject {
    title: Option<Text>,
    overrides: Option<Vec<WrittenOverride>>,
    consumers: Option<BTreeMap<Text, Option<WrittenConsumer>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenConsumer {
    roles: Option<Vec<Text>>,
    suspended: Option<Text>,
    explains: Option<Text>,
    subscriptions: Option<BTreeMap<Text, Text>>,
    logins: Option<Vec<WrittenLogin>>,
    certificates: Option<Vec<Text>>,
    users: Option<Vec<WrittenUser>>,
    keys: Option<Vec<WrittenKey>>,
    overrides: Option<Vec<WrittenOverride>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLogin {
    issuer: Text,
    client: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUser {
    name: Text,
    password_hash: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    name: Text,
    secret: Text,
    not_before: Option<Text>,
    expires: Option<Text>,
    operations: Option<Vec<Text>>,
    networks: Option<Vec<Text>>,
    referrers: Option<Vec<Text>>,
}

/// The consumers, and where they name plans.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    pub(super) organisations: Vec<OrganisationConfig>,
    pub(super) projects: Vec<ProjectConfig>,
    pub(super) consumers: Vec<ConsumerConfig>,
    pub(super) mentions: Vec<Mention>,
    subscriptions: Vec<(Arc<str>, Arc<str>, Place)>,
}

/// What must be unique over the whole file.
#[derive(Default)]
struct Unique {
    projects: Taken<Arc<str>>,
    consumers: Taken<Arc<str>>,
    logins: Taken<(Arc<str>, Arc<str>)>,
    certificates: Taken<Arc<str>>,
    users: Taken<Arc<str>>,
    secrets: Taken<String>,
}

impl File for Consumers {
    type Written = Written;
    const LONGEST: u64 = plain_file::MAX_CONSUMERS;

    fn mean(reader: &mut Reader, written: &Written) -> Self {
        let mut found = Self::default();
        let mut unique = Unique::default();
        for (at, written) in written.organisations.iter().flatten() {
            let Some(name) = reader.value("organisations", Some(at), names::object) else {
                continue;
            };
            let said = written.as_ref().and_then(|it| it.title.as_ref());
            let title = reader.value("organisations.title", said, title);
            let overrides = written.as_ref().and_then(|it| it.overrides.as_deref());
            let overrides = self::overrides(
                reader,
                "organisations.overrides",
                overrides.unwrap_or_default(),
            );
            found.organisations.push(OrganisationConfig {
                title: title.unwrap_or_else(|| at.text.clone()),
                name: Arc::clone(&name),
                overrides,
                place: reader.place(at),
            });
            let projects = written.iter().flat_map(|it| it.projects.iter().flatten());
            for (at, written) in projects {
                found.project(reader, &mut unique, &name, (at, written.as_ref()));
            }
        }
        found
    }
}

impl Consumers {
    fn project(
        &mut self,
        reader: &mut Reader,
        unique: &mut Unique,
        organisation: &Arc<str>,
        (at, written): (&Text, Option<&WrittenProject>),
    ) {
        let Some(name) = reader.value("projects", Some(at), names::object) else {
            return;
        };
        let what = format!("project `{name}`");
        unique
            .projects
            .take(reader, "projects", at, Arc::clone(&name), &what);
        let said = written.and_then(|it| it.title.as_ref());
        let title = reader.value("projects.title", said, title);
        let overrides = written.and_then(|it| it.overrides.as_deref());
        let overrides = overrides.unwrap_or_default();
        let overrides = self::overrides(reader, "projects.overrides", overrides);
        self.projects.push(ProjectConfig {
            title: title.unwrap_or_else(|| at.text.clone()),
            name: Arc::clone(&name),
            organisation: Arc::clone(organisation),
            overrides,
            place: reader.place(at),
        });
        let unsaid = WrittenConsumer::default();
        let consumers = written.iter().flat_map(|it| it.consumers.iter().flatten());
        for (at, written) in consumers {
            if self.consumers.len() == MAX_CONSUMERS {
                let wrong = Wrong::new(
                    format!("more than {MAX_CONSUMERS} stand in one directory"),
                    "keep the others in the store: `tollgate consumers create`",
                );
                return reader.refuse("consumers", at, wrong);
            }
            let written = written.as_ref().unwrap_or(&unsaid);
            let consumer = self.consumer(reader, unique, &name, (at, written));
            self.consumers.extend(consumer);
        }
    }

    fn consumer(
        &mut self,
        reader: &mut Reader,
        unique: &mut Unique,
        project: &Arc<str>,
        (at, written): (&Text, &WrittenConsumer),
    ) -> Option<ConsumerConfig> {
        let name = reader.value("consumers", Some(at), names::object);
        if let Some(name) = &name {
            let what = format!("consumer `{name}`");
            unique
                .consumers
                .take(reader, "consumers", at, Arc::clone(name), &what);
        }
        let mut switch = |field: &str, said: &Option<Text>| {
            reader
                .value(field, said.as_ref(), value::switch)
                .unwrap_or_default()
        };
        let suspended = switch("consumers.suspended", &written.suspended);
        let explains = switch("consumers.explains", &written.explains);
        let roles = reader.list("consumers.roles", written.roles.as_ref(), names::word);
        let subscriptions = self.subscriptions(reader, written.subscriptions.as_ref());
        let logins = logins(reader, unique, written);
        let certificates = certificates(reader, unique, written);
        let users = users(reader, unique, written);
        let keys = keys(reader, unique, written);
        let overrides = written.overrides.as_deref().unwrap_or_default();
        let overrides = self::overrides(reader, "consumers.overrides", overrides);
        Some(ConsumerConfig {
            name: name?,
            project: Arc::clone(project),
            roles,
            suspended,
            explains,
            subscriptions,
            logins,
            certificates,
            users,
            keys,
            overrides,
            place: reader.place(at),
        })
    }

    fn subscriptions(
        &mut self,
        reader: &mut Reader,
        written: Option<&BTreeMap<Text, Text>>,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        let field = "consumers.subscriptions";
        let mut found = Vec::new();
        for (api, plan) in written.into_iter().flatten() {
            let name = reader.value(field, Some(api), names::object);
            let sold = reader.value(field, Some(plan), names::object);
            let Some((name, sold)) = name.zip(sold) else {
                continue;
            };
            self.mentions.push(Mention {
                api: Arc::clone(&name),
                operation: None,
                place: reader.place(api),
            });
            let place = reader.place(plan);
            self.subscriptions
                .push((Arc::clone(&name), Arc::clone(&sold), place));
            found.push((name, sold));
        }
        found
    }

    /// Whose limits are others, and which.
    pub(super) fn granted(&self) -> impl Iterator<Item = (Grantee, &Arc<str>, &Override)> {
        granted(&self.organisations, &self.projects, &self.consumers)
    }

    /// Plans that are not there, and plans that do not open the API they were sold for.
    pub(super) fn check_plans(&self, plans: &Plans, findings: &mut Vec<Finding>) {
        let known: HashMap<_, _> = plans.plans.iter().map(|it| (&it.name, it)).collect();
        for (api, name, place) in &self.subscriptions {
            let Some(plan) = known.get(name) else {
                let all = known.keys().copied();
                findings.push(unknown(name, "plan", place, all, "write it in plans.yaml"));
                continue;
            };
            let opens = |it: &crate::directory::PlanApi| it.api == *api || &*it.api == "*";
            if !plan.apis.iter().any(opens) {
                findings.push(Finding {
                    severity: Severity::Warning,
                    code: "useless-subscription",
                    place: place.clone(),
                    what: format!(
                        "plan `{name}` opens nothing of `{api}`, so every call is refused"
                    ),
                    remedy: format!("add `{api}` to the plan's `apis`, or choose another plan"),
                });
            }
        }
    }
}

fn logins(
    reader: &mut Reader,
    unique: &mut Unique,
    written: &WrittenConsumer,
) -> Vec<(Arc<str>, Arc<str>)> {
    let mut found = Vec::new();
    for login in written.logins.iter().flatten() {
        let issuer = reader.value("consumers.logins.issuer", Some(&login.issuer), names::word);
        let client = reader.value("consumers.logins.client", Some(&login.client), names::word);
        let Some((issuer, client)) = issuer.zip(client) else {
            continue;
        };
        let key = (Arc::clone(&issuer), Arc::clone(&client));
        let what = format!("client `{client}` of this issuer");
        let field = "consumers.logins.client";
        unique.logins.take(reader, field, &login.client, key, &what);
        found.push((issuer, client));
    }
    found
}

fn certificates(
    reader: &mut Reader,
    unique: &mut Unique,
    written: &WrittenConsumer,
) -> Vec<Arc<str>> {
    let field = "consumers.certificates";
    for one in written.certificates.iter().flatten() {
        let what = format!("certificate `{}`", one.text);
        let key = Arc::from(one.text.as_str());
        unique.certificates.take(reader, field, one, key, &what);
    }
    reader.list(field, written.certificates.as_ref(), names::line)
}

fn users(
    reader: &mut Reader,
    unique: &mut Unique,
    written: &WrittenConsumer,
) -> Vec<(Arc<str>, Secret)> {
    let mut found = Vec::new();
    for user in written.users.iter().flatten() {
        let name = reader.value("consumers.users.name", Some(&user.name), names::user);
        let field = "consumers.users.password_hash";
        let hash = reader.secret(field, Some(&user.password_hash));
        if let Some(hash) = &hash
            && !argon2id(hash.reveal())
        {
            let wrong = Wrong::new(
                "is no Argon2id hash in PHC form",
                "make one that begins with $argon2id$, never the password itself",
            );
            reader.refuse(field, &user.password_hash, wrong);
        }
        let Some((name, hash)) = name.zip(hash) else {
            continue;
        };
        let what = format!("user `{name}`");
        let key = Arc::clone(&name);
        unique
            .users
            .take(reader, "consumers.users.name", &user.name, key, &what);
        found.push((name, hash));
    }
    found
}

fn argon2id(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|hash| {
        hash.algorithm == argon2::ARGON2ID_IDENT && hash.salt.is_some() && hash.hash.is_some()
    })
}

fn keys(reader: &mut Reader, unique: &mut Unique, written: &WrittenConsumer) -> Vec<KeyConfig> {
    let mut names = Taken::default();
    let mut found = Vec::new();
    for key in written.keys.iter().flatten() {
        let what = format!("key `{}`", key.name.text);
        let field = "consumers.keys.name";
        names.take(reader, field, &key.name, key.name.text.as_str(), &what);
        found.extend(one_key(reader, unique, key));
    }
    found
}

fn one_key(reader: &mut Reader, unique: &mut Unique, written: &WrittenKey) -> Option<KeyConfig> {
    let name = reader.value("consumers.keys.name", Some(&written.name), names::object);
    let field = "consumers.keys.secret";
    let secret = reader.secret(field, Some(&written.secret));
    if let Some(secret) = &secret {
        let text = secret.reveal();
        if !KEY_BYTES.contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let wrong = Wrong::new(
                "is no key of 16 to 512 visible characters",
                "make one with `tollgate keys create`, or another that nobody guesses",
            );
            reader.refuse(field, &written.secret, wrong);
        }
        let what = "the same secret";
        unique
            .secrets
            .take(reader, field, &written.secret, text.to_owned(), what);
    }
    let not_before = written.not_before.as_ref();
    let not_before = reader.value("consumers.keys.not_before", not_before, value::moment);
    let expires = reader.value(
        "consumers.keys.expires",
        written.expires.as_ref(),
        value::moment,
    );
    if let (Some(from), Some(until), Some(at)) = (not_before, expires, &written.expires)
        && until <= from
    {
        let wrong = Wrong::new(
            "is not later than `not_before`, so the key is never valid",
            "write a later time",
        );
        reader.refuse("consumers.keys.expires", at, wrong);
    }
    let at = &written.name;
    let operations = written.operations.as_ref();
    let operations =
        operations.map(|list| reader.list("consumers.keys.operations", Some(list), names::line));
    let networks = written.networks.as_ref();
    let networks = reader.some("consumers.keys.networks", at, networks, value::network);
    let referrers = written.referrers.as_ref();
    let referrers = reader.some("consumers.keys.referrers", at, referrers, names::referrer);
    Some(KeyConfig {
        name: name?,
        secret: secret?,
        not_before,
        expires,
        operations,
        networks,
        referrers,
        place: reader.place(at),
    })
}
