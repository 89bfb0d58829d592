//! Whether a worker is saturated, and how many calls a second it can serve then.
//!
//! The signal is how late a timer fires: it waits behind everything else the worker's loop has to do, as each step of a call does. What
//! counts is the least lateness of a window, so that a moment's burst is not taken for a standing queue (as CoDel does), in
//! two windows in a row, so that a machine that stood still is not taken for a flood.
//!
//! What is limited is the rate of calls begun and not, as elsewhere, their number: in a proxy that waits for others, a stream or a call
//! to a slow service holds a place without costing the loop anything, and a limit on places would turn calls away for it. The limit starts
//! from what was served in fact, which is the capacity while there is a queue, a little less until the queue is gone; it grows as long as
//! there is none, and ends when nobody had to be turned away. Pure: times come in.

use std::time::{Duration, Instant};

/// The shortest window. Longer than a few ticks, shorter than a caller's patience.
pub(super) const WINDOW: Duration = Duration::from_millis(100);

/// Calls a second that are always allowed: below, no limit can be told from noise.
const LEAST: f64 = 100.0;

/// Quiet windows in a row after which the limit ends.
const QUIET: u8 = 5;

/// How a worker stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pressure {
    /// It keeps up.
    Calm,
    /// It was behind for one window: calls are counted by API, nobody is turned away.
    Watched,
    /// It is behind, or was a moment ago: so many calls a second.
    Shedding(f64),
}

/// What happened in a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Happened {
    /// Calls that ended.
    pub(super) served: u32,
    /// Calls that were turned away.
    pub(super) shed: u32,
}

/// The judgement on one worker.
#[derive(Debug)]
pub(super) struct Saturation {
    target: Duration,
    window_began: Instant,
    /// The least lateness of this window.
    least: Option<Duration>,
    /// Calls a second, as served at best lately.
    capacity: f64,
    quiet: u8,
    pressure: Pressure,
}

impl Saturation {
    pub(super) fn new(target: Duration, now: Instant) -> Self {
        Self {
            target,
            window_began: now,
            least: None,
            capacity: 0.0,
            quiet: 0,
            pressure: Pressure::Calm,
        }
    }

    /// A timer fired so late. Gives the length of the window and its least lateness once it is over.
    pub(super) fn fired(&mut self, late: Duration, now: Instant) -> Option<(Duration, Duration)> {
        let least = self.least.map_or(late, |least| least.min(late));
        let length = now.saturating_duration_since(self.window_began);
        if length < WINDOW {
            self.least = Some(least);
            return None;
        }
        (self.least, self.window_began) = (None, now);
        Some((length, least))
    }

    /// Judges a window that is over.
    pub(super) fn judge(
        &mut self,
        length: Duration,
        late: Duration,
        happened: Happened,
    ) -> Pressure {
        let rate = f64::from(happened.served) / length.as_secs_f64();
        // A window in which the machine stood still says nothing about what can be served in the next.
        self.capacity = rate.max(self.capacity * 0.9);
        let behind = late > self.target;
        self.pressure = match self.pressure {
            Pressure::Calm if behind => Pressure::Watched,
            Pressure::Calm => Pressure::Calm,
            Pressure::Watched | Pressure::Shedding(_) if behind => {
                self.quiet = 0;
                // Twice too late: a tenth less than is served, so that the queue is worked off.
                let excess = late.as_secs_f64() / self.target.as_secs_f64() - 1.0;
                let limit = self.capacity * (1.0 - 0.1 * excess.min(2.0));
                Pressure::Shedding(limit.max(LEAST))
            }
            Pressure::Watched => Pressure::Calm,
            Pressure::Shedding(limit) => self.relieved(limit, late, happened),
        };
        self.pressure
    }

    fn relieved(&mut self, limit: f64, late: Duration, happened: Happened) -> Pressure {
        self.quiet = if happened.shed == 0 {
            self.quiet + 1
        } else {
            0
        };
        if self.quiet >= QUIET {
            (self.quiet, self.capacity) = (0, 0.0);
            return Pressure::Calm;
        }
        // With no queue at all the worker idles while others are turned away; near the target it is busy enough.
        let growth = if late < self.target / 2 { 1.1 } else { 1.03 };
        Pressure::Shedding(limit * growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    fn judged(saturation: &mut Saturation, late: u64, served: u32, shed: u32) -> Pressure {
        let late = Duration::from_millis(late);
        saturation.judge(WINDOW, late, Happened { served, shed })
    }

    #[test]
    fn the_least_lateness_of_a_window_counts() {
        let begun = Instant::now();
        let mut saturation = Saturation::new(TARGET, begun);
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!(saturation.fired(Duration::from_millis(90), at(50)), None);
        assert_eq!(saturation.fired(Duration::from_millis(3), at(80)), None);
        let window = saturation.fired(Duration::from_millis(70), at(120));
        let expected = (Duration::from_millis(120), Duration::from_millis(3));
        assert_eq!(window, Some(expected));
    }

    #[test]
    fn a_machine_that_stood_still_is_not_saturated() {
        let mut saturation = Saturation::new(TARGET, Instant::now());
        assert_eq!(judged(&mut saturation, 5_000, 0, 0), Pressure::Watched);
        assert_eq!(judged(&mut saturation, 1, 900, 0), Pressure::Calm);
    }

    #[test]
    fn a_standing_queue_limits_to_what_is_served_and_ends_when_nobody_is_turned_away() {
        let mut saturation = Saturation::new(TARGET, Instant::now());
        judged(&mut saturation, 100, 1_000, 0);
        let Pressure::Shedding(limit) = judged(&mut saturation, 100, 1_000, 0) else {
            panic!("not saturated");
        };
        assert!((8_900.0..=9_100.0).contains(&limit), "{limit}");
        // Far behind, and nothing served in this window: what was served before still counts.
        let Pressure::Shedding(limit) = judged(&mut saturation, 900, 0, 50) else {
            panic!("not saturated");
        };
        assert!((7_000.0..=7_500.0).contains(&limit), "{limit}");
        let Pressure::Shedding(more) = judged(&mut saturation, 10, 720, 300) else {
            panic!("the limit ended while calls are turned away");
        };
        assert!(more > limit);
        for _ in 1..QUIET {
            assert_ne!(judged(&mut saturation, 10, 500, 0), Pressure::Calm);
        }
        assert_eq!(judged(&mut saturation, 10, 500, 0), Pressure::Calm);
    }

    #[test]
    fn the_limit_is_never_so_low_that_nobody_is_served() {
        let mut saturation = Saturation::new(TARGET, Instant::now());
        let mut last = Pressure::Calm;
        for _ in 0..200 {
            last = judged(&mut saturation, 10_000, 0, 1);
        }
        assert_eq!(last, Pressure::Shedding(LEAST));
    }
}
