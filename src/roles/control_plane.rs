//! The control plane as a process of its own: policy for the gateways and sidecars that join it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tollgate_gateway::listener;
use tollgate_gateway::quota::alerts;
use tollgate_gateway::telemetry::Metrics;
use tollgate_policy::settings::{ListenAddress, ProcessConfig};

use super::control::Beside;

/// Runs it until a signal ends it; SIGHUP reads its files again.
///
/// # Errors
/// One line: what could not be opened, read or locked.
pub(crate) fn control_plane(process: &ProcessConfig, directory: &Path) -> anyhow::Result<ExitCode> {
    super::log_to_stderr();
    let address = process.nodes.listen.context(
        "`control.nodes` is off in tollgate.yaml: nobody could connect; name an address, or use --nodes",
    )?;
    // A second one on the same address would answer every other node with other policy.
    let _lock = listener::lock(&process.state_dir, &ListenAddress::Tcp(address))
        .map_err(|it| anyhow!(it))?;
    let control = Beside::start(process, Some(directory), false)?;
    let nodes = control
        .nodes
        .context("the port for nodes could not be opened")?;
    eprintln!("nodes connect to {nodes}");
    match control.address {
        Some(address) => {
            let credential = control.credential.display();
            eprintln!("control API on {address}, credential in {credential}");
        }
        None => eprintln!("no control API"),
    }
    eprintln!("a node joins with `tollgate join-tokens create --service NAME` (or --gateway NAME)");
    let reload = control.reloader();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let alerts = process.quota.clone();
        tokio::spawn(alerts::tell(control.client.clone(), alerts, Metrics::new()));
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return std::io::Result::Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hang_up.recv() => reload(),
            }
        }
    })?;
    control.stop();
    Ok(ExitCode::SUCCESS)
}
