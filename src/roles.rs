//! The roles of the binary, side by side: what is built from the library's parts for each.

use std::process::ExitCode;

use anyhow::Context as _;
use tollgate_gateway::engine::Engine;
use tollgate_gateway::live::Origin;
use tollgate_policy::settings::{ListenAddress, ProcessConfig};
use tracing_subscriber::EnvFilter;

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
    let engine = Engine::start(process, origin, take_over)?;
    for address in engine.addresses() {
        match address {
            ListenAddress::Tcp(tcp) => eprintln!("listening on {tcp}"),
            ListenAddress::Unix(path) => eprintln!("listening on unix:{}", path.display()),
        }
    }
    if let Some(admin) = engine.admin_address() {
        eprintln!("admin on {admin}");
    }
    engine.run().context("the gateway ended")?;
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
