//! Token introspection (RFC 7662): asks the issuer about tokens that say nothing themselves.
//!
//! The one place where a request waits for an issuer, because its API file says so. One question is on its way per token, an answer is
//! kept for a while, a refusal for moments, and one source cannot have strangers asked about without end. No answer, or one that is
//! none, means 503, never admission.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tollgate_policy::credentials::jwt::TokenRules;
use tollgate_policy::credentials::{BadCredential, Claims, Digest, introspection};
use tollgate_policy::settings::IntrospectionConfig;
use tollgate_policy::time::Timestamp;

use super::budget::MissBudget;
use super::token::Disbelief;
use crate::remote::{Bounds, Inquiry, Trust, ask};

/// Questions on their way at once; more are refused rather than queued.
const AT_ONCE: usize = 64;

/// Longest answer.
const LARGEST: usize = 64 * 1024;

/// Answers kept here. Those about genuine tokens are kept with the verified tokens as well, where strangers push nobody out.
const CAPACITY: usize = 10_000;

/// How long "it is not active" counts. Short: an issuer may not have told all of its own servers yet.
const REFUSED: Duration = Duration::from_secs(5);

/// How often an answer may have grown old while it was waited for.
const ATTEMPTS: usize = 3;

/// What the issuer said about a token.
#[derive(Clone, Debug)]
struct Said {
    /// Its claims and until when they may be believed.
    verdict: Result<(Arc<Claims>, Timestamp), BadCredential>,
    at: Instant,
}

impl Said {
    fn counts(&self, now: Timestamp) -> bool {
        match &self.verdict {
            Ok((_, until)) => now < *until,
            Err(_) => self.at.elapsed() < REFUSED,
        }
    }
}

/// Asks one introspection endpoint.
#[derive(Debug)]
pub struct Introspector {
    config: IntrospectionConfig,
    trust: Trust,
    places: Semaphore,
    said: Cache<Digest, Said>,
    strangers: MissBudget,
    /// The last question had no answer: said once, not for every request.
    troubled: AtomicBool,
    /// Questions asked.
    pub asked: AtomicU64,
    /// Questions without an answer.
    pub unanswered: AtomicU64,
}

impl Introspector {
    /// For this endpoint, believed by these roots.
    pub fn new(config: &IntrospectionConfig, trust: Trust) -> Self {
        Self {
            config: config.clone(),
            trust,
            places: Semaphore::new(AT_ONCE),
            said: Cache::new(CAPACITY),
            strangers: MissBudget::default(),
            troubled: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        }
    }

    /// What the issuer says about `token`, and until when that may be believed. `source` pays for tokens that are none.
    ///
    /// # Errors
    /// It is not active, or there is no usable answer.
    pub async fn ask(
        &self,
        token: &str,
        digest: Digest,
        rules: &TokenRules,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(Arc<Claims>, Timestamp), Disbelief> {
        for _ in 0..ATTEMPTS {
            let waiting = self.said.get_value_or_guard_async(&digest);
            let guard = match tokio::time::timeout(self.config.deadline, waiting).await {
                Err(_elapsed) => return Err(Disbelief::Unknowable),
                Ok(Ok(said)) if said.counts(now) => return said.verdict.map_err(Disbelief::Bad),
                Ok(Ok(_)) => {
                    self.said.remove(&digest);
                    continue;
                }
                Ok(Err(guard)) => guard,
            };
            if !self.strangers.left(source, Instant::now()) {
                return Err(Disbelief::TooMany);
            }
            let verdict = self.question(token, rules, now).await?;
            if verdict.is_err() {
                self.strangers.take(source, Instant::now());
            }
            let said = Said {
                verdict: verdict.clone(),
                at: Instant::now(),
            };
            let _replaced = guard.insert(said);
            return verdict.map_err(Disbelief::Bad);
        }
        Err(Disbelief::Unknowable)
    }

    async fn question(
        &self,
        token: &str,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Result<Result<(Arc<Claims>, Timestamp), BadCredential>, Disbelief> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let claims = match self.answer(token, rules, now).await {
            Ok(claims) => claims,
            Err(error) => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                if !self.troubled.swap(true, Ordering::Relaxed) {
                    tracing::warn!(url = %self.config.url, "introspection: {error}");
                }
                return Err(Disbelief::Unknowable);
            }
        };
        if self.troubled.swap(false, Ordering::Relaxed) {
            tracing::info!(url = %self.config.url, "introspection: answered again");
        }
        let claims = match claims {
            Ok(claims) => claims,
            Err(bad) => return Ok(Err(bad)),
        };
        let kept = now.plus(self.config.cache.max(Duration::from_millis(1)));
        let until = claims.expires.map_or(kept, |expires| expires.min(kept));
        Ok(match until <= now {
            true => Err(BadCredential::Expired),
            false => Ok((Arc::new(claims), until)),
        })
    }

    /// One conversation; `Err`: in words, why there is no answer.
    async fn answer(
        &self,
        token: &str,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Result<Result<Claims, BadCredential>, String> {
        let place = self.places.try_acquire();
        let _place = place.map_err(|_| "too many questions on their way")?;
        let inquiry = self.inquiry(token).ok_or("the question cannot be put")?;
        let bounds = Bounds {
            deadline: self.config.deadline,
            bytes: LARGEST,
            // The operator named this endpoint; inside a network it usually is.
            allow_private: true,
        };
        let told = ask(inquiry, &self.trust, bounds).await?;
        if !told.status.is_success() {
            return Err(format!("answered {}", told.status));
        }
        match introspection::parse(&told.body, rules, now) {
            // The answer is none: the issuer is at fault, not the caller.
            Err(
                bad @ (BadCredential::Malformed
                | BadCredential::TooLarge
                | BadCredential::MissingClaim
                | BadCredential::ClaimType),
            ) => Err(format!("the answer cannot be used: {bad}")),
            judged => Ok(judged),
        }
    }

    fn inquiry(&self, token: &str) -> Option<Inquiry> {
        let form = format!("token={}&token_type_hint=access_token", encoded(token));
        let mut inquiry = Inquiry::form(self.config.url.parse().ok()?, form);
        let secret = format!(
            "{}:{}",
            encoded(&self.config.client_id),
            encoded(self.config.client_secret.reveal())
        );
        let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(secret))).ok()?;
        basic.set_sensitive(true);
        inquiry.fields.push((AUTHORIZATION, basic));
        inquiry
            .fields
            .push((ACCEPT, HeaderValue::from_static("application/json")));
        Some(inquiry)
    }
}

/// `application/x-www-form-urlencoded`.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn a_token_cannot_add_a_parameter() {
        assert_eq!(encoded("a&b=c d+%"), "a%26b%3Dc%20d%2B%25");
    }
}
