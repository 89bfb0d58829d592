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

const ANNOTATIONS: &str = include_str!("../../../../protos/google/api/annotations.proto");

const HTTP: &str = include_str!("../../../../protos/google/api/http.proto");

const HTTP_BODY: &str = include_str!("../../../../protos/google/api/httpbody.proto");
