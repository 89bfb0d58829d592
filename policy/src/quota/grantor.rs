//! The grantor: hands out tokens of limits in advance, and never more than a limit allows.
//!
//! Promises, whatever holders do, lose, repeat or send late: within a window at most the limit's amount is handed out; a bucket
//! never gives more than its capacity and what refilled; what is handed out is gone until its holder gives it back; a clock set
//! back changes nothing. Only what is owed can exceed a limit. Time and storage are the caller's: it passes in the one, and
//! stores [`Grantor::take_changes`] before it answers, so that a grantor that starts anew grants nothing twice.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::account::{Account, DEMAND};
use super::book::{ALERTS, Book, Standing};
use super::{
    Counter, CounterKey, EmergencyShare, HolderId, Instance, LeaseAsk, LeaseGrant, Limit, Window,
};
use crate::time::Timestamp;

/// How long a lease of a window may be spent from.
const LIFETIME: Duration = Duration::from_secs(2);
/// How long a lease of a bucket may be spent from: what lies in a lease does not refill.
const BUCKET_LIFETIME: Duration = Duration::from_millis(500);
/// How long slots are kept for a holder that says nothing.
const SLOTS_LIFETIME: Duration = Duration::from_secs(10);
/// Clocks of holders may run slower than ours by one part in so many.
const DRIFT: u32 = 100;
/// How much longer than its lifetime a lease is believed to be spent from.
const GUARD: Duration = Duration::from_millis(250);
/// What a lease begins with beyond what is wanted, so that a burst's first calls do not wait for one another: so many tokens, and at
/// most one part in so many of what is left.
const BEGINNING: (u64, u64) = (64, 100);
/// Counters up to which those that nobody asks for are kept, for who asked before; where there are more, all that are idle go. Each
/// sweep looks at all.
const REMEMBERED: usize = 10_000;

/// Hands out what limits allow.
#[derive(Debug, Default)]
pub struct Grantor {
    accounts: HashMap<CounterKey, Account>,
    leases: HashMap<(HolderId, u64), Lease>,
    last_lease: u64,
    /// Never goes back.
    now: Timestamp,
    changed: BTreeSet<CounterKey>,
    alerts: Vec<Alert>,
}

#[derive(Debug)]
struct Lease {
    number: u64,
    ask: u64,
    counters: Arc<[Counter]>,
    /// Of each counter, the window tokens were handed out in.
    windows: Vec<Option<Instance>>,
    tokens: u64,
    spent: u64,
    owed: u64,
    ends: Timestamp,
}

/// A limit is used up to a share that somebody wants to hear of.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The counter.
    pub key: CounterKey,
    /// Its limit.
    pub limit: Arc<Limit>,
    /// 50, 80 or 100.
    pub percent: u8,
    /// The window it happened in.
    pub window: Instance,
}

/// A counter, for those who ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// Its names.
    pub key: CounterKey,
    /// Its limit.
    pub limit: Arc<Limit>,
    /// What is gone, handed out included; more than the limit where calls came to more than was known before.
    pub used: u64,
    /// What is left.
    pub left: u64,
    /// Until it starts anew or is full again; `None` for never.
    pub reset: Option<Duration>,
}

impl Balance {
    /// How a counter stands that was stored.
    pub fn at(counter: Counter, standing: Standing, now: Timestamp) -> Self {
        let mut book = Book::new(counter.limit, now, true);
        book.restore(standing);
        book.advance(now);
        Self::of(counter.key, book, now)
    }

    fn of(key: CounterKey, book: Book, now: Timestamp) -> Self {
        Self {
            key,
            used: book.gone(),
            left: book.available(),
            reset: book.until_reset(now),
            limit: book.limit,
        }
    }
}

impl Grantor {
    /// One that knows nothing yet. `term` counts the lives of grantors on one ledger, so that no lease is ever called like one of an
    /// earlier life.
    pub fn new(term: u32) -> Self {
        Self {
            last_lease: u64::from(term) << 32,
            ..Self::default()
        }
    }

