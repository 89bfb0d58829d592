//! How long a caller wants to wait: `grpc-timeout` and `connect-timeout-ms`.
//!
//! Both are taken strictly. A malformed one never goes on to a service: some keep it in the table of header fields and fail later
//! calls of the same connection by it.

use std::time::Duration;

/// Most digits of `grpc-timeout` (gRPC over HTTP/2, "TimeoutValue").
const MOST_DIGITS: usize = 8;

/// Most digits of `connect-timeout-ms` (Connect protocol, "Timeouts").
const MOST_DIGITS_CONNECT: usize = 10;

/// What `grpc-timeout` says: one to eight digits and a unit of `H M S m u n`; `None` where it is malformed.
pub fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let amount = number(digits, MOST_DIGITS)?;
    Some(match unit {
        b'H' => Duration::from_secs(amount.saturating_mul(3600)),
        b'M' => Duration::from_secs(amount.saturating_mul(60)),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// What `connect-timeout-ms` says: one to ten digits; `None` where it is malformed.
pub fn parse_connect(value: &[u8]) -> Option<Duration> {
    number(value, MOST_DIGITS_CONNECT).map(Duration::from_millis)
}

/// As `grpc-timeout`, in the finest unit that eight digits hold. Rounded down: the service gives up first.
pub fn format_grpc(left: Duration) -> String {
    let units: [(u128, char); 6] = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
        (u128::from(left.as_secs() / 60), 'M'),
        (u128::from(left.as_secs() / 3600), 'H'),
    ];
    let fitting = units.iter().find(|(amount, _)| *amount < 100_000_000);
    let (amount, unit) = fitting.copied().unwrap_or((99_999_999, 'H'));
    format!("{amount}{unit}")
}

fn number(digits: &[u8], most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Must-have: grpc-timeout is validated.
    #[test]
    fn a_timeout_is_taken_strictly() {
        let table: [(&str, Option<Duration>); 14] = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("100000000S", None),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("1 S", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_grpc(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse_connect(b"1500"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_connect(b"12345678901"), None);
        assert_eq!(parse_connect(b"1.5"), None);
    }

    #[test]
    fn what_is_passed_on_is_never_longer_and_always_well_formed() {
        for nanos in [0, 1, 99_999_999, 100_000_000, 1_234_567_890_123, u64::MAX] {
            let left = Duration::from_nanos(nanos);
            let text = format_grpc(left);
            let again = parse_grpc(text.as_bytes());
            assert!(again.is_some_and(|again| again <= left), "{text}");
        }
        assert_eq!(format_grpc(Duration::MAX), "99999999H");
        assert_eq!(format_grpc(Duration::from_secs(2)), "2000000u");
    }
}
