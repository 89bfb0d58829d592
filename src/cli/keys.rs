//! `tollgate keys`: API keys, made, rotated and revoked.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate keys create shop --name ci --expires 2027-01-01T00:00:00Z
  tollgate keys list shop
  set -- $(tollgate keys create shop --quiet)  # $1: id, $2: secret
  tollgate keys rotate key_5e0c9a1f3b7d2468 --overlap 48h
  tollgate keys revoke key_5e0c9a1f3b7d2468 --reason leaked";

/// What to do with keys.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List a consumer's keys
    List { consumer: String },
    /// Show a key of a consumer; never its secret
    Show { consumer: String, key: String },
    /// Make a key; its secret is shown this once
    Create(Create),
    /// Make a successor; the old key goes on for a while
    Rotate {
        key: String,
        /// How long; 0s ends the old key at once
        #[arg(long, default_value = "24h")]
        overlap: String,
        /// When the successor ends [default: as the old key]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Revoke a key for ever, also one from a file
    Revoke {
        key: String,
        /// For the audit log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Delete a key that was made here
    Delete { key: String },
}

#[derive(Debug, clap::Args)]
struct Create {
    consumer: String,
    /// Unique within the consumer [default: made up]
    #[arg(long)]
    name: Option<String>,
    /// From then on it is valid
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// From then on it is not
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// An operation it may call [default: all its plan opens]; may be repeated
    #[arg(long = "operation", value_name = "OPERATION")]
    operations: Vec<String>,
    /// A network it may be used from [default: any]; may be repeated
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<String>,
    /// An origin or Referer prefix it may be used from [default: any]; may be repeated
    #[arg(long = "referrer", value_name = "URL")]
    referrers: Vec<String>,
    /// Print nothing but identifier and secret, for scripts
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let of = |key: &str| format!("/v1/keys/{}", segment(key));
    let at = |consumer: &str| format!("/v1/consumers/{}/keys", segment(consumer));
    match args.act {
        Act::List { consumer } => control.print_list(
            control.list(&at(&consumer))?,
            &[
                ("KEY", "/id"),
                ("NAME", "/name"),
                ("CREATED", "/created_at"),
                ("EXPIRES", "/expires"),
                ("REVOKED", "/revoked"),
                ("DEFINED", "/origin/kind"),
            ],
        ),
        Act::Show { consumer, key } => {
            let keys = control.list(&at(&consumer))?;
            let found = keys
                .iter()
                .find(|it| it.get("id").and_then(Value::as_str) == Some(&key));
            match found {
                Some(found) => control.print(found),
                None => anyhow::bail!("consumer {consumer} has no key {key}"),
            }
        }
        Act::Create(create) => {
            let (path, quiet) = (at(&create.consumer), create.quiet);
            let key = control.post(&path, &body(create))?;
            if !quiet {
                return print_new(&control, &key);
            }
            let text = |member: &str| key.get(member).and_then(Value::as_str).unwrap_or_default();
            println!("{} {}", text("id"), text("secret"));
            Ok(ExitCode::SUCCESS)
        }
        Act::Rotate {
            key,
            overlap,
            expires,
        } => {
            let mut body = json!({ "overlap": overlap });
            if let Some(expires) = expires {
                put(&mut body, "expires", expires);
            }
            print_new(
                &control,
                &control.post(&format!("{}/rotate", of(&key)), &body)?,
            )
        }
        Act::Revoke { key, reason } => {
            let body = json!({ "reason": reason });
            control.print(&control.post(&format!("{}/revoke", of(&key)), &body)?)
        }
        Act::Delete { key } => control.delete(&of(&key), &format!("key {key}")),
    }
}

fn body(create: Create) -> Value {
    let mut body = json!({ "networks": create.networks, "referrers": create.referrers });
    let optional = [
        ("name", create.name),
        ("not_before", create.not_before),
        ("expires", create.expires),
    ];
    for (member, value) in optional {
        if let Some(value) = value {
            put(&mut body, member, value);
        }
    }
    if !create.operations.is_empty() {
        put(&mut body, "operations", create.operations);
    }
    body
}

fn print_new(control: &Control, key: &Value) -> anyhow::Result<ExitCode> {
    let done = control.print(key)?;
    if !control.is_json() {
        println!("\nThe secret is shown this once; it is stored nowhere.");
    }
    Ok(done)
}
