//! What a holder has at hand for one set of counters: the request path spends it with one atomic step.
//!
//! A cell is spent from by many threads; asking for more is one caller's at a time ([`Cell::ask`], [`Cell::answered`]). Tokens of
//! a lease are spent only while it lives, and a token is spent once. Tokens that come back after their lease ended are dropped:
//! they were told as spent. Slots (calls under way) always come back.

use std::sync::Arc;
use std::time::Duration;

use super::credit::Credit;
use super::sync::{AtomicI64, AtomicU32, AtomicU64, Mutex, Ordering};
use super::word::{ZERO, lease, left, with_left, with_next_lease};
use super::{Counter, LeaseAsk, LeaseGrant, Metric, OnUnavailable};

/// Time as a holder counts it: milliseconds since its start, never back.
pub type Ticks = u64;

/// For how long a lease should last, in milliseconds.
const AHEAD: u64 = 500;
/// Below so many tokens in [`AHEAD`], each call asks for its own.
const FEW: u64 = 4;
/// How long a refusal is believed without asking again, in milliseconds.
const BELIEVED: u64 = 100;

/// Tokens at hand for one set of counters of one metric.
#[derive(Debug)]
pub struct Cell {
    number: u64,
    counters: Arc<[Counter]>,
    slots: bool,
    /// Number of the lease in the upper 16 bits, tokens left of it below, offset (see `word`).
    word: AtomicU64,
    /// When the lease ends.
    ends: AtomicU64,
    /// Below so many tokens it is time to ask for more.
    low: AtomicI64,
    /// Costs known after their calls that no lease covered, from the cell's beginning on.
    owed: AtomicU64,
    owed_known: AtomicU64,
    /// How much of it has to be known before tokens are taken again. Not what was taken of the emergency credit: that has its own bound,
    /// and whoever waited for it in vain must not hold up those for whom there are tokens.
    must_be_known: AtomicU64,
    closest: AtomicU32,
    rest: AtomicU64,
    /// When the closest counter starts anew; `u64::MAX` for never.
    resets: AtomicU64,
    /// Until then calls that cost `refused_cost` or more are refused without asking.
    refused_until: AtomicU64,
    refused_cost: AtomicU64,
    holding: Mutex<Holding>,
}

/// What only the one who asks looks at.
#[derive(Debug, Default)]
struct Holding {
    asks: u64,
    lease: u64,
    granted: u64,
    /// Spent of a lease that is closed; what is spent of an open one is in the word.
    closed: Option<u64>,
    asked_at: Ticks,
    /// What was told as spent when it was asked last, and the slots that were in use.
    told: u64,
    in_use: u64,
    /// Tokens spent in [`AHEAD`], as of late.
    pace: u64,
    /// Spent of the open lease when its pace was taken.
    paced: u64,
    credit: Credit,
}

/// What a call took, to be settled when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Tokens.
    pub tokens: u64,
    lease: u16,
    /// Tokens left after it.
    pub left: u64,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untaken {
    /// Nothing is at hand: ask.
    Empty,
    /// The grantor said lately that there is nothing.
    Refused,
}

/// How the counter that is closest to its limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closest {
    /// An index into [`Cell::counters`].
    pub counter: usize,
    /// Tokens left, those at hand here included.
    pub left: u64,
    /// Until it starts anew; `None` for never.
    pub reset: Option<Duration>,
}

impl Cell {
    /// An empty cell. `number` is unique at its holder; all `counters` are of one metric.
    pub fn new(number: u64, counters: Arc<[Counter]>) -> Self {
        let slots = counters
            .first()
            .is_some_and(|counter| counter.limit.metric == Metric::Concurrent);
        Self {
            number,
            counters,
            slots,
            word: AtomicU64::new(ZERO),
            ends: AtomicU64::new(0),
            low: AtomicI64::new(0),
            owed: AtomicU64::new(0),
            owed_known: AtomicU64::new(0),
            must_be_known: AtomicU64::new(0),
            closest: AtomicU32::new(0),
            rest: AtomicU64::new(0),
            resets: AtomicU64::new(u64::MAX),
            refused_until: AtomicU64::new(0),
            refused_cost: AtomicU64::new(0),
            holding: Mutex::default(),
        }
    }

    /// What it draws from.
    pub fn counters(&self) -> &Arc<[Counter]> {
        &self.counters
    }

    /// Whether its limits are only counted.
    pub fn is_shadow(&self) -> bool {
        self.counters.iter().all(|counter| counter.limit.shadow)
    }

