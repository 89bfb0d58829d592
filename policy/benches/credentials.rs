//! What it costs to verify a credential that was not seen before.
//!
//! Prints nanoseconds, the median over rounds. How to read it: the digest of a key is on the path of every call with one and should stay
//! below 500 ns; a token is verified once and then remembered, so that its figures matter for floods of new tokens.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench is no request path"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tollgate_policy::credentials::jwks::KeySet;
use tollgate_policy::credentials::jwt::{self, TokenRules};
use tollgate_policy::credentials::key::{ApiKey, Pepper, make_key};
use tollgate_policy::settings::Algorithm;
use tollgate_policy::time::Timestamp;

const ROUNDS: usize = 21;
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn measure<T>(name: &str, passes: u32, mut work: impl FnMut() -> T) {
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..passes {
                black_box(work());
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(passes)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<28}{:>10.0} ns", rounds[ROUNDS / 2]);
}

fn token(algorithm: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = json!({"alg": algorithm, "typ": "JWT", "kid": "2026-01"});
    let claims = json!({
        "iss": "https://id.example", "aud": ["api"], "exp": 1_800_000_060, "iat": 1_799_999_999, "sub": "ann",
        "azp": "shop", "jti": "0b6fd1c4-6a0c-4d9b-9d0e-000000000000", "scope": "orders:read orders:write",
        "realm_access": {"roles": ["buyer", "seller"]},
    });
    let encoded = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn main() {
    let text = make_key("live", [7; 16]);
    let pepper = Pepper::new([1; 32]);
    measure("API key: read", 20_000, || {
        ApiKey::parse(black_box(&text)).is_ok()
    });
    measure("API key: digest", 20_000, || {
        pepper.digest(black_box(&text))
    });

    let rules = TokenRules {
        issuer: "https://id.example".into(),
        audiences: vec!["api".into()],
        algorithms: vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::Hs256],
        leeway: Duration::from_secs(30),
        client_claims: vec!["azp".into()],
        scope_claims: vec!["scope".into()],
        role_claims: vec!["realm_access.roles".into()],
        expiry_required: true,
    };
    let random = SystemRandom::new();
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);

    let secret = [9; 32];
    let mac = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let hs256 = token("HS256", |message| {
        hmac::sign(&mac, message).as_ref().to_vec()
    });
    let shared = KeySet::from_secret(&secret).unwrap();

    let rsa = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let rs256 = token("RS256", |message| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(
            &signature::RSA_PKCS1_SHA256,
            &random,
            message,
            &mut signature,
        )
        .unwrap();
        signature
    });
    let n = b64(rsa.public_key().modulus().big_endian_without_leading_zero());
    let ec = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let es256 = token("ES256", |message| {
        ec.sign(&random, message).unwrap().as_ref().to_vec()
    });
    let point = ec.public_key().as_ref();
    let document = json!({"keys": [
        {"kty": "RSA", "kid": "2026-01", "n": n, "e": "AQAB"},
        {"kty": "EC", "kid": "2026-01", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..])},
    ]})
    .to_string();
    let public = KeySet::parse(document.as_bytes(), KeySet::MAX_BYTES).unwrap();

    for (name, token, keys) in [
        ("HS256", &hs256, &shared),
        ("RS256", &rs256, &public),
        ("ES256", &es256, &public),
    ] {
        assert!(jwt::verify(token, &rules, keys, NOW).is_ok());
        measure(&format!("{name}: peek"), 2_000, || {
            jwt::peek(black_box(token)).is_ok()
        });
        measure(&format!("{name}: verify"), 500, || {
            jwt::verify(black_box(token), &rules, keys, NOW).is_ok()
        });
    }
    measure("key set: read", 200, || {
        KeySet::parse(black_box(document.as_bytes()), 1 << 20).is_ok()
    });
}
