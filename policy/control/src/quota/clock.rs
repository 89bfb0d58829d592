//! The time windows are numbered by: the machine's, unless that jumps.
//!
//! A clock that is put far ahead would end every window at once and, put right again, leave counters in windows of the future. A jump
//! is followed only when it has lasted a while; until then time goes on as it went.

use std::time::{Duration, Instant};

use tollgate_policy::time::Timestamp;

/// Differences that are followed at once, as a time service makes them.
const FOLLOWED: Duration = Duration::from_secs(60);
/// How long a jump has to last before it is believed.
const BELIEVED: Duration = Duration::from_secs(600);

/// A clock of one life of a grantor.
#[derive(Debug)]
pub(super) struct Clock {
    /// Time went on from here.
    anchor: (Instant, Timestamp),
    jumped: Option<Instant>,
}

/// What time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// This.
    Now(Timestamp),
    /// This, which is earlier than what was told before: whoever counted by that begins anew.
    Back(Timestamp),
}

impl Clock {
    pub(super) fn new(now: Instant, wall: Timestamp) -> Self {
        Self {
            anchor: (now, wall),
            jumped: None,
        }
    }

    /// The time, where the machine says `wall`.
    pub(super) fn tell(&mut self, now: Instant, wall: Timestamp) -> Told {
        let (since, began) = self.anchor;
        let expected = began.plus(now.saturating_duration_since(since));
        let off = wall.since(expected).max(expected.since(wall));
        if off <= FOLLOWED {
            self.jumped = None;
            self.anchor = (now, wall);
            // A step back this small is waited out.
            return Told::Now(wall);
        }
        let jumped = *self.jumped.get_or_insert_with(|| {
            tracing::error!(%wall, %expected, "the clock jumped; quota goes on by the time it was");
            now
        });
        if now.saturating_duration_since(jumped) < BELIEVED {
            return Told::Now(expected);
        }
        tracing::warn!(%wall, "the clock stays where it jumped to; quota follows it");
        *self = Self::new(now, wall);
        match wall < expected {
            true => Told::Back(wall),
            false => Told::Now(wall),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const YEAR: Duration = Duration::from_secs(400 * 86_400);

    #[test]
    fn a_jump_is_followed_when_it_lasts_and_forgotten_when_it_does_not() {
        let (begun, wall) = (Instant::now(), Timestamp::from_seconds(1_800_000_000));
        let mut clock = Clock::new(begun, wall);
        let at = |seconds: u32| (begun + SECOND * seconds, wall.plus(SECOND * seconds));
        let (now, right) = at(5);
        assert_eq!(
            clock.tell(now, right.plus(SECOND)),
            Told::Now(right.plus(SECOND))
        );
        // Ahead for a minute, and right again.
        let (now, right) = at(10);
        let told = clock.tell(now, right.plus(YEAR));
        assert_eq!(told, Told::Now(right.plus(SECOND)));
        let (now, right) = at(70);
        assert_eq!(clock.tell(now, right), Told::Now(right));
        // Ahead for good.
        let (now, right) = at(80);
        assert_eq!(clock.tell(now, right.plus(YEAR)), Told::Now(right));
        let (now, right) = at(680);
        assert_eq!(
            clock.tell(now, right.plus(YEAR)),
            Told::Now(right.plus(YEAR))
        );
        // And back for good.
        let (now, right) = at(690);
        assert_eq!(clock.tell(now, right), Told::Now(right.plus(YEAR)));
        let (now, right) = at(1_290);
        assert_eq!(clock.tell(now, right), Told::Back(right));
    }
}
