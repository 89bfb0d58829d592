//! One holder, one grantor, nothing lost between them. What happens when things are lost is `tests/quota_simulation.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::cell::{Taken, Untaken};
use super::*;
use crate::time::Timestamp;

const HOLDER: HolderId = HolderId(1);

fn limit(amount: u64, window: Window, burst: Option<u64>) -> Limit {
    Limit {
        id: "plan/basic/calls".into(),
        name: "calls".into(),
        metric: if window == Window::Gauge {
            Metric::Concurrent
        } else {
            Metric::Calls
        },
        amount,
        window,
        burst,
        subject: Subject::Consumer,
        scope: Scope::Api,
        operations: None,
        on_unavailable: OnUnavailable::Degraded,
        counts: Counts::Reached,
        shadow: false,
        origin: Defined::Store,
    }
}

fn counter(name: &str, limit: Limit) -> Counter {
    let key = CounterKey {
        limit: name.into(),
        api: "a".into(),
        operation: "".into(),
        subject: "consumer:shop".into(),
    };
    Counter {
        key,
        limit: Arc::new(limit),
    }
}

fn minute(amount: u64) -> Limit {
    limit(amount, Window::Span(Duration::from_secs(60)), None)
}

/// A cell and a grantor that hear each other at once.
struct Pair {
    grantor: Grantor,
    cell: Cell,
    /// Milliseconds since the holder's start.
    now: u64,
    /// The grantor's clock at that start.
    begin: i64,
}

impl Pair {
    fn new(counters: Vec<Counter>) -> Self {
        Self {
            grantor: Grantor::default(),
            cell: Cell::new(7, counters.into()),
            now: 1,
            begin: 1_800_000_000_000,
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.begin + i64::try_from(self.now).unwrap())
    }

    fn renew(&mut self, needed: u64) {
        if let Some(ask) = self.cell.ask(needed, self.now) {
            let grant = self.grantor.ask(self.wall(), HOLDER, &ask);
            self.cell.answered(&grant, needed);
        }
    }

    /// A call that costs `tokens`, waiting for what it needs.
    fn call(&mut self, tokens: u64) -> Option<Taken> {
        for _ in 0..3 {
            match self.cell.take(tokens, self.now) {
                Ok(taken) => return Some(taken),
                Err(Untaken::Refused) => return None,
                Err(Untaken::Empty) => self.renew(tokens),
            }
        }
        self.cell.take(tokens, self.now).ok()
    }

    fn calls(&mut self, number: usize) -> usize {
        (0..number).filter(|_| self.call(1).is_some()).count()
    }

    fn left(&self) -> u64 {
        self.cell.closest(self.now).left
    }
}

#[test]
fn exactly_the_amount_passes_in_a_window_and_again_in_the_next() {
    let mut pair = Pair::new(vec![counter("m", minute(100))]);
    assert_eq!(pair.calls(250), 100);
    assert_eq!(pair.left(), 0);
    pair.now += 59_999;
    assert_eq!(pair.calls(5), 5, "the next minute has begun");
    assert_eq!(pair.left(), 95);
}

#[test]
fn what_is_left_counts_down_call_by_call() {
    let mut pair = Pair::new(vec![counter("m", minute(10))]);
    for expected in (0..10).rev() {
        assert!(pair.call(1).is_some());
        assert_eq!(pair.left(), expected);
        pair.now += 3;
    }
    assert!(pair.call(1).is_none());
    let closest = pair.cell.closest(pair.now);
    assert_eq!(closest.reset, Some(Duration::from_millis(60_000 - 31)));
}

#[test]
fn the_tightest_of_several_limits_decides() {
    let day = limit(15, Window::Day(chrono_tz::UTC), None);
    let mut pair = Pair::new(vec![counter("m", minute(10)), counter("d", day)]);
    assert_eq!(pair.calls(20), 10);
    assert_eq!(pair.cell.closest(pair.now).counter, 0);
    pair.now += 60_000;
    assert_eq!(pair.calls(20), 5);
    assert_eq!(pair.cell.closest(pair.now).counter, 1);
}

#[test]
fn a_dear_call_that_does_not_fit_leaves_room_for_a_cheap_one() {
    let mut pair = Pair::new(vec![counter("m", minute(10))]);
    assert!(pair.call(7).is_some());
    assert!(pair.call(5).is_none());
    assert!(pair.call(3).is_some());
    assert!(pair.call(1).is_none());
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let rate = limit(10, Window::Span(Duration::from_secs(1)), Some(20));
    let mut pair = Pair::new(vec![counter("r", rate)]);
    assert_eq!(pair.calls(100), 20);
    let mut passed = 0;
    for _ in 0..300 {
        pair.now += 10;
        passed += pair.calls(1);
    }
    assert!((27..=30).contains(&passed), "{passed} in three seconds");
}

