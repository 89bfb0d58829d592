//! The control plane, inside the gateway's process or in one of its own: on a thread and a runtime of its own, so that neither waits for
//! the other.
//!
//! They speak the messages of `tollgate-proto` over its in-process channel. Its files are read again when they change. Not here: which
//! files, and what is kept of them (`directory`).

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tollgate_control::{
    ApiLimits, Ca, CaOptions, Control, Options, UsageSettings, http, load_or_make_pepper, nodes,
};
use tollgate_policy::settings::ProcessConfig;
use tollgate_proto::{ControlClient, ControlServer};

use super::bundles;
use super::directory::{Fingerprint, fingerprint, reader};

/// How often a store that cannot be used is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How often the directory's files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Middle part of the keys made here: `tg_live_…`.
const KEY_ENVIRONMENT: &str = "live";

/// A control plane that runs beside the gateway.
pub(super) struct Beside {
    /// The gateway's end of the conversation.
    pub(super) client: ControlClient,
    /// Where administration listens.
    pub(super) address: Option<SocketAddr>,
    /// Where nodes connect.
    pub(super) nodes: Option<SocketAddr>,
    /// Where the credential for it stands.
    pub(super) credential: PathBuf,
    /// The control plane and its runtime; `None` where there was no room to begin one.
    running: Option<(Control, Handle)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Beside {
    /// Starts it. `directory` holds `plans.yaml`, `consumers.yaml` and `terms.yaml`, as far as there are any.
    ///
    /// On a full disk, where no installation was begun yet, the gateway serves all the same what demands no credential.
    ///
    /// # Errors
    /// What could not be read, made or opened.
    pub(super) fn start(
        process: &ProcessConfig,
        directory: Option<&Path>,
        take_over: bool,
    ) -> anyhow::Result<Self> {
        match Self::begin(process, directory, take_over) {
            Err(error) if is_full(&error) => {
                tracing::error!(
                    "{error:#}; nobody can be identified and nothing administered until there is room and a restart"
                );
                // Its far end is dropped: every question goes without an answer, and nobody is let in by mistake.
                let (client, _nobody) = tollgate_proto::channel([0; 32]);
                Ok(Self {
                    client,
                    address: None,
                    nodes: None,
                    credential: PathBuf::new(),
                    running: None,
                    stop: None,
                    thread: None,
                })
            }
            begun => begun,
        }
    }

    fn begin(
        process: &ProcessConfig,
        directory: Option<&Path>,
        take_over: bool,
    ) -> anyhow::Result<Self> {
        let (state_dir, api) = (&process.state_dir, process.control_api);
        let pepper = load_or_make_pepper(state_dir)
            .with_context(|| format!("the key pepper in {} cannot be used", state_dir.display()))?;
        let listener = api.map(|address| bind(address, take_over)).transpose()?;
        let address = listener.as_ref().and_then(|it| it.local_addr().ok());
        let (client, server) = tollgate_proto::channel(pepper);
        let port = Port::open(process, &client, take_over)?;
        let nodes = port.as_ref().and_then(|it| it.listener.local_addr().ok());
        // Before they are read: an edit in between is seen.
        let watched = directory.map(|directory| (directory.to_owned(), fingerprint(directory)));
        let options = Options {
            state_dir: state_dir.to_owned(),
            pepper,
            files: directory.map(|directory| reader(directory, state_dir)),
            key_environment: KEY_ENVIRONMENT.to_owned(),
            usage: UsageSettings::of(&process.usage),
        };
        let inputs = (listener, port, watched, state_dir.to_owned());
        let (stop, stopped) = oneshot::channel();
        let (started, starting) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("control-plane".to_owned())
            .spawn(move || run(options, server, inputs, started, stopped))
            .context("the control plane's thread cannot be started")?;
        let (control, runtime) = starting
            .recv()
            .map_err(|_| anyhow!("the control plane ended at its start"))??;
        if let Some(problem) = control.store_problem() {
            tracing::error!("the store cannot be used, nothing can be changed: {problem}");
        }
        Ok(Self {
            client,
            address,
            nodes,
            credential: control.admin_credential_path(),
            running: Some((control, runtime)),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What a reload of the gateway has done here as well.
    pub(super) fn reloader(&self) -> Arc<dyn Fn() + Send + Sync> {
        let running = self.running.clone();
        Arc::new(move || {
            if let Some((control, runtime)) = running.clone() {
                runtime.spawn(async move { reload(&control).await });
            }
        })
    }

    /// Has the limits of APIs asked for here.
    pub(super) fn knows_apis(&self, limits: ApiLimits) {
        if let Some((control, _)) = &self.running {
            control.knows_apis(limits);
        }
    }

    /// Adds the control plane's numbers to a page of metrics.
    pub(super) fn page(&self) -> Arc<dyn Fn(&mut String) + Send + Sync> {
        let running = self.running.clone();
        Arc::new(move |page| {
            if let Some((control, _)) = &running {
                control.write_page(page);
            }
        })
    }

    /// Ends it, with what is under way.
    pub(super) fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ended_already = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Whether there is no room on the disk.
fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    })
}

/// What it listens on, for operators and for nodes, what files it looks at, and where it keeps its state.
type Inputs = (
    Option<TcpListener>,
    Option<Port>,
    Option<(PathBuf, Fingerprint)>,
    PathBuf,
);

/// Where nodes connect.
struct Port {
    listener: TcpListener,
    ca: Arc<Ca>,
    client: ControlClient,
}

impl Port {
    /// `None`: this installation is one process.
    fn open(
        process: &ProcessConfig,
        client: &ControlClient,
        take_over: bool,
    ) -> anyhow::Result<Option<Self>> {
        let Some(address) = process.nodes.listen else {
            return Ok(None);
        };
        let options = CaOptions {
            hosts: process
                .nodes
                .hosts
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..CaOptions::default()
        };
        let ca = Ca::open(&process.state_dir, &process.nodes.domain, options)?;
        Ok(Some(Self {
            listener: bind(address, take_over)?,
            ca,
            client: client.clone(),
        }))
    }
}

/// The thread: tells how the start went, then lives until it is told to stop.
fn run(
    options: Options,
    server: ControlServer,
    inputs: Inputs,
    started: mpsc::Sender<anyhow::Result<(Control, Handle)>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _nobody_waits = started.send(Err(error.into()));
            return;
        }
    };
    runtime.block_on(async {
        let control = match Control::start(options, server).await {
            Ok(control) => control,
            Err(error) => {
                let _nobody_waits = started.send(Err(error.into()));
                return;
            }
        };
        let _nobody_waits = started.send(Ok((control.clone(), Handle::current())));
        live(control, inputs, stopped).await;
    });
}

