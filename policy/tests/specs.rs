//! Promise: real descriptions load, each with all its operations. Small ones are in `fixtures/`; the large ones are
//! looked for beside the repository and skipped, with a line that says so, where they are absent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::path::{Path, PathBuf};

use tollgate_policy::openapi::{Description, load};
use tollgate_policy::source::Document;

fn shared(below: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")).join(below);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

fn loaded(path: &Path) -> Description {
    load(path).unwrap_or_else(|findings| panic!("{}: {findings:?}", path.display()))
}

#[test]
fn every_real_description_loads_with_all_its_operations_and_bases() {
    let Some(stats) = shared("classify/stats.json") else {
        return;
    };
    let stats: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(stats).unwrap()).unwrap();
    for spec in stats["specs"].as_array().unwrap() {
        let name = spec["spec"].as_str().unwrap();
        let start = std::time::Instant::now();
        let description = loaded(&shared("specs").unwrap().join(name));
        let took = start.elapsed();
        let operations = description.operations.len();
        println!(
            "{name}: {operations} in {took:?}, {} findings",
            description.findings.len()
        );
        for finding in description.findings.iter().take(3) {
            println!("    {finding}");
        }
        assert_eq!(
            operations as u64,
            spec["operations"].as_u64().unwrap(),
            "{name}"
        );
        let mut bases: Vec<_> = description
            .operations
            .iter()
            .flat_map(|o| o.bases.clone())
            .collect();
        bases.sort();
        bases.dedup();
        let expected: Vec<_> = spec["bases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|base| base.as_str().unwrap().into())
            .collect();
        assert_eq!(bases, expected, "{name}");
        assert!(
            description
                .findings
                .iter()
                .all(|finding| finding.place.line > 0),
            "{name}"
        );
    }
}

#[test]
fn names_are_unique_and_label_safe_in_every_real_description() {
    let Some(specs) = shared("specs") else { return };
    for entry in std::fs::read_dir(specs).unwrap() {
        let path = entry.unwrap().path();
        if !path
            .extension()
            .is_some_and(|extension| extension == "json" || extension == "yaml")
        {
            continue;
        }
        let mut names: Vec<_> = loaded(&path)
            .operations
            .into_iter()
            .map(|o| o.name)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{}", path.display());
        let safe = |c: char| c.is_ascii_alphanumeric() || "_.:/{}-".contains(c);
        assert!(
            names
                .iter()
                .all(|name| name.len() <= 128 && name.chars().all(safe))
        );
    }
}

#[test]
fn a_description_in_several_files_finds_its_neighbours() {
    let Some(path) = shared("specs/petstore-separate/spec/swagger.json") else {
        return;
    };
    let description = loaded(&path);
    assert_eq!(description.operations.len(), 4);
    assert_eq!(&*description.operations[0].bases[0], "/api");
    assert!(
        !description
            .findings
            .iter()
            .any(|finding| finding.code == "unresolved-ref")
    );
    assert!(
        description.files[1].ends_with("parameters.json"),
        "{:?}",
        description.files
    );
}

#[test]
fn json_is_read_as_the_test_suite_demands() {
    let Some(suite) = shared("vectors/jsontestsuite") else {
        return;
    };
    let (mut accepted, mut refused) = (0, 0);
    for entry in std::fs::read_dir(suite).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // What is no UTF-8 never reaches the parser.
        let Ok(text) = String::from_utf8(std::fs::read(&path).unwrap()) else {
            continue;
        };
        let json = Document::parse_json(&name, &text);
        let any = Document::parse(&name, &text);
        if name.starts_with("y_") {
            if name.contains("duplicated_key") {
                assert_eq!(json.unwrap_err().code, "duplicate-key", "{name}");
            } else {
                assert!(json.is_ok() && any.is_ok(), "{name}: {json:?}");
            }
            accepted += 1;
        } else if name.starts_with("n_") {
            let finding = json.expect_err(&name);
            assert!(
                finding.place.line > 0 && finding.place.column > 0,
                "{name}: {finding}"
            );
            refused += 1;
        }
    }
    assert!(accepted > 80 && refused > 150, "{accepted} {refused}");
}
