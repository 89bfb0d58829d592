//! Where the parts of a definition stand in their file, and what is written above them.

use std::collections::HashMap;

use crate::transcode::wire::{Fields, Malformed, Value, read_varint};

/// `SourceCodeInfo` of one file, by the path of field numbers and indexes that leads to a part.
#[derive(Debug, Default)]
pub(super) struct Comments<'a>(HashMap<Vec<u32>, Place<'a>>);

/// Of one part.
#[derive(Clone, Copy, Debug, Default)]
struct Place<'a> {
    line: Option<u32>,
    leading: &'a str,
    trailing: &'a str,
}

impl<'a> Comments<'a> {
    pub(super) fn read(&mut self, info: &'a [u8]) -> Result<(), Malformed> {
        let mut fields = Fields::of(info);
        while let Some((number, value)) = fields.next()? {
            if let (1, Value::Bytes(location)) = (number, value) {
                self.location(location)?;
            }
        }
        Ok(())
    }

    fn location(&mut self, location: &'a [u8]) -> Result<(), Malformed> {
        let mut place = Place::default();
        let (mut path, mut span) = (Vec::new(), Vec::new());
        let mut fields = Fields::of(location);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, value) => numbers(value, &mut path)?,
                (2, value) => numbers(value, &mut span)?,
                (3, Value::Bytes(text)) => place.leading = comment(text),
                (4, Value::Bytes(text)) => place.trailing = comment(text),
                _ => {}
            }
        }
        place.line = span.first().map(|line| line.saturating_add(1));
        // A part may stand at several places (`extend` blocks do): the first is the one to show.
        self.0.entry(path).or_insert(place);
        Ok(())
    }

    /// The line of a part, counted from 1.
    pub(super) fn line(&self, path: &[u32]) -> Option<u32> {
        self.0.get(path)?.line
    }

    /// What is written above a part, or else behind it.
    pub(super) fn comment(&self, path: &[u32]) -> Option<Box<str>> {
        let place = self.0.get(path)?;
        let text = if place.leading.is_empty() {
            place.trailing
        } else {
            place.leading
        };
        (!text.is_empty()).then(|| text.into())
    }
}

fn comment(text: &[u8]) -> &str {
    str::from_utf8(text).unwrap_or_default().trim()
}

fn numbers(value: Value<'_>, into: &mut Vec<u32>) -> Result<(), Malformed> {
    match value {
        Value::Varint(number) => into.push(number as u32),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                into.push(read_varint(&mut packed)? as u32);
            }
        }
        Value::Fixed64(_) | Value::Fixed32(_) | Value::Group(_) => {}
    }
    Ok(())
}
