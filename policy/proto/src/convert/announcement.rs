//! What is announced: restrictions on a lane of their own, other changes, and quotas that come near their end.

use std::sync::Arc;

use prost::Message;
use tollgate_policy::directory::Revoked;
use tollgate_policy::quota::CounterKey;
use tollgate_policy::time::Timestamp;

use super::{
    LONGEST_LIST, Malformed, claim, digest, list, needed, needed_time, text, time, to_time,
};
use crate::Announcement;
use crate::wire::{self, changes_event, revocations_event, revoked::What};

/// Bytes of one message of the fast lane, about: far below what transports take by default.
const LONGEST_SET: usize = 512 * 1024;

/// What comes along the fast lane.
#[derive(Clone, Debug, PartialEq)]
pub enum FastLane {
    /// Everything that counts no more; what was known before is forgotten. Where it is too much for one message the rest follows
    /// as [`FastLane::More`], and the first heartbeat says that all of it has come.
    All {
        /// State of the directory.
        generation: u64,
        /// The control plane's store: one that began anew knows less than nodes do.
        installation: Arc<str>,
        /// What counts no more.
        what: Arc<[Revoked]>,
    },
    /// More of it.
    More {
        /// State of the directory after it.
        generation: u64,
        /// What counts no more.
        what: Arc<[Revoked]>,
    },
    /// Nothing happened.
    Heartbeat,
}

/// Revocations, cut into messages of a size that any transport takes; at least one. The first says whose store they are from.
pub fn revoked_sets(
    generation: u64,
    installation: &str,
    what: &[Revoked],
) -> Vec<wire::RevokedSet> {
    let empty = || wire::RevokedSet {
        generation,
        revoked: Vec::new(),
        installation: String::new(),
    };
    let (mut sets, mut last, mut length) = (Vec::new(), empty(), 0);
    for revoked in what {
        let revoked = wire::Revoked::from(revoked);
        if length > LONGEST_SET || last.revoked.len() == LONGEST_LIST {
            sets.push(std::mem::replace(&mut last, empty()));
            length = 0;
        }
        length += revoked.encoded_len();
        last.revoked.push(revoked);
    }
    sets.push(last);
    if let Some(first) = sets.first_mut() {
        installation.clone_into(&mut first.installation);
    }
    sets
}

