//! `tollgate quota`: how much of their limits subjects have used.

use std::process::ExitCode;

use super::control::{Control, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate quota
  tollgate quota --consumer shop
  tollgate quota --subject project:web --json
  tollgate quota --limit plan/basic/calls-per-minute";

/// Which counters to show: those that were drawn from, and whose window is not long over.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of this consumer only
    #[arg(long, conflicts_with = "subject")]
    consumer: Option<String>,
    /// Of this subject only: organisation:NAME, project:NAME, consumer:NAME, credential:ID, user:CONSUMER:NAME, address:IP, everybody
    #[arg(long)]
    subject: Option<String>,
    /// Of this limit only: plan/PLAN/NAME or api/API/NAME
    #[arg(long)]
    limit: Option<String>,
    #[command(flatten)]
    control: Control,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let consumer = args.consumer.map(|name| format!("consumer:{name}"));
    let subject = consumer.or(args.subject);
    let asked = [("subject", subject), ("quota_limit", args.limit)];
    let asked = asked
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let query: Vec<String> = asked
        .map(|(name, value)| format!("{name}={}", segment(&value)))
        .collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let path = format!("/v1/quotas{mark}{}", query.join("&"));
    let counters = args.control.list(&path)?;
    args.control.print_list(
        counters,
        &[
            ("SUBJECT", "/subject"),
            ("LIMIT", "/limit"),
            ("API", "/api"),
            ("OPERATION", "/operation"),
            ("METRIC", "/metric"),
            ("USED", "/used"),
            ("LEFT", "/left"),
            ("RESETS", "/resets"),
        ],
    )
}
