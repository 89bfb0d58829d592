//! The files of `google/api` that most services import and few keep beside their own: HTTP rules and raw bodies.
//!
//! Only what is needed to read options of that kind; a file of the same name in an include directory wins.

/// The source of a file everybody has.
pub(super) fn source(name: &str) -> Option<&'static str> {
    match name {
        "google/api/annotations.proto" => Some(ANNOTATIONS),
        "google/api/http.proto" => Some(HTTP),
        "google/api/httpbody.proto" => Some(HTTP_BODY),
        _ => None,
    }
}

const ANNOTATIONS: &str = r#"syntax = "proto3";
package google.api;
import "google/api/http.proto";
import "google/protobuf/descriptor.proto";
extend google.protobuf.MethodOptions {
  HttpRule http = 72295728;
}
"#;

const HTTP: &str = r#"syntax = "proto3";
package google.api;
message Http {
  repeated HttpRule rules = 1;
  bool fully_decode_reserved_expansion = 2;
}
message HttpRule {
  string selector = 1;
  oneof pattern {
    string get = 2;
    string put = 3;
    string post = 4;
    string delete = 5;
    string patch = 6;
    CustomHttpPattern custom = 8;
  }
  string body = 7;
  string response_body = 12;
  repeated HttpRule additional_bindings = 11;
}
message CustomHttpPattern {
  string kind = 1;
  string path = 2;
}
"#;

const HTTP_BODY: &str = r#"syntax = "proto3";
package google.api;
import "google/protobuf/any.proto";
message HttpBody {
  string content_type = 1;
  bytes data = 2;
  repeated google.protobuf.Any extensions = 3;
}
"#;
