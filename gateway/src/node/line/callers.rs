//! Who has a credential: asked over one stream, answered from memory where nobody answers.
//!
//! What the control plane says wins over memory, but for one case: a store that began anew knows nobody, and what it does not know stays
//! as it was. Not here: the table requests look into (`identity/held.rs`), which asks only for what it does not hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tollgate_policy::directory::{Caller, CredentialRef};
use tollgate_proto::wire::{self, control_client::ControlClient as Wire};
use tollgate_proto::{Answer, Resolved, convert};
use tonic::transport::Channel;

use super::contact::Contact;
use super::duplex::{Duplex, Event};
use super::memory::{Memory, now};

/// How long the control plane has to answer before memory does. Less than a request waits for either.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks for questions that were not answered.
const LOOK: Duration = Duration::from_millis(50);
/// Questions under way.
const MOST: usize = 4096;

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
    /// The store of the control plane began anew.
    pub(super) anew: std::sync::atomic::AtomicBool,
}

struct Pending {
    reference: CredentialRef,
    back: oneshot::Sender<Answer>,
    since: Instant,
}

struct Callers {
    known: Arc<Known>,
    pending: HashMap<u64, Pending>,
    number: u64,
}

/// Answers until nobody can ask any more.
pub(super) async fn answer(channel: Channel, known: Arc<Known>, mut queue: mpsc::Receiver<Asked>) {
    let mut stream = Duplex::new("callers", &known.contact, move |from| {
        let mut wire = Wire::new(channel.clone());
        async move { wire.resolve(from).await }
    });
    let mut callers = Callers {
        known,
        pending: HashMap::new(),
        number: 0,
    };
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            asked = queue.recv() => match asked {
                Some((reference, back)) => callers.ask(&mut stream, reference, back),
                None => return,
            },
            event = stream.next() => match event {
                Event::Opened => {}
                Event::Closed => callers.give_up(|_| true),
                Event::Message(response) => callers.told(response),
            },
            _ = look.tick() => {
                let now = Instant::now();
                callers.give_up(|pending| now.duration_since(pending.since) >= PATIENCE);
            }
        }
    }
}

impl Callers {
    fn ask(
        &mut self,
        stream: &mut Duplex<wire::ResolveRequest, wire::ResolveResponse>,
        reference: CredentialRef,
        back: oneshot::Sender<Answer>,
    ) {
        self.number += 1;
        let request = wire::ResolveRequest {
            number: self.number,
            credential: Some((&reference).into()),
        };
        let pending = Pending {
            reference,
            back,
            since: Instant::now(),
        };
        if self.pending.len() < MOST && stream.send(request) {
            self.known.contact.frames.fetch_add(1, Ordering::Relaxed);
            self.pending.insert(self.number, pending);
        } else {
            self.recall(pending);
        }
    }

    fn told(&mut self, response: wire::ResolveResponse) {
        let Some(pending) = self.pending.remove(&response.number) else {
            return;
        };
        let told = match convert::resolved(response) {
            Ok(Answer::Resolved(told)) => told,
            Ok(_) => return self.recall(pending),
            Err(error) => {
                tracing::error!(%error, "the control plane's answer is not understood");
                return self.recall(pending);
            }
        };
        let Pending {
            reference, back, ..
        } = pending;
        let caller = match told.caller {
            Some(caller) => {
                let mut memory = self.known.memory.lock();
                memory.learn(reference, Arc::clone(&caller), now());
                Some(caller)
            }
            None => self.nobody(&reference),
        };
        let generation = self.known.generations.of(told.generation);
        let _asker_gone = back.send(Answer::Resolved(Resolved { caller, generation }));
    }

    /// Nobody has it, says the control plane.
    fn nobody(&self, reference: &CredentialRef) -> Option<Arc<Caller>> {
        let mut memory = self.known.memory.lock();
        if self.known.anew.load(Ordering::Relaxed) {
            return memory.recall(reference, now());
        }
        memory.forget(reference);
        None
    }

    /// Whoever waits in vain is answered from memory.
    fn give_up(&mut self, which: impl Fn(&Pending) -> bool) {
        let numbers = self.pending.iter().filter(|(_, pending)| which(pending));
        for number in numbers.map(|(number, _)| *number).collect::<Vec<_>>() {
            if let Some(pending) = self.pending.remove(&number) {
                self.recall(pending);
            }
        }
    }

    /// Answers from memory; whom that does not know gets no answer, and is let in by nobody.
    fn recall(&self, pending: Pending) {
        let contact = &self.known.contact;
        let caller = self.known.memory.lock().recall(&pending.reference, now());
        let Some(caller) = caller else {
            contact.unanswered.fetch_add(1, Ordering::Relaxed);
            return;
        };
        contact.remembered.fetch_add(1, Ordering::Relaxed);
        let generation = self.known.generations.now();
        let caller = Some(caller);
        let _asker_gone = pending
            .back
            .send(Answer::Resolved(Resolved { caller, generation }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_counted_here_whatever_number_they_have_there() {
        let generations = Generations::default();
        assert_eq!(generations.announced(700), 1);
        // Another control plane, or the same after a restart.
        assert_eq!(generations.announced(2), 2);
        assert_eq!(generations.announced(3), 3);
        assert_eq!(generations.now(), 3);
    }

    #[test]
    fn an_answer_from_before_the_last_announcement_is_older_than_that() {
        let generations = Generations::default();
        generations.announced(10);
        let announced = generations.announced(11);
        assert!(generations.of(10) < announced);
        assert_eq!(generations.of(11), announced);
        assert_eq!(generations.of(12), announced);
    }

    #[test]
    fn an_answer_before_any_announcement_is_of_the_first_state() {
        assert_eq!(Generations::default().of(0), 0);
        assert_eq!(Generations::default().of(5), 0);
    }

    #[test]
    fn after_a_restart_of_the_control_plane_its_smaller_numbers_count() {
        let generations = Generations::default();
        generations.announced(900);
        let announced = generations.announced(1);
        assert_eq!(generations.of(1), announced);
    }
}
