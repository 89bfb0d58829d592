//! `tollgate wait`: for scripts that start something once traffic can be served.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tollgate_policy::settings::parse_duration;

use super::admin;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate wait
  tollgate wait --admin 127.0.0.1:9901 --timeout 10s && exec ./run-the-tests";

/// How often it is asked.
const ASK: Duration = Duration::from_millis(100);

/// Whom to wait for, and how long.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Admin address of the gateway or sidecar
    #[arg(long, value_name = "ADDR", default_value = admin::DEFAULT)]
    admin: SocketAddr,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Asks until it is ready; what was missing last is told.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + args.timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let missing = match admin::ready(args.admin, left.max(ASK)) {
            Ok(None) => return Ok(ExitCode::SUCCESS),
            Ok(Some(missing)) => missing,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() + ASK >= end {
            eprintln!("not ready after {}: {missing}", shown(args.timeout));
            return Ok(ExitCode::FAILURE);
        }
        std::thread::sleep(ASK);
    }
}

fn shown(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    }
}