    /// Answers an ask.
    pub fn ask(&mut self, now: Timestamp, holder: HolderId, ask: &LeaseAsk) -> LeaseGrant {
        let now = self.tick(now);
        for counter in ask.counters.iter() {
            self.open(counter, now);
        }
        let mut lease = match self.leases.remove(&(holder, ask.cell)) {
            // Late, or the same once more: what was answered stands.
            Some(lease) if lease.ask >= ask.number => {
                let grant = self.grant(&lease, ask, now);
                self.leases.insert((holder, ask.cell), lease);
                return grant;
            }
            found => self.settle(found, ask),
        };
        self.owe(&mut lease, ask);
        // Slots are held for as long as their holder asks.
        let current = lease.holds_slots() || now < lease.ends && self.in_its_windows(&lease);
        if lease.number == 0 {
            self.begin(&mut lease, ask, now);
        } else if !current {
            // Told to the holder, which closes the lease and asks anew.
            let grant = self.refusal(ask, &lease, now);
            self.leases.insert((holder, ask.cell), lease);
            return grant;
        }
        self.extend(&mut lease, holder, ask, now);
        let grant = self.grant(&lease, ask, now);
        if lease.tokens > lease.spent {
            self.leases.insert((holder, ask.cell), lease);
        }
        grant
    }

    /// Forgets leases whose holders went silent: what they held stays gone, slots come back. And counters nobody asks for, which are
    /// stored: [`Grantor::restore`] brings them back.
    pub fn sweep(&mut self, now: Timestamp) {
        let now = self.tick(now);
        let mut over = Vec::new();
        self.leases.retain(|_, lease| {
            let kept = now < lease.ends.plus(GUARD);
            if !kept {
                over.push((Arc::clone(&lease.counters), lease.outstanding()));
            }
            kept
        });
        for (counters, outstanding) in over {
            self.on_all(&counters, outstanding, Book::spent);
        }
        let roomy = self.accounts.len() <= REMEMBERED;
        self.accounts.retain(|_, account| {
            let idle = account.asked.plus(DEMAND) < now;
            !idle || account.book.is_unstored() || roomy && account.is_remembered(now)
        });
    }

    /// What changed since this was asked last: to be stored before answers go out. Slots are not stored.
    pub fn take_changes(&mut self) -> Vec<(Counter, Standing)> {
        let changed = std::mem::take(&mut self.changed);
        let standing = |key: CounterKey| {
            let book = &self.accounts.get(&key)?.book;
            let standing = book.standing()?;
            let limit = Arc::clone(&book.limit);
            Some((Counter { key, limit }, standing))
        };
        changed.into_iter().filter_map(standing).collect()
    }

    /// Limits that came to a share of theirs since this was asked last.
    pub fn take_alerts(&mut self) -> Vec<Alert> {
        std::mem::take(&mut self.alerts)
    }

    /// Takes over what was stored: of a process that ended, or of another beside this one. What that one handed out is gone.
    pub fn restore(
        &mut self,
        now: Timestamp,
        key: &CounterKey,
        limit: &Arc<Limit>,
        standing: Standing,
    ) {
        let now = self.tick(now);
        let first = !self.knows(key);
        let account = self.accounts.entry(key.clone()).or_insert_with(|| {
            let book = Book::new(Arc::clone(limit), now, true);
            Account::new(book, now)
        });
        account.book.restore(standing);
        if first {
            // Leases of an earlier life may still be spent from.
            account.book.pause(now, BUCKET_LIFETIME + GUARD);
        }
    }

    /// Whether this grantor knows how a counter stands. One it does not know may be stored.
    pub fn knows(&self, key: &CounterKey) -> bool {
        self.accounts.contains_key(key)
    }

