//! A limit that is reached, in words and fields.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::quota::{Limit, Metric, Window};

use super::fields::{Told, seconds};

/// Longest time added to `Retry-After`, so that those who wait for the same moment do not come back at once.
const JITTER: u64 = 10;

/// A call was refused for a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit.
    pub limit: Arc<Limit>,
    /// What is left of it.
    pub left: u64,
    /// Until there is something again; `None`: never.
    pub retry: Option<Duration>,
}

impl Exceeded {
    /// `Retry-After`, and the `RateLimit` fields.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let told = Told::exceeded(self);
        let mut fields = vec![
            ("ratelimit-policy", told.policy()),
            ("ratelimit", told.state()),
        ];
        if let Some(retry) = self.retry {
            let wait = seconds(retry).max(1);
            // Up to a tenth more, of at least one second and at most ten: who was refused together shall not come back together.
            let more = super::random() % ((wait / 10).clamp(1, JITTER) + 1);
            fields.push(("retry-after", (wait + more).to_string()));
        }
        fields
    }
}

/// For the caller: which limit, how much, in which time.
impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit {
            name,
            amount,
            metric,
            window,
            burst,
            ..
        } = &*self.limit;
        match metric {
            Metric::Concurrent => write!(f, "the limit `{name}` of {amount} calls at a time")?,
            Metric::Money => {
                let (whole, part) = (amount / 1_000_000, amount % 1_000_000 / 10_000);
                write!(f, "the spend cap `{name}` of {whole}.{part:02}")?;
            }
            _ => write!(f, "the limit `{name}` of {amount} {}", metric.as_str())?,
        }
        match window {
            Window::Span(length) => write!(f, " per {}", Length(*length))?,
            Window::Day(_) => f.write_str(" per day")?,
            Window::Month(_) => f.write_str(" per month")?,
            Window::Lifetime => f.write_str(" in all")?,
            Window::Gauge => {}
        }
        if let Some(burst) = burst {
            write!(f, " ({burst} at once)")?;
        }
        f.write_str(" is reached")
    }
}

/// A length of time in its largest whole unit.
struct Length(Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        for (unit, name) in [
            (86_400, "day"),
            (3_600, "hour"),
            (60, "minute"),
            (1, "second"),
        ] {
            if whole > 0 && whole.is_multiple_of(unit) {
                return match whole / unit {
                    1 => f.write_str(name),
                    many => write!(f, "{many} {name}s"),
                };
            }
        }
        write!(f, "{:?}", self.0)
    }
}
