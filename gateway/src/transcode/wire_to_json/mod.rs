//! Wire bytes to JSON.
//!
//! Takes whatever the format allows, not only what one serializer writes: parts of a message in any order, split over several places,
//! packed or not, with entries of maps that lack a half. Each message is looked through once to see what is where, then printed field
//! by field as the definition has them; nothing is built, and what a later value replaces is not looked into. Output may have been
//! appended when an error is found: the caller drops it.

mod index;
mod map;
mod printer;
mod scalar;
mod well_known;

use super::Profile;
use super::codec_error::CodecError;
use super::schema::{FieldId, MessageId, Schema};
use printer::Printer;

/// Appends a message as JSON.
///
/// # Errors
///
/// What is no message of this type, or has no JSON form: text that is not UTF-8, times out of range, an `Any` of an unknown type, more
/// than a hundred levels.
pub fn write_json(
    schema: &Schema,
    message: MessageId,
    profile: &Profile,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let mut printer = Printer::new(schema, profile, out);
    let printed = printer.message(schema.message_of(message), &[wire]);
    printed.map_err(|fault| *fault)
}

/// Appends what one field of a message holds, as `response_body` has it: of any kind. Not set it is `null`, or the default of a field
/// that cannot be told from one that is not set.
///
/// # Errors
///
/// As [`write_json`]; a field of another message.
pub fn write_json_field(
    schema: &Schema,
    message: MessageId,
    field: FieldId,
    profile: &Profile,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let field = schema.field(field);
    if field.message != message {
        return Err(CodecError::new("the field is of another message"));
    }
    let mut printer = Printer::new(schema, profile, out);
    let printed = printer.only_field(schema.message_of(message), field, wire);
    printed.map_err(|fault| *fault)
}

#[cfg(test)]
mod tests;
