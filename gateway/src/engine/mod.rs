//! The process: worker threads that serve, one control thread that loads, watches, answers the operator and listens to signals.
//!
//! Each worker is one operating-system thread with a single-threaded runtime, its own listening sockets, its own proxy and its own
//! connections to the services: workers share policy and counters, never a socket. Not here: what happens to a request.

mod guard;
mod role;
mod signals;
mod sites;
mod worker;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tollgate_policy::settings::{Direction, ListenAddress, ProcessConfig};
use tollgate_proto::ControlClient;
use tollgate_proto::wire::NodeCounts;

use crate::admin::{self, AdminState, Page};
use crate::audit::{self, Delivery};
use crate::descriptors;
use crate::journey::Shared;
use crate::listener::handover::TakenOver;
use crate::listener::{self, Drain, Lock, TlsKeys, handover};
use crate::live::{Live, Origin, state_dir};
use crate::metering::Metering;
use crate::node::line::Contact;
use crate::node::{Mesh, ServiceEndpoint};
use crate::outbound::Outbound;
use crate::overload::Overload;
use crate::probe::Probes;
use crate::quota::alerts;
use crate::quota::renewal::Renewal;
use crate::telemetry::{AccessLog, Metrics, Workloads};
use crate::usage::Shipper;
pub use role::{Beside, MutualTls, ProbedApp, ReadyWhen, Role};
use signals::{Signals, Told};
use sites::{Site, bind_admin, open, predecessor};

/// How long the access log may take to write what is queued at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How long a start waits for the first resolution of the services' names before it serves anyway.
const NAMES_LIMIT: Duration = Duration::from_secs(2);

/// How long the end waits until quota that was not used is given back.
const QUOTA_LIMIT: Duration = Duration::from_secs(1);
/// How long the end waits until usage is taken; what is not is sent by the next start.
const USAGE_LIMIT: Duration = Duration::from_secs(3);
/// How long the end waits for the audit log.
const AUDIT_LIMIT: Duration = Duration::from_secs(3);

/// How long a start waits to hear what was revoked before it serves anyway (tokens are refused until then).
const REVOCATIONS_LIMIT: Duration = Duration::from_secs(2);

/// Why the engine did not start: one clear line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl From<String> for StartError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What else is done when the operator asks for a reload.
pub type OnReload = Arc<dyn Fn() + Send + Sync>;

/// A running gateway.
pub struct Engine {
    process: Arc<ProcessConfig>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    delivery: Option<Delivery>,
    shipper: Option<Shipper>,
    on_reload: Option<OnReload>,
    page: Option<Page>,
    access_log: AccessLog,
    drain: Drain,
    ready: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    offer: handover::Offer,
    admin: Option<TcpListener>,
    locks: Vec<Lock>,
    tls: Vec<Arc<TlsKeys>>,
    ready_when: Vec<ReadyWhen>,
    beside: Vec<Beside>,
    hold: Option<Beside>,
}

/// The sockets and locks of a gateway. Connections wait until it is started.
pub struct Opened {
    process: ProcessConfig,
    predecessor: Option<TakenOver>,
    sites: Vec<Site>,
    locks: Vec<Lock>,
    admin: TcpListener,
    mesh: Mesh,
    contact: Option<Arc<Contact>>,
    role: Role,
}

impl Opened {
    /// Opens the sockets and locks their addresses, or takes them over from the running process. Before anything else: a second
    /// instance started by accident gets no further than this.
    ///
    /// # Errors
    /// One clear line: what could not be opened or locked.
    pub fn open(mut process: ProcessConfig, take_over: bool) -> Result<Self, StartError> {
        process.state_dir = state_dir::prepare(Some(&process.state_dir), None)?;
        let predecessor = predecessor(&process.state_dir, take_over)?;
        let (sites, locks) = open(&process, predecessor.as_ref())?;
        let admin = bind_admin(&process, take_over)?;
        Ok(Self {
            process,
            predecessor,
            sites,
            locks,
            admin,
            mesh: Mesh::none(),
            contact: None,
            role: Role::default(),
        })
    }

    /// Has it belong to an installation: who it is to others, and where they live.
    #[must_use]
    pub fn within(mut self, mesh: Mesh) -> Self {
        self.mesh = mesh;
        self
    }

