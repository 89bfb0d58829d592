//! `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10), of the limit that is closest to its end; and the older
//! `X-RateLimit-*` where a setting asks for them.

use std::fmt::Write as _;
use std::time::Duration;

use tollgate_policy::quota::cell::Ticks;
use tollgate_policy::quota::{Limit, Metric};

use super::Exceeded;
use super::charges::Charges;

/// How a limit stands, for a caller.
#[derive(Clone, Copy, Debug)]
pub struct Told<'t> {
    /// The limit.
    pub limit: &'t Limit,
    /// What is left.
    pub left: u64,
    /// Until it starts anew; `None` for never.
    pub reset: Option<Duration>,
}

impl<'t> Told<'t> {
    /// The limit of a call with the smallest share left. Shadows are not told of.
    pub fn closest(charges: &'t Charges, now: Ticks) -> Option<Self> {
        let enforced = charges.tolls.iter().filter(|toll| !toll.is_shadow());
        let told = enforced.map(|toll| toll.closest(now));
        let told = told.map(|(limit, closest)| Self {
            limit,
            left: closest.left.min(limit.burst.unwrap_or(limit.amount)),
            reset: closest.reset,
        });
        told.min_by(|one, other| {
            let share = |it: &Told<'_>| {
                let whole = it.limit.burst.unwrap_or(it.limit.amount).max(1);
                (u128::from(it.left) << 32) / u128::from(whole)
            };
            share(one).cmp(&share(other))
        })
    }

    /// The limit a call was refused for.
    pub fn exceeded(exceeded: &'t Exceeded) -> Self {
        Self {
            limit: &exceeded.limit,
            left: exceeded.left,
            reset: exceeded.retry,
        }
    }

    /// `RateLimit-Policy`: quota, window in seconds, unit.
    pub fn policy(&self) -> String {
        let limit = self.limit;
        let mut policy = format!(
            "\"{}\";q={}",
            limit.name,
            limit.burst.unwrap_or(limit.amount)
        );
        if let Some(seconds) = limit.window.seconds() {
            let _ = write!(policy, ";w={}", seconds.max(1));
        }
        match &limit.metric {
            Metric::Calls => {}
            Metric::Bytes => policy.push_str(";qu=\"content-bytes\""),
            Metric::Concurrent => policy.push_str(";qu=\"concurrent-requests\""),
            Metric::Money => policy.push_str(";qu=\"money\""),
            Metric::Messages => policy.push_str(";qu=\"messages\""),
            Metric::StreamSeconds => policy.push_str(";qu=\"stream-seconds\""),
            Metric::Units(name) => {
                let _ = write!(policy, ";qu=\"{name}\"");
            }
        }
        policy
    }

    /// `RateLimit`: what is left, and seconds until it starts anew.
    pub fn state(&self) -> String {
        let mut state = format!("\"{}\";r={}", self.limit.name, self.left);
        if let Some(reset) = self.reset {
            let _ = write!(state, ";t={}", seconds(reset));
        }
        state
    }

    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`, as many clients know them.
    pub fn legacy(&self) -> [(&'static str, String); 3] {
        let whole = self.limit.burst.unwrap_or(self.limit.amount);
        [
            ("x-ratelimit-limit", whole.to_string()),
            ("x-ratelimit-remaining", self.left.to_string()),
            (
                "x-ratelimit-reset",
                seconds(self.reset.unwrap_or_default()).to_string(),
            ),
        ]
    }
}

/// Whole seconds, rounded up.
pub fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
