//! `tollgate shadow-report`: whom the rules in `shadow` would have refused.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use tollgate_gateway::shadow::ShadowLine;

use super::admin;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate shadow-report
  tollgate shadow-report --admin 127.0.0.1:9901 --json";

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Admin address of the gateway
    #[arg(long, value_name = "ADDR", default_value = admin::DEFAULT)]
    admin: SocketAddr,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = admin::get(args.admin, "/shadow")?;
    if args.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let lines: Vec<ShadowLine> =
        serde_json::from_str(&answer).context("the answer is no report")?;
    if lines.is_empty() {
        println!("no rule in shadow would have refused a call since the start");
    }
    for line in lines {
        let consumer = match &*line.consumer {
            "" => "(nobody)",
            name => name,
        };
        let place = match &*line.place {
            "" => String::new(),
            place => format!("  {place}"),
        };
        println!(
            "{:>10} calls  {}  {} {}  {consumer}{place}",
            line.calls, line.api, line.kind, line.rule
        );
    }
    Ok(ExitCode::SUCCESS)
}
