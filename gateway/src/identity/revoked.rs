//! What was revoked before its time and need not be in the directory: tokens by identifier, or all of a subject up to a moment, and
//! certificates by name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tollgate_policy::credentials::Claims;
use tollgate_policy::directory::Revoked;
use tollgate_policy::time::Timestamp;

/// Later than any moment.
const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// The set, replaced as a whole when it grows. Bounded by what the control plane tells. Of tokens that are said to end by
/// themselves the revocation is dropped a day later.
#[derive(Clone, Debug, Default)]
pub struct RevokedTokens {
    /// (issuer, identifier) to the moment from which on it may be forgotten.
    tokens: HashMap<(Arc<str>, Arc<str>), Timestamp>,
    /// (issuer, subject) to the moment up to which its tokens are revoked.
    subjects: HashMap<(Arc<str>, Arc<str>), Timestamp>,
    /// Names of certificates, of consumers or not.
    certificates: HashSet<Arc<str>>,
}

impl RevokedTokens {
    /// Of all revocations.
    pub fn of(all: &[Revoked], now: Timestamp) -> Self {
        let mut tokens = Self::default();
        tokens.add(all, now);
        tokens
    }

    /// Adds those that are about tokens and certificates, and drops what is over; `false` where none is added.
    pub fn add(&mut self, more: &[Revoked], now: Timestamp) -> bool {
        self.tokens.retain(|_, until| *until > now);
        let mut grown = false;
        for revoked in more.iter().filter(|revoked| !revoked.is_over(now)) {
            match revoked {
                Revoked::Token { issuer, id, .. } => {
                    let key = (issuer.clone(), id.clone());
                    let until = revoked.until().unwrap_or(NEVER);
                    // Revoked twice, it counts as long as either says.
                    let known = self.tokens.get(&key);
                    if known.is_none_or(|known| *known < until) {
                        self.tokens.insert(key, until);
                        grown = true;
                    }
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
        self.tokens.contains_key(&of(&claims.id))
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

    fn add(to: &mut RevokedTokens, what: &[Revoked]) -> bool {
        to.add(what, Timestamp::from_seconds(1_000))
    }

    #[test]
    fn a_token_is_revoked_by_identifier_or_with_its_subject() {
        let mut revoked = RevokedTokens::default();
        assert!(!revoked.hold(&claims("a", None)));
        let issuer: Arc<str> = "https://id.example".into();
        assert!(add(
            &mut revoked,
            &[Revoked::Token {
                issuer: issuer.clone(),
                id: "a".into(),
                expires: None,
            }]
        ));
        assert!(revoked.hold(&claims("a", Some(500))));
        assert!(!revoked.hold(&claims("b", Some(500))));
        add(
            &mut revoked,
            &[Revoked::Subject {
                issuer,
                subject: "alice".into(),
                before: Timestamp::from_seconds(500),
            }],
        );
        assert!(revoked.hold(&claims("b", Some(499))));
        assert!(revoked.hold(&claims("b", None)));
        assert!(!revoked.hold(&claims("b", Some(500))));
        assert!(!add(&mut revoked, &[Revoked::Consumer("alice".into())]));
    }

    #[test]
    fn a_token_that_ended_by_itself_is_forgotten_a_day_later() {
        let day = 24 * 3600;
        let at = Timestamp::from_seconds;
        let token = |id: &str, expires| Revoked::Token {
            issuer: "https://id.example".into(),
            id: id.into(),
            expires,
        };
        let all = [
            token("ends", Some(at(1_000))),
            token("stays", None),
            // Revoked twice, the longer counts.
            token("twice", Some(at(1_000))),
            token("twice", Some(at(2_000))),
        ];
        let mut revoked = RevokedTokens::of(&all, at(1_000));
        assert!(!revoked.add(&[Revoked::Consumer("c".into())], at(1_000 + day - 1)));
        assert!(revoked.hold(&claims("ends", None)));
        revoked.add(&[], at(1_000 + day));
        assert!(!revoked.hold(&claims("ends", None)));
        assert!(revoked.hold(&claims("twice", None)) && revoked.hold(&claims("stays", None)));
        assert!(!revoked.add(&[token("ends", Some(at(1_000)))], at(1_000 + day)));
        assert_eq!(revoked.tokens.len(), 2);
        // Who said too early an end says it again, and is heard.
        assert!(revoked.add(&[token("twice", None)], at(1_000 + day)));
        assert!(!revoked.add(&[token("twice", Some(at(2_000)))], at(1_000 + day)));
        revoked.add(&[], at(2_000 + 2 * day));
        assert!(revoked.hold(&claims("twice", None)));
    }

    #[test]
    fn a_certificate_is_revoked_by_its_whole_name() {
        let mut revoked = RevokedTokens::default();
        assert!(add(
            &mut revoked,
            &[Revoked::Certificate("CN=shop,O=Example".into())]
        ));
        assert!(revoked.hold_certificate("CN=shop,O=Example"));
        assert!(!revoked.hold_certificate("CN=shop"));
        assert!(!revoked.hold(&claims("CN=shop,O=Example", None)));
    }
}
