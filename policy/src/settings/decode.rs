//! A serde deserializer over the generic tree, for the written shapes of settings.
//!
//! Promises: every mistake carries the line and column of the innermost value; an unknown field is reported with the
//! nearest right name and skipped, so that one look at a file finds all of them. Not here: what a value means.

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{BoolDeserializer, MapAccessDeserializer, StrDeserializer, U32Deserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::mistake::Mistake;
use super::reference::References;
use crate::finding::{Finding, Place, Severity};
use crate::source::{Document, Entry, Map, Node, Value};

/// Text as written, and where: every scalar of our files is read as text first, so that the message about it can
/// quote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) line: u32,
    pub(super) column: u32,
    /// The whole of it came out of one `${NAME}` or `file:`: fit for a secret.
    pub(super) referred: bool,
}

/// Decodes `node` into `T`. `None` where its shape is wrong; the findings say why, and may also stand beside a value.
pub(super) fn decode<'n, T: Deserialize<'n>>(
    document: &'n Document,
    node: &'n Node,
    references: &'n References<'n>,
) -> (Option<T>, Vec<Finding>) {
    let context = Context {
        document,
        references,
        findings: RefCell::default(),
    };
    let decoded = T::deserialize(Decoder {
        node,
        context: &context,
    });
    let value = decoded.map_err(|mistake| context.report(mistake)).ok();
    (value, context.findings.into_inner())
}

/// The name nearest to `wrong`, if one is near enough to be meant.
pub fn nearest<'c>(wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(wrong, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// What all decoders of one document share.
struct Context<'n> {
    document: &'n Document,
    references: &'n References<'n>,
    findings: RefCell<Vec<Finding>>,
}

impl Context<'_> {
    fn report(&self, mistake: Mistake) {
        let place = Place {
            file: self.document.file.clone(),
            line: mistake.line,
            column: mistake.column,
        };
        self.findings.borrow_mut().push(Finding {
            severity: Severity::Error,
            code: mistake.code,
            place,
            what: match mistake.field.as_str() {
                "" => mistake.what,
                field => format!("`{field}`: {}", mistake.what),
            },
            remedy: mistake.remedy,
        });
    }

    fn report_unknown(&self, entry: &Entry, fields: &'static [&'static str]) {
        let nearest = nearest(&entry.key, fields.iter().copied());
        let others: Vec<_> = fields
            .iter()
            .copied()
            .filter(|name| Some(*name) != nearest)
            .collect();
        let remedy = match nearest {
            Some(name) if others.is_empty() => format!("did you mean `{name}`?"),
            Some(name) => format!(
                "did you mean `{name}`? Other fields here: {}",
                others.join(", ")
            ),
            None => format!("fields here: {}", others.join(", ")),
        };
        self.report(Mistake {
            line: entry.line,
            column: entry.column,
            code: "unknown-field",
            field: String::new(),
            what: format!("unknown field `{}`", entry.key),
            remedy,
        });
    }
}

#[derive(Clone, Copy)]
struct Decoder<'c, 'n> {
    node: &'n Node,
    context: &'c Context<'n>,
}

impl<'n> Decoder<'_, 'n> {
    /// The scalar as text, with its references replaced.
    fn text(&self) -> Result<Text, Mistake> {
        let written = match &self.node.value {
            Value::String(text) => text.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Bool(bool) => bool.to_string(),
            Value::Null => return Err(Mistake::new("a value is missing here", "write one")),
            Value::List(_) => {
                return Err(Mistake::new(
                    "found a list, expected a single value",
                    "write one value",
                ));
            }
            Value::Map(_) => {
                return Err(Mistake::new(
                    "found a mapping, expected a single value",
                    "write one value",
                ));
            }
        };
        let text = self
            .context
            .references
            .resolve(&written)
            .map_err(|wrong| Mistake {
                code: "bad-reference",
                ..Mistake::new(wrong.what, wrong.remedy)
            })?;
        Ok(Text {
            text,
            line: self.node.line,
            column: self.node.column,
            referred: self.context.references.refers(&written),
        })
    }

    fn map(&self, expected: impl FnOnce() -> String) -> Result<&'n Map, Mistake> {
        match &self.node.value {
            Value::Map(map) => Ok(map),
            _ => Err(Mistake::new("expected a mapping here", expected())),
        }
    }
}

const TEXT: &str = "Text";
const TEXT_FIELDS: &[&str] = &["text", "line", "column", "referred"];

