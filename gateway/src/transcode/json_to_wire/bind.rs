//! Values out of the path and the query, held as wire bytes by the field they are for.
//!
//! Held until all are there, because several may belong into one sub-message. Contradictions among them are refused here, those with the
//! body in `merge`.

use super::Bound;
use super::encoder::Slot;
use super::output::Output;
use super::scalar::put_text;
use super::well_known::{put_duration, put_field_mask, put_timestamp};
use crate::transcode::codec_error::{CodecError, Fault};
use crate::transcode::profile::Profile;
use crate::transcode::schema::{
    Cardinality, Field, FieldId, FieldPath, Kind, MessageId, Schema, WellKnown,
};

/// What is bound, as a tree of fields.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    pub(super) nodes: Vec<Node>,
}

/// A field that is bound, or has such fields below it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) field: FieldId,
    pub(super) content: Content,
}

/// What a node stands for.
#[derive(Debug)]
pub(super) enum Content {
    /// A sub-message, of which fields are bound.
    Below(Vec<Node>),
    /// A value, or the elements of a list.
    Value(Leaf),
}

/// A bound value.
#[derive(Debug)]
pub(super) struct Leaf {
    by: Bound,
    /// With tags; the elements of a packed list without.
    pub(super) bytes: Vec<u8>,
}

impl Bindings {
    pub(super) const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds one value.
    pub(super) fn add(
        &mut self,
        schema: &Schema,
        profile: &Profile,
        path: &FieldPath,
        text: &str,
        by: Bound,
    ) -> Result<(), Fault> {
        let named = |what: &str| {
            let mut fault = CodecError::fault(what.to_owned());
            fault.path = path.dotted(schema);
            fault
        };
        let last = path.last(schema);
        let bytes = encoded(schema, profile, last, text).map_err(|mut fault| {
            fault.path = path.dotted(schema);
            fault
        })?;
        let leaf = Leaf { by, bytes };
        let added = put(schema, &mut self.nodes, path.steps(), leaf);
        added.map_err(named)
    }
}

/// Puts a value where the steps lead.
fn put(
    schema: &Schema,
    nodes: &mut Vec<Node>,
    steps: &[FieldId],
    leaf: Leaf,
) -> Result<(), &'static str> {
    let Some((&step, below)) = steps.split_first() else {
        return Ok(());
    };
    let field = schema.field(step);
    let in_same_oneof =
        |node: &Node| node.field != step && schema.field(node.field).oneof == field.oneof;
    if field.oneof.is_some() && nodes.iter().any(in_same_oneof) {
        return Err("another member of its oneof is given as well");
    }
    let Some(node) = nodes.iter_mut().find(|node| node.field == step) else {
        let content = if below.is_empty() {
            Content::Value(leaf)
        } else {
            let mut nodes = Vec::new();
            put(schema, &mut nodes, below, leaf)?;
            Content::Below(nodes)
        };
        let field = step;
        nodes.push(Node { field, content });
        return Ok(());
    };
    match &mut node.content {
        Content::Below(nodes) if !below.is_empty() => put(schema, nodes, below, leaf),
        Content::Value(known) if below.is_empty() => known.join(field, leaf),
        Content::Below(_) | Content::Value(_) => Err("is given as a whole and in parts"),
    }
}

impl Leaf {
    fn join(&mut self, field: &Field, more: Self) -> Result<(), &'static str> {
        let is_repeated = field.cardinality == Cardinality::Repeated;
        match (self.by == more.by, is_repeated) {
            (true, true) => self.bytes.extend_from_slice(&more.bytes),
            (true, false) => return Err("is given twice"),
            (false, _) if self.bytes == more.bytes => {}
            (false, _) => return Err("differs between path and query"),
        }
        Ok(())
    }
}

fn encoded(
    schema: &Schema,
    profile: &Profile,
    field: &Field,
    text: &str,
) -> Result<Vec<u8>, Fault> {
    let slot = match field.cardinality {
        Cardinality::Singular => Slot::of(field),
        Cardinality::Repeated if field.is_packed => Slot::PACKED,
        Cardinality::Repeated => Slot::kept(field),
        Cardinality::Map => return Err(CodecError::fault("a map takes no parameter")),
    };
    let mut out = Output::default();
    match field.kind {
        Kind::Message(id) => {
            slot.put(&mut out.bytes);
            let opened = out.open();
            put_message(schema, profile, id, text, &mut out.bytes)?;
            out.close(opened);
        }
        Kind::Group(_) => return Err(CodecError::fault(NO_SCALAR)),
        kind => put_text(schema, profile, kind, text, slot, &mut out.bytes)?,
    }
    Ok(out.finish())
}

const NO_SCALAR: &str = "a message takes no parameter";

/// The content of a message that has a text form.
fn put_message(
    schema: &Schema,
    profile: &Profile,
    id: MessageId,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let message = schema.message_of(id);
    match message.well_known {
        Some(WellKnown::Timestamp) => put_timestamp(text, out),
        Some(WellKnown::Duration) => put_duration(text, out),
        Some(WellKnown::FieldMask) => put_field_mask(text, true, out),
        Some(WellKnown::Wrapper) => match schema.numbered_field(message, 1) {
            Some(field) => put_text(schema, profile, field.kind, text, Slot::of(field), out),
            None => Err(CodecError::fault(NO_SCALAR)),
        },
        Some(WellKnown::Any | WellKnown::Struct | WellKnown::Value | WellKnown::ListValue)
        | None => Err(CodecError::fault(NO_SCALAR)),
    }
}

/// Whether a field can be bound to a parameter: what has a text form, or lists of it.
pub fn is_bindable(schema: &Schema, field: &Field) -> bool {
    let has_text = match field.kind {
        Kind::Message(id) => matches!(
            schema.message_of(id).well_known,
            Some(
                WellKnown::Timestamp
                    | WellKnown::Duration
                    | WellKnown::FieldMask
                    | WellKnown::Wrapper
            )
        ),
        Kind::Group(_) => false,
        _ => true,
    };
    has_text && field.cardinality != Cardinality::Map
}
