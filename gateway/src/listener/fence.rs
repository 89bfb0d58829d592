//! Where a request ends on the wire.
//!
//! A client may send its next request before it has the answer (RFC 9112, section 9.3.2). The parser behind us would take those
//! bytes for data after the end of the body, and the next head would escape our checks. The fence tells how many bytes
//! belong to the request being served; the rest waits in the connection. Promises: it never lets more through than
//! the body; where it cannot tell, it holds nothing and says so; a chunked body that two readers could read in two ways (the parser
//! takes an empty size for a zero) goes no further. Not here: judging the framing (`door::head`).

use std::io;

use crate::forward::watch::{Cut, Watch};

/// How far the body of the current request still reaches.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// No fence: before the first request, on upgraded connections, and on HTTP/2.
    #[default]
    Open,
    /// This many bytes.
    Length(u64),
    /// Until the last chunk and its trailers (RFC 9112, section 7.1).
    Chunked(Chunk),
}

/// Where in a chunked body we are.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// In the digits of a chunk's size.
    Size {
        /// What they say so far.
        size: u64,
        /// How many there were.
        digits: u8,
    },
    /// In its extensions, which may be so long yet.
    Extension {
        /// The chunk's size.
        size: u64,
        /// Bytes extensions may have yet.
        left: u16,
    },
    /// Before the LF of the size's line.
    SizeEnd(u64),
    /// In the data.
    Data(u64),
    /// Before the CR behind the data.
    DataCr,
    /// Before the LF behind the data.
    DataLf,
    /// In a trailer line; whether it has content, and how long trailers may be yet.
    Trailer {
        /// The line is not empty.
        content: bool,
        /// Bytes trailers may have yet.
        left: u16,
    },
    /// Before the LF of a trailer line.
    TrailerEnd {
        /// The line is not empty.
        content: bool,
        /// Bytes trailers may have yet.
        left: u16,
    },
}

/// Fifteen digits are 2^60 bytes: nobody sends more, and no reader's number overflows.
const SIZE_DIGITS: u8 = 15;

/// Extensions mean nothing to us; signatures of pieces, the longest in use, are a tenth of this.
const EXTENSION_BYTES: u16 = 1024;

/// Trailers of one body, all together.
const TRAILER_BYTES: u16 = 8192;

/// A chunked body that another reader could read in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk;

impl BadChunk {
    /// The reader is told by an error, and whoever answers the request by its watch.
    pub(super) fn end_request(self) -> io::Error {
        if let Some(watch) = Watch::current() {
            watch.cut_off(Cut::BodyMalformed);
        }
        io::Error::new(io::ErrorKind::InvalidData, "not a chunked body")
    }
}

impl Chunk {
    /// The first byte of a body comes.
    pub const FIRST: Self = Self::Size { size: 0, digits: 0 };

    /// What comes behind this byte; `None` behind the last one of the body. (Data is passed in one piece elsewhere.)
    fn step(&self, byte: u8) -> Result<Option<Self>, BadChunk> {
        let next = match (self, byte) {
            (Self::Size { size, digits }, _) => {
                let digit = char::from(byte).to_digit(16);
                match (digit, byte, *digits) {
                    (Some(digit), _, ..SIZE_DIGITS) => Self::Size {
                        size: size << 4 | u64::from(digit),
                        digits: digits + 1,
                    },
                    (None, b'\r', 1..) => Self::SizeEnd(*size),
                    (None, b';', 1..) => Self::Extension {
                        size: *size,
                        left: EXTENSION_BYTES,
                    },
                    _ => return Err(BadChunk),
                }
            }
            (Self::Extension { size, .. }, b'\r') => Self::SizeEnd(*size),
            (Self::Extension { size, left: 1.. }, b'\t' | b' '..=b'~') => Self::Extension {
                size: *size,
                left: self.left() - 1,
            },
            (Self::SizeEnd(0), b'\n') => Self::Trailer {
                content: false,
                left: TRAILER_BYTES,
            },
            (Self::SizeEnd(size), b'\n') => Self::Data(*size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::FIRST,
            (Self::Trailer { content, left }, b'\r') => Self::TrailerEnd {
                content: *content,
                left: *left,
            },
            (Self::Trailer { left: 1.., .. }, b'\t' | b' '..=0x7e | 0x80..) => Self::Trailer {
                content: true,
                left: self.left() - 1,
            },
            (Self::TrailerEnd { content: false, .. }, b'\n') => return Ok(None),
            (Self::TrailerEnd { left, .. }, b'\n') => Self::Trailer {
                content: false,
                left: *left,
            },
            _ => return Err(BadChunk),
        };
        Ok(Some(next))
    }

    fn left(&self) -> u16 {
        match self {
            Self::Extension { left, .. } | Self::Trailer { left, .. } => *left,
            _ => 0,
        }
    }
}

impl Fence {
    /// The fence of a head that was found acceptable.
    pub fn of(head: &[u8]) -> Self {
        let mut length = None;
        let mut chunked = false;
        let mut lines = head.split(|byte| *byte == b'\n');
        lines.next();
        for line in lines {
            let Some(colon) = memchr::memchr(b':', line) else {
                continue;
            };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                let parsed = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                match (parsed, length) {
                    (Some(parsed), None) => length = Some(parsed),
                    _ => return Self::Open,
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Self::Open;
                }
                chunked = true;
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                return Self::Open;
            }
        }
        match (length, chunked) {
            (Some(_), true) => Self::Open,
            (length, false) => Self::Length(length.unwrap_or(0)),
            (None, true) => Self::Chunked(Chunk::FIRST),
        }
    }

