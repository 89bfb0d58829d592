//! `tollgate organisations` and `tollgate projects`: whom consumers belong to.

use std::process::ExitCode;

use serde_json::json;

use super::control::{Control, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate organisations create acme --title 'Acme Ltd'
  tollgate projects create web --organisation acme
  tollgate projects list";

/// What to do with organisations.
#[derive(Debug, clap::Args)]
pub(super) struct OrganisationArgs {
    #[command(subcommand)]
    act: OrganisationAct,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum OrganisationAct {
    /// List organisations
    List,
    /// Show an organisation
    Show { name: String },
    /// Create an organisation
    Create {
        name: String,
        /// For people
        #[arg(long, default_value = "")]
        title: String,
    },
    /// Delete an organisation without projects
    Delete { name: String },
}

/// What to do with projects.
#[derive(Debug, clap::Args)]
pub(super) struct ProjectArgs {
    #[command(subcommand)]
    act: ProjectAct,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum ProjectAct {
    /// List projects
    List,
    /// Show a project
    Show { name: String },
    /// Create a project
    Create {
        name: String,
        /// Whose it is
        #[arg(long)]
        organisation: String,
        /// For people
        #[arg(long, default_value = "")]
        title: String,
    },
    /// Delete a project without consumers
    Delete { name: String },
}

/// Asks and prints.
pub(super) fn run_organisations(args: OrganisationArgs) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let of = |name: &str| format!("/v1/organisations/{}", segment(name));
    match args.act {
        OrganisationAct::List => control.print_list(
            control.list("/v1/organisations")?,
            &[
                ("NAME", "/name"),
                ("TITLE", "/title"),
                ("DEFINED", "/origin/kind"),
            ],
        ),
        OrganisationAct::Show { name } => control.print(&control.get(&of(&name))?),
        OrganisationAct::Create { name, title } => {
            let body = json!({ "name": name, "title": title });
            control.print(&control.post("/v1/organisations", &body)?)
        }
        OrganisationAct::Delete { name } => {
            control.delete(&of(&name), &format!("organisation {name}"))
        }
    }
}

/// Asks and prints.
pub(super) fn run(args: ProjectArgs) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let of = |name: &str| format!("/v1/projects/{}", segment(name));
    match args.act {
        ProjectAct::List => control.print_list(
            control.list("/v1/projects")?,
            &[
                ("NAME", "/name"),
                ("ORGANISATION", "/organisation"),
                ("TITLE", "/title"),
                ("DEFINED", "/origin/kind"),
            ],
        ),
        ProjectAct::Show { name } => control.print(&control.get(&of(&name))?),
        ProjectAct::Create {
            name,
            organisation,
            title,
        } => {
            let body = json!({ "name": name, "organisation": organisation, "title": title });
            control.print(&control.post("/v1/projects", &body)?)
        }
        ProjectAct::Delete { name } => control.delete(&of(&name), &format!("project {name}")),
    }
}
