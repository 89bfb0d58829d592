//! What files say about APIs that other files define: plans, subscriptions, terms, rules, logins. Held against what there is;
//! nothing of it keeps a file from being served.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::api_file::Placed;
use super::decode::nearest;
use super::directory_file::Directory;
use super::limit_check::Charge;
use super::{ApiConfig, Effect, RuleConfig};
use crate::access::ApiAccess;
use crate::finding::{Finding, Place, Severity};
use crate::openapi::{Description, SchemeKind};
use crate::quota::Limit;

/// An API that is named, or an operation of it.
#[derive(Debug)]
pub(super) struct Mention {
    /// Name of the API; `*`: any.
    pub(super) api: Arc<str>,
    /// By label-safe name, `operationId`, or `METHOD /template`.
    pub(super) operation: Option<Arc<str>>,
    pub(super) place: Place,
}

/// What others may name of an API.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Its operations under all their names; empty where it could not be read.
    operations: HashSet<String>,
    /// `iss` of everybody whose tokens count.
    issuers: HashSet<Arc<str>>,
    /// Its rules, also those of the description, which hold names of the directory.
    rules: Vec<RuleConfig>,
    /// What calls cost.
    pub(super) charges: Vec<Charge>,
    /// How much there is of it.
    pub(super) limits: Vec<Arc<Limit>>,
}

impl Named {
    /// What there is to name of an API that could be read.
    pub(super) fn of(access: &ApiAccess, charges: Vec<Charge>, limits: Vec<Arc<Limit>>) -> Self {
        let issuers = access.issuers.iter();
        Self {
            operations: access.operation_names().map(str::to_owned).collect(),
            issuers: issuers.map(|it| Arc::clone(&it.config.issuer)).collect(),
            rules: access.rules().cloned().collect(),
            charges,
            limits,
        }
    }

    /// Whether nothing is known of it, because it could not be read.
    pub(super) fn is_unread(&self) -> bool {
        self.operations.is_empty()
    }
}

/// What compiling an API does not look at: entries of operations that are not there, and tokens nobody can issue.
pub(super) fn own(placed: &Placed, named: &Named, description: &Description) -> Vec<Finding> {
    let file = format!("of {}", description.file);
    let keys = placed.operations.iter();
    let strange = keys.filter(|(key, _)| !named.operations.contains(key));
    strange
        .map(|(key, place)| unknown_operation(key, place, &named.operations, &file))
        .chain(unsatisfiable(&placed.config, description))
        .collect()
}

/// Token schemes of an API that knows no issuer: only keys of Tollgate satisfy them, which may be meant.
fn unsatisfiable(config: &ApiConfig, description: &Description) -> Option<Finding> {
    let mut used = description
        .operations
        .iter()
        .flat_map(|it| it.security.alternatives.iter().flatten());
    let lonely = used.find(|used| used.kind == SchemeKind::Bearer && used.issuer.is_none())?;
    if !config.auth.issuers.is_empty() || config.security == super::SecurityMode::Off {
        return None;
    }
    Some(Finding {
        severity: Severity::Note,
        code: "no-issuer",
        place: Place::file(config.file.display().to_string()),
        what: format!(
            "security scheme `{}` takes tokens, and no issuer is known: only keys of Tollgate satisfy it",
            lonely.name
        ),
        remedy: "name who issues tokens under `auth.issuers`".to_owned(),
    })
}

