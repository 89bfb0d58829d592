//! `tollgate status`: the APIs of a running gateway, asked from its admin listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tollgate_gateway::live::ApiStatus;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate status
  tollgate status --admin 127.0.0.1:9901 --json";

/// A local process that does not answer within this time is stuck.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer read: thousands of APIs, not an endless stream.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Admin address of the gateway
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    admin: SocketAddr,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let body = fetch(args.admin)?;
    if args.json {
        println!("{body}");
        return Ok(ExitCode::SUCCESS);
    }
    let apis: Vec<ApiStatus> =
        serde_json::from_str(&body).context("the answer is no list of APIs")?;
    print!("{}", table(&apis));
    Ok(ExitCode::SUCCESS)
}

fn fetch(admin: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT).with_context(|| {
        format!("no gateway answers on {admin}; start one, or name its address with --admin")
    })?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0 keeps the answer unchunked and the connection short.
    write!(
        stream,
        "GET /apis HTTP/1.0\r\nHost: {admin}\r\nAccept: application/json\r\n\r\n"
    )?;
    let mut answer = String::new();
    let read = stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer);
    read.with_context(|| format!("{admin} did not answer in full"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is no HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{admin} answered with status {status}; is it the admin address of a gateway?");
    }
    Ok(body.to_owned())
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
