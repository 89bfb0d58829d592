//! What was revoked before its time and need not be in the directory: tokens by identifier, or all of a subject up to a moment, and
//! certificates by name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tollgate_policy::credentials::Claims;
use tollgate_policy::directory::Revoked;
use tollgate_policy::time::Timestamp;

/// The set, replaced as a whole when it grows. Bounded by what the control plane keeps: it drops what has expired anyway.
#[derive(Clone, Debug, Default)]
pub struct RevokedTokens {
    /// (issuer, identifier)
    tokens: HashSet<(Arc<str>, Arc<str>)>,
    /// (issuer, subject) to the moment up to which its tokens are revoked.
    subjects: HashMap<(Arc<str>, Arc<str>), Timestamp>,
    /// Names of certificates, of consumers or not.
    certificates: HashSet<Arc<str>>,
}

impl RevokedTokens {
    /// Of all revocations.
    pub fn of(all: &[Revoked]) -> Self {
        let mut tokens = Self::default();
        tokens.add(all);
        tokens
    }

    /// Adds those that are about tokens and certificates; `false` where none is.
    pub fn add(&mut self, more: &[Revoked]) -> bool {
        let mut grown = false;
        for revoked in more {
            match revoked {
                Revoked::Token { issuer, id } => {
                    grown |= self.tokens.insert((issuer.clone(), id.clone()));
                }
                Revoked::Subject {
                    issuer,
                    subject,
                    before,
                } => {
                    let key = (issuer.clone(), subject.clone());
                    let until = self.subjects.entry(key).or_insert(*before);
                    *until = (*until).max(*before);
                    grown = true;
                }
                Revoked::Certificate(name) => grown |= self.certificates.insert(name.clone()),
                Revoked::Key(_) | Revoked::Consumer(_) => {}
            }
        }
        grown
    }

    /// Whether `claims` are of a revoked token. One that does not say when it was issued counts as older.
    pub fn hold(&self, claims: &Claims) -> bool {
        if self.tokens.is_empty() && self.subjects.is_empty() {
            return false;
        }
        let of = |what: &Arc<str>| (claims.issuer.clone(), what.clone());
        self.tokens.contains(&of(&claims.id))
            || self
                .subjects
                .get(&of(&claims.subject))
                .is_some_and(|before| claims.issued.is_none_or(|issued| issued < *before))
    }

    /// Whether certificates of this name are revoked.
    pub fn hold_certificate(&self, name: &str) -> bool {
        self.certificates.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(id: &str, issued: Option<i64>) -> Claims {
        Claims {
            issuer: "https://id.example".into(),
            subject: "alice".into(),
            client: "".into(),
            scopes: Vec::new(),
            roles: Vec::new(),
            id: id.into(),
            expires: None,
            not_before: None,
            issued: issued.map(Timestamp::from_seconds),
            all: serde_json::Map::new(),
        }
    }

    #[test]
    fn a_token_is_revoked_by_identifier_or_with_its_subject() {
        let mut revoked = RevokedTokens::default();
        assert!(!revoked.hold(&claims("a", None)));
        let issuer: Arc<str> = "https://id.example".into();
        assert!(revoked.add(&[Revoked::Token {
            issuer: issuer.clone(),
            id: "a".into()
        }]));
        assert!(revoked.hold(&claims("a", Some(500))));
        assert!(!revoked.hold(&claims("b", Some(500))));
        revoked.add(&[Revoked::Subject {
            issuer,
            subject: "alice".into(),
            before: Timestamp::from_seconds(500),
        }]);
        assert!(revoked.hold(&claims("b", Some(499))));
        assert!(revoked.hold(&claims("b", None)));
        assert!(!revoked.hold(&claims("b", Some(500))));
        assert!(!revoked.add(&[Revoked::Consumer("alice".into())]));
    }

    #[test]
    fn a_certificate_is_revoked_by_its_whole_name() {
        let mut revoked = RevokedTokens::default();
        assert!(revoked.add(&[Revoked::Certificate("CN=shop,O=Example".into())]));
        assert!(revoked.hold_certificate("CN=shop,O=Example"));
        assert!(!revoked.hold_certificate("CN=shop"));
        assert!(!revoked.hold(&claims("CN=shop,O=Example", None)));
    }
}
