//! Bound values into the body: one pass over what the body wrote, which is copied and opened where a bound value belongs inside.

use super::bind::{Bindings, Content, Leaf, Node};
use super::output::Output;
use crate::transcode::codec_error::{CodecError, Fault, in_field};
use crate::transcode::schema::{Cardinality, Field, Kind, Message, Schema};
use crate::transcode::wire::{Fields, Value, put_bytes};

impl Bindings {
    /// The body with everything bound.
    pub(super) fn merge(
        &self,
        schema: &Schema,
        message: &Message,
        body: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let mut out = Output::with_capacity(body.len() + 64);
        merge(schema, message, body, &self.nodes, &mut out)?;
        Ok(out.finish())
    }
}

/// Where the body has something of a node.
#[derive(Clone, Copy, Debug)]
struct Found<'b> {
    node: usize,
    /// From the tag on.
    whole: &'b [u8],
    value: Value<'b>,
}

fn merge(
    schema: &Schema,
    message: &Message,
    body: &[u8],
    nodes: &[Node],
    out: &mut Output,
) -> Result<(), Fault> {
    let mut is_there = vec![false; nodes.len()];
    let mut fields = Fields::of(body);
    loop {
        let before = fields.rest();
        let Some((number, value)) = fields.next()? else {
            break;
        };
        let length = before.len() - fields.rest().len();
        let whole = before.get(..length).unwrap_or_default();
        let Some(field) = schema.numbered_field(message, number) else {
            out.bytes.extend_from_slice(whole);
            continue;
        };
        refuse_other_members(schema, field, nodes)?;
        match nodes.iter().position(|node| node.field == field.id) {
            None => out.bytes.extend_from_slice(whole),
            Some(node) => {
                let found = Found { node, whole, value };
                join(schema, field, nodes, found, out)?;
                if let Some(there) = is_there.get_mut(node) {
                    *there = true;
                }
            }
        }
    }
    for (node, is_there) in nodes.iter().zip(is_there) {
        if !is_there {
            append(schema, node, out)?;
        }
    }
    Ok(())
}

/// A field of the body that is bound as well, or has bound fields below it.
fn join(
    schema: &Schema,
    field: &Field,
    nodes: &[Node],
    found: Found<'_>,
    out: &mut Output,
) -> Result<(), Fault> {
    match (nodes.get(found.node).map(|node| &node.content), found.value) {
        (Some(Content::Below(nodes)), Value::Bytes(body) | Value::Group(body)) => {
            below(schema, field, body, nodes, out)
        }
        (Some(Content::Value(leaf)), _) if same(field, leaf, found.whole) => {
            out.bytes.extend_from_slice(found.whole);
            Ok(())
        }
        _ => {
            let fault = CodecError::fault("differs between the body and the path or query");
            Err(in_field(fault, &field.name))
        }
    }
}

/// Whether the body says what is bound. Of a list it never does: there, one could be part of the other.
fn same(field: &Field, leaf: &Leaf, whole: &[u8]) -> bool {
    leaf.bytes == whole && field.cardinality == Cardinality::Singular
}

fn refuse_other_members(schema: &Schema, field: &Field, nodes: &[Node]) -> Result<(), Fault> {
    if field.oneof.is_none() {
        return Ok(());
    }
    let is_other =
        |node: &&Node| node.field != field.id && schema.field(node.field).oneof == field.oneof;
    match nodes.iter().find(is_other) {
        None => Ok(()),
        Some(node) => {
            let what = "another member of its oneof is in the body";
            Err(in_field(
                CodecError::fault(what),
                &schema.field(node.field).name,
            ))
        }
    }
}

fn append(schema: &Schema, node: &Node, out: &mut Output) -> Result<(), Fault> {
    let field = schema.field(node.field);
    match &node.content {
        Content::Below(nodes) => below(schema, field, &[], nodes, out),
        Content::Value(leaf) if field.is_packed => {
            field.second_tag.put(&mut out.bytes);
            put_bytes(&mut out.bytes, &leaf.bytes);
            Ok(())
        }
        Content::Value(leaf) => {
            out.bytes.extend_from_slice(&leaf.bytes);
            Ok(())
        }
    }
}

fn below(
    schema: &Schema,
    field: &Field,
    body: &[u8],
    nodes: &[Node],
    out: &mut Output,
) -> Result<(), Fault> {
    let (is_group, child) = match field.kind {
        Kind::Group(child) => (true, child),
        Kind::Message(child) => (false, child),
        _ => return Err(in_field(CodecError::fault("has no fields"), &field.name)),
    };
    let message = schema.message_of(child);
    field.tag.put(&mut out.bytes);
    if is_group {
        let merged = merge(schema, message, body, nodes, out);
        merged.map_err(|fault| in_field(fault, &field.name))?;
        field.second_tag.put(&mut out.bytes);
        return Ok(());
    }
    let opened = out.open();
    let merged = merge(schema, message, body, nodes, out);
    merged.map_err(|fault| in_field(fault, &field.name))?;
    out.close(opened);
    Ok(())
}
