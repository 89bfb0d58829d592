//! Messages, fields and lists as JSON.

use std::ops::Range;

use smallvec::SmallVec;

use super::index::{Occurrence, index};
use crate::transcode::DEEPEST;
use crate::transcode::codec_error::{CodecError, Fault, in_field, in_index};
use crate::transcode::profile::{Profile, Unset};
use crate::transcode::schema::{Cardinality, Field, Kind, Message, Schema, WellKnown};
use crate::transcode::wire::{Value, WireType, read_fixed32, read_fixed64, read_varint};

/// The most JSON one message may come to. Only a profile that prints what is not set can make much of little: an empty message of two
/// bytes takes all the names of its fields.
const LARGEST: usize = 256 << 20;

/// What turns wire bytes into JSON.
#[derive(Debug)]
pub(super) struct Printer<'s, 'w, 'o> {
    pub(super) schema: &'s Schema,
    pub(super) profile: Profile,
    pub(super) out: &'o mut Vec<u8>,
    /// What is where in the messages that are being printed, the innermost last.
    found: Vec<Occurrence<'w>>,
    depth: u32,
}

impl<'s, 'w, 'o> Printer<'s, 'w, 'o> {
    pub(super) fn new(schema: &'s Schema, profile: &Profile, out: &'o mut Vec<u8>) -> Self {
        Self {
            schema,
            profile: *profile,
            out,
            found: Vec::with_capacity(64),
            depth: 0,
        }
    }

