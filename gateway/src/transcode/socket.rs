//! WebSockets (RFC 6455), as far as a stream of messages needs them: the handshake, frames in, frames out.
//!
//! A text message is one JSON message of the stream. An empty one says that no more will come: a WebSocket cannot be closed in one
//! direction only. Promises that a message is bounded however it is cut into frames, and that control frames are answered between
//! them. Not here: extensions (none is agreed on), and binary messages from callers.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use pingora_http::{RequestHeader, ResponseHeader};

use super::unfit::Unfit;
use crate::denial::Denial;

/// What the key is joined with (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Longest control frame (RFC 6455, section 5.5).
const LONGEST_CONTROL: usize = 125;

/// Longest reason in a closing frame: two bytes of the control frame are its code.
const LONGEST_REASON: usize = LONGEST_CONTROL - 2;

/// Closing codes (RFC 6455, section 7.4.1).
pub const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED: u16 = 1003;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// First of the codes of our own: a gRPC status code is added to it.
pub const STATUS_CODES: u16 = 4000;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The answer that opens the WebSocket.
///
/// # Errors
/// The request is no handshake.
pub fn accept(head: &RequestHeader) -> Result<ResponseHeader, Denial> {
    let field = |name: &str| head.headers.get(name).map(http::HeaderValue::as_bytes);
    let malformed = |text: &'static str| Denial::Malformed(text.into());
    if head.method != http::Method::GET || head.version != http::Version::HTTP_11 {
        return Err(malformed("a WebSocket begins with GET over HTTP/1.1"));
    }
    if field("sec-websocket-version") != Some(b"13") {
        return Err(malformed("`sec-websocket-version` is not 13"));
    }
    let key = field("sec-websocket-key").unwrap_or_default();
    if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return Err(malformed("`sec-websocket-key` is not 16 bytes in base64"));
    }
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    let answer = || -> pingora_error::Result<ResponseHeader> {
        let mut answer = ResponseHeader::build(101, Some(6))?;
        answer.insert_header("upgrade", "websocket")?;
        answer.insert_header("connection", "upgrade")?;
        answer.insert_header("sec-websocket-accept", STANDARD.encode(proof))?;
        Ok(answer)
    };
    answer().map_err(|_no_field| Denial::Internal)
}

/// What a caller said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(Vec<u8>),
    /// To be answered with the same.
    Ping(Vec<u8>),
    /// Nothing more comes, and nothing more is listened to.
    Close,
}

/// Why a caller's frames are not listened to any more. It is told as every error is: by a message and the code of the gRPC status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What RFC 6455, section 7.4.1, calls it.
    pub code: u16,
    /// For the caller.
    pub reason: &'static str,
}

impl From<Broken> for Unfit {
    fn from(broken: Broken) -> Self {
        match broken.code {
            TOO_BIG => Self::size(broken.reason),
            _ => Self::whole(broken.reason),
        }
    }
}

/// Finds messages in what a caller sends.
#[derive(Debug)]
pub struct Ear {
    limit: usize,
    held: BytesMut,
    message: Vec<u8>,
    /// A message has begun and not ended.
    open: bool,
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: BytesMut,
}

impl Ear {
    /// Of messages up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            held: BytesMut::new(),
            message: Vec::new(),
            open: false,
        }
    }

    /// Takes the next bytes, once [`Self::take`] has nothing more.
    pub fn feed(&mut self, bytes: &Bytes) {
        self.held.put_slice(bytes);
    }

    /// The next thing said; `None`: feed more.
    ///
    /// # Errors
    /// What RFC 6455 forbids, or what is not understood here.
    pub fn take(&mut self) -> Result<Option<Heard>, Broken> {
        loop {
            let Some(frame) = self.frame()? else {
                return Ok(None);
            };
            let began = frame.opcode != CONTINUATION;
            match frame.opcode {
                CLOSE => return Ok(Some(Heard::Close)),
                PING => return Ok(Some(Heard::Ping(frame.payload.into()))),
                PONG => continue,
                TEXT | CONTINUATION if began != self.open => {}
                BINARY => return Err(broken(UNSUPPORTED, "messages are JSON in text, not binary")),
                _ => return Err(broken(PROTOCOL_ERROR, "a frame out of turn")),
            }
            if self.message.len() + frame.payload.len() > self.limit {
                return Err(broken(TOO_BIG, "the message is too large"));
            }
            self.message.extend_from_slice(&frame.payload);
            self.open = !frame.last;
            if frame.last {
                let message = std::mem::take(&mut self.message);
                return match std::str::from_utf8(&message) {
                    Ok(_) => Ok(Some(Heard::Text(message))),
                    Err(_) => Err(broken(NOT_UTF8, "the message is not UTF-8")),
                };
            }
        }
    }

    fn frame(&mut self) -> Result<Option<Frame>, Broken> {
        let Some(&[first, second]) = self.held.first_chunk::<2>() else {
            return Ok(None);
        };
        let opcode = first & 0x0f;
        let control = opcode >= CLOSE;
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(broken(
                PROTOCOL_ERROR,
                "an unmasked frame, or reserved bits",
            ));
        }
        if control && (first & 0x80 == 0 || usize::from(second & 0x7f) > LONGEST_CONTROL) {
            return Err(broken(
                PROTOCOL_ERROR,
                "a control frame that is cut or too long",
            ));
        }
        let rest = self.held.get(2..).unwrap_or_default();
        let (digits, length) = match second & 0x7f {
            126 => (
                2,
                rest.first_chunk::<2>()
                    .map(|it| u64::from(u16::from_be_bytes(*it))),
            ),
            127 => (8, rest.first_chunk::<8>().map(|it| u64::from_be_bytes(*it))),
            length => (0, Some(u64::from(length))),
        };
        let Some(length) = length else {
            return Ok(None);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.limit.max(LONGEST_CONTROL) {
            return Err(broken(TOO_BIG, "the message is too large"));
        }
        let (Some(mask), true) = (
            rest.get(digits..)
                .and_then(|it| it.first_chunk::<4>().copied()),
            rest.len() >= digits + 4 + length,
        ) else {
            return Ok(None);
        };
        self.held.advance(2 + digits + 4);
        let mut payload = self.held.split_to(length);
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        Ok(Some(Frame {
            last: first & 0x80 != 0,
            opcode,
            payload,
        }))
    }
}

