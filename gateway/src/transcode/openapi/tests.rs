//! The document of a service with everything in it.

use std::path::Path;

use serde_json::{Value, json};
use tollgate_policy::classify::Classifier;
use tollgate_policy::openapi;
use tollgate_policy::settings::read_api;

use super::*;
use crate::transcode::face::{Described, describe_now};

const PROTO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../openapi-specs/bookstore.proto"
);

/// The API file with these lines below `grpc:`, and those beside it.
fn described(directory: &Path, grpc: &str, beside: &str) -> (ApiConfig, Described) {
    let text = format!("upstream: grpc://a:1\ngrpc:\n  protos: [{PROTO}]\n{grpc}\n{beside}\n");
    let file = directory.join("books.yaml");
    std::fs::write(&file, text).unwrap();
    let config = read_api(&file, &|_| None).unwrap();
    let described = describe_now(&config).unwrap();
    (config, described)
}

fn written(grpc: &str, beside: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let (config, described) = described(directory.path(), grpc, beside);
    let face = described.face.as_ref().unwrap();
    serde_json::to_value(document(&config, &described.description, face)).unwrap()
}

#[test]
fn the_document_loads_in_our_own_loader_with_every_operation_and_no_findings() {
    let directory = tempfile::tempdir().unwrap();
    let (config, described) = described(directory.path(), "", "base_path: /shop");
    let face = described.face.as_ref().unwrap();
    let whole = document(&config, &described.description, face);
    let text = serde_json::to_string_pretty(&whole).unwrap();
    let read = openapi::load_text("books.json", &text).unwrap();
    assert_eq!(read.findings, []);
    let ids: Vec<_> = read
        .operations
        .iter()
        .map(|it| it.id.as_deref().unwrap())
        .collect();
    for method in &face.schema.services()[0].methods {
        let id = format!("Bookstore_{}", method.name);
        assert!(ids.contains(&&*id), "{id}: {ids:?}");
    }
    assert_eq!(ids.len(), 14, "{ids:?}");
    assert!(read.operations.iter().all(|it| *it.bases[0] == *"/shop"));
    // What is a call by one of the two is the same call by the other.
    let (ours, _) = Classifier::compile(&described.description);
    let (theirs, overlaps) = Classifier::compile(&read);
    assert!(
        overlaps
            .iter()
            .all(|it| it.severity == tollgate_policy::Severity::Note)
    );
    for (method, path, id) in [
        ("GET", "/v1/shelves/1/books/2", "Bookstore_GetBook"),
        ("GET", "/v1/books/978", "Bookstore_GetBook2"),
        ("POST", "/v1/shelves/1/books/2:move", "Bookstore_MoveBook"),
        ("GET", "/v1/shelves/1/books:watch", "Bookstore_WatchBooks"),
        (
            "POST",
            "/bookstore.v1.Bookstore/GetStats",
            "Bookstore_GetStats",
        ),
    ] {
        let ours = ours.classify(method, path).unwrap().operation;
        let base = format!("/shop{path}");
        let theirs = theirs.classify(method, &base).unwrap().operation;
        assert_eq!(read.operations[theirs].id.as_deref(), Some(id));
        let name = &described.description.operations[ours].name;
        let method = id.trim_end_matches('2').replace('_', "/");
        assert!(name.ends_with(&method), "{name} {id}");
    }
}

#[test]
fn the_document_beside_its_own_descriptors_differs_in_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (config, first) = described(directory.path(), "", "");
    let whole = document(&config, &first.description, first.face.as_ref().unwrap());
    let spec = directory.path().join("books.json");
    std::fs::write(&spec, serde_json::to_string(&whole).unwrap()).unwrap();
    let (_, joined) = described(directory.path(), "", "spec: books.json");
    let warnings = joined.description.findings.iter();
    let warnings: Vec<_> = warnings
        .filter(|it| it.severity > tollgate_policy::Severity::Note)
        .collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
    assert_eq!(
        joined.description.operations.len(),
        first.description.operations.len()
    );
}

