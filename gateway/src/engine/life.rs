//! What the control thread does from the first request to the last: it gets ready, runs what goes on beside the requests, listens to
//! signals and successors, and drains.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Engine;
use super::signals::{Signals, Told};
use crate::admin::{self, AdminState};
use crate::audit;
use crate::listener::{self, handover};
use crate::node::Mesh;
use crate::quota::alerts;
use crate::quota::renewal::Renewal;

/// How long a start waits for the first resolution of the services' names before it serves anyway.
const NAMES_LIMIT: Duration = Duration::from_secs(2);

/// How long a start waits to hear what was revoked before it serves anyway (tokens are refused until then).
const REVOCATIONS_LIMIT: Duration = Duration::from_secs(2);

/// How long the end waits until quota that was not used is given back.
const QUOTA_LIMIT: Duration = Duration::from_secs(1);
/// How long the end waits until usage is taken; what is not is sent by the next start.
const USAGE_LIMIT: Duration = Duration::from_secs(3);
/// How long the end waits for the audit log.
const AUDIT_LIMIT: Duration = Duration::from_secs(3);

/// What ended the serving.
#[derive(PartialEq)]
enum Ended {
    /// A signal.
    Told,
    /// A successor serves.
    Succeeded,
}

impl Engine {
    /// `true` when all connections ended in time.
    pub(super) async fn control(&mut self) -> bool {
        // Before anybody can know that it runs: a signal without a listener ends the process.
        let Ok(mut signals) = Signals::new() else {
            return false;
        };
        if let Err(error) = self.live.watch() {
            tracing::error!("{error}; files are not watched, SIGHUP still reloads");
        }
        let renewal = self.spawn_tasks();
        self.get_ready().await;
        self.ready.store(true, Ordering::Release);
        let (close_admin, admin_closed) = oneshot::channel();
        self.serve_admin(admin_closed);
        let why = self.serve(&mut signals, close_admin).await;
        self.shared.draining.store(true, Ordering::Release);
        if why == Ended::Told && !self.hold(&mut signals).await {
            return false;
        }
        self.drain.start();
        tracing::info!(connections = self.drain.connections(), "draining");
        self.drained(&mut signals, renewal).await
    }

    /// Waits for what a first request needs, as long as a start may take.
    async fn get_ready(&self) {
        let apis = self.live.apis().load_full();
        let _not_all = tokio::time::timeout(NAMES_LIMIT, async {
            for api in apis.all() {
                api.cluster.ready(NAMES_LIMIT).await;
            }
        })
        .await;
        drop(apis);
        let directory = &self.shared.identities.directory;
        directory.ready(REVOCATIONS_LIMIT).await;
    }

    /// Until the last connection ended and what is owed was handed in; `false` when that takes too long, or on another signal.
    async fn drained(&self, signals: &mut Signals, renewal: Renewal) -> bool {
        let auditor = self.shared.auditor.clone();
        let shared = self.shared.clone();
        let ended = self.drain.wait_idle(self.process.drain_timeout);
        let idle = async {
            let idle = ended.await;
            // What was decided last is recorded as well.
            let lost = auditor.settled(AUDIT_LIMIT).await;
            if lost > 0 {
                tracing::error!(
                    lost,
                    "decisions are not in the audit log: it did not take them in time"
                );
            }
            renewal.end(QUOTA_LIMIT).await;
            shared.metering.close(USAGE_LIMIT).await;
            idle
        };
        tokio::pin!(idle);
        loop {
            tokio::select! {
                idle = &mut idle => return idle,
                signal = signals.next() => if signal == Told::End { return false },
            }
        }
    }

    /// Goes on accepting as long as the role wants it; `false` when told to end once more.
    async fn hold(&mut self, signals: &mut Signals) -> bool {
        let Some(mut hold) = self.hold.take() else {
            return true;
        };
        tracing::info!("told to end; accepting until the drain begins");
        loop {
            tokio::select! {
                () = &mut hold => return true,
                signal = signals.next() => if signal == Told::End { return false },
            }
        }
    }

    /// What goes on beside the requests, on the control thread.
    fn spawn_tasks(&mut self) -> Renewal {
        for task in self.beside.drain(..) {
            tokio::spawn(task);
        }
        if let Some(probes) = &self.shared.probes {
            probes.api().maintain(&Mesh::none());
        }
        for keys in &self.tls {
            tokio::spawn(listener::watch(keys.clone()));
        }
        let directory = self.shared.identities.directory.clone();
        let tokens = self.shared.identities.tokens.clone();
        tokio::spawn(directory.clone().follow(tokens));
        if let Some(delivery) = self.delivery.take() {
            tokio::spawn(audit::deliver(delivery, directory.control().clone()));
        }
        let (shipper, shared) = (self.shipper.take(), self.shared.clone());
        let control = directory.control().clone();
        tokio::spawn(async move {
            let shipper = match shipper {
                Some(shipper) => Some(shipper),
                None => shared.metering.opened().await,
            };
            if let Some(shipper) = shipper {
                shipper.run(control).await;
            }
        });
        let alerts = self.process.quota.clone();
        let control = directory.control().clone();
        tokio::spawn(alerts::tell(control, alerts, self.metrics.clone()));
        if let Some(outbound) = self.shared.outbound.clone() {
            tokio::spawn(outbound.sweep());
        }
        let costs = self.shared.costs.clone();
        tokio::spawn(costs.divide(self.shared.apis.clone()));
        Renewal::start(self.shared.quotas.clone())
    }

    /// Until a signal or a successor ends it. The sockets kept for a successor are closed when this returns.
    async fn serve(&mut self, signals: &mut Signals, close_admin: oneshot::Sender<()>) -> Ended {
        let offer = std::mem::replace(
            &mut self.offer,
            handover::Offer {
                sockets: Vec::new(),
                locks: Vec::new(),
            },
        );
        let state_dir = self.process.state_dir.clone();
        let succeeded = handover::offer(&state_dir, offer);
        tokio::pin!(succeeded);
        let mut offered = true;
        loop {
            tokio::select! {
                signal = signals.next() => {
                    if signal == Told::End {
                        return Ended::Told;
                    }
                    self.access_log.reopen();
                    let live = self.live.clone();
                    let also = self.on_reload.clone();
                    tokio::task::spawn_blocking(move || {
                        if let Some(also) = also {
                            also();
                        }
                        live.reload();
                    });
                }
                result = &mut succeeded, if offered => match result {
                    Ok(()) => {
                        tracing::info!("a successor serves; draining");
                        // The successor answers the operator from now on.
                        let _already_closed = close_admin.send(());
                        return Ended::Succeeded;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no hand-over can be offered");
                        offered = false;
                    }
                }
            }
        }
    }

    /// Until the end, or until a successor answers on the same port.
    fn serve_admin(&mut self, closed: oneshot::Receiver<()>) {
        let state = AdminState {
            metrics: self.metrics.clone(),
            live: self.live.clone(),
            ready: self.ready.clone(),
            draining: self.shared.draining.clone(),
            shared: self.shared.clone(),
            process: self.process.clone(),
            page: self.page.clone(),
            ready_when: self.ready_when.clone(),
        };
        let Some(listener) = self.admin.take() else {
            return;
        };
        tokio::spawn(async move {
            let until = async {
                if closed.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            if let Err(error) = admin::serve(listener, state, until).await {
                tracing::error!(%error, "the admin port is closed");
            }
        });
    }
}
