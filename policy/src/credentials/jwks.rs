//! The keys of an issuer: a JWK set (RFC 7517), PEM, certificates by key name as Google publishes them, or a shared secret.
//!
//! A key that cannot be used, or must not be, is left out and said so; the others count. Refused are: keys for encryption, unknown
//! kinds and algorithms, RSA keys that are short or known to be weak, short secrets, public keys published with their private half, secrets
//! in one set with public keys, and different keys that share a name and an algorithm. Not here: fetching, and how long a set counts.

use serde_json::{Map, Value};

use super::verifier::VerifyingKey;
use super::{BadCredential, json, jws, pem};
use crate::settings::Algorithm;

/// The keys of one issuer, ready to verify.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    refused: Vec<String>,
}

impl KeySet {
    /// No document is larger, whatever limit is asked for: a genuine one has a few kilobytes.
    pub const MAX_BYTES: usize = 1 << 20;

    /// No document holds more keys.
    pub const MAX_KEYS: usize = 100;

    /// Reads a document of at most `limit` bytes.
    ///
    /// # Errors
    /// Says what is wrong with the document: it is too large, no key set, or holds no key that can be used. Whoever holds an
    /// earlier set should then keep it.
    pub fn parse(document: &[u8], limit: usize) -> Result<Self, String> {
        let limit = limit.min(Self::MAX_BYTES);
        if document.len() > limit {
            return Err(format!("it is larger than {limit} bytes"));
        }
        let text = std::str::from_utf8(document).map_err(|_| "it is not UTF-8".to_owned())?;
        let found = if text.trim_start().starts_with('{') {
            json_keys(text)?
        } else {
            pem::keys(text, Self::MAX_KEYS + 1)?
        };
        if found.len() > Self::MAX_KEYS {
            return Err(format!("it holds more than {} keys", Self::MAX_KEYS));
        }
        Self::of(found)
    }

    /// The secret that an issuer shares with us, for HS algorithms.
    ///
    /// # Errors
    /// When it is shorter than RFC 7518 section 3.2 demands.
    pub fn from_secret(secret: &[u8]) -> Result<Self, String> {
        Self::of(vec![VerifyingKey::shared(secret)])
    }

    fn of(found: Vec<Result<VerifyingKey, String>>) -> Result<Self, String> {
        let mut set = Self {
            keys: Vec::new(),
            refused: Vec::new(),
        };
        for (index, key) in found.into_iter().enumerate() {
            match key {
                Ok(key) => set.keys.push(key),
                Err(why) => set.refused.push(format!("key {}: {why}", index + 1)),
            }
        }
        set.drop_secrets_among_public_keys();
        set.drop_ambiguous_keys();
        match set.refused.first() {
            _ if !set.keys.is_empty() => Ok(set),
            Some(first) => Err(format!("it holds no key that can be used; {first}")),
            None => Err("it holds no key".to_owned()),
        }
    }

    /// A document with public keys is for the public: a secret in it is one no more.
    fn drop_secrets_among_public_keys(&mut self) {
        let secrets = self.keys.iter().filter(|key| key.is_shared()).count();
        if secrets > 0 && secrets < self.keys.len() {
            self.keys.retain(|key| !key.is_shared());
            self.refused
                .push(format!("{secrets} secrets stand among public keys"));
        }
    }

    /// Of keys with the same name and algorithm, nobody can say which one the issuer means. The same key twice is one.
    fn drop_ambiguous_keys(&mut self) {
        let mut ambiguous = Vec::new();
        let mut repeated = Vec::new();
        for (index, key) in self
            .keys
            .iter()
            .enumerate()
            .filter(|(_, key)| key.id.is_some())
        {
            for (earlier_index, earlier) in self.keys.iter().enumerate().take(index) {
                if earlier.id != key.id || !earlier.shares_algorithm(key) {
                    continue;
                }
                if earlier.same_material(key) {
                    repeated.push(index);
                } else {
                    ambiguous.extend([index, earlier_index]);
                }
            }
        }
        for index in &ambiguous {
            let id = self
                .keys
                .get(*index)
                .and_then(|key| key.id.as_deref())
                .unwrap_or_default();
            let why = format!("several keys are named {id:?}");
            if !self.refused.contains(&why) {
                self.refused.push(why);
            }
        }
        let mut index = 0..;
        self.keys.retain(|_| {
            let index = index.next().unwrap_or(usize::MAX);
            !ambiguous.contains(&index) && !repeated.contains(&index)
        });
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a set without keys is an error when it is read.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Why keys were left out, for the operator.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Whether some key can verify tokens of `algorithm`.
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.serves(algorithm))
    }

    /// Whether `signature` over `message` was made by a key of this set.
    ///
    /// A token that names its key is verified with the key of that name; where no key has that name, and where it names none, with those
    /// that may be meant, at most [`MAX_TRIED`].
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        key_id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadCredential> {
        let named = key_id.is_some() && self.keys.iter().any(|key| key.id.as_deref() == key_id);
        let meant = |key: &&VerifyingKey| match (key_id, &key.id) {
            (Some(_), Some(_)) => named && key.id.as_deref() == key_id,
            (Some(_), None) => !named,
            (None, _) => true,
        };
        let fitting = self
            .keys
            .iter()
            .filter(meant)
            .filter(|key| key.serves(algorithm));
        let mut tried = 0;
        for key in fitting.take(MAX_TRIED) {
            tried += 1;
            if key.verify(algorithm, message, signature) {
                return Ok(());
            }
        }
        if tried == 0 {
            Err(BadCredential::UnknownKey)
        } else {
            Err(BadCredential::Signature)
        }
    }
}

/// A token without `kid` costs at most so many verifications. Issuers have two or three keys.
const MAX_TRIED: usize = 4;

