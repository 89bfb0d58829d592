//! `google.api.HttpBody`: bytes that are a body as they are, with a content type.

use super::super::{Cardinality, FieldPath, Kind, MessageId, Schema};
use super::Body;

/// Whether a message is one: its name, and the two fields that matter as they are published.
pub fn is(schema: &Schema, message: MessageId) -> bool {
    let kind = |number| {
        schema
            .field_by_number(message, number)
            .map(|field| field.kind)
    };
    &*schema.message_of(message).name == "google.api.HttpBody"
        && kind(1) == Some(Kind::String)
        && kind(2) == Some(Kind::Bytes)
}

/// Whether a field holds one.
pub(super) fn of_field(schema: &Schema, path: &FieldPath) -> bool {
    let field = path.last(schema);
    let child = field
        .child()
        .filter(|_| field.cardinality == Cardinality::Singular);
    matches!(field.kind, Kind::Message(_)) && child.is_some_and(|child| is(schema, child))
}

/// The message for a body, appended to `out`.
pub(super) fn write(body: Body<'_>, out: &mut Vec<u8>) {
    if let Some(content_type) = body.content_type.filter(|it| !it.is_empty()) {
        put_bytes(1, content_type.as_bytes(), out);
    }
    if !body.bytes.is_empty() {
        put_bytes(2, body.bytes, out);
    }
}

/// A field of bytes as it stands on the wire.
pub(super) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX), out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}
