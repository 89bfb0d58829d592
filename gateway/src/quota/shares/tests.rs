//! A share lasts over restarts, and is drawn once.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn keys(subject: &str) -> Keys {
    let key = CounterKey {
        limit: "plan/all/daily".into(),
        api: "shop".into(),
        operation: "".into(),
        subject: subject.into(),
    };
    [key].into()
}

fn grant(credit: u64, reset: Option<Duration>) -> LeaseGrant {
    LeaseGrant {
        number: 1,
        lease: 1,
        tokens: 1,
        owed: 0,
        lifetime: Duration::from_secs(2),
        closest: 0,
        rest: 1,
        reset,
        credit,
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
        let grant = grant(credit, reset);
        self.shares.offered(&keys("desk"), &grant, clock::now());
    }

    /// Waits until the file says what was offered.
    async fn is_kept(&self) {
        while file::read(&self.shares.path, clock::now()).is_empty() {
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
async fn another_window_brings_another_share() {
    let state = tempfile::tempdir().unwrap();
    let first = Process::start(state.path());
    let soon = Duration::from_millis(1);
    first.offered(8, Some(soon));
    tokio::time::sleep(3 * soon).await;
    assert_eq!(first.exhaust().await, 0, "its window is over");
    first.offered(8, None);
    assert_eq!(first.exhaust().await, 8);
    first.offered(8, None);
    assert_eq!(first.exhaust().await, 0);
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
    while new.shares.state.lock().lock.is_none() {
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
    assert!(file::read(&path, clock::now().plus(2 * DAY)).is_empty());
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
    };
    let mut shares: HashMap<Keys, Share> = (0..=file::MOST)
        .map(|number| (keys(&number.to_string()), share(0)))
        .collect();
    shares.insert(keys("desk"), share(1));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shares");
    crate::whole_file::write(&path, &file::encode(&shares, clock::now()).unwrap()).unwrap();
    let read = file::read(&path, clock::now());
    assert_eq!(read.len(), file::MOST);
    assert!(read.iter().any(|(_, share)| share.drawn == 1));
    shares.values_mut().for_each(|share| share.drawn = 1);
    assert!(file::encode(&shares, clock::now()).is_none());
}
