//! Classification cases: a small sample that always runs, and the large collection over real files where it is at hand.
//!
//! Strict: operation, method, template, parameters, status and `Allow` must all be equal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};
use tollgate_policy::classify::{Classifier, Unclassified};
use tollgate_policy::openapi::{self, Description};

fn answer(description: &Description, classifier: &Classifier, case: &Value) -> Value {
    let (method, path) = (
        case["method"].as_str().unwrap(),
        case["path"].as_str().unwrap(),
    );
    match classifier.classify(method, path) {
        Err(Unclassified::BadEncoding) => json!({"status": 400}),
        Err(Unclassified::NoTemplate) => json!({"status": 404}),
        Err(Unclassified::NoMethod { allow }) => {
            let allow: Vec<&str> = allow.iter().map(AsRef::as_ref).collect();
            json!({"status": 405, "allow": allow})
        }
        Ok(matched) => {
            let operation = &description.operations[matched.operation];
            let params: Map<String, Value> = matched
                .parameters
                .iter()
                .map(|(n, v)| (n.to_string(), json!(v)))
                .collect();
            json!({
                "status": "match", "op": operation.id.as_deref(), "method": &*operation.method,
                "template": &*operation.template, "params": params,
            })
        }
    }
}

/// Failures as lines, and how many cases there were.
fn run(specs: &Path, cases: &str) -> (Vec<String>, usize) {
    let mut apis: HashMap<String, Option<(Description, Classifier)>> = HashMap::new();
    let mut failures = Vec::new();
    let mut count = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let spec = case["spec"].as_str().unwrap();
        count += 1;
        let api = apis.entry(spec.to_owned()).or_insert_with(|| {
            let loaded = openapi::load(&specs.join(spec));
            failures.extend(
                loaded
                    .as_ref()
                    .err()
                    .map(|findings| format!("{spec}: {findings:?}")),
            );
            let description = loaded.ok()?;
            let (classifier, _) = Classifier::compile(&description);
            Some((description, classifier))
        });
        let Some((description, classifier)) = api else {
            continue;
        };
        let actual = answer(description, classifier, &case);
        if actual != case["expect"] {
            let (method, path) = (&case["method"], &case["path"]);
            failures.push(format!(
                "{} {spec} {method} {path}: {actual}, not {}",
                case["id"], case["expect"]
            ));
        }
    }
    (failures, count)
}

#[test]
fn the_sample_is_classified_by_the_rules() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let cases = std::fs::read_to_string(fixtures.join("classify-sample.jsonl")).unwrap();
    let (failures, count) = run(&fixtures, &cases);
    assert!(count > 15);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_case_over_real_files_is_strictly_right() {
    let shared = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let Ok(packed) = std::fs::File::open(shared.join("classify/cases.jsonl.gz")) else {
        println!("skipped: no collection of cases beside the repository");
        return;
    };
    let mut cases = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut cases)
        .unwrap();
    let (failures, count) = run(&shared.join("specs"), &cases);
    assert!(
        failures.is_empty(),
        "{} of {count} wrong:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
