//! What stands where in a message: every occurrence of every known field, in the order of the definition.

use smallvec::SmallVec;

use crate::transcode::codec_error::Fault;
use crate::transcode::schema::{Cardinality, Field, Kind, Message, Schema};
use crate::transcode::wire::{Fields, Value, WireType};

/// One occurrence of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occurrence<'w> {
    /// Of the field, among those of its message.
    pub(super) at: u32,
    /// Among the occurrences of the message.
    order: u32,
    pub(super) value: Value<'w>,
}

impl Occurrence<'_> {
    /// The number of the field.
    pub(super) fn at_number(&self, schema: &Schema, message: &Message) -> u32 {
        let field = schema.fields_of(message).get(self.at as usize);
        field.map_or(0, |field| field.number)
    }
}

/// The member of a oneof that was set last, and since when.
#[derive(Clone, Copy, Debug, Default)]
struct Winner {
    at: Option<u32>,
    since: u32,
}

/// Appends the occurrences in a message, whose bytes may lie in several places: they count as one after the other. Fields that are not
/// known, or of another wire type than theirs, are passed over, and so are members of a oneof that another one replaced.
pub(super) fn index<'w>(
    schema: &Schema,
    message: &Message,
    segments: &[&'w [u8]],
    found: &mut Vec<Occurrence<'w>>,
) -> Result<(), Fault> {
    let base = found.len();
    let fields = schema.fields_of(message);
    let mut winners: SmallVec<[Winner; 8]> = SmallVec::new();
    winners.resize(message.oneofs.len(), Winner::default());
    let (mut is_sorted, mut has_losers) = (true, false);
    let (mut order, mut last) = (0, 0);
    for segment in segments {
        let mut wire = Fields::of(segment);
        while let Some((number, value)) = wire.next()? {
            let (number, value) = match (number, value) {
                (1, Value::Group(item)) if message.is_message_set => match set_item(item)? {
                    Some(item) => item,
                    None => continue,
                },
                other => other,
            };
            let Some(at) = message.place_of(number) else {
                continue;
            };
            let Some(field) = fields.get(at as usize) else {
                continue;
            };
            if !fits(schema, field, value) {
                continue;
            }
            if let Some(winner) = field
                .oneof
                .and_then(|oneof| winners.get_mut(oneof as usize))
                && winner.at != Some(at)
            {
                has_losers |= winner.at.is_some();
                *winner = Winner {
                    at: Some(at),
                    since: order,
                };
            }
            is_sorted &= at >= last;
            last = at;
            found.push(Occurrence { at, order, value });
            order += 1;
        }
    }
    if has_losers {
        drop_losers(fields, &winners, base, found);
    }
    if !is_sorted {
        let own = found.get_mut(base..).unwrap_or_default();
        own.sort_unstable_by_key(|occurrence| (occurrence.at, occurrence.order));
    }
    Ok(())
}

/// Only what was found in this message is gone through: what stands before it may be long, and there may be many such messages.
fn drop_losers(fields: &[Field], winners: &[Winner], base: usize, found: &mut Vec<Occurrence<'_>>) {
    let is_kept = |occurrence: &Occurrence<'_>| {
        let field = fields.get(occurrence.at as usize);
        let oneof = field.and_then(|field| field.oneof);
        let winner = oneof.and_then(|oneof| winners.get(oneof as usize));
        winner.is_none_or(|winner| {
            winner.at == Some(occurrence.at) && occurrence.order >= winner.since
        })
    };
    let mut end = base;
    for at in base..found.len() {
        if found.get(at).is_some_and(is_kept) {
            found.swap(end, at);
            end += 1;
        }
    }
    found.truncate(end);
}

/// Whether a value can be one of the field.
#[inline]
pub(super) fn fits(schema: &Schema, field: &Field, value: Value<'_>) -> bool {
    let wire_type = match value {
        Value::Varint(number) => match field.kind {
            // A closed enum keeps numbers it has no name for among the unknown fields.
            Kind::Enum(id) => {
                let definition = schema.enum_of(id);
                return definition.is_open || definition.by_number(number as i32).is_some();
            }
            _ => WireType::Varint,
        },
        Value::Fixed64(_) => WireType::Fixed64,
        Value::Fixed32(_) => WireType::Fixed32,
        Value::Group(_) => WireType::GroupStart,
        Value::Bytes(bytes) => {
            let packs = field.cardinality == Cardinality::Repeated && field.kind.is_packable();
            if packs {
                return !bytes.is_empty();
            }
            WireType::Bytes
        }
    };
    field.kind.wire_type() == wire_type
}

/// The extension that an item of a message set stands for.
fn set_item(item: &[u8]) -> Result<Option<(u32, Value<'_>)>, Fault> {
    let (mut number, mut content) = (None, None);
    let mut fields = Fields::of(item);
    while let Some((at, value)) = fields.next()? {
        match (at, value) {
            (2, Value::Varint(id)) => number = u32::try_from(id).ok(),
            (3, Value::Bytes(_)) => content = Some(value),
            _ => {}
        }
    }
    Ok(number.zip(content))
}
