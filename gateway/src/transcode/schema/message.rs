//! Messages and their fields as tables.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::EnumId;
use super::names::NameTable;
use super::well_known::WellKnown;
use crate::transcode::profile::Names;
use crate::transcode::wire::{WireType, put_tag};

/// A message of a [`Schema`](super::Schema).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub(super) u32);

/// A field of a message of a [`Schema`](super::Schema).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub(super) u32);

/// A message.
#[derive(Debug)]
pub struct Message {
    /// With its package, as `shop.v1.Order`.
    pub name: Box<str>,
    /// The path of the `.proto` file.
    pub file: Arc<str>,
    /// What the definition says about it.
    pub comment: Option<Box<str>>,
    /// The names of its oneofs; those made up for `optional` are not there.
    pub oneofs: Box<[Box<str>]>,
    /// Made up by the compiler for a map field.
    pub is_map_entry: bool,
    /// `MessageOptions` as serialized.
    pub options: Bytes,
    /// Its JSON form differs from that of other messages.
    pub well_known: Option<WellKnown>,
    /// Extensions stand on the wire in the old form of numbered items.
    pub(crate) is_message_set: bool,
    pub(super) first_field: u32,
    pub(super) field_count: u32,
    /// By both spellings.
    pub(super) names: NameTable,
    pub(super) numbers: Numbers,
}

impl Message {
    /// The place of a field among those of the message.
    #[inline]
    pub(crate) fn place_of(&self, number: u32) -> Option<u32> {
        self.numbers.find(number)
    }
}

/// A field, or an extension of the message it stands in.
#[derive(Debug)]
pub struct Field {
    /// Itself.
    pub id: FieldId,
    /// The message it is a field of.
    pub message: MessageId,
    /// Its place among the fields of the message.
    pub(crate) at: u32,
    /// On the wire.
    pub number: u32,
    /// As in the definition; `[pkg.name]` of an extension.
    pub name: Box<str>,
    /// `lowerCamelCase`, or what the definition gives as `json_name`.
    pub json_name: Box<str>,
    /// What it holds, or each of its elements.
    pub kind: Kind,
    /// How many it holds.
    pub cardinality: Cardinality,
    /// A default that was set can be told from nothing set.
    pub has_presence: bool,
    /// As proto2 has it. Tollgate does not demand it: the service will.
    pub is_required: bool,
    /// Numbers are written in one go.
    pub is_packed: bool,
    /// The oneof it is a member of, an index in [`Message::oneofs`].
    pub oneof: Option<u32>,
    /// Declared outside the message.
    pub is_extension: bool,
    /// Marked as deprecated.
    pub is_deprecated: bool,
    /// What the definition says about it.
    pub comment: Option<Box<str>>,
    /// `FieldOptions` as serialized.
    pub options: Bytes,
    /// Stands on the wire as an item of a message set.
    pub(crate) is_set_item: bool,
    /// Before each value on the wire.
    pub(crate) tag: Tag,
    /// After the last field of a group, before all numbers of a packed field.
    pub(crate) second_tag: Tag,
    /// `"name":` as printed.
    pub(super) json_key: Box<[u8]>,
    pub(super) proto_key: Box<[u8]>,
}

impl Field {
    /// Its name in JSON, escaped, with the colon.
    #[inline]
    pub(crate) fn key(&self, names: Names) -> &[u8] {
        match names {
            Names::Json => &self.json_key,
            Names::Proto => &self.proto_key,
        }
    }

    /// Whether it is called so, in either spelling.
    #[inline]
    pub(crate) fn is_called(&self, name: &str) -> bool {
        *self.json_name == *name || *self.name == *name
    }

    /// The message or group it holds, or each of its elements. Of a map: the message of its entries.
    pub const fn child(&self) -> Option<MessageId> {
        match self.kind {
            Kind::Message(id) | Kind::Group(id) => Some(id),
            _ => None,
        }
    }
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One, or none.
    Singular,
    /// A list.
    Repeated,
    /// A map. The kind of the field is the message of its entries, whose fields 1 and 2 are key and value.
    Map,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are called as in the definition")]
pub enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Group(MessageId),
    Message(MessageId),
    Bytes,
    Uint32,
    Enum(EnumId),
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

impl Kind {
    pub(crate) const fn wire_type(self) -> WireType {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => WireType::Fixed64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => WireType::Fixed32,
            Self::String | Self::Bytes | Self::Message(_) => WireType::Bytes,
            Self::Group(_) => WireType::GroupStart,
            Self::Int64
            | Self::Uint64
            | Self::Int32
            | Self::Bool
            | Self::Uint32
            | Self::Enum(_)
            | Self::Sint32
            | Self::Sint64 => WireType::Varint,
        }
    }

    /// Whether lists of it may stand in one go.
    pub(crate) fn is_packable(self) -> bool {
        !matches!(self.wire_type(), WireType::Bytes | WireType::GroupStart)
    }
}

/// A tag as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    bytes: [u8; 5],
    length: u8,
}

impl Tag {
    pub(super) fn of(number: u32, wire_type: WireType) -> Self {
        let mut written = Vec::with_capacity(5);
        put_tag(&mut written, number, wire_type);
        let mut bytes = [0; 5];
        let mut length = 0;
        for (to, from) in bytes.iter_mut().zip(written) {
            *to = from;
            length += 1;
        }
        Self { bytes, length }
    }

    #[inline]
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        match self.length {
            1 => out.push(self.bytes[0]),
            length => {
                out.extend_from_slice(self.bytes.get(..usize::from(length)).unwrap_or_default());
            }
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", &self.bytes)
    }
}

/// From field numbers to places among the fields of a message.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// By number; one more than the place, 0 where no field is.
    low: Box<[u32]>,
    /// The others, by number.
    high: Box<[(u32, u32)]>,
}

/// Numbers up to here have a slot of their own in any case, higher ones as long as a quarter of the slots is used.
const LOW: u32 = 32;

impl Numbers {
    /// Of number and place.
    pub(super) fn of(mut fields: Vec<(u32, u32)>) -> Self {
        fields.sort_unstable();
        let used = (0u32..).zip(&fields);
        let last = used.filter(|(count, (number, _))| *number <= LOW.max((count + 1) * 4));
        let size = last.map(|(_, (number, _))| *number + 1).last();
        let mut low = vec![0; size.unwrap_or(0) as usize].into_boxed_slice();
        let mut high = Vec::new();
        for (number, place) in fields {
            match low.get_mut(number as usize) {
                Some(slot) => *slot = place + 1,
                None => high.push((number, place)),
            }
        }
        Self {
            low,
            high: high.into_boxed_slice(),
        }
    }

    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<u32> {
        if let Some(slot) = self.low.get(number as usize) {
            return slot.checked_sub(1);
        }
        let found = self
            .high
            .binary_search_by_key(&number, |(number, _)| *number);
        self.high.get(found.ok()?).map(|(_, place)| *place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_near_and_far() {
        let numbers = [1, 2, 5, 31, 33, 100, 1000, 536_870_911];
        let table = Numbers::of(numbers.iter().copied().zip(0..).collect());
        for (number, place) in numbers.iter().zip(0..) {
            assert_eq!(table.find(*number), Some(place));
        }
        for number in [0, 3, 32, 34, 99, 101, 999, u32::MAX] {
            assert_eq!(table.find(number), None, "{number}");
        }
        assert!(table.low.len() <= 34);
        assert_eq!(Numbers::default().find(1), None);
    }
}
