//! `tollgate status`: the APIs of a running gateway, asked from its admin listener.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use tollgate_gateway::live::ApiStatus;

use super::admin;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate status
  tollgate status --admin 127.0.0.1:9901 --json";

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
    let body = admin::get(args.admin, "/apis")?;
    if args.json {
        println!("{body}");
        return Ok(ExitCode::SUCCESS);
    }
    let apis: Vec<ApiStatus> =
        serde_json::from_str(&body).context("the answer is no list of APIs")?;
    print!("{}", table(&apis));
    Ok(ExitCode::SUCCESS)
}

fn table(apis: &[ApiStatus]) -> String {
    let head = [
        "NAME",
        "VERSION",
        "GENERATION",
        "STATE",
        "OPERATIONS",
        "REQUESTS",
        "REFUSED",
        "FAILED",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(apis.iter().map(|api| {
        [
            api.name.clone(),
            api.version.clone(),
            api.generation.to_string(),
            api.state.clone(),
            api.operations.to_string(),
            api.requests.to_string(),
            api.refused.to_string(),
            api.failed.to_string(),
        ]
    }));
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for api in apis.iter().filter(|api| !api.last_error.is_empty()) {
        text.push_str(&format!("\n{}: last error:\n", api.name));
        api.last_error
            .lines()
            .for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}
