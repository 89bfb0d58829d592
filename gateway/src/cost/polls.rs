//! Which API a task works for, and how long its polls take.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use super::account::{Account, Weight};

/// One poll in so many is timed, on average. Each takes two system calls: by the clock on the wall, which takes none, whoever is
/// preempted in a poll pays for the neighbours that had the processor meanwhile.
const EVERY: u64 = 16;

thread_local! {
    /// Whom the task works for that is polled now.
    static OWNER: RefCell<Option<Arc<Account>>> = const { RefCell::new(None) };
    static TURN: Cell<Turn> = const { Cell::new(Turn::NONE) };
}

/// The poll under way on this thread.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// CPU nanoseconds of this thread when it began, where it is timed.
    began: Option<u64>,
    is_counted: bool,
    /// Weighed for this task and not yet in a usage record.
    pending: Weight,
    /// Polls until one is timed.
    left: u64,
    dice: u64,
}

impl Turn {
    const NONE: Self = Self {
        began: None,
        is_counted: false,
        pending: Weight { nanos: 0, polls: 0 },
        left: 1,
        dice: 0x9E37_79B9_7F4A_7C15,
    };

    /// The next one.
    fn begin(&mut self, pending: Weight) {
        self.pending = pending;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.left = self.roll();
            self.began = Some(thread_time());
        }
    }

    /// Between 1 and twice the mean less one, so that no rhythm of the calls is always hit, or never.
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        1 + self.dice % (2 * EVERY - 1)
    }

    /// What it weighs until now, where it is timed; it goes on from there.
    fn weigh(&mut self) -> Weight {
        let Some(began) = self.began else {
            return Weight::default();
        };
        let now = thread_time();
        self.began = Some(now);
        let nanos = now.saturating_sub(began);
        let again = std::mem::replace(&mut self.is_counted, true);
        let weight = Weight {
            nanos: nanos.saturating_mul(EVERY),
            polls: if again { 0 } else { EVERY },
        };
        self.pending = self.pending.plus(weight);
        weight
    }

    /// What is pending, for the task to keep.
    fn end(&mut self) -> Weight {
        (self.began, self.is_counted) = (None, false);
        std::mem::take(&mut self.pending)
    }
}

/// What a task keeps between its polls.
#[derive(Debug, Default)]
struct Task {
    owner: Option<Arc<Account>>,
    pending: Weight,
    /// Whether it stands for a connection.
    is_connection: bool,
    /// Whose connection it counts as.
    counted: Option<Arc<Account>>,
}

impl Task {
    /// Counts the connection as its owner's.
    fn count(&mut self) {
        let pointer = |it: &Option<Arc<Account>>| it.as_ref().map(Arc::as_ptr);
        if !self.is_connection || pointer(&self.counted) == pointer(&self.owner) {
            return;
        }
        if let Some(owner) = &self.owner {
            owner.connected();
        }
        if let Some(before) = std::mem::replace(&mut self.counted, self.owner.clone()) {
            before.disconnected();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(counted) = self.counted.take() {
            counted.disconnected();
        }
    }
}

/// Serves, and has its polls timed for the API that [`belongs_to`] names; until then for `nobody`.
pub async fn timed(nobody: &Account, is_connection: bool, serving: impl Future<Output = ()>) {
    let mut task = Task::default();
    task.is_connection = is_connection;
    let mut serving = pin!(serving);
    poll_fn(|context| {
        let _polled = Polled::begin(&mut task, nobody);
        serving.as_mut().poll(context)
    })
    .await;
}

/// A poll, from begin to drop.
struct Polled<'t> {
    task: &'t mut Task,
    nobody: &'t Account,
}

impl<'t> Polled<'t> {
    fn begin(task: &'t mut Task, nobody: &'t Account) -> Self {
        OWNER.set(task.owner.take());
        let mut turn = TURN.get();
        turn.begin(task.pending);
        TURN.set(turn);
        Self { task, nobody }
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        let mut turn = TURN.get();
        let weight = turn.weigh();
        self.task.pending = turn.end();
        TURN.set(turn);
        self.task.owner = OWNER.take();
        self.task.count();
        let owner = self.task.owner.as_deref().unwrap_or(self.nobody);
        owner.weigh(weight);
    }
}

/// The task that is polled now works for this API, until another is named.
pub fn belongs_to(account: &Arc<Account>) {
    OWNER.with_borrow_mut(|owner| {
        let held = owner.as_ref();
        if !held.is_some_and(|held| Arc::ptr_eq(held, account)) {
            *owner = Some(Arc::clone(account));
        }
    });
}

/// What the task weighed since this was last asked, for the record of a call that ends.
pub(super) fn take_pending() -> Weight {
    let mut turn = TURN.get();
    let weight = turn.weigh();
    let pending = std::mem::take(&mut turn.pending);
    TURN.set(turn);
    OWNER.with_borrow(|owner| {
        if let Some(owner) = owner {
            owner.weigh(weight);
        }
    });
    pending
}

/// Nanoseconds of CPU time of this thread.
fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn busy(time: Duration) {
        let begun = thread_time();
        while u128::from(thread_time() - begun) < time.as_nanos() {
            std::hint::spin_loop();
        }
    }

    /// Weights of two APIs and of nobody, and what records said, in milliseconds.
    async fn weighed() -> [u64; 4] {
        let (cheap, costly) = (Arc::<Account>::default(), Arc::<Account>::default());
        let nobody = Account::default();
        let mut recorded = Weight::default();
        timed(&nobody, true, async {
            for _ in 0..4_000 {
                for (account, micros) in [(&cheap, 5), (&costly, 20)] {
                    belongs_to(account);
                    busy(Duration::from_micros(micros));
                    recorded = recorded.plus(take_pending());
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!((cheap.connections(), costly.connections()), (0, 1));
        })
        .await;
        assert_eq!((cheap.connections(), costly.connections()), (0, 0));
        let polls = cheap.weight().polls + costly.weight().polls;
        assert!((6_500..9_500).contains(&polls), "{polls} of 8000");
        let weights = [&*cheap, &costly, &nobody].map(Account::weight);
        let [cheap, costly, nobody] = weights.map(|it| it.nanos / 1_000_000);
        [cheap, costly, nobody, recorded.nanos / 1_000_000]
    }

    #[tokio::test]
    async fn each_api_weighs_what_its_polls_take() {
        // Some hundred samples of each: now and then they are far from the mean.
        for _ in 0..50 {
            let [cheap, costly, nobody, recorded] = weighed().await;
            let ratio = costly * 100 / cheap.max(1);
            if (320..480).contains(&ratio) && nobody < cheap && recorded + 20 > cheap + costly {
                return;
            }
        }
        panic!("never near four to one");
    }
}
