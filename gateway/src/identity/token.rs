//! Tokens that were verified before: a repeated token costs a digest instead of a signature.
//!
//! Kept until the token expires, its issuer's keys change, or it is revoked. Bounded; only genuine tokens get in, so strangers push
//! nobody out.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use tollgate_policy::credentials::jwks::KeySet;
use tollgate_policy::credentials::jwt::{peek, verify};
use tollgate_policy::credentials::{BadCredential, Claims, Digest};
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
}

impl From<BadCredential> for Disbelief {
    fn from(bad: BadCredential) -> Self {
        Self::Bad(bad)
    }
}

/// A token under the rules it was verified by: APIs differ in audiences.
type Key = (Digest, u64);

/// Verified tokens.
#[derive(Debug)]
pub struct Tokens {
    verified: Cache<Key, Arc<Token>>,
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
        let near = NEAR.with_borrow(|near| near.get(owner, epoch, &key));
        let token = near.or_else(|| {
            let token = self.verified.get(&key)?;
            NEAR.with_borrow_mut(|near| near.put(owner, epoch, key, token.clone()));
            Some(token)
        })?;
        let good = token.keys == issuer.keys.generation()
            && token.until.is_none_or(|until| now < until)
            && !token.standing.withdrawn();
        if !good {
            self.verified.remove(&key);
            return None;
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(token)
    }

    /// Verifies a JWT and keeps it.
    ///
    /// # Errors
    /// It is not genuine, or the issuer's keys are not known.
    pub fn verify(
        &self,
        text: &str,
        digest: Digest,
        issuer: &Issuer,
        now: Timestamp,
    ) -> Result<Arc<Token>, Disbelief> {
        let generation = issuer.keys.generation();
        let keys: Arc<KeySet> = issuer.keys.current().ok_or(Disbelief::Unknowable)?;
        self.verifications.fetch_add(1, Ordering::Relaxed);
        let claims = verify(text, &issuer.rules, &keys, now).inspect_err(|bad| {
            if *bad == BadCredential::UnknownKey {
                issuer.keys.want_refresh();
            }
        })?;
        let until = claims
            .expires
            .map(|expires| expires.plus(issuer.rules.leeway));
        Ok(self.keep(digest, issuer, claims, until, generation))
    }

    /// Keeps what an issuer said about a token that is no JWT.
    pub fn keep(
        &self,
        digest: Digest,
        issuer: &Issuer,
        claims: Claims,
        until: Option<Timestamp>,
        keys: u64,
    ) -> Arc<Token> {
        let token = Arc::new(Token {
            claims: Arc::new(claims),
            standing: Arc::default(),
            until,
            keys,
        });
        self.verified.insert((digest, issuer.id), token.clone());
        token
    }

    /// Ends what stands on a token that was revoked.
    pub fn withdraw(&self, revoked: &RevokedTokens) {
        self.verified.retain(|_, token| {
            let hit = revoked.hold(&token.claims);
            if hit {
                token.standing.withdraw();
            }
            !hit
        });
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

/// The issuer among `candidates` that a JWT names; `None` where it is no JWT.
///
/// # Errors
/// It is a JWT of somebody else.
pub fn issuer_of<'i>(
    text: &str,
    candidates: impl Iterator<Item = &'i Arc<Issuer>>,
) -> Result<Option<&'i Arc<Issuer>>, BadCredential> {
    let Ok(peeked) = peek(text) else {
        return Ok(None);
    };
    for issuer in candidates {
        if peeked.issuer.as_deref() == Some(&*issuer.rules.issuer) {
            return Ok(Some(issuer));
        }
    }
    Err(BadCredential::Issuer)
}
