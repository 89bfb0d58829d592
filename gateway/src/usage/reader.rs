//! Reads segments back: of this run while they are written, of former runs after a death, and damaged ones.
//!
//! Whatever the bytes are: no panic, no record that does not verify, none twice, and the numbers are those that were written. After
//! damage the search goes on at every place where a frame may begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tollgate_proto::UsageRecord;

use super::frame::{ALIGN, HEADER, Header, NoHeader, Place, WORD};
use super::parse::{Defined, Entry, Frames, read};

/// Bytes read at once; more than the longest frame.
const CHUNK: u64 = 128 * 1024;

/// Bytes the shortest definition takes: no number is greater than what stands before it allows.
const SHORTEST_DEFINITION: u64 = 16;

/// Finds frames in the bytes of a segment.
#[derive(Debug)]
pub struct Decoder {
    seed: u32,
    offset: u64,
    names: Vec<Option<Defined>>,
    /// The last place looked at was no frame.
    searching: bool,
    damaged: bool,
}

/// What comes next.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are records")]
pub enum Next {
    /// A record and its number.
    Record(u64, UsageRecord),
    /// No record has this number or a later one.
    Closing(u64),
    /// More bytes are needed, from [`Decoder::offset`] on.
    More,
    /// There is nothing more.
    End,
}

/// Where a reader stood.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    offset: u64,
    searching: bool,
}

impl Decoder {
    /// At the first frame of a segment.
    pub fn new(place: Place) -> Self {
        Self {
            seed: place.seed(),
            offset: u64::try_from(HEADER).unwrap_or(0),
            names: Vec::new(),
            searching: false,
            damaged: false,
        }
    }

    /// Where the next frame is looked for.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Something was there that could not be read. A tail that was never completed is not damage: nobody was told that it is there.
    pub fn damaged(&self) -> bool {
        self.damaged
    }

