//! Holders and a grantor in one history of milliseconds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use tollgate_policy::directory::Defined;
use tollgate_policy::quota::cell::{Cell, Taken, Untaken};
use tollgate_policy::quota::{
    Counter, CounterKey, Counts, Grantor, HolderId, LeaseAsk, LeaseGrant, Limit, Metric,
    OnUnavailable, Scope, Standing, Subject, Window,
};
use tollgate_policy::time::Timestamp;

/// How long a call waits, and an ask counts as lost.
const PATIENCE: u64 = 150;
const LOST: u64 = 500;

/// Reproducible, and good enough for faults.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 up to `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Arrivals in a step where `mean` are expected.
    pub(crate) fn arrivals(&mut self, mean: f64) -> u64 {
        let limit = (-mean).exp();
        let (mut count, mut product) = (0, 1.0);
        loop {
            product *= (self.next() >> 11) as f64 / (1u64 << 53) as f64;
            if product <= limit {
                return count;
            }
            count += 1;
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss_percent: u64,
    pub(crate) double_percent: u64,
    pub(crate) longest_delay: u64,
    pub(crate) grantor_dies: bool,
    pub(crate) holders_die: bool,
    pub(crate) jumps: bool,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            loss_percent: 0,
            double_percent: 0,
            longest_delay: 2,
            grantor_dies: false,
            holders_die: false,
            jumps: false,
        }
    }

    pub(crate) fn of(seed: u64) -> Self {
        Self {
            loss_percent: seed % 4 * 10,
            double_percent: seed % 3 * 10,
            longest_delay: 1 + seed % 5 * 60,
            grantor_dies: seed.is_multiple_of(2),
            holders_die: seed % 3 != 1,
            jumps: seed % 5 < 2,
        }
    }
}

/// What became of all calls.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) offered: u64,
    pub(crate) admitted: u64,
    pub(crate) denied: u64,
    pub(crate) waited: u64,
    /// Denied in a window that was not used up in the end.
    pub(crate) early: u64,
    /// Admitted beyond the limit.
    pub(crate) over: u64,
    pub(crate) allowed: u64,
}

enum Message {
    Ask(usize, HolderId, LeaseAsk),
    Grant(usize, HolderId, LeaseGrant, u64),
}

struct Holder {
    id: HolderId,
    cell: Cell,
    asked: Option<u64>,
    needed: u64,
    /// Since when calls wait.
    waiting: Vec<u64>,
    under_way: Vec<(u64, Taken)>,
}

/// A window: after so many turns back, the one that begins then.
type Label = (u64, i64);

pub(crate) struct Fleet {
    dice: Dice,
    faults: Faults,
    limit: Arc<Limit>,
    counters: Arc<[Counter]>,
    grantor: Grantor,
    /// How late it is for the grantor, which never goes back while it lives.
    grantor_clock: Timestamp,
    term: u32,
    /// What survives the grantor.
    disk: HashMap<CounterKey, Standing>,
    offset: i64,
    now: u64,
    holders: Vec<Holder>,
    dead: u64,
    wire: BinaryHeap<Reverse<(u64, u64)>>,
    messages: HashMap<u64, Message>,
    sent: u64,
    /// The window each lease was handed out in.
    windows: HashMap<(HolderId, u64), Label>,
    spent: HashMap<Label, u64>,
    /// How often the grantor went back to a window that was before.
    turns: u64,
    counted_in: i64,
    /// A single bucket everything is held against: tokens times a thousand.
    reference: f64,
    in_use: u64,
}

