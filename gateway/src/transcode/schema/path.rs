//! Dotted paths to fields: `book.author.name`.

use smallvec::SmallVec;

use super::{Cardinality, Field, FieldId, MessageId, Schema};

/// The fields a path leads through, the last one included. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath {
    steps: SmallVec<[FieldId; 4]>,
}

impl FieldPath {
    /// From the outermost to the one that is meant.
    pub fn steps(&self) -> &[FieldId] {
        &self.steps
    }

    /// The one that is meant.
    pub fn last<'s>(&self, schema: &'s Schema) -> &'s Field {
        schema.field(self.steps.last().copied().unwrap_or(FieldId(0)))
    }

    /// As in the definition, whatever spelling it was asked for with.
    pub fn dotted(&self, schema: &Schema) -> String {
        let names: Vec<&str> = self
            .steps
            .iter()
            .map(|step| &*schema.field(*step).name)
            .collect();
        names.join(".")
    }
}

/// A path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No name between two dots, or none at all.
    #[error("`{path}` has an empty part")]
    Empty {
        /// What was asked for.
        path: String,
    },
    /// The message has no such field.
    #[error("{message} has no field `{part}`")]
    Unknown {
        /// The full name of the message.
        message: String,
        /// The part of the path.
        part: String,
    },
    /// The path goes on below something that has no fields.
    #[error("`{part}` of {message} is no message")]
    NoMessage {
        /// The full name of the message that has the field.
        message: String,
        /// The part of the path.
        part: String,
    },
    /// The path goes on below a list or a map.
    #[error("`{part}` of {message} holds many")]
    Many {
        /// The full name of the message that has the field.
        message: String,
        /// The part of the path.
        part: String,
    },
    /// More parts than messages may be nested.
    #[error("more than {LONGEST} parts")]
    Long,
}

/// Parts of a path.
const LONGEST: usize = 32;

impl Schema {
    /// The path that is written `dotted`, each part by either name of its field.
    pub fn path(&self, message: MessageId, dotted: &str) -> Result<FieldPath, PathError> {
        let mut steps = SmallVec::new();
        let mut below = Some(message);
        let mut before: Option<&Field> = None;
        for part in dotted.split('.') {
            if part.is_empty() {
                let path = dotted.to_owned();
                return Err(PathError::Empty { path });
            }
            if steps.len() >= LONGEST {
                return Err(PathError::Long);
            }
            let message = match (below, before) {
                (Some(message), _) => message,
                (None, Some(field)) => return Err(self.dead_end(field)),
                (None, None) => return Err(PathError::Long),
            };
            let Some(field) = self.field_by_name(message, part) else {
                return Err(PathError::Unknown {
                    message: self.message_of(message).name.to_string(),
                    part: part.to_owned(),
                });
            };
            steps.push(field.id);
            below = field
                .child()
                .filter(|_| field.cardinality == Cardinality::Singular);
            before = Some(field);
        }
        Ok(FieldPath { steps })
    }

    fn dead_end(&self, field: &Field) -> PathError {
        let message = self.message_of(field.message).name.to_string();
        let part = field.name.to_string();
        match field.cardinality {
            Cardinality::Singular => PathError::NoMessage { message, part },
            Cardinality::Repeated | Cardinality::Map => PathError::Many { message, part },
        }
    }
}
