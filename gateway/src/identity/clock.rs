//! The time credentials are judged by: the wall clock, which no backward jump can turn back.
//!
//! A token or a certificate must not live longer because somebody set the clock back, so the judge takes the later of the wall clock and of what the
//! wall clock said at start plus the time that has passed since. A clock set forward counts at once: then they end early, never late.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tollgate_policy::time::Timestamp;

/// What the clocks said when the process first asked.
static START: OnceLock<(Instant, Timestamp)> = OnceLock::new();

/// The present moment, for judging credentials and rules.
pub fn now() -> Timestamp {
    let wall = Timestamp::from(SystemTime::now());
    let monotonic = Instant::now();
    let (began, then) = *START.get_or_init(|| (monotonic, wall));
    judged(wall, then.plus(monotonic.saturating_duration_since(began)))
}

/// The same, for TLS: by this certificates are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged;

impl TimeProvider for Judged {
    fn current_time(&self) -> Option<UnixTime> {
        let since = u64::try_from(now().millis()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(since)))
    }
}

fn judged(wall: Timestamp, elapsed: Timestamp) -> Timestamp {
    wall.max(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_extends_nothing_and_one_set_forward_counts_at_once() {
        let at = Timestamp::from_seconds;
        assert_eq!(judged(at(100), at(3_700)), at(3_700));
        assert_eq!(judged(at(7_300), at(3_700)), at(7_300));
    }

    #[test]
    fn time_does_not_go_back() {
        let first = now();
        assert!(now() >= first);
    }
}
