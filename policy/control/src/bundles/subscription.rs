//! What one node is still to be told: bundles one at a time, then that these are all, then changes as they come.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::policy_event::Event;
use tollgate_proto::wire::{Bundle, Complete, Held, PolicyEvent, Withdrawn};

use super::{Published, Publisher, is_for};

/// A node that listens. Dropped when its connection ends.
#[derive(Debug)]
pub struct Subscription {
    publisher: Publisher,
    peer: WorkloadId,
    /// What the node said it holds, until it was looked at.
    said: Vec<Held>,
    /// What it holds or was sent last, by API: generation and hash.
    holds: BTreeMap<String, (u64, Vec<u8>)>,
    changed: watch::Receiver<u64>,
    complete: bool,
}

impl Subscription {
    pub(super) fn new(publisher: Publisher, peer: WorkloadId, held: Vec<Held>) -> Self {
        let changed = publisher.shelf().changed.subscribe();
        let holds = held.iter();
        let holds = holds.map(|it| (it.api.clone(), (it.generation, it.hash.clone())));
        Self {
            holds: holds.collect(),
            publisher,
            peer,
            said: held,
            changed,
            complete: false,
        }
    }

    /// Waits for the next thing to tell. Cancelling it loses nothing.
    pub async fn next(&mut self) -> PolicyEvent {
        loop {
            self.changed.borrow_and_update();
            if self.publisher.is_loaded() {
                self.count().await;
                let event = self.due();
                let event =
                    event.or_else(|| (!self.complete).then_some(Event::Complete(Complete {})));
                if let Some(event) = event {
                    self.complete |= matches!(event, Event::Complete(_));
                    return PolicyEvent { event: Some(event) };
                }
            }
            if self.changed.changed().await.is_err() {
                // Nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What the node holds is counted above, before it is sent anything.
    async fn count(&mut self) {
        while let Some(held) = self.said.last() {
            let api = held.api.clone();
            if let Err(error) = self.publisher.count_above(held).await {
                tracing::error!(%api, %error, "what a node holds of API {api} could not be noted");
                // It is told nothing of it: nothing it holds goes back.
            }
            self.said.pop();
        }
    }

    fn due(&mut self) -> Option<Event> {
        let apis = self.publisher.shelf().apis.read();
        let mut dues = apis
            .iter()
            .filter_map(|(api, known)| self.due_of(api, known));
        let event = dues.next()?;
        match &event {
            Event::Bundle(bundle) => {
                let sent = (bundle.generation, bundle.hash.clone());
                self.holds.insert(bundle.api.clone(), sent);
            }
            Event::Withdrawn(withdrawn) => {
                self.holds.remove(&withdrawn.api);
            }
            Event::Complete(_) => {}
        }
        Some(event)
    }

    fn due_of(&self, api: &str, known: &Published) -> Option<Event> {
        let holds = self.holds.get(api);
        let withdrawn = || {
            let (api, generation) = (api.to_owned(), known.generation);
            Event::Withdrawn(Withdrawn { api, generation })
        };
        let Some(current) = &known.current else {
            return (known.withdrawn && holds.is_some()).then(withdrawn);
        };
        if !is_for(&self.peer, current) {
            // It was its own before its file named another service.
            return holds.is_some().then(withdrawn);
        }
        let offered = match known.quarantined {
            true => known.previous.as_ref().filter(|_| holds.is_none()),
            false => Some(current),
        };
        let newer = |bundle: &&std::sync::Arc<Bundle>| {
            holds.is_none_or(|(generation, _)| bundle.generation > *generation)
        };
        let offered = offered.filter(newer)?;
        Some(Event::Bundle(Bundle::clone(offered)))
    }
}
