//! `tollgate revocations`: what counts no more, whatever files say.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, put};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate revocations list
  tollgate revocations create token https://id.example.com 7f3c --expires 2030-01-01T00:00:00Z --reason stolen
  tollgate revocations create subject https://id.example.com alice
  tollgate revocations create consumer shop";

/// What to do with revocations.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List revocations
    List,
    /// Revoke for ever
    Create {
        #[command(subcommand)]
        what: What,
        /// For the audit log
        #[arg(long, default_value = "", global = true)]
        reason: String,
    },
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A token, by issuer and `jti`
    Token {
        issuer: String,
        id: String,
        /// When it ends by itself: from a day later on nobody need remember it [default: never forgotten]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// All tokens of a subject issued before a time
    Subject {
        issuer: String,
        subject: String,
        /// [default: now]
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
    },
    /// A client certificate, by SPIFFE ID or subject
    Certificate { name: String },
    /// A consumer; to stop it for a while, see `tollgate consumers suspend`
    Consumer { name: String },
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    match args.act {
        Act::List => control.print_list(
            control.list("/v1/revocations")?,
            &[
                ("KIND", "/kind"),
                ("ISSUER", "/issuer"),
                ("ID", "/id"),
                ("SUBJECT", "/subject"),
                ("NAME", "/name"),
                ("AT", "/at"),
                ("REASON", "/reason"),
            ],
        ),
        Act::Create { what, reason } => {
            let mut body = body(what);
            put(&mut body, "reason", reason);
            control.print(&control.post("/v1/revocations", &body)?)
        }
    }
}

fn body(what: What) -> Value {
    match what {
        What::Token {
            issuer,
            id,
            expires,
        } => {
            let mut body = json!({ "kind": "token", "issuer": issuer, "id": id });
            if let Some(expires) = expires {
                put(&mut body, "expires", expires);
            }
            body
        }
        What::Subject {
            issuer,
            subject,
            before,
        } => {
            let mut body = json!({ "kind": "subject", "issuer": issuer, "subject": subject });
            if let Some(before) = before {
                put(&mut body, "before", before);
            }
            body
        }
        What::Certificate { name } => json!({ "kind": "certificate", "name": name }),
        What::Consumer { name } => json!({ "kind": "consumer", "name": name }),
    }
}
