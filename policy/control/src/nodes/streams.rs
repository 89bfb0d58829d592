//! What goes on in each stream between a node and the control plane.
//!
//! A stream ends with its node, or with a status that says why. Nothing a node sends is believed beyond what its certificate lets it say.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot};
use tollgate_policy::directory::{CredentialRef, Revoked};
use tollgate_policy::quota::{HolderId, LeaseAsk};
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_proto::convert::Malformed;
use tollgate_proto::wire::{
    self, changes_event, policy_event, resolve_response, revocations_event,
};
use tollgate_proto::{Announcement, Answer, UsageBatch};
use tonic::{Status, Streaming};

use super::endpoints::Registered;
use crate::Control;

/// Between two signs of life on the fast lane.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Services one node may ask about.
const WANTED: usize = 2000;
/// Between two looks for instances that are gone.
const SWEEP: Duration = Duration::from_secs(5);

/// Where the messages of a stream go.
pub(super) type Outgoing<T> = mpsc::Sender<Result<T, Status>>;

/// A stream ended early; with a status: because of the node.
pub(super) struct Ended(pub(super) Option<Status>);

impl From<Malformed> for Ended {
    fn from(error: Malformed) -> Self {
        Self(Some(Status::invalid_argument(error.to_string())))
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self(Some(status))
    }
}

async fn send<T>(to: &Outgoing<T>, message: T) -> Result<(), Ended> {
    to.send(Ok(message)).await.map_err(|_| Ended(None))
}

/// The next message of a node; `None`: it has ended its side, or is gone.
async fn next<T>(from: &mut Streaming<T>) -> Option<T> {
    from.message().await.ok().flatten()
}

fn unknown_facts() -> Ended {
    Status::unavailable("the store was never read").into()
}

/// Who has these credentials?
pub(super) async fn resolve(
    control: Control,
    mut from: Streaming<wire::ResolveRequest>,
    to: Outgoing<wire::ResolveResponse>,
) -> Result<(), Ended> {
    while let Some(request) = next(&mut from).await {
        let credential = request.credential.ok_or(Malformed("credential"))?;
        let reference = CredentialRef::try_from(credential)?;
        // Files alone do not know what was revoked: no answer is better than one that lets it pass.
        let resolved = control
            .facts_known()
            .then(|| control.inner.index.read().resolve(&reference));
        let generation = resolved.as_ref().map_or(0, |it| it.generation);
        let answer = match resolved.map(|it| it.caller) {
            None => resolve_response::Answer::Refused("the store was never read".into()),
            Some(None) => resolve_response::Answer::Nobody(wire::Nobody {}),
            Some(Some(caller)) => resolve_response::Answer::Caller((&*caller).into()),
        };
        let response = wire::ResolveResponse {
            number: request.number,
            generation,
            answer: Some(answer),
        };
        send(&to, response).await?;
    }
    Ok(())
}

/// Quota.
pub(super) async fn leases(
    control: Control,
    mut from: Streaming<wire::LeasesRequest>,
    to: Outgoing<wire::LeasesResponse>,
) -> Result<(), Ended> {
    while let Some(request) = next(&mut from).await {
        let asks = request.asks.into_iter().map(LeaseAsk::try_from);
        let asks = asks.collect::<Result<Vec<_>, _>>()?;
        let (back, answered) = oneshot::channel();
        control
            .inner
            .quota
            .ask(HolderId(request.holder), asks, back);
        let (grants, refused) = match answered.await {
            Ok(Answer::Leased(grants)) => (grants.iter().map(Into::into).collect(), String::new()),
            Ok(Answer::Refused(why)) => (Vec::new(), why),
            Ok(_) | Err(_) => (Vec::new(), "no answer".to_owned()),
        };
        let response = wire::LeasesResponse {
            number: request.number,
            grants,
            refused,
        };
        send(&to, response).await?;
    }
    Ok(())
}

/// What was served.
pub(super) async fn usage(
    control: Control,
    mut from: Streaming<wire::UsageBatch>,
    to: Outgoing<wire::UsageReceipt>,
) -> Result<(), Ended> {
    while let Some(request) = next(&mut from).await {
        let (run, shard, node) = (request.run.clone(), request.shard, request.node.clone());
        let batch = UsageBatch::try_from(request)?;
        let (next, refused) = match control.inner.usage.submit(batch).await {
            Ok(receipt) => (Some(receipt.next), String::new()),
            Err(why) => (None, why),
        };
        let receipt = wire::UsageReceipt {
            run,
            shard,
            node,
            next,
            refused,
        };
        send(&to, receipt).await?;
    }
    Ok(())
}

