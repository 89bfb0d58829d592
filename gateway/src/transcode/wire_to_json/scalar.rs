//! Numbers, texts, bytes and enums as JSON.

use serde::Serialize;

use super::printer::Printer;
use crate::transcode::base64;
use crate::transcode::codec_error::{CodecError, Fault};
use crate::transcode::json::plain_length;
use crate::transcode::profile::{Enums, Wide};
use crate::transcode::schema::{EnumId, Kind};
use crate::transcode::wire::{Value, unzigzag};

impl Printer<'_, '_, '_> {
    /// A value that is no message. What the bits mean is up to the kind: of a narrow number only the low half counts.
    #[inline]
    pub(super) fn scalar(&mut self, kind: Kind, value: Value<'_>) -> Result<(), Fault> {
        match (kind, value) {
            (Kind::String, Value::Bytes(bytes)) => return self.string(bytes),
            (Kind::Bytes, Value::Bytes(bytes)) => {
                self.out.push(b'"');
                base64::encode(bytes, self.out);
                self.out.push(b'"');
            }
            (Kind::Enum(id), Value::Varint(bits)) => self.enumeration(id, bits as i32),
            (Kind::Double, Value::Fixed64(bits)) => self.double(f64::from_bits(bits)),
            (Kind::Float, Value::Fixed32(bits)) => self.float(f32::from_bits(bits)),
            (Kind::Bool, Value::Varint(bits)) => {
                let word: &[u8] = if bits == 0 { b"false" } else { b"true" };
                self.out.extend_from_slice(word);
            }
            (Kind::Int32, Value::Varint(bits)) => print(bits as i32, self.out),
            (Kind::Uint32, Value::Varint(bits)) => print(bits as u32, self.out),
            (Kind::Sint32, Value::Varint(bits)) => {
                print(unzigzag(u64::from(bits as u32)) as i32, self.out);
            }
            (Kind::Fixed32, Value::Fixed32(bits)) => print(bits, self.out),
            (Kind::Sfixed32, Value::Fixed32(bits)) => print(bits.cast_signed(), self.out),
            (Kind::Int64, Value::Varint(bits)) | (Kind::Sfixed64, Value::Fixed64(bits)) => {
                self.wide(bits.cast_signed());
            }
            (Kind::Uint64, Value::Varint(bits)) | (Kind::Fixed64, Value::Fixed64(bits)) => {
                self.wide(bits);
            }
            (Kind::Sint64, Value::Varint(bits)) => self.wide(unzigzag(bits)),
            _ => return Err(CodecError::fault("stands on the wire as another kind")),
        }
        Ok(())
    }

    fn wide(&mut self, number: impl Serialize) {
        match self.profile.wide {
            Wide::Number => print(number, self.out),
            Wide::String => {
                self.out.push(b'"');
                print(number, self.out);
                self.out.push(b'"');
            }
        }
    }

    pub(super) fn double(&mut self, value: f64) {
        if value.is_finite() {
            print(value, self.out);
            self.drop_zero_fraction();
        } else {
            self.not_finite(value.is_nan(), value > 0.0);
        }
    }

    fn float(&mut self, value: f32) {
        if value.is_finite() {
            print(value, self.out);
            self.drop_zero_fraction();
        } else {
            self.not_finite(value.is_nan(), value > 0.0);
        }
    }

    /// `1.0` as `1`.
    fn drop_zero_fraction(&mut self) {
        if self.out.ends_with(b".0") {
            self.out.truncate(self.out.len() - 2);
        }
    }

    fn not_finite(&mut self, is_nan: bool, is_positive: bool) {
        let word: &[u8] = match (is_nan, is_positive) {
            (true, _) => b"\"NaN\"",
            (false, true) => b"\"Infinity\"",
            (false, false) => b"\"-Infinity\"",
        };
        self.out.extend_from_slice(word);
    }

    fn enumeration(&mut self, id: EnumId, number: i32) {
        let definition = self.schema.enum_of(id);
        if definition.is_null {
            self.out.extend_from_slice(b"null");
            return;
        }
        match definition.by_number(number) {
            Some(value) if self.profile.enums == Enums::Name => {
                let name = if self.profile.strip_enum_prefix {
                    value.stripped()
                } else {
                    &value.name
                };
                quote(name, self.out);
            }
            _ => print(number, self.out),
        }
    }

    pub(super) fn string(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        // Short texts are mostly ASCII, and that is seen sooner than whether they are UTF-8.
        if !bytes.is_ascii() && str::from_utf8(bytes).is_err() {
            return Err(CodecError::fault("no valid UTF-8"));
        }
        quote_bytes(bytes, self.out);
        Ok(())
    }

    /// What a field of this kind is when nothing was set.
    pub(super) fn default(&mut self, kind: Kind) {
        match kind {
            Kind::String | Kind::Bytes => self.out.extend_from_slice(b"\"\""),
            Kind::Bool => self.out.extend_from_slice(b"false"),
            Kind::Enum(id) => self.enumeration(id, self.schema.enum_of(id).default_number()),
            Kind::Message(_) | Kind::Group(_) => self.out.extend_from_slice(b"{}"),
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 => {
                self.wide(0);
            }
            _ => self.out.push(b'0'),
        }
    }
}

/// Appends a number: floats with the fewest digits that read as the same again.
#[inline]
fn print(number: impl Serialize, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, &number);
    debug_assert!(written.is_ok(), "a vector takes every number");
}

/// Appends a text in quotes.
pub(super) fn quote(text: &str, out: &mut Vec<u8>) {
    quote_bytes(text.as_bytes(), out);
}

#[inline]
fn quote_bytes(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        escape(byte, out);
        rest = after;
    }
    out.push(b'"');
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            const HEX: [u8; 16] = *b"0123456789abcdef";
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}
