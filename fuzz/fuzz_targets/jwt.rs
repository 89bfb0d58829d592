//! Tokens of any text and of any parts: no panic, and nothing is accepted that nobody could have signed.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use tollgate_policy::credentials::introspection;
use tollgate_policy::credentials::jwks::KeySet;
use tollgate_policy::credentials::jwt::{self, TokenRules};
use tollgate_policy::settings::Algorithm;
use tollgate_policy::time::Timestamp;

/// Public keys whose private halves are not in this file: those of RFC 7515, appendices A.2 and A.3.
static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let document = br#"{"keys":[
        {"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
        {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    KeySet::parse(document, KeySet::MAX_BYTES).expect("the keys are good")
});

static RULES: LazyLock<TokenRules> = LazyLock::new(|| TokenRules {
    issuer: "i".into(),
    audiences: vec!["a".into()],
    algorithms: vec![
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::Es256,
        Algorithm::Hs256,
    ],
    leeway: Duration::from_secs(30),
    client_claims: vec!["azp".into()],
    scope_claims: vec!["scope".into()],
    role_claims: vec!["r.r".into()],
    expiry_required: true,
});

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fuzz_target!(|parts: (&str, &str, &[u8])| {
    let (header, payload, signature) = parts;
    let _ = jwt::peek(header);
    assert!(jwt::verify(header, &RULES, &KEYS, NOW).is_err());
    let token = format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload),
        URL_SAFE_NO_PAD.encode(signature)
    );
    let _ = jwt::peek(&token);
    assert!(jwt::verify(&token, &RULES, &KEYS, NOW).is_err());
    // The same claims without a signature to pass: what counts, counts now and comes from the issuer.
    if let Ok(claims) = introspection::parse(payload.as_bytes(), &RULES, NOW) {
        assert_eq!(claims.issuer, RULES.issuer);
        assert!(
            claims
                .expires
                .is_none_or(|end| end.plus(RULES.leeway) > NOW)
        );
        assert!(
            claims
                .not_before
                .is_none_or(|start| start <= NOW.plus(RULES.leeway))
        );
    }
});
