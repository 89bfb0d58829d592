//! HTTP rules over a service with every kind of them: what is served, how calls become messages, and what is told of rules that fit nothing.

use std::path::{Path, PathBuf};

use tollgate_policy::classify::Classifier;
use tollgate_policy::settings::{ApiConfig, read_api};
use tollgate_policy::{Finding, Severity};

use super::super::{Profile, write_json};
use super::*;

/// Files of an API in a directory of their own.
struct World(tempfile::TempDir);

const SERVICE: &str = r#"syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

service Books {
  // Finds a book.
  rpc Get(GetBook) returns (Book) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {
      get: "/v1/{name=shelves/*/books/*}"
      additional_bindings { get: "/v1/books/{id}" response_body: "tags" }
      additional_bindings { custom { kind: "*" path: "/v1/any/{id}" } }
    };
  }
  rpc List(ListBooks) returns (Books_) {
    option (google.api.http) = { get: "/v1/{parent=shelves/*}/books" response_body: "books" };
  }
  rpc Create(UpdateBook) returns (Book) {
    option (google.api.http) = { post: "/v1/shelves/{book.shelf}/books" body: "book" };
  }
  rpc Update(UpdateBook) returns (Book) {
    option (google.api.http) = { patch: "/v1/{book.name=shelves/*/books/*}" body: "book" };
  }
  rpc Publish(GetBook) returns (Book) {
    option (google.api.http) = { post: "/v1/books/{id}:publish" body: "*" };
  }
  rpc Read(GetBook) returns (google.api.HttpBody) {
    option (google.api.http) = { get: "/v1/files/{name=**}" };
  }
  rpc Upload(UploadBook) returns (Book) {
    option (google.api.http) = { post: "/v1/upload/{name}" body: "file" };
  }
  rpc Store(google.api.HttpBody) returns (Book) {
    option (google.api.http) = { post: "/v1/raw" body: "*" };
  }
  rpc Plain(GetBook) returns (Book);
  rpc Import(stream Book) returns (Books_) {
    option (google.api.http) = { post: "/v1/import" body: "*" };
  }
}

message GetBook { string name = 1; int64 id = 2; bool draft = 3; State state = 4; Filter filter = 5; }
message Filter { repeated string tags = 1; google.protobuf.Timestamp after = 2; repeated Filter more = 3; map<string, string> labels = 4; string full_text = 5 [json_name = "q"]; google.protobuf.Int32Value pages = 6; }
message ListBooks { string parent = 1; int32 page_size = 2; repeated State states = 3; repeated int32 years = 4; Filter filter = 5; bytes token = 6; }
message Books_ { repeated Book books = 1; }
message Book { string name = 1; string shelf = 2; string title = 3; repeated string tags = 4; Author author = 5; State state = 6; }
message Author { string first_name = 1; string last_name = 2; }
message UpdateBook { Book book = 1; google.protobuf.FieldMask update_mask = 2; string reason = 3; }
message UploadBook { string name = 1; google.api.HttpBody file = 2; string title = 3; }
enum State { STATE_UNSPECIFIED = 0; STATE_OPEN = 1; STATE_GONE = 2; }
"#;

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.write("shop.proto", SERVICE);
        world
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// An API with these lines below `grpc:`, and those beside it.
    fn config(&self, grpc: &str, beside: &str) -> ApiConfig {
        let text = format!(
            "upstream: grpc://127.0.0.1:9000\ngrpc:\n  protos: [shop.proto]\n{grpc}\n{beside}\n"
        );
        let file = self.write("books.yaml", &text);
        read_api(&file, &|_| None).unwrap_or_else(|findings| panic!("{findings:#?}"))
    }

    fn describe(&self, grpc: &str, beside: &str) -> Described {
        let described = describe(
            &self.config(grpc, beside),
            &Reflected::File(Path::new("")),
            &mut Vec::new(),
        );
        described.unwrap_or_else(|findings| panic!("{findings:#?}"))
    }

    fn served(&self, grpc: &str, beside: &str) -> Served {
        let Described { description, face } = self.describe(grpc, beside);
        let (classifier, ties) = Classifier::compile(&description);
        let mut findings = description.findings.clone();
        findings.extend(ties.into_iter().filter(|it| it.severity > Severity::Note));
        Served {
            classifier,
            face: face.unwrap(),
            description,
            findings,
        }
    }
}

