//! Whose calls a saturated worker turns away: those of the APIs that ask for more than a fair share of it.
//!
//! What the worker can serve is divided like water: an API that asks for less than an equal part gets all it asks for, and the others divide
//! the rest equally. So a flood on one API is paid for by that API, and the calls of the others pass. Each API has a bucket that
//! fills at its share's rate. Half of it is kept from calls of low priority and a quarter from normal ones, so that within an API the
//! critical ones find something left as long as they alone do not exceed the share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_policy::settings::Priority;

use crate::api::Traffic;

/// Calls a bucket holds at least: whole calls cannot be divided.
const SMALLEST: f64 = 10.0;

/// Calls a second every API may make, however many there are.
const LEAST: f64 = 10.0;

/// Calls under way below which an API is never turned away: whatever was estimated, who asks so little is not what the worker is
/// busy with. An eighth of what a worker serves in any case.
const FEW: u32 = 8;

/// Windows without a call after which an API is forgotten.
const FORGOTTEN: u8 = 10;

/// What an API is found by: the address of what all its generations share, which an entry keeps alive.
pub(super) type Key = usize;

/// The shares of all APIs that were called lately.
#[derive(Debug)]
pub(super) struct Shares {
    of: HashMap<Key, Share>,
    /// Calls a second an API may make.
    level: f64,
    /// Seconds' worth of calls a bucket holds.
    depth: f64,
}

#[derive(Debug)]
struct Share {
    _api: Arc<Traffic>,
    asked: u32,
    in_flight: u32,
    left: f64,
    filled_at: Instant,
    idle: u8,
}

impl Shares {
    /// Buckets hold what may come at once: `depth` of it.
    pub(super) fn new(depth: Duration) -> Self {
        Self {
            of: HashMap::new(),
            level: f64::INFINITY,
            depth: depth.as_secs_f64(),
        }
    }

    /// A call came; nobody is turned away yet. What it gives is for [`Shares::leave`].
    pub(super) fn count(&mut self, api: &Arc<Traffic>, now: Instant) -> Key {
        let share = self.share(api, now);
        share.asked += 1;
        share.in_flight += 1;
        key(api)
    }

    /// A call came: whether its API has something left for it, or asks for nearly nothing. `room`: there is enough for all.
    pub(super) fn admits(
        &mut self,
        api: &Arc<Traffic>,
        priority: Priority,
        room: bool,
        now: Instant,
    ) -> Option<Key> {
        let (level, full) = (self.level, self.full());
        let share = self.share(api, now);
        share.asked += 1;
        let passed = now.saturating_duration_since(share.filled_at);
        (share.left, share.filled_at) = (share.left + level * passed.as_secs_f64(), now);
        share.left = share.left.min(full);
        let kept = match priority {
            Priority::Critical => 0.0,
            Priority::Normal => full / 4.0,
            Priority::Low => full / 2.0,
        };
        if share.left >= kept + 1.0 {
            share.left -= 1.0;
        } else if !room && share.in_flight >= FEW {
            return None;
        }
        share.in_flight += 1;
        Some(key(api))
    }

    /// A call ended. Calls that began before anybody counted, or whose API was forgotten meanwhile, are unknown here.
    pub(super) fn leave(&mut self, key: Key) {
        if let Some(share) = self.of.get_mut(&key) {
            share.in_flight = share.in_flight.saturating_sub(1);
        }
    }

    /// Divides `limit` calls a second among those who asked in the window that is over.
    pub(super) fn divide(&mut self, limit: f64, window: Duration) {
        let seconds = window.as_secs_f64();
        let mut asked: Vec<f64> = self
            .of
            .values()
            .filter(|share| share.asked > 0)
            .map(|share| f64::from(share.asked) / seconds)
            .collect();
        self.level = level(&mut asked, limit).max(LEAST);
        for share in self.of.values_mut() {
            share.idle = if share.asked > 0 {
                0
            } else {
                share.idle.saturating_add(1)
            };
            share.asked = 0;
        }
        self.of
            .retain(|_, share| share.idle < FORGOTTEN || share.in_flight > 0);
    }

    /// Nobody is turned away any more.
    pub(super) fn forget(&mut self) {
        self.of = HashMap::new();
        self.level = f64::INFINITY;
    }

    fn full(&self) -> f64 {
        (self.level * self.depth).max(SMALLEST)
    }

    fn share(&mut self, api: &Arc<Traffic>, now: Instant) -> &mut Share {
        let full = self.full();
        self.of.entry(key(api)).or_insert_with(|| Share {
            _api: api.clone(),
            asked: 0,
            in_flight: 0,
            left: full,
            filled_at: now,
            idle: 0,
        })
    }
}

fn key(api: &Arc<Traffic>) -> Key {
    Arc::as_ptr(api).addr()
}

