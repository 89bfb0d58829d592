//! A descriptor set compiled to flat tables: what the codec, the binder and the API description look things up in.
//!
//! Made once per definition and shared. Reads proto2, proto3 and editions 2023 and 2024 from the serialized `FileDescriptorSet`;
//! whatever the bytes are, it ends with a schema or an error, in time and memory in proportion to them. Ids are those of one schema:
//! with an id of another one, the answer is an empty message or some other field, but never a panic. Not here: HTTP rules, which are
//! options and stay bytes.

mod comments;
mod enumeration;
mod error;
mod features;
mod flatten;
mod link;
mod message;
mod names;
mod path;
mod raw;
mod service;
mod well_known;

use std::collections::HashMap;

pub use enumeration::{Enum, EnumId, EnumValue};
pub use error::SchemaError;
pub(crate) use message::Tag;
pub use message::{Cardinality, Field, FieldId, Kind, Message, MessageId};
pub use path::{FieldPath, PathError};
pub use service::{Method, Service};
pub use well_known::WellKnown;

/// The largest set that is read: a company's whole tree of definitions has a few MiB.
const LARGEST_SET: usize = 64 << 20;

/// The messages, enums and services of one descriptor set.
#[derive(Debug)]
pub struct Schema {
    messages: Vec<Message>,
    fields: Vec<Field>,
    enums: Vec<Enum>,
    services: Vec<Service>,
    names: HashMap<Box<str>, Named>,
    /// For ids that are of another schema.
    no_message: Message,
    no_field: Field,
    no_enum: Enum,
}

#[derive(Clone, Copy, Debug)]
enum Named {
    Message(MessageId),
    Enum(EnumId),
}

impl Schema {
    /// Reads a serialized `google.protobuf.FileDescriptorSet`. Files that others import must be in it.
    pub fn read(descriptor_set: &[u8]) -> Result<Self, SchemaError> {
        if descriptor_set.len() > LARGEST_SET {
            return Err(SchemaError::TooLarge("more than 64 MiB"));
        }
        let files = raw::files(descriptor_set)?;
        link::link(&files)
    }

    /// The message of a full name, as `shop.v1.Order`.
    #[inline]
    pub fn message(&self, full_name: &str) -> Option<MessageId> {
        match self.names.get(full_name)? {
            Named::Message(id) => Some(*id),
            Named::Enum(_) => None,
        }
    }

    /// The enum of a full name.
    pub fn enumeration(&self, full_name: &str) -> Option<EnumId> {
        match self.names.get(full_name)? {
            Named::Enum(id) => Some(*id),
            Named::Message(_) => None,
        }
    }

    /// All services, in the order of the files.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All messages, those of map entries included.
    pub fn messages(&self) -> impl Iterator<Item = (MessageId, &Message)> {
        (0..).map(MessageId).zip(&self.messages)
    }

    /// What is known of a message.
    #[inline]
    pub fn message_of(&self, id: MessageId) -> &Message {
        self.messages.get(id.0 as usize).unwrap_or(&self.no_message)
    }

    /// The fields of a message in the order of the definition, then the extensions of it that the set has.
    #[inline]
    pub fn fields(&self, id: MessageId) -> &[Field] {
        self.fields_of(self.message_of(id))
    }

    #[inline]
    pub(crate) fn fields_of(&self, message: &Message) -> &[Field] {
        let first = message.first_field as usize;
        let range = first..first + message.field_count as usize;
        self.fields.get(range).unwrap_or_default()
    }

    /// What is known of a field.
    #[inline]
    pub fn field(&self, id: FieldId) -> &Field {
        self.fields.get(id.0 as usize).unwrap_or(&self.no_field)
    }

    /// The field of a message that is called so, in either spelling.
    pub fn field_by_name(&self, id: MessageId, name: &str) -> Option<&Field> {
        self.named_field(self.message_of(id), name)
    }

    #[inline]
    pub(crate) fn named_field(&self, message: &Message, name: &str) -> Option<&Field> {
        let fields = self.fields_of(message);
        let called = |at| {
            fields
                .get(at as usize)
                .is_some_and(|field: &Field| field.is_called(name))
        };
        let at = message.names.find(name, called)?;
        fields.get(at as usize)
    }

    /// The field of a message that has the number.
    pub fn field_by_number(&self, id: MessageId, number: u32) -> Option<&Field> {
        self.numbered_field(self.message_of(id), number)
    }

    #[inline]
    pub(crate) fn numbered_field(&self, message: &Message, number: u32) -> Option<&Field> {
        let at = message.numbers.find(number)?;
        self.fields_of(message).get(at as usize)
    }

    /// Key and value of the entries of a map field.
    pub fn map_entry(&self, field: &Field) -> Option<(&Field, &Field)> {
        if field.cardinality != Cardinality::Map {
            return None;
        }
        let entry = self.message_of(field.child()?);
        Some((
            self.numbered_field(entry, 1)?,
            self.numbered_field(entry, 2)?,
        ))
    }

    /// What is known of an enum.
    #[inline]
    pub fn enum_of(&self, id: EnumId) -> &Enum {
        self.enums.get(id.0 as usize).unwrap_or(&self.no_enum)
    }
}

#[cfg(test)]
mod tests;
