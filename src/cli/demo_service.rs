//! Placeholder of a verb.

use std::process::ExitCode;

/// No arguments yet.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Not wired in.
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired in")
}
