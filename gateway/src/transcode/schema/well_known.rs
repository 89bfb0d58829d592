//! The messages of protobuf itself whose JSON form is not that of a message.

use super::message::{Cardinality, Field, Kind};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are called as in google.protobuf")]
pub enum WellKnown {
    Any,
    Struct,
    Value,
    ListValue,
    Timestamp,
    Duration,
    FieldMask,
    /// `StringValue` and the others that hold one value.
    Wrapper,
}

impl WellKnown {
    /// By full name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("google.protobuf.")? {
            "Any" => Self::Any,
            "Struct" => Self::Struct,
            "Value" => Self::Value,
            "ListValue" => Self::ListValue,
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "FieldMask" => Self::FieldMask,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
            | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => Self::Wrapper,
            _ => return None,
        })
    }

    /// Whether a message of the name has the fields that its JSON form is made of.
    pub(super) fn fits(self, fields: &[Field]) -> bool {
        use Cardinality::{Map, Repeated, Singular};
        let has = |number, cardinality, is: fn(Kind) -> bool| {
            let field = fields.iter().find(|field| field.number == number);
            field.is_some_and(|field| field.cardinality == cardinality && is(field.kind))
        };
        let message = |kind: Kind| matches!(kind, Kind::Message(_));
        match self {
            Self::Any => {
                has(1, Singular, |kind| kind == Kind::String)
                    && has(2, Singular, |kind| kind == Kind::Bytes)
            }
            Self::Struct => has(1, Map, message),
            Self::Value => {
                has(1, Singular, |kind| matches!(kind, Kind::Enum(_)))
                    && has(2, Singular, |kind| kind == Kind::Double)
                    && has(3, Singular, |kind| kind == Kind::String)
                    && has(4, Singular, |kind| kind == Kind::Bool)
                    && has(5, Singular, message)
                    && has(6, Singular, message)
            }
            Self::ListValue => has(1, Repeated, message),
            Self::Timestamp | Self::Duration => {
                has(1, Singular, |kind| kind == Kind::Int64)
                    && has(2, Singular, |kind| kind == Kind::Int32)
            }
            Self::FieldMask => has(1, Repeated, |kind| kind == Kind::String),
            Self::Wrapper => has(1, Singular, |kind| {
                !matches!(kind, Kind::Message(_) | Kind::Group(_) | Kind::Enum(_))
            }),
        }
    }
}
