//! `tollgate plans`: what is sold to consumers.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate plans list
  tollgate plans create basic --api books=listBooks,getBook --terms usage
  tollgate plans create all --api '*'
  tollgate plans create paid --api books --limit name=calls,amount=100,window=1m --limit name=spend,metric=money,amount=20.00,window=month
  tollgate plans create slow --api books --limit '{\"name\": \"lists\", \"amount\": 5, \"window\": \"1s\", \"operations\": [\"listBooks\"]}'";

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
        /// A limit with the fields of plans.yaml, or as JSON; may be repeated
        #[arg(long = "limit", value_name = "NAME=VALUE,…")]
        limits: Vec<String>,
        /// Currency of its prices, such as EUR
        #[arg(long)]
        currency: Option<String>,
        /// Version of its prices, from 1
        #[arg(long)]
        price_version: Option<u32>,
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
            limits,
            currency,
            price_version,
        } => {
            let apis: Vec<Value> = apis.iter().map(|text| api(text)).collect();
            let limits: Result<Vec<Value>, _> = limits.iter().map(|text| limit(text)).collect();
            let price = json!({ "version": price_version, "currency": currency });
            let body = json!({
                "name": name, "apis": apis, "roles": roles, "terms": terms,
                "limits": limits?, "price": price,
            });
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

/// `name=calls,amount=100,window=1m`, or the same as JSON, which has lists too.
fn limit(text: &str) -> anyhow::Result<Value> {
    if text.starts_with('{') {
        return serde_json::from_str(text).with_context(|| format!("--limit {text}"));
    }
    let mut limit = json!({});
    for pair in text.split(',') {
        let split = pair.split_once('=');
        let (name, value) = split.with_context(|| format!("--limit {text}: write NAME=VALUE"))?;
        put(&mut limit, name, value);
    }
    Ok(limit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_short_or_as_json() {
        let short = limit("name=calls,amount=100,window=1m").unwrap();
        assert_eq!(
            short,
            json!({ "name": "calls", "amount": "100", "window": "1m" })
        );
        let long = limit(r#"{"name": "calls", "operations": ["a", "b"]}"#).unwrap();
        assert_eq!(long, json!({ "name": "calls", "operations": ["a", "b"] }));
        assert!(limit("calls").is_err() && limit("{").is_err());
    }
}