    /// What happens when nobody answers: the strictest of its limits.
    pub fn on_unavailable(&self) -> OnUnavailable {
        let mut found = OnUnavailable::FailOpen;
        for counter in self.counters.iter() {
            match counter.limit.on_unavailable {
                OnUnavailable::FailClosed => return OnUnavailable::FailClosed,
                OnUnavailable::Degraded => found = OnUnavailable::Degraded,
                OnUnavailable::FailOpen => {}
            }
        }
        found
    }

    /// Takes tokens of the lease at hand. One atomic step; nothing is taken in part.
    ///
    /// # Errors
    /// Nothing is at hand, or nothing is to be had.
    pub fn take(&self, tokens: u64, now: Ticks) -> Result<Taken, Untaken> {
        let live = now < self.ends.load(Ordering::Acquire);
        let owed = self.must_be_known.load(Ordering::Relaxed);
        let settled = owed <= self.owed_known.load(Ordering::Relaxed);
        if live && settled {
            let wanted = i64::try_from(tokens).map_err(|_| Untaken::Refused)?;
            let took = self.change(|word| {
                let rest = left(word) - wanted;
                (rest >= 0).then_some(rest)
            });
            if let Some(word) = took {
                let left = u64::try_from(left(word)).unwrap_or(0);
                return Ok(Taken {
                    tokens,
                    lease: lease(word),
                    left,
                });
            }
        }
        let refused = now < self.refused_until.load(Ordering::Relaxed)
            && tokens >= self.refused_cost.load(Ordering::Relaxed);
        Err(if refused {
            Untaken::Refused
        } else {
            Untaken::Empty
        })
    }

    /// Whether it is time to ask for more, before a call has to wait.
    pub fn is_low(&self, taken: Taken) -> bool {
        let low = u64::try_from(self.low.load(Ordering::Relaxed)).unwrap_or(0);
        taken.left < low
    }

    /// What a call really came to. More than was taken is taken now, and owed where nothing is at hand. Slots come back whatever
    /// `actual` is.
    pub fn settle(&self, taken: Taken, actual: u64) {
        if self.slots {
            self.give_back(taken.tokens, None);
        } else if actual < taken.tokens {
            self.give_back(taken.tokens - actual, Some(taken.lease));
        } else if actual > taken.tokens {
            self.charge(actual - taken.tokens);
        }
    }

    /// Counts a call that was let pass without anything at hand.
    pub fn charge(&self, tokens: u64) {
        let mut covered = 0;
        let _ = self.change(|word| {
            let at_hand = left(word).max(0);
            let take = at_hand.min(i64::try_from(tokens).unwrap_or(i64::MAX));
            covered = u64::try_from(take).unwrap_or(0);
            Some(left(word) - take)
        });
        let owed = tokens.saturating_sub(covered);
        if owed > 0 {
            let before = self.owed.fetch_add(owed, Ordering::Relaxed);
            let all = before.saturating_add(owed);
            self.must_be_known.fetch_max(all, Ordering::Relaxed);
        }
    }

    /// How the counter that is closest to its limit stands, as far as is known here.
    pub fn closest(&self, now: Ticks) -> Closest {
        let at_hand = u64::try_from(left(self.word.load(Ordering::Relaxed))).unwrap_or(0);
        let resets = self.resets.load(Ordering::Relaxed);
        Closest {
            counter: usize::try_from(self.closest.load(Ordering::Relaxed)).unwrap_or(0),
            left: self.rest.load(Ordering::Relaxed).saturating_add(at_hand),
            reset: (resets != u64::MAX).then(|| Duration::from_millis(resets.saturating_sub(now))),
        }
    }

    /// Whether the grantor ever said how its counters stand.
    pub fn is_known(&self) -> bool {
        self.holding.lock().asks > 0
    }

    /// Takes of the emergency credit, for a call that may pass though nobody answers.
    pub fn take_credit(&self, tokens: u64, now: Ticks) -> bool {
        let takes = self.holding.lock().credit.take(tokens, now);
        if takes {
            self.owed.fetch_add(tokens, Ordering::Relaxed);
        }
        takes
    }

    /// Adds a part of the emergency credit, to be spent before `until`.
    pub fn add_credit(&self, tokens: u64, until: Ticks, now: Ticks) {
        self.holding.lock().credit.add(tokens, until, now);
    }

