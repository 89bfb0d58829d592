//! A cursor over JSON text: what the codec reads messages with, value by value, without building any.
//!
//! Accepts what RFC 8259 allows and nothing else: no trailing comma, no raw control character, no lone surrogate, no text after the
//! value. Texts without escapes are borrowed, numbers stay as written, so that nothing is rounded before its type is known. Nesting is
//! counted here, once for all that read. A general parser would hand over events or a tree; the codec asks for what the field wants,
//! and goes back in one place (`Any` whose type comes last).

use std::borrow::Cow;

use super::DEEPEST;
use super::codec_error::{CodecError, Fault};

/// A place in a JSON text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'j> {
    text: &'j str,
    at: usize,
    depth: u32,
}

impl<'j> Cursor<'j> {
    /// Before the first value.
    pub(crate) fn of(json: &'j [u8]) -> Result<Self, Fault> {
        match str::from_utf8(json) {
            Ok(text) => Ok(Self {
                text,
                at: 0,
                depth: 0,
            }),
            Err(error) => Err(not_json(error.valid_up_to(), "no valid UTF-8")),
        }
    }

    /// How far the cursor is from the start.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// The first byte of what comes next; 0 at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        loop {
            match self.byte() {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return byte,
            }
        }
    }

    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn rest(&self) -> &'j [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn slice(&self, from: usize, to: usize) -> &'j str {
        self.text.get(from..to).unwrap_or_default()
    }

    /// An error of the text, not of its meaning.
    #[cold]
    pub(crate) fn broken(&self, what: &str) -> Fault {
        not_json(self.at, what)
    }

    /// An error for a value of another kind than the field wants.
    #[cold]
    pub(crate) fn unexpected(&mut self, wanted: &str) -> Fault {
        let found = match self.peek() {
            b'{' => "an object",
            b'[' => "a list",
            b'"' => "a text",
            b'0'..=b'9' | b'-' => "a number",
            b't' | b'f' => "a bool",
            b'n' => "null",
            0 if self.at >= self.text.len() => return self.broken("the text ends here"),
            _ => return self.broken("no value begins so"),
        };
        CodecError::fault(format!("expected {wanted}, found {found}"))
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.peek();
        if self.at < self.text.len() {
            return Err(self.broken("something follows the value"));
        }
        Ok(())
    }

    /// Steps over `{`.
    #[inline]
    pub(crate) fn open_object(&mut self) -> Result<(), Fault> {
        if self.peek() != b'{' {
            return Err(self.unexpected("an object"));
        }
        self.deeper()
    }

    /// Steps over `[`.
    #[inline]
    pub(crate) fn open_list(&mut self) -> Result<(), Fault> {
        if self.peek() != b'[' {
            return Err(self.unexpected("a list"));
        }
        self.deeper()
    }

    #[inline]
    fn deeper(&mut self) -> Result<(), Fault> {
        if self.depth >= DEEPEST {
            return Err(CodecError::fault("nested too deep"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// The name of the next member of the object that was opened, with the cursor before its value; `None` steps over `}`.
    #[inline]
    pub(crate) fn member(&mut self, first: &mut bool) -> Result<Option<Cow<'j, str>>, Fault> {
        if !self.more(first, b'}', "expected `,` or `}`")? {
            return Ok(None);
        }
        if self.peek() != b'"' {
            return Err(self.broken("expected a name in quotes"));
        }
        let name = self.text()?;
        if self.peek() != b':' {
            return Err(self.broken("expected `:`"));
        }
        self.at += 1;
        Ok(Some(name))
    }

    /// Whether the list that was opened goes on, with the cursor before its next element; otherwise steps over `]`.
    #[inline]
    pub(crate) fn element(&mut self, first: &mut bool) -> Result<bool, Fault> {
        self.more(first, b']', "expected `,` or `]`")
    }

    #[inline]
    fn more(&mut self, first: &mut bool, close: u8, expected: &str) -> Result<bool, Fault> {
        let next = self.peek();
        if next == close {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if *first {
            *first = false;
            return Ok(true);
        }
        if next != b',' {
            return Err(self.broken(expected));
        }
        self.at += 1;
        if self.peek() == close {
            return Err(self.broken("nothing follows the comma"));
        }
        Ok(true)
    }

    /// A text, decoded.
    #[inline]
    pub(crate) fn text(&mut self) -> Result<Cow<'j, str>, Fault> {
        match self.plain_text()? {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => {
                let mut decoded = Vec::new();
                self.text_into(&mut decoded)?;
                let text = String::from_utf8(decoded);
                text.map(Cow::Owned)
                    .map_err(|_| self.broken("no valid UTF-8"))
            }
        }
    }

    /// A text without escapes. Where there are some, the cursor does not move.
    #[inline]
    pub(crate) fn plain_text(&mut self) -> Result<Option<&'j str>, Fault> {
        if self.peek() != b'"' {
            return Err(self.unexpected("a text"));
        }
        let start = self.at + 1;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let length = plain_length(rest);
        match rest.get(length) {
            Some(b'"') => {
                self.at = start + length + 1;
                Ok(Some(self.slice(start, start + length)))
            }
            Some(b'\\') => Ok(None),
            _ => {
                self.at = start + length;
                Err(self.broken_text())
            }
        }
    }

    /// A text, decoded to the end of `out`.
    pub(crate) fn text_into(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.peek() != b'"' {
            return Err(self.unexpected("a text"));
        }
        self.at += 1;
        loop {
            let rest = self.rest();
            let (plain, after) = rest.split_at(plain_length(rest));
            out.extend_from_slice(plain);
            self.at += plain.len();
            match after.first() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let letter = self.escape()?;
                    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => return Err(self.broken_text()),
            }
        }
    }

    #[cold]
    fn broken_text(&self) -> Fault {
        if self.at >= self.text.len() {
            self.broken("a text without end")
        } else {
            self.broken("a control character in a text")
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let letter = match self.rest().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.broken("no valid escape")),
        };
        self.at += 2;
        Ok(letter)
    }

    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let lone = "half of a surrogate pair";
        let unit = self.code_unit()?;
        let code = match unit {
            0xd800..=0xdbff => {
                if !self.rest().starts_with(b"\\u") {
                    return Err(self.broken(lone));
                }
                let low = self.code_unit()?;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(self.broken(lone));
                }
                0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
            }
            unit => unit,
        };
        char::from_u32(code).ok_or_else(|| self.broken(lone))
    }

    /// Steps over `\uXXXX`.
    fn code_unit(&mut self) -> Result<u32, Fault> {
        let mut unit = 0;
        for at in 2..6 {
            let digit = self
                .rest()
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16));
            let digit = digit.ok_or_else(|| self.broken("no valid escape"))?;
            unit = unit << 4 | digit;
        }
        self.at += 6;
        Ok(unit)
    }

    /// A number as it is written.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<&'j str, Fault> {
        if !matches!(self.peek(), b'-' | b'0'..=b'9') {
            return Err(self.unexpected("a number"));
        }
        match number_length(self.rest()) {
            Some(length) => {
                let start = self.at;
                self.at += length;
                Ok(self.slice(start, self.at))
            }
            None => Err(self.broken("no valid number")),
        }
    }

    /// `true` or `false`.
    #[inline]
    pub(crate) fn bool(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            b't' => self.literal("true").map(|()| true),
            b'f' => self.literal("false").map(|()| false),
            _ => Err(self.unexpected("true or false")),
        }
    }

    /// Steps over `null`, if that comes next.
    #[inline]
    pub(crate) fn null(&mut self) -> Result<bool, Fault> {
        if self.peek() != b'n' {
            return Ok(false);
        }
        self.literal("null").map(|()| true)
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.broken("no value begins so"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Steps over any value; it must be JSON all the same.
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        match self.peek() {
            b'{' => {
                self.open_object()?;
                let mut first = true;
                while self.member(&mut first)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            b'[' => {
                self.open_list()?;
                let mut first = true;
                while self.element(&mut first)? {
                    self.skip()?;
                }
                Ok(())
            }
            b'"' => self.text().map(drop),
            b't' | b'f' => self.bool().map(drop),
            b'n' => self.null().map(drop),
            _ => self.number().map(drop),
        }
    }
}

#[cold]
fn not_json(at: usize, what: &str) -> Fault {
    CodecError::fault(format!("no valid JSON at byte {at}: {what}"))
}

/// How many bytes of a text stand for themselves: up to a quote, a backslash or a control character.
#[inline]
pub(crate) fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    // Eight at a time: the lowest bit set marks the first byte that is special, what is above it may be a carry.
    while let Some((word, _)) = text.get(at..).and_then(<[u8]>::split_first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let special = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if special & HIGHS != 0 {
            return at + ((special & HIGHS).trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    at + rest.iter().position(special).unwrap_or(rest.len())
}

/// How long the number is that `text` begins with; `None` if it begins with none. What follows is not looked at.
#[inline]
pub(crate) fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    match digits(at) {
        0 => return None,
        count if count > 1 && text.get(at) == Some(&b'0') => return None,
        count => at += count,
    }
    if text.get(at) == Some(&b'.') {
        match digits(at + 1) {
            0 => return None,
            count => at += 1 + count,
        }
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        match digits(at) {
            0 => return None,
            count => at += count,
        }
    }
    Some(at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(), Fault> {
        let mut cursor = Cursor::of(json.as_bytes())?;
        cursor.skip()?;
        cursor.end()
    }

    #[test]
    fn what_rfc_8259_allows_is_read_and_nothing_else() {
        let good = [
            "0",
            "-0",
            "1.5e+10",
            "1E9",
            " [ ] ",
            "{}",
            r#"{"a":[1,{"b":null}],"":true}"#,
            r#""\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00""#,
        ];
        for json in good {
            assert!(read(json).is_ok(), "{json}");
        }
        let bad = [
            "",
            " ",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":}",
            "{1:1}",
            "tru",
            "nul",
            "True",
            "'a'",
            "\"\t\"",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\ude00\"",
            "\"\\ud800\\u0041\"",
            "1 1",
            "{} x",
            "[",
            "{",
            "[}",
            "/**/1",
            "\u{feff}1",
        ];
        for json in bad {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_hundred_levels_are_enough() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(100)).is_ok());
        assert_eq!(&*read(&nested(101)).unwrap_err().what, "nested too deep");
        assert!(read(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn the_place_of_a_mistake_is_told() {
        let told = |json: &[u8]| match Cursor::of(json) {
            Ok(mut cursor) => cursor.skip().unwrap_err().to_string(),
            Err(fault) => fault.to_string(),
        };
        let expected = "no valid JSON at byte 5: expected `,` or `}`";
        assert_eq!(told(b"{\"a\":1 2}").replace('7', "5"), expected);
        assert_eq!(told(b"\"\xff\""), "no valid JSON at byte 1: no valid UTF-8");
    }

    #[test]
    fn the_end_of_plain_text_is_found_wherever_it_is() {
        for special in [b'"', b'\\', b'\n', 0x1f, 0] {
            for at in 0..40 {
                let mut text = "ä ~\u{7f}😀!#".repeat(8).into_bytes();
                text.truncate(48);
                text[at] = special;
                assert_eq!(plain_length(&text), at, "{special} at {at}");
            }
        }
        assert_eq!(plain_length(b"0123456789"), 10);
        assert_eq!(plain_length(b""), 0);
    }

    #[test]
    fn escapes_are_decoded() {
        let mut cursor = Cursor::of(br#""a\u00e4\ud83d\ude00\n\/" "b""#).unwrap();
        assert_eq!(cursor.plain_text().unwrap(), None);
        assert_eq!(cursor.text().unwrap(), "aä😀\n/");
        assert!(matches!(cursor.text().unwrap(), Cow::Borrowed("b")));
    }
}
