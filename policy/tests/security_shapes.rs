//! Promise: what a description demands of its callers is read as it is written, in every shape that real descriptions have, and
//! compiled to a demand of that shape.
//!
//! `fixtures/security*` hold one operation for each shape, with what it must be read to. Real descriptions are looked for beside
//! the repository and skipped, with a line that says so, where they are absent; each of their shapes must be among the fixtures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_policy::access::{ApiAccess, CredentialPlace, Demand, SchemeDemand};
use tollgate_policy::openapi::{Description, SchemeKind, SchemeUse, Security, load};
use tollgate_policy::settings::{ApiConfig, SecurityMode};
use tollgate_policy::source::Document;
use tollgate_policy::{Finding, Severity};

const FIXTURES: [&str; 2] = ["security.yaml", "security-swagger.json"];

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(name)
}

/// A description as it was read, and as plain JSON.
fn both(path: &Path) -> (Description, Value) {
    let description =
        load(path).unwrap_or_else(|findings| panic!("{}: {findings:?}", path.display()));
    let text = std::fs::read_to_string(path).unwrap();
    let document = Document::parse(&path.display().to_string(), &text).unwrap();
    (description, document.root.to_json())
}

/// The shape of a demand as it was read.
fn read(security: &Security) -> String {
    if security.unreadable {
        return "unreadable".to_owned();
    }
    let scheme = |used: &SchemeUse| {
        let kind = match used.kind {
            SchemeKind::ApiKeyHeader(_) => "header",
            SchemeKind::ApiKeyQuery(_) => "query",
            SchemeKind::ApiKeyCookie(_) => "cookie",
            SchemeKind::Basic => "basic",
            SchemeKind::Bearer => "bearer",
            SchemeKind::MutualTls => "certificate",
            SchemeKind::Unknown => "unknown",
        };
        with_marks(kind, !used.scopes.is_empty(), used.issuer.is_some())
    };
    let one = |combination: &Vec<SchemeUse>| join(combination.iter().map(scheme), " & ", "{}");
    join(security.alternatives.iter().map(one), " | ", "public")
}

fn with_marks(kind: &str, scopes: bool, issuer: bool) -> String {
    let scopes = if scopes { "(scopes)" } else { "" };
    let issuer = if issuer { "@issuer" } else { "" };
    format!("{kind}{scopes}{issuer}")
}

fn join(parts: impl Iterator<Item = String>, between: &str, none: &str) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        return none.to_owned();
    }
    parts.join(between)
}

/// A description compiled without an API file, as `--spec` serves it.
fn served(description: &Description, security: SecurityMode) -> (ApiAccess, Vec<Finding>) {
    let file = Path::new(&*description.file);
    let config = ApiConfig::for_spec(file, "http://127.0.0.1:1", security).unwrap();
    ApiAccess::compile(&config, description)
}

/// The shape of a demand as it was compiled.
fn compiled(access: &ApiAccess, demand: &Demand) -> String {
    let (combinations, anonymous) = match demand {
        Demand::Public => return "public".to_owned(),
        Demand::Unreadable => return "unreadable".to_owned(),
        Demand::Alternatives {
            combinations,
            anonymous,
        } => (combinations, *anonymous),
    };
    let scheme = |demanded: &SchemeDemand| {
        let scheme = &access.schemes[demanded.scheme];
        let kind = match scheme.place {
            CredentialPlace::Header(_) => "header",
            CredentialPlace::Query(_) => "query",
            CredentialPlace::Cookie(_) => "cookie",
            CredentialPlace::Basic => "basic",
            CredentialPlace::Bearer => "bearer",
            CredentialPlace::Certificate => "certificate",
            CredentialPlace::Nowhere => "unknown",
        };
        assert_eq!(scheme.unknown, kind == "unknown", "{scheme:?}");
        with_marks(
            kind,
            !demanded.scopes.is_empty(),
            !scheme.issuers.is_empty(),
        )
    };
    let one = |combination: &Vec<SchemeDemand>| {
        assert!(
            !combination.is_empty(),
            "an empty one would admit everybody"
        );
        join(combination.iter().map(scheme), " & ", "")
    };
    let anonymous = anonymous.then(|| "{}".to_owned());
    let all = combinations.iter().map(one).chain(anonymous);
    join(all, " | ", "nobody")
}

/// What a shape is compiled to: the same, but that who shows nothing is told apart, once and at the end.
fn to_compile(shape: &str) -> String {
    let (anonymous, schemes): (Vec<_>, Vec<_>) = shape.split(" | ").partition(|it| *it == "{}");
    let anonymous = anonymous.first().into_iter();
    let all = schemes.iter().chain(anonymous).map(|it| (*it).to_owned());
    join(all, " | ", "")
}

