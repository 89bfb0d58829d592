//! Whole numbers out of JSON numbers, exactly: `1.5e1` is 15, and nothing passes through a float.

/// A whole number below 2⁶⁴, and whether a minus stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) is_negative: bool,
    pub(crate) magnitude: u64,
}

/// Why a number is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotWhole {
    Fraction,
    TooLarge,
}

impl Whole {
    /// Of a valid JSON number.
    #[inline]
    pub(crate) fn of(number: &str) -> Result<Self, NotWhole> {
        let (is_negative, digits) = match number.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, number),
        };
        let magnitude = match plain(digits.as_bytes()) {
            Some(magnitude) => magnitude,
            None => scaled(digits)?,
        };
        Ok(Self {
            is_negative,
            magnitude,
        })
    }

    /// As a signed number that is not below `least` and not above `most`.
    #[inline]
    pub(crate) fn signed(self, least: i64, most: i64) -> Option<i64> {
        let value = if self.is_negative {
            0i64.checked_sub_unsigned(self.magnitude)?
        } else {
            i64::try_from(self.magnitude).ok()?
        };
        (least..=most).contains(&value).then_some(value)
    }

    /// As a number that is not below zero and not above `most`.
    #[inline]
    pub(crate) fn unsigned(self, most: u64) -> Option<u64> {
        let fits = self.magnitude <= most && (!self.is_negative || self.magnitude == 0);
        fits.then_some(self.magnitude)
    }
}

/// Of digits only, few enough that they cannot overflow.
#[inline]
fn plain(digits: &[u8]) -> Option<u64> {
    if digits.len() > 19 {
        return None;
    }
    let mut value = 0u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

/// Of digits with a point, an exponent, or too many to be sure.
fn scaled(number: &str) -> Result<u64, NotWhole> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = || whole.bytes().chain(fraction.bytes());
    let trailing_zeros = all().rev().take_while(|byte| *byte == b'0').count();
    let significant = whole.len() + fraction.len() - trailing_zeros;
    if significant == 0 {
        return Ok(0);
    }
    let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    // The number is its significant digits, times ten to this.
    let shift = exponent
        .saturating_sub(length(fraction.len()))
        .saturating_add(length(trailing_zeros));
    if shift < 0 {
        return Err(NotWhole::Fraction);
    }
    let mut value = 0u64;
    let zeros = std::iter::repeat_n(b'0', usize::try_from(shift.min(20)).unwrap_or(20));
    for byte in all().take(significant).chain(zeros) {
        let digit = u64::from(byte.wrapping_sub(b'0'));
        let next = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(digit));
        value = next.ok_or(NotWhole::TooLarge)?;
    }
    Ok(value)
}

fn exponent_of(exponent: &str) -> i64 {
    let digits = exponent.trim_start_matches(['+', '-']);
    // One of more digits than fit is as good as endless.
    let size = digits.parse().unwrap_or(i64::MAX / 4);
    if exponent.starts_with('-') {
        -size
    } else {
        size
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Must-have: integers are free of fractions by value, exponents allowed.
    #[test]
    fn numbers_are_whole_by_value_and_not_by_spelling() {
        let whole = [
            ("0", 0),
            ("-0", 0),
            ("15", 15),
            ("1.5e1", 15),
            ("1500e-2", 15),
            ("1.000000", 1),
            ("0.00e99999999999999999999", 0),
            ("0e-5", 0),
            ("18446744073709551615", u64::MAX),
            ("1844674407370955161.5E1", u64::MAX),
            ("1e19", 10_000_000_000_000_000_000),
            ("10000000000000000000000000e-25", 1),
            ("-9223372036854775808", 1 << 63),
        ];
        for (number, magnitude) in whole {
            assert_eq!(Whole::of(number).unwrap().magnitude, magnitude, "{number}");
        }
        for number in [
            "0.5",
            "1e-1",
            "15e-2",
            "1e-99999999999999999999",
            "1.0000000001",
        ] {
            assert_eq!(Whole::of(number), Err(NotWhole::Fraction), "{number}");
        }
        for number in [
            "18446744073709551616",
            "1e20",
            "1e99999999999999999999",
            "9e19",
        ] {
            assert_eq!(Whole::of(number), Err(NotWhole::TooLarge), "{number}");
        }
    }

    /// Must-have: integers are held to their range.
    #[test]
    fn ranges_are_kept() {
        let signed = |number| Whole::of(number).unwrap().signed(-128, 127);
        assert_eq!(signed("-128"), Some(-128));
        assert_eq!(signed("-129"), None);
        assert_eq!(signed("128"), None);
        let wide = Whole::of("-9223372036854775808").unwrap();
        assert_eq!(wide.signed(i64::MIN, i64::MAX), Some(i64::MIN));
        let wider = Whole::of("-9223372036854775809").unwrap();
        assert_eq!(wider.signed(i64::MIN, i64::MAX), None);
        let unsigned = |number| Whole::of(number).unwrap().unsigned(255);
        assert_eq!(unsigned("255"), Some(255));
        assert_eq!(unsigned("256"), None);
        assert_eq!(unsigned("-1"), None);
        assert_eq!(unsigned("-0"), Some(0));
    }
}
