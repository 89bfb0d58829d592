//! Maps as objects.

use std::cmp::Ordering;
use std::ops::Range;

use smallvec::SmallVec;

use super::index::fits;
use super::printer::{Printer, content_of};
use super::scalar::quote;
use crate::transcode::codec_error::{CodecError, Fault, in_key};
use crate::transcode::schema::{Field, Kind};
use crate::transcode::wire::{Fields, Value, unzigzag};

/// Up to so many entries are compared with each other; more are sorted.
const FEW: usize = 16;

/// A key by what it means, so that two spellings of one are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'w> {
    Text(&'w [u8]),
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
}

#[derive(Clone, Copy, Debug)]
struct Entry<'w> {
    key: Key<'w>,
    /// The last one; nothing stands for the default.
    value: Option<Value<'w>>,
    /// The whole entry, if a message is split in it.
    split: Option<&'w [u8]>,
    /// A later entry has the same key.
    is_replaced: bool,
}

impl<'s, 'w> Printer<'s, 'w, '_> {
    /// Of several entries of one key the last is printed.
    pub(super) fn map(&mut self, field: &'s Field, found: Range<usize>) -> Result<(), Fault> {
        let Some((key, value)) = self.schema.map_entry(field) else {
            return Err(CodecError::fault("is no valid map"));
        };
        let mut entries: SmallVec<[Entry<'w>; 4]> = SmallVec::new();
        for occurrence in self.found(found) {
            if let Some(wire) = content_of(occurrence.value)
                && let Some(entry) = self.entry(key, value, wire)?
            {
                entries.push(entry);
            }
        }
        mark_replaced(&mut entries);
        self.out.push(b'{');
        let mut is_first = true;
        for entry in entries.iter().filter(|entry| !entry.is_replaced) {
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            self.map_key(entry.key)?;
            self.out.push(b':');
            let printed = self.map_value(value, entry);
            printed.map_err(|fault| in_key(fault, &shown(entry.key)))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Key and value of an entry; `None` for a value its closed enum does not have.
    fn entry(
        &self,
        key_field: &Field,
        value_field: &Field,
        wire: &'w [u8],
    ) -> Result<Option<Entry<'w>>, Fault> {
        let mut entry = Entry {
            key: key_of(key_field.kind, None),
            value: None,
            split: None,
            is_replaced: false,
        };
        let mut fields = Fields::of(wire);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 if fits(self.schema, key_field, value) => {
                    entry.key = key_of(key_field.kind, Some(value));
                }
                2 if fits(self.schema, value_field, value) => {
                    if entry.value.is_some() && value_field.child().is_some() {
                        entry.split = Some(wire);
                    }
                    entry.value = Some(value);
                }
                2 if matches!((value_field.kind, value), (Kind::Enum(_), Value::Varint(_))) => {
                    return Ok(None);
                }
                _ => {}
            }
        }
        Ok(Some(entry))
    }

    fn map_key(&mut self, key: Key<'_>) -> Result<(), Fault> {
        match key {
            Key::Text(bytes) => self.string(bytes)?,
            other => quote(&shown(other), self.out),
        }
        Ok(())
    }

    fn map_value(&mut self, field: &'s Field, entry: &Entry<'w>) -> Result<(), Fault> {
        let Some(child) = field.child() else {
            return match entry.value {
                Some(value) => self.scalar(field.kind, value),
                None => {
                    self.default(field.kind);
                    Ok(())
                }
            };
        };
        let message = self.schema.message_of(child);
        let Some(whole) = entry.split else {
            let wire = entry.value.and_then(content_of).unwrap_or_default();
            return self.message(message, &[wire]);
        };
        let mut places: SmallVec<[&[u8]; 4]> = SmallVec::new();
        let mut fields = Fields::of(whole);
        while let Some((number, value)) = fields.next()? {
            if number == 2 && fits(self.schema, field, value) {
                places.extend(content_of(value));
            }
        }
        self.message(message, &places)
    }
}

fn key_of(kind: Kind, value: Option<Value<'_>>) -> Key<'_> {
    match (kind, value) {
        (Kind::String, Some(Value::Bytes(text))) => Key::Text(text),
        (Kind::String, _) => Key::Text(b""),
        (kind, value) => {
            let bits = match value {
                Some(Value::Varint(bits) | Value::Fixed64(bits)) => bits,
                Some(Value::Fixed32(bits)) => u64::from(bits),
                Some(Value::Bytes(_) | Value::Group(_)) | None => 0,
            };
            match kind {
                Kind::Bool => Key::Bool(bits != 0),
                Kind::Int32 | Kind::Sfixed32 => Key::Signed(i64::from(bits as i32)),
                Kind::Sint32 => Key::Signed(unzigzag(u64::from(bits as u32))),
                Kind::Int64 | Kind::Sfixed64 => Key::Signed(bits.cast_signed()),
                Kind::Sint64 => Key::Signed(unzigzag(bits)),
                Kind::Uint32 => Key::Unsigned(u64::from(bits as u32)),
                _ => Key::Unsigned(bits),
            }
        }
    }
}

fn shown(key: Key<'_>) -> String {
    match key {
        Key::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Key::Bool(key) => key.to_string(),
        Key::Signed(key) => key.to_string(),
        Key::Unsigned(key) => key.to_string(),
    }
}

fn mark_replaced(entries: &mut [Entry<'_>]) {
    if entries.len() <= FEW {
        let mut rest = entries;
        while let Some((first, later)) = rest.split_first_mut() {
            first.is_replaced = later.iter().any(|entry| entry.key == first.key);
            rest = later;
        }
        return;
    }
    let mut order: Vec<usize> = (0..entries.len()).collect();
    let key = |at: usize| entries.get(at).map(|entry| entry.key);
    order.sort_unstable_by(|a, b| match key(*a).cmp(&key(*b)) {
        Ordering::Equal => a.cmp(b),
        unequal => unequal,
    });
    let replaced: Vec<usize> = order
        .windows(2)
        .filter_map(|pair| match *pair {
            [earlier, later] if key(earlier) == key(later) => Some(earlier),
            _ => None,
        })
        .collect();
    for at in replaced {
        if let Some(entry) = entries.get_mut(at) {
            entry.is_replaced = true;
        }
    }
}
