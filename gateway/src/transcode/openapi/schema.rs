//! Messages and enums as schemas, by ProtoJSON and the API's profile. Each that is needed is written once, under its full name.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use openapiv3::{
    AdditionalProperties, AnySchema, ArrayType, IntegerType, MediaType, NumberType, ObjectType,
    ReferenceOr, Schema as Written, SchemaData, SchemaKind, StringType, Type,
    VariantOrUnknownOrEmpty as Format,
};

use tollgate_policy::settings::ErrorShape;

use super::super::schema::WellKnown;
use super::super::{
    Cardinality, EnumId, Enums, Field, Kind, MessageId, Names, Profile, Schema, Wide,
};
use super::plain;

/// What a schema is wanted for.
#[derive(Clone, Copy)]
pub(super) enum Shape<'f> {
    Message(MessageId),
    /// All that a field holds.
    Field(&'f Field),
}

/// The schemas of one document.
pub(super) struct Schemas<'s> {
    pub(super) schema: &'s Schema,
    pub(super) profile: Profile,
    written: BTreeMap<String, Written>,
    waiting: BTreeSet<MessageId>,
    /// Shapes of errors that are referred to.
    pub(super) errors: HashSet<ErrorShape>,
}

type Either = ReferenceOr<Written>;

impl<'s> Schemas<'s> {
    pub(super) fn new(schema: &'s Schema, profile: Profile) -> Self {
        Self {
            schema,
            profile,
            written: BTreeMap::new(),
            waiting: BTreeSet::new(),
            errors: HashSet::new(),
        }
    }

    /// The schema of something, which is a reference for messages and enums.
    pub(super) fn of(&mut self, shape: &Shape<'_>) -> Either {
        match shape {
            Shape::Message(message) => self.message(*message),
            Shape::Field(field) => self.field(field),
        }
    }

    pub(super) fn list_of(&self, item: Either) -> Either {
        ReferenceOr::Item(list(item))
    }

    pub(super) fn text(&self) -> Either {
        ReferenceOr::Item(text(None))
    }

    /// Everything that was needed, by name.
    pub(super) fn into_components<C: FromIterator<(String, Either)>>(mut self) -> C {
        while let Some(message) = self.waiting.pop_first() {
            let name = self.schema.message_of(message).name.to_string();
            if !self.written.contains_key(&name) {
                let written = self.object(message);
                self.written.insert(name, written);
            }
        }
        let written = self.written.into_iter();
        written
            .map(|(name, schema)| (name, ReferenceOr::Item(schema)))
            .collect()
    }

    fn message(&mut self, message: MessageId) -> Either {
        let definition = self.schema.message_of(message);
        if let Some(kind) = definition.well_known {
            return ReferenceOr::Item(self.well_known(kind, message));
        }
        self.waiting.insert(message);
        ReferenceOr::ref_(&format!("#/components/schemas/{}", definition.name))
    }

    fn field(&mut self, field: &Field) -> Either {
        match field.cardinality {
            Cardinality::Singular => self.value(field.kind),
            Cardinality::Repeated => {
                let item = self.value(field.kind);
                self.list_of(item)
            }
            Cardinality::Map => {
                let schema = self.schema;
                let value = schema.map_entry(field).map(|(_, value)| value.kind);
                let value =
                    value.map_or_else(|| ReferenceOr::Item(anything()), |kind| self.value(kind));
                let more = AdditionalProperties::Schema(Box::new(value));
                ReferenceOr::Item(typed(Type::Object(ObjectType {
                    additional_properties: Some(more),
                    ..ObjectType::default()
                })))
            }
        }
    }

