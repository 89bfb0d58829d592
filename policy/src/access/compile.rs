//! From an API file and its OpenAPI file to [`ApiAccess`], with what is wrong in them.
//!
//! Mistakes that could let somebody through, such as a rule about an operation that does not exist, are errors: the file is not
//! served until they are repaired. Not here: what single values mean, which the settings have checked.

use std::collections::HashSet;
use std::sync::Arc;

use super::cel::Condition;
use super::rule::Rule;
use super::{
    ApiAccess, CredentialPlace, Demand, NamedIssuer, OperationAccess, OwnRules, RuleRef, Scheme,
    SchemeDemand,
};
use crate::finding::{Finding, Place, Severity};
use crate::openapi::{Description, Operation, SchemeKind, SchemeUse};
use crate::settings::{ApiConfig, Effect, Network, NetworkLists, RuleConfig, SecurityMode};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

pub(super) fn compile(config: &ApiConfig, description: &Description) -> (ApiAccess, Vec<Finding>) {
    let mut compiler = Compiler {
        config,
        file: Place::file(config.file.display().to_string()),
        issuers: Vec::new(),
        schemes: Vec::new(),
        findings: Vec::new(),
    };
    compiler.issuers();
    let demands: Vec<_> = description
        .operations
        .iter()
        .map(|one| compiler.demand(one))
        .collect();
    compiler.unused_schemes(description);
    let names: Vec<_> = description.operations.iter().map(names).collect();
    let rules = compiler.rules(&names);
    let operations = demands.into_iter().zip(names);
    let operations = operations
        .map(|(demand, names)| operation(demand, names, &rules))
        .collect();
    let own = |kind, name: &str, place: &Place| {
        Arc::new(RuleRef {
            kind,
            name: name.into(),
            place: Some(place.clone()),
        })
    };
    let network = config.networks.place.as_ref().unwrap_or(&compiler.file);
    let access = ApiAccess {
        own: OwnRules {
            security: own("security", &config.name, &compiler.file),
            subscription: own("subscription", &config.name, &compiler.file),
            network: own("network", "networks", network),
        },
        schemes: compiler.schemes,
        issuers: compiler.issuers,
        operations,
        subscription: config.auth.subscription,
        rules,
        networks: config.networks.clone(),
    };
    (access, compiler.findings)
}

/// The name nearest to `wrong`, if one is near enough to be meant.
pub(super) fn nearest<'c>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let likeness = |candidate: &'c str| (strsim::jaro_winkler(wrong, candidate), candidate);
    let near = candidates
        .into_iter()
        .map(likeness)
        .filter(|(likeness, _)| *likeness >= 0.75);
    near.max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// What rules, plans and credentials may call an operation; the label-safe name first.
fn names(operation: &Operation) -> Box<[Arc<str>]> {
    let route = format!("{} {}", operation.method, operation.template).into();
    let id = operation
        .id
        .iter()
        .filter(|id| **id != operation.name)
        .cloned();
    [operation.name.clone()]
        .into_iter()
        .chain(id)
        .chain([route])
        .collect()
}

fn operation(demand: Demand, names: Box<[Arc<str>]>, rules: &[Rule]) -> OperationAccess {
    let mut access = OperationAccess {
        demand,
        needs_cel: false,
        names,
        denials: Vec::new(),
        allowances: Vec::new(),
    };
    for (index, rule) in rules.iter().enumerate() {
        let config = &rule.config;
        if !config.operations.is_empty() && !access.is_named_in(&config.operations) {
            continue;
        }
        access.needs_cel |= rule.condition.is_some();
        match config.effect {
            Effect::Deny => access.denials.push(index),
            Effect::Allow => access.allowances.push(index),
        }
    }
    access
}

struct Compiler<'c> {
    config: &'c ApiConfig,
    /// The API file as a whole, for what has no place of its own.
    file: Place,
    issuers: Vec<Arc<NamedIssuer>>,
    schemes: Vec<Scheme>,
    findings: Vec<Finding>,
}