fn broken(code: u16, reason: &'static str) -> Broken {
    Broken { code, reason }
}

/// Writes a text message.
pub fn text(payload: &[u8], out: &mut Vec<u8>) {
    frame(TEXT, payload, out);
}

/// Writes a binary message.
pub fn binary(payload: &[u8], out: &mut Vec<u8>) {
    frame(BINARY, payload, out);
}

/// Answers a ping.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(PONG, payload, out);
}

/// Writes the closing frame.
pub fn close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let mut payload = code.to_be_bytes().to_vec();
    let end = (0..=LONGEST_REASON)
        .rev()
        .find(|end| reason.is_char_boundary(*end));
    let end = end.unwrap_or(0).min(reason.len());
    payload.extend_from_slice(reason.get(..end).unwrap_or(reason).as_bytes());
    frame(CLOSE, &payload, out);
}

fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..126), _) => out.push(short),
        (_, Ok(middle)) => {
            out.push(126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(127);
            let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_heard_the_same_whole_and_in_pieces(
            bytes in proptest::collection::vec(
                prop_oneof![
                    Just(0x81_u8), Just(0x01), Just(0x80), Just(0x82), Just(0x84), Just(0x88), Just(0x89), Just(0xfe),
                    Just(0), any::<u8>()
                ],
                0..60,
            ),
            cut in 1_usize..9,
        ) {
            prop_assert_eq!(hear(&bytes, bytes.len().max(1)), hear(&bytes, cut));
        }
    }

    /// A caller's frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        frame(0, payload, &mut plain);
        let head = plain.len() - payload.len();
        let mut out = vec![first, plain[1] | 0x80];
        out.extend_from_slice(&plain[2..head]);
        let mask = [1, 2, 3, 4];
        out.extend_from_slice(&mask);
        out.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        out
    }

    fn hear(bytes: &[u8], cut: usize) -> Result<Vec<Heard>, Broken> {
        let mut ear = Ear::new(1000);
        let mut heard = Vec::new();
        for piece in bytes.chunks(cut) {
            ear.feed(&Bytes::copy_from_slice(piece));
            while let Some(next) = ear.take()? {
                heard.push(next);
            }
        }
        Ok(heard)
    }

    #[test]
    fn messages_are_heard_however_they_are_cut() {
        let long = vec![b'x'; 300];
        let bytes = [
            masked(0x81, b"{}"),
            masked(0x01, b"{\"a\""),
            masked(0x89, b"ping"),
            masked(0x80, b":1}"),
            masked(0x81, &long),
            masked(0x8a, b""),
            masked(0x81, b""),
            masked(0x88, b"\x03\xe8"),
        ]
        .concat();
        for cut in 1..bytes.len() {
            assert_eq!(
                hear(&bytes, cut).unwrap(),
                [
                    Heard::Text(b"{}".to_vec()),
                    Heard::Ping(b"ping".to_vec()),
                    Heard::Text(b"{\"a\":1}".to_vec()),
                    Heard::Text(long.clone()),
                    Heard::Text(Vec::new()),
                    Heard::Close,
                ]
            );
        }
    }

    #[test]
    fn what_is_forbidden_closes_with_its_code() {
        let large = masked(0x81, &[b'x'; 1001]);
        let grown = [masked(0x01, &[b'x'; 600]), masked(0x80, &[b'x'; 600])].concat();
        let table: [(&[u8], u16); 9] = [
            (b"\x81\x02{}", 1002),
            (&masked(0xc1, b""), 1002),
            (&masked(0x80, b""), 1002),
            (&[masked(0x01, b""), masked(0x81, b"")].concat(), 1002),
            (&masked(0x09, b""), 1002),
            (&masked(0x82, b"x"), 1003),
            (&masked(0x81, b"\xff"), 1007),
            (&large, 1009),
            (&grown, 1009),
        ];
        for (bytes, code) in table {
            assert_eq!(hear(bytes, 4096).unwrap_err().code, code);
        }
    }

    #[test]
    fn the_handshake_is_that_of_the_specification() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            head.insert_header(name, value).unwrap();
        }
        let answer = accept(&head).unwrap();
        assert_eq!(
            answer.headers["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        head.insert_header("sec-websocket-key", "short").unwrap();
        assert!(accept(&head).is_err());
    }

    #[test]
    fn frames_of_ours_have_their_lengths_and_a_closing_frame_is_never_too_long() {
        for (length, head) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut out = Vec::new();
            text(&vec![b'x'; length], &mut out);
            assert_eq!(out.len(), length + head);
        }
        let mut out = Vec::new();
        close(NORMAL, &"ü".repeat(100), &mut out);
        assert!(out.len() <= 127 && std::str::from_utf8(&out[4..]).is_ok());
    }
}
