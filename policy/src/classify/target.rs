//! The path of a call: query cut off, split at raw slashes, each part decoded once.
//!
//! Nothing is copied unless it is percent-encoded. Does not judge dot segments, backslashes or double slashes.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::Unclassified;

/// One segment of a call's path.
#[derive(Debug, Clone)]
pub(super) struct Part<'p> {
    pub(super) text: Cow<'p, str>,
    /// Of the decoded text.
    pub(super) hash: u32,
    /// Where the part begins in the path, for values that span parts.
    pub(super) start: usize,
    /// Where the part ends in the path.
    pub(super) end: usize,
}

/// A call's path taken apart.
#[derive(Debug)]
pub(super) struct Target<'p> {
    pub(super) path: &'p str,
    pub(super) parts: SmallVec<[Part<'p>; 12]>,
    /// Whether anything was percent-encoded.
    pub(super) encoded: bool,
}

impl<'p> Target<'p> {
    /// `None` where the target is no path (`*`, an authority, an absolute form).
    pub(super) fn parse(target: &'p str) -> Result<Option<Self>, Unclassified> {
        let bytes = target.as_bytes();
        let length = memchr::memchr(b'?', bytes).unwrap_or(bytes.len());
        let path = target.get(..length).unwrap_or(target);
        let encoded = memchr::memchr(b'%', path.as_bytes()).is_some();
        if !path.starts_with('/') {
            return if encoded {
                decode(path).map(|_| None)
            } else {
                Ok(None)
            };
        }
        let mut this = Self {
            path,
            parts: SmallVec::new(),
            encoded,
        };
        let mut start = 1;
        for slash in memchr::memchr_iter(b'/', path.as_bytes()).skip(1) {
            this.push(start, slash)?;
            start = slash + 1;
        }
        this.push(start, path.len())?;
        Ok(Some(this))
    }

    fn push(&mut self, start: usize, end: usize) -> Result<(), Unclassified> {
        let raw = self.path.get(start..end).unwrap_or_default();
        let text = if self.encoded {
            decode(raw)?
        } else {
            Cow::Borrowed(raw)
        };
        let hash = hash(text.as_bytes());
        self.parts.push(Part {
            text,
            hash,
            start,
            end,
        });
        Ok(())
    }
}

/// Percent-decodes once.
pub(super) fn decode(raw: &str) -> Result<Cow<'_, str>, Unclassified> {
    let Some(first) = memchr::memchr(b'%', raw.as_bytes()) else {
        return Ok(Cow::Borrowed(raw));
    };
    let (plain, mut rest) = raw.as_bytes().split_at(first);
    let mut decoded = Vec::with_capacity(raw.len());
    decoded.extend_from_slice(plain);
    loop {
        match rest {
            [] => break,
            [b'%', high, low, after @ ..] => {
                decoded.push(hex(*high)? << 4 | hex(*low)?);
                rest = after;
            }
            [b'%', ..] => return Err(Unclassified::BadEncoding),
            [byte, after @ ..] => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| Unclassified::BadEncoding)
}

fn hex(digit: u8) -> Result<u8, Unclassified> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Unclassified::BadEncoding),
    }
}

/// A cheap hash. No caller can hurt by collisions: calls never insert, and the table's probes are bounded when it is built.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x517c_c1b7_2722_0a95;
    let mut state = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        state = (state.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
    }
    let mut last = 0;
    for byte in tail {
        last = last << 8 | u64::from(*byte);
    }
    state = (state.rotate_left(5) ^ last).wrapping_mul(FACTOR);
    // The high half of a product is the well-mixed one.
    u32::try_from(state >> 32).unwrap_or(u32::MAX)
}
