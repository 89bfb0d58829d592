//! How a segment is laid out, byte by byte.
//!
//! A segment is a header of 256 bytes, whose first word is written last, and frames that follow on each other, each beginning at a multiple of 8:
//!
//! ```text
//! commit word, 8 bytes: length of the body (16 bits), kind (8), mark (8), CRC-32 (32)
//! body, padded with zeros to a multiple of 8
//! ```
//!
//! The commit word is written last, so a frame is there or it is not. A body holds no reference to another record: sequence number and
//! time are absolute, so one broken frame takes no other with it. Names are the exception: they are defined once and then referred to by
//! number; no number is used twice in a segment, so a lost definition makes records unreadable and never somebody else's. The name of a
//! plan is defined together with the currency of its prices: another currency is another number, and a record that says in what it is
//! billed is no longer for it. Cost units of one's own names stand in records of a kind of their own; all others are as short as ever.
//! The checksum also covers where the frame stands and is seeded with run, shard and index of the segment: bytes that were moved, or that somebody
//! wrote into a name, are no frame. Numbers are little-endian, or variable-length with 7 bits a byte (LEB128).

use std::sync::Arc;

use crc32fast::Hasher;
use tollgate_proto::{Meters, RunId, UsageOutcome, UsageRecord};

use super::parse::Rest;

/// Bytes of a segment's header.
pub const HEADER: usize = 256;

/// Frames begin at multiples of this.
pub const ALIGN: usize = 8;

/// Bytes of a commit word.
pub const WORD: usize = 8;

/// Longest body: a definition with the longest name and the longest currency.
pub const LONGEST_BODY: usize = 5 + LONGEST_CURRENCY + LONGEST_NAME;

/// Bytes of a name; what is longer is cut. Names come from files whose own limit lies far below.
pub const LONGEST_NAME: usize = 1024;

/// Bytes of a currency; what is longer is cut. Plans name theirs in three letters.
const LONGEST_CURRENCY: usize = 15;

/// Bytes of a node's name, so that it fits the header.
pub const LONGEST_NODE: usize = HEADER - NODE_AT - 4;

const NODE_AT: usize = 52;
const MAGIC: &[u8; 8] = b"TGUSAGE\0";
/// From 2 on there are plans with currencies, and records with named meters. What was written before reads the same.
const VERSION: u32 = 2;
const FIRST_VERSION: u32 = 1;
pub(super) const MARK: u8 = 0xA7;
pub(super) const NAME: u8 = 1;
pub(super) const RECORD: u8 = 2;
pub(super) const CLOSING: u8 = 3;
pub(super) const METERED: u8 = 4;
pub(super) const PLAN: u8 = 5;

/// Names every record refers to.
const FIXED_NAMES: usize = 6;

/// Names a record refers to at most.
pub const NAMES_PER_RECORD: usize = FIXED_NAMES + Meters::MOST;

/// Which segment this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The life of the process that wrote it.
    pub run: RunId,
    /// The writer within the process.
    pub shard: u32,
    /// Counted from 0 for each shard.
    pub index: u64,
}

impl Place {
    /// What the checksums of this segment begin with.
    pub fn seed(&self) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&self.run.0.to_le_bytes());
        hasher.update(&self.shard.to_le_bytes());
        hasher.update(&self.index.to_le_bytes());
        hasher.finalize()
    }
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The node that wrote it.
    pub node: Arc<str>,
    /// Which segment it is.
    pub place: Place,
    /// Sequence number of its first record.
    pub first: u64,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// It was not completed: a segment that was prepared and never used.
    Blank,
    /// Another version of this program wrote it.
    Version(u32),
    /// It does not verify.
    Damaged,
}

