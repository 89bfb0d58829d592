//! The shape of the project, kept by a test: every file says what it is, none grows past a reader's patience, and `policy` stays pure.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 500;

/// Crates that would give `policy` sockets, a runtime or a proxy.
const IMPURE: [&str; 8] = [
    "tokio",
    "pingora",
    "hyper",
    "axum",
    "mio",
    "socket2",
    "async-std",
    "hickory-resolver",
];

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let roots = [
        "src",
        "policy/src",
        "policy/proto/src",
        "policy/control/src",
        "gateway/src",
        "sidecar/src",
    ];
    let mut folders: Vec<PathBuf> = roots.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

/// Lines before the tests at the bottom. Tests in a file of their own are only named, anywhere in the file.
fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        // Attributes may stand before the item, over several lines.
        let mut rest = lines.iter().skip(at);
        let item = rest.find(|line| !line.starts_with(['#', ' ', ')']));
        let begins = item.is_some_and(|item| item.starts_with("mod ") && item.ends_with('{'));
        if begins && line.starts_with("#[cfg(test)]") {
            return at;
        }
    }
    lines.len()
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("//!") {
            wrong.push(format!("{}: does not begin with `//!`", path.display()));
        }
        let tests = path.file_stem().is_some_and(|stem| stem == "tests")
            || path.components().any(|part| part.as_os_str() == "tests");
        let lines = lines_before_tests(&text);
        if lines > LONGEST_FILE && !tests {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn policy_has_no_sockets_no_runtime_and_no_proxy() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "tollgate-policy",
            "-e",
            "normal",
        ])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree runs");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).unwrap();
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let impure = IMPURE
            .iter()
            .any(|crate_| name == *crate_ || name.starts_with("pingora"));
        assert!(!impure, "policy depends on {line}");
    }
}