async fn live(
    control: Control,
    (listener, port, watched, state_dir): Inputs,
    stopped: oneshot::Receiver<()>,
) {
    let (ended, end) = tokio::sync::watch::channel(false);
    let wait = |mut end: tokio::sync::watch::Receiver<bool>| async move {
        let _sender_gone = end.wait_for(|ended| *ended).await;
    };
    let serving = listener.map(|listener| {
        let served = http::serve(listener, control.clone(), Vec::new(), wait(end.clone()));
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the control port is closed");
            }
        })
    });
    let nodes = port.map(|port| {
        let Port {
            listener,
            ca,
            client,
        } = port;
        let served = nodes::serve(listener, control.clone(), ca, client, wait(end.clone()));
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the port for nodes is closed");
            }
        })
    });
    if let Some((directory, seen)) = watched {
        if nodes.is_some() {
            let (publisher, directory) = (control.bundles(), directory.clone());
            tokio::spawn(bundles::publish(publisher, directory, state_dir));
        }
        tokio::spawn(watch(control.clone(), directory, seen));
    }
    tokio::spawn(recover(control.clone()));
    let _sender_gone = stopped.await;
    ended.send_replace(true);
    for serving in [serving, nodes].into_iter().flatten() {
        let _panicked = serving.await;
    }
    control.stop().await;
}

/// Reads the files again when one of them changed, came or went.
async fn watch(control: Control, directory: PathBuf, mut seen: Fingerprint) {
    loop {
        tokio::time::sleep(LOOK).await;
        let now = fingerprint(&directory);
        if now != seen {
            seen = now;
            reload(&control).await;
        }
    }
}

/// Until it can be read, nobody is identified: whoever repairs it shall not have to say so.
async fn recover(control: Control) {
    loop {
        tokio::time::sleep(TRY_AGAIN).await;
        if control.store_problem().is_some() {
            reload(&control).await;
        }
    }
}

async fn reload(control: &Control) {
    match control.reload().await {
        Ok(reloaded) => tracing::info!(generation = reloaded.generation, "directory read again"),
        Err(error) => tracing::error!("the directory stays as it is: {error}"),
    }
}

fn bind(address: SocketAddr, take_over: bool) -> anyhow::Result<TcpListener> {
    if !take_over && address.port() != 0 && std::net::TcpStream::connect(address).is_ok() {
        return Err(anyhow!(
            "the control address {address} is in use; choose another"
        ));
    }
    tollgate_gateway::listener::bind_shared(address)
        .with_context(|| format!("cannot open the control address {address}"))
}
