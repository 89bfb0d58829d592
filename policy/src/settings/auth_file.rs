//! `auth` of an API file: as written, and turned into [`AuthConfig`]. Not here: the keys themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::decode::{Text, nearest};
use super::names;
use super::plain_file;
use super::reader::Reader;
use super::roots_file::roots;
use super::url;
use super::value::{self, Wrong};
use super::{
    Algorithm, AuthConfig, IntrospectionConfig, IssuerConfig, KeySource, SchemeConfig,
    SubscriptionMode,
};

/// Bytes of a key file. A set of a hundred keys has less.
const MAX_KEY_FILE: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAuth {
    subscription: Option<Text>,
    forward_credentials: Option<Text>,
    issuers: Option<BTreeMap<Text, WrittenIssuer>>,
    schemes: Option<BTreeMap<Text, Option<WrittenScheme>>>,
    forward_claims: Option<BTreeMap<Text, Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIssuer {
    issuer: Text,
    audiences: Option<Vec<Text>>,
    algorithms: Option<Vec<Text>>,
    jwks: Option<Text>,
    secret: Option<Text>,
    leeway: Option<Text>,
    stale_for: Option<Text>,
    allow_private: Option<Text>,
    client_claims: Option<Vec<Text>>,
    scope_claims: Option<Vec<Text>>,
    role_claims: Option<Vec<Text>>,
    ca: Option<Text>,
    introspection: Option<WrittenIntrospection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenIntrospection {
    url: Text,
    client_id: Text,
    client_secret: Text,
    cache: Option<Text>,
    deadline: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenScheme {
    issuers: Option<Vec<Text>>,
    certificates: Option<Vec<Text>>,
}

impl WrittenAuth {
    /// Files that hold nothing secret: roots and public keys.
    pub(super) fn public_files(&mut self) -> impl Iterator<Item = &mut Text> {
        let issuers = self.issuers.iter_mut().flat_map(BTreeMap::values_mut);
        issuers.flat_map(|issuer| issuer.jwks.iter_mut().chain(&mut issuer.ca))
    }
}

/// The meaning of `auth`; mistakes go to `reader`.
pub(super) fn auth(reader: &mut Reader, written: Option<&WrittenAuth>) -> AuthConfig {
    let unsaid = WrittenAuth::default();
    let written = written.unwrap_or(&unsaid);
    let issuers = issuers(reader, written.issuers.as_ref());
    let schemes = schemes(reader, written);
    let subscription = reader.value(
        "auth.subscription",
        written.subscription.as_ref(),
        subscription,
    );
    let forward = written.forward_credentials.as_ref();
    AuthConfig {
        subscription: subscription.unwrap_or_default(),
        forward_credentials: reader
            .value("auth.forward_credentials", forward, value::switch)
            .unwrap_or_default(),
        issuers,
        schemes,
        forward_claims: forward_claims(reader, written.forward_claims.as_ref()),
    }
}

fn subscription(text: &str) -> Result<SubscriptionMode, Wrong> {
    match text {
        "consumers" => Ok(SubscriptionMode::Consumers),
        "required" => Ok(SubscriptionMode::Required),
        "off" => Ok(SubscriptionMode::Off),
        _ => Err(Wrong::new(
            format!("`{text}` is none of consumers, required and off"),
            "write one of them",
        )),
    }
}

fn issuers(
    reader: &mut Reader,
    written: Option<&BTreeMap<Text, WrittenIssuer>>,
) -> BTreeMap<Arc<str>, IssuerConfig> {
    let mut found: BTreeMap<Arc<str>, IssuerConfig> = BTreeMap::new();
    for (name, written) in written.into_iter().flatten() {
        let key = reader.value("auth.issuers", Some(name), names::object);
        let Some((key, config)) = key.zip(issuer(reader, name, written)) else {
            continue;
        };
        if let Some((other, _)) = found.iter().find(|(_, it)| it.issuer == config.issuer) {
            let wrong = Wrong::new(
                format!("`{}` is the issuer `{other}` already", config.issuer),
                "keep one of the two: a token names its issuer, and must mean one",
            );
            reader.refuse(
                &format!("auth.issuers.{}.issuer", name.text),
                &written.issuer,
                wrong,
            );
        }
        found.insert(key, config);
    }
    found
}

fn issuer(reader: &mut Reader, name: &Text, written: &WrittenIssuer) -> Option<IssuerConfig> {
    let field = |inner: &str| format!("auth.issuers.{}.{inner}", name.text);
    let allow_private = reader
        .value(
            &field("allow_private"),
            written.allow_private.as_ref(),
            value::switch,
        )
        .unwrap_or_default();
    let identifier = reader.value(&field("issuer"), Some(&written.issuer), names::word);
    let keys = keys(reader, &field, written, allow_private);
    let algorithms = algorithms(reader, &field, written);
    let claims = |reader: &mut Reader, inner: &str, list: &Option<Vec<Text>>| {
        list.as_ref()
            .map(|_| reader.some(&field(inner), name, list.as_ref(), names::word))
    };
    let client_claims = claims(reader, "client_claims", &written.client_claims);
    let scope_claims = claims(reader, "scope_claims", &written.scope_claims);
    let role_claims = claims(reader, "role_claims", &written.role_claims);
    let audiences = reader.some(
        &field("audiences"),
        name,
        written.audiences.as_ref(),
        names::word,
    );
    let leeway = reader.value(&field("leeway"), written.leeway.as_ref(), leeway);
    let stale_for = reader.value(
        &field("stale_for"),
        written.stale_for.as_ref(),
        value::duration_or_off,
    );
    let ca = roots(reader, &field("ca"), written.ca.as_ref());
    let introspection = written.introspection.as_ref();
    let introspection = introspection.map(|it| asked(reader, &field, it, allow_private));
    let unsaid = IssuerConfig::new(identifier?, keys?, reader.place(name));
    Some(IssuerConfig {
        audiences,
        algorithms,
        leeway: leeway.unwrap_or(unsaid.leeway),
        stale_for: stale_for.unwrap_or(unsaid.stale_for),
        allow_private,
        client_claims: client_claims.unwrap_or(unsaid.client_claims),
        scope_claims: scope_claims.unwrap_or(unsaid.scope_claims),
        role_claims: role_claims.unwrap_or(unsaid.role_claims),
        ca,
        introspection: introspection.flatten(),
        ..unsaid
    })
}

/// Clocks differ by seconds; who needs minutes has a clock to repair.
fn leeway(text: &str) -> Result<Duration, Wrong> {
    let most = Duration::from_secs(300);
    value::duration_or_off(text).and_then(|leeway| match leeway <= most {
        true => Ok(leeway),
        false => Err(Wrong::new(
            format!("`{text}` lets expired tokens live on"),
            "write at most 5m",
        )),
    })
}

fn keys(
    reader: &mut Reader,
    field: &dyn Fn(&str) -> String,
    written: &WrittenIssuer,
    allow_private: bool,
) -> Option<KeySource> {
    if let Some(secret) = &written.secret {
        if let Some(jwks) = &written.jwks {
            let wrong = Wrong::new(
                "stands beside `secret`",
                "keep one: `secret` for HS algorithms, `jwks` for all others",
            );
            reader.refuse(&field("jwks"), jwks, wrong);
        }
        return shared_secret(reader, &field("secret"), secret, written);
    }
    let discovery = |reader: &mut Reader, at: &Text| {
        let url = |issuer: &str| match url::trusted(issuer, allow_private) {
            Ok(_) => Ok(KeySource::Discovery(url::discovery_of(issuer).into())),
            Err(wrong) => Err(Wrong::new(
                format!("its keys cannot be discovered: {}", wrong.what),
                "write `jwks: URL` or `jwks: FILE`, where the keys are",
            )),
        };
        let parsed = url(&written.issuer.text);
        parsed
            .map_err(|wrong| reader.refuse(&field("jwks"), at, wrong))
            .ok()
    };
    match &written.jwks {
        None => discovery(reader, &written.issuer),
        Some(jwks) if jwks.text == "discovery" => discovery(reader, jwks),
        Some(jwks) if jwks.text.contains("://") => reader
            .value(&field("jwks"), Some(jwks), |text| {
                url::trusted(text, allow_private)
            })
            .map(|url| match url::is_discovery(&url) {
                true => KeySource::Discovery(url),
                false => KeySource::Url(url),
            }),
        Some(jwks) => key_file(reader, &field("jwks"), jwks),
    }
}

/// RFC 7518 section 3.2: a key as long as the hash, or longer.
fn shared_secret(
    reader: &mut Reader,
    field: &str,
    written: &Text,
    issuer: &WrittenIssuer,
) -> Option<KeySource> {
    let secret = reader.secret(field, Some(written))?;
    let algorithms = issuer.algorithms.iter().flatten();
    let needed = algorithms.map(|it| match it.text.as_str() {
        "HS512" => 64,
        "HS384" => 48,
        _ => 32,
    });
    let needed = needed.max().unwrap_or(32);
    if secret.reveal().len() < needed {
        let wrong = Wrong::new(
            format!("the secret is shorter than {needed} bytes, so tokens can be forged"),
            "make a new one, for example with `openssl rand -base64 64`",
        );
        reader.refuse(field, written, wrong);
    }
    Some(KeySource::Secret(secret))
}

fn key_file(reader: &mut Reader, field: &str, written: &Text) -> Option<KeySource> {
    if written.text.starts_with(['{', '-']) {
        let wrong = Wrong::new(
            "holds keys where their place is due",
            "write the path alone, without `file:`",
        );
        reader.refuse(field, written, wrong);
        return None;
    }
    let path = reader.path(written);
    match readable_keys(&path) {
        Ok(()) => Some(KeySource::File(path)),
        Err(cause) => {
            let place = reader.place(written);
            let what = format!(
                "`{field}`: no keys can be read from `{}`: {cause}",
                path.display()
            );
            let remedy = "write a URL, `discovery`, or the path of a JWKS or PEM file of public keys, relative to this file";
            reader.push("unreadable-key", place, what, remedy.to_owned());
            None
        }
    }
}

/// A first look at a key file, so that a wrong path shows before anybody calls.
fn readable_keys(path: &std::path::Path) -> Result<(), String> {
    let text = plain_file::read(path, MAX_KEY_FILE)?;
    if text.contains("PRIVATE KEY-----") {
        return Err("it holds a private key, which belongs to the issuer alone".to_owned());
    }
    if text.contains("-----BEGIN ") {
        return Ok(());
    }
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("neither PEM nor JWKS: {error}"))?;
    match json.get("keys").and_then(serde_json::Value::as_array) {
        Some(keys) if !keys.is_empty() => Ok(()),
        Some(_) => Err("its `keys` are empty".to_owned()),
        None => Err("it has no list `keys`".to_owned()),
    }
}

/// The algorithms; those with a shared secret and those without never mix, or a public key would serve as a secret.
fn algorithms(
    reader: &mut Reader,
    field: &dyn Fn(&str) -> String,
    written: &WrittenIssuer,
) -> Vec<Algorithm> {
    let field = field("algorithms");
    let shared = written.secret.is_some();
    let Some(list) = &written.algorithms else {
        return match shared {
            true => vec![Algorithm::Hs256],
            false => Algorithm::USUAL.to_vec(),
        };
    };
    let mut found = reader.some(&field, &written.issuer, Some(list), names::algorithm);
    for one in list {
        let Ok(algorithm) = names::algorithm(&one.text) else {
            continue;
        };
        let wrong = match (algorithm.is_shared(), shared) {
            (true, false) => Wrong::new(
                format!("{} needs a shared secret", one.text),
                "write `secret: ${NAME}`, or remove this algorithm",
            ),
            (false, true) => Wrong::new(
                format!("{} needs public keys, not a secret", one.text),
                "write `jwks` instead of `secret`, or remove this algorithm",
            ),
            _ => continue,
        };
        reader.refuse(&field, one, wrong);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn asked(
    reader: &mut Reader,
    field: &dyn Fn(&str) -> String,
    written: &WrittenIntrospection,
    allow_private: bool,
) -> Option<IntrospectionConfig> {
    let field = |inner: &str| field(&format!("introspection.{inner}"));
    let url = reader.value(&field("url"), Some(&written.url), |text| {
        url::trusted(text, allow_private)
    });
    let client_id = reader.value(&field("client_id"), Some(&written.client_id), names::line);
    let client_secret = reader.secret(&field("client_secret"), Some(&written.client_secret));
    let cache = reader.value(
        &field("cache"),
        written.cache.as_ref(),
        value::duration_or_off,
    );
    let deadline = reader.value(
        &field("deadline"),
        written.deadline.as_ref(),
        value::duration,
    );
    Some(IntrospectionConfig {
        url: url?,
        client_id: client_id?,
        client_secret: client_secret?,
        cache: cache.unwrap_or(Duration::from_secs(30)),
        deadline: deadline.unwrap_or(Duration::from_secs(2)),
    })
}

fn schemes(reader: &mut Reader, written: &WrittenAuth) -> BTreeMap<Arc<str>, SchemeConfig> {
    let known: Vec<_> = written
        .issuers
        .iter()
        .flat_map(BTreeMap::keys)
        .map(|name| name.text.as_str())
        .collect();
    let unsaid = WrittenScheme::default();
    let mut found = BTreeMap::new();
    for (name, written) in written.schemes.iter().flatten() {
        let written = written.as_ref().unwrap_or(&unsaid);
        let field = |inner: &str| format!("auth.schemes.{}.{inner}", name.text);
        let issuer = |text: &str| match known.contains(&text) {
            true => Ok(Arc::from(text)),
            false => Err(unknown_issuer(text, &known)),
        };
        let certificates = written.certificates.as_ref();
        let config = SchemeConfig {
            issuers: reader.some(&field("issuers"), name, written.issuers.as_ref(), issuer),
            certificates: reader.some(
                &field("certificates"),
                name,
                certificates,
                names::certificate_pattern,
            ),
            place: Some(reader.place(name)),
        };
        found.insert(name.text.as_str().into(), config);
    }
    found
}

fn unknown_issuer(text: &str, known: &[&str]) -> Wrong {
    let remedy = match nearest(text, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "name it under `auth.issuers`".to_owned(),
    };
    Wrong::new(format!("`{text}` is no issuer of this API"), remedy)
}

fn forward_claims(
    reader: &mut Reader,
    written: Option<&BTreeMap<Text, Text>>,
) -> Vec<(Arc<str>, Arc<str>)> {
    let mut found: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for (claim, header) in written.into_iter().flatten() {
        let field = format!("auth.forward_claims.{}", claim.text);
        let name = reader.value(&field, Some(claim), names::word);
        let target = reader.value(&field, Some(header), names::claim_field);
        let Some((name, target)) = name.zip(target) else {
            continue;
        };
        if let Some((other, _)) = found.iter().find(|(_, taken)| *taken == target) {
            let wrong = Wrong::new(
                format!("`{target}` is filled by `{other}` already"),
                "give each claim a header field of its own",
            );
            reader.refuse(&field, header, wrong);
        }
        found.push((name, target));
    }
    found
}

#[cfg(test)]
mod tests;
