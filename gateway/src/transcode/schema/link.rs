//! From the files of a descriptor set to a schema: names get ids, references find what they mean, features are resolved.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::enumeration::Enum;
use super::error::SchemaError;
use super::features::{Features, Presence, of};
use super::flatten::{flatten, no_enum, no_field, no_message};
use super::message::{Cardinality, Kind};
use super::{EnumId, MessageId, Method, Named, Schema, Service, raw};
use crate::transcode::wire::{LAST_NUMBER, Malformed};

/// More parts of one kind than any definition has.
const MOST: usize = 1 << 20;

/// A message whose fields are still to be resolved.
pub(super) struct Draft<'a> {
    pub(super) name: String,
    pub(super) file: usize,
    pub(super) raw: &'a raw::Message<'a>,
    pub(super) features: Features,
    /// Leads to its comment.
    pub(super) path: Vec<u32>,
    pub(super) is_map_entry: bool,
    pub(super) fields: Vec<DraftField<'a>>,
}

/// A field with all that its tables are made of.
pub(super) struct DraftField<'a> {
    pub(super) raw: &'a raw::Field<'a>,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) cardinality: Cardinality,
    pub(super) features: Features,
    pub(super) is_packed: bool,
    pub(super) has_presence: bool,
    pub(super) oneof: Option<u32>,
    /// Of an extension: the full name.
    pub(super) extension: Option<String>,
    pub(super) comment: Option<Box<str>>,
}

/// An extension, and where it was declared.
struct Extension<'a> {
    raw: &'a raw::Field<'a>,
    name: String,
    file: usize,
    features: Features,
    path: Vec<u32>,
}

#[derive(Default)]
struct Linker<'a> {
    files: &'a [raw::File<'a>],
    file_names: Vec<Arc<str>>,
    names: HashMap<Box<str>, Named>,
    drafts: Vec<Draft<'a>>,
    enums: Vec<Enum>,
    extensions: Vec<Extension<'a>>,
}

