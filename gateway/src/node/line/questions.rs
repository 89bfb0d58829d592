//! Questions about callers that the control plane has not answered yet, also those that memory answered meanwhile: its late word still
//! counts. Bounded; whoever waits comes before what is only to be looked at again. Not here: what memory knows, and sending.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tollgate_policy::directory::{Caller, CredentialRef};
use tollgate_proto::wire::ResolveRequest;
use tollgate_proto::{Answer, convert};

/// Questions at once.
const MOST: usize = 4096;
/// Questions of one frame.
const FRAME: usize = 512;
/// Bytes of one frame, about; what a stranger shows may be long.
const FRAME_BYTES: usize = 512 * 1024;
/// Consumers to be looked at again one by one; of more, everybody is.
const AGAIN: usize = 1024;

/// A question.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) reference: CredentialRef,
    /// The way back; `None`: the asker does not wait any more.
    pub(super) back: Option<oneshot::Sender<Answer>>,
    /// What memory said meanwhile.
    pub(super) told: Option<Arc<Caller>>,
    /// When it was asked, later: when it was sent.
    since: Instant,
}

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// By number, and so by age.
    open: BTreeMap<u64, Open>,
    unsent: VecDeque<u64>,
    last: u64,
    again: Again,
}

/// Whose callers have to be asked for anew, because what memory said of them was wrong, or nobody will ever confirm it.
#[derive(Debug, Default)]
pub(super) struct Again {
    consumers: HashSet<Arc<str>>,
    all: bool,
}

/// What is to be asked for anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whom {
    These(Vec<Arc<str>>),
    All,
}

impl Questions {
    /// Another question.
    ///
    /// # Errors
    /// There are too many that wait: it comes back.
    pub(super) fn ask(
        &mut self,
        reference: CredentialRef,
        back: oneshot::Sender<Answer>,
        now: Instant,
    ) -> Result<(), Open> {
        let question = Open {
            reference,
            back: Some(back),
            told: None,
            since: now,
        };
        if self.open.len() >= MOST && !self.make_room() {
            return Err(question);
        }
        self.last += 1;
        self.open.insert(self.last, question);
        self.unsent.push_back(self.last);
        Ok(())
    }

    /// Gives up the oldest for which nobody waits. False: for all somebody does.
    fn make_room(&mut self) -> bool {
        let idle = self.open.iter().find(|(_, open)| open.back.is_none());
        let Some(number) = idle.map(|(number, _)| *number) else {
            return false;
        };
        if let Some(open) = self.open.remove(&number) {
            self.doubt(&open);
        }
        true
    }

    /// Whether there is something to send.
    pub(super) fn is_due(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// As many as go into one frame; once it is on its way they are [sent](Self::sent).
    pub(super) fn frame(&mut self) -> Option<ResolveRequest> {
        let open = &self.open;
        self.unsent.retain(|number| open.contains_key(number));
        let mut bytes = 0;
        let asked = self.unsent.iter().take(FRAME);
        let asked = asked.filter_map(|number| Some((*number, &open.get(number)?.reference)));
        convert::resolve_request(asked.take_while(|(_, reference)| {
            let fits = bytes < FRAME_BYTES;
            bytes += length(reference);
            fits
        }))
    }

    /// A frame with so many questions is on its way: from now on their answers are waited for.
    pub(super) fn sent(&mut self, questions: usize, now: Instant) {
        for number in self.unsent.drain(..questions.min(self.unsent.len())) {
            if let Some(open) = self.open.get_mut(&number) {
                open.since = now;
            }
        }
    }

    /// Takes the question of this number out: it is answered.
    pub(super) fn answered(&mut self, number: u64) -> Option<Open> {
        self.open.remove(&number)
    }

    /// The questions whose askers have waited for `patience`. They stay open.
    pub(super) fn impatient(
        &mut self,
        now: Instant,
        patience: Duration,
    ) -> impl Iterator<Item = &mut Open> {
        let waits = move |open: &&mut Open| {
            open.back.is_some() && now.saturating_duration_since(open.since) >= patience
        };
        self.open.values_mut().filter(waits)
    }

    /// Nobody will answer any of them: those whose askers still wait.
    pub(super) fn close(&mut self) -> Vec<Open> {
        self.unsent.clear();
        let all = std::mem::take(&mut self.open).into_values();
        let (waiting, rest): (Vec<_>, Vec<_>) = all.partition(|open| open.back.is_some());
        rest.iter().for_each(|open| self.doubt(open));
        waiting
    }

    /// What memory said to this question will be confirmed by nobody.
    pub(super) fn doubt(&mut self, open: &Open) {
        if let Some(told) = &open.told {
            self.again.note(&told.consumer.name);
        }
    }

    /// What memory said was not so: of this consumer.
    pub(super) fn was_wrong(&mut self, consumer: &Arc<str>) {
        self.again.note(consumer);
    }

    /// Whom to ask for anew, once.
    pub(super) fn take_again(&mut self) -> Option<Whom> {
        let Again { consumers, all } = std::mem::take(&mut self.again);
        match all {
            true => Some(Whom::All),
            false => (!consumers.is_empty()).then(|| Whom::These(consumers.into_iter().collect())),
        }
    }
}

impl Again {
    fn note(&mut self, consumer: &Arc<str>) {
        if self.consumers.len() >= AGAIN {
            self.all = true;
        }
        if !self.all {
            self.consumers.insert(Arc::clone(consumer));
        }
    }
}

/// Bytes a credential's name takes.
fn length(reference: &CredentialRef) -> usize {
    match reference {
        CredentialRef::Key(digest) => digest.0.len(),
        CredentialRef::Login { issuer, client } => issuer.len() + client.len(),
        CredentialRef::Certificate(name) | CredentialRef::User(name) => name.len(),
    }
}