/// What the directory says of APIs, and their rules of the directory, that is not there. APIs that could not be read are
/// named with nothing in them.
pub(super) fn across(directory: &Directory, apis: &BTreeMap<String, Named>) -> Vec<Finding> {
    let mut found = Vec::new();
    for mention in directory.mentions.iter().filter(|it| &*it.api != "*") {
        let Some(api) = apis.get(&*mention.api) else {
            if mention.operation.is_none() {
                let what = format!("there is no API `{}`", mention.api);
                let near = nearest(&mention.api, apis.keys().map(String::as_str));
                let otherwise = "write its file in apis/, or correct the name";
                found.push(warning(
                    "unknown-api",
                    &mention.place,
                    what,
                    near,
                    otherwise,
                ));
            }
            continue;
        };
        let known = &api.operations;
        if let Some(key) = &mention.operation
            && !known.is_empty()
            && !known.contains(&**key)
        {
            let file = format!("of `{}`", mention.api);
            found.push(unknown_operation(key, &mention.place, known, &file));
        }
    }
    found.extend(strange_logins(directory, apis));
    for api in apis.values() {
        found.extend(api.rules.iter().flat_map(|rule| strangers(rule, directory)));
    }
    found
}

/// Logins of an issuer that no API believes.
fn strange_logins(directory: &Directory, apis: &BTreeMap<String, Named>) -> Vec<Finding> {
    let known: HashSet<&str> = apis
        .values()
        .flat_map(|api| api.issuers.iter().map(|it| &**it))
        .collect();
    let mut found = Vec::new();
    for consumer in &directory.config.consumers {
        for (issuer, _) in &consumer.logins {
            if !known.contains(&**issuer) {
                let what = format!(
                    "consumer `{}` has a login of issuer `{issuer}`, whose tokens no API accepts",
                    consumer.name
                );
                let near = nearest(issuer, known.iter().copied());
                let otherwise = "name the issuer under `auth.issuers` of an API";
                found.push(warning(
                    "unknown-issuer",
                    &consumer.place,
                    what,
                    near,
                    otherwise,
                ));
            }
        }
    }
    found
}

/// Names in a rule that no file defines. The store may define them, so a note.
fn strangers(rule: &RuleConfig, directory: &Directory) -> Vec<Finding> {
    let config = &directory.config;
    let named = [
        (
            "consumer",
            &rule.consumers,
            names(config.consumers.iter().map(|it| &it.name)),
        ),
        (
            "project",
            &rule.projects,
            names(config.projects.iter().map(|it| &it.name)),
        ),
        (
            "organisation",
            &rule.organisations,
            names(config.organisations.iter().map(|it| &it.name)),
        ),
        (
            "plan",
            &rule.plans,
            names(config.plans.iter().map(|it| &it.name)),
        ),
    ];
    let mut found = Vec::new();
    for (kind, list, known) in named {
        for name in list.iter().filter(|name| !known.contains(&***name)) {
            let what = format!(
                "rule `{}` names {kind} `{name}`, which no file defines",
                rule.name
            );
            let near = nearest(name, known.iter().copied());
            let otherwise = match rule.effect {
                Effect::Allow => "correct it, unless the store has it; until then it allows nobody",
                Effect::Deny => "correct it, unless the store has it; until then it denies nobody",
            };
            found.push(Finding {
                severity: Severity::Note,
                ..warning("unknown-name", &rule.place, what, near, otherwise)
            });
        }
    }
    found
}

fn names<'n>(all: impl Iterator<Item = &'n Arc<str>>) -> HashSet<&'n str> {
    all.map(|name| &**name).collect()
}

/// A name that no operation has.
pub(super) fn unknown_operation(
    key: &str,
    place: &Place,
    known: &HashSet<String>,
    of: &str,
) -> Finding {
    let what = format!("`{key}` is no operation {of}");
    let near = nearest(key, known.iter().map(String::as_str));
    let otherwise = "write an operationId, or method and template as in the file";
    warning("unknown-operation", place, what, near, otherwise)
}

/// A warning whose remedy is the name that is near, or something else.
pub(super) fn warning(
    code: &'static str,
    place: &Place,
    what: String,
    near: Option<&str>,
    otherwise: &str,
) -> Finding {
    Finding {
        severity: Severity::Warning,
        code,
        place: place.clone(),
        what,
        remedy: match near {
            Some(name) => format!("did you mean `{name}`?"),
            None => otherwise.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
