//! Bytes that are written before their length is known.
//!
//! A length gets one byte, which is enough for most messages. What needs more is remembered and widened in one pass at the end: had
//! every message moved its content by itself, nesting would multiply the work.

use smallvec::SmallVec;

use crate::transcode::wire::{low_seven, varint_length};

/// Wire bytes in the making.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// Lengths that do not fit their byte.
    late: SmallVec<[Late; 16]>,
    /// Bytes that `late` will take in addition.
    widening: usize,
}

#[derive(Clone, Copy, Debug)]
struct Late {
    at: usize,
    length: usize,
}

/// A place to come back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    at: usize,
    late: usize,
    widening: usize,
}

impl Output {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    #[inline]
    pub(super) fn mark(&self) -> Mark {
        Mark {
            at: self.bytes.len(),
            late: self.late.len(),
            widening: self.widening,
        }
    }

    /// Everything written since is as if it had never been.
    pub(super) fn undo(&mut self, mark: Mark) {
        self.bytes.truncate(mark.at);
        self.late.truncate(mark.late);
        self.widening = mark.widening;
    }

    /// Begins something whose length stands before it.
    #[inline]
    pub(super) fn open(&mut self) -> Mark {
        let mark = self.mark();
        self.bytes.push(0);
        mark
    }

    /// Ends what was begun at the mark.
    #[inline]
    pub(super) fn close(&mut self, opened: Mark) {
        let written = self.bytes.len() - opened.at - 1;
        let length = written + self.widening - opened.widening;
        if length >= 0x80 {
            self.late.push(Late {
                at: opened.at,
                length,
            });
            self.widening += varint_length(length as u64) - 1;
        } else if let Some(byte) = self.bytes.get_mut(opened.at) {
            *byte = low_seven(length as u64);
        }
    }

    /// Whether nothing was written since something was begun at the mark.
    pub(super) fn is_empty_since(&self, opened: Mark) -> bool {
        self.bytes.len() == opened.at + 1
    }

    /// The finished bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.late.is_empty() {
            return self.bytes;
        }
        self.late.sort_unstable_by_key(|late| late.at);
        let mut source_end = self.bytes.len();
        let mut target_end = source_end + self.widening;
        self.bytes.resize(target_end, 0);
        for late in self.late.iter().rev() {
            let content = late.at + 1..source_end;
            target_end -= content.len();
            self.bytes.copy_within(content, target_end);
            let width = varint_length(late.length as u64);
            target_end -= width;
            source_end = late.at;
            let Some(room) = self.bytes.get_mut(target_end..target_end + width) else {
                debug_assert!(false, "a length has its room");
                return self.bytes;
            };
            let mut rest = late.length as u64;
            for byte in room {
                let more = if rest >= 0x80 { 0x80 } else { 0 };
                *byte = low_seven(rest) | more;
                rest >>= 7;
            }
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::wire::put_varint;

    /// Nested messages of which every level adds a text of that many bytes before and after.
    fn nested(output: &mut Output, texts: &[usize]) -> Vec<u8> {
        let Some((text, inner)) = texts.split_first() else {
            return Vec::new();
        };
        let opened = output.open();
        output.bytes.extend(vec![b'a'; *text]);
        let expected = nested(output, inner);
        output.bytes.extend(vec![b'b'; *text]);
        output.close(opened);
        let mut whole = Vec::new();
        put_varint(&mut whole, (expected.len() + 2 * text) as u64);
        whole.extend(vec![b'a'; *text]);
        whole.extend(expected);
        whole.extend(vec![b'b'; *text]);
        whole
    }

    #[test]
    fn lengths_of_any_width_end_up_before_their_content() {
        for texts in [
            &[0, 0, 0][..],
            &[1, 2, 3],
            &[100, 20, 3],
            &[63, 64, 0, 1, 70],
            &[9000, 1, 200, 0, 8192],
            &[0, 63, 1, 8191, 0, 1],
        ] {
            let mut output = Output::default();
            output.bytes.push(b'x');
            let mut expected = nested(&mut output, texts);
            expected.insert(0, b'x');
            expected.extend(nested(&mut output, texts));
            assert_eq!(output.finish(), expected, "{texts:?}");
        }
    }

    #[test]
    fn what_is_undone_leaves_no_trace() {
        let mut output = Output::default();
        let expected = nested(&mut output, &[200, 200]);
        let mark = output.mark();
        nested(&mut output, &[300, 1]);
        output.undo(mark);
        assert_eq!(output.finish(), expected);
    }
}
