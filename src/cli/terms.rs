//! `tollgate terms`: documents consumers have to accept, and who did.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate terms create usage --title 'Fair use' --api books
  tollgate terms version usage usage-1.md --effective 2027-01-01T00:00:00Z --grace 30d
  tollgate terms acceptances usage
  tollgate terms accept usage --consumer shop --version 1 --purpose 'signed on paper'";

/// What to do with terms.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List terms
    List,
    /// Show terms, with their texts
    Show { name: String },
    /// Create terms, still without a version
    Create {
        name: String,
        /// For people
        #[arg(long, default_value = "")]
        title: String,
        /// An API that requires them of every subscriber; may be repeated
        #[arg(long = "api", value_name = "API")]
        apis: Vec<String>,
        /// Count and report, do not enforce
        #[arg(long)]
        shadow: bool,
    },
    /// Delete terms that nobody requires and nobody accepted
    Delete { name: String },
    /// Add the next version, from a Markdown file
    Version(Version),
    /// List who accepted
    Acceptances { name: String },
    /// Record what a consumer accepted elsewhere
    Accept {
        name: String,
        #[arg(long)]
        consumer: String,
        #[arg(long)]
        version: u32,
        /// What the consumer uses the API for
        #[arg(long, default_value = "")]
        purpose: String,
    },
}

#[derive(Debug, clap::Args)]
struct Version {
    name: String,
    /// The text
    file: PathBuf,
    /// From then on it has to be accepted [default: now]
    #[arg(long, value_name = "TIME")]
    effective: Option<String>,
    /// How long calls still pass, with a warning
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    /// Accepting needs a declared purpose
    #[arg(long)]
    purpose_required: bool,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let of = |name: &str| format!("/v1/terms/{}", segment(name));
    match args.act {
        Act::List => control.print_list(
            control.list("/v1/terms")?,
            &[
                ("NAME", "/name"),
                ("TITLE", "/title"),
                ("APIS", "/apis"),
                ("SHADOW", "/shadow"),
                ("DEFINED", "/origin/kind"),
            ],
        ),
        Act::Show { name } => control.print(&control.get(&of(&name))?),
        Act::Create {
            name,
            title,
            apis,
            shadow,
        } => {
            let body = json!({ "name": name, "title": title, "apis": apis, "shadow": shadow });
            control.print(&control.post("/v1/terms", &body)?)
        }
        Act::Delete { name } => control.delete(&of(&name), &format!("terms {name}")),
        Act::Version(version) => add(&control, version),
        Act::Acceptances { name } => control.print_list(
            control.list(&format!("{}/acceptances", of(&name)))?,
            &[
                ("CONSUMER", "/consumer"),
                ("VERSION", "/version"),
                ("AT", "/at"),
                ("FROM", "/from"),
                ("CREDENTIAL", "/credential"),
                ("PURPOSE", "/purpose"),
            ],
        ),
        Act::Accept {
            name,
            consumer,
            version,
            purpose,
        } => {
            let body = json!({ "consumer": consumer, "version": version, "purpose": purpose });
            control.print(&control.post(&format!("{}/acceptances", of(&name)), &body)?)
        }
    }
}

fn add(control: &Control, version: Version) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&version.file);
    let text = text.with_context(|| format!("cannot read {}", version.file.display()))?;
    let mut body = json!({ "text": text, "purpose_required": version.purpose_required });
    for (member, value) in [("effective", version.effective), ("grace", version.grace)] {
        if let Some(value) = value {
            put(&mut body, member, value);
        }
    }
    let path = format!("/v1/terms/{}/versions", segment(&version.name));
    control.print(&control.post(&path, &body)?)
}
