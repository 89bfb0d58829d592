//! What the control plane tells unasked: what was revoked, on a lane of its own with a heartbeat, and what changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use tollgate_policy::directory::Revoked;
use tollgate_proto::wire::revocations_event::Event;
use tollgate_proto::wire::{self, changes_event, control_client::ControlClient as Wire};
use tollgate_proto::{Announcement, convert};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::callers::Known;
use super::duplex::Backoff;
use super::memory::now;

/// Silence after which the fast lane is opened anew: five heartbeats.
const SILENCE: Duration = Duration::from_secs(1);

/// How long opening a stream may take.
const OPENING: Duration = Duration::from_secs(3);

/// Follows the fast lane.
pub(super) async fn revocations(
    channel: Channel,
    node: String,
    known: Arc<Known>,
    announcements: broadcast::Sender<Announcement>,
) {
    let mut backoff = Backoff::default();
    loop {
        let request = wire::WatchRequest { node: node.clone() };
        let mut wire = Wire::new(channel.clone());
        let opened = timeout(OPENING, wire.watch_revocations(request)).await;
        if let Ok(Ok(stream)) = opened {
            let ended = hear(stream.into_inner(), &known, &announcements, &mut backoff).await;
            tracing::debug!(?ended, "the fast lane ended");
            known.contact.lost();
        }
        sleep(backoff.next()).await;
    }
}

async fn hear(
    mut stream: Streaming<wire::RevocationsEvent>,
    known: &Known,
    announcements: &broadcast::Sender<Announcement>,
    backoff: &mut Backoff,
) -> Result<(), Status> {
    loop {
        let message = timeout(SILENCE, stream.message()).await;
        let message = message.map_err(|_| Status::unavailable("silence"))??;
        let Some(event) = message.and_then(|it| it.event) else {
            return Err(Status::data_loss("an event nobody knows here"));
        };
        match event {
            Event::All(set) => {
                let what = read(set.revoked)?;
                let anew = known.memory.lock().revoke_all(&what, &set.installation);
                if anew && !known.anew.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        "the control plane's store began anew: what this node holds stays as it is until it is known there"
                    );
                }
                announce(known, announcements, set.generation, what);
            }
            Event::More(set) => {
                let what = read(set.revoked)?;
                known.memory.lock().revoke(&what);
                announce(known, announcements, set.generation, what);
            }
            Event::Heartbeat(_) => {}
        }
        known.contact.heard();
        known.memory.lock().heard(now());
        backoff.reset();
    }
}

fn read(revoked: Vec<wire::Revoked>) -> Result<Vec<Revoked>, Status> {
    let read = revoked.into_iter().map(Revoked::try_from).collect();
    read.map_err(|error: convert::Malformed| Status::data_loss(error.to_string()))
}

fn announce(
    known: &Known,
    announcements: &broadcast::Sender<Announcement>,
    generation: u64,
    what: Vec<Revoked>,
) {
    let generation = known.generations.announced(generation);
    let what = what.into();
    let _nobody_listens = announcements.send(Announcement::Revoked { generation, what });
}

/// Follows what changed.
pub(super) async fn changes(
    channel: Channel,
    node: String,
    known: Arc<Known>,
    announcements: broadcast::Sender<Announcement>,
) {
    let mut backoff = Backoff::default();
    loop {
        let request = wire::WatchRequest { node: node.clone() };
        let mut wire = Wire::new(channel.clone());
        if let Ok(Ok(stream)) = timeout(OPENING, wire.watch_changes(request)).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                backoff.reset();
                let Some(announcement) = message.event.and_then(|it| announced(&known, it)) else {
                    continue;
                };
                let _nobody_listens = announcements.send(announcement);
            }
        }
        sleep(backoff.next()).await;
    }
}

fn announced(known: &Known, event: changes_event::Event) -> Option<Announcement> {
    match event {
        changes_event::Event::Consumers(changed) => Some(Announcement::Changed {
            generation: known.generations.announced(changed.generation),
            consumers: changed.consumers.into_iter().map(Into::into).collect(),
        }),
        changes_event::Event::Everything(changed) => Some(Announcement::Everything {
            generation: known.generations.announced(changed.generation),
        }),
        changes_event::Event::Quota(alert) => Some(Announcement::Quota {
            key: alert.key?.try_into().ok()?,
            percent: alert.percent.try_into().ok()?,
            begins: convert::from_timestamp(&alert.begins?).ok()?,
            ends: match &alert.ends {
                Some(ends) => Some(convert::from_timestamp(ends).ok()?),
                None => None,
            },
        }),
    }
}
