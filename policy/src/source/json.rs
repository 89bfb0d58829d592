//! JSON text (RFC 8259) as a tree, strictly: one value, no comments, no trailing commas, no duplicate keys.

use jiter::{Jiter, JiterError, Peek};

use super::node::number;
use super::{Entry, Limits, Map, Mistake, Node, Value, narrow};

/// The code of a mistake that means "this is not JSON", as against JSON that we do not take.
pub(super) const SYNTAX: &str = "json-syntax";

/// Reads one JSON value.
pub(super) fn parse(text: &str, limits: &Limits) -> Result<Node, Mistake> {
    let mut reader = Reader {
        text: text.as_bytes(),
        jiter: Jiter::new(text.as_bytes()),
        cursor: Cursor {
            index: 0,
            line: 1,
            column: 1,
        },
        limits: *limits,
        nodes: 0,
    };
    let first = reader.jiter.peek().map_err(|error| reader.syntax(&error))?;
    let root = reader.value(first, 0)?;
    reader
        .jiter
        .finish()
        .map_err(|error| reader.syntax(&error))?;
    Ok(root)
}

struct Reader<'t> {
    text: &'t [u8],
    jiter: Jiter<'t>,
    cursor: Cursor,
    limits: Limits,
    nodes: usize,
}

impl Reader<'_> {
    fn value(&mut self, peek: Peek, depth: usize) -> Result<Node, Mistake> {
        let (line, column) = self.cursor.advance(self.text, self.jiter.current_index());
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(Mistake::too_many_nodes(line, column, &self.limits));
        }
        if depth > self.limits.depth {
            return Err(Mistake::too_deep(line, column, &self.limits));
        }
        let value = match peek {
            Peek::Object => self.map(depth)?,
            Peek::Array => self.list(depth)?,
            Peek::String => match self.jiter.known_str() {
                Ok(text) => Value::String(text.into()),
                Err(error) => return Err(self.syntax(&error)),
            },
            Peek::True | Peek::False => match self.jiter.known_bool(peek) {
                Ok(truth) => Value::Bool(truth),
                Err(error) => return Err(self.syntax(&error)),
            },
            Peek::Null => match self.jiter.known_null() {
                Ok(()) => Value::Null,
                Err(error) => return Err(self.syntax(&error)),
            },
            _ => self.number(peek, line, column)?,
        };
        Ok(Node {
            line,
            column,
            value,
        })
    }

    fn number(&mut self, peek: Peek, line: u32, column: u32) -> Result<Value, Mistake> {
        let digits = match self.jiter.known_number_bytes(peek) {
            Ok(digits) => std::str::from_utf8(digits).ok().and_then(number),
            Err(error) => return Err(self.syntax(&error)),
        };
        digits
            .map(Value::Number)
            .ok_or_else(|| Mistake::at(line, column, SYNTAX, "invalid number"))
    }

    fn list(&mut self, depth: usize) -> Result<Value, Mistake> {
        let mut list = Vec::new();
        let mut next = self.jiter.known_array();
        loop {
            match next {
                Ok(Some(peek)) => list.push(self.value(peek, depth + 1)?),
                Ok(None) => return Ok(Value::List(list)),
                Err(error) => return Err(self.syntax(&error)),
            }
            next = self.jiter.array_step();
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Mistake> {
        let mut map = Map::default();
        let mut first = true;
        loop {
            let start = self.next_text(self.jiter.current_index());
            let next = if first {
                self.jiter.known_object()
            } else {
                self.jiter.next_key()
            };
            first = false;
            let key: Box<str> = match next {
                Ok(Some(key)) => key.into(),
                Ok(None) => return Ok(Value::Map(map)),
                Err(error) => return Err(self.syntax(&error)),
            };
            let (line, column) = self.cursor.advance(self.text, start);
            let peek = self.jiter.peek().map_err(|error| self.syntax(&error))?;
            let node = self.value(peek, depth + 1)?;
            let entry = Entry {
                key,
                line,
                column,
                node,
            };
            let key = entry.key.clone();
            map.push(entry)
                .map_err(|first| Mistake::duplicate(line, column, &key, first))?;
        }
    }

    /// Where the next key begins: the reader passes key and colon in one step and does not tell.
    fn next_text(&self, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        let skipped = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'{'));
        from + skipped.count()
    }

    fn syntax(&self, error: &JiterError) -> Mistake {
        let mut cursor = Cursor {
            index: 0,
            line: 1,
            column: 1,
        };
        let (line, column) = cursor.advance(self.text, error.index);
        Mistake::at(
            line,
            column,
            SYNTAX,
            format!("not JSON: {}", error.error_type),
        )
    }
}

/// A position that only moves forward, so that all positions of a text together cost one pass, on one long line too.
struct Cursor {
    index: usize,
    line: u32,
    column: u32,
}

impl Cursor {
    fn advance(&mut self, text: &[u8], index: usize) -> (u32, u32) {
        let index = index.min(text.len());
        let passed = text.get(self.index..index).unwrap_or_default();
        let mut tail = passed;
        if let Some(last) = memchr::memrchr(b'\n', passed) {
            self.line += narrow(memchr::memchr_iter(b'\n', passed).count());
            self.column = 1;
            tail = passed.get(last + 1..).unwrap_or_default();
        }
        // Columns count characters: continuation bytes of UTF-8 are not counted.
        self.column += narrow(tail.iter().filter(|byte| (**byte & 0xC0) != 0x80).count());
        self.index = self.index.max(index);
        (self.line, self.column)
    }
}
