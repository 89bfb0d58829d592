//! Amounts as people write them, by what they are amounts of: whole numbers, sizes, money. And back to text, in the same words.

use super::value::{self, Wrong};
use crate::quota::Metric;

/// The largest amount: it fits any number a store or a computation uses, with room to add to it.
const MOST: u64 = 1_000_000_000_000_000_000;

/// Micro-units of a unit of money.
const MICRO: u64 = 1_000_000;

/// An amount of `metric`. 0 is one.
pub(super) fn amount(metric: &Metric, text: &str) -> Result<u64, Wrong> {
    match metric {
        Metric::Bytes => bytes(text),
        Metric::Money => money(text),
        Metric::Calls
        | Metric::Concurrent
        | Metric::Messages
        | Metric::StreamSeconds
        | Metric::Units(_) => value::number(text, 0, MOST),
    }
}

/// An amount as [`amount`] reads it.
pub(super) fn written(metric: &Metric, amount: u64) -> String {
    match metric {
        Metric::Bytes => {
            let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
            let fits =
                |(_, bits): &&(&str, u32)| amount > 0 && amount.is_multiple_of(1_u64 << bits);
            match units.iter().find(fits) {
                Some((unit, bits)) => format!("{}{unit}", amount >> bits),
                None => amount.to_string(),
            }
        }
        Metric::Money => {
            let micros = format!("{:06}", amount % MICRO);
            let digits = micros.trim_end_matches('0');
            format!("{}.{digits:0<2}", amount / MICRO)
        }
        Metric::Calls
        | Metric::Concurrent
        | Metric::Messages
        | Metric::StreamSeconds
        | Metric::Units(_) => amount.to_string(),
    }
}

fn bytes(text: &str) -> Result<u64, Wrong> {
    let size = match text {
        "0" => 0,
        _ => value::size(text)?,
    };
    match size <= MOST {
        true => Ok(size),
        false => Err(Wrong::new(
            format!("`{text}` is more than can be counted"),
            format!("write at most {MOST}"),
        )),
    }
}

fn money(text: &str) -> Result<u64, Wrong> {
    micro_units(text)
        .filter(|amount| *amount <= MOST)
        .ok_or_else(|| {
            Wrong::new(
                format!("`{text}` is no amount of money"),
                "write a decimal number with at most six digits after the point: 12.50, 0.002",
            )
        })
}

/// Exactly, or not at all. Small numbers reach us with an exponent, because files are read as numbers first.
fn micro_units(text: &str) -> Option<u64> {
    let (decimal, exponent) = match text.split_once(['e', 'E']) {
        Some((decimal, exponent)) => (decimal, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let number: u128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    let shift = exponent.checked_add(6)?.checked_sub(places)?;
    let factor = 10_u128.checked_pow(u32::try_from(shift.checked_abs()?).ok()?)?;
    let micros = match shift {
        0.. => number.checked_mul(factor)?,
        _ if number.is_multiple_of(factor) => number / factor,
        _ => return None,
    };
    u64::try_from(micros).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_exactly() {
        for (text, micros) in [
            ("12.50", 12_500_000),
            ("12.5", 12_500_000),
            ("0.002", 2_000),
            ("0.000001", 1),
            ("1e-6", 1),
            ("7", 7_000_000),
            ("0", 0),
            ("1.0000000", 1_000_000),
            ("1000000000000", MOST),
        ] {
            assert_eq!(money(text), Ok(micros), "{text}");
        }
        for text in [
            "0.0000001",
            "1e-7",
            "-1",
            "",
            ".5",
            "5.",
            "1,50",
            "12 EUR",
            "1e99",
            "1e9223372036854775807",
            "1000000000001",
        ] {
            assert!(money(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for metric in [
            Metric::Calls,
            Metric::Bytes,
            Metric::Money,
            Metric::Units("rows".into()),
        ] {
            for number in [0, 1, 1_000, 1_024, 1_500_000, 10 << 20, 3 << 30, MOST] {
                let text = written(&metric, number);
                assert_eq!(amount(&metric, &text), Ok(number), "{text}");
            }
        }
        assert_eq!(written(&Metric::Money, 12_500_000), "12.50");
        assert_eq!(written(&Metric::Money, 2_000), "0.002");
        assert_eq!(written(&Metric::Bytes, 10 << 20), "10MiB");
    }
}
