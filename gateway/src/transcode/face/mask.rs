//! `update_mask` of a PATCH that came without: the fields its body names, as deep as the body goes.
//!
//! What is a list, a map or a message with a JSON form of its own is named as a whole. The body was read by the codec before, so that
//! nothing needs to be refused here.

use serde_json::{Map, Value};

use super::super::{Cardinality, FieldPath, Kind, MessageId, Schema};
use super::http_body::put_bytes;

/// Paths of a mask. A body that names more has none made for it.
const MOST_PATHS: usize = 10_000;

/// Appends the mask for `json`, the body of `field`, to a message. A body that names nothing has none.
pub(super) fn append(
    schema: &Schema,
    mask: &FieldPath,
    field: &FieldPath,
    json: &[u8],
    message: &mut Vec<u8>,
) {
    let Kind::Message(of) = field.last(schema).kind else {
        return;
    };
    let Ok(Value::Object(members)) = serde_json::from_slice(json) else {
        return;
    };
    let mut paths = Vec::new();
    collect(schema, of, &members, "", &mut paths);
    if paths.is_empty() || paths.len() > MOST_PATHS {
        return;
    }
    let mut wire = Vec::new();
    for path in &paths {
        put_bytes(1, path.as_bytes(), &mut wire);
    }
    put_bytes(mask.last(schema).number, &wire, message);
}

fn collect(
    schema: &Schema,
    message: MessageId,
    members: &Map<String, Value>,
    before: &str,
    paths: &mut Vec<String>,
) {
    for (name, value) in members {
        let Some(field) = schema.field_by_name(message, name) else {
            continue;
        };
        let path = match before {
            "" => field.name.to_string(),
            before => format!("{before}.{}", field.name),
        };
        match (field.kind, field.cardinality, value) {
            (Kind::Message(child), Cardinality::Singular, Value::Object(members))
                if schema.message_of(child).well_known.is_none() && !members.is_empty() =>
            {
                collect(schema, child, members, &path, paths);
            }
            _ if paths.len() > MOST_PATHS => return,
            _ => paths.push(path),
        }
    }
}
