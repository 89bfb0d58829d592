//! Whose calls under way have to be looked at again, since something about them changed.
//!
//! Changes are added up until somebody looks: beyond a number of consumers it is all of them, so that nothing grows.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Consumers named one by one.
const MOST: usize = 1024;

/// Who changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// These consumers.
    These(Vec<Arc<str>>),
    /// Anybody.
    All,
}

/// Changes that nobody has looked at yet.
#[derive(Debug, Default)]
pub(super) struct Changed {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    whom: Option<Whom>,
    ended: bool,
}

impl Changed {
    /// Adds a change.
    pub(super) fn note(&self, more: Whom) {
        let waiting = &mut *self.waiting.lock();
        waiting.whom = Some(match (waiting.whom.take(), more) {
            (Some(Whom::These(mut known)), Whom::These(more)) => {
                known.extend(more);
                known.sort_unstable();
                known.dedup();
                match known.len() > MOST {
                    true => Whom::All,
                    false => Whom::These(known),
                }
            }
            (Some(Whom::All), _) | (_, Whom::All) => Whom::All,
            (None, these @ Whom::These(_)) => these,
        });
        self.more.notify_one();
    }

    /// There will be no more.
    pub(super) fn end(&self) {
        self.waiting.lock().ended = true;
        self.more.notify_one();
    }

    /// What changed since the last time, as soon as there is something; `None` at the end.
    pub(super) async fn next(&self) -> Option<Whom> {
        loop {
            {
                let waiting = &mut *self.waiting.lock();
                if let Some(whom) = waiting.whom.take() {
                    return Some(whom);
                }
                if waiting.ended {
                    return None;
                }
            }
            self.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these(names: &[&str]) -> Whom {
        Whom::These(names.iter().map(|name| Arc::from(*name)).collect())
    }

    #[tokio::test]
    async fn changes_add_up_and_never_beyond_bounds() {
        let changed = Changed::default();
        changed.note(these(&["b", "a"]));
        changed.note(these(&["a", "c"]));
        assert_eq!(changed.next().await, Some(these(&["a", "b", "c"])));
        for number in 0..=MOST {
            changed.note(these(&[&number.to_string()]));
        }
        assert_eq!(changed.next().await, Some(Whom::All));
        changed.note(Whom::All);
        changed.note(these(&["a"]));
        assert_eq!(changed.next().await, Some(Whom::All));
        changed.end();
        assert_eq!(changed.next().await, None);
    }
}
