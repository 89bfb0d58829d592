//! `tollgate quota`: how much of their limits subjects have used.

use std::process::ExitCode;

use tollgate_policy::settings::{
    parse_limit_id, parse_name, parse_operation, parse_subject, parse_window,
};

use super::control::{Control, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate quota
  tollgate quota --consumer shop --window month
  tollgate quota --organisation acme --api books
  tollgate quota --project web --operation listBooks --window 1m
  tollgate quota --subject project:web --json
  tollgate quota --limit plan/basic/calls-per-minute";

/// Which counters to show: those that were drawn from, and whose window is not long over. All filters count together.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of this organisation, its projects and their consumers only
    #[arg(long, value_parser = parse_name)]
    organisation: Option<String>,
    /// Of this project and its consumers only
    #[arg(long, value_parser = parse_name)]
    project: Option<String>,
    /// Of this consumer, its credentials and its users only
    #[arg(long, value_parser = parse_name)]
    consumer: Option<String>,
    /// Of calls of this API alone
    #[arg(long, value_parser = parse_name)]
    api: Option<String>,
    /// Of calls of this operation alone
    #[arg(long, value_parser = parse_operation)]
    operation: Option<String>,
    /// Of limits with this window only, as the limit says it: 1m, 1h, 1d, month, lifetime
    #[arg(long, value_parser = parse_window)]
    window: Option<String>,
    /// Of this subject only: organisation:NAME, project:NAME, consumer:NAME, credential:ID, user:CONSUMER:NAME, address:IP, everybody
    #[arg(long, value_parser = parse_subject)]
    subject: Option<String>,
    /// Of this limit only: plan/PLAN/NAME or api/API/NAME
    #[arg(long, value_parser = parse_limit_id)]
    limit: Option<String>,
    #[command(flatten)]
    control: Control,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let asked = [
        ("organisation", args.organisation),
        ("project", args.project),
        ("consumer", args.consumer),
        ("api", args.api),
        ("operation", args.operation),
        ("window", args.window),
        ("subject", args.subject),
        ("quota_limit", args.limit),
    ];
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
            ("WINDOW", "/written/window"),
            ("USED", "/used"),
            ("LEFT", "/left"),
            ("RESETS", "/resets"),
        ],
    )
}
