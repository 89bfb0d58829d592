//! Points in time and spans of it as ProtoJSON writes them: `2026-11-21T09:30:00.250Z`, `-1.5s`.

use std::io::Write as _;

/// Of 0001-01-01T00:00:00Z.
const FIRST_SECOND: i64 = -62_135_596_800;
/// Of 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;
/// About ten thousand years; a fraction of a second may be added.
const LONGEST_SPAN: i64 = 315_576_000_000;
const NANOS: i32 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Seconds and nanoseconds of an RFC 3339 text; `None` if it is none, or not in the years 1 to 9999.
pub(crate) fn timestamp_of(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    let fixed = |at: usize, byte: u8| (bytes.get(at) == Some(&byte)).then_some(());
    fixed(4, b'-')?;
    fixed(7, b'-')?;
    fixed(10, b'T')?;
    fixed(13, b':')?;
    fixed(16, b':')?;
    let year = digits(text.get(0..4)?)?;
    let month = digits(text.get(5..7)?)?;
    let day = digits(text.get(8..10)?)?;
    let hour = digits(text.get(11..13)?)?;
    let minute = digits(text.get(14..16)?)?;
    let second = digits(text.get(17..19)?)?;
    let in_range = (1..=12).contains(&month)
        && day >= 1
        && day <= days_of_month(year, month)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let (nanos, zone) = fraction(text.get(19..)?)?;
    let local = days_before(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    let seconds = local - offset(zone)?;
    (FIRST_SECOND..=LAST_SECOND)
        .contains(&seconds)
        .then_some((seconds, nanos))
}

/// `Z`, or the seconds of `+01:00`.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// The nanoseconds of `.25`, and what follows; no point is no nanoseconds.
fn fraction(text: &str) -> Option<(i32, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let count = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, after) = rest.split_at_checked(count)?;
    if !(1..=9).contains(&count) {
        return None;
    }
    let scale = 10i64.pow(9 - u32::try_from(count).ok()?);
    let nanos = i32::try_from(digits(fraction)? * scale).ok()?;
    Some((nanos, after))
}

fn digits(text: &str) -> Option<i64> {
    // Eighteen cannot overflow.
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    let add = |number, byte: u8| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
        digit.map(|digit| number * 10 + digit)
    };
    text.bytes().try_fold(0, add)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date. The year is taken to begin in March, so that the odd day is its last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date that many days after 1970-01-01: the way back.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Appends a point in time, in quotes; false if it is out of range, and nothing is appended.
