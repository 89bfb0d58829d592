//! Who has a credential: asked over one stream, answered from memory where nobody answers in time.
//!
//! What the control plane says wins over memory, also where it comes late: it is learned, and where memory had said something else, that is
//! announced like any change. One case is apart: a store that began anew knows nobody, and what it does not know stays as it was. Many
//! questions go in one frame. Not here: the table requests look into (`identity/held.rs`), which asks only for what it does not hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::sleep_until;
use tollgate_policy::directory::{Caller, CredentialRef};
use tollgate_proto::wire::{self, control_client::ControlClient as Wire};
use tollgate_proto::{Announcement, Answer, Resolved, convert};
use tonic::transport::Channel;

use super::contact::Contact;
use super::duplex::{Duplex, Event};
use super::memory::{Memory, now};
use super::questions::{Open, Questions, Whom};

/// How long the control plane has to answer before memory does, and how long a question waits for its frame at most. A request waits for
/// twice as long.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks for questions that were not answered, and for what is to be announced.
const LOOK: Duration = Duration::from_millis(50);
/// Questions taken in one go.
const TAKEN: usize = 512;

/// A question, with the way back.
pub(super) type Asked = (CredentialRef, oneshot::Sender<Answer>);

/// States of the directory, counted by this node: those of the control plane begin anew with each of its starts.
#[derive(Debug, Default)]
pub(super) struct Generations {
    own: AtomicU64,
    told: AtomicU64,
}

impl Generations {
    /// Another announcement, of the control plane's `generation`. Its number here.
    pub(super) fn announced(&self, generation: u64) -> u64 {
        self.told.store(generation, Ordering::SeqCst);
        self.announced_here()
    }

    /// Another announcement, of this node's own.
    fn announced_here(&self) -> u64 {
        self.own.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// What an answer of the control plane's `generation` counts as here.
    fn of(&self, generation: u64) -> u64 {
        let own = self.own.load(Ordering::SeqCst);
        match generation >= self.told.load(Ordering::SeqCst) {
            true => own,
            false => own.saturating_sub(1),
        }
    }

    fn now(&self) -> u64 {
        self.own.load(Ordering::SeqCst)
    }
}

/// What the parts of the line know together.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) contact: Arc<Contact>,
    pub(super) memory: Mutex<Memory>,
    pub(super) generations: Generations,
    /// It was said that the store began anew.
    pub(super) said_anew: AtomicBool,
}

struct Callers {
    known: Arc<Known>,
    questions: Questions,
    announcements: broadcast::Sender<Announcement>,
    /// The control plane was heard on this stream since the last look.
    heard: bool,
}

type Stream = Duplex<wire::ResolveRequest, wire::ResolveResponse>;

/// Answers until nobody can ask any more.
pub(super) async fn answer(
    channel: Channel,
    known: Arc<Known>,
    announcements: broadcast::Sender<Announcement>,
    mut queue: mpsc::Receiver<Asked>,
) {
    let mut stream: Stream = Duplex::new("callers", &known.contact, move |from| {
        let mut wire = Wire::new(channel.clone());
        async move { wire.resolve(from).await }
    });
    let contact = Arc::clone(&known.contact);
    let mut callers = Callers::new(known, announcements);
    let mut taken = Vec::with_capacity(TAKEN);
    let mut slot = None;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if slot.is_none() && stream.is_open() && callers.questions.is_due() {
            slot = Some(contact.slots.take());
        }
        tokio::select! {
            count = queue.recv_many(&mut taken, TAKEN) => {
                if count == 0 {
                    return;
                }
                for (reference, back) in taken.drain(..) {
                    callers.ask(reference, back, stream.is_open(), Instant::now());
                }
            }
            event = stream.next() => match event {
                Event::Opened => callers.heard = true,
                Event::Closed => callers.close(),
                Event::Message(response) => callers.told(response),
            },
            () = async { sleep_until(slot.unwrap_or_else(tokio::time::Instant::now)).await },
                if slot.is_some() =>
            {
                slot = None;
                callers.send(|frame| stream.send(frame), Instant::now());
            }
            _ = look.tick() => callers.look(Instant::now()),
        }
    }
}