impl<'n> de::Deserializer<'n> for Decoder<'_, 'n> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.text()
            .and_then(|text| visitor.visit_string(text.text))
            .map_err(|mistake| mistake.at(self.node))
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let Value::List(nodes) = &self.node.value else {
            let mistake = Mistake::new("expected a list here", "write it as `[first, second]`");
            return Err(mistake.at(self.node));
        };
        let decoders = nodes.iter().map(|node| Decoder {
            node,
            context: self.context,
        });
        visitor
            .visit_seq(de::value::SeqDeserializer::new(decoders))
            .map_err(|mistake| mistake.at(self.node))
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.map(|| "write it as `name: value`".to_owned())
            .and_then(|map| visitor.visit_map(Fields::all(map, self.context)))
            .map_err(|mistake| mistake.at(self.node))
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        if name == TEXT {
            return self
                .text()
                .and_then(|text| visitor.visit_map(TextFields { text, next: 0 }))
                .map_err(|mistake| mistake.at(self.node));
        }
        let expected = || format!("its fields are {}", fields.join(", "));
        let decode = |map| visitor.visit_map(Fields::known(map, self.context, fields));
        self.map(expected)
            .and_then(decode)
            .map_err(|mistake| mistake.at(self.node))
    }

    /// Where a field takes a plain value, a list or a mapping, the written shape is an enum of `Text`, `List` and `Map`.
    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let written = match self.node.value {
            Value::Map(_) => "Map",
            Value::List(_) => "List",
            _ => TEXT,
        };
        // What fits no variant is read as text, which says what it found instead.
        let known = variants.iter().copied().find(|variant| *variant == written);
        let variant = known.unwrap_or(TEXT);
        visitor
            .visit_enum(Either {
                decoder: self,
                variant,
            })
            .map_err(|mistake| mistake.at(self.node))
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <W: Visitor<'n>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct identifier
    }
}

impl<'n> IntoDeserializer<'n, Mistake> for Decoder<'_, 'n> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Either<'c, 'n> {
    decoder: Decoder<'c, 'n>,
    variant: &'static str,
}

impl<'c, 'n> de::EnumAccess<'n> for Either<'c, 'n> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'n>>(self, seed: S) -> Result<(S::Value, Self), Mistake> {
        let variant = StrDeserializer::<Mistake>::new(self.variant);
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'n> de::VariantAccess<'n> for Either<'_, 'n> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'n>>(self, seed: S) -> Result<S::Value, Mistake> {
        seed.deserialize(self.decoder)
    }

    fn tuple_variant<V: Visitor<'n>>(self, _: usize, visitor: V) -> Result<V::Value, Mistake> {
        de::Deserializer::deserialize_seq(self.decoder, visitor)
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        de::Deserializer::deserialize_struct(self.decoder, "", fields, visitor)
    }
}

/// The entries of a mapping, one after the other.
struct Fields<'c, 'n> {
    entries: Vec<&'n Entry>,
    value: Option<&'n Entry>,
    context: &'c Context<'n>,
}

impl<'c, 'n> Fields<'c, 'n> {
    fn all(map: &'n Map, context: &'c Context<'n>) -> Self {
        let mut entries: Vec<_> = map.iter().collect();
        entries.reverse();
        Self {
            entries,
            value: None,
            context,
        }
    }

    fn known(map: &'n Map, context: &'c Context<'n>, fields: &'static [&'static str]) -> Self {
        let mut all = Self::all(map, context);
        for unknown in map.iter().filter(|entry| !fields.contains(&&*entry.key)) {
            context.report_unknown(unknown, fields);
        }
        all.entries.retain(|entry| fields.contains(&&*entry.key));
        all
    }
}

impl<'n> MapAccess<'n> for Fields<'_, 'n> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        self.value = self.entries.pop();
        self.value
            .map(|entry| seed.deserialize(Key(entry)))
            .transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        let Some(entry) = self.value.take() else {
            return Err(Mistake::new("a value without a key", ""));
        };
        seed.deserialize(Decoder {
            node: &entry.node,
            context: self.context,
        })
        .map_err(|mistake: Mistake| mistake.under(entry))
    }
}

/// A key of a mapping: an identifier for a struct, [`Text`] for a map.
struct Key<'n>(&'n Entry);

impl<'n> de::Deserializer<'n> for Key<'n> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_str(&self.0.key)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let text = Text {
            text: self.0.key.to_string(),
            line: self.0.line,
            column: self.0.column,
            referred: false,
        };
        visitor.visit_map(TextFields { text, next: 0 })
    }

    forward_to_deserialize_any! {
        <W: Visitor<'n>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Feeds the fields of a [`Text`] to its visitor.
struct TextFields {
    text: Text,
    next: usize,
}

impl<'n> MapAccess<'n> for TextFields {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        let field = TEXT_FIELDS.get(self.next);
        self.next += 1;
        field
            .map(|name| seed.deserialize(StrDeserializer::<Mistake>::new(name)))
            .transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        match self.next {
            1 => seed.deserialize(std::mem::take(&mut self.text.text).into_deserializer()),
            2 => seed.deserialize(U32Deserializer::new(self.text.line)),
            3 => seed.deserialize(U32Deserializer::new(self.text.column)),
            _ => seed.deserialize(BoolDeserializer::new(self.text.referred)),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            text: String,
            line: u32,
            column: u32,
            referred: bool,
        }
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
                let parts = Parts::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Text {
                    text: parts.text,
                    line: parts.line,
                    column: parts.column,
                    referred: parts.referred,
                })
            }
        }
        deserializer.deserialize_struct(TEXT, TEXT_FIELDS, Whole)
    }
}
