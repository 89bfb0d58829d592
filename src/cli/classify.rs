//! `tollgate classify`: which operation of a file a call is, and why.
//!
//! Promises the very answer the gateway gives. Asks nobody: reads files, prints, exits. Not here: who may call.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::classify::{Classifier, Unclassified};
use tollgate_policy::openapi::{self, Description};

/// Says which operation a call is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tollgate classify --spec petstore.yaml GET /api/v3/pet/7
      Prints the operation and why it is that one; exits 1 where it is none.
  tollgate classify --spec-dir specs --jsonl < calls.jsonl > answers.jsonl
      Reads lines such as {\"id\":1,\"spec\":\"petstore.yaml\",\"method\":\"GET\",\"path\":\"/api/v3/pet/7\"}
      and answers each with a line: {\"id\":1,\"status\":\"match\",\"op\":\"getPetById\",...}.")]
pub(crate) struct Args {
    /// OpenAPI file to classify against.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "jsonl",
        conflicts_with = "jsonl"
    )]
    spec: Option<PathBuf>,
    /// Directory in which the files named by `spec` in each line lie.
    #[arg(long, value_name = "DIR", requires = "jsonl")]
    spec_dir: Option<PathBuf>,
    /// Read calls from standard input, one JSON object a line, and answer each with a line.
    #[arg(long, requires = "spec_dir")]
    jsonl: bool,
    /// Method of the call, such as GET.
    #[arg(required_unless_present = "jsonl", conflicts_with = "jsonl")]
    method: Option<String>,
    /// Path of the call as it stands on the wire, base path included.
    #[arg(required_unless_present = "jsonl", conflicts_with = "jsonl")]
    path: Option<String>,
}

/// Runs the verb.
///
/// # Errors
/// A file that cannot be read, or a line that is no call.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    let good = match args {
        Args {
            spec: Some(spec),
            method: Some(method),
            path: Some(path),
            ..
        } => explain(&spec, &method, &path, &mut out)?,
        Args {
            spec_dir: Some(directory),
            ..
        } => answer_lines(&directory, std::io::stdin().lock(), &mut out, &mut err)?,
        _ => bail!("give --spec FILE METHOD PATH, or --spec-dir DIR --jsonl"),
    };
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One API, ready to classify.
struct Loaded {
    description: Description,
    classifier: Classifier,
}

fn load(file: &Path) -> anyhow::Result<Loaded> {
    let description = openapi::load(file).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })?;
    let (classifier, _) = Classifier::compile(&description);
    Ok(Loaded {
        description,
        classifier,
    })
}

/// Prints one decision with its reasons; whether the call is an operation.
fn explain(spec: &Path, method: &str, path: &str, out: &mut impl Write) -> anyhow::Result<bool> {
    let api = load(spec)?;
    let decision = api.classifier.classify(method, path);
    if let Ok(matched) = &decision
        && let Some(operation) = api.description.operations.get(matched.operation)
    {
        writeln!(out, "{}", operation.name)?;
        for (name, value) in &matched.parameters {
            writeln!(out, "  {name} = {value}")?;
        }
    }
    if let Err(Unclassified::NoMethod { allow }) = &decision {
        writeln!(out, "allow: {}", allow.join(", "))?;
    }
    for line in api.classifier.explain(method, path) {
        writeln!(out, "{line}")?;
    }
    Ok(decision.is_ok())
}

#[derive(Deserialize)]
struct Call {
    id: Value,
    spec: String,
    method: String,
    path: String,
}

/// Answers every line; whether all files could be read.
fn answer_lines(
    directory: &Path,
    calls: impl BufRead,
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<bool> {
    let mut out = std::io::BufWriter::new(out);
    let mut apis: HashMap<String, Option<Loaded>> = HashMap::new();
    let mut good = true;
    for (number, line) in (1..).zip(calls.lines()) {
        let line = line.context("reading standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let call: Call = serde_json::from_str(&line).with_context(|| format!("line {number}"))?;
        if !apis.contains_key(&call.spec) {
            let loaded = load(&directory.join(&call.spec));
            if let Err(why) = &loaded {
                writeln!(err, "{}: {why:#}", call.spec)?;
            }
            apis.insert(call.spec.clone(), loaded.ok());
        }
        let Some(api) = apis.get(&call.spec).and_then(Option::as_ref) else {
            good = false;
            continue;
        };
        writeln!(out, "{}", answer(api, &call))?;
    }
    out.flush()?;
    Ok(good)
}

fn answer(api: &Loaded, call: &Call) -> Value {
    let id = &call.id;
    match api.classifier.classify(&call.method, &call.path) {
        Err(Unclassified::BadEncoding) => json!({ "id": id, "status": 400 }),
        Err(Unclassified::NoTemplate) => json!({ "id": id, "status": 404 }),
        Err(Unclassified::NoMethod { allow }) => {
            let allow: Vec<&str> = allow.iter().map(AsRef::as_ref).collect();
            json!({ "id": id, "status": 405, "allow": allow })
        }
        Ok(matched) => {
            let parameters = matched.parameters.iter();
            let params: serde_json::Map<String, Value> = parameters
                .map(|(name, value)| (name.to_string(), json!(value)))
                .collect();
            let operation = api.description.operations.get(matched.operation);
            json!({
                "id": id,
                "status": "match",
                "op": operation.and_then(|o| o.id.as_deref()),
                "method": operation.map(|o| &*o.method),
                "template": operation.map(|o| &*o.template),
                "params": params,
            })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"openapi":"3.0.3","info":{"title":"t","version":"1"},"paths":{
        "/users/me":{"get":{"operationId":"getMe","responses":{}}},
        "/users/{id}":{"get":{"responses":{}},"delete":{"operationId":"deleteUser","responses":{}}}}}"#;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.json"), SPEC).unwrap();
        directory
    }

    #[test]
    fn lines_are_answered_in_order_and_a_missing_file_spoils_only_its_own() {
        let directory = directory();
        let calls = r#"{"id":1,"spec":"a.json","method":"GET","path":"/users/a%20b"}
{"id":2,"spec":"none.json","method":"GET","path":"/"}
{"id":3,"spec":"a.json","method":"PUT","path":"/users/me"}
{"id":4,"spec":"a.json","method":"GET","path":"/"}
{"id":5,"spec":"a.json","method":"GET","path":"/%"}
"#;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let good = answer_lines(directory.path(), calls.as_bytes(), &mut out, &mut err).unwrap();
        assert!(!good);
        assert!(String::from_utf8(err).unwrap().starts_with("none.json: "));
        let answers: Vec<Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let expected = [
            json!({"id":1,"status":"match","op":null,"method":"GET","template":"/users/{id}","params":{"id":"a b"}}),
            json!({"id":3,"status":405,"allow":["DELETE","GET","HEAD"]}),
            json!({"id":4,"status":404}),
            json!({"id":5,"status":400}),
        ];
        assert_eq!(answers, expected);
    }

    #[test]
    fn one_call_is_explained() {
        let directory = directory();
        let mut out = Vec::new();
        assert!(
            explain(
                &directory.path().join("a.json"),
                "GET",
                "/users/me",
                &mut out
            )
            .unwrap()
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("getMe\n"), "{text}");
        assert!(text.contains("literal `me` beats parameter"), "{text}");
    }
}
