//! The text of a token that lets a node join: `tgj_<secret>_<fingerprint of the root>`, both in hexadecimal. The fingerprint is for the
//! node: it sends the token to nobody else. Not here: where tokens are kept.

use crate::text::hex;

/// What every token begins with, so that scanners find lost ones.
const PREFIX: &str = "tgj_";
/// Bytes of a token: two underscores, 16 and 32 bytes in hexadecimal.
const LENGTH: usize = PREFIX.len() + 32 + 1 + 64;

/// A token of 128 random bits.
pub(crate) fn text(secret: [u8; 16], fingerprint: &[u8; 32]) -> String {
    format!("{PREFIX}{}_{}", hex(&secret), hex(fingerprint))
}

/// Whether a text has the form of one; others need not be looked up.
pub(crate) fn is_token(text: &str) -> bool {
    text.len() == LENGTH
        && text.starts_with(PREFIX)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
