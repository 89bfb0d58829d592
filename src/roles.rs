//! The roles of the binary.

use std::process::ExitCode;

use tollgate_gateway::live::Origin;
use tollgate_policy::settings::ProcessConfig;

/// Runs the gateway role.
pub(crate) fn gateway(_: ProcessConfig, _: Origin, _: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the gateway role is not wired in")
}
