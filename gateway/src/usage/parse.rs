//! Reads frames, as `frame.rs` lays them out: what verifies is what was written, and what does not is said to be none.

use std::sync::Arc;

use crc32fast::Hasher;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Meters, UsageOutcome, UsageRecord};

use super::frame::{ALIGN, CLOSING, LONGEST_BODY, MARK, METERED, NAME, PLAN, RECORD, WORD, prefix};

/// What a number stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defined {
    /// The name.
    pub text: Arc<str>,
    /// Of a plan: the currency of its prices. Empty for none.
    pub currency: Arc<str>,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are records")]
pub enum Entry {
    /// A number and what it stands for.
    Name(u32, Defined),
    /// A record and its sequence number.
    Record(u64, UsageRecord),
    /// No record has this number or a later one.
    Closing(u64),
    /// It verifies, and refers to a name whose definition is lost, or says what this version does not know.
    Unreadable,
}

/// What stands at a place.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "taken apart at once, never kept; a box would cost an allocation a record"
)]
pub enum Frames {
    /// A frame that verifies, and the bytes it takes.
    One(Entry, usize),
    /// What might be one, and goes on beyond the end of these bytes.
    Cut,
    /// No commit word.
    Blank,
    /// A commit word that does not fit what follows.
    Broken,
}

/// Reads the frame at the beginning of `bytes`, which stand at `offset` of the segment. `name` finds defined names.
pub fn read(bytes: &[u8], offset: u32, seed: u32, name: impl Fn(u32) -> Option<Defined>) -> Frames {
    let Some((word, rest)) = bytes.split_first_chunk::<WORD>() else {
        return Frames::Cut;
    };
    let [low, high, kind, mark, crc @ ..] = *word;
    if *word == [0; WORD] {
        return Frames::Blank;
    }
    let length = u16::from_le_bytes([low, high]);
    let taken = usize::from(length);
    if mark != MARK || taken > LONGEST_BODY {
        return Frames::Broken;
    }
    let Some(body) = rest.get(..taken) else {
        return Frames::Cut;
    };
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(&prefix(offset, length, kind));
    hasher.update(body);
    if hasher.finalize() != u32::from_le_bytes(crc) {
        return Frames::Broken;
    }
    let entry = match kind {
        NAME => definition(body),
        PLAN => plan(body),
        RECORD => record(body, name, false),
        METERED => record(body, name, true),
        CLOSING => body
            .as_array()
            .map(|next| Entry::Closing(u64::from_le_bytes(*next))),
        _ => None,
    };
    let size = (WORD + taken).next_multiple_of(ALIGN);
    Frames::One(entry.unwrap_or(Entry::Unreadable), size)
}

fn definition(body: &[u8]) -> Option<Entry> {
    let (number, name) = body.split_first_chunk()?;
    let name = std::str::from_utf8(name).ok()?;
    let defined = Defined {
        text: name.into(),
        currency: Arc::default(),
    };
    Some(Entry::Name(u32::from_le_bytes(*number), defined))
}

fn plan(body: &[u8]) -> Option<Entry> {
    let (number, rest) = body.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (currency, name) = rest.split_at_checked(usize::from(*length))?;
    let defined = Defined {
        text: std::str::from_utf8(name).ok()?.into(),
        currency: std::str::from_utf8(currency).ok()?.into(),
    };
    Some(Entry::Name(u32::from_le_bytes(*number), defined))
}

fn record(body: &[u8], name: impl Fn(u32) -> Option<Defined>, metered: bool) -> Option<Entry> {
    let mut rest = Rest(body);
    let sequence = u64::from_le_bytes(rest.array()?);
    let at = rest.varint()?;
    let at = (at >> 1).cast_signed() ^ -(at & 1).cast_signed();
    let mut named = || name(u32::try_from(rest.varint()?).ok()?);
    let (organisation, project) = (named()?.text, named()?.text);
    let (consumer, api, operation) = (named()?.text, named()?.text, named()?.text);
    let Defined {
        text: plan,
        currency,
    } = named()?;
    let mut record = UsageRecord {
        at: Timestamp::from_millis(at),
        organisation,
        project,
        consumer,
        api,
        operation,
        plan,
        price_version: u32::try_from(rest.varint()?).ok()?,
        currency,
        outcome: {
            let [code] = rest.array()?;
            *UsageOutcome::ALL.get(usize::from(code))?
        },
        calls: u32::try_from(rest.varint()?).ok()?,
        units: rest.varint()?.into(),
        money: rest.varint()?,
        request_bytes: rest.varint()?,
        response_bytes: rest.varint()?,
        cpu_nanos: rest.varint()?,
        micros: rest.varint()?,
        stream_seconds: 0,
        request_messages: 0,
        response_messages: 0,
    };
    if metered {
        meters(&mut rest, name, &mut record.units)?;
    }
    if !rest.0.is_empty() {
        record.stream_seconds = rest.varint()?;
        record.request_messages = rest.varint()?;
        record.response_messages = rest.varint()?;
    }
    rest.0.is_empty().then_some(Entry::Record(sequence, record))
}

fn meters(
    rest: &mut Rest<'_>,
    name: impl Fn(u32) -> Option<Defined>,
    units: &mut Meters,
) -> Option<()> {
    let count = usize::try_from(rest.varint()?).ok()?;
    if count > Meters::MOST {
        return None;
    }
    for _ in 0..count {
        let name = name(u32::try_from(rest.varint()?).ok()?)?;
        units.add(&name.text, rest.varint()?);
    }
    Some(())
}

/// What is left to read.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl Rest<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
