//! Where the messages of a stream begin and end, as far as it takes to count them, and to add a last one of our own: frames of a
//! WebSocket, server-sent events, the length-prefixed messages of gRPC. Bytes pass through unchanged, nothing is kept of them.

use bytes::Bytes;

use super::frames::Frames;
use crate::denial::Denial;

/// One direction of a call that goes on.
#[derive(Debug, Default)]
pub(crate) enum Messages {
    /// It is no stream of messages.
    #[default]
    None,
    /// A WebSocket.
    Socket(Frames),
    /// Server-sent events.
    Events(Events),
    /// gRPC.
    Prefixed(Prefixed),
    /// Told apart elsewhere: so many.
    Told(u64),
}

impl Messages {
    /// More bytes of it.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        match self {
            Self::None | Self::Told(_) => {}
            Self::Socket(frames) => frames.pass(bytes),
            Self::Events(events) => events.pass(bytes),
            Self::Prefixed(prefixed) => prefixed.pass(bytes),
        }
    }

    /// How many there were; fragments of one are one.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Told(count) => *count,
            Self::Socket(frames) => frames.messages(),
            Self::Events(events) => events.count,
            Self::Prefixed(prefixed) => prefixed.count,
        }
    }

    /// The message that says why the stream ends, where its protocol has one and it may stand here.
    pub(super) fn farewell(&self, denial: &Denial, request_id: &str) -> Option<Bytes> {
        match self {
            Self::None | Self::Prefixed(_) | Self::Told(_) => None,
            Self::Socket(frames) => {
                let reason = match denial {
                    Denial::CredentialRevoked => "credential revoked",
                    other => other.code(),
                };
                frames.farewell(reason)
            }
            Self::Events(events) => events.is_between().then(|| {
                let problem = denial.problem(request_id);
                Bytes::from(format!("event: error\ndata: {problem}\n\n"))
            }),
        }
    }
}

/// Events as WHATWG HTML has them, section "Interpreting an event stream": an empty line ends one.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The current line has begun.
    in_line: bool,
    /// It is a comment.
    comment: bool,
    /// The byte before ended a line and may be the first half of its end.
    after_return: bool,
    /// The current event has lines.
    in_event: bool,
    count: u64,
}

impl Events {
    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let second_half = std::mem::take(&mut self.after_return) && *byte == b'\n';
            match byte {
                b'\n' if second_half => {}
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    if !std::mem::take(&mut self.in_line) && std::mem::take(&mut self.in_event) {
                        self.count += 1;
                    }
                }
                _ => {
                    if !std::mem::replace(&mut self.in_line, true) {
                        self.comment = *byte == b':';
                    }
                    self.in_event |= !self.comment;
                }
            }
        }
    }

    fn is_between(&self) -> bool {
        !self.in_line && !self.in_event
    }
}

/// Bytes before a message of gRPC: a flag, and its length in four bytes.
const PREFIX: usize = 5;

/// Messages of gRPC over HTTP/2.
#[derive(Debug, Default)]
pub(crate) struct Prefixed {
    prefix: [u8; PREFIX],
    have: usize,
    left: usize,
    count: u64,
}

impl Prefixed {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let payload = self.left.min(bytes.len());
            bytes = bytes.get(payload..).unwrap_or_default();
            self.left -= payload;
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            if let Some(place) = self.prefix.get_mut(self.have) {
                *place = *first;
            }
            bytes = rest;
            self.have += 1;
            if self.have == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.have = 0;
                self.count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the same whole and byte by byte; the last is whether an event may be added.
    fn count(make: fn() -> Messages, bytes: &[u8]) -> (u64, bool) {
        let (mut whole, mut bytewise) = (make(), make());
        whole.pass(bytes);
        for byte in bytes {
            bytewise.pass(&[*byte]);
        }
        assert_eq!(whole.count(), bytewise.count());
        let denial = Denial::CredentialRevoked;
        let added = whole.farewell(&denial, "id");
        assert_eq!(added, bytewise.farewell(&denial, "id"));
        (whole.count(), added.is_some())
    }

    #[test]
    fn events_are_told_apart_by_empty_lines() {
        let events = || Messages::Events(Events::default());
        assert_eq!(count(events, b""), (0, true));
        assert_eq!(count(events, b"data: a\n\ndata: b\n\n"), (2, true));
        assert_eq!(
            count(events, b"data: a\r\n\r\ndata: b\r\rdata: c"),
            (2, false)
        );
        assert_eq!(count(events, b"id: 1\ndata: a\n"), (0, false));
        assert_eq!(count(events, b": still here\n\n\n\n"), (0, true));
    }

    #[test]
    fn messages_of_grpc_are_told_apart_by_their_lengths() {
        let grpc = || Messages::Prefixed(Prefixed::default());
        let three = b"\0\0\0\0\x02hi\0\0\0\0\0\x01\0\0\0\x03abc";
        assert_eq!(count(grpc, three).0, 3);
        assert_eq!(count(grpc, b"\0\0\0\0").0, 0);
    }

    #[test]
    fn a_message_of_a_websocket_is_counted_once_and_control_frames_are_not() {
        let socket = || Messages::Socket(Frames::default());
        // A text in two fragments with a ping between them, then a binary message.
        let frames = b"\x01\x02he\x89\x00\x80\x03llo\x82\x01x";
        assert_eq!(count(socket, frames), (2, true));
    }
}
