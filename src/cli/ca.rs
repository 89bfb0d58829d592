//! `tollgate ca`: the root certificate that nodes believe, and its exchange.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::Control;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate ca show
  tollgate ca rotate";

/// What to do with the authority.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Show the roots: one, or two while they are exchanged
    Show,
    /// Begin to exchange the root; every node hears of the new one before it signs, and nothing has to be restarted
    Rotate,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let mut shown = match args.act {
        Act::Show => control.get("/v1/ca")?,
        Act::Rotate => control.post("/v1/ca/rotate", &json!({}))?,
    };
    if control.is_json() {
        return control.print(&shown);
    }
    let roots = match shown.get_mut("roots").map(Value::take) {
        Some(Value::Array(roots)) => roots,
        Some(_) | None => Vec::new(),
    };
    control.print_list(
        roots,
        &[
            ("ROOT", "/fingerprint"),
            ("SIGNS FROM", "/signs_from"),
            ("DROPPED", "/dropped_at"),
        ],
    )
}
