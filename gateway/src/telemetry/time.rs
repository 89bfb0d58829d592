//! Times as people and log readers write them: RFC 3339 in UTC.

use std::fmt::{Display, Formatter, Result};
use std::time::{SystemTime, UNIX_EPOCH};

/// Shows a time as `2026-01-31T09:05:00Z`, or with a precision of three (`{:.3}`) as `2026-01-31T09:05:00.123Z`. Times before
/// 1970 show as its first moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Utc(pub(crate) SystemTime);

impl Display for Utc {
    /// Days to date after Howard Hinnant's `civil_from_days`.
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months are counted from March, so that the leap day is the last of the year.
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            out,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if out.precision() == Some(3) {
            write!(out, ".{:03}", since.subsec_millis())?;
        }
        out.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc_3339() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, expected) in table {
            let time = Utc(UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(format!("{time:.3}"), expected);
            let seconds = expected.split('.').next().unwrap_or_default();
            assert_eq!(time.to_string(), format!("{seconds}Z"));
        }
    }
}