/// What counts no more, all of it first.
pub(super) async fn revocations(
    control: Control,
    mut told: broadcast::Receiver<Announcement>,
    to: Outgoing<wire::RevocationsEvent>,
) -> Result<(), Ended> {
    use revocations_event::Event;
    let all = || {
        // Before: an earlier set must not look like all there is.
        if !control.facts_known() {
            return Err(unknown_facts());
        }
        let index = control.inner.index.read();
        let mut all = set(index.generation, &index.revoked());
        all.installation = index.installation.to_string();
        Ok(Event::All(all))
    };
    let mut event = all()?;
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let message = wire::RevocationsEvent { event: Some(event) };
        send(&to, message).await?;
        event = loop {
            tokio::select! {
                announced = told.recv() => match announced {
                    Ok(Announcement::Revoked { generation, what }) => {
                        break Event::More(set(generation, &what));
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => break all()?,
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                _ = heartbeat.tick() => break Event::Heartbeat(wire::Heartbeat {}),
            }
        };
    }
}

fn set(generation: u64, revoked: &[Revoked]) -> wire::RevokedSet {
    wire::RevokedSet {
        generation,
        revoked: revoked.iter().map(Into::into).collect(),
        installation: String::new(),
    }
}

/// What changed; that anything may have, first.
pub(super) async fn changes(
    control: Control,
    mut told: broadcast::Receiver<Announcement>,
    to: Outgoing<wire::ChangesEvent>,
) -> Result<(), Ended> {
    let everything =
        |generation| changes_event::Event::Everything(wire::ChangedEverything { generation });
    let now = || everything(control.inner.index.read().generation);
    let mut event = now();
    loop {
        send(&to, wire::ChangesEvent { event: Some(event) }).await?;
        event = loop {
            match told.recv().await {
                Ok(Announcement::Revoked { .. }) => {}
                Ok(Announcement::Changed {
                    generation,
                    consumers,
                }) => {
                    break changes_event::Event::Consumers(wire::ChangedConsumers {
                        generation,
                        consumers: consumers.iter().map(ToString::to_string).collect(),
                    });
                }
                Ok(Announcement::Everything { generation }) => break everything(generation),
                Ok(Announcement::Quota {
                    key,
                    percent,
                    begins,
                    ends,
                }) => {
                    break changes_event::Event::Quota(wire::QuotaAlert {
                        key: Some((&key).into()),
                        percent: percent.into(),
                        begins: Some(tollgate_proto::convert::timestamp(begins)),
                        ends: ends.map(tollgate_proto::convert::timestamp),
                    });
                }
                Err(broadcast::error::RecvError::Lagged(_)) => break now(),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        };
    }
}

/// Where services live.
pub(super) async fn endpoints(
    control: Control,
    peer: WorkloadId,
    mut from: Streaming<wire::EndpointsRequest>,
    to: Outgoing<wire::EndpointsEvent>,
) -> Result<(), Ended> {
    let known = control.inner.endpoints.clone();
    let mut changed = known.changed();
    let mut registered: Option<Registered> = None;
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut sent: Vec<wire::EndpointsEvent> = Vec::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            request = next(&mut from) => {
                let Some(request) = request else { return Ok(()) };
                if let Some(registration) = request.registration {
                    registered = Some(register(&control, &peer, &registration)?);
                }
                if request.leaving && let Some(instance) = registered.take() {
                    instance.leave();
                }
                wanted.extend(request.wanted);
                if wanted.len() > WANTED {
                    return Err(Status::resource_exhausted("too many services").into());
                }
            }
            moved = changed.changed() => if moved.is_err() {
                return Ok(());
            },
            _ = sweep.tick() => {
                known.sweep(Instant::now());
                continue;
            }
        }
        for service in &wanted {
            let now = known.of(service);
            match sent.iter_mut().find(|it| it.service == *service) {
                Some(before) if *before == now => continue,
                Some(before) => *before = now.clone(),
                None => sent.push(now.clone()),
            }
            send(&to, now).await?;
        }
    }
}

fn register(
    control: &Control,
    peer: &WorkloadId,
    registration: &wire::Registration,
) -> Result<Registered, Ended> {
    if peer.kind() != Kind::Service || **peer.name() != *registration.service {
        let what = format!("{peer} is not `{}`", registration.service);
        return Err(Status::permission_denied(what).into());
    }
    if registration
        .address
        .parse::<std::net::SocketAddr>()
        .is_err()
    {
        let what = "an address with port is needed, such as 10.0.0.7:9080";
        return Err(Status::invalid_argument(what).into());
    }
    let registered = control
        .inner
        .endpoints
        .register(peer, &registration.address);
    registered.ok_or_else(|| Status::resource_exhausted("too many instances").into())
}