/// The shape of a demand as it is written, by a reading of its own that is as plain as it can be.
fn written(document: &Value, operation: &Value) -> String {
    if operation.get("$ref").is_some() {
        return "unreadable".to_owned();
    }
    let Some(security) = operation.get("security").or(document.get("security")) else {
        return "public".to_owned();
    };
    let definitions = match document.get("swagger") {
        Some(_) => &document["securityDefinitions"],
        None => &document["components"]["securitySchemes"],
    };
    let scheme = |(name, scopes): (&String, &Value)| {
        let definition = &definitions[name.as_str()];
        let word = |key: &str| definition[key].as_str().unwrap_or_default().to_lowercase();
        let kind = match (
            word("type").as_str(),
            word("in").as_str(),
            word("scheme").as_str(),
        ) {
            ("apikey", "header", _) => "header",
            ("apikey", "query", _) => "query",
            ("apikey", "cookie", _) => "cookie",
            ("basic", _, _) | ("http", _, "basic") => "basic",
            ("oauth2" | "openidconnect", _, _) | ("http", _, "bearer") => "bearer",
            ("mutualtls", _, _) => "certificate",
            _ => "unknown",
        };
        let issuer = definition
            .get("x-google-issuer")
            .or(definition.get("openIdConnectUrl"));
        with_marks(
            kind,
            !scopes.as_array().unwrap().is_empty(),
            issuer.is_some(),
        )
    };
    let one = |combination: &Value| {
        join(
            combination.as_object().unwrap().iter().map(scheme),
            " & ",
            "{}",
        )
    };
    join(
        security.as_array().unwrap().iter().map(one),
        " | ",
        "public",
    )
}

/// Every operation of the document by method and path.
fn operations(document: &Value) -> BTreeMap<(String, String), Value> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            found.insert((method.to_uppercase(), path.clone()), operation.clone());
        }
    }
    found
}

