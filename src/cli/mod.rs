//! The command line: one file per verb. Exit codes: 0 good, 1 findings or failure, 2 usage.

mod admin;
mod check;
mod classify;
mod demo_service;
mod explain;
mod gateway;
mod shadow_report;
mod status;
mod version;

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
    /// Check an OpenAPI file, an API file, tollgate.yaml or a configuration directory
    #[command(after_help = check::EXAMPLES)]
    Check(check::Args),
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
        Command::Check(args) => check::run(args),
        Command::Classify(args) => classify::run(args),
        Command::Status(args) => status::run(args),
        Command::Explain(args) => explain::run(args),
        Command::ShadowReport(args) => shadow_report::run(args),
        Command::Version => version::run(),
        Command::DemoService(args) => demo_service::run(args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tollgate: {error:#}");
        ExitCode::FAILURE
    })
}

/// The environment, as readers of settings ask for it.
fn environment(name: &str) -> Option<String> {
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