/// An API as it is served.
struct Served {
    classifier: Classifier,
    face: Face,
    description: tollgate_policy::openapi::Description,
    findings: Vec<Finding>,
}

impl Served {
    /// The method a call is, and the JSON of the message it becomes.
    fn call(&self, method: &str, target: &str, body: &str) -> Result<String, String> {
        self.call_with(method, target, body, None)
    }

    fn call_with(
        &self,
        method: &str,
        target: &str,
        body: &str,
        content_type: Option<&str>,
    ) -> Result<String, String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let matched = self.classifier.classify(method, path);
        let matched = matched.map_err(|why| format!("{why:?}"))?;
        let refused = matched.encoded_slash_refused
            || matched.encoded_percent_refused
            || matched.semicolon_refused;
        assert!(!refused, "{target}");
        let face = self.face.method(matched.operation).unwrap();
        let binding = face.binding(matched.route).ok_or("no REST")?;
        let body = Body {
            content_type,
            bytes: body.as_bytes(),
        };
        let wire = binding.request(&self.face.schema, &face.reading, path, query, body);
        let wire = wire.map_err(|why| why.to_string())?;
        let mut json = Vec::new();
        let profile = Profile::default();
        write_json(&self.face.schema, face.input, &profile, &wire, &mut json).unwrap();
        let name = face.path.as_str().rsplit('/').next().unwrap().to_owned();
        Ok(format!("{name} {}", String::from_utf8(json).unwrap()))
    }

    fn calls(&self, table: &[(&str, &str, &str, &str)]) {
        for (method, target, body, expected) in table {
            let found = self.call(method, target, body).unwrap_or_else(|why| why);
            assert_eq!(found, *expected, "{method} {target} {body}");
        }
    }
}

fn told(findings: &[Finding]) -> String {
    findings.iter().map(|it| format!("{it}\n")).collect()
}