/// The keys of a JSON document, in its order.
fn json_keys(text: &str) -> Result<Vec<Result<VerifyingKey, String>>, String> {
    let members = json::object(text.as_bytes())
        .ok_or_else(|| "it is not strict JSON (one object, no member twice)".to_owned())?;
    match members.get("keys") {
        Some(Value::Array(keys)) if keys.len() > KeySet::MAX_KEYS => {
            Err(format!("it holds more than {} keys", KeySet::MAX_KEYS))
        }
        Some(Value::Array(keys)) => Ok(without_broken_twins(keys)),
        Some(_) => Err("its member `keys` is not a list".to_owned()),
        None => certificates(&members),
    }
}

/// The keys of a list. One whose name, kind, use and algorithm are also those of a key that cannot be read is not taken: nobody can say
/// which of them the issuer means.
fn without_broken_twins(list: &[Value]) -> Vec<Result<VerifyingKey, String>> {
    let label = |key: &Value| ["kid", "kty", "use", "alg"].map(|name| key.get(name).cloned());
    let read: Vec<_> = list.iter().map(web_key).collect();
    let broken: Vec<_> = read
        .iter()
        .zip(list)
        .filter(|(result, key)| result.is_err() && key.get("kid").is_some())
        .map(|(_, key)| label(key))
        .collect();
    let taken = read.into_iter().zip(list).map(|(result, key)| {
        if result.is_ok() && broken.contains(&label(key)) {
            Err("another key of its name cannot be read".to_owned())
        } else {
            result
        }
    });
    taken.collect()
}

/// `{"<key name>": "-----BEGIN CERTIFICATE-----…", …}`, as Google serves it beside its key sets.
fn certificates(members: &Map<String, Value>) -> Result<Vec<Result<VerifyingKey, String>>, String> {
    if members.len() > KeySet::MAX_KEYS {
        return Err(format!("it holds more than {} keys", KeySet::MAX_KEYS));
    }
    let certificate = |(name, value): (&String, &Value)| match value {
        Value::String(text) if text.starts_with("-----BEGIN ") => {
            let first = pem::keys(text, 1)?.into_iter().next();
            let key = first.unwrap_or_else(|| Err("it is not PEM".to_owned()));
            Ok(key.and_then(|key| with_id(key, name)))
        }
        _ => Err("it is not a key set: it has no member `keys`".to_owned()),
    };
    members.iter().map(certificate).collect()
}

/// One JWK (RFC 7517 section 4).
fn web_key(value: &Value) -> Result<VerifyingKey, String> {
    let Value::Object(members) = value else {
        return Err("it is not an object".to_owned());
    };
    check_purpose(members)?;
    let kind = text(members, "kty")?.ok_or("it has no `kty`")?;
    // RFC 7518 section 6: what only the owner of a key may know. `k` of `oct` is the key itself.
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
    let shown = private
        .iter()
        .find(|name| members.contains_key(**name) && !(kind == "oct" && **name == "k"));
    if let Some(name) = shown {
        return Err(format!("it is published with its private half (`{name}`)"));
    }
    let mut key = match kind {
        "RSA" => VerifyingKey::rsa(&bytes(members, "n")?, &bytes(members, "e")?),
        "EC" => elliptic(members),
        "OKP" => match text(members, "crv")? {
            Some("Ed25519") => VerifyingKey::ed25519(&bytes(members, "x")?),
            curve => Err(format!(
                "its curve {:.20} is not supported",
                curve.unwrap_or("(none)")
            )),
        },
        "oct" => VerifyingKey::shared(&bytes(members, "k")?),
        kind => Err(format!("keys of kind `{kind:.20}` are not supported")),
    }?;
    if let Some(name) = text(members, "alg")? {
        let algorithm = jws::algorithm(name);
        if !algorithm.is_some_and(|algorithm| key.pin(algorithm)) {
            return Err(format!(
                "it is not for an algorithm that we verify (`{name:.20}`)"
            ));
        }
    }
    match text(members, "kid")? {
        Some(id) => with_id(key, id),
        None => Ok(key),
    }
}

/// A key that is for anything else than verifying never verifies.
fn check_purpose(members: &Map<String, Value>) -> Result<(), String> {
    match text(members, "use")? {
        None | Some("sig") => {}
        Some(other) => return Err(format!("it is not for signatures (`use: {other:.20}`)")),
    }
    match members.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations))
            if operations.iter().any(|operation| operation == "verify") =>
        {
            Ok(())
        }
        Some(_) => Err("it is not for verifying (`key_ops`)".to_owned()),
    }
}

/// RFC 7518 section 6.2.1: both coordinates have the full length of the field.
fn elliptic(members: &Map<String, Value>) -> Result<VerifyingKey, String> {
    let curve = text(members, "crv")?.unwrap_or_default();
    let (x, y) = (bytes(members, "x")?, bytes(members, "y")?);
    let length = if curve == "P-384" { 48 } else { 32 };
    if x.len() != length || y.len() != length {
        return Err(format!(
            "its coordinates have not the length of its curve {curve:.20}"
        ));
    }
    VerifyingKey::elliptic(curve, &[&[4], &*x, &*y].concat())
}

fn with_id(mut key: VerifyingKey, id: &str) -> Result<VerifyingKey, String> {
    if id.len() > jws::MAX_KEY_ID {
        return Err(format!("its name is longer than {} bytes", jws::MAX_KEY_ID));
    }
    key.id = Some(id.into());
    Ok(key)
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, String> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its member `{name}` is not a text")),
    }
}

fn bytes(members: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = text(members, name)?.ok_or_else(|| format!("it has no `{name}`"))?;
    jws::decode(text).ok_or_else(|| format!("its member `{name}` is not base64url"))
}

#[cfg(test)]
mod tests;
