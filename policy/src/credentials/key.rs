//! API keys: their text, and the keyed hash they are stored as.
//!
//! A key reads `tg_<environment>_<secret><checksum>`: the environment is 1 to 16 of `a-z0-9` and begins with a letter, the secret is
//! 128 random bits as 22 base-62 digits, the checksum is the CRC-32 (IEEE) of all before it as 6 base-62 digits. Digits are
//! `0-9A-Za-z`, the most significant first. For secret scanners, with next to no false alarms where the checksum is verified too:
//!
//! ```text
//! \btg_[a-z][a-z0-9]{0,15}_[0-9A-Za-z]{28}\b
//! ```
//!
//! The checksum tells a typo from a key that nobody issued, before anything is looked up. It proves nothing else: anyone can compute
//! it. Not here: where the random bits come from, and who a key belongs to.

use std::fmt;

use aws_lc_rs::hmac;

use super::{BadCredential, Digest};

/// The text of an API key, well formed. Only [`ApiKey::parse`] makes one; whether it was ever issued is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKey<'t> {
    text: &'t str,
    environment: &'t str,
}

impl<'t> ApiKey<'t> {
    /// What every key begins with.
    pub const PREFIX: &'static str = "tg_";

    /// Length of the longest key, in bytes.
    pub const MAX_LENGTH: usize = Self::PREFIX.len() + ENVIRONMENT_LENGTH + 1 + BODY_LENGTH;

    /// Reads a key. Allocates nothing.
    ///
    /// # Errors
    /// [`BadCredential::TooLarge`] when it is longer than any key; [`BadCredential::Malformed`] when it is of another form, or its
    /// checksum does not fit: then it was mistyped or cut.
    pub fn parse(text: &'t str) -> Result<Self, BadCredential> {
        if text.len() > Self::MAX_LENGTH {
            return Err(BadCredential::TooLarge);
        }
        let rest = text.strip_prefix(Self::PREFIX);
        let (environment, body) = rest
            .and_then(|rest| rest.split_once('_'))
            .ok_or(BadCredential::Malformed)?;
        let secret = body.get(..SECRET_LENGTH).and_then(number);
        let checksum = body.get(SECRET_LENGTH..).and_then(number);
        let summed = text.len().checked_sub(CHECKSUM_LENGTH);
        let expected = summed
            .and_then(|length| text.as_bytes().get(..length))
            .map(crc32);
        let genuine = body.len() == BODY_LENGTH
            && is_environment(environment)
            && secret.is_some()
            && checksum.is_some()
            && checksum == expected.map(u128::from);
        if genuine {
            Ok(Self { text, environment })
        } else {
            Err(BadCredential::Malformed)
        }
    }

    /// The whole key. It is a secret.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// The environment it names, such as `live`.
    pub fn environment(&self) -> &'t str {
        self.environment
    }
}

/// Shows that it is a key, and of which environment; not the secret.
impl fmt::Debug for ApiKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}{}_…)", Self::PREFIX, self.environment)
    }
}

/// Whether `text` can stand in a key as its environment.
pub fn is_environment(text: &str) -> bool {
    text.len() <= ENVIRONMENT_LENGTH
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The text of a new key from 128 random bits.
///
/// `environment` has to be one by [`is_environment`]; else the result is no key, and [`ApiKey::parse`] refuses it.
pub fn make_key(environment: &str, random: [u8; 16]) -> String {
    debug_assert!(is_environment(environment), "the environment was checked");
    let mut text = format!("{}{environment}_", ApiKey::PREFIX);
    push_digits(&mut text, u128::from_be_bytes(random), SECRET_LENGTH);
    let checksum = crc32(text.as_bytes());
    push_digits(&mut text, u128::from(checksum), CHECKSUM_LENGTH);
    text
}

/// The installation's secret under which keys are hashed. A copy of the store alone is of no use to a thief.
#[derive(Clone)]
pub struct Pepper(hmac::Key);

impl Pepper {
    /// From 32 random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// The keyed hash of a secret text: HMAC-SHA-256.
    pub fn digest(&self, text: &str) -> Digest {
        let tag = hmac::sign(&self.0, text.as_bytes());
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Digest(digest)
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(***)")
    }
}

const ENVIRONMENT_LENGTH: usize = 16;
/// 62²² is the first power of 62 above 2¹²⁸.
const SECRET_LENGTH: usize = 22;
/// 62⁶ is the first power of 62 above 2³².
const CHECKSUM_LENGTH: usize = 6;
const BODY_LENGTH: usize = SECRET_LENGTH + CHECKSUM_LENGTH;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn push_digits(text: &mut String, mut number: u128, length: usize) {
    let mut digits = [b'0'; SECRET_LENGTH];
    for digit in digits.iter_mut().take(length).rev() {
        let value = usize::try_from(number % 62).unwrap_or(0);
        *digit = DIGITS.get(value).copied().unwrap_or(b'0');
        number /= 62;
    }
    text.extend(digits.iter().take(length).map(|digit| char::from(*digit)));
}

/// What base-62 digits stand for; `None` for another character, and for more than 128 bits.
fn number(digits: &str) -> Option<u128> {
    digits.bytes().try_fold(0_u128, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return None,
        };
        sum.checked_mul(62)?.checked_add(u128::from(value))
    })
}

