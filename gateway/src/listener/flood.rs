//! HTTP/2 connections that make us work without asking for anything.
//!
//! Frame headers (RFC 9113, section 4.1) are read as they pass, in both directions; a connection that exceeds a budget is cut off.
//! Against rapid reset (CVE-2023-44487), MadeYouReset (CVE-2025-8671: it makes *us* reset), floods of SETTINGS, PING,
//! PRIORITY, empty DATA and tiny WINDOW_UPDATE (CVE-2019-9511 to 9518), and CONTINUATION. Not here: what the HTTP/2 library
//! limits itself (streams at once, size of a header list, validity of frames).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::Metrics;

/// Budgets are per this time: long enough for a burst of a page leaving, short enough that an attack does not last.
const WINDOW: Duration = Duration::from_secs(10);

/// Streams reset in a window, by either side, that need no justification: a client cancelling everything it had
/// open, twice. Beyond it, resets may not exceed half of the streams opened.
const FREE_RESETS: u32 = 200;

/// SETTINGS in a window. Clients send one, and some change their window size now and then; each costs an answer.
const SETTINGS_FRAMES: u32 = 50;

/// Frames that carry nothing, in a window, beyond two for each stream opened and each DATA frame with content. gRPC clients
/// measure bandwidth by PING for nearly every message.
const FREE_IDLE_FRAMES: u32 = 1000;

/// CONTINUATION frames of one header block: eight of 16 KiB are four times the largest head we accept by default.
const CONTINUATIONS: u32 = 8;

/// A WINDOW_UPDATE smaller than this is not worth its frame.
const TINY_INCREMENT: u32 = 16;

/// The connection preface of a client: it has no frame header.
const PREFACE_BYTES: u32 = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;

/// Accounts of one HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Flood {
    incoming: Frames,
    outgoing: Frames,
    counts: Counts,
    continuations: u32,
    window_began: Instant,
    cut: bool,
    metrics: Arc<Metrics>,
    listener: Arc<str>,
}

#[derive(Debug, Default)]
struct Counts {
    opened: u32,
    content: u32,
    resets: u32,
    settings: u32,
    idle: u32,
}

impl Flood {
    /// Of a connection whose preface comes next.
    pub(super) fn new(metrics: Arc<Metrics>, listener: Arc<str>) -> Self {
        Self {
            incoming: Frames {
                skip: PREFACE_BYTES,
                ..Frames::default()
            },
            outgoing: Frames::default(),
            counts: Counts::default(),
            continuations: 0,
            window_began: Instant::now(),
            cut: false,
            metrics,
            listener,
        }
    }

    /// Looks at bytes from the client.
    pub(super) fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while let Some(frame) = self.incoming.next(&mut rest) {
            self.count(&frame);
        }
        self.verdict()
    }

    /// Looks at bytes to the client.
    pub(super) fn sent(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while let Some(frame) = self.outgoing.next(&mut rest) {
            if frame.kind == RST_STREAM {
                self.turn_window();
                self.counts.resets += 1;
            }
        }
        self.verdict()
    }

    fn count(&mut self, frame: &Frame) {
        let counts = &mut self.counts;
        match frame.kind {
            DATA if frame.length > 0 => counts.content = counts.content.saturating_add(1),
            DATA if frame.flags & END_STREAM != 0 => {}
            HEADERS => {
                counts.opened = counts.opened.saturating_add(1);
                self.continuations = 0;
            }
            CONTINUATION => self.continuations += 1,
            WINDOW_UPDATE if frame.word >= TINY_INCREMENT => {}
            GOAWAY => {}
            RST_STREAM => {
                self.turn_window();
                self.counts.resets += 1;
            }
            SETTINGS => {
                self.turn_window();
                self.counts.settings += 1;
            }
            // PING, PRIORITY, empty DATA, tiny WINDOW_UPDATE, and kinds nobody knows.
            _ => {
                self.turn_window();
                self.counts.idle += 1;
            }
        }
    }

    fn turn_window(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.window_began) >= WINDOW {
            self.window_began = now;
            self.counts = Counts::default();
        }
    }

    fn verdict(&mut self) -> io::Result<()> {
        let counts = &self.counts;
        let earned = counts
            .opened
            .saturating_mul(2)
            .saturating_add(counts.content);
        let exceeded = (counts.resets > FREE_RESETS && counts.resets > counts.opened / 2)
            || counts.settings > SETTINGS_FRAMES
            || counts.idle > earned.saturating_add(FREE_IDLE_FRAMES)
            || self.continuations > CONTINUATIONS;
        if exceeded && !self.cut {
            self.cut = true;
            self.metrics.connection_refused(&self.listener, "h2_flood");
        }
        if self.cut {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "HTTP/2 flood",
            ));
        }
        Ok(())
    }
}

