//! A worker's loop with its queue, simulated: no socket, no sleep, the same result each time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const MICROSECOND: u64 = 1;
const SECOND: u64 = 1_000_000 * MICROSECOND;

/// What each step of a call costs the loop: two of them make 33,333 calls a second.
const STEP: u64 = 15 * MICROSECOND;
/// What a refusal costs: a third of a call, half of it when it is decided and half when it is delivered.
const REFUSAL: u64 = 5 * MICROSECOND;
/// How long the service takes.
const SERVICE: u64 = 2_000 * MICROSECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    /// A client of this API asks.
    Asks(usize),
    /// The service answered a call of this API.
    Answered(usize, Option<Key>),
    /// The pause of a refusal is over.
    Told(usize),
}

/// Clients of one API.
#[derive(Clone, Copy)]
struct Clients {
    /// Connections, each with one call at a time.
    connections: u64,
    /// Time between an answer and the next call.
    thinks: u64,
    priority: Priority,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Outcome {
    served: u64,
    shed: u64,
    longest_wait: u64,
}

/// Runs for some seconds; outcomes of all but the first two, by API.
fn simulate(seconds: u64, target: Duration, all: &[Clients]) -> Vec<Outcome> {
    let begun = Instant::now();
    let at = |time: u64| begun + Duration::from_micros(time);
    let mut local = Local::new(target, Arc::default(), begun);
    let apis: Vec<Arc<Traffic>> = all.iter().map(|_| Arc::default()).collect();
    let mut events = BinaryHeap::from([Reverse((20_000, Event::Tick))]);
    for (index, clients) in all.iter().enumerate() {
        for client in 0..clients.connections {
            // They come in the course of half a second.
            let first = 500_000 * client / clients.connections;
            events.push(Reverse((first, Event::Asks(index))));
        }
    }
    let mut outcomes = vec![Outcome::default(); all.len()];
    let mut free_at = 0;
    while let Some(Reverse((due, event))) = events.pop() {
        let now = free_at.max(due);
        if now > seconds * SECOND {
            break;
        }
        let counts = now > 2 * SECOND;
        free_at = now;
        match event {
            Event::Tick => {
                local.fired(Duration::from_micros(now - due), at(now));
                events.push(Reverse((now + 20_000, event)));
            }
            Event::Asks(index) => {
                let passes = local.arrive(&apis[index], all[index].priority, at(now));
                let outcome = &mut outcomes[index];
                if counts {
                    outcome.longest_wait = outcome.longest_wait.max(now - due);
                    outcome.shed += u64::from(passes.is_err());
                }
                if let Ok(key) = passes {
                    free_at += STEP;
                    events.push(Reverse((free_at + SERVICE, Event::Answered(index, key))));
                } else {
                    free_at += REFUSAL;
                    let pause = local.pauses().map_or(0, |pause| pause.as_micros());
                    let told_at = free_at + u64::try_from(pause).unwrap();
                    events.push(Reverse((told_at, Event::Told(index))));
                }
            }
            Event::Told(index) => {
                free_at += REFUSAL;
                local.paused = local.paused.saturating_sub(1);
                events.push(Reverse((free_at + all[index].thinks, Event::Asks(index))));
            }
            Event::Answered(index, key) => {
                free_at += STEP;
                local.leave(key);
                outcomes[index].served += u64::from(counts);
                events.push(Reverse((free_at + all[index].thinks, Event::Asks(index))));
            }
        }
    }
    outcomes
}

const TARGET: Duration = Duration::from_millis(20);
const FLOOD: Clients = Clients {
    connections: 3_500,
    thinks: 100,
    priority: Priority::Normal,
};
const QUIET: Clients = Clients {
    connections: 20,
    thinks: 100_000,
    priority: Priority::Normal,
};

#[test]
fn a_load_the_worker_can_serve_is_never_shed() {
    let busy = Clients {
        connections: 150,
        ..FLOOD
    };
    let outcomes = simulate(10, TARGET, &[busy, QUIET]);
    assert_eq!((outcomes[0].shed, outcomes[1].shed), (0, 0), "{outcomes:?}");
    assert!(
        outcomes[0].served > 230_000,
        "all of the loop is used: {outcomes:?}"
    );
}

/// Seventy connections keep this worker busy; here are fifty times as many, which ask again at once.
#[test]
fn a_flood_costs_a_tenth_of_the_capacity_at_most_and_the_other_api_nothing() {
    let outcomes = simulate(12, TARGET, &[FLOOD, QUIET]);
    let served = outcomes[0].served + outcomes[1].served;
    assert!(served >= 300_000, "of 333,333: {outcomes:?}");
    assert!(outcomes[0].shed > 10_000, "{outcomes:?}");
    assert_eq!(outcomes[1].shed, 0, "{outcomes:?}");
    assert!(outcomes[1].served > 1_200, "{outcomes:?}");
    let longest = Duration::from_micros(outcomes[1].longest_wait);
    assert!(longest < TARGET * 4, "{outcomes:?}");
}

#[test]
fn a_flood_of_little_importance_costs_the_important_calls_of_another_api_nothing() {
    let low = Clients {
        priority: Priority::Low,
        ..FLOOD
    };
    let critical = Clients {
        priority: Priority::Critical,
        ..QUIET
    };
    let outcomes = simulate(12, TARGET, &[low, critical]);
    assert_eq!(outcomes[1].shed, 0, "{outcomes:?}");
}

#[test]
fn a_slow_service_is_no_saturation() {
    // 30,000 calls that wait for ten seconds each hold places and cost nothing.
    let mut local = Local::new(TARGET, Arc::default(), Instant::now());
    let api = Arc::default();
    let now = Instant::now();
    for step in 0..30_000_u64 {
        let now = now + Duration::from_micros(step * 100);
        assert!(local.arrive(&api, Priority::Low, now).is_ok());
        if step % 200 == 0 {
            local.fired(Duration::from_millis(1), now);
        }
    }
    assert_eq!(local.in_flight, 30_000);
}

#[test]
fn few_calls_are_never_turned_away_however_late_the_loop_is() {
    let begun = Instant::now();
    let mut local = Local::new(TARGET, Arc::default(), begun);
    let api = Arc::default();
    for second in 0..20 {
        let now = begun + Duration::from_secs(second);
        local.fired(Duration::from_millis(900), now);
        for _ in 0..3 {
            assert!(local.arrive(&api, Priority::Low, now).is_ok());
        }
        assert!(second < 2 || matches!(local.pressure, Pressure::Shedding(_)));
    }
}

#[test]
fn a_thread_that_is_no_worker_turns_nobody_away() {
    assert!(
        arrive(&Arc::default(), Priority::Low, Instant::now())
            .unwrap()
            .is_none()
    );
    assert!(Paused::begin().is_none());
}

#[test]
fn a_place_is_given_back_and_counted_as_served() {
    LOCAL.set(Some(Local::new(TARGET, Arc::default(), Instant::now())));
    let place = arrive(&Arc::default(), Priority::Normal, Instant::now());
    assert_eq!(local(|it| (it.in_flight, it.happened.served)), Some((1, 0)));
    drop(place);
    assert_eq!(local(|it| (it.in_flight, it.happened.served)), Some((0, 1)));
    local(|it| it.pressure = Pressure::Shedding(100.0));
    let held: Vec<_> = (0..=MOST_PAUSED).map(|_| Paused::begin()).collect();
    assert!(
        held[0].is_some() && held.last().unwrap().is_none(),
        "bounded"
    );
    drop(held);
    assert!(Paused::begin().is_some());
}
