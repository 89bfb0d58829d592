//! Token introspection (RFC 7662): asks the issuer about tokens that say nothing themselves.
//!
//! The one place where a request waits for an issuer, because its API file says so. An answer is kept by the caller for a while; no
//! answer means 503, never admission.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use tokio::sync::Semaphore;
use tollgate_policy::credentials::jwt::TokenRules;
use tollgate_policy::credentials::{BadCredential, Claims, introspection};
use tollgate_policy::settings::IntrospectionConfig;
use tollgate_policy::time::Timestamp;

use super::token::Disbelief;
use crate::remote::{Bounds, Inquiry, ask};

/// Questions on their way at once; more are refused rather than queued.
const AT_ONCE: usize = 64;

/// Longest answer.
const LARGEST: usize = 64 * 1024;

/// Asks one introspection endpoint.
#[derive(Debug)]
pub struct Introspector {
    config: IntrospectionConfig,
    places: Semaphore,
}

impl Introspector {
    /// For this endpoint.
    pub fn new(config: &IntrospectionConfig) -> Self {
        Self {
            config: config.clone(),
            places: Semaphore::new(AT_ONCE),
        }
    }

    /// What the issuer says about `token`, and until when that may be believed.
    ///
    /// # Errors
    /// It is not active, or there is no usable answer.
    pub async fn ask(
        &self,
        token: &str,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Result<(Claims, Timestamp), Disbelief> {
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| Disbelief::Unknowable)?;
        let inquiry = self.inquiry(token).ok_or(Disbelief::Unknowable)?;
        let bounds = Bounds {
            deadline: self.config.deadline,
            bytes: LARGEST,
            // The operator named this endpoint; inside a network it usually is.
            allow_private: true,
        };
        let told = ask(inquiry, bounds).await.map_err(|error| {
            tracing::warn!(url = %self.config.url, "introspection: {error}");
            Disbelief::Unknowable
        })?;
        if !told.status.is_success() {
            tracing::warn!(url = %self.config.url, "introspection: answered {}", told.status);
            return Err(Disbelief::Unknowable);
        }
        let claims = introspection::parse(&told.body, rules, now)?;
        let kept = now.plus(self.config.cache.max(Duration::from_millis(1)));
        let until = claims.expires.map_or(kept, |expires| expires.min(kept));
        if until <= now {
            return Err(Disbelief::Bad(BadCredential::Expired));
        }
        Ok((claims, until))
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