    /// What to ask the grantor, where `needed` tokens are waited for (0: nobody waits). `None`: nothing needs to be said.
    /// One caller at a time.
    pub fn ask(&self, needed: u64, now: Ticks) -> Option<LeaseAsk> {
        let mut holding = self.holding.lock();
        self.measure(&mut holding, now);
        let over = now >= self.ends.load(Ordering::Acquire);
        if self.slots {
            self.free(&mut holding, needed);
        } else if over {
            self.close(&mut holding);
        }
        let word = self.word.load(Ordering::Acquire);
        let owed = self.owed.load(Ordering::Relaxed);
        let wanted = self.wanted(&holding, needed, left(word));
        let spent = self.spent(&holding, word);
        let unsaid = owed > self.owed_known.load(Ordering::Relaxed);
        let to_return = holding.closed.is_some() && holding.lease != 0;
        let keeps_slots = self.slots && holding.lease != 0;
        if wanted == 0 && !unsaid && !to_return && !keeps_slots {
            return None;
        }
        holding.asks += 1;
        holding.asked_at = now;
        holding.told = spent;
        holding.in_use = if self.slots {
            wanted.saturating_sub(needed)
        } else {
            0
        };
        Some(LeaseAsk {
            cell: self.number,
            number: holding.asks,
            counters: Arc::clone(&self.counters),
            lease: holding.lease,
            spent,
            closed: holding.closed.is_some(),
            owed,
            owed_known: self.owed_known.load(Ordering::Relaxed),
            want: wanted,
            needed,
        })
    }

    /// Takes what was granted. `needed` is what was waited for.
    pub fn answered(&self, grant: &LeaseGrant, needed: u64) {
        let mut holding = self.holding.lock();
        if grant.number != holding.asks {
            return;
        }
        let sent = holding.asked_at;
        self.owed_known.fetch_max(grant.owed, Ordering::Relaxed);
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let resets = grant
            .reset
            .map_or(u64::MAX, |reset| sent.saturating_add(millis(reset)));
        self.closest
            .store(u32::try_from(grant.closest).unwrap_or(0), Ordering::Relaxed);
        self.rest.store(grant.rest, Ordering::Relaxed);
        self.resets.store(resets, Ordering::Relaxed);
        let goes_on = grant.lease == holding.lease && holding.closed.is_none();
        let told = if goes_on { holding.told } else { 0 };
        // What was granted may be taken by others already: what counts is what there was for those who waited when it was asked.
        let free = grant
            .tokens
            .saturating_sub(told)
            .saturating_sub(holding.in_use);
        self.take_over(&mut holding, grant);
        let ends = sent.saturating_add(millis(grant.lifetime));
        self.ends
            .store(if holding.lease == 0 { 0 } else { ends }, Ordering::Release);
        let ahead = if holding.pace < FEW { 0 } else { holding.pace };
        self.low
            .store(i64::try_from(ahead).unwrap_or(i64::MAX), Ordering::Relaxed);
        if free < needed && (grant.lifetime > Duration::ZERO || grant.lease == 0) {
            let wait = BELIEVED.min(resets.saturating_sub(sent));
            self.refused_cost
                .store(free.saturating_add(1), Ordering::Relaxed);
            self.refused_until
                .store(sent.saturating_add(wait), Ordering::Relaxed);
        } else {
            self.refused_until.store(0, Ordering::Relaxed);
        }
    }

    /// Number of the lease at hand; 0 for none.
    pub fn lease(&self) -> u64 {
        self.holding.lock().lease
    }

    /// Whether there is a lease that ends soon and has to be renewed or given back.
    pub fn ends_soon(&self, now: Ticks) -> bool {
        let ends = self.ends.load(Ordering::Relaxed);
        ends != 0 && ends.saturating_sub(now) < AHEAD / 2
    }

    /// Whether something is owed that the grantor was not told, or did not say it heard.
    pub fn owes_untold(&self) -> bool {
        self.owed.load(Ordering::Relaxed) > self.owed_known.load(Ordering::Relaxed)
    }

    /// Whether anything is left to be told or given back.
    pub fn is_idle(&self) -> bool {
        let holding = self.holding.lock();
        holding.lease == 0 && !self.owes_untold()
    }

    /// Gives everything back, for a holder that ends: what [`Cell::ask`] says afterwards returns it.
    pub fn retire(&self) {
        if !self.slots {
            self.ends.store(0, Ordering::Release);
        }
    }