/// The schema of these files.
pub(super) fn link(files: &[raw::File<'_>]) -> Result<Schema, SchemaError> {
    let mut linker = Linker {
        files,
        file_names: files.iter().map(|file| Arc::from(file.name)).collect(),
        ..Linker::default()
    };
    for (at, file) in files.iter().enumerate() {
        linker.file(at, file)?;
    }
    linker.resolve_fields()?;
    linker.resolve_extensions()?;
    let services = linker.services()?;
    let (messages, fields) = flatten(linker.drafts, files, &linker.file_names)?;
    Ok(Schema {
        messages,
        fields,
        enums: linker.enums,
        services,
        names: linker.names,
        no_message: no_message(),
        no_field: no_field(),
        no_enum: no_enum(),
    })
}

impl<'a> Linker<'a> {
    fn file(&mut self, at: usize, file: &'a raw::File<'a>) -> Result<(), SchemaError> {
        let features = Features::of_file(file).map_err(|bad| self.malformed(at, bad.0))?;
        let features = features.ok_or_else(|| SchemaError::Edition {
            file: file.name.to_owned(),
            edition: match file.syntax {
                "editions" | "" => file.edition.to_string(),
                syntax => syntax.to_owned(),
            },
        })?;
        for (message, index) in file.messages.iter().zip(0..) {
            self.message(at, message, file.package, features, vec![4, index])?;
        }
        for (enumeration, index) in file.enums.iter().zip(0..) {
            self.enumeration(at, enumeration, file.package, features, &[5, index])?;
        }
        for (extension, index) in file.extensions.iter().zip(0..) {
            self.extension(at, extension, file.package, features, vec![7, index]);
        }
        Ok(())
    }

    fn message(
        &mut self,
        file: usize,
        raw: &'a raw::Message<'a>,
        scope: &str,
        features: Features,
        path: Vec<u32>,
    ) -> Result<(), SchemaError> {
        let name = joined(scope, raw.name);
        let is_map_entry = raw.options.number(7);
        let is_map_entry = is_map_entry.map_err(|bad| self.malformed(file, bad.0))?;
        let is_map_entry = is_map_entry.is_some_and(|value| value != 0);
        let features = features.with(&raw.options, of::MESSAGE);
        let features = features.map_err(|bad| self.malformed(file, bad.0))?;
        let id = MessageId(self.id(self.drafts.len())?);
        self.define(file, &name, Named::Message(id))?;
        let below = |number, index| {
            let mut path = path.clone();
            path.extend([number, index]);
            path
        };
        let nested_paths = (0..).map(|index| below(3, index));
        let enum_paths = (0..).map(|index| below(4, index));
        let extension_paths = (0..).map(|index| below(6, index));
        self.drafts.push(Draft {
            name: name.clone(),
            file,
            raw,
            features,
            path: path.clone(),
            is_map_entry,
            fields: Vec::new(),
        });
        for (nested, path) in raw.nested.iter().zip(nested_paths) {
            self.message(file, nested, &name, features, path)?;
        }
        for (enumeration, path) in raw.enums.iter().zip(enum_paths) {
            self.enumeration(file, enumeration, &name, features, &path)?;
        }
        for (extension, path) in raw.extensions.iter().zip(extension_paths) {
            self.extension(file, extension, &name, features, path);
        }
        Ok(())
    }

    fn enumeration(
        &mut self,
        file: usize,
        raw: &raw::Enum<'_>,
        scope: &str,
        features: Features,
        path: &[u32],
    ) -> Result<(), SchemaError> {
        let name = joined(scope, raw.name);
        let features = features.with(&raw.options, of::ENUM);
        let features = features.map_err(|bad| self.malformed(file, bad.0))?;
        let id = EnumId(self.id(self.enums.len())?);
        self.define(file, &name, Named::Enum(id))?;
        let comment = |path: &[u32]| self.files.get(file)?.comments.comment(path);
        let value = |(at, (name, number)): (u32, &(&str, i32))| {
            let mut path = path.to_vec();
            path.extend([2, at]);
            (Box::from(*name), *number, comment(&path))
        };
        let values = (0..).zip(&raw.values).map(value).collect();
        let (file, comment) = (self.file_name(file), comment(path));
        let made = Enum::new(name, file, values, features.open_enums, comment);
        self.enums.push(made);
        Ok(())
    }

    fn extension(
        &mut self,
        file: usize,
        raw: &'a raw::Field<'a>,
        scope: &str,
        features: Features,
        path: Vec<u32>,
    ) {
        self.extensions.push(Extension {
            raw,
            name: joined(scope, raw.name),
            file,
            features,
            path,
        });
    }

    fn resolve_fields(&mut self) -> Result<(), SchemaError> {
        for at in 0..self.drafts.len() {
            let Some(draft) = self.drafts.get(at) else {
                continue;
            };
            let mut fields = Vec::with_capacity(draft.raw.fields.len());
            for (raw, index) in draft.raw.fields.iter().zip(0..) {
                let name = || joined(&draft.name, raw.name);
                let comments = self.files.get(draft.file).map(|file| &file.comments);
                let mut path = draft.path.clone();
                path.extend([2, index]);
                let mut features = draft.features;
                // Entries of maps hold their messages behind a length, whatever is in force around them.
                features.delimited &= !draft.is_map_entry;
                let mut field = self.field(draft.file, raw, features, &name)?;
                field.comment = comments.and_then(|comments| comments.comment(&path));
                field.oneof = self.oneof(draft, raw, &name)?;
                field.has_presence |= field.oneof.is_some();
                fields.push(field);
            }
            if let Some(draft) = self.drafts.get_mut(at) {
                draft.fields = fields;
            }
        }
        Ok(())
    }

    fn resolve_extensions(&mut self) -> Result<(), SchemaError> {
        for extension in std::mem::take(&mut self.extensions) {
            let Extension { raw, file, .. } = extension;
            let name = || extension.name.clone();
            let mut field = self.field(file, raw, extension.features, &name)?;
            let comments = self.files.get(file).map(|file| &file.comments);
            field.comment = comments.and_then(|comments| comments.comment(&extension.path));
            field.has_presence |= field.cardinality == Cardinality::Singular;
            let extended = self.find_message(file, raw.extendee, &name)?;
            field.extension = Some(extension.name);
            if let Some(draft) = self.drafts.get_mut(extended.0 as usize) {
                draft.fields.push(field);
            }
        }
        Ok(())
    }

    fn field(
        &self,
        file: usize,
        raw: &'a raw::Field<'a>,
        features: Features,
        name: &dyn Fn() -> String,
    ) -> Result<DraftField<'a>, SchemaError> {
        let malformed = |bad: Malformed| self.malformed(file, bad.0);
        let invalid = |what| self.invalid(file, name(), what);
        let features = features.with(&raw.options, of::FIELD).map_err(malformed)?;
        let number = u32::try_from(raw.number).ok();
        let number = number.filter(|number| (1..=LAST_NUMBER).contains(number));
        let number = number.ok_or_else(|| invalid("has no valid number"))?;
        let kind = self.kind(file, raw, features, name)?;
        let cardinality = match raw.label {
            0..=2 => Cardinality::Singular,
            3 if self.is_map_entry(kind) => Cardinality::Map,
            3 => Cardinality::Repeated,
            _ => return Err(invalid("has no valid label")),
        };
        let kind = match (cardinality, kind) {
            // Entries of maps stand behind a length, whatever is in force around them.
            (Cardinality::Map, Kind::Group(entry)) => Kind::Message(entry),
            (_, kind) => kind,
        };
        let packed = raw.options.number(2).map_err(malformed)?;
        let is_packed = cardinality == Cardinality::Repeated
            && kind.is_packable()
            && packed.map_or(features.packed, |packed| packed != 0);
        let is_message = matches!(kind, Kind::Message(_) | Kind::Group(_));
        Ok(DraftField {
            raw,
            number,
            kind,
            cardinality,
            is_packed,
            has_presence: cardinality == Cardinality::Singular
                && (is_message || raw.proto3_optional || features.presence != Presence::Implicit),
            features,
            oneof: None,
            extension: None,
            comment: None,
        })
    }

    fn kind(
        &self,
        file: usize,
        raw: &raw::Field<'_>,
        features: Features,
        name: &dyn Fn() -> String,
    ) -> Result<Kind, SchemaError> {
        let message = || self.find_message(file, raw.type_name, name);
        Ok(match raw.kind {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            10 => Kind::Group(message()?),
            11 if features.delimited => Kind::Group(message()?),
            11 => Kind::Message(message()?),
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => match self.find(raw.type_name) {
                Some(Named::Enum(id)) => Kind::Enum(id),
                _ => return Err(self.not_there(file, name(), raw.type_name)),
            },
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => return Err(self.invalid(file, name(), "has no valid type")),
        })
    }

    /// The oneof a field is a member of, counted without those made up for `optional`.
    fn oneof(
        &self,
        draft: &Draft<'_>,
        raw: &raw::Field<'_>,
        name: &dyn Fn() -> String,
    ) -> Result<Option<u32>, SchemaError> {
        let Some(index) = raw.oneof.filter(|_| !raw.proto3_optional) else {
            return Ok(None);
        };
        let index = usize::try_from(index).ok();
        let index = index.filter(|index| *index < draft.raw.oneofs.len());
        let no_oneof = || self.invalid(draft.file, name(), "is in a oneof that is not there");
        // Compilers put made-up oneofs last, so an index never moves.
        self.id(index.ok_or_else(no_oneof)?).map(Some)
    }

    fn services(&self) -> Result<Vec<Service>, SchemaError> {
        let mut services = Vec::new();
        for (at, file) in self.files.iter().enumerate() {
            for (raw, index) in file.services.iter().zip(0..) {
                let name = joined(file.package, raw.name);
                let methods = (0..).zip(&raw.methods);
                let methods = methods.map(|(method, raw)| {
                    let user = joined(&name, raw.name);
                    self.method(at, raw, &user, &[6, index, 2, method])
                });
                services.push(Service {
                    file: self.file_name(at),
                    comment: file.comments.comment(&[6, index]),
                    methods: methods.collect::<Result<_, _>>()?,
                    name: name.into(),
                });
            }
        }
        Ok(services)
    }

    fn method(
        &self,
        file: usize,
        raw: &raw::Method<'_>,
        name: &str,
        path: &[u32],
    ) -> Result<Method, SchemaError> {
        let option = |number| {
            let value = raw.options.number(number);
            value.map_err(|bad| self.malformed(file, bad.0))
        };
        let comments = self.files.get(file).map(|file| &file.comments);
        Ok(Method {
            name: raw.name.into(),
            input: self.find_message(file, raw.input, &|| name.to_owned())?,
            output: self.find_message(file, raw.output, &|| name.to_owned())?,
            client_streaming: raw.client_streaming,
            server_streaming: raw.server_streaming,
            no_side_effects: option(34)? == Some(1),
            is_deprecated: option(33)?.is_some_and(|value| value != 0),
            options: Bytes::copy_from_slice(raw.options.bytes()),
            file: self.file_name(file),
            line: comments.and_then(|comments| comments.line(path)),
            comment: comments.and_then(|comments| comments.comment(path)),
        })
    }

    fn define(&mut self, file: usize, name: &str, what: Named) -> Result<(), SchemaError> {
        match self.names.insert(name.into(), what) {
            None => Ok(()),
            Some(_) => Err(SchemaError::DefinedTwice {
                file: self.file_name(file).to_string(),
                name: name.to_owned(),
            }),
        }
    }

    /// Compilers write references in full, with a dot before.
    fn find(&self, name: &str) -> Option<Named> {
        self.names
            .get(name.strip_prefix('.').unwrap_or(name))
            .copied()
    }

    fn find_message(
        &self,
        file: usize,
        name: &str,
        user: &dyn Fn() -> String,
    ) -> Result<MessageId, SchemaError> {
        match self.find(name) {
            Some(Named::Message(id)) => Ok(id),
            _ => Err(self.not_there(file, user(), name)),
        }
    }

    fn is_map_entry(&self, kind: Kind) -> bool {
        let (Kind::Message(id) | Kind::Group(id)) = kind else {
            return false;
        };
        let draft = self.drafts.get(id.0 as usize);
        draft.is_some_and(|draft| draft.is_map_entry)
    }

    fn file_name(&self, file: usize) -> Arc<str> {
        self.file_names.get(file).cloned().unwrap_or_default()
    }

    fn id(&self, count: usize) -> Result<u32, SchemaError> {
        let id = u32::try_from(count).ok().filter(|_| count < MOST);
        id.ok_or(SchemaError::TooLarge("more than a million of one kind"))
    }

    fn malformed(&self, file: usize, what: &'static str) -> SchemaError {
        let file = self.file_name(file).to_string();
        SchemaError::Malformed { file, what }
    }

    fn invalid(&self, file: usize, name: String, what: &'static str) -> SchemaError {
        let file = self.file_name(file).to_string();
        SchemaError::Invalid { file, name, what }
    }

    fn not_there(&self, file: usize, user: String, name: &str) -> SchemaError {
        SchemaError::NotThere {
            file: self.file_name(file).to_string(),
            user,
            name: name.strip_prefix('.').unwrap_or(name).to_owned(),
        }
    }
}

fn joined(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}
