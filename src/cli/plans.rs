//! `tollgate plans`: what is sold to consumers.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate plans list
  tollgate plans create basic --api books=listBooks,getBook --terms usage
  tollgate plans create all --api '*'";

/// What to do with plans.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List plans
    List,
    /// Show a plan
    Show { name: String },
    /// Create a plan
    Create {
        name: String,
        /// An API it opens, whole or some operations of it; may be repeated
        #[arg(long = "api", value_name = "API[=OPERATION,…]", required = true)]
        apis: Vec<String>,
        /// A role everyone on the plan has; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Terms it requires; may be repeated
        #[arg(long, value_name = "NAME")]
        terms: Vec<String>,
    },
    /// Delete a plan nobody is on
    Delete { name: String },
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let of = |name: &str| format!("/v1/plans/{}", segment(name));
    match args.act {
        Act::List => control.print_list(
            control.list("/v1/plans")?,
            &[
                ("NAME", "/name"),
                ("APIS", "/apis"),
                ("ROLES", "/roles"),
                ("TERMS", "/terms"),
                ("DEFINED", "/origin/kind"),
            ],
        ),
        Act::Show { name } => control.print(&control.get(&of(&name))?),
        Act::Create {
            name,
            apis,
            roles,
            terms,
        } => {
            let apis: Vec<Value> = apis.iter().map(|text| api(text)).collect();
            let body = json!({ "name": name, "apis": apis, "roles": roles, "terms": terms });
            control.print(&control.post("/v1/plans", &body)?)
        }
        Act::Delete { name } => control.delete(&of(&name), &format!("plan {name}")),
    }
}

fn api(text: &str) -> Value {
    match text.split_once('=') {
        Some((api, operations)) => {
            json!({ "api": api, "operations": operations.split(',').collect::<Vec<_>>() })
        }
        None => json!({ "api": text }),
    }
}
