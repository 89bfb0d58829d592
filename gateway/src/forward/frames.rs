//! Where the frames of a WebSocket begin and end (RFC 6455 section 5.2), as far as it takes to know whether one may be added.
//!
//! Bytes pass through unread otherwise: a WebSocket is between client and service. Only when we end it do we say why, in a frame of
//! our own, and only between two frames of the service.

use bytes::Bytes;
use smallvec::SmallVec;

/// Longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// Opcode of a closing frame.
const CLOSE: u8 = 8;

/// Status code 1008, "policy violation".
const POLICY: [u8; 2] = [0x03, 0xf0];

/// Bytes of a reason: a control frame has at most 125 of payload, and two are the status code's.
const LONGEST_REASON: u8 = 123;

/// The frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: SmallVec<[u8; LONGEST_HEAD]>,
    payload_left: u64,
    closed: bool,
    messages: u64,
}

impl Frames {
    /// More bytes go to the client.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let here = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
                let (payload, after) = bytes.split_at(here.min(bytes.len()));
                let passed = u64::try_from(payload.len()).unwrap_or(u64::MAX);
                self.payload_left = self.payload_left.saturating_sub(passed);
                bytes = after;
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            if let Some(length) = payload_of(&self.head) {
                let first = self.head.first().copied().unwrap_or_default();
                let opcode = first & 0x0f;
                self.closed |= opcode == CLOSE;
                // The last fragment of a message, not a control frame.
                self.messages += u64::from(first & 0x80 != 0 && opcode < CLOSE);
                self.payload_left = length;
                self.head.clear();
            }
        }
    }

    /// Messages whose last fragment has begun.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// The frame that tells why it ends, where one may stand here. A reason that is too long is left out.
    pub(super) fn farewell(&self, reason: &str) -> Option<Bytes> {
        let between = self.head.is_empty() && self.payload_left == 0;
        let length = u8::try_from(reason.len()).unwrap_or(u8::MAX);
        let (reason, length) = match length <= LONGEST_REASON {
            true => (reason, length),
            false => ("", 0),
        };
        let frame = || [&[0x88, length + 2], &POLICY[..], reason.as_bytes()].concat();
        (between && !self.closed).then(|| Bytes::from(frame()))
    }
}

/// Length of the payload, once the head is complete.
fn payload_of(head: &[u8]) -> Option<u64> {
    let (_, rest) = head.split_first()?;
    let (second, rest) = rest.split_first()?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let digits = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if rest.len() < digits + mask {
        return None;
    }
    if digits == 0 {
        return Some(u64::from(second & 0x7f));
    }
    let number = rest.iter().take(digits);
    Some(number.fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(frames: &[&[u8]]) -> bool {
        let mut whole = Frames::default();
        let mut bytewise = Frames::default();
        for frame in frames {
            whole.pass(frame);
            for byte in *frame {
                bytewise.pass(&[*byte]);
            }
        }
        assert_eq!(whole.farewell("why"), bytewise.farewell("why"));
        whole.farewell("why").is_some()
    }

    #[test]
    fn a_frame_is_added_between_frames_alone() {
        let long = [b"\x82\x7e\x01\x00".as_slice(), &[b'x'; 256]].concat();
        let longer = [b"\x82\x7f\0\0\0\0\0\x01\0\0".as_slice(), &[b'x'; 65536]].concat();
        assert!(after(&[]));
        assert!(after(&[b"\x81\x05hello", b"\x89\x00", &long, &longer]));
        assert!(after(&[b"\x81\x85mask12345"]));
        assert!(after(&[b"\x81\x05hel", b"lo\x81\x00"]));
        assert!(!after(&[b"\x81"]));
        assert!(!after(&[b"\x81\x05hell"]));
        assert!(!after(&[b"\x82\x7e\x01"]));
        assert!(!after(&[long.get(..100).unwrap_or_default()]));
        assert!(!after(&[b"\x88\x02\x03\xe8"]), "it said farewell itself");
    }

    #[test]
    fn the_farewell_is_a_closing_frame_of_its_length() {
        let told = Frames::default().farewell("credential revoked");
        let told = told.unwrap_or_default();
        assert_eq!(&*told, b"\x88\x14\x03\xf0credential revoked");
        let mut frames = Frames::default();
        frames.pass(&told);
        assert!(frames.closed && frames.messages == 0);
        let long = Frames::default().farewell(&"x".repeat(200));
        assert_eq!(long.as_deref(), Some(b"\x88\x02\x03\xf0".as_slice()));
    }
}
