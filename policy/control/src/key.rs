//! API keys: made, and turned into the keyed hash that is kept of them.

use aws_lc_rs::{digest, hmac};
use tollgate_policy::credentials::Digest;

use crate::text::hex;

/// A key of the form `tg_<environment>_<128 random bits><checksum>`.
pub(crate) fn make_key(environment: &str, random: [u8; 16]) -> String {
    let body = format!("tg_{environment}_{}", hex(&random));
    let sum = digest::digest(&digest::SHA256, body.as_bytes());
    let check = hex(sum.as_ref().get(..4).unwrap_or_default());
    format!("{body}{check}")
}

/// The keyed hash of a key.
pub(crate) fn digest_of(pepper: &[u8; 32], key: &str) -> Digest {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pepper), key.as_bytes());
    let mut digest = [0; 32];
    for (byte, from) in digest.iter_mut().zip(tag.as_ref()) {
        *byte = *from;
    }
    Digest(digest)
}
