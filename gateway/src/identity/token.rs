//! Tokens that were verified before: a repeated token costs a digest instead of a signature.
//!
//! Kept until the token expires, its issuer's keys change, or it is revoked. Bounded; only genuine tokens get in, so strangers push
//! nobody out.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tollgate_policy::credentials::jwks::KeySet;
use tollgate_policy::credentials::{BadCredential, Claims, Digest, jwt};
use tollgate_policy::time::Timestamp;

use super::issuer::Issuer;
use super::near::Near;
use super::revoked::RevokedTokens;
use super::standing::Standing;

/// Tokens kept. About 1.5 KiB each with an ordinary set of claims.
const CAPACITY: usize = 50_000;

/// A genuine token.
#[derive(Debug)]
pub struct Token {
    /// What it says.
    pub claims: Arc<Claims>,
    /// Whether it still counts.
    pub standing: Arc<Standing>,
    /// From then on it is not believed, leeway included; `None`: it does not expire.
    until: Option<Timestamp>,
    /// Of the issuer's keys it was verified with.
    keys: u64,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// It is bad.
    Bad(BadCredential),
    /// It cannot be known: the issuer's keys, or the revocations, were never fetched.
    Unknowable,
    /// Its source showed too many that were not genuine.
    TooMany,
}

impl From<BadCredential> for Disbelief {
    fn from(bad: BadCredential) -> Self {
        Self::Bad(bad)
    }
}

/// A token under the rules it was verified by: APIs differ in audiences.
type Key = (Digest, u64);

/// Fewest entries of the list of what stands on tokens before it is looked through for dead ones.
const FEWEST: usize = 1024;

/// What stands on genuine tokens, for as long as somebody holds it: a token may have left the cache while a call that was admitted on
/// it goes on.
#[derive(Debug)]
struct Stood {
    all: Vec<(Weak<Standing>, Weak<Claims>)>,
    /// So long it may grow before the dead are dropped: twice what lived the last time.
    tidy_at: usize,
}

impl Default for Stood {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            tidy_at: FEWEST,
        }
    }
}

impl Stood {
    fn note(&mut self, standing: &Arc<Standing>, claims: &Arc<Claims>) {
        if self.all.len() >= self.tidy_at {
            self.all.retain(|(standing, _)| standing.strong_count() > 0);
            self.tidy_at = (self.all.len() * 2).max(FEWEST);
        }
        let weak = (Arc::downgrade(standing), Arc::downgrade(claims));
        self.all.push(weak);
    }
}

/// Verified tokens.
#[derive(Debug)]
pub struct Tokens {
    verified: Cache<Key, Arc<Token>>,
    stood: Mutex<Stood>,
    epoch: AtomicU64,
    /// Tokens found here.
    pub hits: AtomicU64,
    /// Signatures verified.
    pub verifications: AtomicU64,
}

thread_local! {
    static NEAR: RefCell<Near<Key, Arc<Token>>> = const { RefCell::new(Near::new()) };
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            verified: Cache::new(CAPACITY),
            stood: Mutex::default(),
            epoch: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            verifications: AtomicU64::new(0),
        }
    }
}

