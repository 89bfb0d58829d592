//! Tests of the loader over the small descriptions in `fixtures/`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use std::time::Duration;

use super::*;

fn fixture(name: &str) -> Description {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(name);
    load(&path).unwrap()
}

fn operation<'d>(description: &'d Description, method: &str, template: &str) -> &'d Operation {
    let mut all = description.operations.iter();
    all.find(|operation| *operation.method == *method && *operation.template == *template)
        .unwrap_or_else(|| panic!("{method} {template} is not there"))
}

fn codes(description: &Description, code: &str) -> usize {
    description
        .findings
        .iter()
        .filter(|finding| finding.code == code)
        .count()
}

fn text(list: &[Arc<str>]) -> Vec<&str> {
    list.iter().map(|one| &**one).collect()
}

#[test]
fn every_dialect_is_told_apart() {
    for (head, expected) in [
        ("swagger: '2.0'", Dialect::Swagger20),
        ("swagger: 2.0", Dialect::Swagger20),
        ("openapi: 3.0.3", Dialect::OpenApi30),
        ("openapi: 3.1", Dialect::OpenApi31),
        ("openapi: 3.2.1", Dialect::OpenApi32),
    ] {
        let description = load_text("f", head).unwrap();
        assert_eq!(description.dialect, expected, "{head}");
        assert!(description.findings.is_empty());
    }
    let later = load_text("f.yaml", "openapi: 4.0.0").unwrap();
    assert_eq!(
        (later.dialect, codes(&later, "unknown-version")),
        (Dialect::OpenApi32, 1)
    );
    assert_eq!(later.title, "f.yaml");
    for text in ["", "a: 1", "[]", "swagger: '1.2'", "{", "1"] {
        let findings = load_text("f", text).unwrap_err();
        assert!(findings[0].place.line > 0, "{text}");
    }
}

#[test]
fn only_paths_that_can_be_matched_are_routed() {
    let odd = fixture("odd.yaml");
    let routed: Vec<_> = odd
        .operations
        .iter()
        .map(|o| format!("{} {}", o.method, o.template))
        .collect();
    let expected = [
        "GET /users/{id}",
        "PUT /users/{id}",
        "DELETE /users/{id}",
        "QUERY /users/{id}",
        "COPY /users/{id}",
        "POST /users/{id}#label",
        "GET /files/{rest+}",
    ];
    assert_eq!(routed, expected);
    assert_eq!(codes(&odd, "unroutable-key"), 2);
    assert_eq!(codes(&odd, "bad-operation"), 3);
    let labelled = operation(&odd, "POST", "/users/{id}#label");
    assert!(labelled.fragment && &*labelled.route == "/users/{id}");
}

#[test]
fn names_are_kept_made_or_numbered() {
    let odd = fixture("odd.yaml");
    let names: Vec<_> = odd.operations.iter().map(|o| &*o.name).collect();
    let expected = [
        "getUser",
        "users/put",
        "DELETE_/users/{id}",
        "queryUsers",
        "getUser-2",
        "labelled",
        "files",
    ];
    assert_eq!(names, expected);
    assert_eq!(codes(&odd, "duplicate-operation-id"), 1);
    assert_eq!(codes(&odd, "missing-operation-id"), 1);
    let long = "ä".repeat(300);
    let wishes = [
        (Some("a b"), String::new()),
        (Some("a_b"), String::new()),
        (Some(&*long), String::new()),
    ];
    let names = name::names(&wishes);
    assert_eq!((&*names[0], &*names[1]), ("a_b-2", "a_b"));
    assert_eq!(names[2].len(), 128);
}

#[test]
fn servers_multiply_by_their_variables_and_lose_their_slash() {
    let odd = fixture("odd.yaml");
    assert_eq!(
        text(&operation(&odd, "GET", "/users/{id}").bases),
        ["/v1", "/v2", "/relative"]
    );
    assert_eq!(text(&operation(&odd, "GET", "/files/{rest+}").bases), [""]);
    assert_eq!(codes(&odd, "unset-variable"), 1);
    assert_eq!(odd.servers, ["https://eu.example.test/v1/"]);
    let small = fixture("swagger.json");
    assert!(
        small
            .operations
            .iter()
            .all(|operation| text(&operation.bases) == ["/api"])
    );
    assert_eq!(small.servers, ["https://small.example.test/api"]);
    let many = "openapi: 3.0.0\nservers:\n- url: /{a}/{b}\n  variables:\n    a: {default: x, enum: \
        [1,2,3,4,5,6,7,8,9,10,11]}\n    b: {default: y, enum: [1,2,3,4,5,6,7,8,9,10,11]}\n\
        paths: {/p: {get: {operationId: p}}}";
    let many = load_text("f", many).unwrap();
    assert_eq!(many.operations[0].bases.len(), 100);
    assert_eq!(codes(&many, "too-many-bases"), 1);
    let listed: String = (0..101).map(|n| format!("  - url: /v{n}\n")).collect();
    let listed =
        format!("openapi: 3.0.0\nservers:\n{listed}paths: {{/p: {{get: {{operationId: p}}}}}}");
    let listed = load_text("f", &listed).unwrap();
    assert_eq!(listed.operations[0].bases.len(), 100);
    assert_eq!(codes(&listed, "too-many-bases"), 1);
    let none = load_text(
        "f",
        "openapi: 3.0.0\nservers: [{url: '/{a}'}]\npaths: {/p: {get: {operationId: p}}}",
    );
    assert!(none.unwrap().operations.is_empty());
}

