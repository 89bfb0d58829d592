//! `tollgate overrides`: what organisations, projects and consumers are granted beside plans and APIs, or held to below them.

use std::process::ExitCode;

use serde_json::{Value, json};
use tollgate_policy::settings::{Grantee, parse_name};

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate overrides list
  tollgate overrides list shop
  tollgate overrides set shop basic/calls-per-minute --extra 100 --owner ada --reason 'launch week' --expires 2026-12-24T00:00:00Z
  tollgate overrides set shop basic/spend --amount 5.00 --cap --owner ada --reason 'unpaid invoice'
  tollgate overrides set project:web api/books/calls-per-day --amount 50000 --owner ada --reason 'import of the old shop'
  tollgate overrides remove organisation:acme plan/basic/spend";

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
    /// List the overrides that are in force
    List {
        /// Of this one only: CONSUMER, project:NAME or organisation:NAME
        #[arg(value_parser = subject)]
        subject: Option<String>,
    },
    /// Grant more of a limit, or hold to less
    Set(Set),
    /// Let the limit of the plan or API count again
    Remove {
        /// CONSUMER, project:NAME or organisation:NAME
        #[arg(value_parser = subject)]
        subject: String,
        /// PLAN/LIMIT, plan/PLAN/LIMIT or api/API/LIMIT
        #[arg(value_parser = limit)]
        limit: String,
    },
}

#[derive(Debug, clap::Args)]
struct Set {
    /// CONSUMER, project:NAME or organisation:NAME: whose counter it is, by the limit's `per`
    #[arg(value_parser = subject)]
    subject: String,
    /// PLAN/LIMIT, plan/PLAN/LIMIT or api/API/LIMIT
    #[arg(value_parser = limit)]
    limit: String,
    /// In place of the limit's amount, written as there; the higher of the two counts
    #[arg(long, required_unless_present = "extra")]
    amount: Option<String>,
    /// Besides the limit's amount
    #[arg(long, conflicts_with = "amount")]
    extra: Option<String>,
    /// Count the amount also where it is lower than the limit's
    #[arg(long, conflicts_with = "extra")]
    cap: bool,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// Why, for whoever finds it later
    #[arg(long)]
    reason: String,
    /// From then on the limit of the plan or API counts again
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    match args.act {
        Act::List { subject } => {
            let of = subject.map(|it| format!("?subject={}", segment(&it)));
            let path = format!("/v1/overrides{}", of.unwrap_or_default());
            control.print_list(
                control.list(&path)?,
                &[
                    ("SUBJECT", "/subject"),
                    ("LIMIT", "/limit"),
                    ("AMOUNT", "/amount"),
                    ("EXTRA", "/extra"),
                    ("CAP", "/cap"),
                    ("EXPIRES", "/expires"),
                    ("OWNER", "/owner"),
                    ("REASON", "/reason"),
                    ("DEFINED", "/origin/kind"),
                ],
            )
        }
        Act::Set(set) => {
            let path = path(&set.subject, &set.limit);
            control.print(&control.put(&path, &body(set))?)
        }
        Act::Remove { subject, limit } => {
            let what = format!("the override of {limit} for {subject}");
            control.delete(&path(&subject, &limit), &what)
        }
    }
}

/// `consumer:shop` for `shop`.
fn subject(text: &str) -> Result<String, String> {
    let (kind, name) = text.split_once(':').unwrap_or(("consumer", text));
    if Grantee::ALL.iter().all(|it| it.as_str() != kind) {
        return Err("write CONSUMER, project:NAME or organisation:NAME".to_owned());
    }
    parse_name(name).map(|name| format!("{kind}:{name}"))
}

/// `plan/basic/calls` for `basic/calls`.
fn limit(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (owner, name, limit) = match parts[..] {
        [plan, limit] => ("plan", plan, limit),
        [owner @ ("plan" | "api"), name, limit] => (owner, name, limit),
        _ => {
            let why = "write PLAN/LIMIT, such as basic/calls-per-minute, or api/API/LIMIT";
            return Err(why.to_owned());
        }
    };
    let (name, limit) = (parse_name(name)?, parse_name(limit)?);
    Ok(format!("{owner}/{name}/{limit}"))
}

fn path(subject: &str, limit: &str) -> String {
    // The limit's three names are three segments.
    format!("/v1/overrides/{}/{limit}", segment(subject))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_and_limits_are_named_shortly_or_in_full() {
        for (text, meant) in [
            ("shop", "consumer:shop"),
            ("consumer:shop", "consumer:shop"),
            ("project:web", "project:web"),
            ("organisation:acme", "organisation:acme"),
        ] {
            assert_eq!(subject(text).as_deref(), Ok(meant));
        }
        for text in ["", "Shop", "user:a", "project:", "project:a:b"] {
            assert!(subject(text).is_err(), "{text}");
        }
        for (text, meant) in [
            ("basic/calls", "plan/basic/calls"),
            ("plan/basic/calls", "plan/basic/calls"),
            ("api/calls", "plan/api/calls"),
            ("api/books/calls", "api/books/calls"),
        ] {
            assert_eq!(limit(text).as_deref(), Ok(meant));
        }
        for text in ["", "calls", "a/b/c", "plan//calls", "api/a/b/c"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }
}
