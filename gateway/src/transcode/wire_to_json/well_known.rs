//! The messages whose JSON is not that of a message.

use super::printer::Printer;
use super::scalar::quote;
use crate::transcode::codec_error::{CodecError, Fault, in_field};
use crate::transcode::schema::{Message, WellKnown};
use crate::transcode::time;
use crate::transcode::wire::Value;

impl<'s, 'w> Printer<'s, 'w, '_> {
    pub(super) fn any(&mut self, message: &'s Message, wire: &[&'w [u8]]) -> Result<(), Fault> {
        let found = self.look_through(message, wire)?;
        let (mut url, mut content): (&[u8], &[u8]) = (b"", b"");
        for occurrence in self.found(found.clone()) {
            match (occurrence.at_number(self.schema, message), occurrence.value) {
                (1, Value::Bytes(bytes)) => url = bytes,
                (2, Value::Bytes(bytes)) => content = bytes,
                _ => {}
            }
        }
        if url.is_empty() && content.is_empty() {
            self.out.extend_from_slice(b"{}");
            self.leave(found);
            return Ok(());
        }
        let url = str::from_utf8(url).map_err(|_| unknown_type(""))?;
        let name = url.rsplit_once('/').map(|(_, name)| name);
        let inner = name.and_then(|name| self.schema.message(name));
        let inner = self
            .schema
            .message_of(inner.ok_or_else(|| unknown_type(url))?);
        self.out.extend_from_slice(b"{\"@type\":");
        quote(url, self.out);
        if inner.well_known.is_some() {
            self.out.extend_from_slice(b",\"value\":");
            let printed = self.message(inner, &[content]);
            printed.map_err(|fault| in_field(fault, "value"))?;
        } else {
            self.members(inner, &[content], false)?;
        }
        self.out.push(b'}');
        self.leave(found);
        Ok(())
    }

    pub(super) fn structure(
        &mut self,
        message: &'s Message,
        wire: &[&'w [u8]],
    ) -> Result<(), Fault> {
        let found = self.look_through(message, wire)?;
        match self.schema.numbered_field(message, 1) {
            Some(field) => self.content(field, found.clone())?,
            None => self.out.extend_from_slice(b"{}"),
        }
        self.leave(found);
        Ok(())
    }

    pub(super) fn list_value(
        &mut self,
        message: &'s Message,
        wire: &[&'w [u8]],
    ) -> Result<(), Fault> {
        let found = self.look_through(message, wire)?;
        match self.schema.numbered_field(message, 1) {
            Some(field) => self.content(field, found.clone())?,
            None => self.out.extend_from_slice(b"[]"),
        }
        self.leave(found);
        Ok(())
    }

    /// One of nothing at all is `null` too: JSON has no other word for it.
    pub(super) fn value(&mut self, message: &'s Message, wire: &[&'w [u8]]) -> Result<(), Fault> {
        let found = self.look_through_value(message, wire)?;
        let last = self.found(found.clone()).last().copied();
        let field = last.and_then(|last| {
            let fields = self.schema.fields_of(message);
            fields
                .get(last.at as usize)
                .map(|field| (field, last.value))
        });
        match field {
            None => self.out.extend_from_slice(b"null"),
            Some((_, Value::Fixed64(bits))) if !f64::from_bits(bits).is_finite() => {
                return Err(CodecError::fault("JSON has no such number"));
            }
            Some((field, _)) => self.content(field, found.clone())?,
        }
        self.leave_value(found);
        Ok(())
    }

    pub(super) fn time(&mut self, message: &'s Message, wire: &[&'w [u8]]) -> Result<(), Fault> {
        let found = self.look_through(message, wire)?;
        let (mut seconds, mut nanos) = (0, 0);
        for occurrence in self.found(found.clone()) {
            match (occurrence.at_number(self.schema, message), occurrence.value) {
                (1, Value::Varint(bits)) => seconds = bits.cast_signed(),
                (2, Value::Varint(bits)) => nanos = bits as i32,
                _ => {}
            }
        }
        let is_printed = if message.well_known == Some(WellKnown::Duration) {
            time::print_duration(seconds, nanos, self.out)
        } else {
            time::print_timestamp(seconds, nanos, self.out)
        };
        self.leave(found);
        if is_printed {
            Ok(())
        } else {
            Err(CodecError::fault(
                "out of the range that JSON has a form for",
            ))
        }
    }

    pub(super) fn field_mask(
        &mut self,
        message: &'s Message,
        wire: &[&'w [u8]],
    ) -> Result<(), Fault> {
        let found = self.look_through(message, wire)?;
        self.out.push(b'"');
        let mut is_first = true;
        for at in found.clone() {
            let Some(Value::Bytes(path)) = self.found(at..at + 1).first().map(|found| found.value)
            else {
                continue;
            };
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            if !print_path(path, self.out) {
                return Err(CodecError::fault("has a path that JSON has no form for"));
            }
        }
        self.out.push(b'"');
        self.leave(found);
        Ok(())
    }

    pub(super) fn wrapper(&mut self, message: &'s Message, wire: &[&'w [u8]]) -> Result<(), Fault> {
        let found = self.look_through(message, wire)?;
        match self.schema.numbered_field(message, 1) {
            Some(field) if found.is_empty() => self.default(field.kind),
            Some(field) => self.content(field, found.clone())?,
            None => return Err(CodecError::fault("is no valid wrapper")),
        }
        self.leave(found);
        Ok(())
    }
}

/// `author_name` as `authorName`; false for what would not be read as the same again, as is no name at all.
fn print_path(path: &[u8], out: &mut Vec<u8>) -> bool {
    if path.is_empty() {
        return false;
    }
    let mut after_underscore = false;
    for &byte in path {
        match byte {
            b'_' if !after_underscore => after_underscore = true,
            b'a'..=b'z' if after_underscore => {
                out.push(byte.to_ascii_uppercase());
                after_underscore = false;
            }
            b'a'..=b'z' | b'0'..=b'9' | b'.' if !after_underscore => out.push(byte),
            _ => return false,
        }
    }
    !after_underscore
}

#[cold]
fn unknown_type(url: &str) -> Fault {
    let shown: String = url.chars().take(200).collect();
    let fault = CodecError::fault(format!("the type `{shown}` is not known"));
    in_field(fault, "@type")
}
