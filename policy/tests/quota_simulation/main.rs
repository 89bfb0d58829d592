//! The shipped grantor and the shipped cells, with everything between them going wrong: messages that are late, lost, doubled or out of
//! order, grantors and holders that die, clocks that jump. Deterministic: a seed is a history.
//!
//! At every step: no window hands out more than its limit, and no more is spent of one than that; a fleet never admits more in any
//! time than a single bucket would. Prints how that compares with counting asynchronously and with an even split.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod fleet;
mod rivals;

use std::time::Duration;

use fleet::{Faults, Fleet, Outcome};
use tollgate_policy::quota::Window;

const SECOND: Window = Window::Span(Duration::from_secs(1));
const MINUTE: Window = Window::Span(Duration::from_secs(60));

#[test]
fn nothing_goes_wrong_and_nothing_is_wasted() {
    for seed in 0..2 {
        let mut fleet = Fleet::new(seed, 10, 6_000, MINUTE, None, Faults::none());
        let told = fleet.run(130_000, 300.0);
        // Three times as much is asked for as there is.
        assert!(told.unused_percent() <= 1.0, "seed {seed}: {told:?}");
        let mut calm = Fleet::new(seed, 10, 60_000, MINUTE, None, Faults::none());
        let told = calm.run(130_000, 850.0);
        assert_eq!(told.denied, 0, "seed {seed}: {told:?}");
        assert!(told.waited_percent() < 1.0, "seed {seed}: {told:?}");
    }
}

#[test]
fn windows_hold_whatever_happens() {
    for seed in 0..30 {
        let faults = Faults::of(seed);
        let mut fleet = Fleet::new(seed, 2 + seed % 7, 500, MINUTE, None, faults);
        fleet.run(150_000, 40.0);
    }
}

#[test]
fn buckets_hold_whatever_happens() {
    for seed in 0..30 {
        let faults = Faults {
            jumps: false,
            ..Faults::of(seed)
        };
        let burst = (seed % 3 == 0).then_some(50);
        let mut fleet = Fleet::new(seed, 2 + seed % 7, 100, SECOND, burst, faults);
        fleet.run(60_000, 300.0);
    }
}

#[test]
fn slots_hold_whatever_happens() {
    for seed in 0..16 {
        let faults = Faults {
            jumps: false,
            // A grantor that starts anew does not know who holds what until it is told.
            grantor_dies: false,
            ..Faults::of(seed)
        };
        let mut fleet = Fleet::new(seed, 2 + seed % 4, 20, Window::Gauge, None, faults);
        fleet.run(60_000, 200.0);
    }
}

#[test]
fn leases_beside_an_asynchronous_counter_and_an_even_split() {
    println!(
        "holders limit/min  load | leases over  unused  denied early  waited | async 1 s over | even split denied early"
    );
    for (holders, limit) in [(10, 6_000), (30, 600), (100, 60_000)] {
        for load in [0.9, 3.0] {
            let rate = f64::from(u32::try_from(limit).unwrap()) / 60.0 * load;
            let mut fleet = Fleet::new(1, holders, limit, MINUTE, None, Faults::none());
            let leases = fleet.run(120_000, rate);
            let counted = rivals::asynchronous(1, holders, limit, 120_000, rate, 1_000);
            let split = rivals::even_split(1, holders, limit, 120_000, rate);
            println!(
                "{holders:7} {limit:9} {load:5.1} | {:9.2} % {:6.2} % {:10.2} % {:6.2} % | {:10.1} % | {:10.1} %",
                leases.over_percent(),
                leases.unused_percent(),
                leases.early_percent(),
                leases.waited_percent(),
                counted.over_percent(),
                split.early_percent(),
            );
            assert_eq!(leases.over, 0);
            if load > 1.0 {
                assert!(counted.over > 0, "the rival is measured the same way");
            } else {
                assert!(leases.early_percent() < split.early_percent());
            }
        }
    }
}

impl Outcome {
    fn share(part: u64, whole: u64) -> f64 {
        100.0 * part as f64 / whole.max(1) as f64
    }

    /// Admitted beyond the limit, of the limit.
    fn over_percent(&self) -> f64 {
        Self::share(self.over, self.allowed)
    }

    /// Allowed and not used though it was asked for.
    fn unused_percent(&self) -> f64 {
        let wanted = self.allowed.min(self.offered);
        Self::share(wanted.saturating_sub(self.admitted), wanted)
    }

    /// Denied though the window was not used up in the end, of all offered.
    fn early_percent(&self) -> f64 {
        Self::share(self.early, self.offered)
    }

    fn waited_percent(&self) -> f64 {
        Self::share(self.waited, self.offered)
    }
}
