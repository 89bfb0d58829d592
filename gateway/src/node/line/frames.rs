//! Quota and usage: one stream each, and few frames however many calls there are.

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

/// Between two frames that ask for quota.
const LEASES: Duration = Duration::from_millis(65);
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
    let (mut number, mut free) = (0, Instant::now());
    loop {
        tokio::select! {
            asked = async { sleep_until(free).await; queue.recv().await } => {
                let Some((holder, asks, back)) = asked else { return };
                number += 1;
                let request = convert::leases_request(number, holder, &asks);
                // Whoever gave up waiting needs no place. Without a stream the way back is dropped: that says it.
                pending.retain(|_, (_, back)| !back.is_closed());
                if stream.send(request) {
                    contact.frames.fetch_add(1, Ordering::Relaxed);
                    free = Instant::now() + LEASES;
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
    loop {
        tokio::select! {
            sent = async { sleep_until(free).await; queue.recv().await } => {
                let Some((batch, back)) = sent else { return };
                let full = batch.records.len() >= FULL;
                if stream.send((&batch).into()) {
                    contact.frames.fetch_add(1, Ordering::Relaxed);
                    if !full {
                        free = Instant::now() + USAGE;
                    }
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
