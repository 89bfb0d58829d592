//! A copy of an API file, read for its original: the OpenAPI file is the copy's, all else is where the original leads.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use std::fs;
use std::path::Path;

use tollgate_policy::settings::{KeySource, read_api, read_kept_api};

const API: &str = "\
spec: ../spec.yaml
upstream: http://127.0.0.1:9000
auth:
  issuers:
    id: { issuer: https://id.test, audiences: [a], jwks: ../keys.json, ca: ../roots.pem }
    own: { issuer: https://own.test, audiences: [a], secret: \"file:../secret\" }
authoriser: { grpc: \"h2://judge.test\", ca: ../roots.pem }
";

const ROOTS: &str = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn unset(_: &str) -> Option<String> {
    None
}

#[test]
fn what_is_not_copied_is_looked_for_where_the_original_leads() {
    let home = tempfile::tempdir().unwrap();
    let (there, copied) = (home.path().join("there"), home.path().join("copied"));
    write(&there, "apis/books.yaml", API);
    write(&there, "spec.yaml", "openapi: 3.1.0\npaths: {}\n");
    write(&there, "keys.json", "{\"keys\":[{}]}");
    write(&there, "roots.pem", ROOTS);
    write(&there, "secret", &"x".repeat(32));
    write(&copied, "books.yaml", API);
    write(&copied, "spec.yaml", "openapi: 3.1.0\npaths: {}\n");
    let original = there.join("apis/books.yaml");
    let whole = read_api(&original, &unset).unwrap();
    // The original and its OpenAPI file may be gone.
    fs::remove_file(&original).unwrap();
    fs::remove_file(there.join("spec.yaml")).unwrap();
    let spec = copied.join("spec.yaml");
    let kept = read_kept_api(
        &copied.join("books.yaml"),
        &original,
        &|path| match path.ends_with("spec.yaml") {
            true => spec.clone(),
            false => copied.join("none"),
        },
        &unset,
    )
    .unwrap();
    assert_eq!(kept.spec, Some(spec.clone()));
    assert_eq!(kept.file, original);
    assert_eq!(
        (kept.auth, kept.authoriser),
        (whole.auth.clone(), whole.authoriser)
    );
    let issuer = &whole.auth.issuers["id"];
    assert_eq!(issuer.ca, Some(there.join("apis/../roots.pem")));
    assert_eq!(
        issuer.keys,
        KeySource::File(there.join("apis/../keys.json"))
    );
}

#[test]
fn roots_and_public_keys_are_the_copies_where_there_are_any_and_secrets_never_are() {
    let home = tempfile::tempdir().unwrap();
    let (there, copied) = (home.path().join("there"), home.path().join("copied"));
    for folder in [&there.join("apis"), &copied.join("apis")] {
        fs::create_dir_all(folder).unwrap();
    }
    write(&copied, "apis/books.yaml", API);
    write(&copied, "spec.yaml", "openapi: 3.1.0\npaths: {}\n");
    write(&copied, "keys.json", "{\"keys\":[{}]}");
    write(&copied, "roots.pem", ROOTS);
    // Not what counts: a secret is the node's own.
    write(&copied, "secret", "short");
    write(&there, "secret", &"x".repeat(32));
    let original = there.join("apis/books.yaml");
    let copy_of = |path: &Path| {
        copied
            .join("apis")
            .join(path.strip_prefix(there.join("apis")).unwrap())
    };
    let kept = read_kept_api(&copied.join("apis/books.yaml"), &original, &copy_of, &unset).unwrap();
    let issuer = &kept.auth.issuers["id"];
    assert_eq!(issuer.ca, Some(copied.join("apis/../roots.pem")));
    assert_eq!(
        issuer.keys,
        KeySource::File(copied.join("apis/../keys.json"))
    );
}

#[test]
fn a_service_is_named_as_in_identities() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "spec.yaml", "openapi: 3.1.0\npaths: {}\n");
    for (name, good) in [
        ("orders", true),
        ("Orders", false),
        ("a.b", false),
        ("-", false),
    ] {
        let text =
            format!("spec: ../spec.yaml\nupstream: http://127.0.0.1:9\nservice: \"{name}\"\n");
        write(home.path(), "apis/books.yaml", &text);
        let read = read_api(&home.path().join("apis/books.yaml"), &unset);
        assert_eq!(read.is_ok(), good, "{name}");
        assert!(read.map_or(true, |api| api.service.as_deref() == Some(name)));
    }
}

#[test]
fn roots_that_cannot_be_read_are_found_before_anybody_calls() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "apis/books.yaml", API);
    write(home.path(), "spec.yaml", "openapi: 3.1.0\npaths: {}\n");
    write(home.path(), "keys.json", "{\"keys\":[{}]}");
    write(home.path(), "secret", &"x".repeat(32));
    let file = home.path().join("apis/books.yaml");
    for text in [None, Some("no certificate")] {
        if let Some(text) = text {
            write(home.path(), "roots.pem", text);
        }
        let findings = read_api(&file, &unset).unwrap_err();
        let about: Vec<_> = findings.iter().map(|it| (it.code, it.place.line)).collect();
        assert_eq!(about, [("unreadable-key", 5), ("unreadable-key", 7)]);
    }
}
