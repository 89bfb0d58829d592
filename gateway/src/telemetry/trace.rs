//! W3C trace context: which trace a request belongs to.
//!
//! Continues or starts a trace. Not here: deciding what is sampled, and exporting spans.

use super::request_id::{hex_digit, random_u64, write_hex};

/// Length of a version 00 `traceparent`: `00-` trace id `-` parent id `-` flags.
const LENGTH: usize = 55;

/// The form of a `traceparent`, with ids that are none.
const NOWHERE: [u8; LENGTH] = *b"00-00000000000000000000000000000000-0000000000000000-00";

/// W3C trace context (<https://www.w3.org/TR/trace-context/>): accepted or started, passed on with a new span id.
#[derive(Clone, Copy, Debug)]
pub struct TraceContext {
    text: [u8; LENGTH],
}

impl TraceContext {
    /// Not known yet; a trace id of zeros is none.
    pub fn none() -> Self {
        Self { text: NOWHERE }
    }

    /// Continues a valid `traceparent` with a new parent id; starts a new trace otherwise (then `tracestate` is dropped).
    /// The flag tells whether the client's was continued.
    pub fn accept_or_new(client: Option<&[u8]>) -> (Self, bool) {
        match client.and_then(parse) {
            Some((trace_id, flags)) => (Self::compose(&trace_id, flags), true),
            None => {
                let mut trace_id = [b'0'; 32];
                let (high, low) = trace_id.split_at_mut(16);
                write_hex(high, random_u64());
                // A trace id of zeros is invalid.
                write_hex(low, random_u64().max(1));
                (Self::compose(&trace_id, 0), false)
            }
        }
    }

    /// The `traceparent` to send on.
    pub fn header(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// Trace id, 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.header().get(3..35).unwrap_or_default()
    }

    fn compose(trace_id: &[u8; 32], flags: u8) -> Self {
        let mut span_id = [0; 16];
        write_hex(&mut span_id, random_u64().max(1));
        let flags = [hex_digit(flags >> 4), hex_digit(flags & 0xf)];
        let mut text = NOWHERE;
        for (place, part) in [
            (3..35, &trace_id[..]),
            (36..52, &span_id[..]),
            (53..55, &flags[..]),
        ] {
            if let Some(place) = text.get_mut(place) {
                place.copy_from_slice(part);
            }
        }
        Self { text }
    }
}

/// Trace id and flags of a valid `traceparent`. Versions to come are read as far as version 00 goes, as the
/// specification demands (section 3.2.4); of their flags only the two that are defined are kept.
fn parse(header: &[u8]) -> Option<([u8; 32], u8)> {
    let (known, rest) = header.split_at_checked(LENGTH)?;
    let version = byte_of(known.get(..2)?)?;
    let ended = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => matches!(rest.first(), None | Some(b'-')),
    };
    let dashed = [2, 35, 52].iter().all(|&at| known.get(at) == Some(&b'-'));
    let trace_id: [u8; 32] = known.get(3..35)?.try_into().ok()?;
    let flags = byte_of(known.get(53..)?)?;
    let valid = ended && dashed && is_id(&trace_id) && is_id(known.get(36..52)?);
    valid.then_some((trace_id, if version == 0 { flags } else { flags & 0b11 }))
}

/// Lower-case hex and not all zeros.
fn is_id(digits: &[u8]) -> bool {
    digits.iter().all(|&digit| nibble(digit).is_some()) && digits.iter().any(|&digit| digit != b'0')
}

fn byte_of(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    Some(nibble(high)? << 4 | nibble(low)?)
}

/// Lower case only: the specification has no upper-case digits.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn valid_parents_are_continued_under_a_new_span() {
        let table = [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), "01"),
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), "00"),
            (format!("00-{TRACE}-00f067aa0ba902b7-03"), "03"),
            (format!("01-{TRACE}-00f067aa0ba902b7-01"), "01"),
            (format!("cc-{TRACE}-00f067aa0ba902b7-ff-what-comes"), "03"),
        ];
        for (parent, flags) in table {
            let (context, continued) = TraceContext::accept_or_new(Some(parent.as_bytes()));
            assert!(continued, "{parent}");
            assert_eq!(context.trace_id(), TRACE);
            assert_eq!(&context.header()[..3], "00-");
            assert_eq!(&context.header()[53..], flags, "{parent}");
            assert_ne!(&context.header()[36..52], "00f067aa0ba902b7");
        }
    }

    #[test]
    fn invalid_parents_start_a_new_trace() {
        let span = "00f067aa0ba902b7";
        let table = [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{span}-01"),
            format!("00-{TRACE}-{span}-01-more"),
            format!("00-{TRACE}-{span}-01-"),
            format!("01-{TRACE}-{span}-01.more"),
            format!("00-{}-{span}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", span.to_uppercase()),
            format!("0G-{TRACE}-{span}-01"),
            format!("00-{TRACE}-{span}-0X"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00_{TRACE}-{span}-01"),
            format!("00-{TRACE}_{span}-01"),
            format!("00-{TRACE}-{span}_01"),
            format!(" 00-{TRACE}-{span}-01"),
            format!("00-{TRACE}-{span}-1"),
        ];
        for parent in table {
            let (context, continued) = TraceContext::accept_or_new(Some(parent.as_bytes()));
            assert!(!continued, "{parent}");
            assert_ne!(context.trace_id(), TRACE);
            assert!(
                parse(context.header().as_bytes()).is_some(),
                "{}",
                context.header()
            );
        }
    }

    #[test]
    fn any_bytes_at_all_give_a_valid_parent() {
        for byte in 0..=255_u8 {
            for length in [0, 1, 54, 55, 56, 200] {
                let (context, _) = TraceContext::accept_or_new(Some(&vec![byte; length]));
                assert!(parse(context.header().as_bytes()).is_some());
            }
        }
    }
}
