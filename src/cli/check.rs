//! `tollgate check`: prints what is wrong with files, one finding per line. Serves nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;
use tollgate_gateway::transcode::face::describe_now;
use tollgate_policy::settings::ApiConfig;
use tollgate_policy::settings::check::{Report, check};
use tollgate_policy::{Finding, Severity};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate check openapi.yaml
  tollgate check config/gateway
  tollgate check config/gateway --format json

An API with `reflection` asks its service.
Exit code: 0 nothing but notes, 1 warnings or errors, 2 usage.";

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An OpenAPI file, an API file, tollgate.yaml, plans.yaml, consumers.yaml, terms.yaml, or a configuration directory
    path: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Checks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let described = |config: &ApiConfig| describe_now(config).map(|it| it.description);
    let report = check(&args.path, &super::environment, &described);
    match args.format {
        Format::Text => print_text(&report),
        Format::Json => print_json(&report)?,
    }
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print_text(report: &Report) {
    for finding in &report.findings {
        println!("{finding}");
    }
    for api in &report.summaries {
        println!(
            "{}: {}: {} operations, {} overlaps",
            api.file,
            format!("{} {}", api.title, api.version).trim_end(),
            api.operations,
            api.overlaps
        );
    }
    if let Some(objects) = &report.objects {
        println!(
            "{}: {} plans, {} consumers, {} terms",
            objects.directory, objects.plans, objects.consumers, objects.terms
        );
    }
}

fn print_json(report: &Report) -> anyhow::Result<()> {
    let apis: Vec<_> = report
        .summaries
        .iter()
        .map(|api| {
            json!({
                "file": api.file, "title": api.title, "version": api.version,
                "operations": api.operations, "overlaps": api.overlaps,
            })
        })
        .collect();
    let findings: Vec<_> = report.findings.iter().map(finding).collect();
    let objects = report.objects.as_ref().map(|objects| {
        json!({
            "directory": objects.directory, "plans": objects.plans,
            "consumers": objects.consumers, "terms": objects.terms,
        })
    });
    let whole = json!({ "findings": findings, "apis": apis, "objects": objects });
    println!("{}", serde_json::to_string_pretty(&whole)?);
    Ok(())
}

fn finding(finding: &Finding) -> serde_json::Value {
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    json!({
        "severity": severity, "code": finding.code, "file": &*finding.place.file,
        "line": finding.place.line, "column": finding.place.column,
        "what": finding.what, "remedy": finding.remedy,
    })
}
