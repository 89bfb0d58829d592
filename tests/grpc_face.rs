//! What an operator sees of a gRPC service before it is served: `tollgate check` and `tollgate openapi`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tollgate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(args).current_dir(root()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn check_finds_nothing_wrong_with_the_example() {
    let output = tollgate(&["check", "config/grpc"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("bookstore: 13 operations"), "{told}");
}

#[test]
fn check_tells_every_problem_of_a_rule_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "apis/books.yaml",
        "upstream: grpc://127.0.0.1:9000
grpc:
  protos: [../books.proto]
  methods: { a.Books/Gte: { names: proto } }
",
    );
    write(
        "books.proto",
        "syntax = \"proto3\";
package a;
import \"google/api/annotations.proto\";
message Book { string name = 1; }
service Books {
  rpc Get(Book) returns (Book) { option (google.api.http) = { get: \"/v1/{nme}\" }; }
  rpc Put(Book) returns (Book) { option (google.api.http) = { put: \"/v1/x\" body: \"bok\" }; }
}
",
    );
    let output = tollgate(&["check", directory.path().to_str().unwrap()]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in [
        "books.proto:6: warning[http-rule]: a.Books/Get: `GET /v1/{nme}` is not served: the variable `{nme}`: a.Book has no field `nme`; did you mean `name`?",
        "books.proto:7: warning[http-rule]: a.Books/Put: `PUT /v1/x` is not served: `body: bok`: a.Book has no field `bok`",
        "books.yaml:4:14: warning[unknown-method]: the descriptors have no method `a.Books/Gte`; did you mean `a.Books.Get`?",
    ] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    write("books.proto", "syntax = \"proto3\";\nservice {\n");
    let output = tollgate(&["check", directory.path().to_str().unwrap()]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("books.proto:2:9: error[proto]"), "{told}");
}

/// The document of the example.
fn document(directory: &Path) -> PathBuf {
    let file = directory.join("bookstore.json");
    let path = file.to_str().unwrap();
    let output = tollgate(&[
        "openapi",
        "--config",
        "config/grpc",
        "--api",
        "bookstore",
        "--output",
        path,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    file
}

#[test]
fn the_openapi_document_is_written_and_checked_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = document(directory.path());
    let output = tollgate(&["check", file.to_str().unwrap()]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("bookstore 1.0.0: 14 operations"), "{told}");
    let classified = [
        "classify",
        "--spec",
        file.to_str().unwrap(),
        "GET",
        "/v1/shelves/1/books/2",
    ];
    assert!(said(&tollgate(&classified)).starts_with("Bookstore_GetBook\n"));
    let missing = tollgate(&["openapi", "--config", "config/grpc", "--api", "none"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("has no API `none`"));
    let plain = tollgate(&[
        "openapi",
        "--config",
        "config/gateway",
        "--api",
        "bookstore",
    ]);
    assert!(said(&plain).contains("has no `grpc`"), "{}", said(&plain));
}

/// What the linter is installed as, once for all runs.
const LINTER: &str = "@redocly/cli@2.77.0";

/// Elsewhere a linter may be missing; in CI it is installed.
fn skipped(why: &str) {
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "{why}");
    eprintln!("skipped: {why}");
}

#[test]
fn the_openapi_document_passes_a_public_linter() {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("redocly");
    let linter = home.join("node_modules/.bin/redocly");
    if !linter.exists() {
        std::fs::create_dir_all(&home).unwrap();
        let install = Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                ".",
                LINTER,
            ])
            .current_dir(&home)
            .output();
        match install {
            Ok(output) if output.status.success() => {}
            Ok(output) => return skipped(&format!("{LINTER} is not to be had: {}", said(&output))),
            Err(error) => return skipped(&format!("no npm on this machine: {error}")),
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = document(directory.path());
    let lint = Command::new(linter)
        .arg("lint")
        .arg(&file)
        .args(["--extends=recommended", "--format=stylish"])
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(lint.status.success(), "{}", said(&lint));
}