impl Compiler<'_> {
    fn issuers(&mut self) {
        for (name, config) in &self.config.auth.issuers {
            if config.audiences.is_empty() {
                self.find(
                    Severity::Warning,
                    "no-audiences",
                    &config.place,
                    format!("issuer `{name}` has no audiences: its tokens for any other service count here"),
                    "write `audiences: [...]` with the names tokens for this API carry in `aud`",
                );
            }
            self.issuers.push(Arc::new(NamedIssuer {
                name: name.clone(),
                config: config.clone(),
            }));
        }
    }

    fn demand(&mut self, operation: &Operation) -> Demand {
        let left_to_service = self.config.security == SecurityMode::Off
            || self.config.settings_for(operation).security_off == Some(true);
        let security = &operation.security;
        if left_to_service {
            return Demand::Public;
        }
        if security.unreadable {
            return Demand::Unreadable;
        }
        if security.alternatives.is_empty() {
            return Demand::Public;
        }
        let anonymous = security.admits_anonymous();
        let combinations = security
            .alternatives
            .iter()
            .filter(|schemes| !schemes.is_empty());
        let combination = |schemes: &Vec<SchemeUse>| {
            let demand = |used: &SchemeUse| SchemeDemand {
                scheme: self.scheme(used),
                scopes: used.scopes.clone(),
            };
            schemes.iter().map(demand).collect()
        };
        Demand::Alternatives {
            combinations: combinations.map(combination).collect(),
            anonymous,
        }
    }

    /// Index of the scheme an operation uses, which is added on its first use.
    fn scheme(&mut self, used: &SchemeUse) -> usize {
        let place = place(&used.kind);
        let unknown = place == CredentialPlace::Nowhere;
        let settings = self.config.auth.schemes.get(&used.name);
        let certificates = settings.map(|settings| settings.certificates.clone());
        let same = |scheme: &Scheme| scheme.name == used.name && scheme.place == place;
        if let Some(index) = self.schemes.iter().position(same) {
            return index;
        }
        let issuers = self.issuers_of(used);
        self.schemes.push(Scheme {
            name: used.name.clone(),
            place,
            issuers,
            certificates: certificates.unwrap_or_default(),
            unknown,
        });
        self.schemes.len() - 1
    }

    /// Whose tokens satisfy a scheme. The one place where a scheme gets its issuers.
    fn issuers_of(&mut self, used: &SchemeUse) -> Vec<usize> {
        let settings = self.config.auth.schemes.get(&used.name);
        let named = settings.map_or(&[][..], |settings| &settings.issuers);
        if named.is_empty() {
            return match used.kind {
                SchemeKind::Bearer => (0..self.issuers.len()).collect(),
                SchemeKind::ApiKeyHeader(_)
                | SchemeKind::ApiKeyQuery(_)
                | SchemeKind::ApiKeyCookie(_)
                | SchemeKind::Basic
                | SchemeKind::MutualTls
                | SchemeKind::Unknown => Vec::new(),
            };
        }
        let mut indexes = Vec::new();
        for name in named {
            match self.issuers.iter().position(|issuer| issuer.name == *name) {
                Some(index) => indexes.push(index),
                None => self.unknown_issuer(name, &used.name),
            }
        }
        indexes
    }

    fn unknown_issuer(&mut self, name: &str, scheme: &str) {
        let known = self.config.auth.issuers.keys().map(|name| &**name);
        let remedy = did_you_mean(name, known, "name one of `auth.issuers`");
        let what = format!("scheme `{scheme}` names issuer `{name}`, which there is not");
        let place = self.file.clone();
        self.find(Severity::Error, "unknown-issuer", &place, what, &remedy);
    }

    /// Names under `auth.schemes` that no operation demands.
    fn unused_schemes(&mut self, description: &Description) {
        let uses = description
            .operations
            .iter()
            .flat_map(|of| of.security.alternatives.iter().flatten());
        let known: HashSet<&str> = uses.map(|used| &*used.name).collect();
        for name in self
            .config
            .auth
            .schemes
            .keys()
            .filter(|name| !known.contains(&***name))
        {
            let what = format!(
                "no operation of {} demands a scheme `{name}`",
                description.file
            );
            let remedy = did_you_mean(
                name,
                known.iter().copied(),
                "name a scheme its `security` uses",
            );
            let place = self.file.clone();
            self.find(Severity::Warning, "unknown-scheme", &place, what, &remedy);
        }
    }

    fn rules(&mut self, operations: &[Box<[Arc<str>]>]) -> Vec<Rule> {
        let mut taken = HashSet::new();
        let mut rules = Vec::new();
        for config in &self.config.acl {
            if !taken.insert(&config.name) {
                let what = format!("there are two rules `{}`", config.name);
                let remedy = "give each rule its own name";
                self.find(
                    Severity::Error,
                    "duplicate-rule",
                    &config.place,
                    what,
                    remedy,
                );
            }
            self.unknown_operations(config, operations);
            if let Some(why) = never(config, &self.config.networks) {
                let what = format!("rule `{}` never matches: {why}", config.name);
                let remedy = "correct it, or remove it";
                self.find(
                    Severity::Error,
                    "never-matches",
                    &config.place,
                    what,
                    remedy,
                );
            }
            let condition = config
                .when
                .as_ref()
                .map(|text| self.condition(config, text));
            let place = Some(config.place.clone());
            let reference = RuleRef {
                kind: "acl",
                name: config.name.clone(),
                place,
            };
            rules.push(Rule {
                reference: reference.into(),
                config: config.clone(),
                condition,
            });
        }
        rules
    }

    fn unknown_operations(&mut self, config: &RuleConfig, operations: &[Box<[Arc<str>]>]) {
        let known = || operations.iter().flatten();
        for name in config
            .operations
            .iter()
            .filter(|name| !known().any(|one| one == *name))
        {
            let what = format!(
                "rule `{}` is about `{name}`, which is no operation",
                config.name
            );
            let otherwise = "write an operationId, or method and template as in the OpenAPI file";
            let remedy = did_you_mean(name, known().map(|one| &**one), otherwise);
            self.find(
                Severity::Error,
                "unknown-operation",
                &config.place,
                what,
                &remedy,
            );
        }
    }

    fn condition(&mut self, config: &RuleConfig, text: &Arc<str>) -> Condition {
        Condition::compile(text).unwrap_or_else(|why| {
            let what = format!("the condition of rule `{}` is refused: {why}", config.name);
            let remedy = "correct `when`; it is CEL over request, path, query, header, caller, claims and now";
            self.find(Severity::Error, "bad-condition", &config.place, what, remedy);
            Condition::broken(text)
        })
    }

    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: &Place,
        what: String,
        remedy: &str,
    ) {
        let (place, remedy) = (place.clone(), remedy.to_owned());
        self.findings.push(Finding {
            severity,
            code,
            place,
            what,
            remedy,
        });
    }
}