    fn wanted(&self, holding: &Holding, needed: u64, at_hand: i64) -> u64 {
        if self.slots {
            let used = i64::try_from(holding.granted)
                .unwrap_or(i64::MAX)
                .saturating_sub(at_hand);
            let used = u64::try_from(used).unwrap_or(0);
            return used.saturating_add(needed);
        }
        if holding.pace < FEW {
            return needed;
        }
        let spread = holding.pace.isqrt().saturating_mul(4);
        needed.saturating_add(holding.pace.saturating_mul(2).saturating_add(spread))
    }

    fn spent(&self, holding: &Holding, word: u64) -> u64 {
        if self.slots {
            return 0;
        }
        holding.closed.unwrap_or_else(|| {
            let at_hand = u64::try_from(left(word)).unwrap_or(0);
            holding.granted.saturating_sub(at_hand)
        })
    }

    /// Takes the pace: half of what it was, half of what was spent since.
    fn measure(&self, holding: &mut Holding, now: Ticks) {
        let elapsed = now.saturating_sub(holding.asked_at);
        if elapsed == 0 || self.slots {
            return;
        }
        let spent = self.spent(holding, self.word.load(Ordering::Relaxed));
        let since = spent.saturating_sub(holding.paced);
        holding.paced = spent;
        // A short while says little about half a second.
        let lately = since.saturating_mul(AHEAD) / elapsed.max(AHEAD / 10);
        holding.pace = (holding.pace + lately).div_ceil(2);
        if lately == 0 && elapsed > AHEAD {
            holding.pace = 0;
        }
    }

    /// From here on nothing is spent of the lease any more.
    fn close(&self, holding: &mut Holding) {
        if holding.closed.is_some() || holding.lease == 0 {
            return;
        }
        let mut before = 0;
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                before = word;
                with_left(with_next_lease(word), 0)
            });
        let at_hand = u64::try_from(left(before)).unwrap_or(0);
        holding.closed = Some(holding.granted.saturating_sub(at_hand));
    }

    /// Slots nobody uses are given back; all or none.
    fn free(&self, holding: &mut Holding, needed: u64) {
        if needed > 0 || holding.lease == 0 || holding.closed.is_some() {
            return;
        }
        let all = i64::try_from(holding.granted).unwrap_or(i64::MAX);
        if self
            .change(|word| (left(word) == all).then_some(0))
            .is_some()
        {
            (holding.closed, holding.granted) = (Some(0), 0);
        }
    }

    fn take_over(&self, holding: &mut Holding, grant: &LeaseGrant) {
        if self.slots {
            let more = i64::try_from(grant.tokens).unwrap_or(i64::MAX)
                - i64::try_from(holding.granted).unwrap_or(i64::MAX);
            let _ = self.change(|word| Some(left(word).saturating_add(more)));
            (holding.lease, holding.granted) = (grant.lease, grant.tokens);
            holding.closed = None;
            return;
        }
        if grant.lease == holding.lease && holding.closed.is_none() {
            let more = grant.tokens.saturating_sub(holding.granted);
            holding.granted = holding.granted.max(grant.tokens);
            self.add(more);
        } else if grant.lease == holding.lease || holding.closed.is_some() || holding.lease == 0 {
            // What was closed is told; whatever comes now is another lease.
            let told = grant.lease != holding.lease;
            holding.closed = if told { None } else { holding.closed };
            if told {
                (holding.lease, holding.granted) = (grant.lease, grant.tokens);
                holding.paced = 0;
                self.add(grant.tokens);
            }
        } else {
            // The lease is not known any more: it is closed, and what was spent of it is lost to nobody.
            self.close(holding);
            (holding.lease, holding.granted, holding.closed) = (0, 0, None);
            holding.paced = 0;
        }
    }

    fn add(&self, tokens: u64) {
        let more = i64::try_from(tokens).unwrap_or(i64::MAX);
        let _ = self.change(|word| Some(left(word).saturating_add(more)));
    }

    fn give_back(&self, tokens: u64, of: Option<u16>) {
        let more = i64::try_from(tokens).unwrap_or(i64::MAX);
        let _ = self.change(|word| {
            let same = of.is_none_or(|number| number == lease(word));
            same.then(|| left(word).saturating_add(more))
        });
    }

    /// Changes what is left, atomically; the new word where it was changed.
    fn change(&self, mut rest: impl FnMut(u64) -> Option<i64>) -> Option<u64> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let next = with_left(word, rest(word)?)?;
            match self
                .word
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(next),
                Err(now) => word = now,
            }
        }
    }
}
