//! Who calls, put together from what each scheme proved.
//!
//! Promises: two schemes never lead to two consumers; nobody's certificate has no role; what was withdrawn proves nothing.

use std::sync::Arc;

use tollgate_policy::access::{Identity, roles_satisfied, scopes_satisfied};
use tollgate_policy::credentials::BadCredential;
use tollgate_policy::directory::Caller;
use tollgate_policy::workload::WorkloadId;

use super::held::Held;
use super::standing::Standings;
use super::{Proof, Unidentified};

/// Who calls, and on what that stands.
#[derive(Clone, Debug, Default)]
pub struct Identified {
    /// Who.
    pub identity: Identity,
    /// What ends the call when it is withdrawn.
    pub standings: Standings,
    /// What the directory said about the caller.
    pub held: Option<Arc<Held>>,
    /// The gateway that admitted the call, reserved its quota and bills it; `None`: that is for us.
    pub admitted_by: Option<WorkloadId>,
    /// That gateway's word is all that is known of the caller here: the control plane does not answer.
    pub on_word: bool,
}

impl Identified {
    /// Takes in what one scheme proved. Two schemes may not lead to two consumers.
    pub(super) fn add(&mut self, proof: Proof, scopes: &[Arc<str>]) -> Result<(), Unidentified> {
        match &proof.token {
            Some(token) => scopes_satisfied(scopes, &token.claims).map_err(Unidentified::Scope)?,
            None => {
                let caller = proof.held.as_ref().and_then(|held| held.caller.as_deref());
                roles_satisfied(scopes, caller).map_err(Unidentified::Scope)?;
            }
        }
        if let Some(token) = proof.token {
            self.standings.push(token.standing.clone());
            self.identity.claims = Some(token.claims.clone());
        }
        if let Some(certificate) = proof.certificate {
            self.identity.certificate = Some(certificate);
        }
        match proof.held {
            Some(held) => self.stands_on(held),
            None => Ok(()),
        }
    }

    /// Takes in whom the directory knows by a credential.
    pub(crate) fn stands_on(&mut self, held: Arc<Held>) -> Result<(), Unidentified> {
        if held.standing.withdrawn() {
            return Err(Unidentified::Bad(BadCredential::Revoked));
        }
        if let Some(caller) = &held.caller {
            let same = |known: &Arc<Caller>| known.consumer.name == caller.consumer.name;
            match &self.identity.caller {
                Some(known) if !same(known) => {
                    return Err(Unidentified::Bad(BadCredential::Unknown));
                }
                Some(_) => {}
                None => self.identity.caller = Some(caller.clone()),
            }
        }
        self.standings.push(held.standing.clone());
        self.held = Some(held);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Instant;

    use tollgate_policy::directory::{Consumer, Credential, CredentialRef, Defined};

    use super::*;

    fn held(roles: &[&str]) -> Arc<Held> {
        let consumer = Consumer {
            name: "shop".into(),
            project: "p".into(),
            organisation: "o".into(),
            suspended: false,
            roles: roles.iter().map(|role| Arc::from(*role)).collect(),
            explains: false,
            subscriptions: Vec::new(),
            overrides: Vec::new(),
            origin: Defined::Store,
        };
        let credential = Credential {
            id: "key".into(),
            not_before: None,
            expires: None,
            operations: None,
            networks: Vec::new(),
            referrers: Vec::new(),
            password: None,
        };
        Arc::new(Held {
            reference: CredentialRef::User("u".into()),
            caller: Some(Arc::new(Caller {
                consumer: Arc::new(consumer),
                credential,
            })),
            standing: Arc::default(),
            since: Instant::now(),
        })
    }

    fn nobody() -> Arc<Held> {
        Arc::new(Held {
            reference: CredentialRef::User("u".into()),
            caller: None,
            standing: Arc::default(),
            since: Instant::now(),
        })
    }

    /// Whether a scheme without a token passes that lists the role `staff`, after a token that has every scope.
    fn passes(held: Option<Arc<Held>>, after_a_token: bool) -> bool {
        let mut identified = Identified::default();
        if after_a_token {
            let claims = tollgate_policy::credentials::Claims {
                issuer: "i".into(),
                subject: "s".into(),
                client: "".into(),
                scopes: vec!["staff".into()],
                roles: Vec::new(),
                id: "".into(),
                expires: None,
                not_before: None,
                issued: None,
                all: serde_json::Map::new(),
            };
            identified.identity.claims = Some(Arc::new(claims));
        }
        let proof = Proof {
            held,
            token: None,
            certificate: Some("spiffe://a/b".into()),
        };
        identified.add(proof, &["staff".into()]).is_ok()
    }

    #[test]
    fn a_role_that_a_scheme_lists_is_had_by_whoever_shows_its_credential() {
        for after_a_token in [false, true] {
            assert!(passes(Some(held(&["staff"])), after_a_token));
            assert!(!passes(Some(held(&["guest"])), after_a_token));
            assert!(
                !passes(Some(nobody()), after_a_token),
                "nobody's certificate"
            );
            assert!(!passes(None, after_a_token));
        }
    }
}
