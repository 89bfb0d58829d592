//! The target: the one path that is classified, forwarded and logged.
//!
//! Refused is whatever a second reader might read differently: dot segments (also encoded, also with spaces behind them), `//`, backslash and NUL (also encoded), bytes
//! that must be encoded, bad escapes. `%2F`, `%25XX` and `;` are noted; whether they may stand is the matched operation's to say.

use crate::denial::Denial;

/// A path that can be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'t> {
    /// Path as sent, beginning with `/`; no query.
    pub path: &'t str,
    /// Query as sent, without `?`.
    pub query: Option<&'t str>,
    /// The path holds `%2F`.
    pub encoded_slash: bool,
    /// The path holds `%25` followed by two hex digits.
    pub encoded_percent: bool,
    /// The path holds `;` or `%3B`.
    pub semicolon: bool,
}

fn refused(text: &'static str) -> Denial {
    Denial::Malformed(text.into())
}

impl<'t> Target<'t> {
    /// Judges an origin-form target.
    ///
    /// # Errors
    /// [`Denial::Malformed`] with what is wrong.
    pub fn parse(raw: &'t str) -> Result<Self, Denial> {
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        if !path.starts_with('/') {
            return Err(refused("the path does not begin with a slash"));
        }
        if query.is_some_and(|query| !query.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(refused(
                "the query holds a byte that must be percent-encoded",
            ));
        }
        let mut target = Self {
            path,
            query,
            encoded_slash: false,
            encoded_percent: false,
            semicolon: false,
        };
        target.scan(path.as_bytes())?;
        Ok(target)
    }

    fn scan(&mut self, path: &[u8]) -> Result<(), Denial> {
        let mut rest = path;
        let mut segment = Dots::Start;
        let mut previous_slash = false;
        while let Some((byte, after)) = rest.split_first() {
            let (decoded, after) = match *byte {
                b'%' => (self.escape(after)?, after.get(2..).unwrap_or_default()),
                b'\\' => return Err(refused("the path holds a backslash")),
                raw if !raw.is_ascii_graphic() || raw == b'#' => {
                    return Err(refused(
                        "the path holds a byte that must be percent-encoded",
                    ));
                }
                raw => (raw, after),
            };
            if *byte == b'/' && previous_slash {
                return Err(refused("the path holds an empty segment (`//`)"));
            }
            previous_slash = *byte == b'/';
            self.semicolon |= decoded == b';';
            segment = segment.step(decoded)?;
            rest = after;
        }
        segment.step(b'/').map(|_| ())
    }

    /// Judges what follows a `%` and gives the byte it stands for.
    fn escape(&mut self, after: &[u8]) -> Result<u8, Denial> {
        let hex = |at: usize| after.get(at).copied().and_then(hex_value);
        let (Some(high), Some(low)) = (hex(0), hex(1)) else {
            return Err(refused("the path holds a `%` without two hex digits"));
        };
        let decoded = high << 4 | low;
        match decoded {
            0 => return Err(refused("the path holds an encoded NUL")),
            b'\\' => return Err(refused("the path holds an encoded backslash")),
            ..b' ' | 0x7f => return Err(refused("the path holds an encoded control character")),
            b'/' => self.encoded_slash = true,
            b'%' => self.encoded_percent |= decodes_to_digits(after.get(2..).unwrap_or_default()),
            _ => {}
        }
        Ok(decoded)
    }
}

/// Whether the next two bytes are hex digits once they are decoded: `%25%32e` is `%2e` to whoever decodes next.
fn decodes_to_digits(mut rest: &[u8]) -> bool {
    (0..2).all(|_| {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => {
                let digits = hex_value(*high).zip(hex_value(*low));
                (digits.map_or(b'%', |(high, low)| high << 4 | low), after)
            }
            [byte, after @ ..] => (*byte, after),
            [] => return false,
        };
        rest = after;
        byte.is_ascii_hexdigit()
    })
}

fn hex_value(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// How much of a segment is dots. An encoded slash ends a segment too: a service may decode it.
#[derive(Clone, Copy)]
enum Dots {
    Start,
    One,
    Two,
    Other,
}

impl Dots {
    fn step(self, decoded: u8) -> Result<Self, Denial> {
        match (self, decoded) {
            // `;` ends the name of a segment for readers that know path parameters (`/..;x/`).
            (Self::One | Self::Two, b'/' | b';') => {
                Err(refused("the path holds a dot segment (`.` or `..`)"))
            }
            // Windows drops spaces at the end of a name: for services there, `..%20` is the parent.
            (Self::One | Self::Two, b' ') => Ok(self),
            (_, b'/') => Ok(Self::Start),
            (Self::Start, b'.') => Ok(Self::One),
            (Self::One, b'.') => Ok(Self::Two),
            _ => Ok(Self::Other),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for path in [
            "",
            "a",
            "*",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2e/b",
            "/a/.%2E/b",
            "/a%2f..%2fb",
            "/..;x/b",
            "/..%20/b",
            "/a/.%20",
            "/%2e%2E%20%20",
            "/a%2f..%20%2fb",
            "//",
            "/a//b",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%00b",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a b",
            "/a\u{7f}",
            "/\u{e9}",
            "/a#b",
            "/a?b c",
        ] {
            assert!(Target::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_rest_passes_as_it_came() {
        for path in [
            "/",
            "/a/b/",
            "/a.b",
            "/...",
            "/a..b",
            "/.a",
            "/..%20a",
            "/%20..",
            "/...%20",
            "/a%20b?c=/../d",
            "/a:b@c",
            "/{x}",
            "/%E9",
        ] {
            let target = Target::parse(path).unwrap();
            assert!(
                !target.encoded_slash && !target.encoded_percent && !target.semicolon,
                "{path}"
            );
        }
    }

    #[test]
    fn what_an_operation_may_allow_is_noted() {
        assert!(Target::parse("/a%2Fb").unwrap().encoded_slash);
        assert!(Target::parse("/a%2541").unwrap().encoded_percent);
        assert!(!Target::parse("/a%25zz").unwrap().encoded_percent);
        for path in ["/%25%32%65", "/%25%32e", "/%252%65", "/%25%41%46"] {
            assert!(Target::parse(path).unwrap().encoded_percent, "{path}");
        }
        for path in ["/%25", "/%252", "/%25%32", "/%25%252", "/%25%7a%7a"] {
            assert!(!Target::parse(path).unwrap().encoded_percent, "{path}");
        }
        assert!(Target::parse("/a;b=c").unwrap().semicolon);
        assert!(Target::parse("/a%3Bb").unwrap().semicolon);
    }
}
