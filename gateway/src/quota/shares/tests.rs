//! A share lasts over restarts, and is drawn once.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use tollgate_policy::directory::Defined;
use tollgate_policy::quota::{Counts, Metric, OnUnavailable, Scope, Subject, Window};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn counter(subject: &str, window: Window) -> Counter {
    let name = format!("{subject}/{window:?}");
    let limit = Limit {
        id: name.as_str().into(),
        name: "daily".into(),
        metric: Metric::Calls,
        amount: 1000,
        window,
        burst: None,
        subject: Subject::Consumer,
        scope: Scope::Api,
        operations: None,
        on_unavailable: OnUnavailable::Degraded,
        counts: Counts::Reached,
        shadow: false,
        origin: Defined::Store,
    };
    Counter {
        key: CounterKey {
            limit: limit.id.clone(),
            api: "shop".into(),
            operation: "".into(),
            subject: subject.into(),
        },
        limit: limit.into(),
    }
}

fn keys(subject: &str) -> Arc<[Counter]> {
    [counter(subject, Window::Lifetime)].into()
}

fn grant(emergency: Vec<EmergencyShare>) -> LeaseGrant {
    LeaseGrant {
        number: 1,
        lease: 1,
        tokens: 1,
        owed: 0,
        lifetime: Duration::from_secs(2),
        closest: 0,
        rest: 1,
        reset: None,
        emergency,
    }
}

/// A process: its shares, and what keeps them. It dies when this is dropped: nothing more is written then.
struct Process {
    shares: Arc<Shares>,
    keeping: tokio::task::JoinHandle<()>,
    _running: watch::Sender<bool>,
}

impl Process {
    fn start(state: &Path) -> Self {
        let shares = Shares::open(state);
        let (running, stop) = watch::channel(false);
        Self {
            keeping: tokio::spawn(Arc::clone(&shares).keep(stop)),
            shares,
            _running: running,
        }
    }

    fn offered(&self, credit: u64, reset: Option<Duration>) {
        let grant = grant(vec![EmergencyShare {
            tokens: credit,
            ends: reset,
            period: None,
        }]);
        self.shares.offered(&keys("desk"), &grant, clock::now());
    }