impl Header {
    /// As written to disk. A node's name longer than [`LONGEST_NODE`] is cut.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let node = cut(&self.node, LONGEST_NODE);
        let mut rest: &mut [u8] = &mut bytes;
        put(&mut rest, MAGIC);
        put(&mut rest, &VERSION.to_le_bytes());
        put(&mut rest, &self.place.shard.to_le_bytes());
        put(&mut rest, &self.place.run.0.to_le_bytes());
        put(&mut rest, &self.place.index.to_le_bytes());
        put(&mut rest, &self.first.to_le_bytes());
        put(
            &mut rest,
            &u32::try_from(node.len()).unwrap_or(0).to_le_bytes(),
        );
        put(&mut rest, node.as_bytes());
        if let Some((covered, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32fast::hash(covered).to_le_bytes();
        }
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// See [`NoHeader`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let bytes = bytes.get(..HEADER).ok_or(NoHeader::Damaged)?;
        if bytes.first_chunk() == Some(&[0; WORD]) {
            return Err(NoHeader::Blank);
        }
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(NoHeader::Damaged)?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            return Err(NoHeader::Damaged);
        }
        Self::fields(covered)?.ok_or(NoHeader::Damaged)
    }

    fn fields(covered: &[u8]) -> Result<Option<Self>, NoHeader> {
        let mut rest = Rest(covered);
        if rest.array::<8>().as_ref() != Some(MAGIC) {
            return Ok(None);
        }
        match rest.array().map(u32::from_le_bytes) {
            Some(FIRST_VERSION..=VERSION) => {}
            Some(other) => return Err(NoHeader::Version(other)),
            None => return Ok(None),
        }
        Ok((|| {
            let shard = u32::from_le_bytes(rest.array()?);
            let run = RunId(u128::from_le_bytes(rest.array()?));
            let index = u64::from_le_bytes(rest.array()?);
            let first = u64::from_le_bytes(rest.array()?);
            let length = usize::try_from(u32::from_le_bytes(rest.array()?)).ok()?;
            let node = std::str::from_utf8(rest.0.get(..length)?).ok()?;
            Some(Self {
                node: node.into(),
                place: Place { run, shard, index },
                first,
            })
        })())
    }
}

fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    if let Some((head, tail)) = std::mem::take(rest).split_at_mut_checked(bytes.len()) {
        head.copy_from_slice(bytes);
        *rest = tail;
    }
}

/// The longest beginning of `text` that has at most `limit` bytes and ends between characters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// A frame being put together. It is kept and used again: nothing is allocated.
#[derive(Debug)]
pub struct Frame {
    /// Offset (4), length (2), kind (1), 0 (1): what the checksum covers before the body. Then the body, then zeros.
    bytes: [u8; WORD + LONGEST_BODY],
    /// Bytes in use, with the first eight.
    length: usize,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            bytes: [0; WORD + LONGEST_BODY],
            length: WORD,
        }
    }
}

impl Frame {
    /// A definition: `number` stands for `name` from here on.
    pub fn name(&mut self, number: u32, name: Name<'_>) {
        self.begin(name.currency.map_or(NAME, |_| PLAN));
        self.put(&number.to_le_bytes());
        if let Some(currency) = name.currency {
            let currency = cut(currency, LONGEST_CURRENCY);
            self.put(&[u8::try_from(currency.len()).unwrap_or(0)]);
            self.put(currency.as_bytes());
        }
        self.put(cut(name.text, LONGEST_NAME).as_bytes());
    }

    /// A record, with the numbers of its names in the order of [`names`].
    pub fn record(&mut self, sequence: u64, record: &UsageRecord, names: &[u32; NAMES_PER_RECORD]) {
        let metered = record.units.named().next().is_some();
        self.begin(if metered { METERED } else { RECORD });
        self.fields(sequence, record, names);
        if metered {
            let meters = names.get(FIXED_NAMES..).unwrap_or_default();
            self.meters(&record.units, meters);
        }
        let stream = stream(record);
        // Most calls are none, and their records stay as they were.
        if stream != [0; 3] {
            for number in stream {
                self.varint(number);
            }
        }
    }

    /// What records of both kinds begin with.
    fn fields(&mut self, sequence: u64, record: &UsageRecord, names: &[u32]) {
        self.put(&sequence.to_le_bytes());
        let at = record.at.millis();
        // Signed to unsigned so that small numbers of either sign stay short.
        self.varint(((at << 1) ^ (at >> 63)).cast_unsigned());
        for number in names.iter().take(FIXED_NAMES) {
            self.varint((*number).into());
        }
        self.varint(record.price_version.into());
        self.put(&[outcome_code(record.outcome)]);
        self.varint(record.calls.into());
        self.varint(record.units.unnamed());
        self.varint(record.money);
        self.varint(record.request_bytes);
        self.varint(record.response_bytes);
        self.varint(record.cpu_nanos);
        self.varint(record.micros);
    }

