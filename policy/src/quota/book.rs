//! One counter at the grantor: how much of a limit is gone. What is handed out counts as gone until it is given back.

use std::sync::Arc;
use std::time::Duration;

use super::{Instance, Limit, Window};
use crate::time::Timestamp;

/// Windows shorter than this are buckets: at their edges twice the amount would pass within moments otherwise.
const SHORTEST_WINDOW: Duration = Duration::from_secs(10);

/// Shares of a limit that are told of, in per cent.
pub(super) const ALERTS: [u8; 3] = [50, 80, 100];

/// A counter.
#[derive(Clone, Debug)]
pub(super) struct Book {
    pub(super) limit: Arc<Limit>,
    state: State,
    /// Highest share of the limit that was told of in this window, in per cent.
    pub(super) alerted: u8,
}

/// How a counter stands, for storage. What is handed out counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A window.
    Window {
        /// Which.
        window: Instance,
        /// Tokens gone.
        total: u64,
    },
    /// A bucket.
    Bucket {
        /// What is in it, in parts of a token; below zero where something is owed.
        level: i128,
        /// When it was so.
        at: Timestamp,
    },
}

/// How much is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `total` is spent or handed out in the window; it exceeds the amount only by what was owed.
    Window { window: Instance, total: u64 },
    /// A bucket. `level` is what is in it, in parts of `parts` per token; below zero where something is owed. `out` tokens are handed
    /// out: the bucket refills to its capacity less these, so that capacity is never exceeded wherever tokens lie.
    Bucket {
        level: i128,
        refilled: Timestamp,
        out: u64,
    },
    /// Slots handed out.
    Slots { out: u64 },
}

impl Book {
    /// Nothing is gone yet; a bucket whose history is not known (`fresh` is false) is empty.
    pub(super) fn new(limit: Arc<Limit>, now: Timestamp, fresh: bool) -> Self {
        let state = match kind(&limit) {
            Kind::Slots => State::Slots { out: 0 },
            Kind::Window => State::Window {
                window: limit.window.at(now),
                total: 0,
            },
            Kind::Bucket => State::Bucket {
                level: if fresh { full(&limit, 0) } else { 0 },
                refilled: now,
                out: 0,
            },
        };
        Self {
            limit,
            state,
            alerted: 0,
        }
    }

    /// Takes over a limit that was changed. What is gone stays gone, unless the limit counts in another way now.
    pub(super) fn follow(&mut self, limit: &Arc<Limit>, now: Timestamp) {
        if Arc::ptr_eq(&self.limit, limit) || *self.limit == **limit {
            return;
        }
        let same = kind(&self.limit) == kind(limit) && self.limit.window == limit.window;
        if same {
            self.limit = Arc::clone(limit);
        } else {
            *self = Self::new(Arc::clone(limit), now, false);
        }
    }

    /// Lets time pass: a window that is over gives way to the next, a bucket refills.
    pub(super) fn advance(&mut self, now: Timestamp) {
        match &mut self.state {
            State::Window { window, total } => {
                if now.millis() >= window.end {
                    *window = self.limit.window.at(now);
                    *total = 0;
                    self.alerted = 0;
                }
            }
            State::Bucket {
                level,
                refilled,
                out,
            } => {
                let elapsed = i128::try_from(now.since(*refilled).as_millis()).unwrap_or(i128::MAX);
                let more = elapsed.saturating_mul(i128::from(self.limit.amount));
                *level = level
                    .saturating_add(more)
                    .min(full(&self.limit, *out).max(*level));
                *refilled = now.max(*refilled);
            }
            State::Slots { .. } => {}
        }
    }

    /// Tokens that can be handed out.
    pub(super) fn available(&self) -> u64 {
        match &self.state {
            State::Window { total, .. } => self.limit.amount.saturating_sub(*total),
            State::Bucket { level, .. } => {
                u64::try_from((*level).max(0) / parts(&self.limit)).unwrap_or(u64::MAX)
            }
            State::Slots { out } => self.limit.amount.saturating_sub(*out),
        }
    }