/// CRC-32 as in Ethernet, zlib and PNG.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |state: u32, byte: &u8| {
        let [low, ..] = state.to_le_bytes();
        let entry = CRC_TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0);
        entry ^ (state >> 8)
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// One entry per byte: a key is summed in a tenth of the time that bit by bit takes.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut state = index as u32;
        let mut bit = 0;
        while bit < 8 {
            state = if state & 1 == 1 {
                (state >> 1) ^ 0xEDB8_8320
            } else {
                state >> 1
            };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[index] = state;
        }
        index += 1;
    }
    table
};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANDOM: [u8; 16] = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";

    #[test]
    fn the_form_of_a_key_does_not_change() {
        // Keys live in the files of others: what was issued once has to be read for ever.
        let key = make_key("live", RANDOM);
        assert_eq!(key, "tg_live_007pSo2b9TNg1cedavCe7z2oAqml");
        assert_eq!(make_key("t", [0xff; 16]).len(), "tg_t_".len() + 28);
        assert!(make_key("t", [0xff; 16]).starts_with("tg_t_7n42DGM5Tflk9n8mt7Fhc7"));
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let text = make_key("live", RANDOM);
        let key = ApiKey::parse(&text).unwrap();
        assert_eq!((key.text(), key.environment()), (&*text, "live"));
        assert_eq!(format!("{key:?}"), "ApiKey(tg_live_…)");
        let longest = make_key("abcdefghijklmnop", RANDOM);
        assert_eq!(longest.len(), ApiKey::MAX_LENGTH);
        assert!(ApiKey::parse(&longest).is_ok());
    }

    #[test]
    fn whatever_is_no_key_is_refused() {
        let good = make_key("live", RANDOM);
        let overflow = {
            let body = "tg_live_zzzzzzzzzzzzzzzzzzzzzz".to_owned();
            let mut text = body.clone();
            push_digits(
                &mut text,
                u128::from(crc32(body.as_bytes())),
                CHECKSUM_LENGTH,
            );
            text
        };
        for text in [
            "",
            "tg_",
            "tg__",
            "tg_live_",
            "tg_live_ä",
            &good[..good.len() - 1],
            &format!("{good}0"),
            &format!(" {good}"),
            &good.replace("live", "test"),
            &good.replace("live", "Live"),
            &good.replace("tg_", "tk_"),
            &good.replace("tg_live_", "tg_1ive_"),
            &good.to_uppercase(),
            &overflow,
            "tg_live_éééééééééééééé",
        ] {
            assert_eq!(ApiKey::parse(text), Err(BadCredential::Malformed), "{text}");
        }
        let long = "tg_live_".to_owned() + &"0".repeat(1_000_000);
        assert_eq!(ApiKey::parse(&long), Err(BadCredential::TooLarge));
    }

    #[test]
    fn a_digest_depends_on_text_and_pepper() {
        let (one, other) = (Pepper::new([1; 32]), Pepper::new([2; 32]));
        assert!(one.digest("a").matches(&one.digest("a")));
        assert!(!one.digest("a").matches(&one.digest("b")));
        assert!(!one.digest("a").matches(&other.digest("a")));
        assert_eq!(format!("{one:?}"), "Pepper(***)");
        // RFC 4868 section 2.7.2.1, case AUTH256-1.
        let known = Pepper::new([0x0b; 32]).digest("Hi There");
        assert_eq!(known.0[..4], [0x19, 0x8a, 0x60, 0x7e]);
    }

    proptest! {
        #[test]
        fn every_random_value_makes_another_key(random: [u8; 16], other: [u8; 16]) {
            let key = make_key("test", random);
            prop_assert!(ApiKey::parse(&key).is_ok());
            prop_assert_eq!(key == make_key("test", other), random == other);
        }

        #[test]
        fn one_wrong_character_is_noticed(random: [u8; 16], place in 0_usize..36, other in 0_usize..62) {
            let mut key = make_key("test", random).into_bytes();
            prop_assume!(key[place] != DIGITS[other]);
            key[place] = DIGITS[other];
            prop_assert!(ApiKey::parse(std::str::from_utf8(&key).unwrap()).is_err());
        }
    }
}
