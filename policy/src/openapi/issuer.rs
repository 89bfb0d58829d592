//! Who issues the tokens of a security scheme, as far as its definition says: `x-tollgate`, `x-google-*`, `openIdConnectUrl`, in
//! this order of precedence.
//!
//! Fails closed: an extension that was written for a gateway and cannot be read makes its scheme one that nobody satisfies.
//! `openIdConnectUrl` is also written for clients; one we cannot use says nothing.

use std::sync::Arc;

use super::clip;
use super::finder::Finder;
use super::model::SchemeIssuer;
use super::reference::Spot;
use crate::settings::url::{discovery_of, issuer_of, key_url};
use crate::source::{Node, Value};

/// What one source says; `None`: nothing.
#[derive(Default)]
struct Said<'s> {
    issuer: Option<&'s str>,
    jwks: Option<&'s str>,
    audiences: Vec<Arc<str>>,
}

/// The issuer that `scheme` names.
///
/// # Errors
/// What cannot be read, for a message.
pub(super) fn issuer(
    scheme: Spot<'_>,
    finder: &mut Finder,
) -> Result<Option<SchemeIssuer>, String> {
    let openid = openid(scheme, finder);
    let said = match tollgate(scheme)? {
        Some(said) => said,
        None => match google(scheme)? {
            Some(said) => said,
            None => {
                return Ok(openid.map(|url| SchemeIssuer {
                    issuer: issuer_of(&url).map(Arc::from),
                    jwks_uri: None,
                    audiences: Vec::new(),
                    discovery_url: Some(url),
                    place: scheme.place(),
                }));
            }
        },
    };
    let Some(issuer) = said.issuer else {
        return Err("names keys or audiences without an issuer".to_owned());
    };
    let jwks_uri = said.jwks.map(keys).transpose()?;
    let found = || key_url(issuer).map(|issuer| discovery_of(&issuer).into());
    let discovery_url = match jwks_uri {
        Some(_) => None,
        None => openid.or_else(found),
    };
    if jwks_uri.is_none() && discovery_url.is_none() {
        return Err(format!(
            "has issuer `{}`, which is no https:// URL, and does not say where its keys are",
            clip(issuer)
        ));
    }
    Ok(Some(SchemeIssuer {
        issuer: Some(issuer.into()),
        jwks_uri,
        audiences: said.audiences,
        discovery_url,
        place: scheme.place(),
    }))
}

fn keys(url: &str) -> Result<Arc<str>, String> {
    key_url(url).ok_or_else(|| format!("takes keys from `{}`, which is no https:// URL", clip(url)))
}

fn tollgate(scheme: Spot<'_>) -> Result<Option<Said<'_>>, String> {
    let Some(own) = scheme.node.get("x-tollgate") else {
        return Ok(None);
    };
    let Some(map) = own.as_map() else {
        return Err(format!("has an `x-tollgate` that is {}", own.kind()));
    };
    let mut said = Said::default();
    for entry in map.iter() {
        match &*entry.key {
            "issuer" => said.issuer = Some(text(&entry.node, "issuer")?),
            // The default, written out.
            "jwks" if entry.node.as_str() == Some("discovery") => {}
            "jwks" => said.jwks = Some(text(&entry.node, "jwks")?),
            "audiences" => said.audiences = audiences(&entry.node, "audiences")?,
            other => {
                return Err(format!(
                    "has `{}` in `x-tollgate`, whose fields here are issuer, jwks and audiences",
                    clip(other)
                ));
            }
        }
    }
    Ok(Some(said))
}

fn google(scheme: Spot<'_>) -> Result<Option<Said<'_>>, String> {
    const FIELDS: [&str; 3] = ["x-google-issuer", "x-google-jwks_uri", "x-google-audiences"];
    let [issuer, jwks, heard] = FIELDS.map(|field| scheme.node.get(field).map(|it| (it, field)));
    if issuer.is_none() && jwks.is_none() && heard.is_none() {
        return Ok(None);
    }
    let word = |(node, field)| text(node, field);
    Ok(Some(Said {
        issuer: issuer.map(word).transpose()?,
        jwks: jwks.map(word).transpose()?,
        audiences: heard
            .map(|(node, field)| audiences(node, field))
            .transpose()?
            .unwrap_or_default(),
    }))
}

fn openid(scheme: Spot<'_>, finder: &mut Finder) -> Option<Arc<str>> {
    let written = scheme.node.get("openIdConnectUrl")?;
    let url = written.as_str().and_then(key_url);
    if url.is_none() {
        finder.note(
            scheme.at(written).place(),
            "unusable-openid-url",
            "`openIdConnectUrl` is no https:// URL; no issuer is known from it",
            "write the whole URL of the discovery document, or name the issuer in the API file",
        );
    }
    url
}

fn text<'n>(node: &'n Node, field: &str) -> Result<&'n str, String> {
    node.as_str()
        .filter(|text| !text.is_empty() && !text.contains(char::is_whitespace))
        .ok_or_else(|| format!("has a `{field}` that is no single word"))
}

/// Text with commas, as Google writes it, or a list.
fn audiences(node: &Node, field: &str) -> Result<Vec<Arc<str>>, String> {
    let words: Option<Vec<&str>> = match &node.value {
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        Value::List(list) => list.iter().map(Node::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Map(_) => None,
    };
    let mut found: Vec<Arc<str>> = words
        .iter()
        .flatten()
        .map(|word| Arc::from(*word))
        .collect();
    found.retain(|word| !word.is_empty());
    // None at all would mean any.
    match found.is_empty() {
        true => Err(format!("has a `{field}` without any audience")),
        false => Ok(found),
    }
}
