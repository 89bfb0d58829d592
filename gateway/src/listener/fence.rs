//! Where a request ends on the wire.
//!
//! A client may send its next request before it has the answer (RFC 9112, section 9.3.2). The parser behind us would take those
//! bytes for data after the end of the body, and the next head would escape our checks. The fence tells how many bytes
//! belong to the request being served; the rest waits in the connection. Promise: it never lets more through than
//! the body; where it cannot tell, it holds nothing and says so. Not here: judging the framing (`door::head`).

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
    Size(u64),
    /// Behind them, up to the line's end.
    SizeLine(u64),
    /// In the data (with its CRLF).
    Data(u64),
    /// In a trailer line; the flag tells that it has content.
    Trailer(bool),
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
            (None, true) => Self::Chunked(Chunk::Size(0)),
        }
    }

    /// How many of these bytes belong to the current request.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Open => bytes.len(),
            Self::Length(left) => {
                let passed = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= u64::try_from(passed).unwrap_or(*left);
                passed
            }
            Self::Chunked(chunk) => {
                let (passed, ended) = pass_chunks(chunk, bytes);
                if ended {
                    *self = Self::Length(0);
                }
                passed
            }
        }
    }
}

fn pass_chunks(chunk: &mut Chunk, bytes: &[u8]) -> (usize, bool) {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match chunk {
            Chunk::Data(left) => {
                let rest = bytes.len() - at;
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest);
                *left -= u64::try_from(step).unwrap_or(*left);
                at += step;
                if *left == 0 {
                    *chunk = Chunk::Size(0);
                }
                continue;
            }
            Chunk::Size(size) => match (*byte, char::from(*byte).to_digit(16)) {
                (_, Some(digit)) => *size = size.saturating_mul(16).saturating_add(digit.into()),
                (b'\n', None) => *chunk = after_size(*size),
                (_, None) => *chunk = Chunk::SizeLine(*size),
            },
            Chunk::SizeLine(size) => {
                if *byte == b'\n' {
                    *chunk = after_size(*size);
                }
            }
            Chunk::Trailer(content) => match (*byte, *content) {
                (b'\n', false) => return (at + 1, true),
                (b'\n', true) => *content = false,
                (b'\r', _) => {}
                _ => *content = true,
            },
        }
        at += 1;
    }
    (at, false)
}

fn after_size(size: u64) -> Chunk {
    if size == 0 {
        Chunk::Trailer(false)
    } else {
        Chunk::Data(size.saturating_add(2))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
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
                Fence::Chunked(Chunk::Size(0)),
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
            let mut fence = Fence::Chunked(Chunk::Size(0));
            let mut passed = 0;
            for piece in body.chunks(cut) {
                passed += fence.pass(piece);
            }
            assert_eq!(passed, end, "cut at {cut}");
            assert_eq!(fence, Fence::Length(0));
        }
    }
}
