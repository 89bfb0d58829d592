//! A descriptor set as it was serialized: what `descriptor.proto` says of files, messages, fields, enums and services.
//!
//! Read by hand, because options stay bytes: what nobody here knows, as `google.api.http`, must reach its reader unchanged. Names are
//! borrowed from the set. Not here: what the names refer to (`link`).

use std::borrow::Cow;
use std::collections::HashMap;

use super::comments::Comments;
use super::error::SchemaError;
use crate::transcode::wire::{Fields, Malformed, Value};

/// Messages within messages.
const DEEPEST_NESTING: u32 = 64;

/// `FileDescriptorProto`.
#[derive(Debug, Default)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) package: &'a str,
    pub(super) syntax: &'a str,
    pub(super) edition: u64,
    pub(super) messages: Vec<Message<'a>>,
    pub(super) enums: Vec<Enum<'a>>,
    pub(super) services: Vec<Service<'a>>,
    pub(super) extensions: Vec<Field<'a>>,
    pub(super) options: Options<'a>,
    pub(super) comments: Comments<'a>,
}

/// `DescriptorProto`.
#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    pub(super) name: &'a str,
    pub(super) fields: Vec<Field<'a>>,
    pub(super) nested: Vec<Message<'a>>,
    pub(super) enums: Vec<Enum<'a>>,
    pub(super) extensions: Vec<Field<'a>>,
    /// Their names.
    pub(super) oneofs: Vec<&'a str>,
    pub(super) options: Options<'a>,
}

/// `FieldDescriptorProto`, also of an extension.
#[derive(Debug, Default)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) extendee: &'a str,
    pub(super) number: u64,
    pub(super) label: u64,
    pub(super) kind: u64,
    pub(super) type_name: &'a str,
    pub(super) json_name: Option<&'a str>,
    pub(super) oneof: Option<u64>,
    pub(super) proto3_optional: bool,
    pub(super) options: Options<'a>,
}

/// `EnumDescriptorProto`.
#[derive(Debug, Default)]
pub(super) struct Enum<'a> {
    pub(super) name: &'a str,
    pub(super) values: Vec<(&'a str, i32)>,
    pub(super) options: Options<'a>,
}

/// `ServiceDescriptorProto`.
#[derive(Debug, Default)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    pub(super) methods: Vec<Method<'a>>,
}

/// `MethodDescriptorProto`.
#[derive(Debug, Default)]
pub(super) struct Method<'a> {
    pub(super) name: &'a str,
    pub(super) input: &'a str,
    pub(super) output: &'a str,
    pub(super) options: Options<'a>,
    pub(super) client_streaming: bool,
    pub(super) server_streaming: bool,
}

/// The bytes of an options message; those of several occurrences one after the other, which is how they merge.
#[derive(Debug, Default)]
pub(super) struct Options<'a>(Cow<'a, [u8]>);

