//! The messages whose JSON is not that of a message.

use super::encoder::{Encoder, Slot};
use super::scalar::double_of;
use crate::transcode::codec_error::{CodecError, Fault, in_field, in_index, in_key};
use crate::transcode::schema::{Message, WellKnown};
use crate::transcode::time;
use crate::transcode::wire::{put_bytes, put_varint};

// Tags of fields that never change; `WellKnown::fits` has seen that the definition has them.
const FIELD_1_BYTES: u8 = 0x0a;
const FIELD_2_BYTES: u8 = 0x12;
const FIELD_1_VARINT: u8 = 0x08;
const FIELD_2_VARINT: u8 = 0x10;
const VALUE_NUMBER: u8 = 0x11;
const VALUE_TEXT: u8 = 0x1a;
const VALUE_BOOL: u8 = 0x20;
const VALUE_STRUCT: u8 = 0x2a;
const VALUE_LIST: u8 = 0x32;

impl<'s> Encoder<'s, '_> {
    pub(super) fn value(&mut self) -> Result<(), Fault> {
        match self.json.peek() {
            b'n' => {
                self.json.null()?;
                self.out.bytes.extend_from_slice(&[FIELD_1_VARINT, 0]);
            }
            b'"' => self.tagged_text(VALUE_TEXT)?,
            b't' | b'f' => {
                let value = self.json.bool()?;
                self.out
                    .bytes
                    .extend_from_slice(&[VALUE_BOOL, u8::from(value)]);
            }
            b'{' => {
                self.out.bytes.push(VALUE_STRUCT);
                let opened = self.out.open();
                self.structure()?;
                self.out.close(opened);
            }
            b'[' => {
                self.out.bytes.push(VALUE_LIST);
                let opened = self.out.open();
                self.list_value()?;
                self.out.close(opened);
            }
            _ => {
                let number = double_of(self.json.number()?)?;
                self.out.bytes.push(VALUE_NUMBER);
                self.out.bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        Ok(())
    }

    fn tagged_text(&mut self, tag: u8) -> Result<(), Fault> {
        self.out.bytes.push(tag);
        if let Some(text) = self.json.plain_text()? {
            put_bytes(&mut self.out.bytes, text.as_bytes());
            return Ok(());
        }
        let opened = self.out.open();
        self.json.text_into(&mut self.out.bytes)?;
        self.out.close(opened);
        Ok(())
    }

    /// Of a name that comes twice both entries are written, and readers take the last: JSON itself does not forbid it.
    pub(super) fn structure(&mut self) -> Result<(), Fault> {
        self.json.open_object()?;
        let mut first = true;
        while let Some(name) = self.json.member(&mut first)? {
            self.out.bytes.push(FIELD_1_BYTES);
            let entry = self.out.open();
            self.out.bytes.push(FIELD_1_BYTES);
            put_bytes(&mut self.out.bytes, name.as_bytes());
            self.out.bytes.push(FIELD_2_BYTES);
            let value = self.out.open();
            self.value().map_err(|fault| in_key(fault, &name))?;
            self.out.close(value);
            self.out.close(entry);
        }
        Ok(())
    }

    pub(super) fn list_value(&mut self) -> Result<(), Fault> {
        self.json.open_list()?;
        let mut first = true;
        let mut index = 0;
        while self.json.element(&mut first)? {
            self.out.bytes.push(FIELD_1_BYTES);
            let value = self.out.open();
            self.value().map_err(|fault| in_index(fault, index))?;
            self.out.close(value);
            index += 1;
        }
        Ok(())
    }

    pub(super) fn timestamp(&mut self) -> Result<(), Fault> {
        let text = self.json.text()?;
        put_timestamp(&text, &mut self.out.bytes)
    }

    pub(super) fn duration(&mut self) -> Result<(), Fault> {
        let text = self.json.text()?;
        put_duration(&text, &mut self.out.bytes)
    }

    pub(super) fn field_mask(&mut self) -> Result<(), Fault> {
        let text = self.json.text()?;
        put_field_mask(&text, false, &mut self.out.bytes)
    }

    pub(super) fn wrapper(&mut self, message: &'s Message) -> Result<(), Fault> {
        match self.schema.numbered_field(message, 1) {
            Some(field) => self.scalar(field.kind, Slot::of(field)).map(drop),
            None => Err(CodecError::fault("is no valid wrapper")),
        }
    }

    /// The type is needed before anything else. Where it does not come first, the object is read twice; what that may come to is
    /// bounded, for within each other such objects would be read again at every level.
    pub(super) fn any(&mut self) -> Result<(), Fault> {
        self.json.open_object()?;
        let start = self.json;
        let mut first = true;
        let mut is_late = false;
        let url = loop {
            match self.json.member(&mut first)? {
                Some(name) if name == "@type" => break self.json.text(),
                Some(_) => self.json.skip()?,
                None if is_late => return Err(CodecError::fault("an Any without @type")),
                None => return Ok(()),
            }
            is_late = true;
        };
        let url = url.map_err(|fault| in_field(fault, "@type"))?;
        if is_late {
            let again = self.json.at() - start.at();
            self.rereads = match self.rereads.checked_sub(again) {
                Some(left) => left,
                None => return Err(CodecError::fault("too many Any whose @type comes last")),
            };
            self.json = start;
            first = true;
        }
        let name = url.rsplit_once('/').map(|(_, name)| name);
        let message = name.and_then(|name| self.schema.message(name));
        let Some(message) = message else {
            let shown: String = url.chars().take(200).collect();
            let fault = CodecError::fault(format!("the type `{shown}` is not known"));
            return Err(in_field(fault, "@type"));
        };
        self.out.bytes.push(FIELD_1_BYTES);
        put_bytes(&mut self.out.bytes, url.as_bytes());
        self.out.bytes.push(FIELD_2_BYTES);
        let before = self.out.mark();
        let opened = self.out.open();
        let message = self.schema.message_of(message);
        match message.well_known {
            None if &*message.name == "google.protobuf.Empty" => {
                self.any_empty(message, first, is_late)?
            }
            None => self.members(message, first, is_late)?,
            Some(_) => self.any_value(message, first, is_late)?,
        }
        if self.out.is_empty_since(opened) {
            // The tag of the value goes as well.
            self.out.undo(before);
            self.out.bytes.pop();
        } else {
            self.out.close(opened);
        }
        Ok(())
    }

    /// The one member `value` of an `Any` that holds such a message.
    fn any_value(
        &mut self,
        message: &'s Message,
        mut first: bool,
        is_late: bool,
    ) -> Result<(), Fault> {
        let (mut value_seen, mut type_seen) = (false, !is_late);
        while let Some(name) = self.json.member(&mut first)? {
            match &*name {
                "@type" if !type_seen => {
                    type_seen = true;
                    self.json.skip()?;
                }
                "value" if !value_seen => {
                    value_seen = true;
                    let is_null =
                        self.json.peek() == b'n' && message.well_known != Some(WellKnown::Value);
                    let written = if is_null {
                        Err(CodecError::fault("null is no value of it"))
                    } else {
                        self.message(message)
                    };
                    written.map_err(|fault| in_field(fault, "value"))?;
                }
                "value" | "@type" => {
                    return Err(in_field(CodecError::fault("is there twice"), &name));
                }
                _ => self.unknown(message, &name)?,
            }
        }
        if !value_seen {
            return Err(CodecError::fault(
                "an Any of this type needs a member `value`",
            ));
        }
        Ok(())
    }

    /// Some write `Empty` with a member `value`, some without.
    fn any_empty(
        &mut self,
        message: &'s Message,
        mut first: bool,
        is_late: bool,
    ) -> Result<(), Fault> {
        let (mut value_seen, mut type_seen) = (false, !is_late);
        while let Some(name) = self.json.member(&mut first)? {
            match &*name {
                "@type" if !type_seen => {
                    type_seen = true;
                    self.json.skip()?;
                }
                "value" if !value_seen => {
                    value_seen = true;
                    self.message(message)
                        .map_err(|fault| in_field(fault, "value"))?;
                }
                _ => self.unknown(message, &name)?,
            }
        }
        Ok(())
    }
}

/// The content of a `Timestamp`.
pub(super) fn put_timestamp(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let time = time::timestamp_of(text);
    let what = "expected a time as 2026-01-31T09:30:00Z, in the years 1 to 9999";
    put_seconds(time.ok_or_else(|| CodecError::fault(what))?, out);
    Ok(())
}

/// The content of a `Duration`.
pub(super) fn put_duration(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let time = time::duration_of(text);
    let what = "expected seconds as 1.5s, of at most ten thousand years";
    put_seconds(time.ok_or_else(|| CodecError::fault(what))?, out);
    Ok(())
}

fn put_seconds((seconds, nanos): (i64, i32), out: &mut Vec<u8>) {
    if seconds != 0 {
        out.push(FIELD_1_VARINT);
        put_varint(out, seconds.cast_unsigned());
    }
    if nanos != 0 {
        out.push(FIELD_2_VARINT);
        put_varint(out, i64::from(nanos).cast_unsigned());
    }
}

/// The content of a `FieldMask`: paths with commas between them. Parameters may have them as the definition does.
pub(super) fn put_field_mask(
    text: &str,
    takes_underscores: bool,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    if text.is_empty() {
        return Ok(());
    }
    let mut snake = Vec::new();
    for path in text.split(',') {
        snake.clear();
        for byte in path.bytes() {
            match byte {
                b'A'..=b'Z' => snake.extend([b'_', byte.to_ascii_lowercase()]),
                b'a'..=b'z' | b'0'..=b'9' | b'.' => snake.push(byte),
                b'_' if takes_underscores => snake.push(byte),
                _ => return Err(CodecError::fault("expected paths as `title,authorName`")),
            }
        }
        if snake.is_empty() {
            return Err(CodecError::fault("has an empty path"));
        }
        out.push(FIELD_1_BYTES);
        put_bytes(out, &snake);
    }
    Ok(())
}
