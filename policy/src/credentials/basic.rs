//! User and password (RFC 7617), and the Argon2id hash a password is kept as (RFC 9106, PHC string form).
//!
//! Verifying costs milliseconds and megabytes on purpose: callers do it off the request threads, a few at a time. Not here: where
//! hashes are kept, and remembering who was verified.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::BadCredential;
use crate::directory::Secret;

/// The longest credentials, in bytes of base64.
pub const MAX_CREDENTIALS: usize = 2048;

/// The longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;

/// Reads what follows `Basic ` in `Authorization`: user name and password.
///
/// # Errors
/// [`BadCredential::TooLarge`], or [`BadCredential::Malformed`] when it is not canonical base64 of UTF-8 with a colon and without control
/// characters.
pub fn parse_basic(text: &str) -> Result<(Arc<str>, Secret), BadCredential> {
    if text.len() > MAX_CREDENTIALS {
        return Err(BadCredential::TooLarge);
    }
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| BadCredential::Malformed)?;
    let decoded = String::from_utf8(bytes).map_err(|_| BadCredential::Malformed)?;
    if decoded.chars().any(char::is_control) {
        return Err(BadCredential::Malformed);
    }
    let (user, password) = decoded.split_once(':').ok_or(BadCredential::Malformed)?;
    Ok((user.into(), Secret::new(password)))
}

/// The hash to keep of a password, from 16 random bytes of salt. `None` for an empty password and for one above [`MAX_PASSWORD`].
pub fn hash_password(password: &str, salt: [u8; 16]) -> Option<Secret> {
    if password.is_empty() || password.len() > MAX_PASSWORD {
        return None;
    }
    let hash = hasher()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .ok()?;
    Some(Secret::new(hash.to_string()))
}

/// Whether `password` is the one that `phc` was made of.
///
/// # Errors
/// [`BadCredential::Password`] when it is another; [`BadCredential::TooLarge`] when it is longer than any; [`BadCredential::Malformed`]
/// when `phc` is no Argon2id hash, or asks for more than 64 MiB, 10 passes or 4 lanes: then the operator is at fault.
pub fn verify_password(phc: &str, password: &str) -> Result<(), BadCredential> {
    if password.len() > MAX_PASSWORD {
        return Err(BadCredential::TooLarge);
    }
    let hash = PasswordHash::new(phc).map_err(|_| BadCredential::Malformed)?;
    if !is_acceptable(&hash) {
        return Err(BadCredential::Malformed);
    }
    // Parameters are those of the hash.
    let verified = hasher().verify_password(password.as_bytes(), &hash);
    verified.map_err(|_| BadCredential::Password)
}

/// Costs what [`verify_password`] costs and refuses: for a user that is not known, so that time does not tell who is.
///
/// # Errors
/// Always [`BadCredential::Password`], or [`BadCredential::TooLarge`].
pub fn refuse_password(password: &str) -> Result<(), BadCredential> {
    verify_password(NOBODY, password).and(Err(BadCredential::Password))
}

/// What OWASP recommends for servers that verify many: 19 MiB, two passes, one lane. RFC 9106 would have 64 MiB, which a flood of wrong
/// passwords turns into gigabytes.
fn hasher() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

fn is_acceptable(hash: &PasswordHash) -> bool {
    let bounded = |parameters: Params| {
        parameters.m_cost() <= MAX_MEMORY_KIB
            && parameters.t_cost() <= MAX_PASSES
            && parameters.p_cost() <= MAX_LANES
    };
    hash.algorithm.as_str() == "argon2id"
        && hash.version == Some(Version::V0x13.into())
        && hash.salt.is_some()
        && hash.hash.as_ref().is_some_and(|output| output.len() >= 16)
        && Params::try_from(hash).is_ok_and(bounded)
}

const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;

/// A hash of nothing anybody knows, with our parameters.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IG5vYm9keSEhIQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, String), BadCredential> {
        let (user, password) = parse_basic(&STANDARD.encode(text))?;
        Ok((user.to_string(), password.reveal().to_owned()))
    }

    #[test]
    fn credentials_are_read() {
        for (text, user, password) in [
            ("Aladdin:open sesame", "Aladdin", "open sesame"),
            ("ann:with:colons:", "ann", "with:colons:"),
            ("test:123£", "test", "123£"),
            (":", "", ""),
            ("tg_key:", "tg_key", ""),
        ] {
            assert_eq!(parsed(text), Ok((user.to_owned(), password.to_owned())));
        }
    }

    #[test]
    fn odd_credentials_are_refused() {
        for text in ["", "no colon", "a\0b:c", "a:b\n", "a:\u{7f}"] {
            assert_eq!(parsed(text), Err(BadCredential::Malformed), "{text:?}");
        }
        // Not base64; not canonical; without padding; not UTF-8.
        for text in ["%%%", "YTpi ", "YTpiYx==", "YTpiYw", "YTr/"] {
            assert_eq!(parse_basic(text), Err(BadCredential::Malformed), "{text}");
        }
        assert_eq!(
            parsed(&format!("a:{}", "b".repeat(4096))),
            Err(BadCredential::TooLarge)
        );
    }

    #[test]
    fn a_password_is_known_again() {
        let hash = hash_password("open sesame", *b"sixteen bytes ok").unwrap();
        assert!(hash.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_eq!(verify_password(hash.reveal(), "open sesame"), Ok(()));
        for wrong in ["open sesamE", "", "open sesame "] {
            assert_eq!(
                verify_password(hash.reveal(), wrong),
                Err(BadCredential::Password)
            );
        }
        let long = "a".repeat(MAX_PASSWORD + 1);
        assert_eq!(
            verify_password(hash.reveal(), &long),
            Err(BadCredential::TooLarge)
        );
        assert_eq!(hash_password(&long, [0; 16]), None);
        assert_eq!(hash_password("", [0; 16]), None);
    }

    #[test]
    fn nobody_has_no_password() {
        assert!(is_acceptable(&PasswordHash::new(NOBODY).unwrap()));
        assert_eq!(refuse_password("open sesame"), Err(BadCredential::Password));
    }

    #[test]
    fn a_hash_cannot_ask_for_the_whole_machine() {
        let tail = "$c2l4dGVlbiBieXRlcyBvaw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for head in [
            "$argon2id$v=19$m=65537,t=2,p=1",
            "$argon2id$v=19$m=4294967295,t=2,p=1",
            "$argon2id$v=19$m=19456,t=11,p=1",
            "$argon2id$v=19$m=19456,t=2,p=5",
            "$argon2i$v=19$m=19456,t=2,p=1",
            "$argon2d$v=19$m=19456,t=2,p=1",
            "$argon2id$v=16$m=19456,t=2,p=1",
            "$argon2id$m=19456,t=2,p=1",
            "$2b$12",
            "$pbkdf2-sha256$i=1",
        ] {
            let phc = format!("{head}{tail}");
            assert_eq!(
                verify_password(&phc, "x"),
                Err(BadCredential::Malformed),
                "{head}"
            );
        }
        for phc in [
            "",
            "$",
            "plain",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2id$v=19$m=19456,t=2,p=1$c2l4dGVlbiBieXRlcyBvaw",
        ] {
            assert_eq!(
                verify_password(phc, "x"),
                Err(BadCredential::Malformed),
                "{phc}"
            );
        }
        let largest = format!("$argon2id$v=19$m=65536,t=1,p=4{tail}");
        assert_eq!(verify_password(&largest, "x"), Err(BadCredential::Password));
    }
}
