//! `tollgate audit`: what was done by whom, and whether the log is whole.

use std::process::ExitCode;

use serde_json::Value;

use super::control::Control;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate audit list --limit 20
  tollgate audit verify";

/// What to do with the audit log.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List records, oldest first
    List {
        /// Only after the record of this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// At most so many, up to 500
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Walk the log; exit code 1 where a record is not as it was written
    Verify,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    match args.act {
        Act::List { after, limit } => {
            let mut page = control.get(&format!("/v1/audit?after={after}&limit={limit}"))?;
            let items = match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => items,
                Some(_) | None => anyhow::bail!("the answer is no list"),
            };
            control.print_list(
                items,
                &[
                    ("SEQ", "/seq"),
                    ("AT", "/at"),
                    ("ACTOR", "/actor"),
                    ("ACTION", "/action"),
                    ("SUBJECT", "/subject"),
                    ("FROM", "/from"),
                    ("DETAIL", "/detail"),
                ],
            )
        }
        Act::Verify => {
            let verdict = control.get("/v1/audit/verify")?;
            let whole = verdict.get("broken").is_some_and(Value::is_null);
            control.print(&verdict)?;
            Ok(if whole {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}