    /// Has it judge callers by how long the control plane was not heard.
    #[must_use]
    pub fn hearing(mut self, contact: Arc<Contact>) -> Self {
        self.contact = Some(contact);
        self
    }

    /// The same, to be changed before the engine starts.
    pub fn process_mut(&mut self) -> &mut ProcessConfig {
        &mut self.process
    }

    /// With what a role adds.
    #[must_use]
    pub fn with(mut self, role: Role) -> Self {
        if let Some(mutual) = &role.mutual {
            // What comes from the app beside us has no identity to show.
            let bare = self
                .sites
                .iter_mut()
                .filter(|site| site.tls.is_none() && site.config.direction == Direction::Inbound);
            bare.for_each(|site| site.tls = Some(mutual.keys()));
        }
        self.role = role;
        self
    }

    /// The process, its state directory as it is used.
    pub fn process(&self) -> &ProcessConfig {
        &self.process
    }
}

impl Engine {
    /// Loads the configuration and starts the workers.
    ///
    /// # Errors
    /// One clear line: what could not be read or started.
    pub fn start(
        opened: Opened,
        origin: Origin,
        control: ControlClient,
    ) -> Result<Self, StartError> {
        let Opened {
            mut process,
            predecessor,
            mut sites,
            mut locks,
            admin,
            mesh,
            contact,
            role,
        } = opened;
        let metrics = Metrics::new();
        let access_log = AccessLog::start(&process.access_log, metrics.clone())
            .map_err(|error| format!("the access log cannot be opened: {error}"))?;
        descriptors::share_out(&mut process.limits, sites.len(), process.workers);
        let live = Live::load(origin, Some(process.state_dir.clone()), metrics.clone())?;
        for (name, instances) in &process.services {
            let endpoints = instances.iter().cloned().map(ServiceEndpoint::from);
            mesh.services.fix(name, endpoints.collect());
        }
        live.join(mesh.clone());
        let (mut shared, delivery) = Shared::new(
            live.apis().clone(),
            metrics.clone(),
            access_log.clone(),
            control,
        );
        shared.trusted_hops = process.trusted_hops;
        shared.max_body = process.limits.body_bytes;
        shared.max_fields = process.limits.head_fields;
        shared.fast_path = process.fast_path;
        shared.contact = contact;
        shared.identity = Some(Arc::clone(&mesh.identity));
        shared.overload = Overload::new(&process.overload);
        shared.legacy_quota_fields = process.quota.legacy_fields;
        let is_outbound = |site: &Site| site.config.direction == Direction::Outbound;
        if sites.iter().any(is_outbound) {
            shared.outbound = Some(Outbound::new(mesh, metrics.clone()));
        }
        let (metering, shipper) = match role.unmetered {
            true => (Metering::default(), None),
            false => Metering::start(&process),
        };
        shared.metering = metering;
        shared.workloads = role.mutual.map(|mutual| Workloads::new(mutual.service));
        shared.probes = role.probes.map(|it| probes(it, &metrics)).transpose()?;
        let mut engine = Self {
            process: Arc::new(process),
            live,
            metrics,
            access_log,
            drain: Drain::new(),
            shared: Arc::new(shared),
            delivery: Some(delivery),
            shipper,
            on_reload: None,
            page: None,
            ready: Arc::new(AtomicBool::new(false)),
            workers: Vec::new(),
            offer: sites::offered(&sites)?,
            admin: Some(admin),
            locks: Vec::new(),
            tls: sites.iter().filter_map(|site| site.tls.clone()).collect(),
            ready_when: Vec::new(),
            beside: Vec::new(),
            hold: None,
        };
        engine.start_workers(&mut sites)?;
        if let Some(predecessor) = predecessor {
            let confirmed = predecessor.confirm();
            locks = confirmed.map_err(|error| format!("the hand-over broke off: {error}"))?;
        }
        engine.offer.locks = sites::offered_locks(&locks)?;
        engine.locks = locks;
        Ok(engine)
    }

