//! Credentials, verified: API keys, JSON Web Tokens, passwords, certificates. What is shown comes in as text, keys and time as
//! arguments; whether it is genuine comes out. Not here: fetching keys, asking an issuer, and what a caller may do.
//!
//! [`key`] API keys · [`jws`] the signed envelope, [`jwt`] the token in it, [`jwks`] the keys that verify it · [`introspection`]
//! what an issuer answers when asked · [`basic`] user and password · [`certificate`] who a client certificate names.
//!
//! Every part has a limit on what it reads, and refuses what it does not understand.

pub mod basic;
pub mod certificate;
mod claims;
pub mod introspection;
mod json;
pub mod jwks;
pub mod jws;
pub mod jwt;
pub mod key;
mod name;
mod pem;
mod verifier;

use std::sync::Arc;

use crate::time::Timestamp;

/// Keyed hash of a secret: HMAC-SHA-256 under the installation's pepper. Fit to be stored, compared and used as a map key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Whether both are the same, in a time that does not depend on where they differ.
    ///
    /// `==`, which map look-ups use, gives away nothing either: who does not have the pepper cannot choose a digest.
    pub fn matches(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        write!(f, "Digest({first:02x}{second:02x}{third:02x}{fourth:02x}…)")
    }
}

/// Why a credential is refused. Texts are for the log; the caller learns only that it is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCredential {
    /// Not of the form its kind has.
    #[error("it is malformed")]
    Malformed,
    /// Longer than any genuine one.
    #[error("it is too large")]
    TooLarge,
    /// The token names an algorithm that its issuer does not use.
    #[error("its algorithm is not one of the issuer's")]
    Algorithm,
    /// No key of the issuer fits it.
    #[error("no key of the issuer fits it")]
    UnknownKey,
    /// The signature is not the issuer's.
    #[error("its signature is wrong")]
    Signature,
    /// Nobody we know issued it.
    #[error("its issuer is unknown")]
    Issuer,
    /// It was issued for somebody else.
    #[error("it is for another audience")]
    Audience,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYet,
    /// A claim that is needed is missing.
    #[error("a claim it needs is missing")]
    MissingClaim,
    /// A claim is not of the type it must have.
    #[error("a claim is of the wrong type")]
    ClaimType,
    /// It demands processing we do not know (RFC 7515 section 4.1.11).
    #[error("it has critical extensions")]
    Critical,
    /// It was revoked.
    #[error("it was revoked")]
    Revoked,
    /// The password is wrong.
    #[error("the password is wrong")]
    Password,
    /// Nobody registered it.
    #[error("it is not known")]
    Unknown,
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`; empty where the token has none.
    pub subject: Arc<str>,
    /// The claim that names the client (`azp`, `client_id`, …); empty where the token has none.
    pub client: Arc<str>,
    /// Scopes, from `scope` or `scp`.
    pub scopes: Vec<Arc<str>>,
    /// Roles.
    pub roles: Vec<Arc<str>>,
    /// `jti`; empty where the token has none.
    pub id: Arc<str>,
    /// `exp`.
    pub expires: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `iat`.
    pub issued: Option<Timestamp>,
    /// Every claim, for rules and for headers to the service.
    pub all: serde_json::Map<String, serde_json::Value>,
}
