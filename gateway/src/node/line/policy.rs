//! Policy of the APIs this node serves: what it holds is told, what comes is taken into use, and what became of it is told.
//!
//! Bundles are compiled off the runtime, one at a time. What is held stays while nobody answers.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tollgate_proto::bundles::MAX_BUNDLE_MESSAGE;
use tollgate_proto::wire::{self, control_client::ControlClient as Wire, policy_event, verdict};
use tonic::transport::Channel;

use super::contact::Contact;
use super::duplex::{Duplex, Event};
use crate::live::Live;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its own name, unique in the installation.
    pub node: Arc<str>,
    /// Of its process.
    pub run: Arc<str>,
    /// How much it did.
    pub counts: Counts,
}

/// Tells how much a node did.
#[derive(Clone)]
pub struct Counts(pub Arc<dyn Fn() -> wire::NodeCounts + Send + Sync>);

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counts")
    }
}

/// Between two tellings of how much it did.
const TELL: std::time::Duration = std::time::Duration::from_secs(2);

/// Follows policy to the end of the process. `completed` turns true when all that this node is to have is there.
pub(super) async fn follow(
    channel: Channel,
    description: Description,
    live: Arc<Live>,
    completed: watch::Sender<bool>,
    contact: Arc<Contact>,
) {
    let mut stream = Duplex::new("policy", &contact, move |from| {
        let wire = Wire::new(channel.clone());
        let mut wire = wire.max_decoding_message_size(MAX_BUNDLE_MESSAGE);
        async move { wire.watch_policy(from).await }
    });
    let mut tell = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Event::Opened => begin(&mut stream, &description, &live),
                Event::Closed => {}
                Event::Message(message) => match message.event {
                    Some(policy_event::Event::Bundle(bundle)) => {
                        let verdict = apply(&live, bundle).await;
                        report(&mut stream, verdict);
                    }
                    Some(policy_event::Event::Withdrawn(withdrawn)) => {
                        let live = live.clone();
                        let done = spawn_blocking(move || live.withdraw(&withdrawn.api)).await;
                        if let Err(error) = done {
                            tracing::error!(%error, "an API is not withdrawn");
                        }
                    }
                    Some(policy_event::Event::Complete(_)) => drop(completed.send_replace(true)),
                    None => tracing::warn!("an event of policy nobody knows here is passed over"),
                },
            },
            _ = tell.tick() => {
                if stream.is_open() {
                    let counts = Some((description.counts.0)());
                    stream.send(wire::PolicyReport { counts, ..wire::PolicyReport::default() });
                }
            }
        }
    }
}

type Stream = Duplex<wire::PolicyReport, wire::PolicyEvent>;

fn begin(stream: &mut Stream, description: &Description, live: &Live) {
    stream.send(wire::PolicyReport {
        node: Some(wire::NodeDescription {
            node: description.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: description.run.to_string(),
        }),
        held: live.held(),
        ..wire::PolicyReport::default()
    });
    for verdict in live.verdicts() {
        report(stream, verdict);
    }
}

async fn apply(live: &Arc<Live>, bundle: wire::Bundle) -> wire::Verdict {
    let (api, generation) = (bundle.api.clone(), bundle.generation);
    let live = live.clone();
    let applied = spawn_blocking(move || live.apply(bundle)).await;
    let reason = match applied {
        Ok(Ok(())) => String::new(),
        Ok(Err(why)) => why,
        Err(error) => error.to_string(),
    };
    let kind = match reason.is_empty() {
        true => verdict::Kind::Ack,
        false => verdict::Kind::Nack,
    };
    wire::Verdict {
        kind: kind.into(),
        api,
        generation,
        reason,
    }
}

fn report(stream: &mut Stream, verdict: wire::Verdict) {
    stream.send(wire::PolicyReport {
        verdict: Some(verdict),
        ..wire::PolicyReport::default()
    });
}
