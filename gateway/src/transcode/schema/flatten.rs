//! From resolved fields to the tables that are looked up in.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::enumeration::Enum;
use super::error::SchemaError;
use super::features::Presence;
use super::link::{Draft, DraftField};
use super::message::{Cardinality, Field, FieldId, Kind, Message, MessageId, Numbers, Tag};
use super::names::NameTable;
use super::raw;
use super::well_known::WellKnown;
use crate::transcode::wire::WireType;

/// All messages, and their fields message by message.
pub(super) fn flatten(
    drafts: Vec<Draft<'_>>,
    files: &[raw::File<'_>],
    file_names: &[Arc<str>],
) -> Result<(Vec<Message>, Vec<Field>), SchemaError> {
    let mut messages = Vec::with_capacity(drafts.len());
    let mut fields: Vec<Field> = Vec::new();
    for (draft, id) in drafts.into_iter().zip((0..).map(MessageId)) {
        let first = fields.len();
        let (Ok(first_field), Ok(field_count)) =
            (u32::try_from(first), u32::try_from(draft.fields.len()))
        else {
            return Err(SchemaError::TooLarge("more than four billion fields"));
        };
        let file = file_names.get(draft.file).cloned().unwrap_or_default();
        let is_message_set = draft.raw.options.number(1);
        let is_message_set = is_message_set.map_err(|bad| SchemaError::Malformed {
            file: file.to_string(),
            what: bad.0,
        })?;
        let is_message_set = is_message_set.is_some_and(|value| value != 0);
        for (field, at) in draft.fields.iter().zip(0..) {
            let mut field = field_of(field, id, FieldId(first_field + at), at);
            field.is_set_item = is_message_set && field.cardinality == Cardinality::Singular;
            fields.push(field);
        }
        let own = fields.get(first..).unwrap_or_default();
        check(&draft, own, &file)?;
        let comments = files.get(draft.file).map(|file| &file.comments);
        messages.push(Message {
            well_known: WellKnown::of(&draft.name),
            name: draft.name.into(),
            file,
            comment: comments.and_then(|comments| comments.comment(&draft.path)),
            oneofs: oneofs(draft.raw),
            is_map_entry: draft.is_map_entry,
            options: Bytes::copy_from_slice(draft.raw.options.bytes()),
            is_message_set,
            first_field,
            field_count,
            names: names_of(own),
            numbers: Numbers::of(own.iter().map(|field| (field.number, field.at)).collect()),
        });
    }
    Ok((messages, fields))
}

/// Those that are written in the definition.
fn oneofs(raw: &raw::Message<'_>) -> Box<[Box<str>]> {
    let made_up: HashSet<u64> = raw
        .fields
        .iter()
        .filter(|field| field.proto3_optional)
        .filter_map(|field| field.oneof)
        .collect();
    let written = (0..)
        .zip(&raw.oneofs)
        .filter(|(index, _)| !made_up.contains(index));
    written.map(|(_, oneof)| Box::from(*oneof)).collect()
}

/// JSON names before proto names: where one field is called as another is spelt, JSON means the first.
fn names_of(fields: &[Field]) -> NameTable {
    let json = fields.iter().map(|field| (&*field.json_name, field.at));
    let proto = fields.iter().filter(|field| field.name != field.json_name);
    NameTable::of(json.chain(proto.map(|field| (&*field.name, field.at))))
}

/// What the codec takes for granted.
fn check(draft: &Draft<'_>, fields: &[Field], file: &str) -> Result<(), SchemaError> {
    let invalid = |what| SchemaError::Invalid {
        file: file.to_owned(),
        name: draft.name.clone(),
        what,
    };
    let mut numbers = HashSet::new();
    if !fields.iter().all(|field| numbers.insert(field.number)) {
        return Err(invalid("has two fields of one number"));
    }
    let mut names = HashSet::new();
    if !fields.iter().all(|field| names.insert(&*field.name)) {
        return Err(invalid("has two fields of one name"));
    }
    if WellKnown::of(&draft.name).is_some_and(|known| !known.fits(fields)) {
        return Err(invalid("does not have the fields it is known for"));
    }
    if draft.is_map_entry {
        let find = |number| fields.iter().find(|field| field.number == number);
        let is_plain = |field: &&Field| field.cardinality == Cardinality::Singular;
        let key = find(1).filter(is_plain).filter(|key| {
            !matches!(
                key.kind,
                Kind::Double
                    | Kind::Float
                    | Kind::Bytes
                    | Kind::Enum(_)
                    | Kind::Message(_)
                    | Kind::Group(_)
            )
        });
        if key.is_none() || find(2).filter(is_plain).is_none() {
            return Err(invalid("is no valid entry of a map"));
        }
    }
    Ok(())
}

fn field_of(draft: &DraftField<'_>, message: MessageId, id: FieldId, at: u32) -> Field {
    let raw = draft.raw;
    let (name, json_name) = match &draft.extension {
        Some(full_name) => (format!("[{full_name}]"), format!("[{full_name}]")),
        None => {
            let json_name = raw
                .json_name
                .map_or_else(|| camel_case(raw.name), str::to_owned);
            (raw.name.to_owned(), json_name)
        }
    };
    let wire_type = draft.kind.wire_type();
    let option = |number| raw.options.number(number).ok().flatten();
    Field {
        id,
        message,
        at,
        number: draft.number,
        kind: draft.kind,
        cardinality: draft.cardinality,
        has_presence: draft.has_presence,
        is_required: raw.label == 2 || draft.features.presence == Presence::Required,
        is_packed: draft.is_packed,
        oneof: draft.oneof,
        is_extension: draft.extension.is_some(),
        is_deprecated: option(3).is_some_and(|value| value != 0),
        comment: draft.comment.clone(),
        options: Bytes::copy_from_slice(raw.options.bytes()),
        is_set_item: false,
        tag: Tag::of(draft.number, wire_type),
        second_tag: Tag::of(
            draft.number,
            match wire_type {
                WireType::GroupStart => WireType::GroupEnd,
                _ => WireType::Bytes,
            },
        ),
        json_key: key(&json_name),
        proto_key: key(&name),
        name: name.into(),
        json_name: json_name.into(),
    }
}

/// `"name":`, escaped.
fn key(name: &str) -> Box<[u8]> {
    let mut key = serde_json::Value::from(name).to_string().into_bytes();
    key.push(b':');
    key.into_boxed_slice()
}

/// `book_id` as `bookId`.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut after_underscore = false;
    for letter in name.chars() {
        match letter {
            '_' => after_underscore = true,
            letter if after_underscore => {
                camel.push(letter.to_ascii_uppercase());
                after_underscore = false;
            }
            letter => camel.push(letter),
        }
    }
    camel
}

pub(super) fn no_message() -> Message {
    Message {
        name: "".into(),
        file: Arc::from(""),
        comment: None,
        oneofs: Box::default(),
        is_map_entry: false,
        options: Bytes::new(),
        well_known: None,
        is_message_set: false,
        first_field: 0,
        field_count: 0,
        names: NameTable::default(),
        numbers: Numbers::default(),
    }
}

pub(super) fn no_field() -> Field {
    Field {
        id: FieldId(u32::MAX),
        message: MessageId(u32::MAX),
        at: 0,
        number: 1,
        name: "".into(),
        json_name: "".into(),
        kind: Kind::Bool,
        cardinality: Cardinality::Singular,
        has_presence: false,
        is_required: false,
        is_packed: false,
        oneof: None,
        is_extension: false,
        is_deprecated: false,
        comment: None,
        options: Bytes::new(),
        is_set_item: false,
        tag: Tag::of(1, WireType::Varint),
        second_tag: Tag::of(1, WireType::Bytes),
        json_key: key(""),
        proto_key: key(""),
    }
}

pub(super) fn no_enum() -> Enum {
    Enum::new(String::new(), Arc::from(""), Vec::new(), true, None)
}
