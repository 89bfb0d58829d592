//! What the control plane tells unasked: what was revoked, on a lane of its own with a heartbeat, and what changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use tollgate_policy::directory::Revoked;
use tollgate_proto::Announcement;
use tollgate_proto::convert::FastLane;
use tollgate_proto::wire::{self, control_client::ControlClient as Wire};
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
    // Until all of it is here, what is known stays: a part is not all.
    let mut whole: Option<(u64, Arc<str>, Vec<Revoked>)> = None;
    loop {
        let message = timeout(SILENCE, stream.message()).await;
        let message = message.map_err(|_| Status::unavailable("silence"))??;
        let message = message.ok_or_else(|| Status::unavailable("it ended"))?;
        let event = FastLane::try_from(message);
        match event.map_err(|error| Status::data_loss(error.to_string()))? {
            FastLane::All {
                generation,
                installation,
                what,
            } => whole = Some((generation, installation, what.to_vec())),
            FastLane::More { generation, what } => match &mut whole {
                Some((_, _, all)) => all.extend_from_slice(&what),
                None => {
                    known.memory.lock().revoke(&what);
                    announce(known, announcements, generation, what);
                }
            },
            FastLane::Heartbeat => {
                if let Some((generation, installation, what)) = whole.take() {
                    take_all(known, &what, &installation);
                    announce(known, announcements, generation, what.into());
                }
            }
        }
        if whole.is_none() {
            known.contact.heard();
            known.memory.lock().heard(now());
            backoff.reset();
        }
    }
}

fn take_all(known: &Known, what: &[Revoked], installation: &str) {
    let anew = known.memory.lock().revoke_all(what, installation);
    if anew && !known.said_anew.swap(true, Ordering::Relaxed) {
        tracing::error!(
            "the control plane's store began anew: what this node holds stays as it is until it is known there"
        );
    }
}

fn announce(
    known: &Known,
    announcements: &broadcast::Sender<Announcement>,
    generation: u64,
    what: Arc<[Revoked]>,
) {
    let generation = known.generations.announced(generation);
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
                // What is not understood may have been anything.
                let announcement = Announcement::try_from(message)
                    .unwrap_or(Announcement::Everything { generation: 0 });
                let _nobody_listens = announcements.send(counted_here(&known, announcement));
            }
        }
        sleep(backoff.next()).await;
    }
}

/// The same, with this node's count of generations.
fn counted_here(known: &Known, mut announcement: Announcement) -> Announcement {
    match &mut announcement {
        Announcement::Revoked { generation, .. }
        | Announcement::Changed { generation, .. }
        | Announcement::Everything { generation } => {
            *generation = known.generations.announced(*generation);
        }
        Announcement::Quota { .. } => {}
    }
    announcement
}
