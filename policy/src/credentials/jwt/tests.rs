//! Tokens, genuine and forged. They are made here part by part, because no library makes most of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use std::sync::LazyLock;

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const SECRET: &[u8] = b"a secret of sixty-four bytes, which is what HS512 needs at least";

/// Rules of an issuer of everything, with a leeway of 30 s.
pub(in crate::credentials) fn rules() -> TokenRules {
    let texts = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    use Algorithm::*;
    TokenRules {
        issuer: "https://id.example".into(),
        audiences: texts(&["api", "other-api"]),
        algorithms: vec![
            Rs256, Rs384, Rs512, Ps256, Ps384, Ps512, Es256, Es384, EdDsa, Hs256, Hs384, Hs512,
        ],
        leeway: Duration::from_secs(30),
        client_claims: texts(&["azp", "client_id", "sub"]),
        scope_claims: texts(&["scope", "scp"]),
        role_claims: texts(&["roles", "realm_access.roles", "https://example.com/roles"]),
        expiry_required: true,
    }
}

struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| Issuer {
    rsa: RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
    p256: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    p384: EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
    ed25519: Ed25519KeyPair::generate().unwrap(),
});

impl Issuer {
    fn public_keys(&self) -> KeySet {
        KeySet::parse(self.document().to_string().as_bytes(), 1 << 20).unwrap()
    }

