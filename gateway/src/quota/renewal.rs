//! Asking the grantor for more, beside the request path: many cells in one frame, one frame at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tollgate_policy::quota::{LeaseAsk, LeaseGrant};
use tollgate_proto::{Answer, ControlClient, Question};

use super::cells::HeldCell;
use super::{AWAY, Quotas};
use crate::identity::clock;

/// Cells of one frame.
const FRAME: usize = 256;
/// How often leases that end soon are looked for.
const LOOK: Duration = Duration::from_millis(50);
/// How long an answer is waited for.
const DEADLINE: Duration = Duration::from_millis(500);

/// Asking that is under way.
#[derive(Debug)]
pub struct Renewal {
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<()>,
}

impl Renewal {
    /// Begins, on the current runtime. Once per process.
    pub fn start(quotas: Arc<Quotas>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&quotas.shares).keep(stopped.clone()));
        tasks.spawn(renew(quotas, stopped));
        Self { stop, tasks }
    }

    /// Gives everything back that is at hand, as far as that is possible within `limit`.
    pub async fn end(mut self, limit: Duration) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _too_late = tokio::time::timeout(limit, ended).await;
        // What was not given back in time is asked for no more, and ends by itself.
        self.tasks.detach_all();
    }
}

/// Asks until `stop` turns true, then gives everything back.
async fn renew(quotas: Arc<Quotas>, mut stop: watch::Receiver<bool>) {
    let renewed = quotas.renewed.lock().take();
    let Some((client, mut emptied)) = renewed else {
        return;
    };
    let mut held: Vec<Arc<HeldCell>> = Vec::new();
    let mut frame = Vec::with_capacity(FRAME);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            taken = emptied.recv_many(&mut frame, FRAME) => {
                if taken == 0 {
                    return;
                }
                for cell in &frame {
                    cell.queued.store(false, Ordering::Release);
                }
                remember(&mut held, &frame);
                ask(&quotas, &client, &mut frame).await;
            }
            _ = look.tick() => {
                let now = quotas.ticks(Instant::now());
                held.retain(kept);
                let is_due = |it: &&Arc<HeldCell>| it.cell.ends_soon(now) || it.cell.owes_untold();
                let due = held.iter().filter(is_due).cloned();
                for some in due.collect::<Vec<_>>().chunks(FRAME) {
                    if quotas.is_away(quotas.ticks(Instant::now())) {
                        break;
                    }
                    frame.extend_from_slice(some);
                    ask(&quotas, &client, &mut frame).await;
                }
            }
            () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                for cell in &held {
                    cell.cell.retire();
                }
                for some in held.chunks(FRAME) {
                    frame.extend_from_slice(some);
                    ask(&quotas, &client, &mut frame).await;
                }
                return;
            }
        }
    }
}

/// Whether a cell has a lease, or owes. One that has not is remembered anew when it is next asked for.
fn kept(held: &Arc<HeldCell>) -> bool {
    let idle = || held.cell.is_idle() && !held.queued.load(Ordering::Acquire);
    if !idle() {
        return true;
    }
    held.remembered.store(false, Ordering::Relaxed);
    // Whoever owed something meanwhile may have seen it remembered, and left the telling to us.
    std::sync::atomic::fence(Ordering::SeqCst);
    let owes = !idle();
    held.remembered.store(owes, Ordering::Relaxed);
    owes
}

fn remember(held: &mut Vec<Arc<HeldCell>>, frame: &[Arc<HeldCell>]) {
    for cell in frame {
        if !cell.remembered.swap(true, Ordering::AcqRel) {
            held.push(Arc::clone(cell));
        }
    }
}

/// One frame, emptied afterwards.
async fn ask(quotas: &Quotas, client: &ControlClient, frame: &mut Vec<Arc<HeldCell>>) {
    let now = quotas.ticks(Instant::now());
    let mut asked: Vec<(Arc<HeldCell>, u64)> = Vec::with_capacity(frame.len());
    let mut asks: Vec<LeaseAsk> = Vec::with_capacity(frame.len());
    for held in frame.drain(..) {
        let needed = held.waiting.swap(0, Ordering::AcqRel);
        match held.cell.ask(needed, now) {
            Some(ask) => {
                asks.push(ask);
                asked.push((held, needed));
            }
            None => held.answered.notify_waiters(),
        }
    }
    if asks.is_empty() {
        return;
    }
    let sent = clock::now();
    match client
        .ask(Question::Lease(quotas.holder, asks), DEADLINE)
        .await
    {
        Ok(Answer::Leased(grants)) => {
            quotas.away_until.store(0, Ordering::Relaxed);
            for ((held, _), grant) in asked.iter().zip(&grants) {
                quotas.shares.offered(held.cell.counters(), grant, sent);
            }
            take(&asked, &grants);
        }
        Ok(_) | Err(_) => {
            let now = quotas.ticks(Instant::now());
            quotas.away_until.store(now + AWAY, Ordering::Relaxed);
        }
    }
    for (held, _) in asked {
        held.answered.notify_waiters();
    }
}

fn take(asked: &[(Arc<HeldCell>, u64)], grants: &[LeaseGrant]) {
    for ((held, needed), grant) in asked.iter().zip(grants) {
        held.cell.answered(grant, *needed);
    }
}