/// Must-have: what is neither in the path nor in the body comes from the query.
#[test]
fn fields_come_from_the_path_the_body_and_the_rest_from_the_query() {
    let served = World::new().served("", "");
    assert!(served.findings.is_empty(), "{}", told(&served.findings));
    served.calls(&[
        (
            "GET",
            "/v1/shelves/1/books/2",
            "",
            r#"Get {"name":"shelves/1/books/2"}"#,
        ),
        (
            "GET",
            "/v1/books/7?draft=true&state=STATE_OPEN",
            "",
            r#"Get {"id":"7","draft":true,"state":"STATE_OPEN"}"#,
        ),
        (
            "POST",
            "/v1/shelves/s/books?reason=new",
            r#"{"title":"T"}"#,
            r#"Create {"book":{"shelf":"s","title":"T"},"reason":"new"}"#,
        ),
        (
            "POST",
            "/v1/books/7:publish",
            r#"{"draft":true}"#,
            r#"Publish {"id":"7","draft":true}"#,
        ),
        ("GET", "/v1/files/a/b/c", "", r#"Read {"name":"a/b/c"}"#),
        ("GET", "/v1/files", "", "Read {}"),
        ("GET", "/v1/books/x", "", "id: expected a number"),
    ]);
}

/// Must-have: `body: "*"` leaves no query parameters, no `body` no body.
#[test]
fn a_whole_body_leaves_no_query_parameters_and_without_a_body_none_may_come() {
    let served = World::new().served("", "");
    served.calls(&[
        (
            "POST",
            "/v1/books/7:publish?draft=true",
            "{}",
            "draft: this call takes no query parameters, only a body",
        ),
        (
            "GET",
            "/v1/books/7",
            "{}",
            "a body came, and this call has none",
        ),
        ("POST", "/v1/books/7:publish", "", r#"Publish {"id":"7"}"#),
        (
            "POST",
            "/v1/shelves/s/books?book.title=T",
            "{}",
            "book.title: it is given by the body",
        ),
    ]);
}

/// Must-have: `additional_bindings`, and `custom` kinds with `*` for any method.
#[test]
fn additional_bindings_and_custom_kinds_lead_to_the_same_method() {
    let served = World::new().served("", "");
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD"] {
        let found = served.call(method, "/v1/any/5", "").unwrap();
        assert_eq!(found, r#"Get {"id":"5"}"#);
    }
    let operations: Vec<_> = served
        .description
        .operations
        .iter()
        .map(|it| &*it.name)
        .collect();
    assert_eq!(operations.len(), 10);
    assert_eq!(operations[0], "shop.v1.Books/Get");
    let own = served
        .classifier
        .classify("POST", "/shop.v1.Books/Get")
        .unwrap();
    let get = served
        .classifier
        .classify("GET", "/shop.v1.Books/Get")
        .unwrap();
    assert_eq!((own.operation, get.operation), (0, 0));
    let face = served.face.method(0).unwrap();
    assert_eq!(
        (face.way(own.route), face.way(get.route)),
        (Way::Rpc, Way::Rpc)
    );
    assert!(face.binding(own.route).is_none());
    // By GET only where nothing is changed.
    assert!(
        served
            .classifier
            .classify("GET", "/shop.v1.Books/List")
            .is_err()
    );
}

/// Must-have: a method without a rule is POST /package.Service/Method.
#[test]
fn a_method_without_a_rule_is_called_by_post_under_its_own_name() {
    let served = World::new().served("", "");
    served.calls(&[(
        "POST",
        "/shop.v1.Books/Plain",
        r#"{"id":"3"}"#,
        r#"Plain {"id":"3"}"#,
    )]);
}

/// Must-have: query parameters are nested by dots, repeated, and spelled either way or by json_name.
#[test]
fn query_parameters_are_nested_repeated_in_both_spellings_and_of_well_known_types() {
    let served = World::new().served("", "");
    served.calls(&[
        (
            "GET",
            "/v1/shelves/1/books?page_size=5&states=STATE_OPEN&states=2&years=1&years=2",
            "",
            r#"List {"parent":"shelves/1","pageSize":5,"states":["STATE_OPEN","STATE_GONE"],"years":[1,2]}"#,
        ),
        (
            "GET",
            "/v1/shelves/1/books?pageSize=5&filter.tags=a&filter.tags=b+c&filter.q=x&filter.full_text=x",
            "",
            "filter.full_text: is given twice",
        ),
        (
            "GET",
            "/v1/shelves/1/books?filter.q=x%26y&filter.after=2026-01-02T03:04:05Z&filter.pages=7&token=aGk",
            "",
            r#"List {"parent":"shelves/1","filter":{"after":"2026-01-02T03:04:05Z","q":"x&y","pages":7},"token":"aGk="}"#,
        ),
        (
            "GET",
            "/v1/shelves/1/books?filter.more=x",
            "",
            "filter.more: it cannot be given as a query parameter",
        ),
        (
            "GET",
            "/v1/shelves/1/books?filter.labels=x",
            "",
            "filter.labels: it cannot be given as a query parameter",
        ),
        (
            "GET",
            "/v1/shelves/1/books?page_size=5&page_size=6",
            "",
            "page_size: is given twice",
        ),
        (
            "GET",
            "/v1/shelves/1/books?pagesize=5",
            "",
            "pagesize: there is no such query parameter",
        ),
    ]);
}

/// Must-have: unknown query parameters are refused, or ignored by API or method.
#[test]
fn unknown_query_parameters_are_ignored_where_the_profile_says_so() {
    let served = World::new().served("  profile: { unknown_query: ignore }", "");
    served.calls(&[
        (
            "GET",
            "/v1/books/7?nothing=1&draft=true",
            "",
            r#"Get {"id":"7","draft":true}"#,
        ),
        (
            "POST",
            "/v1/books/7:publish?draft=true",
            "",
            r#"Publish {"id":"7"}"#,
        ),
        (
            "GET",
            "/v1/books/7?draft=2",
            "",
            "draft: expected true or false",
        ),
    ]);
    let own = World::new().served(
        "  methods: { shop.v1.Books/Get: { unknown_query: ignore } }",
        "",
    );
    assert!(own.call("GET", "/v1/books/7?nothing=1", "").is_ok());
    assert!(
        own.call("GET", "/v1/shelves/1/books?nothing=1", "")
            .is_err()
    );
}

/// Must-have: path beats body and query, and a collision is refused.
#[test]
fn the_path_beats_query_and_body_and_a_collision_is_refused() {
    let served = World::new().served("", "");
    served.calls(&[
        (
            "GET",
            "/v1/books/7?id=8",
            "",
            "id: differs between path and query",
        ),
        (
            "POST",
            "/v1/books/7:publish",
            r#"{"id":8}"#,
            "id: differs between the body and the path or query",
        ),
        (
            "PATCH",
            "/v1/shelves/1/books/2",
            r#"{"name":"shelves/1/books/3"}"#,
            "book.name: differs between the body and the path or query",
        ),
        // A resource that names itself says nothing new.
        (
            "PATCH",
            "/v1/shelves/1/books/2",
            r#"{"name":"shelves/1/books/2"}"#,
            r#"Update {"book":{"name":"shelves/1/books/2"}}"#,
        ),
    ]);
}

/// Must-have: the raw path is split before it is decoded, so `%2F` and `%3A` separate nothing; `fully_decode_reserved_expansion` changes
/// the default.
#[test]
fn values_of_the_path_are_decoded_exactly_once_and_keep_an_encoded_slash_where_they_span_segments()
{
    let world = World::new();
    let served = world.served("", "");
    served.calls(&[
        (
            "GET",
            "/v1/shelves/a%2Fb/books/c%20d",
            "",
            r#"Get {"name":"shelves/a%2Fb/books/c d"}"#,
        ),
        ("GET", "/v1/files/a%2fb/c", "", r#"Read {"name":"a%2fb/c"}"#),
        ("POST", "/v1/upload/a%2Fb", "", r#"Upload {"name":"a/b"}"#),
        (
            "POST",
            "/v1/upload/a%252Fb",
            "",
            r#"Upload {"name":"a%2Fb"}"#,
        ),
        ("POST", "/v1/upload/a;b", "", r#"Upload {"name":"a;b"}"#),
        ("GET", "/v1/books/7%3Apublish", "", "id: expected a number"),
    ]);
    world.write(
        "rules.yaml",
        "http: { fully_decode_reserved_expansion: true }\n",
    );
    let fully = world.served("  rules: rules.yaml", "");
    fully.calls(&[("GET", "/v1/files/a%2Fb/c", "", r#"Read {"name":"a/b/c"}"#)]);
}

/// Must-have: rules of a service configuration win over annotations, the last one over the others.
#[test]
fn a_service_configuration_wins_over_annotations_and_its_last_rule_over_the_others() {
    let world = World::new();
    let rules = "type: google.api.Service
http:
  rules:
    - selector: shop.v1.Books.Get
      get: /v2/first/{id}
    - selector: shop.v1.Books.Get
      get: /v2/books/{id}
      additional_bindings: [{ custom: { kind: report, path: /v2/report } }]
    - { selector: shop.v1.Books.Gte, get: /v2/x }
    - { selector: shop.v1.Books.Plain, put: /v2/plain, body: '*', bdy: 1 }
    - { get: /v2/y }
";
    world.write("rules.yaml", rules);
    let served = world.served("  rules: rules.yaml", "");
    served.calls(&[
        ("GET", "/v2/books/7", "", r#"Get {"id":"7"}"#),
        ("REPORT", "/v2/report?id=1", "", r#"Get {"id":"1"}"#),
        ("PUT", "/v2/plain", r#"{"id":1}"#, r#"Plain {"id":"1"}"#),
        ("GET", "/v2/first/7", "", "NoTemplate"),
        ("GET", "/v1/any/7", "", "NoTemplate"),
    ]);
    let told = told(&served.findings);
    let file = world.0.path().join("rules.yaml");
    for (place, words) in [
        (
            "9:7",
            "no method `shop.v1.Books.Gte`; did you mean `shop.v1.Books.Get`?",
        ),
        ("10:72", "`bdy` is no field of an HTTP rule"),
        ("11:7", "a rule has no `selector`"),
    ] {
        let start = format!("{}:{place}: warning", file.display());
        let line = told.lines().find(|line| line.starts_with(&start));
        assert!(
            line.is_some_and(|line| line.contains(words)),
            "{place} {words}\n{told}"
        );
    }
}

/// Must-have: lists, maps and messages are no path variables, `additional_bindings` go one level deep, and each mistake is told with its
/// line.
#[test]
fn every_rule_that_fits_nothing_is_told_with_its_line() {
    let table = [
        (r#"get: "/v1/{nme}""#, "{nme}", "did you mean `name`?"),
        (r#"get: "/v1/{tags}""#, "is a list", "scalar"),
        (r#"get: "/v1/{author}""#, "is a message", "scalar"),
        (r#"get: "/v1/{tags.x}""#, "holds many", ""),
        (r#"get: "/v1/{labels}""#, "is a map", "scalar"),
        (
            r#"get: "/v1/{author.nam}""#,
            "no field `nam`",
            "did you mean",
        ),
        (
            r#"post: "/v1/x" body: "author.last_name""#,
            "no field of the message itself",
            "top",
        ),
        (
            r#"post: "/v1/x" body: "authr""#,
            "no field `authr`",
            "did you mean `author`?",
        ),
        (
            r#"post: "/v1/{name}" body: "name""#,
            "in the path and in `body`",
            "one of them",
        ),
        (r#"get: "/v1/x" body: "*""#, "GET has no body", "remove"),
        (
            r#"get: "/v1/x" response_body: "titel""#,
            "no field `titel`",
            "did you mean `title`?",
        ),
        (r#"get: "/v1/a b""#, "cannot stand", "write a path"),
        (r#"get: "/v1/**/b""#, "not its last segment", "write a path"),
        (r#"body: "*""#, "no pattern", "correct"),
        (
            r#"custom { kind: "A B" path: "/x" }"#,
            "no HTTP method",
            "correct",
        ),
        (
            r#"get: "/a" additional_bindings { get: "/b" additional_bindings { get: "/c" } }"#,
            "within `additional_bindings`",
            "correct",
        ),
    ];
    for (rule, words, remedy) in table {
        let world = World::new();
        let text = format!(
            "syntax = \"proto3\";\npackage a;\nimport \"google/api/annotations.proto\";\n\
             message M {{ string name = 1; repeated string tags = 2; A author = 3; map<string, string> labels = 4; string title = 5; }}\n\
             message A {{ string last_name = 1; string name = 2; }}\nservice S {{\n\
             rpc One(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }}\n}}\n"
        );
        let file = world.write("shop.proto", &text);
        let served = world.served("", "");
        let found = served.findings.first().unwrap_or_else(|| panic!("{rule}"));
        let told = found.to_string();
        assert!(
            told.starts_with(&format!("{}:7: warning[http-rule]", file.display())),
            "{told}"
        );
        assert!(
            told.contains(words) && told.contains(remedy),
            "{rule}: {told}"
        );
        // The method is still a gRPC method.
        assert!(served.classifier.classify("POST", "/a.S/One").is_ok());
    }
}

/// Must-have: templates that tie are told at load.
#[test]
fn a_client_stream_needs_a_body_and_templates_that_tie_are_told() {
    let world = World::new();
    let text = r#"syntax = "proto3";
package a;
import "google/api/annotations.proto";
message M { string name = 1; }
service S {
  rpc In(stream M) returns (M) { option (google.api.http) = { get: "/v1/in" }; }
  rpc One(M) returns (M) { option (google.api.http) = { get: "/v1/{name}" }; }
  rpc Two(M) returns (M) { option (google.api.http) = { get: "/v1/{name=*}" }; }
}
"#;
    let file = world.write("shop.proto", text);
    let served = world.served("", "");
    let told = told(&served.findings);
    let at = |line: u32| format!("{}:{line}: warning", file.display());
    assert!(
        told.contains(&format!("{}[http-rule]: a.S/In: `GET /v1/in`", at(6))),
        "{told}"
    );
    assert!(
        told.contains(&format!("{}[identical-template]", at(8))),
        "{told}"
    );
    assert_eq!(served.findings.len(), 2, "{told}");
}

/// Must-have: of templates that overlap the most specific is taken, whatever their order.
#[test]
fn of_templates_that_overlap_the_most_specific_is_taken() {
    let methods = [
        ("All", "/v1/{name=**}"),
        ("Shelf", "/v1/{name=shelves/*}"),
        ("Below", "/v1/{name=shelves/**}"),
        ("Best", "/v1/{name=shelves/best}"),
        ("Any", "/v1/{name=*/*}"),
    ];
    let table = [
        ("/v1/shelves/best", "Best"),
        ("/v1/shelves/other", "Shelf"),
        ("/v1/shelves/a/b", "Below"),
        ("/v1/books/1", "Any"),
        ("/v1/books", "All"),
        ("/v1/books/1/2", "All"),
    ];
    for turn in 0..methods.len() {
        let mut ordered = methods;
        ordered.rotate_left(turn);
        let rules: String = ordered
            .iter()
            .map(|(name, path)| {
                format!("rpc {name}(M) returns (M) {{ option (google.api.http) = {{ get: \"{path}\" }}; }}\n")
            })
            .collect();
        let world = World::new();
        let head = "syntax = \"proto3\";\npackage a;\nimport \"google/api/annotations.proto\";\n";
        let text = format!("{head}message M {{ string name = 1; }}\nservice S {{\n{rules}}}\n");
        world.write("shop.proto", &text);
        let served = world.served("", "");
        assert!(served.findings.is_empty(), "{}", told(&served.findings));
        for (path, method) in table {
            let name = path.trim_start_matches("/v1/");
            let expected = format!(r#"{method} {{"name":"{name}"}}"#);
            assert_eq!(served.call("GET", path, "").unwrap(), expected, "{turn}");
        }
    }
}

/// Must-have: `response_body` of any type.
#[test]
fn the_answer_may_be_a_field_of_any_type() {
    let served = World::new().served("", "");
    let field = |path: &str| {
        let matched = served.classifier.classify("GET", path).unwrap();
        let face = served.face.method(matched.operation).unwrap();
        let binding = face.binding(matched.route).unwrap();
        let field = binding
            .response_body
            .map(|id| &*served.face.schema.field(id).name);
        (field, binding.raw_response)
    };
    assert_eq!(field("/v1/books/7"), (Some("tags"), false));
    assert_eq!(field("/v1/shelves/1/books"), (Some("books"), false));
    assert_eq!(field("/v1/any/7"), (None, false));
    assert_eq!(field("/v1/files/x"), (None, true));
}

/// Must-have: HttpBody as request and as a field, never filled from the query.
#[test]
fn a_raw_body_is_taken_as_it_is_and_never_from_the_query() {
    let served = World::new().served("", "");
    let png = Some("image/png");
    let whole = served
        .call_with("POST", "/v1/raw", "\u{1}{not json", png)
        .unwrap();
    assert_eq!(
        whole,
        r#"Store {"contentType":"image/png","data":"AXtub3QganNvbg=="}"#
    );
    let field = served
        .call_with("POST", "/v1/upload/n?title=T", "hi", png)
        .unwrap();
    let expected =
        r#"Upload {"name":"n","file":{"contentType":"image/png","data":"aGk="},"title":"T"}"#;
    assert_eq!(field, expected);
    served.calls(&[
        (
            "POST",
            "/v1/upload/n?file.data=aGk",
            "",
            "file.data: it is given by the body",
        ),
        (
            "POST",
            "/v1/raw?data=aGk",
            "",
            "data: this call takes no query parameters, only a body",
        ),
    ]);
}

/// Must-have: `update_mask` passes as given, and is derived on PATCH as an option.
#[test]
fn an_update_mask_is_derived_from_the_fields_of_a_patch_where_the_profile_says_so() {
    let derive = World::new().served("  profile: { update_mask: derive }", "");
    let body = r#"{"title":"T","author":{"lastName":"L"},"tags":[]}"#;
    let found = derive.call("PATCH", "/v1/shelves/1/books/2", body).unwrap();
    assert!(
        found.ends_with(r#""updateMask":"author.lastName,tags,title"}"#),
        "{found}"
    );
    let given = derive
        .call("PATCH", "/v1/shelves/1/books/2?updateMask=title", body)
        .unwrap();
    assert!(given.ends_with(r#""updateMask":"title"}"#), "{given}");
    for (method, path) in [
        ("PATCH", "/v1/shelves/1/books/2"),
        ("POST", "/v1/shelves/1/books"),
    ] {
        let body = if method == "PATCH" { "{}" } else { body };
        let found = derive.call(method, path, body).unwrap();
        assert!(!found.contains("updateMask"), "{found}");
    }
    let as_given = World::new().served("", "");
    let found = as_given
        .call("PATCH", "/v1/shelves/1/books/2", body)
        .unwrap();
    assert!(!found.contains("updateMask"), "{found}");
}

#[test]
fn services_that_are_not_named_are_not_served() {
    let served = World::new().served("  services: [shop.v1.Bokos]", "");
    assert!(served.description.operations.is_empty());
    let told = told(&served.findings);
    assert!(
        told.contains("no service `shop.v1.Bokos`; did you mean `shop.v1.Books`?"),
        "{told}"
    );
}

#[test]
fn callers_show_what_the_api_file_says() {
    let world = World::new();
    let security = |grpc: &str| {
        world.describe(grpc, "").description.operations[0]
            .security
            .clone()
    };
    let names = |grpc: &str| {
        let alternatives = security(grpc).alternatives.into_iter();
        let names = alternatives.map(|all| all[0].name.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(""), ["key", "token"]);
    assert_eq!(names("  callers: [certificate]"), ["certificate"]);
    assert!(security("  callers: anyone").admits_anonymous());
}

const OPENAPI: &str = "openapi: 3.0.3
info: { title: Books, version: '1' }
security: [{ key: [] }]
components: { securitySchemes: { key: { type: apiKey, in: query, name: k } } }
paths:
  /v1/shelves/{shelf}/books/{book}: { get: { operationId: getIt, x-tollgate: { retries: 3 } } }
  /v1/books/{book_id}: { get: { operationId: Books_Get2 } }
  /v1/elsewhere: { post: { operationId: Books_Publish, security: [] } }
  /v1/nothing: { get: { operationId: nothing } }
";

#[test]
fn an_openapi_file_gives_policy_and_what_differs_is_told() {
    let world = World::new();
    world.write("spec.yaml", OPENAPI);
    let beside = "spec: spec.yaml\noperations: { shop.v1.Books/Get: { max_body: 7 } }";
    let served = world.served("", beside);
    let operations = &served.description.operations;
    let by_name = |name: &str| operations.iter().find(|it| &*it.name == name).unwrap();
    let get = by_name("getIt");
    assert_eq!(get.grpc.as_deref(), Some("shop.v1.Books/Get"));
    assert_eq!(get.settings.retries, Some(3));
    assert_eq!(&*get.template, "/v1/shelves/{shelf}/books/{book}");
    let config = world.config("", beside);
    assert_eq!(config.settings_for(get).max_body, Some(7));
    assert!(by_name("Books_Publish").security.admits_anonymous());
    // Whoever is in both has one policy, whoever is not has what the API file says.
    assert!(!by_name("shop.v1.Books/List").security.admits_anonymous());
    served.calls(&[
        (
            "GET",
            "/v1/shelves/1/books/2?k=secret",
            "",
            r#"Get {"name":"shelves/1/books/2"}"#,
        ),
        ("POST", "/v1/books/1:publish", "", r#"Publish {"id":"1"}"#),
        ("POST", "/v1/elsewhere", "", "NoTemplate"),
        ("GET", "/v1/nothing", "", "NoTemplate"),
    ]);
    let told = told(&served.findings);
    for words in [
        "`GET /v1/books/{book_id}` is another way to call a method whose settings differ here",
        "`POST /v1/elsewhere` is not how `shop.v1.Books/Publish` is called: the HTTP rules have POST /v1/books/{id}:publish",
        "`GET /v1/nothing` is no gRPC method",
        "`shop.v1.Books/List` is not in",
    ] {
        assert!(told.contains(words), "{words}\n{told}");
    }
}

#[test]
fn a_method_described_twice_for_other_callers_is_not_served() {
    let world = World::new();
    for second in [
        "/v1/books/{book_id}: { get: { operationId: Books_Get2, security: [] } }",
        "/v1/anywhere: { get: { operationId: shop.v1.Books.Get, security: [] } }",
    ] {
        let spec = OPENAPI.replace(
            "/v1/books/{book_id}: { get: { operationId: Books_Get2 } }",
            second,
        );
        assert_ne!(spec, OPENAPI);
        world.write("spec.yaml", &spec);
        let config = world.config("", "spec: spec.yaml");
        let described = describe(&config, &Reflected::File(Path::new("")), &mut Vec::new());
        let findings = described.err().unwrap();
        let told = told(&findings);
        assert!(told.contains("for other callers"), "{told}");
    }
}

#[test]
fn descriptors_that_cannot_be_read_are_told() {
    let world = World::new();
    world.write("set.binpb", "no descriptors");
    let text = "upstream: grpc://a:1\ngrpc: { descriptors: set.binpb }\n";
    let config = read_api(&world.write("set.yaml", text), &|_| None).unwrap();
    let mut files = Vec::new();
    let findings = describe(&config, &Reflected::File(Path::new("")), &mut files).unwrap_err();
    assert_eq!(findings[0].code, "descriptors");
    assert_eq!(files, [world.0.path().join("set.binpb")]);
}

proptest::proptest! {
    #[test]
    fn binding_never_panics(
        target in "/v1/(books|any|files|shelves|upload|raw)/[a-z%:/.0-9A-F]{0,12}(\\?[a-z._=&%+0-9]{0,24})?",
        method in "GET|POST|PATCH",
        body in "[{}\\[\\]\":,a-z0-9]{0,24}",
    ) {
        static SERVED: std::sync::LazyLock<Served> =
            std::sync::LazyLock::new(|| World::new().served("  profile: { update_mask: derive }", ""));
        let _ = SERVED.call(&method, &target, &body);
    }
}
