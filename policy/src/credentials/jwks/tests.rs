//! Documents with keys, good and bad.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use std::sync::LazyLock;

use super::*;

static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap());

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_key() -> Value {
    let public = RSA.public_key();
    let n = encoded(public.modulus().big_endian_without_leading_zero());
    json!({"kty": "RSA", "kid": "r", "n": n, "e": "AQAB"})
}

fn ec_key() -> Value {
    let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    json!({"kty": "EC", "kid": "e", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..])})
}

fn secret(id: &str, byte: u8) -> Value {
    json!({"kty": "oct", "kid": id, "k": encoded(&[byte; 32])})
}

fn parse(keys: &[Value]) -> Result<KeySet, String> {
    KeySet::parse(
        json!({"keys": keys}).to_string().as_bytes(),
        KeySet::MAX_BYTES,
    )
}

/// `key` with one member changed; `null` takes it away.
fn with(mut key: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
        value => key[name] = value,
    }
    key
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<_> = STANDARD
        .encode(der)
        .into_bytes()
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

#[test]
fn a_key_serves_what_it_says_it_serves() {
    let set = parse(&[rsa_key()]).unwrap();
    assert!(set.serves(Algorithm::Rs256) && set.serves(Algorithm::Ps512));
    assert!(!set.serves(Algorithm::Hs256) && !set.serves(Algorithm::Es256));
    let pinned = parse(&[with(rsa_key(), "alg", json!("PS256"))]).unwrap();
    assert!(pinned.serves(Algorithm::Ps256) && !pinned.serves(Algorithm::Rs256));
    let set = parse(&[secret("s", 1)]).unwrap();
    assert!(set.serves(Algorithm::Hs256) && !set.serves(Algorithm::Hs384));
    for key in [
        with(rsa_key(), "use", json!("sig")),
        with(rsa_key(), "key_ops", json!(["verify"])),
        with(secret("s", 1), "key_ops", json!(["sign", "verify"])),
        with(rsa_key(), "x5c", json!(["MIIB"])),
        with(rsa_key(), "unknown", json!({"a": 1})),
        with(rsa_key(), "kid", json!(null)),
        with(rsa_key(), "e", json!("Aw")),
    ] {
        assert!(parse(std::slice::from_ref(&key)).is_ok(), "{key}");
    }
}

#[test]
fn a_key_that_must_not_verify_is_left_out() {
    // 1024 bits. That it is no product of two primes does not matter.
    let short = encoded(&[0xf1; 128]);
    let p521 = json!({"kty": "EC", "crv": "P-521", "x": encoded(&[1; 66]), "y": encoded(&[1; 66])});
    for key in [
        with(rsa_key(), "use", json!("enc")),
        with(rsa_key(), "use", json!(["sig"])),
        with(rsa_key(), "key_ops", json!(["encrypt"])),
        with(rsa_key(), "key_ops", json!([])),
        with(rsa_key(), "key_ops", json!("verify")),
        with(rsa_key(), "alg", json!("RSA-OAEP")),
        with(rsa_key(), "alg", json!("HS256")),
        with(rsa_key(), "alg", json!("ES256")),
        with(rsa_key(), "alg", json!("none")),
        with(rsa_key(), "alg", json!(1)),
        with(rsa_key(), "kty", json!("oct")),
        with(rsa_key(), "kty", json!("EC")),
        with(rsa_key(), "kty", json!(null)),
        with(rsa_key(), "kty", json!("AKP")),
        with(rsa_key(), "n", json!(null)),
        with(rsa_key(), "n", json!("")),
        with(rsa_key(), "n", json!("not base64!")),
        with(rsa_key(), "n", json!(short)),
        with(rsa_key(), "n", json!(encoded(&[0xff; 1025]))),
        with(rsa_key(), "e", json!("AQ")),
        with(rsa_key(), "e", json!("")),
        with(rsa_key(), "e", json!("AQAA")),
        with(rsa_key(), "kid", json!("k".repeat(513))),
        with(rsa_key(), "kid", json!(7)),
        with(rsa_key(), "d", json!("AQAB")),
        with(rsa_key(), "p", json!("AQAB")),
        with(rsa_key(), "k", json!("AQAB")),
        with(ec_key(), "d", json!("AQAB")),
        with(ec_key(), "crv", json!("P-384")),
        with(ec_key(), "crv", json!("secp256k1")),
        with(ec_key(), "alg", json!("ES384")),
        with(ec_key(), "x", json!(encoded(&[1; 32]))),
        with(ec_key(), "x", json!(encoded(&[1; 31]))),
        p521,
        json!({"kty": "OKP", "crv": "Ed448", "x": encoded(&[1; 57])}),
        json!({"kty": "OKP", "crv": "X25519", "x": encoded(&[9; 32])}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(&[9; 31])}),
        json!({"kty": "oct", "k": ""}),
        json!({"kty": "oct", "k": encoded(&[1; 31])}),
        json!({"kty": "oct", "k": encoded(&[1; 32]), "alg": "HS384"}),
        json!({}),
        json!("text"),
    ] {
        let error = parse(std::slice::from_ref(&key)).expect_err(&key.to_string());
        assert!(
            error.starts_with("it holds no key that can be used; key 1: "),
            "{error}"
        );
        let beside = parse(&[key.clone(), with(ec_key(), "kid", json!("beside"))]).unwrap();
        assert_eq!((beside.len(), beside.refused().len()), (1, 1), "{key}");
    }
}

