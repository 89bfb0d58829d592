//! `tollgate backup`: a copy of the control plane's store.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::control::Control;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate backup /var/backups/tollgate-2026-11-21.db

Keep `pepper` and `admin-credential` of the state directory with it: without the pepper no key is recognised.";

/// Where to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file that does not exist yet, written by the control plane with mode 0600
    file: PathBuf,
    #[command(flatten)]
    control: Control,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = std::path::absolute(&args.file)?;
    let file = file.to_str().context("the name of the file is no UTF-8")?;
    args.control
        .print(&args.control.post("/v1/backup", &json!({ "file": file }))?)
}