    /// All counters, in no order.
    pub fn balances(&self, now: Timestamp) -> impl Iterator<Item = Balance> + '_ {
        let now = now.max(self.now);
        self.accounts.iter().map(move |(key, account)| {
            let mut book = account.book.clone();
            book.advance(now);
            Balance::of(key.clone(), book, now)
        })
    }

    fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    fn open(&mut self, counter: &Counter, now: Timestamp) {
        let account = self.accounts.entry(counter.key.clone()).or_insert_with(|| {
            let book = Book::new(Arc::clone(&counter.limit), now, true);
            Account::new(book, now)
        });
        account.asked = now;
        account.book.follow(&counter.limit, now);
        account.book.advance(now);
    }

    /// What the holder tells of its lease. Leaves the lease that goes on, or one without number where none does.
    fn settle(&mut self, found: Option<Lease>, ask: &LeaseAsk) -> Lease {
        let owed = found.as_ref().map_or(ask.owed_known, |lease| lease.owed);
        let none = Lease {
            number: 0,
            ask: ask.number,
            counters: Arc::clone(&ask.counters),
            windows: Vec::new(),
            tokens: 0,
            spent: 0,
            owed,
            ends: Timestamp::default(),
        };
        let Some(mut lease) = found else {
            return none;
        };
        if lease.number == ask.lease {
            let spent = ask.spent.min(lease.tokens).saturating_sub(lease.spent);
            lease.spent += spent;
            self.on_all(&lease.counters, spent, Book::spent);
            if !ask.closed {
                lease.ask = ask.number;
                return lease;
            }
        }
        // Closed, or a lease the holder never heard of: it heeds no answer but that to its last ask.
        let outstanding = lease.outstanding();
        if outstanding > 0 {
            for (counter, window) in lease.counters.iter().zip(&lease.windows) {
                self.on(counter, |book| book.give_back(outstanding, *window));
            }
        }
        none
    }

    fn owe(&mut self, lease: &mut Lease, ask: &LeaseAsk) {
        let more = ask.owed.saturating_sub(lease.owed);
        lease.owed = lease.owed.max(ask.owed);
        self.on_all(&ask.counters, more, Book::owe);
    }

    fn in_its_windows(&self, lease: &Lease) -> bool {
        let counters = lease.counters.iter().zip(&lease.windows);
        let mut same = counters.map(|(counter, window)| {
            let account = self.accounts.get(&counter.key);
            account.is_some_and(|account| account.book.window() == *window)
        });
        same.all(|same| same)
    }

    fn begin(&mut self, lease: &mut Lease, ask: &LeaseAsk, now: Timestamp) {
        self.last_lease += 1;
        lease.number = self.last_lease;
        lease.ends = now;
        let window = |counter: &Counter| self.accounts.get(&counter.key)?.book.window();
        lease.windows = ask.counters.iter().map(window).collect();
    }

    /// Hands out what is wanted and there, of all counters in one step.
    fn extend(&mut self, lease: &mut Lease, holder: HolderId, ask: &LeaseAsk, now: Timestamp) {
        let mut given = ask.want.saturating_sub(lease.outstanding());
        if lease.tokens == 0 && given > 0 {
            given = given.saturating_add(self.beginning(&lease.counters));
        }
        for counter in lease.counters.iter() {
            let Some(account) = self.accounts.get_mut(&counter.key) else {
                continue;
            };
            given = given.min(account.share(holder, ask, lease.outstanding(), now));
        }
        lease.tokens += given;
        self.on_all(&lease.counters, given, Book::hand_out);
        if ask.want > 0 {
            lease.ends = now.plus(lifetime(&lease.counters, &lease.windows, now));
        }
    }

    fn beginning(&self, counters: &[Counter]) -> u64 {
        let (most, part) = BEGINNING;
        let spare = |counter: &Counter| match counter.limit.window {
            Window::Gauge => 0,
            _ => self
                .accounts
                .get(&counter.key)
                .map_or(0, |account| account.book.available() / part),
        };
        counters.iter().map(spare).min().unwrap_or(0).min(most)
    }

    fn grant(&self, lease: &Lease, ask: &LeaseAsk, now: Timestamp) -> LeaseGrant {
        let lacking = ask.needed.saturating_sub(lease.outstanding());
        let (closest, rest) = self.closest(&ask.counters, lacking);
        let book = ask
            .counters
            .get(closest)
            .and_then(|counter| self.accounts.get(&counter.key))
            .map(|account| &account.book);
        let none = lease.outstanding() == 0;
        let reset = if none && rest == 0 {
            self.longest_wait(&ask.counters, now)
        } else {
            book.and_then(|book| book.until_reset(now))
        };
        let lifetime = lease.ends.since(now);
        LeaseGrant {
            number: ask.number,
            lease: if none { 0 } else { lease.number },
            tokens: if none { 0 } else { lease.tokens },
            owed: lease.owed,
            lifetime: lifetime - lifetime / DRIFT,
            closest,
            rest,
            reset,
            emergency: self.emergency(&ask.counters, now),
        }
    }

    /// An answer that grants nothing.
    fn refusal(&self, ask: &LeaseAsk, lease: &Lease, now: Timestamp) -> LeaseGrant {
        LeaseGrant {
            lifetime: Duration::ZERO,
            lease: lease.number,
            tokens: lease.tokens,
            ..self.grant(lease, ask, now)
        }
    }

    /// The counter with the smallest share left, of those that have less than is lacking where there are such: it is they who refuse.
    fn closest(&self, counters: &[Counter], lacking: u64) -> (usize, u64) {
        let left = |counter: &Counter| {
            let book = self
                .accounts
                .get(&counter.key)
                .map(|account| &account.book)?;
            Some((book.available(), book.capacity().max(1)))
        };
        let mut found: Option<(usize, u64, u64)> = None;
        for (index, counter) in counters.iter().enumerate() {
            let Some((rest, capacity)) = left(counter) else {
                continue;
            };
            let closer = found.is_none_or(|(_, other, of)| {
                let lacks = |rest: u64| rest < lacking;
                if lacks(rest) != lacks(other) {
                    return lacks(rest);
                }
                // a/b < c/d, without dividing.
                u128::from(rest) * u128::from(of) < u128::from(other) * u128::from(capacity)
            });
            if closer {
                found = Some((index, rest, capacity));
            }
        }
        found.map_or((0, 0), |(index, rest, _)| (index, rest))
    }

    /// Until all counters have something again; `None` where one never will.
    fn longest_wait(&self, counters: &[Counter], now: Timestamp) -> Option<Duration> {
        let mut longest = Duration::ZERO;
        for counter in counters {
            let Some(account) = self.accounts.get(&counter.key) else {
                continue;
            };
            if account.book.available() == 0 {
                longest = longest.max(account.book.until_next(now)?);
            }
        }
        Some(longest)
    }

    /// A share of each; an empty one where the limit wants none.
    fn emergency(&self, counters: &[Counter], now: Timestamp) -> Vec<EmergencyShare> {
        let share = |counter: &Counter| match self.accounts.get(&counter.key) {
            Some(account) if counter.limit.has_emergency_share() => account.emergency(now),
            _ => EmergencyShare::default(),
        };
        counters.iter().map(share).collect()
    }

    fn on_all(&mut self, counters: &[Counter], tokens: u64, change: fn(&mut Book, u64)) {
        if tokens > 0 {
            for counter in counters {
                self.on(counter, |book| change(book, tokens));
            }
        }
    }

    fn on(&mut self, counter: &Counter, change: impl FnOnce(&mut Book)) {
        let Some(account) = self.accounts.get_mut(&counter.key) else {
            return;
        };
        change(&mut account.book);
        self.changed.insert(counter.key.clone());
        let Some(window) = account.book.window() else {
            return;
        };
        let share = account.book.share();
        let crossed = ALERTS.into_iter().rev().find(|percent| share >= *percent);
        if let Some(percent) = crossed
            && percent > account.book.alerted
        {
            account.book.alerted = percent;
            self.alerts.push(Alert {
                key: counter.key.clone(),
                limit: Arc::clone(&account.book.limit),
                percent,
                window,
            });
        }
    }
}

impl Lease {
    const fn outstanding(&self) -> u64 {
        self.tokens.saturating_sub(self.spent)
    }

    fn holds_slots(&self) -> bool {
        let gauge = |counter: &Counter| counter.limit.window == Window::Gauge;
        self.counters.iter().all(gauge)
    }
}

/// No lease outlives a window it was drawn from.
fn lifetime(counters: &[Counter], windows: &[Option<Instance>], now: Timestamp) -> Duration {
    let each = counters.iter().zip(windows).map(|(counter, window)| {
        match (counter.limit.window, window) {
            (_, Some(window)) => LIFETIME.min(Timestamp::from_millis(window.end).since(now)),
            (Window::Gauge, None) => SLOTS_LIFETIME,
            (_, None) => BUCKET_LIFETIME,
        }
    });
    each.min().unwrap_or(Duration::ZERO)
}
