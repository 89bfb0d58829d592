//! Every order in which threads may step through a cell: whatever it is, no more is spent than was granted, and what was spent is told.
//! Runs under `make orders` (`--cfg loom`); there is nothing to it otherwise.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc as Shared;
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tollgate_policy::directory::Defined;
use tollgate_policy::quota::cell::Cell;
use tollgate_policy::quota::{
    Counter, CounterKey, Counts, LeaseAsk, LeaseGrant, Limit, Metric, OnUnavailable, Scope,
    Subject, Window,
};

const MINUTE: Duration = Duration::from_secs(60);

fn counters(metric: Metric) -> Shared<[Counter]> {
    let window = match metric {
        Metric::Concurrent => Window::Gauge,
        _ => Window::Span(MINUTE),
    };
    let limit = Shared::new(Limit {
        id: "plan/p/l".into(),
        name: "l".into(),
        metric,
        amount: 3,
        window,
        burst: None,
        subject: Subject::Consumer,
        scope: Scope::Api,
        operations: None,
        on_unavailable: OnUnavailable::FailClosed,
        counts: Counts::Reached,
        shadow: false,
        origin: Defined::Store,
    });
    let key = CounterKey {
        limit: limit.id.clone(),
        api: "a".into(),
        operation: "".into(),
        subject: "consumer:c".into(),
    };
    Shared::new([Counter { key, limit }])
}

/// What the grantor says to an ask: so many tokens, all in all, of this lease.
fn grant(ask: &LeaseAsk, lease: u64, tokens: u64, lifetime: Duration) -> LeaseGrant {
    LeaseGrant {
        number: ask.number,
        lease,
        tokens,
        lifetime,
        owed: ask.owed,
        closest: 0,
        rest: 0,
        reset: Some(MINUTE),
        emergency: Vec::new(),
    }
}

/// A cell that holds three tokens of lease 1 until 1000.
fn filled(metric: Metric) -> Arc<Cell> {
    let cell = Cell::new(1, counters(metric));
    let ask = cell.ask(3, 1).unwrap();
    cell.answered(&grant(&ask, 1, 3, Duration::from_millis(999)), 3);
    Arc::new(cell)
}

/// With three threads all orders take hours; those in which threads are interrupted up to three times find what there is to find.
fn every_order(steps: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(steps);
}

#[test]
fn a_lease_that_is_closed_under_way_is_told_to_the_token() {
    every_order(|| {
        let cell = filled(Metric::Calls);
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let cell = cell.clone();
                thread::spawn(move || u64::from(cell.take(1, 500).is_ok()))
            })
            .collect();
        // Its time is over: the rest goes back, and a new one comes.
        let ask = cell.ask(1, 1_000).unwrap();
        assert!(ask.closed);
        cell.answered(&grant(&ask, 2, 1, MINUTE), 1);
        let first: u64 = takers.into_iter().map(|it| it.join().unwrap()).sum();
        let mut left = 0;
        while cell.take(1, 1_001).is_ok() {
            left += 1;
        }
        // Those that took before it was closed are in what was told; those after spent of the new one.
        assert_eq!(first + left, ask.spent + 1, "told {}", ask.spent);
    });
}

#[test]
fn what_comes_back_late_is_nobodys() {
    every_order(|| {
        let cell = filled(Metric::Calls);
        let taken = cell.take(2, 10).unwrap();
        let settling = {
            let cell = cell.clone();
            // It cost nothing in the end.
            thread::spawn(move || cell.settle(taken, 0))
        };
        let ask = cell.ask(1, 1_000).unwrap();
        cell.answered(&grant(&ask, 2, 3, MINUTE), 1);
        settling.join().unwrap();
        let mut left = 0;
        while cell.take(1, 1_001).is_ok() {
            left += 1;
        }
        assert!(ask.spent == 2 || ask.spent == 0, "{}", ask.spent);
        assert_eq!(left, 3, "what came back late is not spent again");
    });
}

#[test]
fn slots_are_never_more_than_were_granted() {
    every_order(|| {
        let cell = filled(Metric::Concurrent);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let cell = cell.clone();
                thread::spawn(move || {
                    if let Ok(taken) = cell.take(2, 10) {
                        cell.settle(taken, 2);
                        return 1;
                    }
                    0
                })
            })
            .collect();
        let ask = cell.ask(0, 20);
        let passed: u64 = callers.into_iter().map(|it| it.join().unwrap()).sum();
        assert!(passed <= 2);
        // Unless they were given back while nobody used them, all three are there again.
        let returned = ask.is_some_and(|ask| ask.closed);
        let mut free = 0;
        while cell.take(1, 30).is_ok() {
            free += 1;
        }
        assert_eq!(free, if returned { 0 } else { 3 });
    });
}
