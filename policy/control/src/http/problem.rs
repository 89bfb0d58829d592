//! What went wrong, as RFC 9457 says it.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};
use tollgate_policy::finding::Place;

use crate::refusal::Refusal;
use crate::store::StoreError;

/// Seconds after which a store that failed may be asked again.
const RETRY_SECONDS: &str = "5";

/// An answer that says no.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with its stable code, which makes its `type`.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            more: Map::new(),
        }
    }

    /// With one more member.
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Its status and what it says.
    pub(super) fn parts(self) -> (StatusCode, String) {
        (self.status, self.detail)
    }

    fn defined_in_file(detail: String, place: &Place) -> Self {
        Self::new(StatusCode::CONFLICT, "defined_in_file", detail)
            .with("file", &*place.file)
            .with("line", place.line)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Missing { .. } => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            Refusal::DefinedInFile { place, .. } => Self::defined_in_file(detail, &place),
            Refusal::Differs { .. } => Self::new(StatusCode::CONFLICT, "exists", detail),
            Refusal::InUse { .. } => Self::new(StatusCode::CONFLICT, "in_use", detail),
            Refusal::Invalid { field, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail).with("field", field)
            }
            Refusal::Unavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail)
            }
            Refusal::Files(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "files_wrong", detail),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:tollgate:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(members) = body.as_object_mut() {
            members.extend(self.more);
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, problem);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"tollgate\"");
            headers.insert(WWW_AUTHENTICATE, scheme);
        }
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        }
        response
    }
}