    fn value(&mut self, kind: Kind) -> Either {
        let plain = match kind {
            Kind::Message(message) | Kind::Group(message) => return self.message(message),
            Kind::Enum(id) => return self.enumeration(id),
            Kind::Double => number("double"),
            Kind::Float => number("float"),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer("int32", None),
            Kind::Uint32 | Kind::Fixed32 => integer("int64", Some(0)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => self.wide("int64"),
            Kind::Uint64 | Kind::Fixed64 => self.wide("uint64"),
            Kind::Bool => typed(Type::Boolean(Default::default())),
            Kind::String => text(None),
            Kind::Bytes => text(Some("byte")),
        };
        ReferenceOr::Item(plain)
    }

    fn wide(&self, format: &str) -> Written {
        match self.profile.wide {
            Wide::String => text(Some(format)),
            Wide::Number => integer(format, None),
        }
    }

    fn enumeration(&mut self, id: EnumId) -> Either {
        let definition = self.schema.enum_of(id);
        if &*definition.name == "google.protobuf.NullValue" {
            let mut null = text(None);
            null.schema_data.nullable = true;
            return ReferenceOr::Item(null);
        }
        let mut written = match self.profile.enums {
            Enums::Name => {
                let name = |value: &super::super::schema::EnumValue| match self
                    .profile
                    .strip_enum_prefix
                {
                    true => value.stripped().to_owned(),
                    false => value.name.to_string(),
                };
                typed(Type::String(StringType {
                    enumeration: definition.values.iter().map(|it| Some(name(it))).collect(),
                    ..StringType::default()
                }))
            }
            Enums::Number => {
                let mut numbers: Vec<i64> = definition
                    .values
                    .iter()
                    .map(|it| i64::from(it.number))
                    .collect();
                numbers.dedup();
                typed(Type::Integer(IntegerType {
                    format: Format::from(Some("int32".to_owned())),
                    enumeration: numbers.into_iter().map(Some).collect(),
                    ..IntegerType::default()
                }))
            }
        };
        written.schema_data.description = self.about_enum(id);
        self.written.insert(definition.name.to_string(), written);
        ReferenceOr::ref_(&format!("#/components/schemas/{}", definition.name))
    }

    /// The comment of an enum, and those of its values.
    fn about_enum(&self, id: EnumId) -> Option<String> {
        let definition = self.schema.enum_of(id);
        let own = definition.comment.as_deref().map(plain);
        let values = definition.values.iter().filter_map(|value| {
            let comment = plain(value.comment.as_deref()?).replace('\n', " ");
            Some(format!("- {}: {comment}", value.name))
        });
        let lines: Vec<String> = own.into_iter().chain(values).collect();
        Some(lines.join("\n")).filter(|text| !text.is_empty())
    }

    fn well_known(&mut self, kind: WellKnown, message: MessageId) -> Written {
        match kind {
            WellKnown::Timestamp => text(Some("date-time")),
            WellKnown::Duration => pattern(r"^-?\d+(\.\d{1,9})?s$"),
            WellKnown::FieldMask => text(Some("field-mask")),
            WellKnown::Struct => object_of_anything(),
            WellKnown::Value => anything(),
            WellKnown::ListValue => list(ReferenceOr::Item(anything())),
            WellKnown::Any => {
                let mut any = ObjectType {
                    required: vec!["@type".to_owned()],
                    additional_properties: Some(AdditionalProperties::Any(true)),
                    ..ObjectType::default()
                };
                let kind = ReferenceOr::Item(Box::new(text(None)));
                any.properties.insert("@type".to_owned(), kind);
                typed(Type::Object(any))
            }
            WellKnown::Wrapper => {
                let schema = self.schema;
                let value = schema.field_by_number(message, 1).map(|field| field.kind);
                let value = value.map(|kind| self.value(kind));
                let mut value = value
                    .and_then(ReferenceOr::into_item)
                    .unwrap_or_else(anything);
                value.schema_data.nullable = true;
                value
            }
        }
    }

    fn object(&mut self, message: MessageId) -> Written {
        let schema = self.schema;
        let definition = schema.message_of(message);
        let mut object = ObjectType::default();
        for field in schema
            .fields(message)
            .iter()
            .filter(|field| !field.is_extension)
        {
            let name = match self.profile.names {
                Names::Json => &field.json_name,
                Names::Proto => &field.name,
            };
            let property = self.property(message, field);
            if field.is_required {
                object.required.push(name.to_string());
            }
            object.properties.insert(name.to_string(), property);
        }
        let mut written = typed(Type::Object(object));
        written.schema_data.description = definition.comment.as_deref().map(plain);
        written
    }

    fn property(&mut self, message: MessageId, field: &Field) -> ReferenceOr<Box<Written>> {
        let mut about = field.comment.as_deref().map(plain).unwrap_or_default();
        let oneofs = &self.schema.message_of(message).oneofs;
        let index = field.oneof.and_then(|index| usize::try_from(index).ok());
        if let Some(oneof) = index.and_then(|index| oneofs.get(index)) {
            let line = format!("At most one of the fields of `{oneof}` is set.");
            about = if about.is_empty() {
                line
            } else {
                format!("{about}\n\n{line}")
            };
        }
        let said = !about.is_empty() || field.is_deprecated;
        let mut written = match self.field(field) {
            // 3.0 ignores what stands beside a reference.
            reference @ ReferenceOr::Reference { .. } if said => kinded(SchemaKind::AllOf {
                all_of: vec![reference],
            }),
            ReferenceOr::Reference { reference } => return ReferenceOr::Reference { reference },
            ReferenceOr::Item(item) => item,
        };
        written.schema_data.description = Some(about).filter(|about| !about.is_empty());
        written.schema_data.deprecated = field.is_deprecated;
        ReferenceOr::boxed_item(written)
    }

    /// `google.rpc.Status` as JSON has it.
    pub(super) fn status(&mut self) -> Either {
        self.error("google.rpc.Status", &[])
    }

    /// The error of AIP-193.
    pub(super) fn aip193(&mut self) -> Either {
        let inner = self.error("google.rpc.Error", &["status"]);
        let mut outer = ObjectType::default();
        let inner = match inner {
            ReferenceOr::Reference { reference } => ReferenceOr::Reference { reference },
            ReferenceOr::Item(item) => ReferenceOr::boxed_item(item),
        };
        outer.properties.insert("error".to_owned(), inner);
        ReferenceOr::Item(typed(Type::Object(outer)))
    }

    fn error(&mut self, name: &str, texts: &[&str]) -> Either {
        let reference = ReferenceOr::ref_(&format!("#/components/schemas/{name}"));
        if self.written.contains_key(name) {
            return reference;
        }
        let mut object = ObjectType::default();
        let code = ReferenceOr::boxed_item(integer("int32", None));
        object.properties.insert("code".to_owned(), code);
        for name in texts.iter().chain(&["message"]) {
            let text = ReferenceOr::boxed_item(text(None));
            object.properties.insert((*name).to_owned(), text);
        }
        let mut detail = ObjectType {
            additional_properties: Some(AdditionalProperties::Any(true)),
            ..ObjectType::default()
        };
        let kind = ReferenceOr::boxed_item(text(None));
        detail.properties.insert("@type".to_owned(), kind);
        let details = list(ReferenceOr::Item(typed(Type::Object(detail))));
        object
            .properties
            .insert("details".to_owned(), ReferenceOr::boxed_item(details));
        self.written
            .insert(name.to_owned(), typed(Type::Object(object)));
        reference
    }
}

/// Bytes as they are.
pub(super) fn binary() -> MediaType {
    MediaType {
        schema: Some(ReferenceOr::Item(text(Some("binary")))),
        ..MediaType::default()
    }
}

fn kinded(schema_kind: SchemaKind) -> Written {
    Written {
        schema_data: SchemaData::default(),
        schema_kind,
    }
}

fn typed(kind: Type) -> Written {
    kinded(SchemaKind::Type(kind))
}

fn anything() -> Written {
    kinded(SchemaKind::Any(AnySchema::default()))
}

fn object_of_anything() -> Written {
    typed(Type::Object(ObjectType {
        additional_properties: Some(AdditionalProperties::Any(true)),
        ..ObjectType::default()
    }))
}

fn list(item: Either) -> Written {
    let items = match item {
        ReferenceOr::Reference { reference } => ReferenceOr::Reference { reference },
        ReferenceOr::Item(item) => ReferenceOr::boxed_item(item),
    };
    typed(Type::Array(ArrayType {
        items: Some(items),
        min_items: None,
        max_items: None,
        unique_items: false,
    }))
}

fn text(format: Option<&str>) -> Written {
    typed(Type::String(StringType {
        format: Format::from(format.map(str::to_owned)),
        ..StringType::default()
    }))
}

fn pattern(pattern: &str) -> Written {
    typed(Type::String(StringType {
        pattern: Some(pattern.to_owned()),
        ..StringType::default()
    }))
}

fn number(format: &str) -> Written {
    typed(Type::Number(NumberType {
        format: Format::from(Some(format.to_owned())),
        ..NumberType::default()
    }))
}

fn integer(format: &str, minimum: Option<i64>) -> Written {
    typed(Type::Integer(IntegerType {
        format: Format::from(Some(format.to_owned())),
        minimum,
        ..IntegerType::default()
    }))
}