    /// What is gone, of what was handed out or owed.
    pub(super) fn gone(&self) -> u64 {
        match &self.state {
            State::Window { total, .. } => *total,
            State::Bucket { level, .. } => {
                let missing = scaled(&self.limit, self.capacity()).saturating_sub(*level);
                u64::try_from(missing.max(0) / parts(&self.limit)).unwrap_or(u64::MAX)
            }
            State::Slots { out } => *out,
        }
    }

    /// What the counter can hold.
    pub(super) fn capacity(&self) -> u64 {
        capacity(&self.limit)
    }

    /// Hands tokens out.
    pub(super) fn hand_out(&mut self, tokens: u64) {
        match &mut self.state {
            State::Window { total, .. } => *total = total.saturating_add(tokens),
            State::Bucket { level, out, .. } => {
                *level = level.saturating_sub(scaled(&self.limit, tokens));
                *out = out.saturating_add(tokens);
            }
            State::Slots { out } => *out = out.saturating_add(tokens),
        }
    }

    /// Tokens that were handed out are spent now.
    pub(super) const fn spent(&mut self, tokens: u64) {
        match &mut self.state {
            State::Bucket { out, .. } | State::Slots { out } => *out = out.saturating_sub(tokens),
            State::Window { .. } => {}
        }
    }

    /// How it stands, for storage; `None` for slots, which end with the process that holds them.
    pub(super) const fn standing(&self) -> Option<Standing> {
        match self.state {
            State::Window { window, total } => Some(Standing::Window { window, total }),
            State::Bucket {
                level, refilled, ..
            } => Some(Standing::Bucket {
                level,
                at: refilled,
            }),
            State::Slots { .. } => None,
        }
    }

    /// Takes over what was stored, where the limit still counts that way. A window that lies further ahead than it is long is one of a
    /// clock that was wrong: what is gone of it counts in the present one.
    pub(super) fn restore(&mut self, standing: Standing) {
        match (&mut self.state, standing) {
            (
                State::Window { window, total },
                Standing::Window {
                    window: of,
                    total: gone,
                },
            ) if self.limit.window.at(Timestamp::from_millis(of.begin)) == of => {
                let ahead = of.begin.saturating_sub(window.begin);
                if ahead > window.end.saturating_sub(window.begin) {
                    *total = gone;
                } else if ahead >= 0 {
                    (*window, *total) = (of, gone);
                }
            }
            (
                State::Bucket {
                    level, refilled, ..
                },
                Standing::Bucket { level: held, at },
            ) => {
                *level = held.min(full(&self.limit, 0));
                *refilled = at.min(*refilled);
            }
            _ => {}
        }
        self.alerted = ALERTS
            .into_iter()
            .filter(|percent| self.share() >= *percent)
            .max()
            .unwrap_or(0);
    }

    /// Refills again only after `pause`: until then others may spend what is not known here.
    pub(super) fn pause(&mut self, now: Timestamp, pause: Duration) {
        self.advance(now);
        if let State::Bucket { refilled, .. } = &mut self.state {
            *refilled = refilled.plus(pause);
        }
    }

    /// Whether what it knows is known nowhere else: slots in use are not stored.
    pub(super) const fn is_unstored(&self) -> bool {
        match &self.state {
            State::Slots { out } | State::Bucket { out, .. } => *out > 0,
            State::Window { .. } => false,
        }
    }

    /// Tokens that were handed out in `since` come back unspent. Those of a window that is over are nobody's.
    pub(super) fn give_back(&mut self, tokens: u64, since: Option<Instance>) {
        match &mut self.state {
            State::Window { window, total } => {
                if since == Some(*window) {
                    *total = total.saturating_sub(tokens);
                }
            }
            State::Bucket { level, out, .. } => {
                *level = level.saturating_add(scaled(&self.limit, tokens));
                *out = out.saturating_sub(tokens);
            }
            State::Slots { out } => *out = out.saturating_sub(tokens),
        }
    }

