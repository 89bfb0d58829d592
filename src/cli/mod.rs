//! The command line: one file per verb. Exit codes: 0 good, 1 findings or failure, 2 usage.

mod admin;
mod amounts;
mod audit;
mod backup;
mod ca;
mod check;
mod classify;
mod consumers;
mod control;
mod control_plane;
mod demo_service;
mod explain;
mod gateway;
mod join_tokens;
mod keys;
mod nodes;
mod openapi;
mod overrides;
mod plans;
mod projects;
mod quota;
mod revocations;
mod shadow_report;
mod sidecar;
mod status;
mod terms;
mod usage;
mod version;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// API management engine: every call is one operation of an OpenAPI file.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve APIs: from one OpenAPI file, or from a configuration directory
    #[command(after_help = gateway::EXAMPLES)]
    Gateway(gateway::Args),
    /// Own the policy of an installation: gateways and sidecars join it
    #[command(after_help = control_plane::EXAMPLES)]
    Control(control_plane::Args),
    /// Serve beside one instance of a service: what comes in to the app
    #[command(after_help = sidecar::EXAMPLES)]
    Sidecar(sidecar::Args),
    /// Wait until a gateway or sidecar is ready for traffic
    #[command(after_help = wait::EXAMPLES)]
    Wait(wait::Args),
    /// Check an OpenAPI file, an API file, tollgate.yaml or a configuration directory
    #[command(after_help = check::EXAMPLES)]
    Check(check::Args),
    /// Write the OpenAPI document of a gRPC service's REST face
    #[command(name = "openapi", after_help = openapi::EXAMPLES)]
    OpenApi(openapi::Args),
    /// Say which operation a call is, and why
    Classify(classify::Args),
    /// Show the APIs of a running gateway
    #[command(after_help = status::EXAMPLES)]
    Status(status::Args),
    /// Say why a call is answered as it is: every rule that takes part
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Args),
    /// Show whom the rules in shadow would have refused
    #[command(after_help = shadow_report::EXAMPLES)]
    ShadowReport(shadow_report::Args),
    /// Manage organisations
    #[command(after_help = projects::EXAMPLES)]
    Organisations(projects::OrganisationArgs),
    /// Manage projects
    #[command(after_help = projects::EXAMPLES)]
    Projects(projects::ProjectArgs),
    /// Manage consumers: the applications that call
    #[command(after_help = consumers::EXAMPLES)]
    Consumers(consumers::Args),
    /// Manage plans: what is sold to consumers
    #[command(after_help = plans::EXAMPLES)]
    Plans(plans::Args),
    /// Grant organisations, projects and consumers more of a limit, or hold them to less
    #[command(after_help = overrides::EXAMPLES)]
    Overrides(overrides::Args),
    /// Make, rotate and revoke API keys
    #[command(after_help = keys::EXAMPLES)]
    Keys(keys::Args),
    /// Make and delete tokens by which gateways and sidecars join
    #[command(after_help = join_tokens::EXAMPLES)]
    JoinTokens(join_tokens::Args),
    /// Show and exchange the root certificate that nodes believe
    #[command(after_help = ca::EXAMPLES)]
    Ca(ca::Args),
    /// Manage terms and who accepted them
    #[command(after_help = terms::EXAMPLES)]
    Terms(terms::Args),
    /// Revoke tokens, subjects, certificates and consumers
    #[command(after_help = revocations::EXAMPLES)]
    Revocations(revocations::Args),
    /// Show how much of their limits subjects have used
    #[command(after_help = quota::EXAMPLES)]
    Quota(quota::Args),
    /// Show what was used, who reported it and what is missing
    #[command(after_help = usage::EXAMPLES)]
    Usage(usage::Args),
    /// Show the data planes and what they hold
    #[command(after_help = nodes::EXAMPLES)]
    Nodes(nodes::Args),
    /// Show what nodes are given of each API
    #[command(after_help = nodes::BUNDLE_EXAMPLES)]
    Bundles(nodes::BundleArgs),
    /// Read and verify the audit log
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::Args),
    /// Copy the control plane's store to a file
    #[command(after_help = backup::EXAMPLES)]
    Backup(backup::Args),
    /// Print version and target
    #[command(after_help = "Examples:\n  tollgate version")]
    Version,
    /// An echoing service for the demo
    #[command(hide = true)]
    DemoService(demo_service::Args),
}

/// Parses the command line and runs its verb.
pub(crate) fn main() -> ExitCode {
    // clap itself exits with 2 on usage errors and with 0 on --help.
    let done = match Cli::parse().command {
        Command::Gateway(args) => gateway::run(args),
        Command::Control(args) => control_plane::run(args),
        Command::Sidecar(args) => sidecar::run(args),
        Command::Wait(args) => wait::run(args),
        Command::Check(args) => check::run(args),
        Command::OpenApi(args) => openapi::run(args),
        Command::Classify(args) => classify::run(args),
        Command::Status(args) => status::run(args),
        Command::Explain(args) => explain::run(args),
        Command::ShadowReport(args) => shadow_report::run(args),
        Command::Organisations(args) => projects::run_organisations(args),
        Command::Projects(args) => projects::run(args),
        Command::Consumers(args) => consumers::run(args),
        Command::Plans(args) => plans::run(args),
        Command::Overrides(args) => overrides::run(args),
        Command::Keys(args) => keys::run(args),
        Command::JoinTokens(args) => join_tokens::run(args),
        Command::Ca(args) => ca::run(args),
        Command::Terms(args) => terms::run(args),
        Command::Revocations(args) => revocations::run(args),
        Command::Quota(args) => quota::run(args),
        Command::Usage(args) => usage::run(args),
        Command::Nodes(args) => nodes::run(args),
        Command::Bundles(args) => nodes::run_bundles(args),
        Command::Audit(args) => audit::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Version => version::run(),
        Command::DemoService(args) => demo_service::run(args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tollgate: {error:#}");
        ExitCode::FAILURE
    })
}

/// The environment, as readers of settings ask for it.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
