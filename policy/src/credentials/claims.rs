//! Claims: from JSON to what rules ask for, and whether they count now. The same for a token and for an introspection answer.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::jwt::TokenRules;
use super::{BadCredential, Claims};
use crate::time::Timestamp;

/// Reads claims. Every registered claim has its type, or the whole is refused. An absent `iss` is the issuer of the rules.
pub(super) fn read(all: Map<String, Value>, rules: &TokenRules) -> Result<Claims, BadCredential> {
    check_audience(&all, rules)?;
    let issuer = identifier(all.get("iss"))?.unwrap_or_else(|| rules.issuer.clone());
    let subject = identifier(all.get("sub"))?.unwrap_or_default();
    let id = identifier(all.get("jti"))?.unwrap_or_default();
    let (expires, not_before, issued) = (
        date(all.get("exp"))?,
        date(all.get("nbf"))?,
        date(all.get("iat"))?,
    );
    let mut client = None;
    for claim in &rules.client_claims {
        client = identifier(find(&all, claim))?.filter(|text| !text.is_empty());
        if client.is_some() {
            break;
        }
    }
    let mut scopes = Vec::new();
    for claim in &rules.scope_claims {
        match find(&all, claim) {
            // RFC 6749 section 3.3: a text with spaces between.
            Some(Value::String(text)) => {
                scopes.extend(text.split_ascii_whitespace().map(Arc::from))
            }
            other => scopes.extend(list(other)?),
        }
    }
    let mut roles = Vec::new();
    for claim in &rules.role_claims {
        match find(&all, claim) {
            Some(Value::String(text)) => roles.push(Arc::from(text.as_str())),
            other => roles.extend(list(other)?),
        }
    }
    let client = client.unwrap_or_default();
    Ok(Claims {
        issuer,
        subject,
        client,
        scopes,
        roles,
        id,
        expires,
        not_before,
        issued,
        all,
    })
}

/// Whether claims count at `now`. A token ends at `exp` itself (RFC 7519 section 4.1.4).
pub(super) fn judge(
    claims: &Claims,
    rules: &TokenRules,
    now: Timestamp,
) -> Result<(), BadCredential> {
    if claims.issuer != rules.issuer {
        return Err(BadCredential::Issuer);
    }
    if claims
        .expires
        .is_some_and(|end| now >= end.plus(rules.leeway))
    {
        return Err(BadCredential::Expired);
    }
    let latest_start = now.plus(rules.leeway);
    if claims.not_before.is_some_and(|start| start > latest_start)
        || claims.issued.is_some_and(|issued| issued > latest_start)
    {
        return Err(BadCredential::NotYet);
    }
    Ok(())
}

/// One audience of ours is enough. Types are checked also where any audience will do.
fn check_audience(all: &Map<String, Value>, rules: &TokenRules) -> Result<(), BadCredential> {
    let ours = |audience: &str| {
        rules
            .audiences
            .iter()
            .any(|accepted| &**accepted == audience)
    };
    let for_us = match all.get("aud") {
        None => false,
        Some(Value::String(audience)) => ours(audience),
        Some(Value::Array(audiences)) => {
            let mut found = false;
            for audience in audiences {
                found |= ours(audience.as_str().ok_or(BadCredential::ClaimType)?);
            }
            found
        }
        Some(_) => return Err(BadCredential::ClaimType),
    };
    if for_us || rules.audiences.is_empty() {
        Ok(())
    } else {
        Err(BadCredential::Audience)
    }
}

/// The claim of a name; where there is none, dots in the name lead into objects. The whole name is tried first, and dots from left to
/// right, because claims named by a URL have dots of their own.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        name.match_indices('.')
            .find_map(|(dot, _)| match claims.get(name.get(..dot)?)? {
                Value::Object(inner) => find(inner, name.get(dot + 1..)?),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => None,
            })
    })
}

/// A text that names something. It ends up in logs, keys and header fields, where a control character has no business.
fn identifier(value: Option<&Value>) -> Result<Option<Arc<str>>, BadCredential> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if !text.chars().any(char::is_control) => {
            Ok(Some(text.as_str().into()))
        }
        Some(_) => Err(BadCredential::ClaimType),
    }
}

fn list(value: Option<&Value>) -> Result<Vec<Arc<str>>, BadCredential> {
    let text = |item: &Value| item.as_str().map(Arc::from).ok_or(BadCredential::ClaimType);
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(text).collect(),
        Some(_) => Err(BadCredential::ClaimType),
    }
}

/// A NumericDate: a JSON number of seconds, perhaps with a fraction. What lies beyond our calendar is its end.
fn date(value: Option<&Value>) -> Result<Option<Timestamp>, BadCredential> {
    let number = match value {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(BadCredential::ClaimType),
    };
    if let Some(seconds) = number.as_i64() {
        return Ok(Some(Timestamp::from_seconds(seconds)));
    }
    let millis = number
        .as_f64()
        .map(|seconds| (seconds * 1000.0).floor())
        .ok_or(BadCredential::ClaimType)?;
    if millis.is_nan() {
        return Err(BadCredential::ClaimType);
    }
    // A cast from a float saturates.
    Ok(Some(Timestamp::from_millis(millis as i64)))
}