#[test]
fn slots_come_back_when_calls_end() {
    let mut pair = Pair::new(vec![counter("c", limit(3, Window::Gauge, None))]);
    let held: Vec<_> = (0..3).map(|_| pair.call(1).unwrap()).collect();
    assert!(pair.call(1).is_none());
    pair.cell.settle(held[0], 0);
    pair.now += 200;
    let again = pair.call(1).unwrap();
    for taken in [held[1], held[2], again] {
        pair.cell.settle(taken, 1);
    }
    // Unused slots are given back.
    pair.renew(0);
    let balance = pair.grantor.balances(pair.wall()).next().unwrap();
    assert_eq!(balance.used, 0);
    assert_eq!(pair.calls(4), 3);
}

#[test]
fn slots_outlive_every_lease_as_long_as_their_holder_asks() {
    let mut pair = Pair::new(vec![counter("c", limit(2, Window::Gauge, None))]);
    let held = pair.call(1).unwrap();
    for _ in 0..50 {
        pair.now += 1_000;
        pair.renew(0);
        pair.grantor.sweep(pair.wall());
    }
    assert!(pair.call(1).is_some());
    assert!(pair.call(1).is_none());
    pair.cell.settle(held, 1);
}

#[test]
fn a_call_that_never_reached_the_service_is_not_charged() {
    let mut pair = Pair::new(vec![counter("m", minute(2))]);
    let taken = pair.call(1).unwrap();
    pair.cell.settle(taken, 0);
    assert_eq!(pair.calls(3), 2);
}

#[test]
fn a_token_of_a_lease_that_ended_does_not_come_back_into_the_next() {
    let mut pair = Pair::new(vec![counter("m", minute(2))]);
    let taken = pair.call(1).unwrap();
    pair.now += 60_000;
    assert_eq!(pair.calls(1), 1);
    pair.cell.settle(taken, 0);
    assert_eq!(pair.calls(5), 1);
}

#[test]
fn a_cost_known_afterwards_is_owed() {
    let mut pair = Pair::new(vec![counter("m", minute(100))]);
    let taken = pair.call(1).unwrap();
    pair.cell.settle(taken, 130);
    assert!(pair.call(1).is_none(), "30 too many are gone");
    pair.now += 60_000;
    assert_eq!(pair.calls(200), 100, "a debt ends with its window");
}

#[test]
fn many_calls_cost_few_questions() {
    let rate = limit(1_000_000, Window::Span(Duration::from_secs(60)), None);
    let mut pair = Pair::new(vec![counter("m", rate)]);
    let mut asked = 0;
    for call in 0..20_000 {
        if call % 4 == 0 {
            pair.now += 1;
        }
        let taken = match pair.cell.take(1, pair.now) {
            Ok(taken) => taken,
            Err(_) => {
                asked += 1;
                pair.call(1).unwrap()
            }
        };
        // What the holder does beside the request path.
        if pair.cell.is_low(taken) || pair.cell.ends_soon(pair.now) {
            pair.renew(0);
        }
    }
    assert!(asked <= 20, "{asked} of 20,000 calls waited");
}

#[test]
fn the_first_calls_of_a_burst_wait_for_one_lease() {
    let waits = |amount: u64| {
        let mut pair = Pair::new(vec![counter("m", minute(amount))]);
        let mut asked = 0;
        for _ in 0..60 {
            if pair.cell.take(1, pair.now).is_err() {
                asked += 1;
                pair.call(1).unwrap();
            }
        }
        asked
    };
    assert_eq!(waits(100_000), 1);
    // Of a small limit nothing is set aside for one holder.
    assert!(waits(99) > 4);
}

#[test]
fn a_grantor_that_starts_anew_grants_nothing_twice() {
    let mut pair = Pair::new(vec![counter("m", minute(100))]);
    assert_eq!(pair.calls(60), 60);
    let stored = pair.grantor.take_changes();
    pair.grantor = Grantor::default();
    let wall = pair.wall();
    for (counter, standing) in stored {
        let (key, limit) = (&counter.key, &counter.limit);
        pair.grantor.restore(wall, key, limit, standing);
    }
    let passed = pair.calls(100);
    assert!(passed <= 40, "{passed}");
}

#[test]
fn a_clock_set_back_opens_no_window() {
    let mut pair = Pair::new(vec![counter("m", minute(10))]);
    assert_eq!(pair.calls(20), 10);
    pair.begin -= 3_600_000;
    pair.now += 500;
    assert_eq!(pair.calls(20), 0);
}