impl Tokens {
    /// A token verified before under the rules of `issuer`, if it still counts.
    pub fn known(&self, digest: Digest, issuer: &Issuer, now: Timestamp) -> Option<Arc<Token>> {
        let key = (digest, issuer.id);
        let epoch = self.epoch.load(Ordering::Acquire);
        let owner = std::ptr::from_ref(self).addr();
        let good = |token: &Arc<Token>| {
            token.keys == issuer.keys.generation()
                && token.until.is_none_or(|until| now < until)
                && !token.standing.withdrawn()
        };
        let near = NEAR.with_borrow(|near| near.get(owner, epoch, &key));
        // What this thread found before may have been verified anew since, by whichever thread: then the shared one counts.
        let token = match near.filter(good) {
            Some(token) => token,
            None => {
                let token = self.verified.get(&key)?;
                if !good(&token) {
                    self.verified.remove(&key);
                    return None;
                }
                NEAR.with_borrow_mut(|near| near.put(owner, epoch, key, token.clone()));
                token
            }
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(token)
    }

    /// Verifies a JWT and keeps it.
    ///
    /// # Errors
    /// It is not genuine, or the issuer's keys are not known.
    pub fn verify(
        &self,
        token: jwt::Token<'_>,
        digest: Digest,
        issuer: &Issuer,
        now: Timestamp,
    ) -> Result<Arc<Token>, Disbelief> {
        let generation = issuer.keys.generation();
        let keys: Option<Arc<KeySet>> = issuer.keys.current();
        let Some(keys) = keys else {
            // Somebody waits for them: not only when the pause after many failures is over.
            issuer.keys.want_refresh();
            return Err(Disbelief::Unknowable);
        };
        self.verifications.fetch_add(1, Ordering::Relaxed);
        let claims = token.verify(&issuer.rules, &keys, now).inspect_err(|bad| {
            if *bad == BadCredential::UnknownKey {
                issuer.keys.want_refresh();
            }
        })?;
        let until = claims
            .expires
            .map(|expires| expires.plus(issuer.rules.leeway));
        Ok(self.keep(digest, issuer, Arc::new(claims), until, generation))
    }

    /// Keeps what an issuer said about a token that is no JWT.
    pub fn keep(
        &self,
        digest: Digest,
        issuer: &Issuer,
        claims: Arc<Claims>,
        until: Option<Timestamp>,
        keys: u64,
    ) -> Arc<Token> {
        let token = Arc::new(Token {
            claims,
            standing: Arc::default(),
            until,
            keys,
        });
        self.stood.lock().note(&token.standing, &token.claims);
        self.verified.insert((digest, issuer.id), token.clone());
        token
    }

    /// What a call stands on whose token was verified by somebody else. Whether it was revoked before is for the caller to ask, after this.
    pub fn stands(&self, claims: &Arc<Claims>) -> Arc<Standing> {
        let standing = Arc::default();
        self.stood.lock().note(&standing, claims);
        standing
    }

    /// Ends what stands on a token that was revoked, also where the token itself is no longer kept.
    pub fn withdraw(&self, revoked: &RevokedTokens) {
        for (standing, claims) in &self.stood.lock().all {
            let Some((standing, claims)) = standing.upgrade().zip(claims.upgrade()) else {
                continue;
            };
            if revoked.hold(&claims) {
                standing.withdraw();
            }
        }
        self.verified.retain(|_, token| !token.standing.withdrawn());
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

/// The issuer among `candidates` that a JWT names, unverified; `None`: it is somebody else's.
pub fn issuer_of<'i>(
    token: &jwt::Token<'_>,
    mut candidates: impl Iterator<Item = &'i Arc<Issuer>>,
) -> Option<&'i Arc<Issuer>> {
    candidates.find(|issuer| token.issuer() == Some(&*issuer.rules.issuer))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use tollgate_policy::directory::Revoked;
    use tollgate_policy::finding::Place;
    use tollgate_policy::settings::{IssuerConfig, KeySource};

    use super::*;

    fn issuer() -> Arc<Issuer> {
        let keys = KeySource::Url("https://id.example/keys".into());
        let place = Place {
            file: "api.yaml".into(),
            line: 1,
            column: 1,
        };
        let config = IssuerConfig::new("https://id.example".into(), keys, place);
        Issuer::new(&"id".into(), &config).unwrap()
    }

    fn claims(id: &str) -> Arc<Claims> {
        Arc::new(Claims {
            issuer: "https://id.example".into(),
            subject: "ann".into(),
            client: "".into(),
            scopes: Vec::new(),
            roles: Vec::new(),
            id: id.into(),
            expires: None,
            not_before: None,
            issued: None,
            all: serde_json::Map::new(),
        })
    }

    fn revoked(id: &str) -> RevokedTokens {
        let revoked = Revoked::Token {
            issuer: "https://id.example".into(),
            id: id.into(),
            expires: None,
        };
        RevokedTokens::of(&[revoked], Timestamp::default())
    }

    #[test]
    fn a_call_ends_with_its_token_also_when_the_token_was_verified_twice() {
        let (tokens, issuer) = (Tokens::default(), issuer());
        let digest = Digest([7; 32]);
        let first = tokens.keep(digest, &issuer, claims("a"), None, 0);
        let second = tokens.keep(digest, &issuer, claims("a"), None, 0);
        let other = tokens.keep(Digest([8; 32]), &issuer, claims("b"), None, 0);
        tokens.withdraw(&revoked("a"));
        assert!(first.standing.withdrawn() && second.standing.withdrawn());
        assert!(!other.standing.withdrawn());
        let now = Timestamp::from_seconds(1);
        assert!(tokens.known(digest, &issuer, now).is_none());
        assert!(tokens.known(Digest([8; 32]), &issuer, now).is_some());
    }

    #[test]
    fn a_call_that_another_process_admitted_ends_with_its_token_too() {
        let tokens = Tokens::default();
        let (mine, other) = (claims("a"), claims("b"));
        let (standing, bystander) = (tokens.stands(&mine), tokens.stands(&other));
        tokens.withdraw(&revoked("a"));
        assert!(standing.withdrawn() && !bystander.withdrawn());
    }

    #[test]
    fn what_stood_on_tokens_is_forgotten_with_them() {
        let (tokens, issuer) = (Tokens::default(), issuer());
        for _ in 0..10 * FEWEST {
            tokens.keep(Digest([9; 32]), &issuer, claims("a"), None, 0);
        }
        assert!(tokens.stood.lock().all.len() <= FEWEST);
    }

    #[test]
    fn a_token_is_known_until_it_ends_and_under_its_own_rules() {
        let (tokens, issuer, other) = (Tokens::default(), issuer(), issuer());
        let digest = Digest([1; 32]);
        let at = Timestamp::from_seconds;
        tokens.keep(digest, &issuer, claims("a"), Some(at(100)), 0);
        assert!(tokens.known(digest, &other, at(1)).is_none());
        assert!(tokens.known(digest, &issuer, at(99)).is_some());
        assert!(tokens.known(digest, &issuer, at(100)).is_none());
        tokens.keep(digest, &issuer, claims("a"), None, 7);
        assert!(
            tokens.known(digest, &issuer, at(200)).is_none(),
            "other keys"
        );
        // Verified anew it is known again, also where the old one was found before.
        tokens.keep(digest, &issuer, claims("a"), None, 0);
        assert!(tokens.known(digest, &issuer, at(200)).is_some());
        assert!(tokens.known(digest, &issuer, at(200)).is_some());
    }
}
