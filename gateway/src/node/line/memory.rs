//! Callers this node was told of, and what was revoked: kept on its disk, so that it knows its callers when it starts and nobody answers.
//!
//! Written as a whole beside the last, then put in its place; a file that is damaged is as good as none. It holds keyed hashes of keys
//! and hashes of passwords, and only its owner may read it. Not here: when it is asked instead of the control plane.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message as _;
use tollgate_policy::directory::{Caller, CredentialRef, Revoked};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Answer, Resolved, convert, wire};

/// Callers kept; of more, those that were told longest ago go.
const MOST: usize = 100_000;

/// How long what was told counts while nobody confirms it.
const KEPT: Duration = Duration::from_secs(72 * 3600);

/// Begins the file.
const FORMAT: &[u8] = b"tollgate callers 2\n";

#[derive(Clone, Debug)]
struct Told {
    caller: Arc<Caller>,
    at: Timestamp,
    /// The store that said so; empty: it did not say which it is.
    by: Arc<str>,
}

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Memory {
    callers: HashMap<CredentialRef, Told>,
    revoked: HashSet<Revoked>,
    /// The store all this is from; empty: none yet.
    installation: String,
    /// The control plane was last heard.
    heard: Option<Timestamp>,
    changed: bool,
    /// The store that told of a caller last.
    by: Arc<str>,
}