/// Finds frame headers in a stream cut anywhere.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 13],
    filled: usize,
    /// Payload bytes still to pass.
    skip: u32,
}

struct Frame {
    kind: u8,
    flags: u8,
    length: u32,
    /// The payload's first word; only read for WINDOW_UPDATE.
    word: u32,
}

impl Frames {
    /// The next frame whose header (and word, where it matters) is complete.
    fn next(&mut self, rest: &mut &[u8]) -> Option<Frame> {
        loop {
            let skipped = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            *rest = rest.get(skipped..).unwrap_or_default();
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            let (byte, tail) = rest.split_first()?;
            *rest = tail;
            if let Some(slot) = self.header.get_mut(self.filled) {
                *slot = *byte;
            }
            self.filled += 1;
            let [l0, l1, l2, kind, flags, _, _, _, _, w0, w1, w2, w3] = self.header;
            let length = u32::from_be_bytes([0, l0, l1, l2]);
            let needed = if kind == WINDOW_UPDATE && length == 4 {
                13
            } else {
                9
            };
            if self.filled < needed {
                continue;
            }
            self.filled = 0;
            self.skip = if needed == 13 { 0 } else { length };
            let word = u32::from_be_bytes([w0 & 0x7f, w1, w2, w3]);
            return Some(Frame {
                kind,
                flags,
                length,
                word,
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    const PRIORITY: u8 = 2;
    const PING: u8 = 6;

    fn flood() -> Flood {
        let mut flood = Flood::new(Metrics::new(), Arc::from("test"));
        flood.received(&[b'P'; 24]).unwrap();
        flood
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    /// How many of `bytes` pass before the cut.
    fn passes(flood: &mut Flood, bytes: &[u8], at_most: u32) -> u32 {
        (0..at_most)
            .find(|_| flood.received(bytes).is_err())
            .unwrap_or(at_most)
    }

    #[test]
    fn each_flood_is_cut_at_its_budget() {
        let reset = [frame(HEADERS, 5, b"x"), frame(RST_STREAM, 0, &[0; 4])].concat();
        assert_eq!(passes(&mut flood(), &reset, 10_000), FREE_RESETS);
        assert_eq!(
            passes(&mut flood(), &frame(SETTINGS, 0, &[]), 10_000),
            SETTINGS_FRAMES
        );
        for idle in [
            frame(PING, 0, &[0; 8]),
            frame(PRIORITY, 0, &[0; 5]),
            frame(DATA, 0, &[]),
            frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        ] {
            assert_eq!(passes(&mut flood(), &idle, 10_000), FREE_IDLE_FRAMES);
        }
        let mut continued = flood();
        continued.received(&frame(HEADERS, 0, b"x")).unwrap();
        assert_eq!(
            passes(&mut continued, &frame(CONTINUATION, 0, b"x"), 100),
            CONTINUATIONS
        );
    }

    #[test]
    fn resets_that_we_are_made_to_send_count_as_well() {
        let mut flood = flood();
        let reset = frame(RST_STREAM, 0, &[0; 4]);
        let sent = (0..10_000)
            .take_while(|_| flood.sent(&reset).is_ok())
            .count();
        assert_eq!(u32::try_from(sent).unwrap(), FREE_RESETS);
        assert!(
            flood.received(&[]).is_err(),
            "the reading side ends as well"
        );
    }

    #[test]
    fn honest_traffic_passes_however_it_is_cut() {
        let call = [
            frame(HEADERS, 4, &[7; 40]),
            frame(DATA, 1, &[3; 100]),
            frame(WINDOW_UPDATE, 0, &[0, 1, 0, 0]),
            frame(PING, 0, &[0; 8]),
        ]
        .concat();
        let all = call.repeat(5000);
        for cut in [1, 7, 9, 10, 4096] {
            let mut flood = flood();
            assert!(
                all.chunks(cut).all(|piece| flood.received(piece).is_ok()),
                "cut at {cut}"
            );
            assert_eq!(flood.counts.opened, 5000);
        }
    }
}
