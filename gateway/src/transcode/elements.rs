//! JSON values of a body, one after the other: the elements of one list, or values with white space between (NDJSON).
//!
//! Reads incrementally and holds at most one incomplete element, bounded; finds where elements end and leaves what they say to the
//! codec. A list that is not closed, or text behind it, is an error: a body that was cut off is never taken for a whole one.

use bytes::{Buf, Bytes};

use super::unfit::Unfit;

/// Objects and lists within each other. The codec's own limit is lower; this one keeps the count small.
const DEEPEST: u32 = 1000;

/// Finds elements in pieces of any size.
#[derive(Debug)]
pub struct Elements {
    limit: usize,
    chunk: Bytes,
    element: Vec<u8>,
    place: Place,
    in_list: bool,
    shape: Shape,
    depth: u32,
    escaped: bool,
    in_text: bool,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The first byte that says whether this is a list.
    Start,
    /// The first element of a list, or its end.
    First,
    /// An element of a list, after a comma.
    Next,
    /// A comma, or the end of the list.
    After,
    /// Nothing but white space.
    Closed,
    /// Another value, outside a list.
    Between,
    /// More of an element.
    Inside,
}

/// By what an element ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Its own bracket.
    Nested,
    /// Its quote.
    Text,
    /// Whatever cannot be part of a number or a word.
    Bare,
}

impl Elements {
    /// Elements up to `limit` bytes. `lines`: a list is a value as any other, not the list of all.
    pub fn new(limit: usize, lines: bool) -> Self {
        Self {
            limit,
            chunk: Bytes::new(),
            element: Vec::new(),
            place: if lines { Place::Between } else { Place::Start },
            in_list: false,
            shape: Shape::Bare,
            depth: 0,
            escaped: false,
            in_text: false,
        }
    }