/// The shapes of the fixtures.
fn known() -> BTreeSet<String> {
    let documents = FIXTURES.map(|name| both(&fixture(name)).1);
    let all = documents
        .iter()
        .flat_map(|document| operations(document).into_values());
    all.filter_map(|it| it["x-shape"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn every_shape_is_read_as_its_fixture_says() {
    for name in FIXTURES {
        let (description, document) = both(&fixture(name));
        let operations = operations(&document);
        assert_eq!(description.operations.len(), operations.len(), "{name}");
        for operation in &description.operations {
            let key = (operation.method.to_string(), operation.template.to_string());
            let expected = operations[&key]["x-shape"].as_str().unwrap_or("unreadable");
            assert_eq!(read(&operation.security), expected, "{name}: {key:?}");
        }
    }
}

#[test]
fn every_shape_is_compiled_to_a_demand_of_that_shape() {
    for name in FIXTURES {
        let (description, document) = both(&fixture(name));
        let operations = operations(&document);
        let (access, findings) = served(&description, SecurityMode::Enforce);
        let wrong = |it: &&Finding| it.severity == Severity::Error;
        assert_eq!(findings.iter().find(wrong), None, "{name}");
        for (operation, compiled_to) in description.operations.iter().zip(&access.operations) {
            let key = (operation.method.to_string(), operation.template.to_string());
            let shape = operations[&key]["x-shape"].as_str().unwrap_or("unreadable");
            let demand = &compiled_to.demand;
            assert_eq!(
                compiled(&access, demand),
                to_compile(shape),
                "{name}: {key:?}"
            );
            let open = operation.security.admits_anonymous();
            assert_eq!(demand.admits_anonymous(), open, "{name}: {key:?}");
        }
        let (access, _) = served(&description, SecurityMode::Off);
        let public = |it: &Demand| *it == Demand::Public;
        assert!(
            access.operations.iter().all(|it| public(&it.demand)),
            "{name}"
        );
    }
}

#[test]
fn credentials_are_looked_for_where_the_definition_says() {
    let (description, _) = both(&fixture("security.yaml"));
    let (access, _) = served(&description, SecurityMode::Enforce);
    let places = |id: &str| -> Vec<_> {
        let mut all = description.operations.iter();
        let index = all.position(|it| it.id.as_deref() == Some(id)).unwrap();
        let Demand::Alternatives { combinations, .. } = &access.operations[index].demand else {
            panic!("{id} demands nothing")
        };
        let all = combinations.iter().flatten();
        all.map(|it| access.schemes[it.scheme].place.clone())
            .collect()
    };
    let header = CredentialPlace::Header("x-api-key".into());
    let query = CredentialPlace::Query("key".into());
    let cookie = CredentialPlace::Cookie("session".into());
    assert_eq!(places("root"), std::slice::from_ref(&header));
    assert_eq!(places("threeKeys"), [header.clone(), query, cookie]);
    let (basic, bearer) = (CredentialPlace::Basic, CredentialPlace::Bearer);
    assert_eq!(
        places("grpcGateway"),
        [header.clone(), basic, header, bearer.clone()]
    );
    let certificate = CredentialPlace::Certificate;
    assert_eq!(places("certificateAndToken"), [certificate, bearer]);
    for id in [
        "body",
        "nameless",
        "digest",
        "schemeless",
        "lost",
        "oursBroken",
    ] {
        assert_eq!(places(id), [CredentialPlace::Nowhere], "{id}");
    }
}

#[test]
fn only_public_and_optional_operations_admit_anonymous_callers() {
    for name in FIXTURES {
        let (description, document) = both(&fixture(name));
        let operations = operations(&document);
        for operation in &description.operations {
            let key = (operation.method.to_string(), operation.template.to_string());
            let shape = operations[&key]["x-shape"].as_str().unwrap_or("unreadable");
            let open = shape == "public" || shape.split(" | ").any(|one| one == "{}");
            assert_eq!(
                operation.security.admits_anonymous(),
                open,
                "{name}: {key:?}"
            );
        }
    }
}

#[test]
fn issuers_are_read_with_keys_and_audiences() {
    let issuer = |file: &str, id: &str| {
        let (description, _) = both(&fixture(file));
        let mut all = description.operations.into_iter();
        let operation = all.find(|it| it.id.as_deref() == Some(id)).unwrap();
        let used = operation.security.alternatives[0][0].clone();
        let found = used.issuer.unwrap();
        assert!(found.place.line > 0);
        let text =
            |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        let config = found.config().unwrap();
        assert_eq!(Some(&config.issuer), found.issuer.as_ref());
        let audiences = found.audiences.join(" ");
        (
            text(&found.issuer),
            text(&found.jwks_uri),
            text(&found.discovery_url),
            audiences,
        )
    };
    let expect = |issuer: &str, jwks: &str, discovery: &str, audiences: &str| {
        (
            issuer.to_owned(),
            jwks.to_owned(),
            discovery.to_owned(),
            audiences.to_owned(),
        )
    };
    let (id, google) = ("https://id.example.com", "https://accounts.example.com");
    let discovery = |of: &str| format!("{of}/.well-known/openid-configuration");
    assert_eq!(
        issuer("security.yaml", "openid"),
        expect(id, "", &discovery(id), "")
    );
    assert_eq!(
        issuer("security.yaml", "ours"),
        expect(id, "", &discovery(id), "books")
    );
    assert_eq!(
        issuer("security.yaml", "google"),
        expect(google, &format!("{google}/keys"), "", "books shop")
    );
    assert_eq!(
        issuer("security-swagger.json", "google"),
        expect(google, "", &discovery(google), "books shop")
    );
    assert_eq!(
        issuer("security-swagger.json", "account"),
        expect(
            "robot@project.iam.example.com",
            "https://keys.example.com/robot",
            "",
            ""
        )
    );
}

#[test]
fn what_is_wrong_with_schemes_and_demands_is_found() {
    let codes = |name: &str| {
        let (description, _) = both(&fixture(name));
        let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
        for finding in &description.findings {
            *counted.entry(finding.code).or_default() += 1;
        }
        counted
    };
    let expected = [
        ("unknown-scheme", 8),
        ("unreadable-security", 6),
        ("unresolved-ref", 1),
        ("unusable-openid-url", 1),
    ];
    assert_eq!(codes("security.yaml"), BTreeMap::from(expected));
    let expected = [("unknown-scheme", 4), ("unused-issuer", 1)];
    assert_eq!(codes("security-swagger.json"), BTreeMap::from(expected));
}

#[test]
fn every_demand_of_every_real_description_is_read_as_written_and_has_a_fixture() {
    let specs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/specs"));
    if !specs.is_dir() {
        println!("skipped: {} is absent", specs.display());
        return;
    }
    let mut shapes: BTreeMap<String, usize> = BTreeMap::new();
    for entry in std::fs::read_dir(specs).unwrap() {
        let path = entry.unwrap().path();
        if !path
            .extension()
            .is_some_and(|it| it == "json" || it == "yaml")
        {
            continue;
        }
        let (description, document) = both(&path);
        let operations = operations(&document);
        let (access, _) = served(&description, SecurityMode::Enforce);
        for (operation, compiled_to) in description.operations.iter().zip(&access.operations) {
            let key = (operation.method.to_string(), operation.template.to_string());
            let expected = written(&document, &operations[&key]);
            assert_eq!(
                compiled(&access, &compiled_to.demand),
                to_compile(&expected),
                "{}: {key:?}",
                path.display()
            );
            assert_eq!(
                read(&operation.security),
                expected,
                "{}: {key:?}",
                path.display()
            );
            *shapes.entry(expected).or_default() += 1;
        }
    }
    let known = known();
    for (shape, count) in &shapes {
        println!("{count:6} {shape}");
        assert!(
            shape == "unreadable" || known.contains(shape),
            "no fixture is `{shape}`"
        );
    }
    assert!(shapes.len() > 5, "{shapes:?}");
}
