//! A gRPC service that does frame by frame what a test tells it: what no library lets one send.
//!
//! It reads no field of a request, and answers with what it is given. Not here: what a service does that keeps to the protocol.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS; of SETTINGS and PING it is the acknowledgement.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const INTERNAL_ERROR: u32 = 2;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

/// `:status: 200`, `content-type: application/grpc`, without Huffman coding or table.
pub const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`.
pub const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// A service that ends with the test's process.
pub struct FrameService {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(usize, u32)>>>,
}

impl FrameService {
    /// `script` has each connection to itself; it is closed when the script ends.
    pub fn new(script: impl Fn(&mut Frames) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, script) = (Arc::clone(&asked), Arc::new(script));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let (asked, script) = (Arc::clone(&asked), Arc::clone(&script));
                thread::spawn(move || {
                    if let Some(mut frames) = Frames::begin(stream, number, asked) {
                        script(&mut frames);
                    }
                });
            }
        });
        Self {
            address,
            asked: kept,
        }
    }

    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// The whole requests so far: the number of their connection, and their stream.
    pub fn asked(&self) -> Vec<(usize, u32)> {
        self.asked.lock().unwrap().clone()
    }
}

/// One connection.
pub struct Frames {
    stream: TcpStream,
    held: Vec<u8>,
    asked: Arc<Mutex<Vec<(usize, u32)>>>,
    /// Which of all connections, from 0.
    pub number: usize,
}

impl Frames {
    fn begin(
        mut stream: TcpStream,
        number: usize,
        asked: Arc<Mutex<Vec<(usize, u32)>>>,
    ) -> Option<Self> {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.read_exact(&mut [0; 24]).ok()?;
        let mut frames = Self {
            stream,
            held: Vec::new(),
            asked,
            number,
        };
        frames.frame(SETTINGS, 0, 0, &[]);
        Some(frames)
    }

    /// The stream of the next request that is whole; `None` at the end of the connection.
    pub fn call(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream, _) = self.acknowledged()?;
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                self.asked.lock().unwrap().push((self.number, stream));
                return Some(stream);
            }
        }
    }

    /// The code by which this call is given up; `None` where the connection ends before that. Other requests are passed over.
    pub fn given_up(&mut self, call: u32) -> Option<u32> {
        loop {
            let (kind, _, stream, payload) = self.acknowledged()?;
            if (kind, stream) == (RESET, call) {
                let code: [u8; 4] = payload.try_into().ok()?;
                return Some(u32::from_be_bytes(code));
            }
        }
    }

    /// The head of an answer and a message.
    pub fn answer(&mut self, stream: u32, message: &[u8]) {
        self.frame(HEADERS, END_HEADERS, stream, HEAD);
        self.message(stream, message);
    }

    /// A message more.
    pub fn message(&mut self, stream: u32, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.frame(DATA, 0, stream, &[&[0], &length[..], message].concat());
    }

    /// The end of an answer.
    pub fn end(&mut self, stream: u32) {
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS);
    }

    /// A head or trailers of so many fields of some hundred bytes, the last of which end the stream.
    pub fn fields(&mut self, stream: u32, beginning: &[u8], count: usize) {
        let field = [b"\x00\x01x\x64", &[b'x'; 100][..]].concat();
        let block = [beginning, &field.repeat(count)].concat();
        let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let flags = if index == 0 { END_STREAM } else { 0 };
            let end = if last { END_HEADERS } else { 0 };
            self.frame(kind, flags | end, stream, piece);
        }
    }

    /// Answers all further requests with this message.
    pub fn serve(&mut self, message: &[u8]) {
        while let Some(stream) = self.call() {
            self.answer(stream, message);
            self.end(stream);
        }
    }

    /// No stream after `last` was or will be looked at.
    pub fn go_away(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.frame(GO_AWAY, 0, 0, &payload);
    }

    pub fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RESET, 0, stream, &code.to_be_bytes());
    }

    /// DATA outside of any stream, which ends the connection for all (RFC 9113, section 6.1).
    pub fn nonsense(&mut self) {
        self.frame(DATA, 0, 0, b"nonsense");
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        let _the_peer_may_be_gone = self.stream.write_all(&[&head, payload].concat());
    }

    /// The next frame, answered where it asks for that.
    fn acknowledged(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let (kind, flags, stream, payload) = self.next()?;
        if matches!(kind, SETTINGS | PING) && flags & END_STREAM == 0 {
            let told: &[u8] = if kind == PING { &payload } else { &[] };
            self.frame(kind, END_STREAM, stream, told);
        }
        Some((kind, flags, stream, payload))
    }

    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head: [u8; 9] = self.exactly(9)?.try_into().unwrap();
        let [a, b, c, kind, flags, s1, s2, s3, s4] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let payload = self.exactly(usize::try_from(length).unwrap())?;
        Some((
            kind,
            flags,
            u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]),
            payload,
        ))
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.held.len() < length {
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(read @ 1..) => self.held.extend_from_slice(&bytes[..read]),
                Ok(0) | Err(_) => return None,
            }
        }
        Some(self.held.drain(..length).collect())
    }
}

impl Drop for Frames {
    /// What is unread would become a reset, which takes what was sent with it.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        while self.next().is_some() {}
    }
}
