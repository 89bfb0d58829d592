//! Any bytes as the start of an HTTP/1 connection: the head is found at the same place however it is cut, what the door
//! accepts another parser reads in the same way, and the fence stands where another reader sees the body end.
//!
//! Input: one byte that says how the rest is cut, and whether HTTP/2 is recognised.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_gateway::door::head::check;
use tollgate_gateway::listener::fence::{Chunk, Fence};
use tollgate_gateway::listener::head::{Arrival, Scan};

const HEAD_BYTES: usize = 4096;
const FIELDS: usize = 100;

fuzz_target!(|input: &[u8]| {
    let Some((how, bytes)) = input.split_first() else {
        return;
    };
    let (cut, h2) = (usize::from(how >> 1).max(1), how & 1 == 1);
    let whole = Scan::default().look(bytes, h2, HEAD_BYTES);
    let mut scan = Scan::default();
    let pieces = (0..bytes.len()).step_by(cut).skip(1).chain([bytes.len()]);
    let cut_up = pieces
        .into_iter()
        .find_map(|end| scan.look(&bytes[..end], h2, HEAD_BYTES));
    match (&whole, &cut_up) {
        // Which mistake is seen first may depend on how much is there.
        (Some(Arrival::Refused(_)), Some(Arrival::Refused(_))) => {}
        _ => assert_eq!(whole, cut_up),
    }
    let Some(Arrival::Head(length)) = whole else {
        return;
    };
    let (head, body) = bytes.split_at(length);
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    if check(head, FIELDS).is_ok() {
        let (fence, expected) = (Fence::of(head), as_parsed(head));
        assert_eq!(fence, expected);
        body_ends(&fence, expected, body, cut);
    }
});

/// The framing as an independent parser reads it, and that it is unambiguous.
fn as_parsed(head: &[u8]) -> Fence {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request
        .parse(head)
        .expect("the parser takes what the door takes");
    assert_eq!(parsed, httparse::Status::Complete(head.len()));
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request
            .headers
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    let (hosts, lengths, codings) = (
        values("host"),
        values("content-length"),
        values("transfer-encoding"),
    );
    assert!(hosts.len() == 1 || (hosts.is_empty() && request.version == Some(0)));
    assert!(lengths.len() + codings.len() <= 1);
    assert!(!matches!(request.method, Some("CONNECT" | "TRACE")));
    if !values("upgrade").is_empty() {
        return Fence::Open;
    }
    match (lengths.first(), codings.first()) {
        (Some(length), _) => {
            assert!(length.iter().all(u8::is_ascii_digit));
            let length = std::str::from_utf8(length)
                .ok()
                .and_then(|text| text.parse().ok());
            Fence::Length(length.expect("a length in digits"))
        }
        (None, Some(coding)) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"));
            Fence::Chunked(Chunk::FIRST)
        }
        (None, None) => Fence::Length(0),
    }
}

/// However the body is cut, as much passes, and no byte of what follows it.
fn body_ends(fence: &Fence, mut whole: Fence, body: &[u8], cut: usize) {
    let mut pieces = match fence {
        Fence::Open => Fence::Open,
        Fence::Length(length) => Fence::Length(*length),
        Fence::Chunked(_) => Fence::Chunked(Chunk::FIRST),
    };
    let passed = whole.pass(body);
    let mut passed_in_pieces = Ok(0);
    for piece in body.chunks(cut) {
        let more = pieces.pass(piece);
        passed_in_pieces = more.and_then(|more| passed_in_pieces.map(|before| before + more));
        if passed_in_pieces.is_err() || more.is_ok_and(|more| more < piece.len()) {
            break;
        }
    }
    assert_eq!(passed, passed_in_pieces);
    let Ok(passed) = passed else {
        return;
    };
    match fence {
        Fence::Open => assert_eq!(passed, body.len()),
        Fence::Length(length) => assert!(passed as u64 <= *length),
        Fence::Chunked(_) => {
            if let Some(end) = chunked_end(body) {
                assert_eq!(passed, end);
            }
        }
    }
}

/// Where a well-formed chunked body ends; `None` where it is not complete, or none that a strict reader takes.
fn chunked_end(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let httparse::Status::Complete((line, size)) =
            httparse::parse_chunk_size(&body[at..]).ok()?
        else {
            return None;
        };
        at += line;
        if size == 0 {
            break;
        }
        let data = usize::try_from(size).ok()?;
        let end = at.checked_add(data)?;
        at = body.get(end..)?.starts_with(b"\r\n").then_some(end + 2)?;
    }
    loop {
        let rest = body.get(at..)?;
        let line = rest.iter().position(|byte| *byte == b'\n')?;
        at += line + 1;
        match &rest[..line] {
            b"\r" => return Some(at),
            [text @ .., b'\r'] if !text.contains(&b'\r') => {}
            _ => return None,
        }
    }
}
