//! One pass over the JSON of a message: members to fields, lists, and who was there before.

use smallvec::SmallVec;

use super::Output;
use crate::transcode::codec_error::{CodecError, Fault, in_field, in_index};
use crate::transcode::json::Cursor;
use crate::transcode::profile::{Profile, Unknown};
use crate::transcode::schema::{
    Cardinality, Field, Kind, Message, MessageId, Schema, Tag, WellKnown,
};

use crate::transcode::wire::{WireType, put_tag, put_varint};

/// How much JSON may be read a second time, in lengths of the whole.
const REREADS: usize = 8;

/// What turns JSON into wire bytes.
#[derive(Debug)]
pub(super) struct Encoder<'s, 'j> {
    pub(super) schema: &'s Schema,
    pub(super) profile: Profile,
    pub(super) json: Cursor<'j>,
    pub(super) out: Output,
    /// Which fields and oneofs of the messages that are open were there: a bit each, message by message.
    seen: SmallVec<[u64; 16]>,
    /// Bytes that may be read again.
    pub(super) rereads: usize,
}

/// Where a value goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// What stands before it; nothing in a packed list.
    pub(super) tag: Option<Tag>,
    /// A default is written as well.
    pub(super) keeps_default: bool,
}

impl Slot {
    /// Of the one value of a field.
    pub(super) const fn of(field: &Field) -> Self {
        Self {
            tag: Some(field.tag),
            keeps_default: field.has_presence,
        }
    }

    /// Of an element, or of a part of a map entry.
    pub(super) const fn kept(field: &Field) -> Self {
        Self {
            tag: Some(field.tag),
            keeps_default: true,
        }
    }

    /// Of an element of a packed list.
    pub(super) const PACKED: Self = Self {
        tag: None,
        keeps_default: true,
    };

    #[inline]
    pub(super) fn put(self, out: &mut Vec<u8>) {
        if let Some(tag) = self.tag {
            tag.put(out);
        }
    }
}

impl<'s, 'j> Encoder<'s, 'j> {
    pub(super) fn new(schema: &'s Schema, profile: Profile, json: &'j [u8]) -> Result<Self, Fault> {
        Ok(Self {
            schema,
            profile,
            json: Cursor::of(json)?,
            // The wire form is the shorter one but for lists of small numbers.
            out: Output::with_capacity(json.len()),
            seen: SmallVec::new(),
            rereads: json.len().saturating_mul(REREADS),
        })
    }

    /// The content of a message of any type.
    pub(super) fn message(&mut self, message: &'s Message) -> Result<(), Fault> {
        match message.well_known {
            None => {
                self.json.open_object()?;
                self.members(message, true, false)
            }
            Some(WellKnown::Any) => self.any(),
            Some(WellKnown::Struct) => self.structure(),
            Some(WellKnown::Value) => self.value(),
            Some(WellKnown::ListValue) => self.list_value(),
            Some(WellKnown::Timestamp) => self.timestamp(),
            Some(WellKnown::Duration) => self.duration(),
            Some(WellKnown::FieldMask) => self.field_mask(),
            Some(WellKnown::Wrapper) => self.wrapper(message),
        }
    }

    /// The members of an object that was opened. In an `Any` whose type was looked up before, `@type` is passed over.
    pub(super) fn members(
        &mut self,
        message: &'s Message,
        mut first: bool,
        passes_type: bool,
    ) -> Result<(), Fault> {
        let fields = self.schema.fields_of(message);
        let base = self.seen.len();
        let bits = fields.len() + message.oneofs.len();
        self.seen.resize(base + bits.div_ceil(64), 0);
        let mut next = 0;
        let mut type_seen = !passes_type;
        while let Some(name) = self.json.member(&mut first)? {
            // Most come in the order of the definition.
            let field = match fields.get(next) {
                Some(field) if *field.json_name == *name => field,
                _ => match self.schema.named_field(message, &name) {
                    Some(field) => field,
                    None if name == "@type" && !type_seen => {
                        type_seen = true;
                        self.json.skip()?;
                        continue;
                    }
                    None => {
                        self.unknown(message, &name)?;
                        continue;
                    }
                },
            };
            next = field.at as usize + 1;
            let written = self.member(fields, field, base);
            written.map_err(|fault| in_field(fault, &name))?;
        }
        self.seen.truncate(base);
        Ok(())
    }

