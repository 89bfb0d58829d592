//! `tollgate overrides`: what single consumers are granted beside their plans, or held to below them.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate overrides list shop
  tollgate overrides set shop basic/calls-per-minute --extra 100 --owner ada --reason 'launch week' --expires 2026-12-24T00:00:00Z
  tollgate overrides set shop basic/spend --amount 5.00 --cap --owner ada --reason 'unpaid invoice'
  tollgate overrides remove shop basic/calls-per-minute";

/// What to do with overrides.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List the overrides of a consumer that are in force
    List { consumer: String },
    /// Grant a consumer more of a limit, or hold it to less
    Set(Set),
    /// Let the plan's limit count again
    Remove {
        consumer: String,
        /// The plan's limit
        #[arg(value_name = "PLAN/LIMIT")]
        limit: String,
    },
}

#[derive(Debug, clap::Args)]
struct Set {
    consumer: String,
    /// The plan's limit
    #[arg(value_name = "PLAN/LIMIT")]
    limit: String,
    /// In place of the plan's amount, written as there; the higher of the two counts
    #[arg(long, required_unless_present = "extra")]
    amount: Option<String>,
    /// Besides the plan's amount
    #[arg(long, conflicts_with = "amount")]
    extra: Option<String>,
    /// Count the amount also where it is lower than the plan's
    #[arg(long, conflicts_with = "extra")]
    cap: bool,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// Why, for whoever finds it later
    #[arg(long)]
    reason: String,
    /// From then on the plan's limit counts again
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    match args.act {
        Act::List { consumer } => control.print_list(
            control.list(&format!("/v1/consumers/{}/overrides", segment(&consumer)))?,
            &[
                ("LIMIT", "/limit"),
                ("AMOUNT", "/amount"),
                ("EXTRA", "/extra"),
                ("CAP", "/cap"),
                ("EXPIRES", "/expires"),
                ("OWNER", "/owner"),
                ("REASON", "/reason"),
                ("DEFINED", "/origin/kind"),
            ],
        ),
        Act::Set(set) => {
            let path = path(&set.consumer, &set.limit)?;
            control.print(&control.put(&path, &body(set))?)
        }
        Act::Remove { consumer, limit } => {
            let what = format!("the override of {limit} for {consumer}");
            control.delete(&path(&consumer, &limit)?, &what)
        }
    }
}

fn path(consumer: &str, limit: &str) -> anyhow::Result<String> {
    // Shown as `plan/basic/calls`, and meant so where it is copied.
    let short = limit.strip_prefix("plan/").unwrap_or(limit);
    let (plan, name) = short
        .split_once('/')
        .with_context(|| format!("{limit}: write PLAN/LIMIT, such as basic/calls-per-minute"))?;
    let (consumer, plan, name) = (segment(consumer), segment(plan), segment(name));
    Ok(format!("/v1/consumers/{consumer}/overrides/{plan}/{name}"))
}

fn body(set: Set) -> Value {
    let mut body = json!({ "cap": set.cap, "owner": set.owner, "reason": set.reason });
    let said = [
        ("amount", set.amount),
        ("extra", set.extra),
        ("expires", set.expires),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            put(&mut body, name, value);
        }
    }
    body
}
