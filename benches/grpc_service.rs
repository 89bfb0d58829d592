//! A gRPC service that costs next to nothing: whatever it is asked, it answers with the message of a file.
//!
//! `grpc_service LISTEN FILE`. HTTP/2 with prior knowledge, a thread per connection, no field decoded: an answer is the same bytes but for
//! its stream. It keeps to the window of the connection, not to those of streams, which a small message never fills.

#![allow(missing_docs, reason = "a bench has no readers of its interface")]

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// Of DATA and HEADERS; of SETTINGS and PING it is the acknowledgement.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What clients send before anything else (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// `:status: 200`, `content-type: application/grpc`, without Huffman coding or table.
const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// Received bytes after which the window is given back.
const GIVE_BACK: u32 = 32_000;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [listen, file] = words.as_slice() else {
        return Err(wrong("usage: grpc_service LISTEN FILE"));
    };
    let message = std::fs::read(file)?;
    let length = u32::try_from(message.len()).map_err(|_| wrong("the message is too long"))?;
    let framed: Arc<[u8]> = [&[0], &length.to_be_bytes()[..], &message].concat().into();
    for stream in TcpListener::bind(listen)?.incoming() {
        let (stream, framed) = (stream?, Arc::clone(&framed));
        std::thread::spawn(move || Connection::new(&framed).serve(stream));
    }
    Ok(())
}

fn wrong(text: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

struct Connection<'a> {
    framed: &'a [u8],
    out: Vec<u8>,
    /// Bytes of DATA that may be sent.
    window: usize,
    taken: u32,
    /// Streams that wait for the window.
    asked: Vec<[u8; 4]>,
}

impl<'a> Connection<'a> {
    fn new(framed: &'a [u8]) -> Self {
        let (out, asked) = (Vec::new(), Vec::new());
        Self {
            framed,
            out,
            window: 65_535,
            taken: 0,
            asked,
        }
    }

    fn serve(mut self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.read_exact(&mut [0; PREFACE])?;
        self.frame(SETTINGS, 0, [0; 4], &[]);
        let (mut held, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            stream.write_all(&self.out)?;
            self.out.clear();
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            held.extend_from_slice(piece.get(..count).unwrap_or_default());
            let used = self.take(&held);
            held.drain(..used);
        }
    }

    /// Takes whole frames, and says how many bytes they were.
    fn take(&mut self, held: &[u8]) -> usize {
        let mut rest = held;
        while let Some((&[a, b, c, kind, flags, s1, s2, s3, s4], after)) =
            rest.split_first_chunk::<9>()
        {
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            let Some((payload, after)) = after.split_at_checked(length) else {
                break;
            };
            self.heard(kind, flags, [s1 & 0x7f, s2, s3, s4], payload);
            rest = after;
        }
        self.answer();
        held.len() - rest.len()
    }

    fn heard(&mut self, kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) {
        match kind {
            SETTINGS | PING if flags & END_STREAM == 0 => {
                let told = if kind == PING { payload } else { &[] };
                self.frame(kind, END_STREAM, stream, told);
            }
            WINDOW_UPDATE if stream == [0; 4] => {
                let more = payload.first_chunk().copied().unwrap_or_default();
                self.window += usize::try_from(u32::from_be_bytes(more)).unwrap_or_default();
            }
            DATA | HEADERS => {
                if kind == DATA {
                    self.taken += u32::try_from(payload.len()).unwrap_or_default();
                }
                if flags & END_STREAM != 0 {
                    self.asked.push(stream);
                }
                if self.taken > GIVE_BACK {
                    self.frame(WINDOW_UPDATE, 0, [0; 4], &self.taken.to_be_bytes());
                    self.taken = 0;
                }
            }
            _ => {}
        }
    }

    /// Answers who has asked, as far as the window goes.
    fn answer(&mut self) {
        let each = self.framed.len();
        let many = self.asked.len().min(self.window / each);
        self.window -= many * each;
        let framed = self.framed;
        for stream in self.asked.drain(..many).collect::<Vec<_>>() {
            self.frame(HEADERS, END_HEADERS, stream, HEAD);
            self.frame(DATA, 0, stream, framed);
            self.frame(HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS);
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or_default();
        let [_, a, b, c] = length.to_be_bytes();
        let [s1, s2, s3, s4] = stream;
        self.out
            .extend_from_slice(&[a, b, c, kind, flags, s1, s2, s3, s4]);
        self.out.extend_from_slice(payload);
    }
}