#[test]
fn a_server_whose_url_would_grow_without_end_is_ignored() {
    // Filled in, each of these would have gigabytes.
    let (many, value) = ("{a}".repeat(2_500), "x".repeat(1_000_000));
    let variables = format!("variables: {{ a: {{ default: {value} }} }}");
    for url in [format!("https://h/{many}"), "x".repeat(9_000)] {
        let text = format!(
            "openapi: 3.0.0\nservers:\n- url: '{url}'\n  {variables}\n- url: /v1\n\
            paths: {{/p: {{get: {{operationId: p}}}}}}"
        );
        let description = load_text("f", &text).unwrap();
        assert_eq!(self::text(&description.operations[0].bases), ["/v1"]);
        assert_eq!(codes(&description, "long-server-url"), 1);
        assert!(description.servers.is_empty());
    }
}

#[test]
fn settings_of_the_operation_win_over_path_and_document() {
    let odd = fixture("odd.yaml");
    let get = &operation(&odd, "GET", "/users/{id}").settings;
    assert_eq!(get.total, Some(Duration::from_millis(250)));
    assert_eq!(
        (get.retries, get.websocket, get.security_off),
        (Some(2), Some(true), Some(true))
    );
    assert_eq!(
        (get.idle, get.max_body),
        (Some(Duration::from_secs(60)), Some(1 << 20))
    );
    assert_eq!(
        operation(&odd, "PUT", "/users/{id}").settings.total,
        Some(Duration::from_secs(10))
    );
    assert_eq!(odd.settings.total, Some(Duration::from_secs(30)));
    let google = load_text("f", "openapi: 3.0.0\nx-google-backend: {deadline: 5.5}").unwrap();
    assert_eq!(google.settings.total, Some(Duration::from_millis(5_500)));
    let bad = load_text("f", "openapi: 3.0.0\nx-tollgate: {retries: 9}").unwrap();
    assert_eq!(bad.findings.len(), 1);
}

#[test]
fn security_is_the_operations_own_or_the_documents_and_fails_closed() {
    let odd = fixture("odd.yaml");
    let demand = |method, template| &operation(&odd, method, template).security;
    assert!(demand("GET", "/users/{id}").admits_anonymous());
    assert_eq!(demand("PUT", "/users/{id}").alternatives, [vec![]]);
    assert!(demand("DELETE", "/users/{id}").unreadable);
    let inherited = demand("QUERY", "/users/{id}");
    assert!(!inherited.admits_anonymous());
    assert_eq!(
        inherited.alternatives[0][0].kind,
        SchemeKind::ApiKeyHeader("X-Api-Key".into())
    );
    assert_eq!(inherited.alternatives[1][0].kind, SchemeKind::Bearer);
    assert_eq!(text(&inherited.alternatives[1][0].scopes), ["read"]);
    let ghost = demand("POST", "/users/{id}#label");
    assert_eq!(ghost.alternatives[0][0].kind, SchemeKind::Unknown);
    assert_eq!(
        (
            codes(&odd, "unknown-scheme"),
            codes(&odd, "unreadable-security")
        ),
        (1, 1)
    );
    let small = fixture("swagger.json");
    let both = &operation(&small, "GET", "/pets").security.alternatives[0];
    assert_eq!(both[0].kind, SchemeKind::Basic);
    assert_eq!(both[1].kind, SchemeKind::ApiKeyQuery("key".into()));
}

#[test]
fn parameters_and_headers_come_from_operation_and_path() {
    let odd = fixture("odd.yaml");
    let get = operation(&odd, "GET", "/users/{id}");
    assert_eq!(text(&get.headers), ["api_key", "x-trace"]);
    assert!(get.path_parameters[0].multi_segment && !get.path_parameters[0].matrix);
    let query = operation(&odd, "QUERY", "/users/{id}");
    assert_eq!(text(&query.headers), ["x-trace", "x-api-key"]);
    assert!(query.path_parameters[0].matrix);
    let rest = &operation(&odd, "GET", "/files/{rest+}").path_parameters[0];
    assert_eq!(&*rest.name, "rest+");
    assert!(rest.allow_encoded_slash && rest.allow_encoded_percent);
    let undeclared = codes(&odd, "undeclared-parameter");
    assert_eq!(undeclared, 1, "{:?}", odd.findings);
}

