//! The process: worker threads that serve, one control thread that loads, watches, answers the operator and listens to signals.
//!
//! Each worker is one operating-system thread with a single-threaded runtime, its own listening sockets, its own proxy and its own
//! connections to the services: workers share policy and counters, never a socket. Not here: what happens to a request.

mod guard;
mod life;
mod opened;
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

use tollgate_policy::settings::{Direction, ListenAddress, ProcessConfig};
use tollgate_proto::ControlClient;
use tollgate_proto::wire::NodeCounts;

use crate::admin::Page;
use crate::audit::Delivery;
use crate::descriptors;
use crate::journey::Shared;
use crate::listener::handover::TakenOver;
use crate::listener::{Drain, Lock, TlsKeys, handover};
use crate::live::{Live, Origin};
use crate::metering::Metering;
use crate::node::line::Contact;
use crate::node::{Mesh, ServiceEndpoint};
use crate::outbound::Outbound;
use crate::overload::Overload;
use crate::probe::Probes;
use crate::quota::Quotas;
use crate::telemetry::{AccessLog, Metrics, Workloads};
use crate::usage::Shipper;
pub use opened::Opened;
pub use role::{Beside, MutualTls, ProbedApp, ReadyWhen, Role};
use sites::Site;

/// How long the access log may take to write what is queued at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

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
            locks,
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
        join(&live, &mesh, &process);
        let (mut shared, delivery) = Shared::new(
            live.apis().clone(),
            metrics.clone(),
            access_log.clone(),
            control.clone(),
        );
        set(&mut shared, &process);
        hear(&mut shared, contact, control, &process);
        shared.identity = Some(Arc::clone(&mesh.identity));
        let is_outbound = |site: &Site| site.config.direction == Direction::Outbound;
        if sites.iter().any(is_outbound) {
            shared.outbound = Some(Outbound::new(mesh, metrics.clone()));
        }
        let shipper = begin_role(role, &mut shared, &process)?;
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
        engine.succeed(predecessor, locks)?;
        Ok(engine)
    }

    /// Has the predecessor end, where there is one, and keeps the locks for a successor.
    fn succeed(
        &mut self,
        predecessor: Option<TakenOver>,
        own: Vec<Lock>,
    ) -> Result<(), StartError> {
        let locks = match predecessor {
            Some(predecessor) => predecessor
                .confirm()
                .map_err(|error| format!("the hand-over broke off: {error}"))?,
            None => own,
        };
        self.offer.locks = sites::offered_locks(&locks)?;
        self.locks = locks;
        Ok(())
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
}

/// Has the control plane be where it is: in another process quota is kept for a start without it.
fn hear(
    shared: &mut Shared,
    contact: Option<Arc<Contact>>,
    control: ControlClient,
    process: &ProcessConfig,
) {
    if contact.is_some() {
        shared.quotas = Quotas::remote(control, &process.state_dir);
    }
    shared.contact = contact;
}

/// Has services be called where the process says, and elsewhere as the installation knows.
fn join(live: &Live, mesh: &Mesh, process: &ProcessConfig) {
    for (name, instances) in &process.services {
        let endpoints = instances.iter().cloned().map(ServiceEndpoint::from);
        mesh.services.fix(name, endpoints.collect());
    }
    live.join(mesh.clone());
}

/// What the settings of the process say about every request.
fn set(shared: &mut Shared, process: &ProcessConfig) {
    shared.trusted_hops = process.trusted_hops;
    shared.max_body = process.limits.body_bytes;
    shared.max_fields = process.limits.head_fields;
    shared.fast_path = process.fast_path;
    shared.overload = Overload::new(&process.overload);
    shared.legacy_quota_fields = process.quota.legacy_fields;
}

/// What a role adds to every request, or leaves out.
fn begin_role(
    role: Role,
    shared: &mut Shared,
    process: &ProcessConfig,
) -> Result<Option<Shipper>, StartError> {
    let (metering, shipper) = match role.unmetered {
        true => (Metering::default(), None),
        false => Metering::start(process),
    };
    shared.metering = metering;
    shared.workloads = role.mutual.map(|mutual| Workloads::new(mutual.service));
    let probed = role.probes.map(|it| probes(it, &shared.metrics));
    shared.probes = probed.transpose()?;
    Ok(shipper)
}

fn probes(probed: ProbedApp, metrics: &Metrics) -> Result<Probes, StartError> {
    Probes::new(probed.paths, probed.app, metrics).map_err(|findings| {
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        lines.join("\n").into()
    })
}