    /// Where it listens, real ports included.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let mut addresses: Vec<_> = self
            .offer
            .sockets
            .iter()
            .map(|(address, _, _)| address.clone())
            .collect();
        addresses.dedup();
        addresses
    }

    /// Where the operator asks.
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// States of all APIs, for the start-up lines.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// How much it did, for the control plane.
    pub fn counts(&self) -> Arc<dyn Fn() -> NodeCounts + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || {
            let directory = &shared.identities.directory.counts;
            NodeCounts {
                hits: directory.hits.load(Ordering::Relaxed),
                asked: directory.asked.load(Ordering::Relaxed),
                requests: shared.metrics.requests(),
                usage_waiting: shared.metering.waiting(),
            }
        })
    }

    /// Has this done as well whenever a reload is asked for. Blocks a thread of its own.
    pub fn on_reload(&mut self, also: OnReload) {
        self.on_reload = Some(also);
    }

    /// Has this added to the page of metrics.
    pub fn also_show(&mut self, page: Arc<dyn Fn(&mut String) + Send + Sync>) {
        self.page = Some(Page(page));
    }

    /// Is ready for traffic only when `when` has nothing to say.
    pub fn ready_when(&mut self, when: ReadyWhen) {
        self.ready_when.push(when);
    }

    /// Has this go on beside the requests, to the end of the drain.
    pub fn also_run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.beside.push(Box::pin(task));
    }

    /// Once told to end, goes on accepting until `hold` is over; it is no more ready from the beginning. A successor is not waited for.
    pub fn drain_after(&mut self, hold: impl Future<Output = ()> + Send + 'static) {
        self.hold = Some(Box::pin(hold));
    }

    fn start_workers(&mut self, sites: &mut [Site]) -> Result<(), StartError> {
        let shared = self.shared.clone();
        let door = Arc::new(worker::door(&self.process.limits, &shared));
        let workers = self.process.workers.max(1);
        let (started, all_started) = mpsc::channel();
        for index in 0..workers {
            let mine = sites
                .iter_mut()
                .flat_map(|site| site.share(index, workers))
                .collect();
            let (shared, door, drain) = (shared.clone(), door.clone(), self.drain.clone());
            let started = started.clone();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker::work(index, mine, shared, door, drain, started))
                .map_err(|error| format!("a worker thread cannot be started: {error}"))?;
            self.workers.push(thread);
        }
        drop(started);
        // Connections to a worker that never came up would wait for ever in its queue.
        if all_started.iter().take(workers).count() < workers {
            return Err("a worker ended at its start".to_owned().into());
        }
        Ok(())
    }

    /// Serves until a signal or a successor ends it: SIGTERM and SIGINT drain (a second one ends at once), SIGHUP reloads.
    ///
    /// # Errors
    /// The control runtime cannot be started.
    pub fn run(mut self) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("control")
            .build()
            .map_err(|error| format!("the control runtime cannot be started: {error}"))?;
        let finished = runtime.block_on(self.control());
        self.access_log.flush(FLUSH_LIMIT);
        runtime.shutdown_timeout(Duration::from_millis(100));
        if finished {
            for worker in self.workers.drain(..) {
                let _ = worker.join();
            }
        }
        Ok(())
    }

    /// `true` when all connections ended in time.
    async fn control(&mut self) -> bool {
        // Before anybody can know that it runs: a signal without a listener ends the process.
        let Ok(mut signals) = Signals::new() else {
            return false;
        };
        if let Err(error) = self.live.watch() {
            tracing::error!("{error}; files are not watched, SIGHUP still reloads");
        }
        let renewal = self.spawn_tasks();
        let directory = self.shared.identities.directory.clone();
        let apis = self.live.apis().load_full();
        let _not_all = tokio::time::timeout(NAMES_LIMIT, async {
            for api in apis.all() {
                api.cluster.ready(NAMES_LIMIT).await;
            }
        })
        .await;
        drop(apis);
        directory.ready(REVOCATIONS_LIMIT).await;
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
        if let Some(shipper) = self.shipper.take() {
            tokio::spawn(shipper.run(directory.control().clone()));
        }
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

fn probes(probed: ProbedApp, metrics: &Metrics) -> Result<Probes, StartError> {
    Probes::new(probed.paths, probed.app, metrics).map_err(|findings| {
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        lines.join("\n").into()
    })
}

/// What ended the serving.
#[derive(PartialEq)]
enum Ended {
    /// A signal.
    Told,
    /// A successor serves.
    Succeeded,
}
