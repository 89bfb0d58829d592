//! The answer of an issuer that was asked about a token (RFC 7662 section 2.2), judged as strictly as a token is.
//!
//! Two claims may be absent that a token needs: `iss`, because we know whom we asked, and `exp`, because `active` says the same for as
//! long as an answer is kept. Not here: asking, and keeping the answer.

use serde_json::Value;

use super::jwt::TokenRules;
use super::{BadCredential, Claims, claims, json};
use crate::time::Timestamp;

/// The longest answer, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// What the issuer says about a token, if it is active and its claims count at `now`.
///
/// # Errors
/// [`BadCredential::Unknown`] when the issuer says that the token is not active. [`BadCredential::Malformed`],
/// [`BadCredential::TooLarge`], [`BadCredential::MissingClaim`] and [`BadCredential::ClaimType`] mean that the answer is none: the issuer
/// is at fault, not the caller. Else as for a token.
pub fn parse(answer: &[u8], rules: &TokenRules, now: Timestamp) -> Result<Claims, BadCredential> {
    if answer.len() > MAX_ANSWER {
        return Err(BadCredential::TooLarge);
    }
    let members = json::object(answer).ok_or(BadCredential::Malformed)?;
    match members.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Err(BadCredential::Unknown),
        Some(_) => return Err(BadCredential::ClaimType),
        None => return Err(BadCredential::MissingClaim),
    }
    let claims = claims::read(members, rules)?;
    claims::judge(&claims, rules, now)?;
    Ok(claims)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::credentials::jwt::tests::rules;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn parsed(answer: &str) -> Result<Claims, BadCredential> {
        parse(answer.as_bytes(), &rules(), NOW)
    }

    #[test]
    fn an_active_token_has_claims() {
        let claims = parsed(
            r#"{"active":true,"client_id":"shop","sub":"ann","scope":"read write","aud":"api","exp":1800000001}"#,
        )
        .unwrap();
        assert_eq!(
            (&*claims.issuer, &*claims.client, &*claims.subject),
            ("https://id.example", "shop", "ann")
        );
        assert_eq!(claims.scopes, ["read".into(), "write".into()]);
        assert!(parsed(r#"{"active":true,"aud":"api","iss":"https://id.example"}"#).is_ok());
    }

    #[test]
    fn whatever_is_not_clearly_active_is_refused() {
        use BadCredential::*;
        for (answer, expected) in [
            (r#"{"active":false,"aud":"api"}"#, Unknown),
            (r#"{"active":"true","aud":"api"}"#, ClaimType),
            (r#"{"active":1,"aud":"api"}"#, ClaimType),
            (r#"{"active":null,"aud":"api"}"#, ClaimType),
            (r#"{"aud":"api"}"#, MissingClaim),
            ("{}", MissingClaim),
            ("[]", Malformed),
            ("true", Malformed),
            ("", Malformed),
            (r#"{"active":false,"active":true,"aud":"api"}"#, Malformed),
            (r#"{"active":true,"aud":"api"} x"#, Malformed),
            (r#"{"active":true}"#, Audience),
            (r#"{"active":true,"aud":"other"}"#, Audience),
            (
                r#"{"active":true,"aud":"api","iss":"https://evil.example"}"#,
                Issuer,
            ),
            (r#"{"active":true,"aud":"api","exp":1799999000}"#, Expired),
            (
                r#"{"active":true,"aud":"api","exp":"1900000000"}"#,
                ClaimType,
            ),
            (r#"{"active":true,"aud":"api","nbf":1900000000}"#, NotYet),
            (r#"{"active":true,"aud":"api","scope":7}"#, ClaimType),
        ] {
            assert_eq!(parsed(answer), Err(expected), "{answer}");
        }
        let long = format!(
            r#"{{"active":true,"aud":"api","x":"{}"}}"#,
            "x".repeat(MAX_ANSWER)
        );
        assert_eq!(parsed(&long), Err(TooLarge));
    }
}