pub(crate) fn print_timestamp(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> bool {
    if !(FIRST_SECOND..=LAST_SECOND).contains(&seconds) || !(0..NANOS).contains(&nanos) {
        return false;
    }
    let (year, month, day) = date_of(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    out.push(b'"');
    padded(year, 4, out);
    out.push(b'-');
    padded(month, 2, out);
    out.push(b'-');
    padded(day, 2, out);
    out.push(b'T');
    padded(second / 3600, 2, out);
    out.push(b':');
    padded(second / 60 % 60, 2, out);
    out.push(b':');
    padded(second % 60, 2, out);
    print_fraction(nanos, out);
    out.extend_from_slice(b"Z\"");
    true
}

fn padded(mut value: i64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out.iter_mut().skip(start).rev() {
        *digit += u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// None, three, six or nine digits.
fn print_fraction(nanos: i32, out: &mut Vec<u8>) {
    let nanos = i64::from(nanos);
    if nanos == 0 {
        return;
    }
    out.push(b'.');
    if nanos % 1_000_000 == 0 {
        padded(nanos / 1_000_000, 3, out);
    } else if nanos % 1000 == 0 {
        padded(nanos / 1000, 6, out);
    } else {
        padded(nanos, 9, out);
    }
}

/// Seconds and nanoseconds, both of one sign, of a text as `-1.5s`; `None` if it is none, or of more than ten thousand years.
pub(crate) fn duration_of(text: &str) -> Option<(i64, i32)> {
    let text = text.strip_suffix('s')?;
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, rest) = text.split_at_checked(text.find('.').unwrap_or(text.len()))?;
    let seconds = digits(whole).filter(|seconds| *seconds <= LONGEST_SPAN)?;
    let (nanos, rest) = fraction(rest)?;
    let sign_of_nanos = i32::try_from(sign).ok()?;
    rest.is_empty()
        .then_some((sign * seconds, sign_of_nanos * nanos))
}

/// Appends a span of time, in quotes; false if it is out of range or of two signs, and nothing is appended.
pub(crate) fn print_duration(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> bool {
    let in_range =
        (-LONGEST_SPAN..=LONGEST_SPAN).contains(&seconds) && (1 - NANOS..NANOS).contains(&nanos);
    let signs_differ = (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0);
    if !in_range || signs_differ {
        return false;
    }
    out.push(b'"');
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    let written = write!(out, "{}", seconds.unsigned_abs());
    debug_assert!(written.is_ok(), "a vector takes everything");
    print_fraction(nanos.abs(), out);
    out.extend_from_slice(b"s\"");
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn timestamp(seconds: i64, nanos: i32) -> Option<String> {
        let mut out = Vec::new();
        print_timestamp(seconds, nanos, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    fn duration(seconds: i64, nanos: i32) -> Option<String> {
        let mut out = Vec::new();
        print_duration(seconds, nanos, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    /// Must-have: Timestamp in RFC 3339 with `Z` and 0, 3, 6 or 9 digits.
    #[test]
    fn timestamps_are_read_and_written() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("0001-01-01T00:00:00Z", FIRST_SECOND, 0),
            ("9999-12-31T23:59:59.999999999Z", LAST_SECOND, 999_999_999),
            ("2000-02-29T12:34:56.250Z", 951_827_696, 250_000_000),
            ("1969-12-31T23:59:59.000001Z", -1, 1000),
        ] {
            assert_eq!(timestamp_of(text), Some((seconds, nanos)), "{text}");
            assert_eq!(timestamp(seconds, nanos).unwrap(), format!("\"{text}\""));
        }
        let same = timestamp_of("1970-01-01T01:30:00.5+01:30");
        assert_eq!(same, Some((0, 500_000_000)));
    }

    #[test]
    fn every_day_is_found_again() {
        for day in (-719_162..2_932_897).step_by(13) {
            let (year, month, date) = date_of(day);
            assert_eq!(days_before(year, month, date), day);
            assert!((1..=12).contains(&month) && date <= days_of_month(year, month));
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01t00:00:00Z",
            "1970-01-01T00:00:00z",
            "1970-13-01T00:00:00Z",
            "1970-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.0000000000Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01 00:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:00ZZ",
            "ä970-01-01T00:00:00Z",
        ] {
            assert_eq!(timestamp_of(text), None, "{text}");
        }
        assert_eq!(timestamp(LAST_SECOND + 1, 0), None);
        assert_eq!(timestamp(0, -1), None);
        assert_eq!(timestamp(0, NANOS), None);
    }

    /// Must-have: Duration with `s` and 0, 3, 6 or 9 digits.
    #[test]
    fn durations_are_read_and_written() {
        for (text, seconds, nanos) in [
            ("0s", 0, 0),
            ("1.500s", 1, 500_000_000),
            ("-1.000001s", -1, -1000),
            ("-0.000000001s", 0, -1),
            ("315576000000.999999999s", LONGEST_SPAN, 999_999_999),
        ] {
            assert_eq!(duration_of(text), Some((seconds, nanos)), "{text}");
            assert_eq!(duration(seconds, nanos).unwrap(), format!("\"{text}\""));
        }
        for text in [
            "",
            "1",
            "s",
            "1.s",
            ".5s",
            "-s",
            "1 s",
            "+1s",
            "315576000001s",
            "1.0000000000s",
            "99999999999999999999s",
            "--1s",
            "1ss",
        ] {
            assert_eq!(duration_of(text), None, "{text}");
        }
        assert_eq!(duration(1, -1), None);
        assert_eq!(duration(LONGEST_SPAN + 1, 0), None);
    }
}
