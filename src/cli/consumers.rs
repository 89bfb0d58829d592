//! `tollgate consumers`: the applications that call.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate consumers list
  tollgate consumers create shop --project web --subscribe books=basic
  tollgate consumers subscribe shop books premium
  tollgate consumers change shop --role staff
  tollgate consumers suspend shop";

/// What to do with consumers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List consumers
    List,
    /// Show a consumer
    Show { name: String },
    /// Create a consumer
    Create(Create),
    /// Change a consumer; what is not given stays as it is
    Change(Change),
    /// Delete a consumer, its keys and its subscriptions; its logins and certificates stay refused
    Delete { name: String },
    /// Refuse whatever a consumer shows, also one from a file
    Suspend { name: String },
    /// Lift a suspension
    Resume { name: String },
    /// Bind a consumer to a plan at an API
    Subscribe {
        name: String,
        api: String,
        plan: String,
    },
    /// End a subscription
    Unsubscribe { name: String, api: String },
}

#[derive(Debug, clap::Args)]
struct Create {
    name: String,
    /// Its project; see `tollgate projects`
    #[arg(long)]
    project: String,
    /// Bind it to a plan at an API; may be repeated
    #[arg(long, value_name = "API=PLAN")]
    subscribe: Vec<String>,
    /// A role rules may ask for; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Tokens by which it is known; may be repeated
    #[arg(long = "login", num_args = 2, value_names = ["ISSUER", "CLIENT"])]
    logins: Vec<String>,
    /// A user of `basic` by which it is known, with the Argon2id hash of its password; may be repeated
    #[arg(long = "user", num_args = 2, value_names = ["NAME", "PASSWORD_HASH"])]
    users: Vec<String>,
    /// SPIFFE ID or certificate subject by which it is known; may be repeated
    #[arg(long = "certificate", value_name = "NAME")]
    certificates: Vec<String>,
    /// It may ask for the explanation of a decision
    #[arg(long)]
    explains: bool,
}

#[derive(Debug, clap::Args)]
struct Change {
    name: String,
    /// Its project
    #[arg(long)]
    project: Option<String>,
    /// A role rules may ask for, in place of all it has; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// It has no roles any more
    #[arg(long, conflicts_with = "roles")]
    no_roles: bool,
    /// It may ask for the explanation of a decision, or not
    #[arg(long, value_name = "true|false")]
    explains: Option<bool>,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let of = |name: &str| format!("/v1/consumers/{}", segment(name));
    match args.act {
        Act::List => control.print_list(
            control.list("/v1/consumers")?,
            &[
                ("NAME", "/name"),
                ("PROJECT", "/project"),
                ("ORGANISATION", "/organisation"),
                ("SUSPENDED", "/suspended"),
                ("SUBSCRIPTIONS", "/subscriptions"),
                ("DEFINED", "/origin/kind"),
            ],
        ),
        Act::Show { name } => control.print(&control.get(&of(&name))?),
        Act::Create(create) => control.print(&control.post("/v1/consumers", &body(create)?)?),
        Act::Change(change) => {
            let path = of(&change.name);
            control.print(&control.patch(&path, &changes(change))?)
        }
        Act::Delete { name } => control.delete(&of(&name), &format!("consumer {name}")),
        Act::Suspend { name } => {
            control.print(&control.post(&format!("{}/suspend", of(&name)), &json!({}))?)
        }
        Act::Resume { name } => {
            control.print(&control.post(&format!("{}/resume", of(&name)), &json!({}))?)
        }
        Act::Subscribe { name, api, plan } => {
            let path = format!("{}/subscriptions/{}", of(&name), segment(&api));
            control.print(&control.put(&path, &json!({ "plan": plan }))?)
        }
        Act::Unsubscribe { name, api } => {
            let path = format!("{}/subscriptions/{}", of(&name), segment(&api));
            control.delete(&path, &format!("the subscription of {name} to {api}"))
        }
    }
}

fn changes(change: Change) -> Value {
    let mut body = json!({});
    if let Some(project) = change.project {
        put(&mut body, "project", project);
    }
    if change.no_roles || !change.roles.is_empty() {
        put(&mut body, "roles", change.roles);
    }
    if let Some(explains) = change.explains {
        put(&mut body, "explains", explains);
    }
    body
}

fn body(create: Create) -> anyhow::Result<Value> {
    let mut subscriptions = Vec::new();
    for pair in &create.subscribe {
        let split = pair.split_once('=');
        let (api, plan) = split.with_context(|| format!("--subscribe {pair}: write API=PLAN"))?;
        subscriptions.push(json!({ "api": api, "plan": plan }));
    }
    let logins = create.logins.chunks_exact(2).filter_map(|pair| match pair {
        [issuer, client] => Some(json!({ "issuer": issuer, "client": client })),
        _ => None,
    });
    let users = create.users.chunks_exact(2).filter_map(|pair| match pair {
        [name, hash] => Some(json!({ "name": name, "password_hash": hash })),
        _ => None,
    });
    Ok(json!({
        "users": users.collect::<Vec<_>>(),
        "name": create.name,
        "project": create.project,
        "roles": create.roles,
        "explains": create.explains,
        "subscriptions": subscriptions,
        "logins": logins.collect::<Vec<_>>(),
        "certificates": create.certificates,
    }))
}
