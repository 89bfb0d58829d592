//! gzip, of single messages and whole bodies: what comes out is bounded, whatever went in.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::frame::FrameError;

/// Below this many bytes compression costs more than it saves: the rest fits the same packet.
pub const WORTH_IT: usize = 1024;

/// What `bytes` decompress to.
///
/// # Errors
/// They are not gzip, or more than `limit` bytes come out.
pub fn decompress(bytes: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(2).min(limit));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(bytes)
        .take(most)
        .read_to_end(&mut out)
        .map_err(|error| FrameError::Compression(error.to_string()))?;
    match out.len() > limit {
        true => Err(FrameError::TooLarge { limit }),
        false => Ok(out),
    }
}

/// `bytes`, compressed.
///
/// # Errors
/// The library's; memory does not fail to be written.
pub fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Whether a list of codings (`accept-encoding`, `grpc-accept-encoding`) holds gzip with a weight above zero.
pub fn accepted(list: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|entry| {
        let mut parts = entry.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"gzip"));
        let refused = parts.any(|part| {
            let weight = part
                .strip_prefix(b"q=")
                .or_else(|| part.strip_prefix(b"Q="));
            weight.is_some_and(|it| {
                it.starts_with(b"0") && it.iter().all(|b| matches!(b, b'0' | b'.'))
            })
        });
        named && !refused
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_out_again() {
        for length in [0, 1, 100_000] {
            let bytes = vec![b'x'; length];
            let compressed = compress(&bytes).unwrap();
            assert_eq!(decompress(&compressed, length).unwrap(), bytes);
        }
        assert!(
            decompress(b"", 10).is_ok_and(|out| out.is_empty()) || decompress(b"", 10).is_err()
        );
    }

    #[test]
    fn a_weight_of_zero_is_no() {
        let table: [(&[u8], bool); 7] = [
            (b"gzip", true),
            (b"br, GZIP;q=0.5", true),
            (b"gzip;q=0", false),
            (b"gzip; q=0.000", false),
            (b"gzip;q=0.001", true),
            (b"identity", false),
            (b"", false),
        ];
        for (list, expected) in table {
            assert_eq!(
                accepted(list),
                expected,
                "{}",
                String::from_utf8_lossy(list)
            );
        }
    }
}