#[test]
fn references_lead_through_files_and_those_that_do_not_close() {
    let all = fixture("references.yaml");
    let shared = operation(&all, "GET", "/shared/{id}");
    assert_eq!(shared.id.as_deref(), Some("shared"));
    assert!(shared.path_parameters[0].multi_segment);
    assert!(shared.place.file.ends_with("shared.yaml"));
    assert_eq!(
        operation(&all, "PUT", "/shared/{id}").id.as_deref(),
        Some("beside")
    );
    assert_eq!(
        operation(&all, "GET", "/local").id.as_deref(),
        Some("local")
    );
    assert_eq!(
        operation(&all, "GET", "/alias").id.as_deref(),
        Some("local")
    );
    for template in ["/lost", "/remote"] {
        let lost = operation(&all, "GET", template);
        assert!(lost.id.is_none() && lost.security.unreadable, "{template}");
    }
    assert_eq!(all.operations.len(), 7);
    let bearer = &operation(&all, "GET", "/parameter").security.alternatives[0][0];
    assert_eq!(bearer.kind, SchemeKind::Bearer);
    assert_eq!(codes(&all, "unresolved-ref"), 5, "{:?}", all.findings);
    assert_eq!(all.files.len(), 3);
    assert!(all.findings.iter().all(|finding| finding.place.line > 0));
}

#[test]
fn a_text_alone_reads_no_file() {
    let text = include_str!("../../fixtures/references.yaml");
    let alone = load_text("references.yaml", text).unwrap();
    assert!(alone.files.is_empty());
    assert!(
        !alone
            .operations
            .iter()
            .any(|operation| operation.id.as_deref() == Some("shared"))
    );
}

#[test]
fn a_file_over_the_limit_is_refused_unread_and_as_a_neighbour_closes_its_operation() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large.yaml");
    // A file of holes: nothing is written, and nothing must be read.
    let file = std::fs::File::create(&large).unwrap();
    file.set_len(64 * 1024 * 1024 + 1).unwrap();
    let findings = load(&large).unwrap_err();
    let told = findings[0].to_string();
    assert!(told.starts_with(&large.display().to_string()), "{told}");
    assert!(told.contains("[too-large]: the file has more than 67108864 bytes; split the file"));

    let first = directory.path().join("first.yaml");
    let text = "openapi: 3.1.0\npaths:\n  /p:\n    get: { $ref: large.yaml }\n";
    std::fs::write(&first, text).unwrap();
    let description = load(&first).unwrap();
    assert!(description.operations[0].security.unreadable);
    let finding = &description.findings[0];
    assert_eq!((finding.code, finding.place.line), ("unresolved-ref", 4));
    assert!(
        finding
            .what
            .contains("large.yaml:1:1: the file has more than"),
        "{finding}"
    );
    assert_eq!(finding.remedy, "split the file, or flatten it");
}

#[test]
fn a_description_of_more_than_200_files_says_so_and_serves_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let mut text = "openapi: 3.1.0\npaths:\n".to_owned();
    for number in 1..=201 {
        let item = format!("get: {{ operationId: n{number}, security: [] }}\n");
        std::fs::write(directory.path().join(format!("{number}.yaml")), item).unwrap();
        text.push_str(&format!("  /{number}: {{ $ref: {number}.yaml }}\n"));
    }
    let first = directory.path().join("first.yaml");
    std::fs::write(&first, text).unwrap();
    let description = load(&first).unwrap();
    // The named file is the first of the 200.
    assert_eq!(
        (description.files.len(), description.operations.len()),
        (200, 199)
    );
    let lost: Vec<_> = description
        .findings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(lost.len(), 2);
    let expected = "first.yaml:202:9: warning[unresolved-ref]: path `/200` is not served: `200.yaml` would be file \
        number 201 of this description; join some of its files: a description may have 200 at most";
    assert!(lost[0].ends_with(expected), "{}", lost[0]);
}

#[test]
fn references_that_go_round_or_on_and_on_end() {
    let hops = |count: usize| {
        let mut text = "openapi: 3.1.0\npaths:\n  /p: { $ref: '#/hops/0' }\nhops:\n".to_owned();
        for hop in 1..count {
            text.push_str(&format!("  - {{ $ref: '#/hops/{hop}' }}\n"));
        }
        text.push_str("  - get: { operationId: end, security: [] }\n");
        load_text("f.yaml", &text).unwrap()
    };
    assert_eq!((hops(32).operations.len(), hops(32).findings.len()), (1, 0));
    let lost = hops(33);
    assert_eq!((lost.operations.len(), lost.findings.len()), (0, 1));
    let told = lost.findings[0].to_string();
    assert!(told.starts_with(
        "f.yaml:3:7: warning[unresolved-ref]: path `/p` is not served: more than 32 references"
    ));
    assert!(told.ends_with("correct the `$ref`"));
}

#[test]
fn a_missing_file_is_named() {
    let findings = load(Path::new("no-such-file.yaml")).unwrap_err();
    assert_eq!(findings[0].code, "unreadable");
    assert_eq!(&*findings[0].place.file, "no-such-file.yaml");
}
