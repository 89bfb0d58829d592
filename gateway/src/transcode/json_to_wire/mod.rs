//! JSON and bound values to wire bytes.
//!
//! The JSON is read once and written straight to the wire; no message is built. What the path and the query bind is put into the very
//! sub-messages the body has written, so that every message stands on the wire once, and a value that contradicts another is refused:
//! nobody can say one thing in the path, where policy looks, and another in the body. Not here: which values are bound to what.

mod bind;
mod encoder;
mod map;
mod merge;
mod output;
mod scalar;
mod well_known;

use super::Profile;
use super::codec_error::{CodecError, Fault, in_field};
use super::schema::{FieldPath, MessageId, Schema};
use bind::Bindings;
pub use bind::is_bindable;
use encoder::Encoder;
use output::Output;

/// Where a bound value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A variable of the path.
    Path,
    /// A parameter of the query.
    Query,
}

/// One message in the making: a body, or a body for one field, then bound values.
#[derive(Debug)]
pub struct Writer<'s> {
    schema: &'s Schema,
    message: MessageId,
    profile: Profile,
    /// What the body came to.
    body: Option<Vec<u8>>,
    bindings: Bindings,
}

impl<'s> Writer<'s> {
    /// An empty message.
    pub fn new(schema: &'s Schema, message: MessageId, profile: &Profile) -> Self {
        Self {
            schema,
            message,
            profile: *profile,
            body: None,
            bindings: Bindings::default(),
        }
    }

    /// The whole message, as `body: "*"` has it.
    ///
    /// # Errors
    ///
    /// What is no JSON, or not that of the message; a second body.
    pub fn body(&mut self, json: &[u8]) -> Result<(), CodecError> {
        let message = self.schema.message_of(self.message);
        self.write_body(json, |encoder| encoder.message(message))
    }

    /// The value of one field of the message, as `body: "f"` has it: of any kind, also a list or a map.
    ///
    /// # Errors
    ///
    /// As [`Writer::body`]; a path of more than one part.
    pub fn body_field(&mut self, field: &FieldPath, json: &[u8]) -> Result<(), CodecError> {
        let field = match field.steps() {
            [field] => self.schema.field(*field),
            _ => {
                return Err(CodecError::new(
                    "a body belongs to a field of the request itself",
                ));
            }
        };
        self.write_body(json, |encoder| {
            let written = encoder.field_value(field);
            written.map_err(|fault| in_field(fault, &field.name))
        })
    }

    /// A body that is on the wire already.
    ///
    /// # Errors
    ///
    /// A second body.
    pub fn body_wire(&mut self, wire: Vec<u8>) -> Result<(), CodecError> {
        self.only_body()?;
        self.body = Some(wire);
        Ok(())
    }

    /// A value out of the path or the query, decoded. For a repeated field each call adds an element.
    ///
    /// # Errors
    ///
    /// A value the field cannot hold; a field that takes none from there; one that was bound already. Equal values of path and query
    /// are no contradiction.
    pub fn bind(&mut self, field: &FieldPath, text: &str, by: Bound) -> Result<(), CodecError> {
        let bound = self
            .bindings
            .add(self.schema, &self.profile, field, text, by);
        bound.map_err(|fault| *fault)
    }

    /// The message as it goes to the service.
    ///
    /// # Errors
    ///
    /// A bound value that contradicts the body.
    pub fn finish(self) -> Result<Vec<u8>, CodecError> {
        let body = self.body.unwrap_or_default();
        if self.bindings.is_empty() {
            return Ok(body);
        }
        let message = self.schema.message_of(self.message);
        let merged = self.bindings.merge(self.schema, message, &body);
        merged.map_err(|fault| *fault)
    }

    fn write_body(
        &mut self,
        json: &[u8],
        write: impl FnOnce(&mut Encoder<'s, '_>) -> Result<(), Fault>,
    ) -> Result<(), CodecError> {
        self.only_body()?;
        let written = Encoder::new(self.schema, self.profile, json).and_then(|mut encoder| {
            write(&mut encoder)?;
            encoder.json.end()?;
            Ok(encoder.out.finish())
        });
        self.body = Some(written.map_err(|fault| *fault)?);
        Ok(())
    }

    fn only_body(&self) -> Result<(), CodecError> {
        match self.body {
            None => Ok(()),
            Some(_) => Err(CodecError::new("there are two bodies")),
        }
    }
}

#[cfg(test)]
mod tests;
