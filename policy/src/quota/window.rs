//! Windows: when a limit starts anew. Numbered by the grantor's clock, in UTC or a time zone.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone};
use chrono_tz::Tz;

use crate::time::Timestamp;

/// The time in which a limit's amount is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// Spans of this length, counted from 1970. At least a second.
    Span(Duration),
    /// Calendar days of a time zone.
    Day(Tz),
    /// Calendar months of a time zone.
    Month(Tz),
    /// No end.
    Lifetime,
    /// Not a time at all: what is under way now.
    Gauge,
}

/// One window among the others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance {
    /// Begin of the window, milliseconds since 1970; 0 for those without.
    pub begin: i64,
    /// Its end, exclusive; `i64::MAX` for those without.
    pub end: i64,
}

impl Window {
    /// The window a time lies in.
    pub fn at(self, now: Timestamp) -> Instance {
        match self {
            Self::Span(length) => {
                let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
                let begin = now.millis().div_euclid(length).saturating_mul(length);
                let end = begin.saturating_add(length);
                Instance { begin, end }
            }
            Self::Day(zone) => calendar(zone, now, |day| day, NaiveDate::succ_opt),
            Self::Month(zone) => {
                let first = |day: NaiveDate| day.with_day(1).unwrap_or(day);
                calendar(zone, now, first, move |day| {
                    day.checked_add_months(chrono::Months::new(1))
                })
            }
            Self::Lifetime | Self::Gauge => Instance {
                begin: 0,
                end: i64::MAX,
            },
        }
    }

    /// Its nominal length in seconds, as `RateLimit-Policy` shows it; `None` for those without end.
    pub const fn seconds(self) -> Option<u64> {
        match self {
            Self::Span(length) => Some(length.as_secs()),
            Self::Day(_) => Some(86_400),
            Self::Month(_) => Some(2_592_000),
            Self::Lifetime | Self::Gauge => None,
        }
    }
}

/// The window from the day `first` makes of today to the day `next` makes of that.
fn calendar(
    zone: Tz,
    now: Timestamp,
    first: impl Fn(NaiveDate) -> NaiveDate,
    next: impl Fn(&NaiveDate) -> Option<NaiveDate>,
) -> Instance {
    let Some(moment) = DateTime::from_timestamp_millis(now.millis()) else {
        // Outside the calendar: one window to the end of time.
        return Instance {
            begin: 0,
            end: i64::MAX,
        };
    };
    let begin = first(moment.with_timezone(&zone).date_naive());
    let end = next(&begin).and_then(|day| midnight(zone, day));
    Instance {
        begin: midnight(zone, begin).unwrap_or(0),
        end: end.unwrap_or(i64::MAX),
    }
}

/// The first moment of a day, which is not midnight where the clocks are put forward then; of a day that a zone left out (Samoa did,
/// once), that of the next.
fn midnight(zone: Tz, day: NaiveDate) -> Option<i64> {
    let midnight = day.and_hms_opt(0, 0, 0)?;
    (0..=48).find_map(|half_hours| {
        let naive = midnight.checked_add_signed(TimeDelta::minutes(30 * half_hours))?;
        let moment = zone.from_local_datetime(&naive).earliest()?;
        Some(moment.timestamp_millis())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn window(window: Window, now: &str) -> (String, String) {
        let found = window.at(at(now));
        let told = |millis| Timestamp::from_millis(millis).to_string();
        (told(found.begin), told(found.end))
    }

    fn is(window: (String, String), begin: &str, end: &str) {
        assert_eq!(window, (begin.to_owned(), end.to_owned()));
    }

    #[test]
    fn spans_are_counted_from_1970() {
        let minute = Window::Span(Duration::from_secs(60));
        let found = window(minute, "2026-11-21T19:30:59.999Z");
        is(found, "2026-11-21T19:30:00Z", "2026-11-21T19:31:00Z");
    }

    #[test]
    fn months_end_at_midnight_of_their_zone() {
        let month = Window::Month(chrono_tz::Europe::Berlin);
        let found = window(month, "2026-10-31T22:59:59Z");
        // Summer time ends within it.
        is(found, "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z");
        let found = window(month, "2026-12-31T23:30:00Z");
        is(found, "2026-12-31T23:00:00Z", "2027-01-31T23:00:00Z");
    }

    #[test]
    fn a_day_without_midnight_begins_at_its_first_moment() {
        // In Cairo clocks went from 23:59:59 to 01:00 on 2024-04-26.
        let day = Window::Day(chrono_tz::Africa::Cairo);
        let found = window(day, "2024-04-26T08:00:00Z");
        is(found, "2024-04-25T22:00:00Z", "2024-04-26T21:00:00Z");
    }

    #[test]
    fn windows_follow_on_each_other_without_a_gap() {
        for zone in [
            chrono_tz::UTC,
            chrono_tz::America::Sao_Paulo,
            chrono_tz::Australia::Lord_Howe,
            chrono_tz::Pacific::Apia,
        ] {
            for kind in [Window::Day(zone), Window::Month(zone)] {
                let mut now = at("2010-01-15T00:00:00Z");
                for _ in 0..900 {
                    let here = kind.at(now);
                    assert!(here.begin <= now.millis() && now.millis() < here.end);
                    let next = kind.at(Timestamp::from_millis(here.end));
                    assert_eq!(next.begin, here.end, "{kind:?} {now}");
                    now = Timestamp::from_millis(here.end);
                }
            }
        }
    }
}