    /// How many names there are, and each with its amount.
    fn meters(&mut self, units: &Meters, numbers: &[u32]) {
        self.varint(u64::try_from(units.named().count()).unwrap_or(0));
        for (number, (_, amount)) in numbers.iter().zip(units.named()) {
            self.varint((*number).into());
            self.varint(amount);
        }
    }

    /// The end: no record has the number `next` or a later one.
    pub fn closing(&mut self, next: u64) {
        self.begin(CLOSING);
        self.put(&next.to_le_bytes());
    }

    /// Bytes it takes in a segment: word, body, padding.
    pub fn size(&self) -> usize {
        self.length.next_multiple_of(ALIGN)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(WORD..self.length).unwrap_or_default()
    }

    /// The commit word of this frame at `offset` of a segment with this seed.
    pub fn word(&mut self, offset: u32, seed: u32) -> u64 {
        let length = u16::try_from(self.length - WORD).unwrap_or(0);
        let [.., kind, _] = *self.prefix();
        *self.prefix() = prefix(offset, length, kind);
        let mut hasher = Hasher::new_with_initial(seed);
        hasher.update(self.bytes.get(..self.length).unwrap_or_default());
        word(length, kind, hasher.finalize())
    }

    fn begin(&mut self, kind: u8) {
        *self.prefix() = prefix(0, 0, kind);
        self.length = WORD;
    }

    fn prefix(&mut self) -> &mut [u8; WORD] {
        let (first, _) = self.bytes.as_chunks_mut::<WORD>();
        match first {
            [prefix, ..] => prefix,
            // The array is longer than that.
            [] => unreachable!(),
        }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(bytes);
            self.length = end;
        } else {
            debug_assert!(false, "a body is never longer than the longest");
        }
    }

    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(&[low_byte(value) | 0x80]);
            value >>= 7;
        }
        self.put(&[low_byte(value)]);
    }
}

fn low_byte(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}

pub(super) fn prefix(offset: u32, length: u16, kind: u8) -> [u8; WORD] {
    let [a, b, c, d] = offset.to_le_bytes();
    let [e, f] = length.to_le_bytes();
    [a, b, c, d, e, f, kind, 0]
}

fn word(length: u16, kind: u8, crc: u32) -> u64 {
    u64::from(length) | u64::from(kind) << 16 | u64::from(MARK) << 24 | u64::from(crc) << 32
}

/// A name, as a record refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'n> {
    /// The name.
    pub text: &'n Arc<str>,
    /// Of a plan: the currency of its prices.
    pub currency: Option<&'n Arc<str>>,
}

impl<'n> Name<'n> {
    fn plain(text: &'n Arc<str>) -> Self {
        Self {
            text,
            currency: None,
        }
    }

    /// The empty name. It is never defined, and has the number 0.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.currency.is_none()
    }
}

/// The names of a record, in the order their numbers are written.
pub fn names(record: &UsageRecord) -> impl Iterator<Item = Name<'_>> {
    let fixed = [
        &record.organisation,
        &record.project,
        &record.consumer,
        &record.api,
        &record.operation,
    ];
    let plan = Name {
        text: &record.plan,
        currency: Some(&record.currency).filter(|it| !it.is_empty()),
    };
    let meters = record.units.named().map(|(name, _)| Name::plain(name));
    let fixed = fixed.into_iter().map(Name::plain);
    fixed.chain([plan]).chain(meters)
}

fn stream(record: &UsageRecord) -> [u64; 3] {
    [
        record.stream_seconds,
        record.request_messages,
        record.response_messages,
    ]
}

/// Position in [`UsageOutcome::ALL`].
fn outcome_code(outcome: UsageOutcome) -> u8 {
    match outcome {
        UsageOutcome::Served => 0,
        UsageOutcome::ClientError => 1,
        UsageOutcome::ServerError => 2,
        UsageOutcome::Failed => 3,
        UsageOutcome::Aborted => 4,
    }
}
