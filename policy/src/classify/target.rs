//! The path of a call: query cut off, split at raw slashes, each part decoded once.
//!
//! Nothing is copied unless it is percent-encoded. Does not judge dot segments, backslashes or double slashes.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::Unclassified;

/// One segment of a call's path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'t> {
    /// Decoded.
    pub(super) text: &'t str,
    /// Of the text.
    pub(super) hash: u32,
    /// Where the part begins in the path, while nothing is encoded: for values that span parts.
    pub(super) start: usize,
}

/// The path of a target, with what had to be decoded.
#[derive(Debug)]
pub(super) struct Path<'p> {
    raw: &'p str,
    /// All segments, decoded; empty while nothing is encoded.
    decoded: Vec<Cow<'p, str>>,
    suspicious: bool,
}

/// A call's path taken apart.
#[derive(Debug)]
pub(super) struct Target<'t, 'p> {
    pub(super) path: &'p str,
    pub(super) parts: SmallVec<[Part<'t>; 12]>,
    /// The parts as they are handed out; empty while nothing is encoded.
    pub(super) decoded: &'t [Cow<'p, str>],
    /// Whether the path holds anything that may have to be refused.
    pub(super) suspicious: bool,
}

impl<'p> Path<'p> {
    /// `None` where the target is no path (`*`, an authority, an absolute form).
    pub(super) fn parse(target: &'p str) -> Result<Option<Self>, Unclassified> {
        let mut this = Self {
            raw: target,
            decoded: Vec::new(),
            suspicious: false,
        };
        // One scan for what most targets have nothing of.
        let special = memchr::memchr3(b'?', b'%', b';', target.as_bytes());
        if special.is_some() {
            let length = memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len());
            this.raw = target.get(..length).unwrap_or(target);
            let encoded = this.raw.contains('%');
            this.suspicious = encoded || this.raw.contains(';');
            if encoded {
                let segments = this.raw.split('/');
                this.decoded = segments.map(decode).collect::<Result<_, _>>()?;
            }
        }
        if !this.raw.starts_with('/') {
            return Ok(None);
        }
        // What stands before the first slash is no segment.
        this.decoded.drain(..this.decoded.len().min(1));
        Ok(Some(this))
    }
}

impl<'t, 'p> Target<'t, 'p> {
    pub(super) fn new(path: &'t Path<'p>) -> Self {
        let mut parts = SmallVec::new();
        for decoded in &path.decoded {
            parts.push(Part {
                text: decoded,
                hash: hash(decoded.as_bytes()),
                start: 0,
            });
        }
        let mut start = 1;
        while path.decoded.is_empty() && start <= path.raw.len() {
            let rest = path.raw.get(start..).unwrap_or_default();
            let (length, hash) = first_segment(rest.as_bytes());
            parts.push(Part {
                text: rest.get(..length).unwrap_or_default(),
                hash,
                start,
            });
            start += length + 1;
        }
        Self {
            path: path.raw,
            parts,
            decoded: &path.decoded,
            suspicious: path.suspicious,
        }
    }

    /// Whether anything was percent-encoded.
    pub(super) fn encoded(&self) -> bool {
        !self.decoded.is_empty()
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
    let (words, tail) = bytes.as_chunks::<8>();
    let whole = words
        .iter()
        .fold(SEED, |state, word| mix(state, u64::from_le_bytes(*word)));
    finished(mix(whole, padded(tail, 0)))
}

/// Length and hash of what stands before the first slash, in one pass.
fn first_segment(bytes: &[u8]) -> (usize, u32) {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const SLASHES: u64 = 0x2f2f_2f2f_2f2f_2f2f;
    let mut state = SEED;
    let mut rest = bytes;
    loop {
        let (word, after) = match rest.split_first_chunk::<8>() {
            Some((word, after)) => (u64::from_le_bytes(*word), after),
            // The path ends as if at a slash.
            None => (padded(rest, b'/'), Default::default()),
        };
        // Its lowest bit is the high bit of the first byte that is a slash.
        let differs = word ^ SLASHES;
        let slash = differs.wrapping_sub(LOW) & !differs & HIGH;
        if slash == 0 {
            state = mix(state, word);
            rest = after;
            continue;
        }
        let count = slash.trailing_zeros() / 8;
        let kept = word & !(u64::MAX << (count * 8));
        let length = bytes.len() - rest.len() + usize::try_from(count).unwrap_or(0);
        return (length, finished(mix(state, kept)));
    }
}

/// Less than eight bytes as one word, the missing ones `filler`.
fn padded(tail: &[u8], filler: u8) -> u64 {
    let mut word = [filler; 8];
    for (to, from) in word.iter_mut().zip(tail) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

const SEED: u64 = 0;

fn mix(state: u64, word: u64) -> u64 {
    (state.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// The high half of a product is the well-mixed one.
fn finished(state: u64) -> u32 {
    u32::try_from(state >> 32).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn splitting_agrees_with_splitting_at_every_slash_and_hashing_each_part() {
        for path in [
            "/",
            "//",
            "/a",
            "/a/",
            "/1234567/12345678/123456789",
            "/12345678",
            "/x/1234567890123456/",
            "/wört/é/-._~0/..//b",
            "/0/.0/0./\u{0}/\u{0}a",
        ] {
            let parsed = Path::parse(path).unwrap().unwrap();
            let target = Target::new(&parsed);
            let parts: Vec<_> = target.parts.iter().map(|p| (p.text, p.hash)).collect();
            let slow: Vec<_> = path
                .split('/')
                .skip(1)
                .map(|p| (p, hash(p.as_bytes())))
                .collect();
            assert_eq!(parts, slow, "{path}");
        }
    }
}
