//! Maps: an object whose names are keys.

use smallvec::SmallVec;

use super::encoder::{Encoder, Slot};
use super::scalar::put_text;
use crate::transcode::codec_error::{CodecError, Fault, in_key};
use crate::transcode::schema::Field;

/// Up to so many keys are compared with each other as they come; more are sorted at the end.
const FEW: usize = 16;

/// Where the keys of a map stand in the output.
type Keys = SmallVec<[(usize, usize); FEW]>;

impl<'s> Encoder<'s, '_> {
    /// One entry after the other. Key and value are written even where they are defaults: not every reader takes the liberty the
    /// format gives.
    pub(super) fn map(&mut self, field: &'s Field) -> Result<(), Fault> {
        let Some((key, value)) = self.schema.map_entry(field) else {
            return Err(CodecError::fault("is no valid map"));
        };
        let mut keys = Keys::new();
        let mut first = true;
        self.json.open_object()?;
        while let Some(name) = self.json.member(&mut first)? {
            let written = self.entry(field, key, value, &name, &mut keys);
            written.map_err(|fault| in_key(fault, &name))?;
        }
        if keys.len() > FEW && self.any_twice(&mut keys) {
            return Err(CodecError::fault("has the same key twice"));
        }
        Ok(())
    }

    fn entry(
        &mut self,
        field: &'s Field,
        key: &'s Field,
        value: &'s Field,
        name: &str,
        keys: &mut Keys,
    ) -> Result<(), Fault> {
        if self.json.peek() == b'n' && !self.kind_takes_null(value.kind) {
            return Err(CodecError::fault("null in a map"));
        }
        let before = self.out.mark();
        field.tag.put(&mut self.out.bytes);
        let opened = self.out.open();
        let start = self.out.bytes.len();
        let slot = Slot::kept(key);
        put_text(
            self.schema,
            &self.profile,
            key.kind,
            name,
            slot,
            &mut self.out.bytes,
        )?;
        let place = (start, self.out.bytes.len());
        if keys.len() <= FEW {
            let same = |known: &(usize, usize)| self.key(*known) == self.key(place);
            if keys.iter().any(same) {
                return Err(CodecError::fault("is there twice"));
            }
        }
        if self.single(value, Slot::kept(value))? {
            self.out.close(opened);
            keys.push(place);
        } else {
            self.out.undo(before);
        }
        Ok(())
    }

    fn key(&self, (start, end): (usize, usize)) -> &[u8] {
        self.out.bytes.get(start..end).unwrap_or_default()
    }

    fn any_twice(&self, keys: &mut Keys) -> bool {
        keys.sort_unstable_by(|a, b| self.key(*a).cmp(self.key(*b)));
        keys.windows(2).any(|pair| match pair {
            [a, b] => self.key(*a) == self.key(*b),
            _ => false,
        })
    }
}