impl From<&FastLane> for wire::RevocationsEvent {
    fn from(event: &FastLane) -> Self {
        let set = |generation: &u64, installation: &str, what: &[Revoked]| wire::RevokedSet {
            generation: *generation,
            revoked: what.iter().map(wire::Revoked::from).collect(),
            installation: installation.to_owned(),
        };
        let event = match event {
            FastLane::All {
                generation,
                installation,
                what,
            } => revocations_event::Event::All(set(generation, installation, what)),
            FastLane::More { generation, what } => {
                revocations_event::Event::More(set(generation, "", what))
            }
            FastLane::Heartbeat => revocations_event::Event::Heartbeat(wire::Heartbeat {}),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<wire::RevocationsEvent> for FastLane {
    type Error = Malformed;

    /// A restriction that is not understood makes the whole message unusable: to go on without it would be to allow.
    fn try_from(event: wire::RevocationsEvent) -> Result<Self, Malformed> {
        match needed(event.event, "revocations_event.event")? {
            revocations_event::Event::All(set) => {
                let (generation, what) = (set.generation, all(set.revoked)?);
                let installation = text(set.installation, "revoked_set.installation")?;
                Ok(Self::All {
                    generation,
                    installation,
                    what,
                })
            }
            revocations_event::Event::More(set) => {
                let (generation, what) = (set.generation, all(set.revoked)?);
                Ok(Self::More { generation, what })
            }
            revocations_event::Event::Heartbeat(wire::Heartbeat {}) => Ok(Self::Heartbeat),
        }
    }
}

fn all(revoked: Vec<wire::Revoked>) -> Result<Arc<[Revoked]>, Malformed> {
    list(revoked, "revoked_set.revoked", Revoked::try_from).map(Arc::from)
}

impl From<&Revoked> for wire::Revoked {
    fn from(revoked: &Revoked) -> Self {
        let what = match revoked {
            Revoked::Key(digest) => What::Key(digest.0.to_vec()),
            Revoked::Token {
                issuer,
                id,
                expires,
            } => What::Token(wire::RevokedToken {
                issuer: issuer.to_string(),
                id: id.to_string(),
                expires: expires.map(to_time),
            }),
            Revoked::Subject {
                issuer,
                subject,
                before,
            } => What::Subject(wire::RevokedSubject {
                issuer: issuer.to_string(),
                subject: subject.to_string(),
                before: Some(to_time(*before)),
            }),
            Revoked::Certificate(name) => What::Certificate(name.to_string()),
            Revoked::Consumer(name) => What::Consumer(name.to_string()),
        };
        Self { what: Some(what) }
    }
}

impl TryFrom<wire::Revoked> for Revoked {
    type Error = Malformed;

    fn try_from(revoked: wire::Revoked) -> Result<Self, Malformed> {
        match needed(revoked.what, "revoked.what")? {
            What::Key(bytes) => digest(bytes, "revoked.key").map(Self::Key),
            What::Token(token) => Ok(Self::Token {
                issuer: claim(token.issuer, "revoked_token.issuer")?,
                id: claim(token.id, "revoked_token.id")?,
                expires: token
                    .expires
                    .map(|at| time(at, "revoked_token.expires"))
                    .transpose()?,
            }),
            What::Subject(it) => Ok(Self::Subject {
                issuer: claim(it.issuer, "revoked_subject.issuer")?,
                subject: claim(it.subject, "revoked_subject.subject")?,
                before: needed_time(it.before, "revoked_subject.before")?,
            }),
            What::Certificate(name) => claim(name, "revoked.certificate").map(Self::Certificate),
            What::Consumer(name) => text(name, "revoked.consumer").map(Self::Consumer),
        }
    }
}

/// An announcement as it goes to those who watch changes; `None` for revocations, which have the fast lane. Of more consumers than
/// a message may name, everything is said to have changed.
pub fn changes_event(announcement: &Announcement) -> Option<wire::ChangesEvent> {
    let everything = |generation: &u64| {
        changes_event::Event::Everything(wire::ChangedEverything {
            generation: *generation,
        })
    };
    let event = match announcement {
        Announcement::Revoked { .. } => return None,
        Announcement::Changed {
            generation,
            consumers,
        } if consumers.len() <= LONGEST_LIST => {
            changes_event::Event::Consumers(wire::ChangedConsumers {
                generation: *generation,
                consumers: super::to_texts(consumers),
            })
        }
        Announcement::Changed { generation, .. } | Announcement::Everything { generation } => {
            everything(generation)
        }
        Announcement::Quota {
            key,
            percent,
            begins,
            ends,
        } => changes_event::Event::Quota(wire::QuotaAlert {
            key: Some(wire::CounterKey::from(key)),
            percent: u32::from(*percent),
            begins: Some(to_time(*begins)),
            ends: ends.map(to_time),
        }),
    };
    Some(wire::ChangesEvent { event: Some(event) })
}

impl TryFrom<wire::ChangesEvent> for Announcement {
    type Error = Malformed;

    fn try_from(event: wire::ChangesEvent) -> Result<Self, Malformed> {
        match needed(event.event, "changes_event.event")? {
            changes_event::Event::Consumers(changed) => Ok(Self::Changed {
                generation: changed.generation,
                consumers: super::texts(changed.consumers, "changed_consumers.consumers")?.into(),
            }),
            changes_event::Event::Everything(changed) => Ok(Self::Everything {
                generation: changed.generation,
            }),
            changes_event::Event::Quota(alert) => quota(alert),
        }
    }
}

fn quota(alert: wire::QuotaAlert) -> Result<Announcement, Malformed> {
    let percent = u8::try_from(alert.percent).ok();
    let ends = alert.ends.map(|it| time(it, "quota_alert.ends"));
    let (key, begins): (CounterKey, Timestamp) = (
        needed(alert.key, "quota_alert.key")?.try_into()?,
        needed_time(alert.begins, "quota_alert.begins")?,
    );
    Ok(Announcement::Quota {
        key,
        percent: percent
            .filter(|percent| (1..=100).contains(percent))
            .ok_or(Malformed("quota_alert.percent"))?,
        begins,
        ends: ends.transpose()?,
    })
}