    /// Something was used that nobody handed out.
    pub(super) fn owe(&mut self, tokens: u64) {
        match &mut self.state {
            State::Window { total, .. } => *total = total.saturating_add(tokens),
            State::Bucket { level, .. } => {
                *level = level.saturating_sub(scaled(&self.limit, tokens));
            }
            State::Slots { .. } => {}
        }
    }

    /// The window tokens are handed out in now.
    pub(super) fn window(&self) -> Option<Instance> {
        match &self.state {
            State::Window { window, .. } => Some(*window),
            State::Bucket { .. } | State::Slots { .. } => None,
        }
    }

    /// The time in which a bucket refills by the limit's amount; `None` for what is none.
    pub(super) fn refills_in(&self) -> Option<Duration> {
        match (kind(&self.limit), self.limit.window) {
            (Kind::Bucket, Window::Span(length)) => Some(length),
            _ => None,
        }
    }

    /// Until the counter starts anew or is full again; `None` where it never does by itself.
    pub(super) fn until_reset(&self, now: Timestamp) -> Option<Duration> {
        match &self.state {
            State::Window { window, .. } => until(*window, now),
            State::Bucket { level, .. } => {
                Some(self.refill(full(&self.limit, 0).saturating_sub(*level)))
            }
            State::Slots { .. } => None,
        }
    }

    /// Until there is a token again.
    pub(super) fn until_next(&self, now: Timestamp) -> Option<Duration> {
        match &self.state {
            State::Window { window, .. } => until(*window, now),
            State::Bucket { level, .. } if self.limit.amount > 0 => {
                Some(self.refill(parts(&self.limit).saturating_sub(*level)))
            }
            State::Bucket { .. } => None,
            // Nobody knows when a call ends.
            State::Slots { .. } => Some(Duration::from_secs(1)),
        }
    }

    /// Share of the limit that is gone, in whole per cent, rounded down.
    pub(super) fn share(&self) -> u8 {
        let capacity = self.capacity();
        let gone = capacity.saturating_sub(self.available());
        let percent = u128::from(gone) * 100 / u128::from(capacity.max(1));
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    fn refill(&self, missing: i128) -> Duration {
        let amount = i128::from(self.limit.amount.max(1));
        let millis = (missing.max(0).saturating_add(amount - 1)) / amount;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Window,
    Bucket,
    Slots,
}

fn kind(limit: &Limit) -> Kind {
    match (limit.window, limit.burst) {
        (Window::Gauge, _) => Kind::Slots,
        (Window::Span(_), Some(_)) => Kind::Bucket,
        (Window::Span(length), None) if length < SHORTEST_WINDOW => Kind::Bucket,
        _ => Kind::Window,
    }
}

/// Parts of a token in a bucket's level: a millisecond adds `amount` of them.
fn parts(limit: &Limit) -> i128 {
    match limit.window {
        Window::Span(length) => i128::try_from(length.as_millis())
            .unwrap_or(i128::MAX)
            .max(1),
        _ => 1,
    }
}

fn scaled(limit: &Limit, tokens: u64) -> i128 {
    i128::from(tokens).saturating_mul(parts(limit))
}

fn capacity(limit: &Limit) -> u64 {
    match kind(limit) {
        Kind::Bucket => limit.burst.unwrap_or(limit.amount),
        Kind::Window | Kind::Slots => limit.amount,
    }
}

/// The highest level of a bucket while `out` tokens are handed out.
fn full(limit: &Limit, out: u64) -> i128 {
    scaled(limit, capacity(limit).saturating_sub(out))
}

fn until(window: Instance, now: Timestamp) -> Option<Duration> {
    (window.end < i64::MAX).then(|| Timestamp::from_millis(window.end).since(now))
}