impl Fleet {
    pub(crate) fn new(
        seed: u64,
        holders: u64,
        amount: u64,
        window: Window,
        burst: Option<u64>,
        faults: Faults,
    ) -> Self {
        let limit = Arc::new(Limit {
            id: "plan/p/l".into(),
            name: "l".into(),
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
        let counters: Arc<[Counter]> = Arc::new([Counter {
            key,
            limit: limit.clone(),
        }]);
        let mut fleet = Self {
            dice: Dice::new(seed + 1),
            faults,
            reference: burst.unwrap_or(amount) as f64,
            limit,
            counters,
            grantor: Grantor::new(0),
            grantor_clock: Timestamp::default(),
            term: 0,
            disk: HashMap::new(),
            offset: 1_800_000_000_000,
            now: 1,
            holders: Vec::new(),
            dead: 0,
            wire: BinaryHeap::new(),
            messages: HashMap::new(),
            sent: 0,
            windows: HashMap::new(),
            spent: HashMap::new(),
            turns: 0,
            counted_in: 0,
            in_use: 0,
        };
        for number in 0..holders {
            let holder = fleet.born(number);
            fleet.holders.push(holder);
        }
        fleet
    }

    fn born(&self, number: u64) -> Holder {
        Holder {
            id: HolderId(number),
            cell: Cell::new(1, self.counters.clone()),
            asked: None,
            needed: 0,
            waiting: Vec::new(),
            under_way: Vec::new(),
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.offset + i64::try_from(self.now).unwrap())
    }

    /// So many milliseconds, with so many calls a second in all, unevenly spread.
    pub(crate) fn run(&mut self, millis: u64, rate: f64) -> Outcome {
        let mut told = Outcome::default();
        let weights: Vec<f64> = (1..=self.holders.len())
            .map(|rank| 1.0 / rank as f64)
            .collect();
        let whole: f64 = weights.iter().sum();
        let mut denials: HashMap<i64, u64> = HashMap::new();
        for _ in 0..millis {
            self.now += 1;
            self.break_things();
            self.deliver();
            for (holder, weight) in weights.iter().enumerate() {
                let arrivals = self.dice.arrivals(rate / 1000.0 * weight / whole);
                for _ in 0..arrivals {
                    told.offered += 1;
                    if self.call(holder) == Some(false) {
                        told.denied += 1;
                        *denials.entry(self.window()).or_default() += 1;
                    }
                }
                told.waited += self.holders[holder].waiting.len() as u64
                    - self.holders[holder]
                        .waiting
                        .iter()
                        .filter(|at| **at < self.now)
                        .count() as u64;
                let given_up = self.look(holder);
                told.denied += given_up;
                *denials.entry(self.window()).or_default() += given_up;
            }
            self.check();
        }
        let amount = self.limit.amount;
        for (window, spent) in &self.spent {
            told.admitted += spent;
            told.over += spent.saturating_sub(amount);
            if *spent < amount {
                told.early += denials.get(&window.1).copied().unwrap_or(0);
            }
        }
        told.allowed = self.spent.len() as u64 * amount;
        let last = (self.turns, self.window());
        if let Some(partly) = self.spent.get(&last).filter(|_| self.partly()) {
            // The last window is not over: what is left of it is nobody's fault.
            told.allowed -= amount - partly;
        }
        told
    }

    fn partly(&self) -> bool {
        matches!(self.limit.window, Window::Span(_))
    }

    fn window(&self) -> i64 {
        self.limit.window.at(self.wall()).begin
    }

    fn break_things(&mut self) {
        if self.faults.grantor_dies && self.dice.below(5_000) == 0 {
            self.term += 1;
            self.grantor = Grantor::new(self.term);
            self.grantor_clock = Timestamp::default();
            let now = self.wall();
            for (key, standing) in &self.disk {
                self.grantor.restore(now, key, &self.limit, *standing);
            }
        }
        if self.faults.holders_die && self.dice.below(4_000) == 0 {
            let victim = usize::try_from(self.dice.below(self.holders.len() as u64)).unwrap();
            self.dead += 1;
            self.in_use -= self.holders[victim].under_way.len() as u64;
            let holder = self.born(1_000 + self.dead);
            self.holders[victim] = holder;
        }
        if self.faults.jumps && self.dice.below(20_000) == 0 {
            let hours = [-3_600_000, 3_600_000, -90_000, 400 * 86_400_000];
            self.offset += hours[usize::try_from(self.dice.below(4)).unwrap()];
        }
        if self.now.is_multiple_of(250) {
            let now = self.wall();
            self.grantor.sweep(now);
        }
    }

    fn send(&mut self, message: impl Fn() -> Message) {
        let copies = 1 + u64::from(self.dice.chance(self.faults.double_percent));
        for _ in 0..copies {
            if self.dice.chance(self.faults.loss_percent) {
                continue;
            }
            let at = self.now + 1 + self.dice.below(self.faults.longest_delay);
            self.sent += 1;
            self.wire.push(Reverse((at, self.sent)));
            self.messages.insert(self.sent, message());
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, number))) = self.wire.peek().copied() {
            if at > self.now {
                return;
            }
            self.wire.pop();
            match self.messages.remove(&number).unwrap() {
                Message::Ask(holder, id, ask) => {
                    let wall = self.wall();
                    for counter in ask.counters.iter() {
                        let stored = self.disk.get(&counter.key);
                        if let Some(standing) = stored
                            && !self.grantor.knows(&counter.key)
                        {
                            let (key, limit) = (&counter.key, &counter.limit);
                            self.grantor.restore(wall, key, limit, *standing);
                        }
                    }
                    let grant = self.grantor.ask(wall, id, &ask);
                    // Stored before it is answered.
                    for (counter, standing) in self.grantor.take_changes() {
                        self.disk.insert(counter.key, standing);
                    }
                    self.label(wall, (id, grant.lease));
                    let needed = ask.needed;
                    self.send(|| Message::Grant(holder, id, grant.clone(), needed));
                }
                Message::Grant(holder, id, grant, needed) => {
                    let holder = &mut self.holders[holder];
                    if holder.id == id {
                        holder.cell.answered(&grant, needed);
                        holder.asked = None;
                    }
                }
            }
        }
    }

