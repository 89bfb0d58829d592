//! What the service is told about the caller, and what of the caller's credentials it does not see.
//!
//! A credential is good for the hop that verified it: where it stood it is taken out, so that a service that leaks its logs leaks no
//! keys. `auth.forward_credentials` leaves it in.

use http::header::{AUTHORIZATION, COOKIE, HeaderValue};
use pingora_error::Result;
use pingora_http::RequestHeader;
use serde_json::Value;
use tollgate_policy::access::{CredentialPlace, Demand};

use crate::door::asked::target_of;
use crate::identity::shown::decoded;
use crate::journey::Admitted;

/// Longest value of a claim that becomes a field.
const LONGEST_CLAIM: usize = 1024;

/// Takes the verified credentials out of `head` and writes who was identified.
///
/// # Errors
/// A value that cannot be a field; cannot happen for judged heads.
pub fn write(head: &mut RequestHeader, admitted: &Admitted) -> Result<()> {
    let api = &admitted.api;
    let identity = &admitted.identified.identity;
    // Also where the claim is absent: the service must not take the client's own field for ours.
    for (_, field) in &api.config.auth.forward_claims {
        head.remove_header(&**field);
    }
    if !api.config.auth.forward_credentials {
        strip(head, admitted)?;
    }
    if let Some(caller) = &identity.caller {
        head.insert_header("x-tollgate-consumer", &*caller.consumer.name)?;
        let index = admitted.grant.subscription;
        let held = index.and_then(|index| caller.consumer.subscriptions.get(index));
        if let Some(subscription) = held {
            head.insert_header("x-tollgate-plan", &*subscription.plan.name)?;
        }
    }
    if let Some(claims) = &identity.claims {
        for (claim, field) in &api.config.auth.forward_claims {
            let value = claims.all.get(&**claim).and_then(field_of);
            if let Some(value) = value {
                head.insert_header(field.to_string(), value)?;
            }
        }
    }
    Ok(())
}

/// A claim as a field value; what does not fit in one is left out.
fn field_of(claim: &Value) -> Option<HeaderValue> {
    let text = match claim {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_) => claim.to_string(),
        Value::Null => return None,
    };
    let fits = text.len() <= LONGEST_CLAIM;
    fits.then(|| HeaderValue::from_str(&text).ok()).flatten()
}

fn strip(head: &mut RequestHeader, admitted: &Admitted) -> Result<()> {
    let access = &admitted.api.access;
    let demand = access
        .operations
        .get(admitted.operation)
        .map(|it| &it.demand);
    let Some(Demand::Alternatives { combinations, .. }) = demand else {
        return Ok(());
    };
    for demanded in combinations.iter().flatten() {
        let Some(scheme) = access.schemes.get(demanded.scheme) else {
            continue;
        };
        match &scheme.place {
            CredentialPlace::Header(name) => {
                head.remove_header(&**name);
            }
            CredentialPlace::Bearer | CredentialPlace::Basic => {
                head.remove_header(&AUTHORIZATION);
            }
            CredentialPlace::Query(name) => strip_query(head, name)?,
            CredentialPlace::Cookie(name) => strip_cookie(head, name)?,
            CredentialPlace::Certificate | CredentialPlace::Nowhere => {}
        }
    }
    Ok(())
}

fn strip_query(head: &mut RequestHeader, name: &str) -> Result<()> {
    let stripped = target_of(head)
        .ok()
        .and_then(|target| without_parameter(target, name));
    match stripped {
        Some(target) => super::fields::set_target(head, &target),
        None => Ok(()),
    }
}

/// `target` without the query parameter `name`; `None` where it has none.
pub(crate) fn without_parameter(target: &str, name: &str) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let is_ours = |pair: &&str| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        decoded(key).is_some_and(|key| key == name)
    };
    if !query.split('&').any(|pair| is_ours(&pair)) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_ours(pair)).collect();
    Some(match kept.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", kept.join("&")),
    })
}

fn strip_cookie(head: &mut RequestHeader, name: &str) -> Result<()> {
    let mut kept = Vec::new();
    let mut found = false;
    for value in head.headers.get_all(COOKIE) {
        for pair in value.to_str().unwrap_or_default().split(';') {
            let key = pair.split_once('=').map_or(pair, |(key, _)| key);
            if key.trim() == name {
                found = true;
            } else {
                kept.push(pair.trim().to_owned());
            }
        }
    }
    if !found {
        return Ok(());
    }
    head.remove_header(&COOKIE);
    if !kept.is_empty() {
        head.insert_header(COOKIE, kept.join("; "))?;
    }
    Ok(())
}
