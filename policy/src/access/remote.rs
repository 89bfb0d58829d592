//! A decision for somebody who holds no policy of the API and tells only part of a call: the same rules, and what one of them would have
//! to look at and nobody told is undecided, which refuses.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    ApiAccess, Circumstances, Demand, Identity, OperationAccess, SchemeDemand, Silent, Values,
    WhyNot, decide,
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
            let claims = claims(issuer, client, told);
            scopes(access, called, &claims)?;
            identity.claims = Some(Arc::new(claims));
        }
        CredentialRef::Certificate(name) => identity.certificate = Some(name.clone()),
        CredentialRef::Key(_) | CredentialRef::User(_) => {}
    }
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

/// Whether a token of its issuer has all scopes of one way into the operation.
fn scopes(access: &ApiAccess, operation: &OperationAccess, claims: &Claims) -> Result<(), WhyNot> {
    let Demand::Alternatives { combinations, .. } = &operation.demand else {
        return Ok(());
    };
    let counts = |demand: &SchemeDemand| {
        let scheme = access.schemes.get(demand.scheme);
        let mut issuers = scheme.into_iter().flat_map(|scheme| &scheme.issuers);
        issuers.any(|index| {
            let issuer = access.issuers.get(*index);
            issuer.is_some_and(|issuer| issuer.config.issuer == claims.issuer)
        })
    };
    let mut why = WhyNot::Undecidable;
    for combination in combinations.iter().filter(|all| all.iter().any(counts)) {
        let mut needed = combination.iter().flat_map(|demand| &demand.scopes);
        match needed.find(|scope| !claims.scopes.contains(scope)) {
            None => return Ok(()),
            Some(lacking) => why = WhyNot::Scope(lacking.clone()),
        }
    }
    Err(why)
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