impl Callers {
    fn new(known: Arc<Known>, announcements: broadcast::Sender<Announcement>) -> Self {
        Self {
            known,
            questions: Questions::default(),
            announcements,
            heard: false,
        }
    }

    /// Has it asked; where nobody can be asked, memory answers at once.
    fn ask(
        &mut self,
        reference: CredentialRef,
        back: oneshot::Sender<Answer>,
        is_open: bool,
        now: Instant,
    ) {
        let Err(mut refused) = self.questions.ask(reference, back, now) else {
            if !is_open {
                self.close();
            }
            return;
        };
        recall(&self.known, &mut refused);
        self.questions.doubt(&refused);
    }

    /// Sends a frame of questions, if there is room for it. Else they wait for the next slot.
    fn send(&mut self, send: impl FnOnce(wire::ResolveRequest) -> bool, now: Instant) {
        let Some(frame) = self.questions.frame() else {
            return;
        };
        let count = 1 + frame.more.len();
        if send(frame) {
            self.known.contact.frames.fetch_add(1, Ordering::Relaxed);
            self.questions.sent(count, now);
        }
    }

    /// The control plane's word, which may come late.
    fn told(&mut self, response: wire::ResolveResponse) {
        self.heard = true;
        let Some(mut open) = self.questions.answered(response.number) else {
            return;
        };
        let store = response.installation.clone();
        let told = match convert::resolved(response) {
            Ok(Answer::Resolved(told)) => told,
            Ok(_) => return recall(&self.known, &mut open),
            Err(error) => {
                tracing::error!(%error, "the control plane's answer is not understood");
                return recall(&self.known, &mut open);
            }
        };
        let caller = match told.caller {
            Some(caller) => {
                let mut memory = self.known.memory.lock();
                memory.learn(open.reference, Arc::clone(&caller), &store, now());
                Some(caller)
            }
            None => self.nobody(&open.reference, &store),
        };
        if let Some(back) = open.back {
            let generation = self.known.generations.of(told.generation);
            let _asker_gone = back.send(Answer::Resolved(Resolved { caller, generation }));
        } else if let Some(before) = open.told
            && caller.as_ref() != Some(&before)
        {
            self.questions.was_wrong(&before.consumer.name);
        }
    }

    /// Nobody has it, says the control plane. It knows less than this node where another store told of somebody.
    fn nobody(&self, reference: &CredentialRef, store: &str) -> Option<Arc<Caller>> {
        let mut memory = self.known.memory.lock();
        if memory.is_strange(reference, store) {
            return memory.recall(reference, now());
        }
        memory.forget(reference);
        None
    }

    /// Whoever waits in vain is answered from memory, and what memory said wrongly is announced.
    fn look(&mut self, now: Instant) {
        for open in self.questions.impatient(now, PATIENCE) {
            recall(&self.known, open);
        }
        // While nobody is heard, asking anew would only make those wait who are known.
        if !std::mem::take(&mut self.heard) {
            return;
        }
        let Some(again) = self.questions.take_again() else {
            return;
        };
        let generation = self.known.generations.announced_here();
        let announcement = match again {
            Whom::These(consumers) => Announcement::Changed {
                generation,
                consumers: consumers.into(),
            },
            Whom::All => Announcement::Everything { generation },
        };
        let _nobody_listens = self.announcements.send(announcement);
    }

    /// Nobody is there any more who could answer.
    fn close(&mut self) {
        for mut open in self.questions.close() {
            recall(&self.known, &mut open);
            self.questions.doubt(&open);
        }
    }
}

/// Answers from memory, if somebody waits; whom that does not know gets no answer, and is let in by nobody.
fn recall(known: &Known, open: &mut Open) {
    let Some(back) = open.back.take() else {
        return;
    };
    let caller = known.memory.lock().recall(&open.reference, now());
    let Some(caller) = caller else {
        known.contact.unanswered.fetch_add(1, Ordering::Relaxed);
        return;
    };
    known.contact.remembered.fetch_add(1, Ordering::Relaxed);
    open.told = Some(Arc::clone(&caller));
    let generation = known.generations.now();
    let caller = Some(caller);
    let _asker_gone = back.send(Answer::Resolved(Resolved { caller, generation }));
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]
mod tests;
