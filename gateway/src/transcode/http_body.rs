//! `google.api.HttpBody`: an answer whose bytes are the body as they are.

use super::wire::{Fields, Value};

/// Where the service names no type.
const UNNAMED: &str = "application/octet-stream";

/// Numbers of its fields.
const CONTENT_TYPE: u32 = 1;
const DATA: u32 = 2;

/// What it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HttpBody {
    content_type: String,
    /// The body.
    pub(super) data: Vec<u8>,
}

impl HttpBody {
    /// From a message that is one, or that has one in the field of this number.
    ///
    /// # Errors
    /// It is no message.
    pub(super) fn read(wire: &[u8], field: Option<u32>) -> Result<Self, &'static str> {
        let mut body = Self::default();
        match field {
            None => body.merge(wire)?,
            Some(number) => {
                let mut fields = Fields::of(wire);
                while let Some((found, value)) = fields.next().map_err(|it| it.0)? {
                    // Parts of one message may come apart: they are one.
                    if let (true, Value::Bytes(part)) = (found == number, value) {
                        body.merge(part)?;
                    }
                }
            }
        }
        Ok(body)
    }

    /// For the head.
    pub(super) fn content_type(&self) -> &str {
        let sound = self
            .content_type
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~'));
        match self.content_type.is_empty() || !sound {
            true => UNNAMED,
            false => &self.content_type,
        }
    }

    fn merge(&mut self, wire: &[u8]) -> Result<(), &'static str> {
        let mut fields = Fields::of(wire);
        while let Some((number, value)) = fields.next().map_err(|it| it.0)? {
            match (number, value) {
                (CONTENT_TYPE, Value::Bytes(text)) => {
                    self.content_type = String::from_utf8_lossy(text).into_owned();
                }
                (DATA, Value::Bytes(data)) => self.data = data.to_vec(),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_found_whole_or_in_a_field() {
        let wire = b"\x0a\x08text/csv\x12\x03a,b\x18\x01";
        let body = HttpBody::read(wire, None).unwrap();
        assert_eq!(
            (body.content_type(), &*body.data),
            ("text/csv", &b"a,b"[..])
        );
        let outer = [&[0x2a, u8::try_from(wire.len()).unwrap()], &wire[..]].concat();
        assert_eq!(HttpBody::read(&outer, Some(5)).unwrap(), body);
        assert_eq!(
            HttpBody::read(&outer, Some(6)).unwrap().content_type(),
            UNNAMED
        );
        assert!(HttpBody::read(b"\x0a\x08te", None).is_err());
    }
}
