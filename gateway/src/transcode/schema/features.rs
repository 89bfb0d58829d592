//! What an edition, a syntax and the `features` of options come to for one part of a definition.

use super::raw::{File, Options};
use crate::transcode::wire::{Fields, Malformed, Value};

const EDITION_PROTO2: u64 = 998;
const EDITION_PROTO3: u64 = 999;
const EDITION_2023: u64 = 1000;
const EDITION_2024: u64 = 1001;

/// The number of `features` in the options of each kind of part.
pub(super) mod of {
    pub(in super::super) const FILE: u32 = 50;
    pub(in super::super) const MESSAGE: u32 = 12;
    pub(in super::super) const FIELD: u32 = 21;
    pub(in super::super) const ENUM: u32 = 7;
}

/// What is in force where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) presence: Presence,
    /// Enums keep numbers they have no name for.
    pub(super) open_enums: bool,
    pub(super) packed: bool,
    /// Messages stand between tags instead of behind a length.
    pub(super) delimited: bool,
}

/// Whether a field that is set to its default can be told from one that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Explicit,
    Implicit,
    Required,
}

impl Features {
    /// Of a file; `None` for an edition that is not known.
    pub(super) fn of_file(file: &File<'_>) -> Result<Option<Self>, Malformed> {
        let edition = match (file.syntax, file.edition) {
            ("editions", edition) => edition,
            ("proto3", _) => EDITION_PROTO3,
            ("" | "proto2", 0) => EDITION_PROTO2,
            ("" | "proto2", edition) => edition,
            _ => return Ok(None),
        };
        let defaults = match edition {
            EDITION_PROTO2 => Self {
                presence: Presence::Explicit,
                open_enums: false,
                packed: false,
                delimited: false,
            },
            EDITION_PROTO3 => Self {
                presence: Presence::Implicit,
                open_enums: true,
                packed: true,
                delimited: false,
            },
            EDITION_2023 | EDITION_2024 => Self {
                presence: Presence::Explicit,
                open_enums: true,
                packed: true,
                delimited: false,
            },
            _ => return Ok(None),
        };
        defaults.with(&file.options, of::FILE).map(Some)
    }

    /// These, changed by the options of a part within.
    pub(super) fn with(mut self, options: &Options<'_>, features: u32) -> Result<Self, Malformed> {
        let mut fields = Fields::of(options.bytes());
        while let Some((number, value)) = fields.next()? {
            if let (true, Value::Bytes(set)) = (number == features, value) {
                self.change(set)?;
            }
        }
        Ok(self)
    }

    fn change(&mut self, set: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields::of(set);
        while let Some((number, value)) = fields.next()? {
            let Value::Varint(value) = value else {
                continue;
            };
            match (number, value) {
                (1, 1) => self.presence = Presence::Explicit,
                (1, 2) => self.presence = Presence::Implicit,
                (1, 3) => self.presence = Presence::Required,
                (2, 1 | 2) => self.open_enums = value == 1,
                (3, 1 | 2) => self.packed = value == 1,
                (5, 1 | 2) => self.delimited = value == 2,
                _ => {}
            }
        }
        Ok(())
    }
}
