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

#[tokio::test]
async fn another_window_brings_another_share_though_nobody_grants() {
    let state = tempfile::tempdir().unwrap();
    let first = Process::start(state.path());
    let period = Duration::from_millis(400);
    let share = |tokens, ends| EmergencyShare {
        tokens,
        ends: Some(ends),
        period: Some(period),
    };
    let short: Arc<[Counter]> = [counter("desk", Window::Span(period))].into();
    let grant = grant(vec![share(8, period)]);
    first.shares.offered(&short, &grant, clock::now());
    let all = async |process: &Process| {
        let mut all = 0;
        while let Some(part) = process.shares.draw(&short, 1).await {
            assert!(part.lasts <= period);
            all += part.tokens;
        }
        all
    };
    assert_eq!(all(&first).await, 8);
    tokio::time::sleep(period).await;
    assert_eq!(all(&first).await, 8, "nobody granted meanwhile");
    first.dies().await;
    let second = Process::start(state.path());
    tokio::time::sleep(2 * period).await;
    assert_eq!(all(&second).await, 8, "nor before it started");
}

#[tokio::test]
async fn of_several_counters_the_smallest_share_is_what_there_is() {
    let state = tempfile::tempdir().unwrap();
    let process = Process::start(state.path());
    let day = counter("desk", Window::Span(DAY));
    let hour = counter("desk", Window::Span(DAY / 24));
    let other = counter("web", Window::Span(DAY / 24));
    let share = |tokens, ends| EmergencyShare {
        tokens,
        ends: Some(ends),
        period: Some(ends),
    };
    let both: Arc<[Counter]> = [day.clone(), hour].into();
    let shared: Arc<[Counter]> = [day, other].into();
    for counters in [&both, &shared] {
        let grant = grant(vec![share(10, DAY), share(6, DAY / 24)]);
        process.shares.offered(counters, &grant, clock::now());
    }
    let mut drawn = [0, 0];
    for (drawn, counters) in drawn.iter_mut().zip([&both, &shared]) {
        while let Some(part) = process.shares.draw(counters, 1).await {
            *drawn += part.tokens;
        }
    }
    assert_eq!(drawn, [6, 4], "the day has ten");
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
    let mut shares: HashMap<CounterKey, Share> = (0..=file::MOST)
        .map(|number| (key(&number.to_string()), share(0)))
        .collect();
    shares.insert(key("desk"), share(1));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shares");
    crate::whole_file::write(&path, &file::encode(&shares, clock::now()).unwrap()).unwrap();
    let read = file::read(&path, clock::now());
    assert_eq!(read.len(), file::MOST);
    assert!(read.iter().any(|(_, share)| share.drawn == 1));
    shares.values_mut().for_each(|share| share.drawn = 1);
    assert!(file::encode(&shares, clock::now()).is_none());
}