fn place(kind: &SchemeKind) -> CredentialPlace {
    match kind {
        SchemeKind::ApiKeyHeader(name) => CredentialPlace::Header(name.to_ascii_lowercase().into()),
        SchemeKind::ApiKeyQuery(name) => CredentialPlace::Query(name.clone()),
        SchemeKind::ApiKeyCookie(name) => CredentialPlace::Cookie(name.clone()),
        SchemeKind::Basic => CredentialPlace::Basic,
        SchemeKind::Bearer => CredentialPlace::Bearer,
        SchemeKind::MutualTls => CredentialPlace::Certificate,
        SchemeKind::Unknown => CredentialPlace::Nowhere,
    }
}

fn did_you_mean<'c>(
    wrong: &str,
    known: impl IntoIterator<Item = &'c str>,
    otherwise: &str,
) -> String {
    match nearest(wrong, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise.to_owned(),
    }
}

/// Why no call can ever match a rule.
fn never(rule: &RuleConfig, lists: &NetworkLists) -> Option<&'static str> {
    if let (Some(start), Some(end)) = (rule.not_before, rule.not_after)
        && start >= end
    {
        return Some("it ends before it begins");
    }
    if let Some((from, until)) = rule.hours
        && (from == until || from >= DAY || until > DAY)
    {
        return Some("its hours hold no minute of a day");
    }
    if rule.networks.is_empty() || lists.shadow {
        return None;
    }
    let overlap =
        |one: &Network, other: &Network| one.contains(other.address) || other.contains(one.address);
    let allowed = |network: &Network| {
        lists.allow.is_empty() || lists.allow.iter().any(|allowed| overlap(allowed, network))
    };
    let denied = |network: &Network| {
        let covers = |of: &Network| of.prefix <= network.prefix && of.contains(network.address);
        lists.deny.iter().any(covers)
    };
    if rule
        .networks
        .iter()
        .any(|network| allowed(network) && !denied(network))
    {
        return None;
    }
    Some("`networks` of the API refuses every address it is about")
}
