//! `tollgate join-tokens`: tokens by which gateways and sidecars become nodes of the installation.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate join-tokens create --service orders
  tollgate join-tokens create --gateway edge --lifetime 24h
  TOKEN=$(tollgate join-tokens create --service orders --quiet)
  tollgate join-tokens list
  tollgate join-tokens delete join_5e0c9a1f3b7d2468";

/// What to do with tokens.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List tokens, used ones as well; never their text
    List,
    /// Make a token; it is shown this once, and lets one node join
    Create(Create),
    /// Delete a token; a node that has joined by it stays one
    Delete { token: String },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// For the sidecar of an instance of this service
    #[arg(long, value_name = "NAME", required_unless_present = "gateway")]
    service: Option<String>,
    /// For a gateway of this name
    #[arg(long, value_name = "NAME", conflicts_with = "service")]
    gateway: Option<String>,
    /// How long it counts, from 1m to 7d
    #[arg(long, default_value = "1h")]
    lifetime: String,
    /// Print nothing but the token, for scripts
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    match args.act {
        Act::List => control.print_list(
            control.list("/v1/join-tokens")?,
            &[
                ("TOKEN", "/id"),
                ("IDENTITY", "/identity"),
                ("EXPIRES", "/expires"),
                ("USED", "/used_at"),
                ("BY", "/used_by"),
            ],
        ),
        Act::Create(create) => {
            let quiet = create.quiet;
            let made = control.post("/v1/join-tokens", &body(create))?;
            if quiet {
                let token = made.get("token").and_then(Value::as_str);
                println!("{}", token.unwrap_or_default());
                return Ok(ExitCode::SUCCESS);
            }
            let done = control.print(&made)?;
            if !control.is_json() {
                println!("\nThe token is shown this once; it is stored nowhere.");
            }
            Ok(done)
        }
        Act::Delete { token } => {
            let path = format!("/v1/join-tokens/{}", segment(&token));
            control.delete(&path, &format!("join token {token}"))
        }
    }
}

fn body(create: Create) -> Value {
    let mut body = json!({ "lifetime": create.lifetime });
    for (member, name) in [("service", create.service), ("gateway", create.gateway)] {
        if let Some(name) = name {
            put(&mut body, member, name);
        }
    }
    body
}