    /// The next record or closing in `bytes`, which stand at [`Self::offset`]; `last`: the segment ends with them.
    pub fn next(&mut self, bytes: &[u8], last: bool) -> Next {
        let mut rest = bytes;
        loop {
            let Ok(offset) = u32::try_from(self.offset) else {
                return Next::End;
            };
            let taken = match read(rest, offset, self.seed, |number| self.name(number)) {
                Frames::One(entry, size) => {
                    self.damaged |= self.searching;
                    self.searching = false;
                    self.offset += u64::try_from(size).unwrap_or(0);
                    match entry {
                        Entry::Name(number, name) => self.define(number, name),
                        Entry::Record(sequence, record) => return Next::Record(sequence, record),
                        Entry::Closing(next) => return Next::Closing(next),
                        Entry::Unreadable => self.damaged = true,
                    }
                    size
                }
                Frames::Cut if !last => return Next::More,
                Frames::Cut if rest.len() < WORD => return Next::End,
                // A length that reaches beyond the end is wrong.
                Frames::Broken | Frames::Cut => {
                    self.damaged |= !self.searching;
                    self.skip()
                }
                Frames::Blank => self.skip(),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Where it stands now.
    pub fn mark(&self) -> Mark {
        Mark {
            offset: self.offset,
            searching: self.searching,
        }
    }

    /// Goes back to where it stood.
    pub fn rewind(&mut self, mark: Mark) {
        self.offset = mark.offset;
        self.searching = mark.searching;
    }

    fn skip(&mut self) -> usize {
        self.searching = true;
        self.offset += u64::try_from(ALIGN).unwrap_or(0);
        ALIGN
    }

    fn name(&self, number: u32) -> Option<Defined> {
        match usize::try_from(number).ok()?.checked_sub(1) {
            None => Some(Defined::default()),
            Some(position) => self.names.get(position)?.clone(),
        }
    }

    fn define(&mut self, number: u32, name: Defined) {
        let position = usize::try_from(number).unwrap_or(0).checked_sub(1);
        let plausible = u64::from(number) <= self.offset / SHORTEST_DEFINITION;
        let (Some(position), true) = (position, plausible) else {
            self.damaged = true;
            return;
        };
        if self.names.len() <= position {
            self.names.resize(position + 1, None);
        }
        if let Some(slot) = self.names.get_mut(position) {
            *slot = Some(name);
        }
    }
}

/// Records that follow on each other.
#[derive(Debug, PartialEq)]
pub struct Portion {
    /// Number of the first, or, without records, of the one that would come.
    pub first: u64,
    /// The records.
    pub records: Vec<UsageRecord>,
    /// The run ended in order after them.
    pub closing: bool,
}

impl Portion {
    /// The number after its last record.
    pub fn end(&self) -> u64 {
        let length = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
        self.first.saturating_add(length)
    }
}

/// Reads a segment file from front to back.
#[derive(Debug)]
pub struct Cursor {
    file: Arc<File>,
    decoder: Decoder,
    /// Bytes that may be read.
    limit: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    start: u64,
}

impl Cursor {
    /// At the first frame.
    pub fn new(file: Arc<File>, place: Place) -> Self {
        Self {
            file,
            decoder: Decoder::new(place),
            limit: 0,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// What the segment says of itself.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn header(&self) -> io::Result<Result<Header, NoHeader>> {
        let mut bytes = [0; HEADER];
        // What is missing counts as zeros: a death before the file was allocated leaves it empty, and that is no damage.
        fill(&self.file, &mut bytes, 0)?;
        Ok(Header::decode(&bytes))
    }

    /// So many bytes of the file may be read.
    pub fn extend(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Everything that may be read was.
    pub fn at_end(&self) -> bool {
        self.decoder.offset >= self.limit
    }

    /// Something was there that could not be read.
    pub fn damaged(&self) -> bool {
        self.decoder.damaged
    }

    /// Where it stands now.
    pub fn mark(&self) -> Mark {
        self.decoder.mark()
    }

    /// Goes back to where it stood.
    pub fn rewind(&mut self, mark: Mark) {
        self.decoder.rewind(mark);
    }

    /// Up to `most` records that follow on each other, from number `floor` on. `None`: there are none, so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn portion(&mut self, most: usize, floor: u64) -> io::Result<Option<Portion>> {
        let mut portion = Portion {
            first: floor,
            records: Vec::new(),
            closing: false,
        };
        while portion.records.len() < most {
            let before = self.mark();
            match self.entry()? {
                Next::Record(sequence, _) if sequence < portion.end() => {}
                Next::Record(sequence, record) => {
                    if portion.records.is_empty() {
                        portion.first = sequence;
                    } else if sequence != portion.end() {
                        self.rewind(before);
                        break;
                    }
                    portion.records.push(record);
                }
                Next::Closing(next) => {
                    if portion.records.is_empty() {
                        portion.first = next.max(portion.first);
                    } else if next > portion.end() {
                        self.rewind(before);
                        break;
                    }
                    portion.closing = true;
                    break;
                }
                Next::More | Next::End => break,
            }
        }
        Ok((!portion.records.is_empty() || portion.closing).then_some(portion))
    }

    fn entry(&mut self) -> io::Result<Next> {
        loop {
            let offset = self.decoder.offset;
            let loaded = self.start + u64::try_from(self.buffer.len()).unwrap_or(0);
            let inside = offset.checked_sub(self.start).filter(|_| offset <= loaded);
            let rest = inside
                .and_then(|skip| self.buffer.get(usize::try_from(skip).ok()?..))
                .unwrap_or_default();
            let last = inside.is_some() && loaded >= self.limit;
            match self.decoder.next(rest, last) {
                Next::More if self.decoder.offset < self.limit => self.load()?,
                other => return Ok(other),
            }
        }
    }

    /// Reads on from where the decoder stands.
    fn load(&mut self) -> io::Result<()> {
        let offset = self.decoder.offset;
        let length = usize::try_from((self.limit - offset).min(CHUNK)).unwrap_or(0);
        self.buffer.resize(length, 0);
        self.start = offset;
        let filled = fill(&self.file, &mut self.buffer, offset)?;
        if filled < length {
            // Somebody cut the file: what is missing is missing.
            self.limit = offset + u64::try_from(filled).unwrap_or(0);
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}

/// Reads from `offset` on until `bytes` are full or the file ends; how many were read.
fn fill(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..)
        && !room.is_empty()
    {
        match file.read_at(room, offset + u64::try_from(filled).unwrap_or(0)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
