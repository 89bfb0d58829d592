//! Quota and usage: one stream each, and few frames however many calls there are. They share the slots of the node with questions about
//! callers; only frames full of usage go between them, so that what is used never piles up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tollgate_proto::wire::control_client::ControlClient as Wire;
use tollgate_proto::{Answer, HolderId, LeaseAsk, UsageBatch, convert};
use tonic::transport::Channel;

use super::contact::Contact;
use super::duplex::{Duplex, Event};

/// Between two frames of usage that are not full.
const USAGE: Duration = Duration::from_millis(250);
/// Records of a frame that does not wait.
const FULL: usize = 900;
/// How long an answer may take before the stream is given up.
const PATIENCE: Duration = Duration::from_secs(6);

/// An ask for quota, with the way back.
pub(super) type Asks = (HolderId, Vec<LeaseAsk>, oneshot::Sender<Answer>);

/// Asks for quota until nobody can ask any more.
pub(super) async fn leases(
    channel: Channel,
    contact: Arc<Contact>,
    mut queue: mpsc::Receiver<Asks>,
) {
    let mut stream = Duplex::new("quota", &contact, move |from| {
        let mut wire = Wire::new(channel.clone());
        async move { wire.leases(from).await }
    });
    let mut pending: HashMap<u64, (Vec<LeaseAsk>, oneshot::Sender<Answer>)> = HashMap::new();
    let mut number = 0;
    let mut next: Option<(Asks, Instant)> = None;
    loop {
        tokio::select! {
            asked = queue.recv(), if next.is_none() => {
                let Some(asks) = asked else { return };
                next = Some((asks, contact.slots.take()));
            }
            Some((holder, asks, back)) = at_its_slot(&mut next) => {
                number += 1;
                let request = convert::leases_request(number, holder, &asks);
                // Whoever gave up waiting needs no place. Without a stream the way back is dropped: that says it.
                pending.retain(|_, (_, back)| !back.is_closed());
                if stream.send(request) {
                    contact.frames.fetch_add(1, Ordering::Relaxed);
                    pending.insert(number, (asks, back));
                }
            }
            event = stream.next() => match event {
                Event::Opened => {}
                Event::Closed => pending.clear(),
                Event::Message(response) => {
                    let Some((asks, back)) = pending.remove(&response.number) else { continue };
                    let answer = convert::leased(response, &asks);
                    let answer = answer.unwrap_or_else(|error| Answer::Refused(error.to_string()));
                    let _asker_gone = back.send(answer);
                }
            },
        }
    }
}

/// Takes what waits for its slot, then; `None`: nothing waits. Nothing is lost where the wait is given up.
async fn at_its_slot<T>(next: &mut Option<(T, Instant)>) -> Option<T> {
    let (_, slot) = next.as_ref()?;
    sleep_until(*slot).await;
    next.take().map(|(what, _)| what)
}

/// A batch of usage, with the way back.
pub(super) type Batch = (UsageBatch, oneshot::Sender<Answer>);

/// Sends usage until nobody can send any more. Receipts come in the order of batches.
pub(super) async fn usage(
    channel: Channel,
    contact: Arc<Contact>,
    mut queue: mpsc::Receiver<Batch>,
) {
    let mut stream = Duplex::new("usage", &contact, move |from| {
        let mut wire = Wire::new(channel.clone());
        async move { wire.report(from).await }
    });
    let mut pending: VecDeque<oneshot::Sender<Answer>> = VecDeque::new();
    let (mut free, mut silent) = (Instant::now(), Instant::now());
    let mut next: Option<(Batch, Instant)> = None;
    loop {
        tokio::select! {
            sent = async { sleep_until(free).await; queue.recv().await }, if next.is_none() => {
                let Some((batch, back)) = sent else { return };
                let slot = match batch.records.len() < FULL {
                    true => {
                        free = Instant::now() + USAGE;
                        contact.slots.take()
                    }
                    false => Instant::now(),
                };
                next = Some(((batch, back), slot));
            }
            Some((batch, back)) = at_its_slot(&mut next) => {
                if stream.send((&batch).into()) {
                    contact.frames.fetch_add(1, Ordering::Relaxed);
                    if pending.is_empty() {
                        silent = Instant::now();
                    }
                    pending.push_back(back);
                }
            }
            event = stream.next() => match event {
                Event::Opened => {}
                Event::Closed => pending.clear(),
                Event::Message(receipt) => {
                    silent = Instant::now();
                    let Some(back) = pending.pop_front() else { continue };
                    let answer = match convert::Received::try_from(receipt) {
                        Ok(received) => match received.receipt {
                            Ok(receipt) => Answer::Received(receipt),
                            Err(why) => Answer::Refused(why),
                        },
                        Err(error) => Answer::Refused(error.to_string()),
                    };
                    let _sender_gone = back.send(answer);
                }
            },
            () = sleep_until(silent + PATIENCE), if !pending.is_empty() => {
                pending.clear();
                stream.give_up("usage is not taken");
            }
        }
    }
}
