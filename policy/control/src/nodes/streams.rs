//! What goes on in each stream between a node and the control plane.
//!
//! A stream ends with its node, or with a status that says why. Nothing a node sends is believed beyond what its certificate lets it say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot};
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_proto::convert::{self, FastLane, Malformed};
use tollgate_proto::wire::{self, policy_event, revocations_event};
use tollgate_proto::{Announcement, Answer, UsageBatch};
use tonic::{Status, Streaming};

use super::claims::About;
use super::endpoints::Registered;
use crate::Control;
use crate::control::now;

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

/// Who has these credentials?
pub(super) async fn resolve(
    control: Control,
    mut from: Streaming<wire::ResolveRequest>,
    to: Outgoing<wire::ResolveResponse>,
) -> Result<(), Ended> {
    while let Some(request) = next(&mut from).await {
        for (number, reference) in convert::resolve_questions(request)? {
            // Files alone do not know what was revoked: no answer is better than one that lets it pass.
            let response = match control.facts_known() {
                true => {
                    let index = control.inner.index.read();
                    let resolved = index.resolve(&reference);
                    convert::resolve_response(number, &resolved, &index.installation)
                }
                false => convert::refused_resolve(number, "the store was never read"),
            };
            send(&to, response).await?;
        }
    }
    Ok(())
}

/// Quota.
pub(super) async fn leases(
    control: Control,
    peer: WorkloadId,
    mut from: Streaming<wire::LeasesRequest>,
    to: Outgoing<wire::LeasesResponse>,
) -> Result<(), Ended> {
    while let Some(request) = next(&mut from).await {
        let number = request.number;
        let (holder, asks) = convert::lease_asks(request)?;
        let claims = &control.inner.claims;
        if let Err(why) = claims.holder(&peer, holder, Instant::now()) {
            send(&to, convert::refused_leases(number, &why)).await?;
            continue;
        }
        let (back, answered) = oneshot::channel();
        control.inner.quota.ask(holder, asks, back);
        let response = match answered.await {
            Ok(Answer::Leased(grants)) => convert::leases_response(number, &grants),
            Ok(Answer::Refused(why)) => convert::refused_leases(number, &why),
            Ok(_) | Err(_) => convert::refused_leases(number, "no answer"),
        };
        send(&to, response).await?;
    }
    Ok(())
}

/// What was served.
pub(super) async fn usage(
    control: Control,
    peer: WorkloadId,
    mut from: Streaming<wire::UsageBatch>,
    to: Outgoing<wire::UsageReceipt>,
) -> Result<(), Ended> {
    while let Some(request) = next(&mut from).await {
        let batch = UsageBatch::try_from(request)?;
        let submitted = match control.may_be(&peer, &batch.node, About::Usage).await {
            Ok(()) => control.inner.usage.submit(batch.clone()).await,
            Err(why) => Err(why),
        };
        let receipt = match submitted {
            Ok(receipt) => convert::usage_receipt(&batch, receipt),
            Err(why) => convert::refused_usage(&batch, &why),
        };
        send(&to, receipt).await?;
    }
    Ok(())
}

/// What counts no more, all of it first; the first heartbeat says that it was all.
pub(super) async fn revocations(
    control: Control,
    mut told: broadcast::Receiver<Announcement>,
    to: Outgoing<wire::RevocationsEvent>,
) -> Result<(), Ended> {
    all_revocations(&control, &to).await?;
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            announced = told.recv() => match announced {
                Ok(Announcement::Revoked { generation, what }) => {
                    FastLane::More { generation, what }
                }
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    all_revocations(&control, &to).await?;
                    FastLane::Heartbeat
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = heartbeat.tick() => FastLane::Heartbeat,
        };
        send(&to, (&event).into()).await?;
    }
}

async fn all_revocations(
    control: &Control,
    to: &Outgoing<wire::RevocationsEvent>,
) -> Result<(), Ended> {
    // Before the store was read, this would not be all there is.
    if !control.facts_known() {
        return Err(Status::unavailable("the store was never read").into());
    }
    let sets = {
        let index = control.inner.index.read();
        convert::revoked_sets(index.generation, &index.installation, &index.revoked(now()))
    };
    for (number, set) in sets.into_iter().enumerate() {
        let event = Some(match number {
            0 => revocations_event::Event::All(set),
            _ => revocations_event::Event::More(set),
        });
        send(to, wire::RevocationsEvent { event }).await?;
    }
    Ok(())
}

/// What changed; that anything may have, first.
pub(super) async fn changes(
    control: Control,
    mut told: broadcast::Receiver<Announcement>,
    to: Outgoing<wire::ChangesEvent>,
) -> Result<(), Ended> {
    let everything = || Announcement::Everything {
        generation: control.inner.index.read().generation,
    };
    let mut announcement = everything();
    loop {
        if let Some(event) = convert::changes_event(&announcement) {
            send(&to, event).await?;
        }
        announcement = match told.recv().await {
            Ok(announcement) => announcement,
            Err(broadcast::error::RecvError::Lagged(_)) => everything(),
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
    }
}

/// Policy of the APIs a node serves.
pub(super) async fn policy(
    control: Control,
    (peer, address): (WorkloadId, String),
    mut from: Streaming<wire::PolicyReport>,
    to: Outgoing<wire::PolicyEvent>,
) -> Result<(), Ended> {
    let first = next(&mut from).await.ok_or(Ended(None))?;
    let description = first.node.ok_or(Malformed("policy_report.node"))?;
    let named = control
        .may_be(&peer, &description.node, About::Status)
        .await;
    named.map_err(Status::permission_denied)?;
    let node = control
        .nodes()
        .connect(&description, &peer, address, &first.held);
    let publisher = control.bundles();
    let mut subscription = publisher.subscribe(peer.clone(), first.held);
    loop {
        tokio::select! {
            report = next(&mut from) => {
                let Some(report) = report else { return Ok(()) };
                if let Some(verdict) = report.verdict
                    && concerns(&control, &peer, &verdict)
                {
                    node.verdict(&verdict);
                    publisher.verdict(&description.node, &verdict);
                }
                if let Some(counts) = report.counts {
                    node.counts(counts);
                }
            }
            event = subscription.next() => {
                if let Some(policy_event::Event::Withdrawn(withdrawn)) = &event.event {
                    node.withdrawn(&withdrawn.api);
                }
                send(&to, event).await?;
            }
        }
    }
}

/// Whether a node may say what became of a bundle: one it may have been given. Others are left aside rather than the whole stream ended,
/// because an API may have been another service's when the node got it.
fn concerns(control: &Control, peer: &WorkloadId, verdict: &wire::Verdict) -> bool {
    let concerns = control.bundles().concerns(peer, &verdict.api);
    if !concerns {
        let what = verdict.kind().as_str_name();
        let why = format!(
            "{what} of API `{}`, which is none of {peer}",
            verdict.api.escape_debug()
        );
        control.inner.claims.refuse(About::Status, peer, why);
    }
    concerns
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
    let mut wanted: BTreeMap<String, Option<wire::EndpointsEvent>> = BTreeMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    let whole = tokio::time::Instant::from_std(known.whole());
    let mut partial = true;
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
                for service in &request.unwanted {
                    wanted.remove(service);
                }
                // Whoever asks again has forgotten.
                wanted.extend(request.wanted.into_iter().map(|service| (service, None)));
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
            () = tokio::time::sleep_until(whole), if partial => partial = false,
        }
        for (service, sent) in &mut wanted {
            let now = known.of(service, Instant::now());
            if sent.as_ref() != Some(&now) {
                *sent = Some(now.clone());
                send(&to, now).await?;
            }
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