    /// Notes the window the grantor handed a lease out in, which is not that of a clock that was set back. One that is entered again
    /// after an earlier one is another.
    fn label(&mut self, wall: Timestamp, lease: (HolderId, u64)) {
        self.grantor_clock = self.grantor_clock.max(wall);
        let balance = self.grantor.balances(wall).next();
        if let (Window::Span(length), Some(reset)) =
            (self.limit.window, balance.and_then(|it| it.reset))
            && length.as_secs() >= 10
        {
            let ends = self.grantor_clock.millis() + i64::try_from(reset.as_millis()).unwrap();
            let begin = ends - i64::try_from(length.as_millis()).unwrap();
            self.turns += u64::from(begin < self.counted_in);
            self.counted_in = begin;
            self.windows.entry(lease).or_insert((self.turns, begin));
        }
    }

    /// A call: `None` where it waits.
    fn call(&mut self, holder: usize) -> Option<bool> {
        match self.holders[holder].cell.take(1, self.now) {
            Ok(taken) => {
                self.admit(holder, taken);
                Some(true)
            }
            Err(Untaken::Refused) => Some(false),
            Err(Untaken::Empty) => {
                self.holders[holder].waiting.push(self.now);
                self.holders[holder].needed += 1;
                None
            }
        }
    }

    fn admit(&mut self, holder: usize, taken: Taken) {
        let (id, lease) = (self.holders[holder].id, self.holders[holder].cell.lease());
        let window = self.windows.get(&(id, lease)).copied();
        if self.limit.window == Window::Gauge {
            let ends = self.now + 5 + self.dice.below(60);
            self.holders[holder].under_way.push((ends, taken));
            self.in_use += 1;
        } else {
            *self.spent.entry(window.unwrap_or_default()).or_default() += 1;
        }
        self.reference -= 1.0;
        if self.holders[holder].cell.is_low(taken) {
            self.ask(holder);
        }
    }

    /// Those who wait try again; whoever waited too long is refused. Leases are renewed.
    fn look(&mut self, holder: usize) -> u64 {
        let mut given_up = 0;
        let waiting = std::mem::take(&mut self.holders[holder].waiting);
        for since in waiting {
            match self.holders[holder].cell.take(1, self.now) {
                Ok(taken) => self.admit(holder, taken),
                Err(Untaken::Refused) => given_up += 1,
                Err(Untaken::Empty) if self.now - since > PATIENCE => given_up += 1,
                Err(Untaken::Empty) => self.holders[holder].waiting.push(since),
            }
        }
        let now = self.now;
        let ended: Vec<Taken> = {
            let under_way = &mut self.holders[holder].under_way;
            let over = under_way.iter().filter(|(ends, _)| *ends <= now);
            let over = over.map(|(_, taken)| *taken).collect();
            under_way.retain(|(ends, _)| *ends > now);
            over
        };
        for taken in ended {
            self.in_use -= 1;
            self.holders[holder].cell.settle(taken, 1);
        }
        let due = self.holders[holder].cell.ends_soon(self.now) && self.now.is_multiple_of(50);
        if due || !self.holders[holder].waiting.is_empty() {
            self.ask(holder);
        }
        given_up
    }

    fn ask(&mut self, holder: usize) {
        let now = self.now;
        let one = &mut self.holders[holder];
        if one.asked.is_some_and(|at| now - at < LOST) {
            return;
        }
        let needed = (one.waiting.len() as u64).max(std::mem::take(&mut one.needed).min(1));
        let needed = if one.waiting.is_empty() { 0 } else { needed };
        let Some(ask) = one.cell.ask(needed, now) else {
            return;
        };
        one.asked = Some(now);
        let id = one.id;
        self.send(|| Message::Ask(holder, id, ask.clone()));
    }

    fn check(&mut self) {
        let amount = self.limit.amount;
        match self.limit.window {
            Window::Gauge => assert!(
                self.in_use <= amount,
                "{} slots at {}",
                self.in_use,
                self.now
            ),
            Window::Span(length) if length.as_secs() >= 10 => {
                for (window, spent) in &self.spent {
                    assert!(*spent <= amount, "{spent} in {window:?} at {}", self.now);
                }
            }
            Window::Span(length) => {
                let capacity = self.limit.burst.unwrap_or(amount) as f64;
                let more = amount as f64 / length.as_millis() as f64;
                self.reference = (self.reference + more).min(capacity);
                assert!(self.reference >= -1.0, "{} at {}", self.reference, self.now);
            }
            Window::Day(_) | Window::Month(_) | Window::Lifetime => {}
        }
        for balance in self.grantor.balances(self.wall()) {
            assert!(balance.used <= amount.max(self.limit.burst.unwrap_or(0)));
        }
    }
}