#[test]
fn schemas_are_those_of_proto_json() {
    let whole = written("", "");
    let book = &whole["components"]["schemas"]["bookstore.v1.Book"];
    let property = |name: &str| &book["properties"][name];
    assert_eq!(book["description"], "A book on a shelf.");
    assert_eq!(property("price")["type"], "string");
    assert_eq!(property("price")["format"], "int64");
    assert_eq!(
        property("labels")["additionalProperties"],
        json!({"type": "string"})
    );
    assert_eq!(
        property("published"),
        &json!({"type": "string", "format": "date-time"})
    );
    assert_eq!(property("rating")["format"], "double");
    assert_eq!(
        property("authors")["items"]["$ref"],
        "#/components/schemas/bookstore.v1.Author"
    );
    let isbn = property("isbn")["description"].as_str().unwrap();
    assert!(isbn.contains("`number`"), "{isbn}");
    let formats = &whole["components"]["schemas"]["bookstore.v1.Format"]["enum"];
    assert_eq!(formats[1], "FORMAT_PAPERBACK");
    let responses = &whole["paths"]["/v1/shelves"]["get"]["responses"];
    assert_eq!(
        responses["4XX"],
        json!({"$ref": "#/components/responses/Status"})
    );
    assert_eq!(responses["4XX"], responses["default"]);
    let error = &whole["components"]["responses"]["Status"];
    let schema = &error["content"]["application/json"]["schema"];
    assert_eq!(schema["$ref"], "#/components/schemas/google.rpc.Status");
}

#[test]
fn parameters_bodies_and_answers_are_those_of_the_rules() {
    let whole = written("", "");
    let operation = |path: &str, method: &str| &whole["paths"][path][method];
    let names = |operation: &Value| -> Vec<String> {
        let all = operation["parameters"].as_array().unwrap().iter();
        all.map(|it| {
            format!(
                "{} {}",
                it["in"].as_str().unwrap(),
                it["name"].as_str().unwrap()
            )
        })
        .collect()
    };
    assert_eq!(
        names(operation("/v1/shelves/{shelf}/books", "get")),
        [
            "path shelf",
            "query pageSize",
            "query pageToken",
            "query formats",
            "query filter.title",
            "query filter.publishedAfter"
        ]
    );
    let update = operation("/v1/shelves/{shelf}/books/{book}", "patch");
    assert_eq!(
        names(update),
        ["path shelf", "path book", "query updateMask"]
    );
    let body = &update["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["$ref"], "#/components/schemas/bookstore.v1.Book");
    let watch = operation("/v1/shelves/{shelf}/books:watch", "get");
    let answers = &watch["responses"]["200"]["content"];
    let event = json!({"$ref": "#/components/schemas/bookstore.v1.BookEvent"});
    assert_eq!(answers["application/json"]["schema"]["items"], event);
    assert_eq!(answers["application/x-ndjson"]["schema"], event);
    assert!(answers["text/event-stream"].is_object());
    let cover = operation("/v1/shelves/{shelf}/books/{book}/cover", "get");
    let raw = json!({"*/*": {"schema": {"type": "string", "format": "binary"}}});
    assert_eq!(cover["responses"]["200"]["content"], raw);
    let put = operation("/v1/shelves/{shelf}/books/{book}/cover", "put");
    assert_eq!(put["requestBody"]["content"], raw);
    let import = operation("/v1/books:import", "post");
    assert_eq!(
        import["requestBody"]["content"]["application/json"]["schema"]["type"],
        "array"
    );
    assert_eq!(watch["security"], json!([{"key": []}, {"token": []}]));
    let schemes = &whole["components"]["securitySchemes"];
    assert_eq!(
        schemes["key"],
        json!({"type": "apiKey", "in": "header", "name": "x-api-key"})
    );
}

#[test]
fn the_profile_changes_what_is_written() {
    let grpc = "  profile: { names: proto, int64: number, strip_enum_prefix: on, errors: aip193 }
  callers: anyone
  methods: { bookstore.v1.Bookstore/ListShelves: { names: json } }";
    let whole = written(grpc, "");
    let schemas = &whole["components"]["schemas"];
    let list = &schemas["bookstore.v1.ListBooksResponse"]["properties"];
    assert!(list["next_page_token"].is_object(), "{list}");
    assert_eq!(schemas["bookstore.v1.Format"]["enum"][1], "PAPERBACK");
    let price = &schemas["bookstore.v1.Book"]["properties"]["price"];
    assert_eq!(
        (&price["type"], &price["format"]),
        (&json!("integer"), &json!("int64"))
    );
    let error = &whole["components"]["responses"]["Error"];
    let schema = &error["content"]["application/json"]["schema"];
    assert!(schema["properties"]["error"].is_object());
    assert_eq!(whole["paths"]["/v1/shelves"]["get"]["security"], json!([]));
    let numbers = written("  profile: { enums: number }", "");
    let format = &numbers["components"]["schemas"]["bookstore.v1.Format"];
    assert_eq!(format["enum"], json!([0, 1, 2, 3]));
}