impl<'a> Options<'a> {
    fn add(&mut self, more: &'a [u8]) {
        if self.0.is_empty() {
            self.0 = Cow::Borrowed(more);
        } else {
            self.0.to_mut().extend_from_slice(more);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last value of a number, bool or enum option.
    pub(super) fn number(&self, wanted: u32) -> Result<Option<u64>, Malformed> {
        let mut fields = Fields::of(&self.0);
        let mut found = None;
        while let Some((number, value)) = fields.next()? {
            if number == wanted
                && let Value::Varint(value) = value
            {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

/// The files of a `FileDescriptorSet`. A file that comes twice in the same words counts once: servers answer reflection so.
pub(super) fn files(set: &[u8]) -> Result<Vec<File<'_>>, SchemaError> {
    let malformed = |what| SchemaError::Malformed {
        file: String::new(),
        what,
    };
    let mut files = Vec::new();
    let mut known: HashMap<&str, &[u8]> = HashMap::new();
    let mut fields = Fields::of(set);
    while let Some((number, value)) = fields.next().map_err(|bad| malformed(bad.0))? {
        let (1, Value::Bytes(bytes)) = (number, value) else {
            continue;
        };
        let file = file(bytes).map_err(|bad| SchemaError::Malformed {
            file: name_of(bytes).unwrap_or_default().to_owned(),
            what: bad.0,
        })?;
        match known.insert(file.name, bytes) {
            Some(known) if known == bytes => {}
            Some(_) => return Err(SchemaError::FileTwice(file.name.to_owned())),
            None => files.push(file),
        }
    }
    Ok(files)
}

/// The name of a file that is broken further on.
fn name_of(file: &[u8]) -> Option<&str> {
    let mut fields = Fields::of(file);
    while let Ok(Some((number, value))) = fields.next() {
        if let (1, Value::Bytes(name)) = (number, value) {
            return str::from_utf8(name).ok();
        }
    }
    None
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    str::from_utf8(bytes).map_err(|_| Malformed("a name is not UTF-8"))
}

fn file(bytes: &[u8]) -> Result<File<'_>, Malformed> {
    let mut file = File::default();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(name)) => file.name = text(name)?,
            (2, Value::Bytes(package)) => file.package = text(package)?,
            (4, Value::Bytes(bytes)) => file.messages.push(message(bytes, DEEPEST_NESTING)?),
            (5, Value::Bytes(bytes)) => file.enums.push(enumeration(bytes)?),
            (6, Value::Bytes(bytes)) => file.services.push(service(bytes)?),
            (7, Value::Bytes(bytes)) => file.extensions.push(field(bytes)?),
            (8, Value::Bytes(bytes)) => file.options.add(bytes),
            (9, Value::Bytes(bytes)) => file.comments.read(bytes)?,
            (12, Value::Bytes(syntax)) => file.syntax = text(syntax)?,
            (14, Value::Varint(edition)) => file.edition = edition,
            _ => {}
        }
    }
    Ok(file)
}

fn message(bytes: &[u8], depth: u32) -> Result<Message<'_>, Malformed> {
    let depth = depth.checked_sub(1);
    let depth = depth.ok_or(Malformed("messages are nested too deep"))?;
    let mut found = Message::default();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        let Value::Bytes(bytes) = value else { continue };
        match number {
            1 => found.name = text(bytes)?,
            2 => found.fields.push(field(bytes)?),
            3 => found.nested.push(message(bytes, depth)?),
            4 => found.enums.push(enumeration(bytes)?),
            6 => found.extensions.push(field(bytes)?),
            7 => found.options.add(bytes),
            8 => found.oneofs.push(oneof(bytes)?),
            _ => {}
        }
    }
    Ok(found)
}

fn field(bytes: &[u8]) -> Result<Field<'_>, Malformed> {
    let mut field = Field::default();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(name)) => field.name = text(name)?,
            (2, Value::Bytes(name)) => field.extendee = text(name)?,
            (3, Value::Varint(number)) => field.number = number,
            (4, Value::Varint(label)) => field.label = label,
            (5, Value::Varint(kind)) => field.kind = kind,
            (6, Value::Bytes(name)) => field.type_name = text(name)?,
            (8, Value::Bytes(options)) => field.options.add(options),
            (9, Value::Varint(oneof)) => field.oneof = Some(oneof),
            (10, Value::Bytes(name)) => field.json_name = Some(text(name)?),
            (17, Value::Varint(optional)) => field.proto3_optional = optional != 0,
            _ => {}
        }
    }
    Ok(field)
}

fn oneof(bytes: &[u8]) -> Result<&str, Malformed> {
    let mut found = "";
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        if let (1, Value::Bytes(name)) = (number, value) {
            found = text(name)?;
        }
    }
    Ok(found)
}

fn enumeration(bytes: &[u8]) -> Result<Enum<'_>, Malformed> {
    let mut found = Enum::default();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        let Value::Bytes(bytes) = value else { continue };
        match number {
            1 => found.name = text(bytes)?,
            2 => found.values.push(enum_value(bytes)?),
            3 => found.options.add(bytes),
            _ => {}
        }
    }
    Ok(found)
}

fn enum_value(bytes: &[u8]) -> Result<(&str, i32), Malformed> {
    let mut found = ("", 0);
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(name)) => found.0 = text(name)?,
            // Negative numbers stand on the wire as 64 bits: the low half is the number.
            (2, Value::Varint(number)) => found.1 = number as i32,
            _ => {}
        }
    }
    Ok(found)
}

fn service(bytes: &[u8]) -> Result<Service<'_>, Malformed> {
    let mut service = Service::default();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(name)) => service.name = text(name)?,
            (2, Value::Bytes(bytes)) => service.methods.push(method(bytes)?),
            _ => {}
        }
    }
    Ok(service)
}

fn method(bytes: &[u8]) -> Result<Method<'_>, Malformed> {
    let mut method = Method::default();
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(name)) => method.name = text(name)?,
            (2, Value::Bytes(name)) => method.input = text(name)?,
            (3, Value::Bytes(name)) => method.output = text(name)?,
            (4, Value::Bytes(options)) => method.options.add(options),
            (5, Value::Varint(streams)) => method.client_streaming = streams != 0,
            (6, Value::Varint(streams)) => method.server_streaming = streams != 0,
            _ => {}
        }
    }
    Ok(method)
}
