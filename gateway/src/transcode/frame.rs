//! Length-prefixed messages (gRPC over HTTP/2, "Length-Prefixed-Message"): one byte of flags, four of length, the message.
//!
//! gRPC, gRPC-Web and Connect streams share this form and differ in what the flags mean. The reader is fed chunks as they come and
//! holds at most one incomplete message; a length over the limit is refused before anything is kept for it. Not here: what a message
//! says, and when more is read.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::gzip;

/// Bytes before each message.
pub const PREFIX: usize = 5;

/// Flag: the message is compressed.
pub const COMPRESSED: u8 = 0x01;

/// Flag of Connect: the last frame of a stream, with its status.
pub const CONNECT_END: u8 = 0x02;

/// Flag of gRPC-Web: the trailers, as text.
pub const WEB_TRAILERS: u8 = 0x80;

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// As sent.
    pub flags: u8,
    /// Compressed where the flags say so.
    pub payload: Bytes,
}

/// Why bytes are no frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A flag that the protocol does not know.
    #[error("a frame has the unknown flags {0:#04x}")]
    Flags(u8),
    /// Announced, or found when decompressed, to be over the limit.
    #[error("a message is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// It is not what its compression says.
    #[error("a compressed message cannot be read: {0}")]
    Compression(String),
    /// The end came inside a frame.
    #[error("the stream ended inside a message")]
    Truncated,
}

/// Finds frames in chunks of any size.
#[derive(Debug)]
pub struct FrameReader {
    limit: usize,
    /// Flags that may be set.
    allowed: u8,
    /// What was fed and not looked at.
    chunk: Bytes,
    /// The beginning of a frame that did not end with its chunk.
    partial: BytesMut,
}

impl FrameReader {
    /// A reader of messages up to `limit` bytes, whose flags are among `allowed`.
    pub fn new(limit: usize, allowed: u8) -> Self {
        Self {
            limit,
            allowed,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
        }
    }

    /// Takes the next chunk. Frames of former ones have to be taken out before: only then is what is held bounded.
    pub fn feed(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.put(std::mem::take(&mut self.chunk));
            joined.put(chunk);
            self.chunk = joined.freeze();
        }
    }

    /// The next whole frame of what was fed; `None`: feed more.
    ///
    /// # Errors
    /// Unknown flags, or a length over the limit. Nothing after that can be read.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_empty()
            && let Some((flags, length)) = self.prefix(&self.chunk)?
            && self.chunk.len() - PREFIX >= length
        {
            self.chunk.advance(PREFIX);
            let payload = self.chunk.split_to(length);
            return Ok(Some(Frame { flags, payload }));
        }
        self.gather(PREFIX);
        let Some((flags, length)) = self.prefix(&self.partial)? else {
            return Ok(None);
        };
        self.gather(PREFIX + length);
        if self.partial.len() < PREFIX + length {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.partial).freeze();
        frame.advance(PREFIX);
        Ok(Some(Frame {
            flags,
            payload: frame,
        }))
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// It ended inside a frame.
    pub fn end(&self) -> Result<(), FrameError> {
        match self.partial.is_empty() && self.chunk.is_empty() {
            true => Ok(()),
            false => Err(FrameError::Truncated),
        }
    }

    /// Moves bytes from the chunk until `partial` has `wanted`.
    fn gather(&mut self, wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len());
        let here = missing.min(self.chunk.len());
        self.partial.put(self.chunk.split_to(here));
    }

    fn prefix(&self, bytes: &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
        let Some(&[flags, a, b, c, d]) = bytes.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if flags & !self.allowed != 0 {
            return Err(FrameError::Flags(flags));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLarge { limit: self.limit });
        }
        Ok(Some((flags, length)))
    }
}

impl Frame {
    /// The message, decompressed where it is compressed: `limit` is for what comes out.
    ///
    /// # Errors
    /// It is not gzip, or larger than `limit`.
    pub fn message(self, limit: usize) -> Result<Bytes, FrameError> {
        if self.flags & COMPRESSED == 0 {
            return Ok(self.payload);
        }
        gzip::decompress(&self.payload, limit).map(Bytes::from)
    }
}

/// Writes a frame around `payload`.
///
/// # Errors
/// It is too long for any frame.
pub fn write(flags: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let limit = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
    let length =
        u32::try_from(payload.len()).map_err(|_too_long| FrameError::TooLarge { limit })?;
    out.reserve(PREFIX + payload.len());
    out.push(flags);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// One uncompressed message with its prefix.
///
/// # Errors
/// As [`write()`].
pub fn framed(message: &[u8]) -> Result<Bytes, FrameError> {
    let mut out = Vec::new();
    write(0, message, &mut out)?;
    Ok(Bytes::from(out))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8], cut: usize, limit: usize) -> (Vec<Frame>, Option<FrameError>) {
        let mut reader = FrameReader::new(limit, COMPRESSED);
        let mut frames = Vec::new();
        for piece in bytes.chunks(cut.max(1)) {
            reader.feed(Bytes::copy_from_slice(piece));
            loop {
                match reader.take() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(reader.chunk.is_empty(), "a chunk is looked at whole");
            assert!(reader.partial.len() < PREFIX + limit);
        }
        (frames, reader.end().err())
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut bytes = Vec::new();
        for payload in [&b""[..], b"a", &[7; 300]] {
            write(0, payload, &mut bytes).unwrap();
        }
        for cut in 1..=bytes.len() {
            let (frames, error) = read_all(&bytes, cut, 1024);
            assert_eq!(error, None);
            let lengths: Vec<_> = frames.iter().map(|frame| frame.payload.len()).collect();
            assert_eq!(lengths, [0, 1, 300]);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_by_its_prefix_alone() {
        let (frames, error) = read_all(&[0, 0xff, 0xff, 0xff, 0xff], 5, 4096);
        assert!(frames.is_empty());
        assert_eq!(error, Some(FrameError::TooLarge { limit: 4096 }));
    }

    #[test]
    fn unknown_flags_and_a_broken_end_are_told_apart() {
        assert_eq!(
            read_all(&[2, 0, 0, 0, 0], 1, 10).1,
            Some(FrameError::Flags(2))
        );
        assert_eq!(
            read_all(&[0, 0, 0, 0, 1], 1, 10).1,
            Some(FrameError::Truncated)
        );
        assert_eq!(read_all(&[0, 0], 1, 10).1, Some(FrameError::Truncated));
    }

    #[test]
    fn a_compressed_message_is_bounded_by_what_comes_out_of_it() {
        let bomb = gzip::compress(&vec![0; 1 << 20]).unwrap();
        let frame = |payload: &[u8]| Frame {
            flags: COMPRESSED,
            payload: Bytes::copy_from_slice(payload),
        };
        assert!(bomb.len() < 1 << 16);
        assert_eq!(frame(&bomb).message(1 << 20).unwrap().len(), 1 << 20);
        let over = frame(&bomb).message((1 << 20) - 1);
        assert!(matches!(over, Err(FrameError::TooLarge { .. })));
        let garbage = frame(b"not gzip").message(100);
        assert!(matches!(garbage, Err(FrameError::Compression(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_frames_whole_and_in_pieces(
            bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..200),
            cut in 1_usize..20,
        ) {
            let whole = read_all(&bytes, bytes.len(), 64);
            prop_assert_eq!(&whole, &read_all(&bytes, cut, 64));
            let mut again = Vec::new();
            for frame in &whole.0 {
                write(frame.flags, &frame.payload, &mut again).unwrap();
            }
            prop_assert!(bytes.starts_with(&again));
        }
    }
}
