//! JSON Web Tokens (RFC 7519), judged by the rules of their issuer (RFC 8725).
//!
//! Signature first, then claims; a claim of the wrong type refuses the token, also where nobody asked for it. `iss` has to be the
//! issuer's exactly, `aud` one of the audiences, `exp` has to be there and ahead, `nbf` and `iat` must not be, all within the leeway.
//! Not here: which issuer's rules and keys count, for which [`peek`] helps, and whether a token was revoked.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::jwks::KeySet;
use super::jws::Signed;
use super::{BadCredential, Claims, claims, json};
use crate::settings::{Algorithm, IssuerConfig};
use crate::time::Timestamp;

/// How the tokens of one issuer are judged.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRules {
    /// Expected `iss`, exactly.
    pub issuer: Arc<str>,
    /// Accepted `aud`; empty: any, and none.
    pub audiences: Vec<Arc<str>>,
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Claims that name the client; the first present counts. Dots lead into objects, here and below.
    pub client_claims: Vec<Arc<str>>,
    /// Claims that hold scopes.
    pub scope_claims: Vec<Arc<str>>,
    /// Claims that hold roles.
    pub role_claims: Vec<Arc<str>>,
    /// A token has to say when it ends. True unless changed.
    pub expiry_required: bool,
}

impl From<&IssuerConfig> for TokenRules {
    fn from(config: &IssuerConfig) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audiences: config.audiences.clone(),
            algorithms: config.algorithms.clone(),
            leeway: config.leeway,
            client_claims: config.client_claims.clone(),
            scope_claims: config.scope_claims.clone(),
            role_claims: config.role_claims.clone(),
            expiry_required: true,
        }
    }
}

/// What a token says of itself before anything is verified: enough to choose whose rules and keys to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`.
    pub key_id: Option<Box<str>>,
    /// `iss`.
    pub issuer: Option<Box<str>>,
}

/// A token that was read and not yet believed. For whoever needs its issuer first and does not want to read it twice.
#[derive(Clone, Debug)]
pub struct Token<'t> {
    signed: Signed<'t>,
    claims: Map<String, Value>,
}

impl<'t> Token<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// As [`peek`].
    pub fn parse(token: &'t str) -> Result<Self, BadCredential> {
        let signed = Signed::parse(token)?;
        let claims = json::object(signed.unverified_payload()).ok_or(BadCredential::Malformed)?;
        match claims.get("iss") {
            None | Some(Value::String(_)) => Ok(Self { signed, claims }),
            Some(_) => Err(BadCredential::ClaimType),
        }
    }

    /// `alg`, unverified.
    pub fn algorithm(&self) -> Algorithm {
        self.signed.algorithm()
    }

    /// `kid`, unverified.
    pub fn key_id(&self) -> Option<&str> {
        self.signed.key_id()
    }

    /// `iss`, unverified.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// What it says, if it is genuine and counts at `now`.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(
        self,
        rules: &TokenRules,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<Claims, BadCredential> {
        self.signed.verify(&rules.algorithms, keys)?;
        if !self.claims.contains_key("iss") {
            return Err(BadCredential::MissingClaim);
        }
        let claims = claims::read(self.claims, rules)?;
        if rules.expiry_required && claims.expires.is_none() {
            return Err(BadCredential::MissingClaim);
        }
        claims::judge(&claims, rules, now)?;
        Ok(claims)
    }
}

/// What a token says, if it is genuine and counts at `now`.
///
/// Texts in the result are as the issuer wrote them, free of control characters in `iss`, `sub`, `jti` and the client's name; other
/// claims may hold anything.
///
/// # Errors
/// Whatever is wrong with it; [`BadCredential::UnknownKey`] is the one that newer keys may cure.
pub fn verify(
    token: &str,
    rules: &TokenRules,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Claims, BadCredential> {
    Token::parse(token)?.verify(rules, keys, now)
}

/// What a token says of itself, unverified.
///
/// # Errors
/// When it is not a token that could ever be verified: too large, malformed, with critical extensions, of an unknown algorithm, or with
/// an `iss` that is not a text.
pub fn peek(token: &str) -> Result<Peeked, BadCredential> {
    let token = Token::parse(token)?;
    Ok(Peeked {
        algorithm: token.algorithm(),
        key_id: token.key_id().map(Into::into),
        issuer: token.issuer().map(Into::into),
    })
}

/// Whether a bearer's text has the shape of a JWT, as against an API key or a token its issuer has to be asked about.
pub fn is_jwt(text: &str) -> bool {
    // What every JSON object begins with in base64url: `{` and a quote or space, or `{` and a line end or tab.
    let begins = text.starts_with("ey") || text.starts_with("ew");
    begins && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

#[cfg(test)]
pub(super) mod tests;