    /// Waits until the file says what was offered.
    async fn is_kept(&self) {
        let path = self.shares.path.as_ref().unwrap();
        while file::read(path, clock::now()).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Draws all that is left, call by call; how much that is.
    async fn exhaust(&self) -> u64 {
        let mut all = 0;
        while let Some(part) = self.shares.draw(&keys("desk"), 1).await {
            assert!(part.tokens > 0 && part.lasts > Duration::ZERO);
            all += part.tokens;
        }
        all
    }

    async fn dies(self) {
        self.keeping.abort();
        let _aborted = self.keeping.await;
    }
}

#[tokio::test]
async fn a_share_lasts_over_restarts_and_is_drawn_once_in_its_window() {
    let state = tempfile::tempdir().unwrap();
    let first = Process::start(state.path());
    first.offered(10, Some(DAY));
    first.is_kept().await;
    let drawn = first.shares.draw(&keys("desk"), 1).await.unwrap().tokens;
    assert_eq!(drawn, 2, "a part of it");
    first.dies().await;
    // Killed right after it drew: nothing but the file says so.
    let second = Process::start(state.path());
    let more = second.shares.draw(&keys("desk"), 3).await.unwrap().tokens;
    assert_eq!(more, 3, "as much as the call needs");
    second.dies().await;
    let third = Process::start(state.path());
    assert_eq!(third.shares.draw(&keys("desk"), 6).await, None);
    assert_eq!(drawn + more + third.exhaust().await, 10);
    third.dies().await;
    let fourth = Process::start(state.path());
    assert_eq!(fourth.exhaust().await, 0);
    // Also once the grantor was heard in the same window.
    fourth.offered(10, Some(DAY / 2));
    assert_eq!(fourth.exhaust().await, 0);
    fourth.offered(12, Some(DAY / 2));
    assert_eq!(fourth.exhaust().await, 2, "what it grew by");
    assert!(fourth.shares.draw(&keys("web"), 1).await.is_none());
}

/// The state of a process that has the file, with the shares told at `at`.
fn told(counters: &[Counter], shares: &[(u64, Duration)], at: Timestamp) -> State {
    let mut state = State {
        ours: true,
        ..State::default()
    };
    for (counter, (tokens, period)) in counters.iter().zip(shares) {
        let share = EmergencyShare {
            tokens: *tokens,
            ends: Some(*period),
            period: Some(*period),
        };
        state.offered(&counter.key, &share, at);
    }
    state
}

/// Draws all there is.
fn all(state: &mut State, counters: &[Counter], now: Timestamp) -> u64 {
    let parts = std::iter::from_fn(|| state.draw(counters, 1, true, now));
    parts.map(|part| part.tokens).sum()
}

#[test]
fn another_window_brings_another_share_though_nobody_grants() {
    let minute = Duration::from_secs(60);
    let counters = [counter("desk", Window::Span(minute))];
    let begin = clock::now();
    let mut state = told(&counters, &[(8, minute)], begin);
    let at = |seconds| begin.plus(Duration::from_secs(seconds));
    for (seconds, there) in [
        (0, 8),
        (59, 0),
        (60, 8),
        (119, 0),
        (301, 8),
        (359, 0),
        (360, 8),
    ] {
        assert_eq!(all(&mut state, &counters, at(seconds)), there, "{seconds}");
    }
    let last = at(REMEMBERED.as_secs() + 61);
    assert_eq!(all(&mut state, &counters, last), 0, "too long ago");
}

#[test]
fn of_several_counters_the_smallest_share_is_what_there_is() {
    let (day, hour) = (counter("desk", Window::Span(DAY)), DAY / 24);
    let both = [day.clone(), counter("desk", Window::Span(hour))];
    let shared = [day, counter("web", Window::Span(hour))];
    let now = clock::now();
    let mut state = told(&both, &[(10, DAY), (6, hour)], now);
    let share = EmergencyShare {
        tokens: 6,
        ends: Some(hour),
        period: Some(hour),
    };
    state.offered(&shared[1].key, &share, now);
    assert_eq!(all(&mut state, &both, now), 6);
    assert_eq!(all(&mut state, &shared, now), 4, "the day has ten");
}

#[tokio::test]
async fn a_limit_that_wants_none_takes_none_from_others() {
    let state = tempfile::tempdir().unwrap();
    let process = Process::start(state.path());
    let degraded = counter("desk", Window::Lifetime);
    let mut open = counter("all", Window::Lifetime);
    let mut limit = Limit::clone(&open.limit);
    limit.on_unavailable = OnUnavailable::FailOpen;
    open.limit = limit.into();
    process.offered(10, None);
    let both: Arc<[Counter]> = [degraded.clone(), open.clone()].into();
    let share = |tokens| EmergencyShare {
        tokens,
        ..EmergencyShare::default()
    };
    let said = grant(vec![share(10), share(0)]);
    process.shares.offered(&both, &said, clock::now());
    assert_eq!(process.shares.draw(&both, 4).await.unwrap().tokens, 4);
    // Of another version, which says nothing where one wants none.
    process
        .shares
        .offered(&both, &grant(Vec::new()), clock::now());
    assert_eq!(process.exhaust().await, 6);
    assert_eq!(process.shares.draw(&[open].into(), 1).await, None);
}

#[test]
fn what_was_drawn_in_a_window_is_known_to_its_end() {
    let counters = [counter("desk", Window::Lifetime)];
    let begin = clock::now();
    let mut state = told(&counters, &[(8, 1000 * DAY)], begin);
    assert_eq!(all(&mut state, &counters, begin), 8);
    let later = begin.plus(30 * DAY);
    let share = state.shares[&counters[0].key];
    assert!(share.is_kept(later));
    state.crowded = Timestamp::default();
    state.make_room(later);
    assert_eq!(all(&mut state, &counters, later), 0);
    // Shorter windows from now on.
    let share = EmergencyShare {
        tokens: 8,
        ends: Some(DAY),
        period: Some(DAY),
    };
    state.offered(&counters[0].key, &share, later);
    assert_eq!(all(&mut state, &counters, later), 0, "this one is used up");
    assert_eq!(all(&mut state, &counters, later.plus(DAY)), 8);
}

#[test]
fn shares_are_remembered_for_a_week_and_windows_follow_one_another() {
    let begin = Timestamp::parse("2026-01-31T23:00:00Z").unwrap();
    let limit = counter("desk", Window::Month(chrono_tz::UTC)).limit;
    let hours = |hours: u64| begin.plus(Duration::from_secs(hours * 3600));
    let mut share = Share {
        credit: 10,
        drawn: 3,
        until: hours(1),
        period: None,
        told: begin,
    };
    share.advance(&limit, begin);
    assert_eq!((share.drawn, share.until), (3, hours(1)));
    share.advance(&limit, hours(2));
    assert_eq!((share.drawn, share.until), (0, hours(1 + 28 * 24)));
    (share.period, share.until) = (Some(DAY), hours(1));
    share.advance(&limit, hours(1 + 24 + 5));
    assert_eq!(share.until, hours(1 + 48));
    let late = share;
    share.advance(&limit, hours(8 * 24));
    assert_eq!(share, late, "nothing begins anew");
}

#[tokio::test]
async fn one_of_two_processes_draws() {
    let state = tempfile::tempdir().unwrap();
    let old = Process::start(state.path());
    old.offered(10, Some(DAY));
    old.is_kept().await;
    let new = Process::start(state.path());
    new.offered(10, Some(DAY));
    assert_eq!(new.exhaust().await, 0);
    let drawn = old.shares.draw(&keys("desk"), 1).await.unwrap().tokens;
    old.dies().await;
    // It takes over by itself, and knows what the other one drew.
    while !new.shares.state.lock().ours {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(drawn + new.exhaust().await, 10);
}

#[tokio::test]
async fn what_is_damaged_or_of_the_future_gives_nothing() {
    let state = tempfile::tempdir().unwrap();
    let first = Process::start(state.path());
    first.offered(10, Some(DAY));
    first.is_kept().await;
    first.dies().await;
    let path = state.path().join("shares");
    let good = std::fs::read(&path).unwrap();
    assert_eq!(file::read(&path, clock::now()).len(), 1);
    for at in [0, good.len() / 2, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(file::read(&path, clock::now()).is_empty());
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(file::read(&path, clock::now()).is_empty());
    }
    std::fs::write(&path, &good).unwrap();
    assert!(file::read(&path, clock::now().plus(REMEMBERED)).is_empty());
    let back = file::read(&path, clock::now().minus(DAY));
    let [(_, share)] = *back else {
        panic!("{back:?}")
    };
    assert_eq!(share.credit.saturating_sub(share.drawn), 0);
}

#[tokio::test]
async fn where_nothing_can_be_written_the_next_start_has_nothing() {
    let state = tempfile::tempdir().unwrap();
    let first = Process::start(state.path());
    first.offered(10, Some(DAY));
    first.is_kept().await;
    // A directory in the way of the new file.
    std::fs::create_dir(state.path().join("shares.new")).unwrap();
    assert_eq!(first.exhaust().await, 10, "this process remembers");
    first.dies().await;
    std::fs::remove_dir(state.path().join("shares.new")).unwrap();
    let second = Process::start(state.path());
    assert_eq!(second.exhaust().await, 0);
}

#[test]
fn those_that_were_drawn_from_are_told_before_the_others() {
    let until = clock::now().plus(DAY);
    let share = |drawn| Share {
        credit: 10,
        drawn,
        until,
        period: None,
        told: clock::now(),
    };
    let key = |subject: &str| counter(subject, Window::Lifetime).key;
    let mut shares: Vec<(CounterKey, Share)> = (0..=file::MOST)
        .map(|number| (key(&number.to_string()), share(0)))
        .collect();
    shares.push((key("desk"), share(1)));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shares");
    crate::whole_file::write(&path, &file::encode(shares.clone(), clock::now()).unwrap()).unwrap();
    let read = file::read(&path, clock::now());
    assert_eq!(read.len(), file::MOST);
    assert!(read.iter().any(|(_, share)| share.drawn == 1));
    shares.iter_mut().for_each(|(_, share)| share.drawn = 1);
    assert!(file::encode(shares.clone(), clock::now()).is_none());
    let over = clock::now().plus(2 * DAY);
    assert!(file::encode(shares, over).is_some(), "in windows long over");
}
