//! Who used the CPU time of the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::account::{Account, Weight};
use super::polls;
use crate::apis::Apis;

/// How often CPU time is divided.
const BEAT: Duration = Duration::from_secs(1);
/// Scale of [`Rates::scale`].
const ONE: u64 = 1024;
/// Measurements that are mostly noise: fewer nanoseconds were seen in a beat.
const FAINT: u64 = 1_000_000;

/// Divides CPU time. One per process.
#[derive(Debug)]
pub struct Costs {
    /// What is no API's.
    nobody: Arc<Account>,
    scale: AtomicU64,
    per_poll: AtomicU64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            nobody: Arc::default(),
            scale: AtomicU64::new(ONE),
            per_poll: AtomicU64::new(0),
        }
    }
}

impl Costs {
    /// What is no API's.
    pub fn nobody(&self) -> &Arc<Account> {
        &self.nobody
    }

    /// Nanoseconds of CPU time of the call that ends on this thread now: an estimate that is right for many calls together.
    pub fn of_call(&self) -> u64 {
        let rates = Rates {
            scale: self.scale.load(Relaxed),
            per_poll: self.per_poll.load(Relaxed),
        };
        rates.cpu(polls::take_pending())
    }

    /// Divides what the process uses, as long as it runs.
    pub async fn divide(self: Arc<Self>, apis: Arc<ArcSwap<Apis>>) {
        let mut division = Division::default();
        let mut beats = tokio::time::interval(BEAT);
        loop {
            beats.tick().await;
            let apis = apis.load();
            let accounts = apis.all().iter().map(|api| &api.traffic.cost);
            let rates = division.divide(cpu_time(), &self.nobody, accounts);
            self.scale.store(rates.scale, Relaxed);
            self.per_poll.store(rates.per_poll, Relaxed);
        }
    }
}

/// What work weighs in CPU time. A sample of polls is timed, and may come to more than all of them took. What the polls do not see (the runtime, the kernel waking it, the log's thread) comes with each poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    /// CPU time per time of polls as they were sampled, in parts of [`ONE`]; at most one.
    scale: u64,
    /// CPU nanoseconds that come with each poll.
    per_poll: u64,
}

impl Rates {
    /// Where all this together took so much CPU time.
    fn of(cpu: u64, whole: Weight) -> Self {
        Self {
            scale: part(cpu, ONE, whole.nanos).min(ONE),
            per_poll: cpu.saturating_sub(whole.nanos) / whole.polls.max(1),
        }
    }

    fn cpu(self, weight: Weight) -> u64 {
        let polling = part(self.scale, weight.nanos, ONE);
        polling.saturating_add(self.per_poll.saturating_mul(weight.polls))
    }
}

/// What was divided so far.
#[derive(Debug, Default)]
struct Division {
    cpu: u64,
    /// Accounts, and what had been weighed for them.
    known: Vec<(Arc<Account>, Weight)>,
    nobody: Weight,
    /// CPU nanoseconds of a beat in which nobody called.
    idle: u64,
    rates: Option<Rates>,
}

impl Division {
    /// Divides what was used since the last time.
    fn divide<'a>(
        &mut self,
        cpu: u64,
        nobody: &Account,
        accounts: impl Iterator<Item = &'a Arc<Account>>,
    ) -> Rates {
        let used = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        let shares = self.weighed(nobody, accounts);
        let nobodys = nobody.weight();
        let others = nobodys.since(std::mem::replace(&mut self.nobody, nobodys));
        let all = shares.iter().map(|(_, weight)| *weight);
        let whole = all.fold(others, Weight::plus);
        if whole.nanos < FAINT {
            self.idle = (self.idle * 7 + used) / 8;
        }
        let now = Rates::of(used.saturating_sub(self.idle), whole);
        let mut left = used;
        for (account, weight) in shares {
            let share = now.cpu(weight).min(left);
            account.bill(share);
            left -= share;
        }
        nobody.bill(left);
        if whole.nanos >= FAINT {
            self.rates = Some(self.rates.map_or(now, |before| before.smoothed(now)));
        }
        self.rates.unwrap_or(Rates {
            scale: ONE,
            per_poll: 0,
        })
    }

    /// What was weighed for each since the last time. What an API that is gone had used is nobody's now, so that the sum stays.
    fn weighed<'a>(
        &mut self,
        nobody: &Account,
        accounts: impl Iterator<Item = &'a Arc<Account>>,
    ) -> Vec<(Arc<Account>, Weight)> {
        let known = std::mem::take(&mut self.known).into_iter();
        let mut before: HashMap<*const Account, (Arc<Account>, Weight)> =
            known.map(|it| (Arc::as_ptr(&it.0), it)).collect();
        let mut shares = Vec::with_capacity(before.len());
        for account in accounts {
            let weight = account.weight();
            let known = before.remove(&Arc::as_ptr(account));
            let last = known.map_or_else(Weight::default, |(_, last)| last);
            self.known.push((Arc::clone(account), weight));
            shares.push((Arc::clone(account), weight.since(last)));
        }
        for (gone, _) in before.into_values() {
            nobody.bill(gone.cpu_nanos());
        }
        shares
    }
}

impl Rates {
    fn smoothed(self, now: Self) -> Self {
        let smooth = |before: u64, now: u64| (before * 7 + now) / 8;
        Self {
            scale: smooth(self.scale, now.scale),
            per_poll: smooth(self.per_poll, now.per_poll),
        }
    }
}

/// `whole × share ÷ of`.
fn part(whole: u64, share: u64, of: u64) -> u64 {
    let part = u128::from(whole) * u128::from(share) / u128::from(of.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Nanoseconds of CPU time of this process, all threads, user and system.
fn cpu_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn all_that_is_used_is_somebodys_and_idling_is_nobodys() {
        let accounts = [Arc::<Account>::default(), Arc::<Account>::default()];
        let (nobody, mut division) = (Account::default(), Division::default());
        let [first, second] = &accounts;
        // Before anybody calls.
        division.divide(8_000, &nobody, accounts.iter());
        assert_eq!(nobody.cpu_nanos(), 8_000);
        let seen = |millis: u64, polls: u64| Weight {
            nanos: millis * 1_000_000,
            polls,
        };
        first.weigh(seen(30, 1_000));
        second.weigh(seen(90, 500));
        nobody.weigh(seen(30, 0));
        // 15 ms more than the polls took, 10 µs for each of them.
        let cpu = 8_000 + 165_000_000;
        let rates = division.divide(cpu, &nobody, accounts.iter());
        assert_eq!((rates.scale, rates.per_poll), (ONE, 9_999));
        let millis = [first, second].map(|it| (it.cpu_nanos() + 1_000_000) / 1_000_000);
        assert_eq!(millis, [40, 95]);
        // The sample came to twice what there was.
        second.weigh(seen(80, 500));
        division.divide(cpu + 40_000_000, &nobody, accounts.iter());
        assert_eq!((second.cpu_nanos() + 1_000_000) / 1_000_000, 95 + 40);
        let sum = first.cpu_nanos() + second.cpu_nanos() + nobody.cpu_nanos();
        assert_eq!(sum, cpu + 40_000_000, "not a nanosecond is lost");
        // One is removed: what it used stays used.
        division.divide(SECOND, &nobody, accounts.iter().take(1));
        assert_eq!(first.cpu_nanos() + nobody.cpu_nanos(), SECOND);
    }
}