    /// Takes the next piece, once [`Self::take`] has nothing more in the former one.
    pub fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty());
        self.chunk = chunk;
    }

    /// The next whole element; `None`: feed more.
    ///
    /// # Errors
    /// What is not the form of a list of values, or an element over the limit.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, Unfit> {
        loop {
            if self.place == Place::Inside {
                return self.scan();
            }
            let Some(&byte) = self.chunk.first() else {
                return Ok(None);
            };
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                self.chunk.advance(1);
                continue;
            }
            self.place = match (self.place, byte) {
                (Place::Start, b'[') => {
                    self.in_list = true;
                    self.chunk.advance(1);
                    Place::First
                }
                (Place::First | Place::After, b']') => {
                    self.chunk.advance(1);
                    Place::Closed
                }
                (Place::After, b',') => {
                    self.chunk.advance(1);
                    Place::Next
                }
                (Place::After, _) => return Err(Unfit::whole("expected `,` or `]` in the list")),
                (Place::Closed, _) => return Err(Unfit::whole("text follows the list")),
                (_, b',' | b']' | b'}' | b':') => return Err(Unfit::whole("expected a value")),
                _ => self.begin(byte),
            };
        }
    }

    /// The last element, where nothing but the end of the body says that it is whole.
    ///
    /// # Errors
    /// The body ends inside an element or the list.
    pub fn end(&mut self) -> Result<Option<Vec<u8>>, Unfit> {
        match self.place {
            Place::Start | Place::Between | Place::Closed => Ok(None),
            Place::Inside if !self.in_list && self.shape == Shape::Bare => Ok(Some(self.whole())),
            Place::Inside => Err(Unfit::whole("the body ends inside a value")),
            Place::First | Place::Next | Place::After => {
                Err(Unfit::whole("the body ends before the list does"))
            }
        }
    }

    fn begin(&mut self, byte: u8) -> Place {
        self.shape = match byte {
            b'{' | b'[' => Shape::Nested,
            b'"' => Shape::Text,
            _ => Shape::Bare,
        };
        self.depth = 0;
        self.in_text = false;
        self.escaped = false;
        Place::Inside
    }

    /// Reads on in the element that has begun.
    fn scan(&mut self) -> Result<Option<Vec<u8>>, Unfit> {
        let mut length = 0;
        let mut whole = false;
        for &byte in &self.chunk {
            if self.shape == Shape::Bare
                && matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}')
            {
                whole = true;
                break;
            }
            length += 1;
            if self.in_text {
                match (self.escaped, byte) {
                    (true, _) => self.escaped = false,
                    (false, b'\\') => self.escaped = true,
                    (false, b'"') => self.in_text = false,
                    (false, _) => {}
                }
                whole = !self.in_text && self.shape == Shape::Text;
            } else {
                match byte {
                    b'"' => self.in_text = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                whole = self.shape == Shape::Nested && self.depth == 0;
            }
            if whole {
                break;
            }
        }
        if self.depth > DEEPEST {
            return Err(Unfit::whole("objects and lists are nested too deeply"));
        }
        if self.element.len() + length > self.limit {
            let text = format!("an element is larger than {} bytes", self.limit);
            return Err(Unfit::size(text));
        }
        self.element.extend_from_slice(&self.chunk.split_to(length));
        match whole {
            true => Ok(Some(self.whole())),
            false => Ok(None),
        }
    }

    fn whole(&mut self) -> Vec<u8> {
        self.place = match self.in_list {
            true => Place::After,
            false => Place::Between,
        };
        std::mem::take(&mut self.element)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_has_the_same_elements_whole_and_in_pieces_and_those_another_reader_finds(
            text in "[\\[\\]{}\",:\\\\a1 \n]{0,40}",
            cut in 1_usize..8,
        ) {
            let whole = split(text.as_bytes(), text.len().max(1), false);
            // Which mistake is seen first may depend on how much is there.
            let pieces = split(text.as_bytes(), cut, false);
            prop_assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok());
            if let Ok(serde_json::Value::Array(list)) = serde_json::from_str(&text) {
                let read = |element: &String| serde_json::from_str(element).unwrap();
                let found: Vec<serde_json::Value> = whole.unwrap().iter().map(read).collect();
                prop_assert_eq!(found, list);
            }
        }
    }

    fn split(text: &[u8], cut: usize, lines: bool) -> Result<Vec<String>, String> {
        let mut elements = Elements::new(100, lines);
        let mut found = Vec::new();
        let say = |unfit: Unfit| unfit.to_string();
        for piece in text.chunks(cut) {
            elements.feed(Bytes::copy_from_slice(piece));
            while let Some(element) = elements.take().map_err(say)? {
                found.push(element);
            }
        }
        found.extend(elements.end().map_err(say)?);
        Ok(found
            .into_iter()
            .map(|it| String::from_utf8(it).unwrap())
            .collect())
    }

    #[test]
    fn elements_are_found_however_they_are_cut() {
        let table: [(&str, &[&str]); 9] = [
            ("[]", &[]),
            ("", &[]),
            (
                " [ {\"a\": [1, 2]} , \"x]\\\"\" ,3, null,[4]]\n",
                &["{\"a\": [1, 2]}", "\"x]\\\"\"", "3", "null", "[4]"],
            ),
            (
                "{\"a\":1}\n{\"b\":\"}\"}\n",
                &["{\"a\":1}", "{\"b\":\"}\"}"],
            ),
            ("{\"a\":\n1}{}", &["{\"a\":\n1}", "{}"]),
            ("1 2\n3", &["1", "2", "3"]),
            ("\"a\"\"b\"", &["\"a\"", "\"b\""]),
            ("\n\n{}\n\n", &["{}"]),
            ("true", &["true"]),
        ];
        for (text, expected) in table {
            for cut in 1..=text.len().max(1) {
                assert_eq!(
                    split(text.as_bytes(), cut, false).unwrap(),
                    expected,
                    "{text} by {cut}"
                );
            }
        }
        assert_eq!(split(b"[1]\n[2]", 3, true).unwrap(), ["[1]", "[2]"]);
    }

    #[test]
    fn what_is_no_list_of_values_is_refused_however_it_is_cut() {
        for text in [
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1",
            "[",
            "[1,",
            "[{\"a\":1}",
            "[1]2",
            "[1]]",
            "{\"a\":",
            "\"abc",
            "}",
            "]",
            "[}",
        ] {
            for cut in 1..=text.len() {
                let split = split(text.as_bytes(), cut, false);
                assert!(split.is_err(), "{text} by {cut}: {split:?}");
            }
        }
    }

    #[test]
    fn an_element_is_bounded_and_so_is_its_depth() {
        let long = format!("[\"{}\"]", "x".repeat(200));
        assert!(
            split(long.as_bytes(), 7, false)
                .unwrap_err()
                .contains("100 bytes")
        );
        let mut elements = Elements::new(1 << 20, false);
        elements.feed(Bytes::from(vec![b'['; 5000]));
        assert!(elements.take().unwrap_err().to_string().contains("deep"));
    }
}