/// The most each may have so that all together keep to `limit`. Where all fit, nobody is held to less than the whole.
fn level(asked: &mut [f64], limit: f64) -> f64 {
    asked.sort_by(f64::total_cmp);
    let mut left = limit;
    let mut others = f64::from(u32::try_from(asked.len()).unwrap_or(u32::MAX));
    for asks in asked {
        let fair = left / others;
        if *asks > fair {
            return fair;
        }
        left -= *asks;
        others -= 1.0;
    }
    limit
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "tests, and of whole numbers"
)]
mod tests {
    use super::*;

    #[test]
    fn water_finds_its_level() {
        let table: &[(&[f64], f64, f64)] = &[
            (&[], 100.0, 100.0),
            (&[50.0], 100.0, 100.0),
            (&[1_000.0], 100.0, 100.0),
            (&[1_000.0, 10.0], 100.0, 90.0),
            (&[1_000.0, 10.0, 900.0], 100.0, 45.0),
            (&[1_000.0, 1_000.0], 100.0, 50.0),
            (&[30.0, 30.0], 100.0, 100.0),
        ];
        for (asked, limit, expected) in table {
            assert_eq!(level(&mut asked.to_vec(), *limit), *expected, "{asked:?}");
        }
    }

    /// Ten seconds of calls: `(api, calls a second, priority)`; how many of each were admitted.
    fn admitted(limit: f64, callers: &[(&Arc<Traffic>, u32, Priority)]) -> Vec<u32> {
        let mut shares = Shares::new(Duration::from_millis(100));
        let begun = Instant::now();
        let mut admitted = vec![0; callers.len()];
        for millisecond in 0..10_000_u32 {
            let now = begun + Duration::from_millis(millisecond.into());
            for ((api, rate, priority), admitted) in callers.iter().zip(&mut admitted) {
                let due = |at: u32| at * rate / 1_000;
                for _ in due(millisecond)..due(millisecond + 1) {
                    *admitted += u32::from(shares.admits(api, *priority, false, now).is_some());
                }
            }
            if millisecond % 100 == 99 {
                shares.divide(limit, Duration::from_millis(100));
            }
        }
        admitted
    }

    #[test]
    fn a_flood_on_one_api_is_paid_for_by_that_api() {
        let (flooded, other, third) = (Arc::default(), Arc::default(), Arc::default());
        let counts = admitted(
            1_000.0,
            &[
                (&flooded, 20_000, Priority::Critical),
                (&other, 300, Priority::Normal),
                (&third, 50, Priority::Low),
            ],
        );
        assert_eq!(
            (counts[1], counts[2]),
            (3_000, 500),
            "all of the others' calls"
        );
        // 650 a second are left for it; the first window, before anything is known, is not.
        assert!((6_000..=9_000).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn within_an_api_the_least_important_calls_go_first() {
        let api = Arc::default();
        let counts = admitted(
            1_000.0,
            &[
                (&api, 800, Priority::Low),
                (&api, 700, Priority::Normal),
                (&api, 500, Priority::Critical),
            ],
        );
        let [low, normal, critical] = counts[..] else {
            panic!()
        };
        assert!(critical >= 4_995, "{counts:?}");
        assert!((4_000..=6_000).contains(&normal), "{counts:?}");
        assert!(low <= 1_000, "{counts:?}");
    }

    #[test]
    fn low_priority_alone_gets_everything() {
        let api = Arc::default();
        let counts = admitted(1_000.0, &[(&api, 5_000, Priority::Low)]);
        assert!((9_800..=11_000).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn an_api_with_few_calls_under_way_is_never_turned_away() {
        let mut shares = Shares::new(Duration::from_millis(100));
        let (api, now) = (Arc::default(), Instant::now());
        shares.divide(0.0, Duration::from_millis(100));
        for _ in 0..1_000 {
            let calls: Vec<_> = (0..FEW)
                .map(|_| shares.admits(&api, Priority::Low, false, now).unwrap())
                .collect();
            for call in calls {
                shares.leave(call);
            }
        }
        let admitted =
            (0..100).filter(|_| shares.admits(&api, Priority::Low, false, now).is_some());
        assert!(admitted.count() <= 20);
        assert!(
            shares.admits(&api, Priority::Low, true, now).is_some(),
            "there is room"
        );
    }

    #[test]
    fn who_no_longer_calls_is_forgotten() {
        let mut shares = Shares::new(Duration::from_millis(100));
        let now = Instant::now();
        for _ in 0..1_000 {
            let call = shares.count(&Arc::default(), now);
            shares.leave(call);
        }
        let (api, begun) = (Arc::default(), now);
        let under_way = shares.count(&api, begun);
        for _ in 0..=FORGOTTEN {
            shares.divide(100.0, Duration::from_millis(100));
        }
        assert_eq!(shares.of.len(), 1, "who has a call under way is not");
        shares.leave(under_way);
        shares.divide(100.0, Duration::from_millis(100));
        assert!(shares.of.is_empty());
    }
}
