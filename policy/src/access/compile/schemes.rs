//! Demands: which schemes an operation's callers satisfy, and whose tokens count for a scheme.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::{CredentialPlace, Demand, NamedIssuer, Scheme, SchemeDemand};
use super::{Compiler, did_you_mean};
use crate::finding::{Place, Severity};
use crate::openapi::{Description, Operation, SchemeIssuer, SchemeKind, SchemeUse};
use crate::settings::{IssuerConfig, KeySource, SecurityMode};

impl Compiler<'_> {
    /// Takes over the issuers of the API file.
    pub(super) fn issuers(&mut self) {
        for (name, config) in &self.config.auth.issuers {
            if config.audiences.is_empty() {
                self.find(
                    Severity::Warning,
                    "no-audience",
                    &config.place,
                    format!("issuer `{name}` has no `audiences`: its tokens for any other service count here"),
                    "write `audiences: [...]`, what `aud` says in tokens for this API",
                );
            }
            self.issuers.push(Arc::new(NamedIssuer {
                name: name.clone(),
                config: config.clone(),
            }));
        }
    }

    /// What the callers of an operation have to show: the one place that decides it.
    pub(super) fn demand(&mut self, operation: &Operation, off: Option<bool>) -> Demand {
        let security = &operation.security;
        if self.config.security == SecurityMode::Off || off == Some(true) {
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
        let mut known = self.schemes.iter().zip(&self.origins);
        let same = |(scheme, issuer): (&Scheme, &Option<Arc<SchemeIssuer>>)| {
            scheme.name == used.name && scheme.place == place && *issuer == used.issuer
        };
        if let Some(index) = known.position(same) {
            return index;
        }
        let settings = self.config.auth.schemes.get(&used.name);
        let certificates = settings.map(|settings| settings.certificates.clone());
        let issuers = self.issuers_of(used);
        self.schemes.push(Scheme {
            name: used.name.clone(),
            unknown: place == CredentialPlace::Nowhere,
            place,
            issuers,
            certificates: certificates.unwrap_or_default(),
        });
        self.origins.push(used.issuer.clone());
        self.schemes.len() - 1
    }

    /// Whose tokens satisfy a scheme. The one place where a scheme gets its issuers: those the API file names for it, else the
    /// one its definition names, else all of the API file.
    fn issuers_of(&mut self, used: &SchemeUse) -> Vec<usize> {
        let config = self.config;
        let settings = config.auth.schemes.get(&used.name);
        let named = settings.map_or(&[][..], |settings| &settings.issuers);
        if !named.is_empty() {
            let known = named.iter().map(|name| self.named_issuer(name, &used.name));
            return known.collect::<Vec<_>>().into_iter().flatten().collect();
        }
        match (&used.kind, &used.issuer) {
            (SchemeKind::Bearer, Some(said)) => self
                .described_issuer(&used.name, said)
                .into_iter()
                .collect(),
            (SchemeKind::Bearer, None) => (0..config.auth.issuers.len()).collect(),
            (
                SchemeKind::ApiKeyHeader(_)
                | SchemeKind::ApiKeyQuery(_)
                | SchemeKind::ApiKeyCookie(_)
                | SchemeKind::Basic
                | SchemeKind::MutualTls
                | SchemeKind::Unknown,
                _,
            ) => Vec::new(),
        }
    }

    /// An issuer of the API file by its name there.
    fn named_issuer(&mut self, name: &str, scheme: &str) -> Option<usize> {
        let known = self.config.auth.issuers.keys();
        let index = known.clone().position(|one| **one == *name);
        if index.is_none() {
            let remedy = did_you_mean(
                name,
                known.map(|name| &**name),
                "name one of `auth.issuers`",
            );
            let what = format!("scheme `{scheme}` names issuer `{name}`, which there is not");
            let place = self.place_of(scheme);
            self.find(Severity::Error, "unknown-issuer", &place, what, &remedy);
        }
        index
    }

    /// The issuer that a scheme's definition names. Where the API file knows it, what the API file says of it holds.
    fn described_issuer(&mut self, scheme: &Arc<str>, said: &SchemeIssuer) -> Option<usize> {
        let mut of_file = self.config.auth.issuers.values();
        if let Some(index) = of_file.position(|known| is_meant(known, said)) {
            return Some(index);
        }
        let Some(config) = said.config() else {
            let what = format!(
                "scheme `{scheme}` does not tell who issues its tokens, so that none counts: its \
                 `openIdConnectUrl` has another form than `<issuer>/.well-known/openid-configuration`"
            );
            let remedy =
                "name the issuer under `auth.issuers`, and it for this scheme under `auth.schemes`";
            self.find(Severity::Warning, "no-issuer", &said.place, what, remedy);
            return None;
        };
        if config.audiences.is_empty() {
            let what = format!(
                "the issuer of scheme `{scheme}` has no audiences: its tokens for any other service count here"
            );
            let remedy = format!(
                "name `{}` under `auth.issuers` of the API file, with `audiences: [...]`",
                config.issuer
            );
            self.find(Severity::Warning, "no-audience", &said.place, what, &remedy);
        }
        let same = |known: &Arc<NamedIssuer>| {
            let place = known.config.place.clone();
            known.config
                == IssuerConfig {
                    place,
                    ..config.clone()
                }
        };
        if let Some(index) = self.issuers.iter().position(same) {
            return Some(index);
        }
        let name = self.unused_name(scheme);
        self.issuers.push(Arc::new(NamedIssuer { name, config }));
        Some(self.issuers.len() - 1)
    }

    /// A name for an issuer that has none: that of its scheme, with a number where that is taken.
    fn unused_name(&self, scheme: &Arc<str>) -> Arc<str> {
        let taken = |name: &str| self.issuers.iter().any(|issuer| *issuer.name == *name);
        if !taken(scheme) {
            return scheme.clone();
        }
        let mut names = (2_usize..).map(|number| format!("{scheme}-{number}"));
        let free = names.find(|name| !taken(name));
        free.map_or_else(|| scheme.clone(), Arc::from)
    }

    /// Where `auth.schemes` names a scheme.
    fn place_of(&self, scheme: &str) -> Place {
        let settings = self.config.auth.schemes.get(scheme);
        let place = settings.and_then(|settings| settings.place.clone());
        place.unwrap_or_else(|| self.file.clone())
    }

    /// Names under `auth.schemes` that no operation demands.
    pub(super) fn unused_schemes(&mut self, description: &Description) {
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
            let place = self.place_of(name);
            self.find(Severity::Warning, "unknown-scheme", &place, what, &remedy);
        }
    }
}

/// Whether an issuer of the API file is the one a definition speaks of: by its name, which some end in a slash and others do not,
/// else by its discovery document.
fn is_meant(known: &IssuerConfig, said: &SchemeIssuer) -> bool {
    let plain = |issuer: &str| issuer.trim_end_matches('/').to_owned();
    match (&said.issuer, &said.discovery_url) {
        (Some(issuer), _) => plain(issuer) == plain(&known.issuer),
        (None, Some(url)) => matches!(&known.keys, KeySource::Discovery(own) if own == url),
        (None, None) => false,
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
