//! Any bytes as a segment of the usage journal: no panic; what is read is what was written, so writing it again gives it again.
#![no_main]

use crc32fast::Hasher;
use libfuzzer_sys::fuzz_target;
use tollgate_gateway::usage::frame::{Frame, HEADER, Header, NAMES_PER_RECORD, Place, WORD, names};
use tollgate_gateway::usage::reader::{Decoder, Next};
use tollgate_proto::{RunId, UsageRecord};

const PLACE: Place = Place {
    run: RunId(7),
    shard: 1,
    index: 2,
};

/// Bodies with their kinds, framed as the head of `frame.rs` says, and bytes between them that may be anything.
type Input<'a> = (Vec<(u8, &'a [u8], &'a [u8])>, &'a [u8]);

fuzz_target!(|input: Input| {
    let (frames, header) = input;
    if let Ok(header) = Header::decode(header) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
    let mut segment = vec![0; HEADER];
    for (kind, body, noise) in frames {
        push(&mut segment, kind, body);
        segment.extend_from_slice(noise);
        segment.resize(segment.len().next_multiple_of(8), 0);
    }
    let found = decode(&segment);
    assert!(found.len() <= segment.len() / WORD);
    for (sequence, record) in found {
        assert_eq!(decode(&encode(sequence, &record)), [(sequence, record)]);
    }
});

/// A frame whose checksum is right.
fn push(segment: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let body = &body[..usize::from(length)];
    let mut hasher = Hasher::new_with_initial(PLACE.seed());
    hasher.update(&(segment.len() as u32).to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(&[kind, 0]);
    hasher.update(body);
    segment.extend_from_slice(&length.to_le_bytes());
    segment.extend_from_slice(&[kind, 0xA7]);
    segment.extend_from_slice(&hasher.finalize().to_le_bytes());
    segment.extend_from_slice(body);
    segment.resize(segment.len().next_multiple_of(8), 0);
}

/// All records, read in one piece; read in small ones, they are the same.
fn decode(segment: &[u8]) -> Vec<(u64, UsageRecord)> {
    let whole = decode_in(segment, usize::MAX);
    assert_eq!(whole, decode_in(segment, 2048));
    whole
}

fn decode_in(segment: &[u8], piece: usize) -> Vec<(u64, UsageRecord)> {
    let mut decoder = Decoder::new(PLACE);
    let mut found = Vec::new();
    loop {
        let offset = usize::try_from(decoder.offset()).unwrap_or(usize::MAX);
        let rest = segment.get(offset..).unwrap_or_default();
        let bytes = &rest[..rest.len().min(piece)];
        match decoder.next(bytes, bytes.len() == rest.len()) {
            Next::Record(sequence, record) => found.push((sequence, record)),
            Next::Closing(_) | Next::More => {}
            Next::End => return found,
        }
    }
}

fn encode(sequence: u64, record: &UsageRecord) -> Vec<u8> {
    let mut segment = vec![0; HEADER];
    let mut frame = Frame::default();
    let mut numbers = [0; NAMES_PER_RECORD];
    for ((number, name), next) in numbers.iter_mut().zip(names(record)).zip(1..) {
        if !name.is_empty() {
            *number = next;
            frame.name(next, name);
            append(&mut segment, &mut frame);
        }
    }
    frame.record(sequence, record, &numbers);
    append(&mut segment, &mut frame);
    segment
}

fn append(segment: &mut Vec<u8>, frame: &mut Frame) {
    let word = frame.word(segment.len() as u32, PLACE.seed());
    segment.extend_from_slice(&word.to_le_bytes());
    segment.extend_from_slice(frame.body());
    segment.resize(segment.len().next_multiple_of(8), 0);
}