    /// A message of any type, whose bytes may lie in several places.
    pub(super) fn message(&mut self, message: &'s Message, wire: &[&'w [u8]]) -> Result<(), Fault> {
        match message.well_known {
            None => {
                self.out.push(b'{');
                self.members(message, wire, true)?;
                self.out.push(b'}');
                Ok(())
            }
            Some(WellKnown::Any) => self.any(message, wire),
            Some(WellKnown::Struct) => self.structure(message, wire),
            Some(WellKnown::Value) => self.value(message, wire),
            Some(WellKnown::ListValue) => self.list_value(message, wire),
            Some(WellKnown::Timestamp | WellKnown::Duration) => self.time(message, wire),
            Some(WellKnown::FieldMask) => self.field_mask(message, wire),
            Some(WellKnown::Wrapper) => self.wrapper(message, wire),
        }
    }

    /// What stands between the braces.
    pub(super) fn members(
        &mut self,
        message: &'s Message,
        wire: &[&'w [u8]],
        mut is_first: bool,
    ) -> Result<(), Fault> {
        let range = self.look_through(message, wire)?;
        let fields = self.schema.fields_of(message);
        if self.profile.unset == Unset::Omit {
            let mut rest = range.clone();
            while let Some((field, found)) = self.next_field(fields, &mut rest) {
                self.member(field, found, &mut is_first)?;
            }
        } else {
            let mut rest = range.clone();
            for field in fields {
                let found = self.occurrences(field, &mut rest);
                self.member(field, found, &mut is_first)?;
            }
        }
        self.leave(range);
        Ok(())
    }

    /// Finds what is where, one level further down.
    pub(super) fn look_through(
        &mut self,
        message: &Message,
        wire: &[&'w [u8]],
    ) -> Result<Range<usize>, Fault> {
        if self.depth >= DEEPEST {
            return Err(CodecError::fault("nested too deep"));
        }
        self.depth += 1;
        self.look_through_value(message, wire)
    }

    pub(super) fn leave(&mut self, range: Range<usize>) {
        self.leave_value(range);
        self.depth -= 1;
    }

    /// A `Value` is no level of its own: what it holds is.
    pub(super) fn look_through_value(
        &mut self,
        message: &Message,
        wire: &[&'w [u8]],
    ) -> Result<Range<usize>, Fault> {
        if self.out.len() > LARGEST {
            return Err(CodecError::fault("is larger than 256 MiB as JSON"));
        }
        let start = self.found.len();
        index(self.schema, message, wire, &mut self.found)?;
        Ok(start..self.found.len())
    }

    pub(super) fn leave_value(&mut self, range: Range<usize>) {
        self.found.truncate(range.start);
    }

    /// The field that comes next in a range, and where it is.
    #[inline]
    fn next_field(
        &self,
        fields: &'s [Field],
        rest: &mut Range<usize>,
    ) -> Option<(&'s Field, Range<usize>)> {
        let at = self.found.get(rest.clone())?.first()?.at;
        let field = fields.get(at as usize)?;
        Some((field, self.occurrences(field, rest)))
    }

    /// Takes what there is of a field from the front of a range.
    #[inline]
    fn occurrences(&self, field: &Field, rest: &mut Range<usize>) -> Range<usize> {
        let start = rest.start;
        while rest.start < rest.end
            && self
                .found
                .get(rest.start)
                .is_some_and(|found| found.at == field.at)
        {
            rest.start += 1;
        }
        start..rest.start
    }

    #[inline]
    fn member(
        &mut self,
        field: &'s Field,
        found: Range<usize>,
        is_first: &mut bool,
    ) -> Result<(), Fault> {
        if !self.is_set(field, &found) {
            if self.profile.unset != Unset::Omit && self.prints_unset(field) {
                self.key(field, is_first);
                self.unset(field);
            }
            return Ok(());
        }
        self.key(field, is_first);
        let printed = self.content(field, found);
        printed.map_err(|fault| in_field(fault, &field.name))
    }

    #[inline]
    fn key(&mut self, field: &Field, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(field.key(self.profile.names));
    }

    /// A default where none can be told from nothing is nothing.
    #[inline]
    fn is_set(&self, field: &Field, found: &Range<usize>) -> bool {
        let Some(last) = found.end.checked_sub(1).filter(|_| !found.is_empty()) else {
            return false;
        };
        if field.has_presence || field.cardinality != Cardinality::Singular {
            return true;
        }
        match self.found.get(last).map(|found| found.value) {
            Some(Value::Varint(number)) => match field.kind {
                // Only the low half counts.
                Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Enum(_) => number as u32 != 0,
                _ => number != 0,
            },
            Some(Value::Fixed64(bits)) => bits != 0,
            Some(Value::Fixed32(bits)) => bits != 0,
            Some(Value::Bytes(bytes)) => !bytes.is_empty(),
            Some(Value::Group(_)) => true,
            None => false,
        }
    }

    fn prints_unset(&self, field: &Field) -> bool {
        let may_be_printed = !field.is_extension && field.oneof.is_none();
        may_be_printed && (!field.has_presence || self.profile.unset == Unset::All)
    }

    /// The JSON of a field that is not set.
    pub(super) fn unset(&mut self, field: &Field) {
        match field.cardinality {
            Cardinality::Repeated => self.out.extend_from_slice(b"[]"),
            Cardinality::Map => self.out.extend_from_slice(b"{}"),
            Cardinality::Singular if field.has_presence => self.out.extend_from_slice(b"null"),
            Cardinality::Singular => self.default(field.kind),
        }
    }

    /// The value of one field of a message, without its name.
    pub(super) fn only_field(
        &mut self,
        message: &'s Message,
        field: &'s Field,
        wire: &'w [u8],
    ) -> Result<(), Fault> {
        let mut rest = self.look_through(message, &[wire])?;
        let mut of_field = 0..0;
        while let Some((next, found)) = self.next_field(self.schema.fields_of(message), &mut rest) {
            if next.id == field.id {
                of_field = found;
            }
        }
        if !self.is_set(field, &of_field) {
            self.unset(field);
            return Ok(());
        }
        let printed = self.content(field, of_field);
        printed.map_err(|fault| in_field(fault, &field.name))
    }

    /// All that a field holds.
    #[inline]
    pub(super) fn content(&mut self, field: &'s Field, found: Range<usize>) -> Result<(), Fault> {
        match field.cardinality {
            Cardinality::Singular => match field.child() {
                Some(child) => self.sub_message(self.schema.message_of(child), found),
                None => {
                    let last = found.end.wrapping_sub(1);
                    let last = self.found.get(last).map(|found| found.value);
                    last.map_or(Ok(()), |value| self.scalar(field.kind, value))
                }
            },
            Cardinality::Repeated => self.list(field, found),
            Cardinality::Map => self.map(field, found),
        }
    }

    /// A message that stands in several places is what all of them say together.
    fn sub_message(&mut self, message: &'s Message, found: Range<usize>) -> Result<(), Fault> {
        let found = self.found.get(found).unwrap_or_default();
        if let [
            Occurrence {
                value: Value::Bytes(wire) | Value::Group(wire),
                ..
            },
        ] = *found
        {
            return self.message(message, &[wire]);
        }
        let places: SmallVec<[&[u8]; 4]> = found
            .iter()
            .filter_map(|occurrence| content_of(occurrence.value))
            .collect();
        self.message(message, &places)
    }

    fn list(&mut self, field: &'s Field, found: Range<usize>) -> Result<(), Fault> {
        self.out.push(b'[');
        let mut index = 0;
        for at in found {
            let Some(value) = self.found.get(at).map(|found| found.value) else {
                break;
            };
            match value {
                Value::Bytes(packed) if field.kind.is_packable() => {
                    self.packed(field.kind, packed, &mut index)?;
                }
                value => self.element(field.kind, value, &mut index)?,
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn packed(&mut self, kind: Kind, mut rest: &[u8], index: &mut usize) -> Result<(), Fault> {
        while !rest.is_empty() {
            let value = match kind.wire_type() {
                WireType::Fixed64 => Value::Fixed64(read_fixed64(&mut rest)?),
                WireType::Fixed32 => Value::Fixed32(read_fixed32(&mut rest)?),
                _ => Value::Varint(read_varint(&mut rest)?),
            };
            if let (Kind::Enum(id), Value::Varint(number)) = (kind, value) {
                let definition = self.schema.enum_of(id);
                if !definition.is_open && definition.by_number(number as i32).is_none() {
                    continue;
                }
            }
            self.element_scalar(kind, value, index)?;
        }
        Ok(())
    }

    fn element_scalar(
        &mut self,
        kind: Kind,
        value: Value<'_>,
        index: &mut usize,
    ) -> Result<(), Fault> {
        if *index > 0 {
            self.out.push(b',');
        }
        *index += 1;
        self.scalar(kind, value)
    }

    fn element(&mut self, kind: Kind, value: Value<'w>, index: &mut usize) -> Result<(), Fault> {
        if *index > 0 {
            self.out.push(b',');
        }
        let printed = self.single(kind, value);
        printed.map_err(|fault| in_index(fault, *index))?;
        *index += 1;
        Ok(())
    }

    /// One value of any kind.
    pub(super) fn single(&mut self, kind: Kind, value: Value<'w>) -> Result<(), Fault> {
        match (kind, content_of(value)) {
            (Kind::Message(id) | Kind::Group(id), Some(wire)) => {
                self.message(self.schema.message_of(id), &[wire])
            }
            _ => self.scalar(kind, value),
        }
    }

    #[inline]
    pub(super) fn found(&self, range: Range<usize>) -> &[Occurrence<'w>] {
        self.found.get(range).unwrap_or_default()
    }
}

/// The bytes of a message.
pub(super) const fn content_of(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Bytes(wire) | Value::Group(wire) => Some(wire),
        Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => None,
    }
}