    /// How many of these bytes belong to the current request.
    ///
    /// # Errors
    /// A chunked body is not what RFC 9112, section 7.1 says: it may not be read any further.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Self::Open => Ok(bytes.len()),
            Self::Length(left) => Ok(pass_data(left, bytes)),
            Self::Chunked(chunk) => {
                let (passed, ended) = pass_chunks(chunk, bytes)?;
                if ended {
                    *self = Self::Length(0);
                }
                Ok(passed)
            }
        }
    }
}

fn pass_data(left: &mut u64, bytes: &[u8]) -> usize {
    let passed = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    *left -= u64::try_from(passed).unwrap_or(*left);
    passed
}

fn pass_chunks(chunk: &mut Chunk, bytes: &[u8]) -> Result<(usize, bool), BadChunk> {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if let Chunk::Data(left) = chunk {
            at += pass_data(left, bytes.get(at..).unwrap_or_default());
            if *left == 0 {
                *chunk = Chunk::DataCr;
            }
            continue;
        }
        at += 1;
        match chunk.step(*byte)? {
            Some(next) => *chunk = next,
            None => return Ok((at, true)),
        }
    }
    Ok((at, false))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_head_tells_where_the_request_ends() {
        let cases: [(&[u8], Fence); 6] = [
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Fence::Length(0)),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 12 \r\n\r\n",
                Fence::Length(12),
            ),
            (
                b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Fence::Chunked(Chunk::FIRST),
            ),
            (
                b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                Fence::Open,
            ),
            (
                b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
                Fence::Open,
            ),
            (b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n", Fence::Open),
        ];
        for (head, fence) in cases {
            assert_eq!(Fence::of(head), fence, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_chunked_body_ends_behind_its_trailers_however_it_is_cut() {
        let body = b"4;x=y\r\nwiki\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx: y\r\n\r\nGET / ";
        let end = body.len() - b"GET / ".len();
        for cut in 1..body.len() {
            let mut fence = Fence::Chunked(Chunk::FIRST);
            let mut passed = 0;
            for piece in body.chunks(cut) {
                passed += fence.pass(piece).unwrap();
            }
            assert_eq!(passed, end, "cut at {cut}");
            assert_eq!(fence, Fence::Length(0));
        }
    }

    #[test]
    fn what_is_no_chunked_body_passes_nobody() {
        let long_extension = format!("5;{}\r\n", "x".repeat(2000));
        let long_trailers = format!("0\r\n{}", "x: y\r\n".repeat(3000));
        for body in [
            "\r\n",
            ";x\r\n",
            " 5\r\n",
            "5 \r\n",
            "+5\r\n",
            "0x5\r\n",
            "5\n",
            "5;x\ny\r\n",
            "5\rx",
            "5\r\nhellox",
            "5\r\nhello\n",
            "5\r\nhello\r\n\r\n",
            "1234567890123456\r\n",
            "0\r\n\n",
            "0\r\nx: y\n",
            "0\r\nx: \0\r\n",
            &long_extension,
            &long_trailers,
        ] {
            let mut fence = Fence::Chunked(Chunk::FIRST);
            assert_eq!(fence.pass(body.as_bytes()), Err(BadChunk), "{body:?}");
        }
    }
}
