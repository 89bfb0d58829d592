//! Base64 as ProtoJSON has it: written in the standard alphabet with padding, read in either alphabet with padding or without.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

/// Bits that do not fill a byte are dropped, as protobuf's own libraries do.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const READ_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const READ_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Appends the text of `bytes`.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = out
        .get_mut(start..)
        .and_then(|room| STANDARD.encode_slice(bytes, room).ok());
    out.truncate(start + written.unwrap_or(0));
}

/// Appends the bytes of `text`; false if it is no base64, and nothing is appended.
pub(crate) fn decode(text: &str, out: &mut Vec<u8>) -> bool {
    let is_url = text.bytes().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if is_url { READ_URL } else { READ_STANDARD };
    let start = out.len();
    out.resize(start + text.len().div_ceil(4) * 3, 0);
    let written = out
        .get_mut(start..)
        .and_then(|room| engine.decode_slice(text, room).ok());
    out.truncate(start + written.unwrap_or(0));
    written.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = vec![7];
        decode(text, &mut out).then(|| out.split_off(1))
    }

    /// Must-have: either alphabet of base64, padding optional.
    #[test]
    fn either_alphabet_is_read_with_padding_or_without() {
        for text in ["+/8=", "-_8=", "+/8", "-_8"] {
            assert_eq!(decoded(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decoded(""), Some(vec![]));
        assert_eq!(decoded("-_"), Some(vec![0xfb]));
        for text in ["a", "+_8=", "a b=", "YQ==YQ==", "=", "YQ=", "Y\nQ="] {
            let may_differ = text == "YQ=";
            assert!(decoded(text).is_none() || may_differ, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for length in 0..20u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            let mut text = b"x".to_vec();
            encode(&bytes, &mut text);
            let text = String::from_utf8(text.split_off(1)).unwrap_or_default();
            assert_eq!(decoded(&text), Some(bytes));
        }
    }
}
