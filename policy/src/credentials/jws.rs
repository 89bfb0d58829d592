//! The envelope of a token: JSON Web Signature in compact form (RFC 7515 section 7.1), and nothing else of JOSE.
//!
//! Taken: three parts of strict base64url, a strict JSON header, an algorithm of ours. Keys that a token brings along or points to
//! (`jwk`, `jku`, `x5c`, `x5u`) are never looked at; `crit` and unencoded payloads (RFC 7797) are refused. What the payload says is
//! read by [`super::jwt`].
//!
//! Written here on the primitives of aws-lc instead of taken from a JWT library: those take a duplicate claim's last value, parse
//! the key anew for every token, and pair key and algorithm at run time. The tests hold it against one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::jwks::KeySet;
use super::{BadCredential, json};
use crate::settings::Algorithm;

/// The longest token, in bytes. Heads are limited to 32 KiB as a whole.
pub const MAX_TOKEN: usize = 16 * 1024;

/// The longest name of a key, in bytes. Issuers use hashes, identifiers and now and then a URL.
pub const MAX_KEY_ID: usize = 512;

/// A signed text, taken apart. Nothing in it is believed before [`Signed::verify`].
#[derive(Clone, Debug)]
pub struct Signed<'t> {
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
    message: &'t [u8],
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'t> Signed<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`BadCredential::TooLarge`], [`BadCredential::Malformed`], [`BadCredential::Critical`], and [`BadCredential::Algorithm`] for
    /// `none` and all that is not ours.
    pub fn parse(token: &'t str) -> Result<Self, BadCredential> {
        if token.len() > MAX_TOKEN {
            return Err(BadCredential::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(BadCredential::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(BadCredential::Malformed)?;
        let header = decode(header).ok_or(BadCredential::Malformed)?;
        let header = json::object(&header).ok_or(BadCredential::Malformed)?;
        check_header(&header)?;
        let named = text(&header, "alg")?.ok_or(BadCredential::Malformed)?;
        let algorithm = algorithm(named).ok_or(BadCredential::Algorithm)?;
        let key_id = text(&header, "kid")?;
        if key_id.is_some_and(|id| id.len() > MAX_KEY_ID) {
            return Err(BadCredential::TooLarge);
        }
        Ok(Self {
            algorithm,
            key_id: key_id.map(Into::into),
            message: message.as_bytes(),
            payload: decode(payload).ok_or(BadCredential::Malformed)?,
            signature: decode(signature).ok_or(BadCredential::Malformed)?,
        })
    }

    /// `alg`.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// `kid`.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The payload, whoever wrote it.
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload, if one of `keys` signed it by one of `algorithms`.
    ///
    /// # Errors
    /// [`BadCredential::Algorithm`], [`BadCredential::UnknownKey`] when no key fits, else [`BadCredential::Signature`].
    pub fn verify(&self, algorithms: &[Algorithm], keys: &KeySet) -> Result<&[u8], BadCredential> {
        if !algorithms.contains(&self.algorithm) {
            return Err(BadCredential::Algorithm);
        }
        keys.verify(self.algorithm, self.key_id(), self.message, &self.signature)?;
        Ok(&self.payload)
    }
}

/// The algorithm of a JOSE name; `Ed25519` is the name that RFC 9864 gives to what we do of `EdDSA`.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::Rs256,
        "RS384" => Algorithm::Rs384,
        "RS512" => Algorithm::Rs512,
        "PS256" => Algorithm::Ps256,
        "PS384" => Algorithm::Ps384,
        "PS512" => Algorithm::Ps512,
        "ES256" => Algorithm::Es256,
        "ES384" => Algorithm::Es384,
        "EdDSA" | "Ed25519" => Algorithm::EdDsa,
        "HS256" => Algorithm::Hs256,
        "HS384" => Algorithm::Hs384,
        "HS512" => Algorithm::Hs512,
        _ => return None,
    })
}

/// Base64url without padding, strictly: no other characters, no stray bits (RFC 7515 section 2).
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn check_header(header: &Map<String, Value>) -> Result<(), BadCredential> {
    if header.contains_key("crit") {
        return Err(BadCredential::Critical);
    }
    // RFC 7797 demands `crit` beside it; whoever leaves that out still means another signature input.
    if header
        .get("b64")
        .is_some_and(|b64| *b64 != Value::Bool(true))
    {
        return Err(BadCredential::Critical);
    }
    let kind = text(header, "typ")?.unwrap_or("JWT").to_ascii_lowercase();
    let kind = kind.strip_prefix("application/").unwrap_or(&kind);
    if header.contains_key("enc") || OTHER_PURPOSES.contains(&kind) {
        return Err(BadCredential::Malformed);
    }
    Ok(())
}

/// Tokens an issuer signs with the same keys, which say something else than "let the bearer in" (RFC 8725 section 3.11).
const OTHER_PURPOSES: [&str; 8] = [
    "client-authentication+jwt",
    "dpop+jwt",
    "entity-statement+jwt",
    "logout+jwt",
    "oauth-authz-req+jwt",
    "openid-federation+jwt",
    "secevent+jwt",
    "token-introspection+jwt",
];

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, BadCredential> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(BadCredential::Malformed),
    }
}
