//! The roles of the binary, side by side: what is built from the library's parts for each.

mod bundles;
mod control;
mod control_plane;
mod directory;
mod remote;
mod sidecar;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tollgate_gateway::engine::{Engine, Opened};
use tollgate_gateway::live::Origin;
use tollgate_gateway::node::line::Counts;
use tollgate_policy::settings::{ListenAddress, ProcessConfig};
use tracing_subscriber::EnvFilter;

use crate::cli::environment;
use control::Beside;
pub(crate) use control_plane::control_plane;
use remote::Joined;
pub(crate) use remote::{Membering, Token};
pub(crate) use sidecar::{Joining, Policy, Sidecar, sidecar};

/// Runs the gateway role until a signal or a successor ends it, with its control plane inside it.
///
/// # Errors
/// One line: what could not be opened, read or locked.
pub(crate) fn gateway(
    process: ProcessConfig,
    origin: Origin,
    take_over: bool,
) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    // First of all, so that a second instance started by accident says so, whatever else it would stumble over.
    let opened = Opened::open(process, take_over)?;
    let directory = match &origin {
        Origin::Directory(directory) => Some(directory.as_path()),
        Origin::Single(_) | Origin::Bundles { .. } => None,
    };
    let control = Beside::start(opened.process(), directory, take_over)?;
    let mut engine = Engine::start(opened, origin, control.client.clone())?;
    let live = Arc::clone(engine.live());
    control.knows_apis(Arc::new(move |api| live.apis().load().limits(api)));
    engine.on_reload(control.reloader());
    engine.also_show(control.page());
    tell_addresses(&engine);
    match control.address {
        Some(address) => {
            let credential = control.credential.display();
            eprintln!("control API on {address}, credential in {credential}");
        }
        None => eprintln!("no control API"),
    }
    if let Some(nodes) = control.nodes {
        eprintln!("nodes connect to {nodes}");
    }
    engine.run().context("the gateway ended")?;
    control.stop();
    Ok(ExitCode::SUCCESS)
}

/// Runs the gateway role until a signal or a successor ends it, with policy of a control plane elsewhere.
///
/// # Errors
/// One line: what could not be opened, read, locked or joined.
pub(crate) fn gateway_of(
    process: ProcessConfig,
    how: &Membering,
    take_over: bool,
) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    how.check(&process.state_dir)?;
    let mut opened = Opened::open(process, take_over)?;
    let joined = Joined::join(opened.process_mut(), how)?;
    eprintln!("{}", joined.introduction());
    let process = opened.process().clone();
    let opened = opened
        .within(joined.mesh.clone())
        .hearing(joined.contact.clone());
    let origin = Origin::Bundles { app: None };
    let mut engine = Engine::start(opened, origin, joined.client.clone())?;
    let contact = Arc::clone(&joined.contact);
    engine.also_show(Arc::new(move |page| contact.write_page(page)));
    let counts = Counts(engine.counts());
    let remote = joined.start(engine.live().clone(), None, counts, &process)?;
    tell_addresses(&engine);
    let live = engine.live().clone();
    engine.run().context("the gateway ended")?;
    live.leave();
    remote.stop();
    Ok(ExitCode::SUCCESS)
}

fn tell_addresses(engine: &Engine) {
    for address in engine.addresses() {
        match address {
            ListenAddress::Tcp(tcp) => eprintln!("listening on {tcp}"),
            ListenAddress::Unix(path) => eprintln!("listening on unix:{}", path.display()),
        }
    }
    if let Some(admin) = engine.admin_address() {
        eprintln!("admin on {admin}");
    }
}

/// What is told where nothing else is asked for.
const OUR_OWN: &str = "error,tollgate=info,tollgate_gateway=info,tollgate_sidecar=info";

/// Our own messages on standard error; libraries speak up for errors only. `RUST_LOG` overrides.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(OUR_OWN));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    let _ = subscriber.try_init();
}