    fn member(&mut self, fields: &[Field], field: &'s Field, base: usize) -> Result<(), Fault> {
        if self.was_seen(base, field.at as usize) {
            return Err(CodecError::fault("is there twice"));
        }
        if self.json.peek() == b'n' && !self.takes_null(field) {
            return self.json.null().map(drop);
        }
        if let Some(oneof) = field.oneof
            && self.was_seen(base, fields.len() + oneof as usize)
        {
            let name = self
                .schema
                .message_of(field.message)
                .oneofs
                .get(oneof as usize);
            let name = name.map_or("", |name| name);
            let what = format!("another member of the oneof `{name}` is there as well");
            return Err(CodecError::fault(what));
        }
        self.field_value(field)
    }

    /// Sets a bit, and tells whether it was set.
    #[inline]
    fn was_seen(&mut self, base: usize, bit: usize) -> bool {
        let Some(word) = self.seen.get_mut(base + bit / 64) else {
            return true;
        };
        let mask = 1 << (bit % 64);
        let was = *word & mask != 0;
        *word |= mask;
        was
    }

    #[cold]
    pub(super) fn unknown(&mut self, message: &Message, name: &str) -> Result<(), Fault> {
        match self.profile.unknown {
            Unknown::Ignore => self.json.skip(),
            Unknown::Refuse => {
                let what = format!("{} has no such field", message.name);
                Err(in_field(CodecError::fault(what), name))
            }
        }
    }

    /// Whether `null` is a value of the field, and not the absence of one.
    pub(super) fn takes_null(&self, field: &Field) -> bool {
        match field.kind {
            _ if field.cardinality != Cardinality::Singular => false,
            kind => self.kind_takes_null(kind),
        }
    }

    pub(super) fn kind_takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(id) => self.schema.message_of(id).well_known == Some(WellKnown::Value),
            Kind::Enum(id) => self.schema.enum_of(id).is_null,
            _ => false,
        }
    }

    /// All that a field holds, with its tags; `null` is nothing.
    pub(super) fn field_value(&mut self, field: &'s Field) -> Result<(), Fault> {
        if self.json.peek() == b'n' && !self.takes_null(field) {
            return self.json.null().map(drop);
        }
        match field.cardinality {
            Cardinality::Singular => self.single(field, Slot::of(field)).map(drop),
            Cardinality::Repeated => self.list(field),
            Cardinality::Map => self.map(field),
        }
    }

    /// One value. False if nothing was written, because an enum does not have it and that is to be ignored.
    #[inline]
    pub(super) fn single(&mut self, field: &'s Field, slot: Slot) -> Result<bool, Fault> {
        match field.kind {
            Kind::Message(id) if field.is_set_item => self.set_item(field.number, id)?,
            Kind::Message(id) => self.sub_message(id, slot)?,
            Kind::Group(id) => {
                slot.put(&mut self.out.bytes);
                self.message(self.schema.message_of(id))?;
                field.second_tag.put(&mut self.out.bytes);
            }
            kind => return self.scalar(kind, slot),
        }
        Ok(true)
    }

    fn sub_message(&mut self, id: MessageId, slot: Slot) -> Result<(), Fault> {
        slot.put(&mut self.out.bytes);
        let opened = self.out.open();
        self.message(self.schema.message_of(id))?;
        self.out.close(opened);
        Ok(())
    }

    /// An extension in a message set: a group of its number and its content.
    fn set_item(&mut self, number: u32, id: MessageId) -> Result<(), Fault> {
        put_tag(&mut self.out.bytes, 1, WireType::GroupStart);
        put_tag(&mut self.out.bytes, 2, WireType::Varint);
        put_varint(&mut self.out.bytes, u64::from(number));
        put_tag(&mut self.out.bytes, 3, WireType::Bytes);
        let opened = self.out.open();
        self.message(self.schema.message_of(id))?;
        self.out.close(opened);
        put_tag(&mut self.out.bytes, 1, WireType::GroupEnd);
        Ok(())
    }

    fn list(&mut self, field: &'s Field) -> Result<(), Fault> {
        self.json.open_list()?;
        if !field.is_packed {
            return self.elements(field, Slot::kept(field));
        }
        let before = self.out.mark();
        field.second_tag.put(&mut self.out.bytes);
        let opened = self.out.open();
        self.elements(field, Slot::PACKED)?;
        if self.out.is_empty_since(opened) {
            self.out.undo(before);
        } else {
            self.out.close(opened);
        }
        Ok(())
    }

    fn elements(&mut self, field: &'s Field, slot: Slot) -> Result<(), Fault> {
        let mut first = true;
        let mut index = 0;
        let takes_null = self.kind_takes_null(field.kind);
        while self.json.element(&mut first)? {
            let written = if !takes_null && self.json.peek() == b'n' {
                Err(CodecError::fault("null in a list"))
            } else {
                self.single(field, slot)
            };
            written.map_err(|fault| in_index(fault, index))?;
            index += 1;
        }
        Ok(())
    }
}
