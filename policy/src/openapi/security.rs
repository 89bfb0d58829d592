//! `security` and the schemes it names.
//!
//! Fails closed: what cannot be read is [`Security::unreadable`], a scheme nobody knows is never satisfied.

use std::collections::HashMap;
use std::sync::Arc;

use super::clip;
use super::finder::Finder;
use super::issuer::issuer;
use super::reference::{Library, Spot};
use super::{Dialect, SchemeIssuer, SchemeKind, SchemeUse, Security};
use crate::source::{Map, Node};

/// What a document defines of schemes, and what it demands by default.
#[derive(Debug)]
pub(super) struct Schemes<'l> {
    library: &'l Library,
    definitions: Option<Spot<'l>>,
    known: HashMap<Box<str>, Known>,
    default: Security,
}

/// A scheme's kind and issuer.
type Known = (SchemeKind, Option<Arc<SchemeIssuer>>);

/// Nobody passes until the file is repaired.
pub(super) fn closed() -> Security {
    Security {
        alternatives: Vec::new(),
        unreadable: true,
    }
}

impl<'l> Schemes<'l> {
    /// Reads the document's own demand.
    pub(super) fn read(library: &'l Library, dialect: Dialect, finder: &mut Finder) -> Self {
        let root = library.root();
        let definitions = if dialect == Dialect::Swagger20 {
            root.get("securityDefinitions")
        } else {
            root.get("components").and_then(|components| {
                library
                    .resolve(components)
                    .unwrap_or(components)
                    .get("securitySchemes")
            })
        };
        let definitions = definitions.map(|spot| library.resolve(spot).unwrap_or(spot));
        let public = Security {
            alternatives: Vec::new(),
            unreadable: false,
        };
        let mut schemes = Self {
            library,
            definitions,
            known: HashMap::new(),
            default: public,
        };
        if let Some(security) = root.get("security") {
            schemes.default = schemes.demand(security, finder);
        }
        schemes
    }

    /// What an operation demands: its own word, else the document's.
    pub(super) fn of(&mut self, operation: Spot<'_>, finder: &mut Finder) -> Security {
        match operation.get("security") {
            Some(security) => self.demand(security, finder),
            None => self.default.clone(),
        }
    }

    fn demand(&mut self, security: Spot<'_>, finder: &mut Finder) -> Security {
        let alternatives = security.node.as_list().and_then(|list| {
            list.iter()
                .map(|one| self.combination(security.at(one), finder))
                .collect()
        });
        let Some(alternatives) = alternatives else {
            finder.warn(
                security.place(),
                "unreadable-security",
                "`security` cannot be read; no call is admitted here",
                "write a list of mappings from scheme name to a list of scopes",
            );
            return closed();
        };
        Security {
            alternatives,
            unreadable: false,
        }
    }

    fn combination(&mut self, one: Spot<'_>, finder: &mut Finder) -> Option<Vec<SchemeUse>> {
        let scheme = |entry: &crate::source::Entry| {
            let scopes = match &entry.node {
                node if node.is_null() => Vec::new(),
                node => node
                    .as_list()?
                    .iter()
                    .map(|scope| scope.as_str().map(Arc::from))
                    .collect::<Option<_>>()?,
            };
            let (kind, issuer) = self.known(&entry.key, one.at(&entry.node), finder);
            Some(SchemeUse {
                name: entry.key.as_ref().into(),
                scopes,
                kind,
                issuer,
            })
        };
        one.node.as_map()?.iter().map(scheme).collect()
    }

    fn known(&mut self, name: &str, used: Spot<'_>, finder: &mut Finder) -> Known {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let known = self.read_scheme(name, used, finder);
        self.known.insert(name.into(), known.clone());
        known
    }

    fn read_scheme(&self, name: &str, used: Spot<'_>, finder: &mut Finder) -> Known {
        let definition = self.definitions.and_then(|all| all.get(name));
        let read = match definition.map(|spot| self.library.resolve(spot)) {
            None => Err("is not defined".to_owned()),
            Some(Err(dead_end)) => Err(format!("cannot be resolved: {}", dead_end.why)),
            Some(Ok(spot)) => kind_of(spot.node)
                .ok_or_else(|| "is of a kind that is not supported, or lacks a field".to_owned())
                .and_then(|kind| Ok((kind, issuer(spot, finder)?))),
        };
        let place = || definition.unwrap_or(used).place();
        match read {
            Ok((SchemeKind::Bearer, issuer)) => (SchemeKind::Bearer, issuer.map(Arc::new)),
            Ok((kind, None)) => (kind, None),
            Ok((kind, Some(_))) => {
                let what = format!(
                    "security scheme `{}` has an issuer, but takes no token",
                    clip(name)
                );
                let remedy = "write it on a scheme of type oauth2, openIdConnect or http bearer; it is ignored here";
                finder.warn(place(), "unused-issuer", what, remedy);
                (kind, None)
            }
            Err(why) => {
                finder.warn(
                    place(),
                    "unknown-scheme",
                    format!("security scheme `{}` {why}; no credential satisfies it", clip(name)),
                    "define it as `apiKey`, `http` with `basic` or `bearer`, `oauth2`, `openIdConnect` or `mutualTLS`",
                );
                (SchemeKind::Unknown, None)
            }
        }
    }
}

fn kind_of(scheme: &Node) -> Option<SchemeKind> {
    let map: &Map = scheme.as_map()?;
    let text = |key: &str| map.get(key).and_then(Node::as_str);
    match text("type")? {
        "apiKey" => {
            let name: Arc<str> = text("name").filter(|name| !name.is_empty())?.into();
            match text("in")? {
                "header" => Some(SchemeKind::ApiKeyHeader(name)),
                "query" => Some(SchemeKind::ApiKeyQuery(name)),
                "cookie" => Some(SchemeKind::ApiKeyCookie(name)),
                _ => None,
            }
        }
        // Swagger 2.0 has `basic` as a type of its own.
        "basic" => Some(SchemeKind::Basic),
        "http" => match text("scheme")? {
            scheme if scheme.eq_ignore_ascii_case("basic") => Some(SchemeKind::Basic),
            scheme if scheme.eq_ignore_ascii_case("bearer") => Some(SchemeKind::Bearer),
            _ => None,
        },
        "oauth2" | "openIdConnect" => Some(SchemeKind::Bearer),
        "mutualTLS" => Some(SchemeKind::MutualTls),
        _ => None,
    }
}