impl Memory {
    /// What a former process kept. What cannot be read is told and forgotten.
    pub(super) fn read(path: &Path) -> Self {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(%error, "{} cannot be read: callers are asked for anew", path.display());
                return Self::default();
            }
        };
        Self::parse(&bytes).unwrap_or_else(|| {
            tracing::warn!("{} is damaged: callers are asked for anew", path.display());
            Self::default()
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(FORMAT)?;
        let (sum, mut rest) = rest.split_first_chunk::<4>()?;
        if crc32fast::hash(rest) != u32::from_be_bytes(*sum) {
            return None;
        }
        let head = wire::RevokedSet::decode_length_delimited(&mut rest).ok()?;
        let mut memory = Self {
            installation: head.installation,
            heard: Some(Timestamp::from_millis(i64::try_from(head.generation).ok()?)),
            ..Self::default()
        };
        for revoked in head.revoked {
            memory.revoked.insert(revoked.try_into().ok()?);
        }
        while !rest.is_empty() {
            let asked = wire::ResolveRequest::decode_length_delimited(&mut rest).ok()?;
            let told = wire::ResolveResponse::decode_length_delimited(&mut rest).ok()?;
            let by = memory.store(&told.installation);
            let Ok(Answer::Resolved(Resolved {
                caller: Some(caller),
                ..
            })) = convert::resolved(told)
            else {
                return None;
            };
            let at = Timestamp::from_millis(i64::try_from(asked.number).ok()?);
            memory
                .callers
                .insert(asked.credential?.try_into().ok()?, Told { caller, at, by });
        }
        Some(memory)
    }

    /// What is to be written, if something changed since. Before the control plane was ever heard there is nothing: what is revoked would
    /// be unknown, and the file would say that nothing is.
    pub(super) fn changed(&mut self) -> Option<Vec<u8>> {
        let heard = self.heard?;
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut body = Vec::new();
        let head = wire::RevokedSet {
            generation: positive(heard),
            revoked: self.revoked.iter().map(Into::into).collect(),
            installation: self.installation.clone(),
        };
        body.extend(head.encode_length_delimited_to_vec());
        for (reference, told) in &self.callers {
            let asked = wire::ResolveRequest {
                number: positive(told.at),
                credential: Some(reference.into()),
                more: Vec::new(),
            };
            body.extend(asked.encode_length_delimited_to_vec());
            let resolved = Resolved {
                caller: Some(Arc::clone(&told.caller)),
                generation: 0,
            };
            let told = convert::resolve_response(0, &resolved, &told.by);
            body.extend(told.encode_length_delimited_to_vec());
        }
        let mut file = FORMAT.to_vec();
        file.extend(crc32fast::hash(&body).to_be_bytes());
        file.extend(body);
        Some(file)
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.callers.len()
    }

    /// Somebody is known, says the store `by`.
    pub(super) fn learn(
        &mut self,
        reference: CredentialRef,
        caller: Arc<Caller>,
        by: &str,
        now: Timestamp,
    ) {
        if self.callers.len() >= MOST && !self.callers.contains_key(&reference) {
            let mut oldest: Vec<_> = self.callers.iter().collect();
            oldest.sort_unstable_by_key(|(_, told)| told.at);
            let gone = oldest.iter().take(MOST / 10);
            let gone: Vec<CredentialRef> = gone.map(|(held, _)| (*held).clone()).collect();
            for held in gone {
                self.callers.remove(&held);
            }
        }
        let (at, by) = (now, self.store(by));
        self.callers.insert(reference, Told { caller, at, by });
        self.changed = true;
    }

    /// The name of a store, which nearly all share.
    fn store(&mut self, name: &str) -> Arc<str> {
        if *self.by != *name {
            self.by = name.into();
        }
        Arc::clone(&self.by)
    }

    /// Nobody has this credential any more.
    pub(super) fn forget(&mut self, reference: &CredentialRef) {
        self.changed |= self.callers.remove(reference).is_some();
    }

    /// Who it was, if that still counts.
    pub(super) fn recall(&self, reference: &CredentialRef, now: Timestamp) -> Option<Arc<Caller>> {
        let told = self.callers.get(reference)?;
        // A clock set back makes nothing older.
        let old = now.millis().saturating_sub(told.at.millis());
        let counts = old <= i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        (counts && !self.is_revoked(reference, &told.caller)).then(|| Arc::clone(&told.caller))
    }

    fn is_revoked(&self, reference: &CredentialRef, caller: &Caller) -> bool {
        let own = match reference {
            CredentialRef::Key(digest) => self.revoked.contains(&Revoked::Key(*digest)),
            CredentialRef::Certificate(name) => {
                self.revoked.contains(&Revoked::Certificate(name.clone()))
            }
            CredentialRef::Login { .. } | CredentialRef::User(_) => false,
        };
        let consumer = Revoked::Consumer(caller.consumer.name.clone());
        own || self.revoked.contains(&consumer)
    }

    /// More is revoked.
    pub(super) fn revoke(&mut self, what: &[Revoked]) {
        for one in what {
            self.changed |= self.revoked.insert(one.clone());
        }
        let all = std::mem::take(&mut self.callers);
        self.callers = all
            .into_iter()
            .filter(|(reference, told)| !self.is_revoked(reference, &told.caller))
            .collect();
    }

    /// All that is revoked, as the control plane whose store is `installation` says. A store that began anew takes nothing back: what it
    /// does not know stays revoked. Says whether it is such a one.
    pub(super) fn revoke_all(&mut self, what: &[Revoked], installation: &str) -> bool {
        let anew = !self.installation.is_empty() && *self.installation != *installation;
        if !anew {
            self.installation = installation.to_owned();
            self.revoked.clear();
        }
        self.revoke(what);
        self.changed = true;
        anew
    }

    /// Whether another store told of who has it than the one that says that nobody has: that one began anew, and knows less. One that
    /// does not say which it is counts as the same.
    pub(super) fn is_strange(&self, reference: &CredentialRef, store: &str) -> bool {
        let told = self.callers.get(reference);
        told.is_some_and(|told| ![&*told.by, store].contains(&"") && *told.by != *store)
    }

    /// All that is revoked; `None`: that was never told.
    pub(super) fn revoked(&self) -> Option<Vec<Revoked>> {
        self.heard?;
        Some(self.revoked.iter().cloned().collect())
    }

    /// A sign of life of the control plane.
    pub(super) fn heard(&mut self, now: Timestamp) {
        self.heard = Some(now);
    }

    /// When it was last heard.
    pub(super) fn last_heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// To be written although only the time of the last sign of life changed.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }
}

fn positive(at: Timestamp) -> u64 {
    u64::try_from(at.millis()).unwrap_or(0)
}

/// Now, by the wall clock: what is kept has to be judged after a restart.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(super) mod tests;