#[test]
fn secrets_do_not_stand_among_public_keys() {
    let set = parse(&[secret("s", 1), rsa_key()]).unwrap();
    assert!(!set.serves(Algorithm::Hs256) && set.serves(Algorithm::Rs256));
    assert_eq!(set.refused(), ["1 secrets stand among public keys"]);
}

#[test]
fn different_keys_of_one_name_are_none() {
    let error = parse(&[secret("s", 1), secret("s", 2)]).unwrap_err();
    assert!(error.ends_with("several keys are named \"s\""), "{error}");
    assert_eq!(parse(&[secret("s", 1), secret("t", 2)]).unwrap().len(), 2);
    assert_eq!(
        parse(&[secret("s", 1), secret("s", 1), secret("s", 1)])
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        parse(&[secret("s", 1), secret("s", 2), secret("t", 3)])
            .unwrap()
            .len(),
        1
    );
    let broken = json!({"kty": "oct", "kid": "s", "k": "=="});
    assert_eq!(
        parse(&[broken, secret("s", 1), secret("t", 2)])
            .unwrap()
            .len(),
        1
    );
    let encrypts = json!({"kty": "oct", "kid": "s", "use": "enc", "k": "=="});
    assert_eq!(parse(&[encrypts, secret("s", 1)]).unwrap().len(), 1);
    // Of different algorithms they cannot be confused.
    let named = |key| with(key, "kid", json!("same"));
    assert_eq!(
        parse(&[named(rsa_key()), named(ec_key())]).unwrap().len(),
        2
    );
    let halves = [
        with(rsa_key(), "alg", json!("RS256")),
        with(rsa_key(), "alg", json!("PS256")),
    ];
    assert_eq!(parse(&halves).unwrap().len(), 2);
}

#[test]
fn documents_are_limited() {
    let many: Vec<_> = (0..101)
        .map(|index| secret(&index.to_string(), 1))
        .collect();
    assert_eq!(parse(&many[..100]).unwrap().len(), 100);
    assert_eq!(parse(&many).unwrap_err(), "it holds more than 100 keys");
    let pair = Ed25519KeyPair::generate().unwrap();
    let block = pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref());
    let read = |count| KeySet::parse(block.repeat(count).as_bytes(), KeySet::MAX_BYTES);
    assert_eq!(read(100).unwrap().len(), 100);
    assert_eq!(read(101).unwrap_err(), "it holds more than 100 keys");
    let document = json!({"keys": [rsa_key()]}).to_string();
    assert!(KeySet::parse(document.as_bytes(), document.len()).is_ok());
    assert!(KeySet::parse(document.as_bytes(), document.len() - 1).is_err());
    let large = format!("{document}{}", " ".repeat(KeySet::MAX_BYTES));
    let error = KeySet::parse(large.as_bytes(), usize::MAX).unwrap_err();
    assert_eq!(error, "it is larger than 1048576 bytes");
}

