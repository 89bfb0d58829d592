//! A decision for somebody who holds no policy of the API and tells only part of a call: the same rules, and what one of them would have
//! to look at and nobody told is undecided, which refuses.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    ApiAccess, Circumstances, CredentialPlace, Demand, Identity, OperationAccess, Scheme,
    SchemeDemand, Silent, Values, WhyNot, decide, roles_satisfied, scopes_satisfied,
};
use crate::credentials::Claims;
use crate::directory::{Caller, CredentialRef};
use crate::time::Timestamp;

/// What is told of a call. Whoever asks has verified the credential.
#[derive(Clone, Copy, Debug)]
pub struct Told<'t> {
    /// The credential that was shown.
    pub credential: &'t CredentialRef,
    /// Whose it is.
    pub caller: &'t Arc<Caller>,
    /// All scopes of the token, where it was one.
    pub scopes: &'t [Arc<str>],
    /// All roles of the token, where it was one.
    pub roles: &'t [Arc<str>],
    /// The client's address.
    pub client: Option<IpAddr>,
    /// `Origin`, else `Referer`.
    pub referrer: Option<&'t str>,
}

/// Decides about a call of which only this is told. `api` and `operation` as in [`decide`]. Where an authoriser is asked as well, or a
/// condition in CEL has a say, it cannot be decided here.
///
/// # Errors
/// Why not.
pub fn decide_remote(
    access: &ApiAccess,
    api: &str,
    operation: usize,
    told: Told<'_>,
    now: Timestamp,
) -> Result<(), WhyNot> {
    let called = access.operations.get(operation);
    let called = called.ok_or(WhyNot::Undecidable)?;
    if access.authoriser || called.needs_cel {
        return Err(WhyNot::Undecidable);
    }
    let mut identity = Identity {
        caller: Some(told.caller.clone()),
        ..Identity::default()
    };
    match told.credential {
        CredentialRef::Login { issuer, client } => {
            if looks_at_untold(access, called, told) {
                return Err(WhyNot::Undecidable);
            }
            identity.claims = Some(Arc::new(claims(issuer, client, told)));
        }
        CredentialRef::Certificate(name) => identity.certificate = Some(name.clone()),
        CredentialRef::Key(_) | CredentialRef::User(_) => {}
    }
    satisfied(access, called, told.credential, &identity)?;
    let circumstances = Circumstances {
        now,
        client: told.client,
        method: "",
        host: "",
        path: "",
        referrer: told.referrer,
        values: &Untold,
    };
    let decided = decide(
        access,
        api,
        operation,
        &identity,
        &circumstances,
        &mut Silent,
    );
    decided.map(drop).map_err(|refusal| refusal.why)
}

/// Whether the one credential that was shown is all that one way into the operation demands.
fn satisfied(
    access: &ApiAccess,
    operation: &OperationAccess,
    credential: &CredentialRef,
    identity: &Identity,
) -> Result<(), WhyNot> {
    let Demand::Alternatives {
        combinations,
        anonymous,
    } = &operation.demand
    else {
        return Ok(());
    };
    let mut why = WhyNot::Undecidable;
    for combination in combinations {
        let fits = |demand: &SchemeDemand| {
            let scheme = access.schemes.get(demand.scheme);
            scheme.is_some_and(|scheme| fits(access, scheme, credential))
        };
        if combination.is_empty() || !combination.iter().all(fits) {
            continue;
        }
        let has = |demand: &SchemeDemand| match &identity.claims {
            Some(claims) => scopes_satisfied(&demand.scopes, claims),
            None => roles_satisfied(&demand.scopes, identity.caller.as_deref()),
        };
        match combination.iter().try_for_each(has) {
            Ok(()) => return Ok(()),
            Err(lacking) => why = WhyNot::Scope(lacking),
        }
    }
    match anonymous {
        true => Ok(()),
        false => Err(why),
    }
}

/// Whether a scheme takes such a credential.
fn fits(access: &ApiAccess, scheme: &Scheme, credential: &CredentialRef) -> bool {
    let is_key = |place: &CredentialPlace| match place {
        CredentialPlace::Header(_)
        | CredentialPlace::Query(_)
        | CredentialPlace::Cookie(_)
        | CredentialPlace::Bearer
        | CredentialPlace::Basic => true,
        CredentialPlace::Certificate | CredentialPlace::Nowhere => false,
    };
    if scheme.unknown {
        return false;
    }
    match credential {
        CredentialRef::Key(_) => is_key(&scheme.place),
        CredentialRef::User(_) => scheme.place == CredentialPlace::Basic,
        CredentialRef::Certificate(name) => scheme.admits_certificate(name),
        CredentialRef::Login { issuer, .. } => scheme.issuers.iter().any(|index| {
            let named = access.issuers.get(*index);
            named.is_some_and(|named| named.config.issuer == *issuer)
        }),
    }
}

/// Whether a rule that denies looks at scopes or roles of the token of which none was told. That may be none, or not known.
fn looks_at_untold(access: &ApiAccess, operation: &OperationAccess, told: Told<'_>) -> bool {
    let mut denials = operation
        .denials
        .iter()
        .filter_map(|it| access.rules.get(*it));
    denials.any(|rule| {
        let looks = |wanted: &[Arc<str>], told: &[Arc<str>]| !wanted.is_empty() && told.is_empty();
        let config = &rule.config;
        let untold = looks(&config.scopes, told.scopes) || looks(&config.roles, told.roles);
        !config.shadow && untold
    })
}

fn claims(issuer: &Arc<str>, client: &Arc<str>, told: Told<'_>) -> Claims {
    Claims {
        issuer: issuer.clone(),
        subject: Arc::default(),
        client: client.clone(),
        scopes: told.scopes.to_vec(),
        roles: told.roles.to_vec(),
        id: Arc::default(),
        expires: None,
        not_before: None,
        issued: None,
        all: serde_json::Map::default(),
    }
}

/// Nobody told the values of the request. Only conditions in CEL look for them.
struct Untold;

impl Values for Untold {
    fn path(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn query(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}
