//! `tollgate openapi`: writes the OpenAPI document of a gRPC service's REST face. Serves nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use tollgate_gateway::transcode::face::describe_now;
use tollgate_gateway::transcode::openapi::document;
use tollgate_policy::settings::read_api;
use tollgate_policy::{Finding, Severity};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate openapi --config config/grpc --api bookstore
  tollgate openapi --config config/grpc --api bookstore --output bookstore.json

What is wrong with rules goes to standard error. An API with reflection asks its service.
Exit code: 0 written, 1 failure, 2 usage.";

/// Which document, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration directory
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Name of the API: that of its file in apis/
    #[arg(long, value_name = "NAME")]
    api: String,
    /// File to write instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the document.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file =
        ["yaml", "yml"].map(|end| args.config.join("apis").join(format!("{}.{end}", args.api)));
    let file = file.iter().find(|file| file.is_file());
    let Some(file) = file else {
        bail!("{} has no API `{}`", args.config.display(), args.api);
    };
    let config = read_api(file, &super::environment).map_err(|found| told(&found))?;
    let described = describe_now(&config).map_err(|found| told(&found))?;
    let Some(face) = &described.face else {
        bail!(
            "{} has no `grpc`: its OpenAPI file is its own",
            file.display()
        );
    };
    let findings = described.description.findings.iter();
    for finding in findings.filter(|finding| finding.severity > Severity::Note) {
        eprintln!("{finding}");
    }
    let document = document(&config, &described.description, face);
    let text = serde_json::to_string_pretty(&document)? + "\n";
    match &args.output {
        Some(file) => std::fs::write(file, text)?,
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn told(findings: &[Finding]) -> anyhow::Error {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    anyhow!(lines.join("\n"))
}