#[test]
fn other_documents_are_refused() {
    for document in [
        "",
        "{",
        "{}",
        "[]",
        "null",
        r#"{"keys":[]}"#,
        r#"{"keys":{}}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"error":"not found"}"#,
        r#"{"a":"-----BEGIN "}"#,
        "<html>",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ] {
        assert!(
            KeySet::parse(document.as_bytes(), KeySet::MAX_BYTES).is_err(),
            "{document}"
        );
    }
    assert_eq!(KeySet::parse(b"\xff", 10).unwrap_err(), "it is not UTF-8");
    let nested = format!("{{\"keys\":{}", "[".repeat(100_000));
    assert!(KeySet::parse(nested.as_bytes(), KeySet::MAX_BYTES).is_err());
}

#[test]
fn public_keys_are_read_from_pem() {
    let p256 = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let p384 = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let rsa_info = RSA.public_key().as_der().unwrap();
    let text = [
        "Issued for tests\n".to_owned(),
        pem("PUBLIC KEY", rsa_info.as_ref()),
        pem("RSA PUBLIC KEY", RSA.public_key().as_ref()),
        pem("PUBLIC KEY", p256.public_key().as_der().unwrap().as_ref()),
        pem("PUBLIC KEY", p384.public_key().as_der().unwrap().as_ref()),
        pem("PUBLIC KEY", ed.public_key().as_der().unwrap().as_ref()),
    ]
    .concat();
    let set = KeySet::parse(text.as_bytes(), KeySet::MAX_BYTES).unwrap();
    assert_eq!((set.len(), set.refused()), (5, &[][..]));
    for algorithm in [
        Algorithm::Ps384,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ] {
        assert!(set.serves(algorithm));
    }
    let private = pem("PRIVATE KEY", p256.to_pkcs8v1().unwrap().as_ref());
    let error = KeySet::parse(private.as_bytes(), KeySet::MAX_BYTES).unwrap_err();
    assert!(error.contains("it is a private key"), "{error}");
    let cut = pem("PUBLIC KEY", &rsa_info.as_ref()[..100]);
    assert!(KeySet::parse(cut.as_bytes(), KeySet::MAX_BYTES).is_err());
    let trailing = pem("PUBLIC KEY", &[rsa_info.as_ref(), &[0]].concat());
    assert!(KeySet::parse(trailing.as_bytes(), KeySet::MAX_BYTES).is_err());
}

#[test]
fn certificates_may_be_listed_by_key_name() {
    let certificate = crate::credentials::certificate::tests::plain("CN=issuer");
    let text = pem("CERTIFICATE", &certificate);
    let set = KeySet::parse(text.as_bytes(), KeySet::MAX_BYTES).unwrap();
    assert!(set.serves(Algorithm::Es256));
    let map = json!({"key-1": text}).to_string();
    let set = KeySet::parse(map.as_bytes(), KeySet::MAX_BYTES).unwrap();
    assert_eq!(set.keys[0].id.as_deref(), Some("key-1"));
    let mixed = json!({"key-1": text, "expires": 7}).to_string();
    assert!(KeySet::parse(mixed.as_bytes(), KeySet::MAX_BYTES).is_err());
}

#[test]
fn a_shared_secret_is_long_enough_or_none() {
    assert!(
        KeySet::from_secret(&[1; 32])
            .unwrap()
            .serves(Algorithm::Hs256)
    );
    assert!(
        !KeySet::from_secret(&[1; 63])
            .unwrap()
            .serves(Algorithm::Hs512)
    );
    assert!(
        KeySet::from_secret(&[1; 64])
            .unwrap()
            .serves(Algorithm::Hs512)
    );
    let error = KeySet::from_secret(&[1; 31]).unwrap_err();
    assert!(error.contains("at least 32 bytes"), "{error}");
}

#[test]
fn nothing_of_a_key_is_shown() {
    let set = KeySet::from_secret(b"0123456789abcdef0123456789abcdef").unwrap();
    assert_eq!(
        format!("{set:?}"),
        "KeySet { keys: [VerifyingKey { id: None, algorithms: [Hs256], .. }], refused: [] }"
    );
}
