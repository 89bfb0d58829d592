//! The roles of the binary, side by side: what is built from the library's parts for each.

mod bundles;
mod control;
mod directory;

use std::process::ExitCode;

use anyhow::Context as _;
use tollgate_gateway::engine::{Engine, Opened};
use tollgate_gateway::live::Origin;
use tollgate_policy::settings::{ListenAddress, ProcessConfig};
use tracing_subscriber::EnvFilter;

use crate::cli::environment;
use control::Beside;

/// Runs the gateway role until a signal or a successor ends it.
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
    engine.on_reload(control.reloader());
    engine.also_show(control.page());
    for address in engine.addresses() {
        match address {
            ListenAddress::Tcp(tcp) => eprintln!("listening on {tcp}"),
            ListenAddress::Unix(path) => eprintln!("listening on unix:{}", path.display()),
        }
    }
    if let Some(admin) = engine.admin_address() {
        eprintln!("admin on {admin}");
    }
    match control.address {
        Some(address) => {
            let credential = control.credential.display();
            eprintln!("control API on {address}, credential in {credential}");
        }
        None => eprintln!("no control API"),
    }
    engine.run().context("the gateway ended")?;
    control.stop();
    Ok(ExitCode::SUCCESS)
}

/// Our own messages on standard error; libraries speak up for errors only. `RUST_LOG` overrides.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("error,tollgate=info,tollgate_gateway=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    let _ = subscriber.try_init();
}
