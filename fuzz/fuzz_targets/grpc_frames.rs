//! Any bytes as what comes in pieces during a transcoded call: gRPC frames, elements of a JSON body, frames of a WebSocket, the fields a
//! call ends with. However it is cut, the same is found; what is found is bounded, and written again it is what came.
//!
//! Input: a byte for what it is, a byte for where it is cut, the bytes.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate_gateway::transcode::deadline;
use tollgate_gateway::transcode::elements::Elements;
use tollgate_gateway::transcode::frame::{self, COMPRESSED, FrameReader, PREFIX};
use tollgate_gateway::transcode::socket::Ear;
use tollgate_gateway::transcode::status::Status;

const LIMIT: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let [kind, cut, bytes @ ..] = input else {
        return;
    };
    let cut = usize::from(*cut).max(1);
    match kind % 4 {
        0 => frames(bytes, cut),
        1 => elements(bytes, cut),
        2 => {
            let (whole, pieces) = (heard(bytes, bytes.len().max(1)), heard(bytes, cut));
            assert_eq!(whole, pieces);
        }
        _ => end(bytes),
    }
});

fn read(bytes: &[u8], cut: usize) -> (Vec<frame::Frame>, bool) {
    let mut reader = FrameReader::new(LIMIT, COMPRESSED);
    let mut found = Vec::new();
    for piece in bytes.chunks(cut) {
        reader.feed(Bytes::copy_from_slice(piece));
        loop {
            match reader.take() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    let whole = reader.end().is_ok();
    (found, whole)
}

fn frames(bytes: &[u8], cut: usize) {
    let (found, whole) = read(bytes, bytes.len().max(1));
    let (in_pieces, ends) = read(bytes, cut);
    assert_eq!((&found, whole), (&in_pieces, ends));
    let mut again = Vec::new();
    for frame in &found {
        assert!(frame.payload.len() <= LIMIT);
        frame::write(frame.flags, &frame.payload, &mut again).unwrap();
        if let Ok(message) = frame.clone().message(LIMIT) {
            assert!(message.len() <= LIMIT);
        }
    }
    assert!(bytes.starts_with(&again) && again.len() >= found.len() * PREFIX);
    assert!(!whole || again.len() == bytes.len());
}

fn split(bytes: &[u8], cut: usize) -> Result<Vec<Vec<u8>>, ()> {
    let mut elements = Elements::new(LIMIT, false);
    let mut found = Vec::new();
    for piece in bytes.chunks(cut) {
        elements.feed(Bytes::copy_from_slice(piece));
        while let Some(element) = elements.take().map_err(drop)? {
            assert!(!element.is_empty() && element.len() <= LIMIT);
            found.push(element);
        }
    }
    found.extend(elements.end().map_err(drop)?);
    Ok(found)
}

fn elements(bytes: &[u8], cut: usize) {
    let whole = split(bytes, bytes.len().max(1));
    assert_eq!(whole, split(bytes, cut));
    // A list to another reader has the same elements here.
    if bytes.len() <= LIMIT
        && let Ok(Value::Array(list)) = serde_json::from_slice(bytes)
    {
        let found = whole.expect("a list");
        let found: Vec<Value> = found
            .iter()
            .map(|element| serde_json::from_slice(element).expect("JSON"))
            .collect();
        assert_eq!(found, list);
    }
}

fn heard(bytes: &[u8], cut: usize) -> String {
    let mut ear = Ear::new(LIMIT);
    let mut heard = Vec::new();
    for piece in bytes.chunks(cut) {
        ear.feed(&Bytes::copy_from_slice(piece));
        loop {
            match ear.take() {
                Ok(Some(next)) => heard.push(next),
                Ok(None) => break,
                Err(broken) => return format!("{heard:?} {broken:?}"),
            }
        }
    }
    format!("{heard:?}")
}

fn end(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0xff);
    let mut fields = HeaderMap::new();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        if let Some(value) = parts.next().and_then(|it| HeaderValue::from_bytes(it).ok()) {
            fields.insert(name, value);
        }
    }
    if let Some(status) = Status::read(&fields) {
        // What is told on is read as the same.
        let mut told = HeaderMap::new();
        told.insert(
            "grpc-status",
            HeaderValue::from(u16::from(status.code.number())),
        );
        told.insert(
            "grpc-message",
            HeaderValue::from_str(&status.message_field()).unwrap(),
        );
        if let Some(details) = status.details_field() {
            told.insert(
                "grpc-status-details-bin",
                HeaderValue::from_str(&details).unwrap(),
            );
        }
        let again = Status::read(&told).unwrap();
        assert_eq!((again.code, &again.details), (status.code, &status.details));
        assert!(again.message == status.message || status.message_field().len() > 8 * 1024);
    }
    if let Some(timeout) = deadline::parse_grpc(bytes) {
        let again = deadline::parse_grpc(deadline::format_grpc(timeout).as_bytes());
        assert!(again.is_some_and(|again| again <= timeout));
    }
}