    fn document(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = self.rsa.public_key();
        let p256 = self.p256.public_key().as_ref();
        let p384 = self.p384.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "n": b64(public.modulus().big_endian_without_leading_zero()),
                "e": b64(public.exponent().big_endian_without_leading_zero())},
            {"kty": "EC", "kid": "p256", "crv": "P-256", "x": b64(&p256[1..33]), "y": b64(&p256[33..])},
            {"kty": "EC", "kid": "p384", "crv": "P-384", "x": b64(&p384[1..49]), "y": b64(&p384[49..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": b64(self.ed25519.public_key().as_ref())},
        ]})
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |encoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa
                .sign(encoding, &random, message, &mut signature)
                .unwrap();
            signature
        };
        let mac = |hash| {
            hmac::sign(&hmac::Key::new(hash, SECRET), message)
                .as_ref()
                .to_vec()
        };
        match algorithm {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" | "Ed25519" => self.ed25519.sign(message).as_ref().to_vec(),
            "HS256" => mac(hmac::HMAC_SHA256),
            "HS384" => mac(hmac::HMAC_SHA384),
            "HS512" => mac(hmac::HMAC_SHA512),
            other => panic!("{other}"),
        }
    }

    /// A token of these texts, signed as `algorithm` whatever the header says.
    fn token(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = URL_SAFE_NO_PAD.encode(self.sign(algorithm, message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn shared() -> KeySet {
    KeySet::from_secret(SECRET).unwrap()
}

fn good() -> Value {
    json!({"iss": "https://id.example", "aud": "api", "exp": 1_800_000_060, "sub": "ann", "azp": "shop"})
}

/// Verifies claims in a genuine HS256 token.
fn judged(claims: &str) -> Result<Claims, BadCredential> {
    verify(
        &ISSUER.token("HS256", r#"{"alg":"HS256"}"#, claims),
        &rules(),
        &shared(),
        NOW,
    )
}

/// The good claims with one changed; `null` takes it away.
fn with(name: &str, value: Value) -> Result<Claims, BadCredential> {
    let mut claims = good();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    judged(&claims.to_string())
}

/// Verifies a genuine HS256 token with this header.
fn headed(header: &str) -> Result<Claims, BadCredential> {
    verify(
        &ISSUER.token("HS256", header, &good().to_string()),
        &rules(),
        &shared(),
        NOW,
    )
}

#[test]
fn every_algorithm_verifies_and_only_its_own_signature() {
    let public = ISSUER.public_keys();
    let claims = good().to_string();
    for (name, id) in [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed"),
        ("Ed25519", "ed"),
        ("HS256", ""),
        ("HS384", ""),
        ("HS512", ""),
    ] {
        let keys = if name.starts_with("HS") {
            &shared()
        } else {
            &public
        };
        for header in [
            format!(r#"{{"alg":"{name}","kid":"{id}"}}"#),
            format!(r#"{{"alg":"{name}"}}"#),
        ] {
            let token = ISSUER.token(name, &header, &claims);
            let verified = verify(&token, &rules(), keys, NOW).unwrap();
            assert_eq!(&*verified.client, "shop", "{name}");
            let tampered = token.replacen('.', ".eyJ", 1);
            assert!(verify(&tampered, &rules(), keys, NOW).is_err(), "{name}");
            let (message, _) = token.rsplit_once('.').unwrap();
            for signature in [
                "",
                "AA",
                &URL_SAFE_NO_PAD.encode([0; 64]),
                &URL_SAFE_NO_PAD.encode([0; 256]),
            ] {
                let forged = format!("{message}.{signature}");
                assert_eq!(
                    verify(&forged, &rules(), keys, NOW),
                    Err(BadCredential::Signature),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    let claims = URL_SAFE_NO_PAD.encode(good().to_string());
    for name in [
        "none", "None", "NONE", "nOnE", "", "HS1", "hs256", "ES256K", "ES512", "RS1", "dir",
    ] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}"}}"#));
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{claims}.{signature}");
            assert_eq!(
                verify(&token, &rules(), &shared(), NOW),
                Err(BadCredential::Algorithm),
                "{name}"
            );
            assert_eq!(peek(&token), Err(BadCredential::Algorithm));
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // The attack: sign with HMAC, and for a secret take the text of the public key.
    let public = ISSUER.public_keys();
    let der = ISSUER.rsa.public_key().as_der().unwrap();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let from_pem = KeySet::parse(pem.as_bytes(), 1 << 20).unwrap();
    for secret in [
        pem.as_bytes(),
        der.as_ref(),
        ISSUER.document().to_string().as_bytes(),
    ] {
        for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"rsa"}"#] {
            let message = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(header),
                URL_SAFE_NO_PAD.encode(good().to_string())
            );
            let mac = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, secret),
                message.as_bytes(),
            );
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac));
            for keys in [&public, &from_pem] {
                assert_eq!(
                    verify(&token, &rules(), keys, NOW),
                    Err(BadCredential::UnknownKey)
                );
                let pinned = TokenRules {
                    algorithms: vec![Algorithm::Rs256],
                    ..rules()
                };
                assert_eq!(
                    verify(&token, &pinned, keys, NOW),
                    Err(BadCredential::Algorithm)
                );
            }
        }
    }
}

#[test]
fn only_the_issuers_algorithms_count() {
    let pinned = TokenRules {
        algorithms: vec![Algorithm::Rs256],
        ..rules()
    };
    let claims = good().to_string();
    for name in ["RS384", "PS256", "ES256", "EdDSA"] {
        let token = ISSUER.token(name, &format!(r#"{{"alg":"{name}"}}"#), &claims);
        assert_eq!(
            verify(&token, &pinned, &ISSUER.public_keys(), NOW),
            Err(BadCredential::Algorithm)
        );
    }
    let none = TokenRules {
        algorithms: Vec::new(),
        ..rules()
    };
    let token = ISSUER.token("RS256", r#"{"alg":"RS256"}"#, &claims);
    assert_eq!(
        verify(&token, &none, &ISSUER.public_keys(), NOW),
        Err(BadCredential::Algorithm)
    );
}

#[test]
fn an_ecdsa_signature_of_zeros_is_refused() {
    // CVE-2022-21449: r = s = 0 verified for every message. Neither do the order of the curve and DER verify.
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32)
        .map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let one = [&[0; 31][..], &[1]].concat();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(good().to_string()));
    for (r, s) in [
        (&[0; 32][..], &[0; 32][..]),
        (&[0; 32], &one),
        (&one, &[0; 32]),
        (&order, &order),
        (&one, &order),
    ] {
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode([r, s].concat()));
        assert_eq!(
            verify(&token, &rules(), &ISSUER.public_keys(), NOW),
            Err(BadCredential::Signature)
        );
    }
    let der = format!(
        "{message}.{}",
        URL_SAFE_NO_PAD.encode([0x30, 6, 2, 1, 0, 2, 1, 0])
    );
    assert_eq!(
        verify(&der, &rules(), &ISSUER.public_keys(), NOW),
        Err(BadCredential::Signature)
    );
}

#[test]
fn a_token_cannot_bring_its_key() {
    let stranger = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = stranger.public_key().as_ref();
    let (x, y) = (
        URL_SAFE_NO_PAD.encode(&point[1..33]),
        URL_SAFE_NO_PAD.encode(&point[33..]),
    );
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "p256"});
    for header in [
        json!({"alg": "ES256", "jwk": jwk}),
        json!({"alg": "ES256", "kid": "p256", "jwk": jwk}),
        json!({"alg": "ES256", "jku": "https://evil.example/jwks"}),
        json!({"alg": "ES256", "x5u": "https://evil.example/cert"}),
        json!({"alg": "ES256", "x5c": ["MIIB"]}),
    ] {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(good().to_string()));
        let signature = stranger
            .sign(&SystemRandom::new(), message.as_bytes())
            .unwrap();
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
        assert_eq!(
            verify(&token, &rules(), &ISSUER.public_keys(), NOW),
            Err(BadCredential::Signature)
        );
    }
    // A genuine token may carry them: they are not looked at.
    assert!(headed(r#"{"alg":"HS256","jwk":{},"jku":1,"x5u":null,"x5c":"?"}"#).is_ok());
}

#[test]
fn the_name_of_a_key_chooses_it() {
    let claims = good().to_string();
    let public = ISSUER.public_keys();
    for (id, expected) in [
        ("rsa", Ok(())),
        ("p256", Err(BadCredential::UnknownKey)),
        ("gone", Err(BadCredential::UnknownKey)),
    ] {
        let token = ISSUER.token(
            "RS256",
            &json!({"alg": "RS256", "kid": id}).to_string(),
            &claims,
        );
        assert_eq!(
            verify(&token, &rules(), &public, NOW).map(drop),
            expected,
            "{id}"
        );
    }
    // A key without a name is meant only where none has the name.
    let mut nameless = ISSUER.document();
    nameless["keys"][0].as_object_mut().unwrap().remove("kid");
    let stranger = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let n = URL_SAFE_NO_PAD.encode(
        stranger
            .public_key()
            .modulus()
            .big_endian_without_leading_zero(),
    );
    let named = json!({"kty": "RSA", "kid": "rsa", "n": n, "e": "AQAB"});
    let token = ISSUER.token("RS256", r#"{"alg":"RS256","kid":"rsa"}"#, &claims);
    let verified = |document: &Value| {
        let keys = KeySet::parse(document.to_string().as_bytes(), 1 << 20).unwrap();
        verify(&token, &rules(), &keys, NOW).map(drop)
    };
    assert_eq!(verified(&nameless), Ok(()));
    nameless["keys"].as_array_mut().unwrap().push(named);
    assert_eq!(verified(&nameless), Err(BadCredential::Signature));
    // A secret has no name: whatever the token calls it, it is meant.
    assert!(headed(r#"{"alg":"HS256","kid":"2024-01"}"#).is_ok());
    let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(513));
    assert_eq!(headed(&long), Err(BadCredential::TooLarge));
}

#[test]
fn headers_are_read_strictly() {
    use BadCredential::*;
    for (header, expected) in [
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, Critical),
        (r#"{"alg":"HS256","crit":[]}"#, Critical),
        (r#"{"alg":"HS256","crit":null}"#, Critical),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, Critical),
        (r#"{"alg":"HS256","b64":false}"#, Critical),
        (r#"{"alg":"HS256","b64":"true"}"#, Critical),
        (r#"{"alg":"none","alg":"HS256"}"#, Malformed),
        (r#"{"alg":"HS256","\u0061lg":"HS256"}"#, Malformed),
        (r#"{"alg":"HS256","x":{"y":1,"y":2}}"#, Malformed),
        (r#"{"alg":["HS256"]}"#, Malformed),
        (r#"{"alg":null}"#, Malformed),
        (r#"{"typ":"JWT"}"#, Malformed),
        (r#"{"alg":"HS256","kid":7}"#, Malformed),
        (r#"{"alg":"HS256","kid":["a"]}"#, Malformed),
        (r#"{"alg":"HS256","typ":1}"#, Malformed),
        (r#"{"alg":"HS256","typ":"dpop+jwt"}"#, Malformed),
        (
            r#"{"alg":"HS256","typ":"application/Logout+JWT"}"#,
            Malformed,
        ),
        (r#"{"alg":"HS256","enc":"A256GCM"}"#, Malformed),
        (r#"["HS256"]"#, Malformed),
        (r#""HS256""#, Malformed),
        ("", Malformed),
        (r#"{"alg":"HS256"}{}"#, Malformed),
    ] {
        assert_eq!(headed(header), Err(expected), "{header}");
    }
    for header in [
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","typ":"application/at+jwt"}"#,
        r#"{"alg":"HS256","typ":"jwt","b64":true,"custom":{"a":[1]}}"#,
        "{\n \"alg\" : \"HS256\" }",
    ] {
        assert!(headed(header).is_ok(), "{header}");
    }
}

#[test]
fn only_the_compact_form_is_a_token() {
    let token = ISSUER.token("HS256", r#"{"alg":"HS256"}"#, &good().to_string());
    let parts: Vec<_> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!()
    };
    let flattened =
        json!({"protected": header, "payload": payload, "signature": signature}).to_string();
    for text in [
        "",
        ".",
        "..",
        "...",
        header,
        &format!("{header}.{payload}"),
        &format!("{token}."),
        &format!("{token}.{signature}"),
        &format!(".{token}"),
        &format!("{header}..{signature}"),
        &format!(" {token}"),
        &format!("{token}\n"),
        &format!("{token}="),
        &format!("{header}=.{payload}.{signature}"),
        &format!("{header}.{payload}=.{signature}"),
        &format!("{header}.{payload} .{signature}"),
        &token.replace('.', ","),
        &flattened,
        "ey\u{0}.e.e",
        "é.é.é",
    ] {
        assert_eq!(
            verify(text, &rules(), &shared(), NOW),
            Err(BadCredential::Malformed),
            "{text}"
        );
    }
    // Bits behind the last byte have to be zero, else one signature has many texts. 32 bytes leave two.
    let last = signature.chars().last().unwrap();
    let place = URL_SAFE.find(last).unwrap();
    assert_eq!(place % 4, 0);
    let stray = format!(
        "{}{}",
        &token[..token.len() - 1],
        &URL_SAFE[place + 1..place + 2]
    );
    assert_eq!(
        verify(&stray, &rules(), &shared(), NOW),
        Err(BadCredential::Malformed)
    );
}

const URL_SAFE: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[test]
fn size_and_nesting_are_limited() {
    let mut claims = good();
    claims["x"] = Value::String("x".repeat(16 * 1024));
    assert_eq!(judged(&claims.to_string()), Err(BadCredential::TooLarge));
    let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(judged(&nested(5000)), Err(BadCredential::Malformed));
    assert_eq!(headed(&nested(5000)), Err(BadCredential::Malformed));
    let flood = "{\"a\":".repeat(2000);
    assert_eq!(judged(&flood), Err(BadCredential::Malformed));
}

#[test]
fn payloads_are_read_strictly() {
    for payload in [
        "",
        "null",
        "[]",
        "\"text\"",
        r#"{"iss":"https://id.example","aud":"api","exp":1800000060,"exp":1900000000}"#,
        r#"{"iss":"https://evil.example","iss":"https://id.example","aud":"api","exp":1800000060}"#,
        r#"{"iss":"https://id.example","aud":"api","exp":1800000060,"realm_access":{"roles":[],"roles":["admin"]}}"#,
        r#"{"iss":"https://id.example","aud":"api","exp":1e999}"#,
        r#"{"iss":"https://id.example","aud":"api","exp":NaN}"#,
        r#"{"iss":"https://id.example","aud":"api","exp":Infinity}"#,
        r#"{"iss":"https://id.example","aud":"api","exp":1800000060} "#.trim_end_matches("} "),
    ] {
        assert_eq!(judged(payload), Err(BadCredential::Malformed), "{payload}");
    }
}

#[test]
fn times_have_to_be_numbers_and_to_fit() {
    use BadCredential::*;
    let end = |value| with("exp", value).map(drop);
    for (value, expected) in [
        (json!(null), Err(MissingClaim)),
        (json!("1800000060"), Err(ClaimType)),
        (json!(""), Err(ClaimType)),
        (json!([1_800_000_060]), Err(ClaimType)),
        (json!({"$numberLong": "1800000060"}), Err(ClaimType)),
        (json!(true), Err(ClaimType)),
        (json!(0), Err(Expired)),
        (json!(-1), Err(Expired)),
        (json!(i64::MIN), Err(Expired)),
        (json!(-1e300), Err(Expired)),
        // The leeway is 30 s, and a token ends at `exp` itself.
        (json!(1_799_999_970), Err(Expired)),
        (json!(1_799_999_970.5), Ok(())),
        (json!(1_799_999_971), Ok(())),
        (json!(1.8e9), Ok(())),
        (json!(i64::MAX), Ok(())),
        (json!(u64::MAX), Ok(())),
        (json!(1e300), Ok(())),
    ] {
        assert_eq!(end(value.clone()), expected, "{value}");
    }
    assert_eq!(
        judged(&good().to_string().replace("1800000060", "null")),
        Err(ClaimType)
    );
    for name in ["nbf", "iat"] {
        for (value, expected) in [
            (json!(null), Ok(())),
            (json!("1800000000"), Err(ClaimType)),
            (json!("never"), Err(ClaimType)),
            (json!(false), Err(ClaimType)),
            (json!(1_800_000_030), Ok(())),
            (json!(1_800_000_030.001), Err(NotYet)),
            (json!(1_800_000_031), Err(NotYet)),
            (json!(u64::MAX), Err(NotYet)),
            (json!(1e300), Err(NotYet)),
            (json!(-1e300), Ok(())),
        ] {
            assert_eq!(
                with(name, value.clone()).map(drop),
                expected,
                "{name} {value}"
            );
        }
    }
    let claims = with("exp", json!(1e300)).unwrap();
    assert_eq!(claims.expires, Some(Timestamp::from_millis(i64::MAX)));
}

#[test]
fn a_token_need_not_end_where_that_is_said() {
    let endless = TokenRules {
        expiry_required: false,
        ..rules()
    };
    let token = ISSUER.token(
        "HS256",
        r#"{"alg":"HS256"}"#,
        r#"{"iss":"https://id.example","aud":"api"}"#,
    );
    assert_eq!(
        verify(&token, &rules(), &shared(), NOW),
        Err(BadCredential::MissingClaim)
    );
    assert_eq!(
        verify(&token, &endless, &shared(), NOW).unwrap().expires,
        None
    );
}

#[test]
fn a_clock_at_either_end_of_time_opens_nothing() {
    let token = ISSUER.token("HS256", r#"{"alg":"HS256"}"#, &good().to_string());
    let late = Timestamp::from_millis(i64::MAX);
    assert_eq!(
        verify(&token, &rules(), &shared(), late),
        Err(BadCredential::Expired)
    );
    let mut claims = good();
    claims["iat"] = json!(1_800_000_000);
    let token = ISSUER.token("HS256", r#"{"alg":"HS256"}"#, &claims.to_string());
    let early = Timestamp::from_millis(i64::MIN);
    assert_eq!(
        verify(&token, &rules(), &shared(), early),
        Err(BadCredential::NotYet)
    );
}

#[test]
fn issuer_and_audience_are_compared_exactly() {
    use BadCredential::*;
    for (value, expected) in [
        (json!(null), Err(MissingClaim)),
        (json!("https://id.example/"), Err(Issuer)),
        (json!("https://ID.example"), Err(Issuer)),
        (json!("https://id.example.evil"), Err(Issuer)),
        (json!(""), Err(Issuer)),
        (json!(["https://id.example"]), Err(ClaimType)),
        (json!({"https://id.example": true}), Err(ClaimType)),
        (json!(7), Err(ClaimType)),
    ] {
        assert_eq!(with("iss", value.clone()).map(drop), expected, "{value}");
    }
    for (value, expected) in [
        (json!(null), Err(Audience)),
        (json!("api"), Ok(())),
        (json!(["x", "other-api"]), Ok(())),
        (json!("API"), Err(Audience)),
        (json!("api other-api"), Err(Audience)),
        (json!(""), Err(Audience)),
        (json!([]), Err(Audience)),
        (json!(["x"]), Err(Audience)),
        (json!(["api", 1]), Err(ClaimType)),
        (json!([["api"]]), Err(ClaimType)),
        (json!({"api": "api"}), Err(ClaimType)),
        (json!(true), Err(ClaimType)),
    ] {
        assert_eq!(with("aud", value.clone()).map(drop), expected, "{value}");
    }
    // Without audiences any will do, but not of any type.
    let open = TokenRules {
        audiences: Vec::new(),
        ..rules()
    };
    for (aud, expected) in [
        (json!("x"), Ok(())),
        (json!(1), Err(ClaimType)),
        (json!([1]), Err(ClaimType)),
    ] {
        let mut claims = good();
        claims["aud"] = aud;
        let token = ISSUER.token("HS256", r#"{"alg":"HS256"}"#, &claims.to_string());
        assert_eq!(verify(&token, &open, &shared(), NOW).map(drop), expected);
    }
}

#[test]
fn claims_of_the_wrong_type_are_refused() {
    for (name, value) in [
        ("sub", json!(7)),
        ("sub", json!(["ann"])),
        ("sub", json!("ann\r\nx-admin: 1")),
        ("jti", json!(7)),
        ("jti", json!("a\u{0}b")),
        ("azp", json!(["shop"])),
        ("azp", json!({"a": 1})),
        ("scope", json!(7)),
        ("scope", json!([7])),
        ("scp", json!({"read": true})),
        ("roles", json!(7)),
        ("roles", json!([["admin"]])),
        ("realm_access", json!({"roles": {"admin": true}})),
    ] {
        assert_eq!(
            with(name, value.clone()),
            Err(BadCredential::ClaimType),
            "{name} {value}"
        );
    }
}

#[test]
fn scopes_roles_and_client_are_found() {
    let texts = |names: &[Arc<str>]| {
        names
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    let scopes = |name, value| texts(&with(name, value).unwrap().scopes);
    assert_eq!(scopes("scope", json!("read  write ")), ["read", "write"]);
    assert_eq!(scopes("scope", json!("")), [""; 0]);
    assert_eq!(scopes("scp", json!(["read", "a b"])), ["read", "a b"]);
    let roles = |name, value| texts(&with(name, value).unwrap().roles);
    assert_eq!(roles("roles", json!("data reader")), ["data reader"]);
    assert_eq!(
        roles("realm_access", json!({"roles": ["a", "b"]})),
        ["a", "b"]
    );
    assert_eq!(roles("https://example.com/roles", json!(["c"])), ["c"]);
    assert_eq!(roles("realm_access.roles", json!(["flat"])), ["flat"]);
    assert_eq!(roles("realm_access", json!("text")), [""; 0]);
    let client = |name, value| with(name, value).unwrap().client.to_string();
    assert_eq!(client("client_id", json!("late")), "shop");
    assert_eq!(client("azp", json!(null)), "ann");
    assert_eq!(client("azp", json!("")), "ann");
    let claims = with("custom", json!({"a": [1]})).unwrap();
    assert_eq!(claims.all["custom"], json!({"a": [1]}));
    assert_eq!(with("azp", json!(null)).unwrap().subject, "ann".into());
}

#[test]
fn a_token_without_key_name_costs_four_verifications_at_most() {
    let mut keys: Vec<_> = (0..4)
        .map(|_| EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        .map(|pair| {
            let point = pair.public_key().as_ref();
            let (x, y) = (
                URL_SAFE_NO_PAD.encode(&point[1..33]),
                URL_SAFE_NO_PAD.encode(&point[33..]),
            );
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
        })
        .collect();
    let ours = ISSUER.document()["keys"][1].clone();
    keys.push(ours);
    let token = ISSUER.token("ES256", r#"{"alg":"ES256"}"#, &good().to_string());
    let set = |keys: &[Value]| {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), 1 << 20).unwrap()
    };
    assert_eq!(
        verify(&token, &rules(), &set(&keys), NOW),
        Err(BadCredential::Signature)
    );
    assert!(verify(&token, &rules(), &set(&keys[1..]), NOW).is_ok());
}

#[test]
fn a_peek_tells_whom_to_ask() {
    let token = ISSUER.token(
        "RS256",
        r#"{"alg":"RS256","kid":"rsa"}"#,
        r#"{"iss":"https://id.example"}"#,
    );
    let peeked = peek(&token).unwrap();
    assert_eq!(peeked.algorithm, Algorithm::Rs256);
    assert_eq!(peeked.key_id.as_deref(), Some("rsa"));
    assert_eq!(peeked.issuer.as_deref(), Some("https://id.example"));
    let odd = ISSUER.token(
        "RS256",
        r#"{"alg":"RS256"}"#,
        r#"{"iss":["https://id.example"]}"#,
    );
    assert_eq!(peek(&odd), Err(BadCredential::ClaimType));
    assert!(is_jwt(&token));
    assert!(is_jwt(&ISSUER.token(
        "RS256",
        "{\n\"alg\":\"RS256\"}",
        "{}"
    )));
    assert!(!is_jwt("tg_live_0") && !is_jwt("eyJhbGciOiJSUzI1NiJ9") && !is_jwt("a.b.c"));
}

/// Another implementation's idea of the same standards.
#[test]
fn tokens_of_another_library_verify() {
    use jsonwebtoken::{Algorithm as Name, EncodingKey, Header, encode};
    let pem = |der: &[u8]| {
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der)
        )
    };
    let rsa: aws_lc_rs::encoding::Pkcs8V1Der<'_> = ISSUER.rsa.as_der().unwrap();
    let rsa = EncodingKey::from_rsa_pem(pem(rsa.as_ref()).as_bytes()).unwrap();
    let p256 = EncodingKey::from_ec_der(ISSUER.p256.to_pkcs8v1().unwrap().as_ref());
    let p384 = EncodingKey::from_ec_der(ISSUER.p384.to_pkcs8v1().unwrap().as_ref());
    let ed = EncodingKey::from_ed_der(ISSUER.ed25519.to_pkcs8v1().unwrap().as_ref());
    let secret = EncodingKey::from_secret(SECRET);
    let (public, shared) = (ISSUER.public_keys(), shared());
    for (name, key, keys) in [
        (Name::RS256, &rsa, &public),
        (Name::RS384, &rsa, &public),
        (Name::RS512, &rsa, &public),
        (Name::PS256, &rsa, &public),
        (Name::PS384, &rsa, &public),
        (Name::PS512, &rsa, &public),
        (Name::ES256, &p256, &public),
        (Name::ES384, &p384, &public),
        (Name::EdDSA, &ed, &public),
        (Name::HS256, &secret, &shared),
        (Name::HS384, &secret, &shared),
        (Name::HS512, &secret, &shared),
    ] {
        let token = encode(&Header::new(name), &good(), key).unwrap();
        assert!(verify(&token, &rules(), keys, NOW).is_ok(), "{name:?}");
    }
}

#[test]
fn rules_are_those_of_the_configured_issuer() {
    let expected = rules();
    let config = IssuerConfig {
        issuer: expected.issuer.clone(),
        audiences: expected.audiences.clone(),
        algorithms: expected.algorithms.clone(),
        keys: crate::settings::KeySource::Url("https://id.example/jwks".into()),
        leeway: expected.leeway,
        stale_for: Duration::from_secs(86_400),
        allow_private: false,
        client_claims: expected.client_claims.clone(),
        scope_claims: expected.scope_claims.clone(),
        role_claims: expected.role_claims.clone(),
        ca: None,
        introspection: None,
        place: crate::finding::Place::file("shop.yaml"),
    };
    assert_eq!(TokenRules::from(&config), expected);
}