#[test]
fn shares_of_a_limit_are_told_once() {
    let mut pair = Pair::new(vec![counter("m", minute(10))]);
    let mut told = Vec::new();
    for _ in 0..12 {
        pair.call(1);
        pair.now += 5;
        told.extend(pair.grantor.take_alerts().into_iter().map(|it| it.percent));
    }
    assert_eq!(told, [50, 80, 100]);
}

#[test]
fn the_emergency_credit_is_a_twentieth_once_a_window() {
    let span = |seconds| Window::Span(Duration::from_secs(seconds));
    let month = limit(10_000, Window::Month(chrono_tz::UTC), None);
    let limits = [
        minute(100),
        month,
        // Of few tokens a second one in as many seconds as it takes.
        limit(10, span(1), None),
        limit(3, span(1), Some(30)),
        limit(1000, span(1), None),
    ];
    let counters = limits.map(|limit| counter("m", limit));
    let told = counters.map(|counter| {
        let cell = Cell::new(7, vec![counter].into());
        let now = Timestamp::from_millis(1_800_000_010_000);
        let ask = cell.ask(1, 1).unwrap();
        let grant = Grantor::default().ask(now, HOLDER, &ask);
        let [share] = grant.emergency[..] else {
            panic!("{grant:?}")
        };
        (share.tokens, share.period.map(|it| it.as_millis()))
    });
    let expected = [
        (5, Some(60_000)),
        (500, None),
        (1, Some(2_000)),
        (1, Some(6_667)),
        (50, Some(1_000)),
    ];
    assert_eq!(told, expected);
}

/// However rarely each of them asks.
#[test]
fn the_emergency_credit_of_a_window_is_shared_by_all_who_asked_in_it() {
    let day = limit(1000, Window::Span(Duration::from_secs(86_400)), None);
    let counters: Arc<[Counter]> = vec![counter("d", day)].into();
    let mut grantor = Grantor::default();
    let cells: Vec<Cell> = (0..5).map(|at| Cell::new(at, counters.clone())).collect();
    let mut shares = [0; 5];
    let begin = 1_800_000_000_000;
    for round in 0..4_u64 {
        for (at, cell) in cells.iter().enumerate() {
            let now = (round * 900 + u64::try_from(at).unwrap() * 60) * 1000 + 1;
            let Some(ask) = cell.ask(1, now) else {
                continue;
            };
            let holder = HolderId(u64::try_from(at).unwrap());
            let wall = Timestamp::from_millis(begin + i64::try_from(now).unwrap());
            grantor.sweep(wall);
            let grant = grantor.ask(wall, holder, &ask);
            cell.answered(&grant, 1);
            shares[at] = grant.emergency[0].tokens;
        }
    }
    assert_eq!(shares, [10; 5], "together a twentieth");
}

#[test]
fn a_limit_that_was_raised_holds_at_once_and_keeps_what_is_gone() {
    let mut pair = Pair::new(vec![counter("m", minute(10))]);
    assert_eq!(pair.calls(20), 10);
    let cell = Cell::new(8, vec![counter("m", minute(15))].into());
    pair.cell = cell;
    assert_eq!(pair.calls(20), 5);
}

#[test]
fn what_others_took_meanwhile_is_no_refusal() {
    for limit in [limit(3, Window::Gauge, None), minute(3)] {
        let mut pair = Pair::new(vec![counter("c", limit)]);
        pair.renew(1);
        // A second call asks while what the first waits for lies there; then the first takes it.
        let ask = pair.cell.ask(1, pair.now).unwrap();
        let grant = pair.grantor.ask(pair.wall(), HOLDER, &ask);
        assert!(pair.cell.take(1, pair.now).is_ok());
        pair.cell.answered(&grant, 1);
        assert_eq!(pair.cell.take(1, pair.now), Err(Untaken::Empty));
        assert!(pair.call(1).is_some());
    }
}

#[test]
fn who_took_of_the_credit_holds_up_nobody_for_whom_there_are_tokens() {
    let mut pair = Pair::new(vec![counter("m", minute(1000))]);
    // A pace for which more than is needed is handed out.
    for _ in 0..100 {
        pair.call(1).unwrap();
        pair.now += 5;
    }
    pair.renew(10);
    assert!(pair.cell.take(1, pair.now).is_ok(), "there are tokens");
    // The answer came too late for one of those who waited.
    pair.cell.add_credit(1, pair.now + 1_000, pair.now);
    assert!(pair.cell.take_credit(1, pair.now));
    assert!(pair.cell.take(1, pair.now).is_ok(), "there still are");
    // A debt that no credit covers is told first.
    pair.cell.charge(100_000);
    assert_eq!(pair.cell.take(1, pair.now), Err(Untaken::Empty));
}
