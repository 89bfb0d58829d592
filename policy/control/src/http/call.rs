//! One request as its operation sees it, and the answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tollgate_policy::time::Timestamp;

use super::problem::Problem;
use crate::audit::Entry;
use crate::control::now;
use crate::refusal::Refusal;
use crate::text::is_name;

/// Longest body: terms are the largest thing anybody sends.
const BODY: usize = 64 * 1024;
/// Entries of a page where none is asked for, and at most.
const PAGE: (usize, usize) = (100, 500);
/// Entries of a list in a body.
const LIST: usize = 256;
/// Bytes of an entry.
const TEXT: usize = 512;

/// A request, read.
pub(super) struct Call {
    path: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    body: Vec<u8>,
    from: Option<IpAddr>,
}

/// An answer that says yes.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    body: Value,
}

impl Reply {
    /// Here it is.
    pub(super) fn shown(body: Value) -> Self {
        let status = StatusCode::OK;
        Self { status, body }
    }

    /// It was made.
    pub(super) fn created(body: Value) -> Self {
        let status = StatusCode::CREATED;
        Self { status, body }
    }

    /// It is done, and there is nothing to show.
    pub(super) fn done() -> Self {
        let status = StatusCode::NO_CONTENT;
        let body = Value::Null;
        Self { status, body }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        if self.body.is_null() {
            return self.status.into_response();
        }
        let mut response = Response::new(Body::from(self.body.to_string()));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

/// What part of a list is asked for.
pub(super) struct Page {
    /// The last entry seen.
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl Page {
    /// `after` where entries are numbered.
    pub(super) fn after_number(&self) -> Result<u64, Refusal> {
        let Some(after) = &self.after else {
            return Ok(0);
        };
        let number = after.parse();
        number.map_err(|_| Refusal::invalid("after", "not a `next` of an earlier page"))
    }

    /// Entries that fit the store's bound.
    pub(super) fn limit_number(&self) -> u32 {
        u32::try_from(self.limit).unwrap_or(u32::MAX)
    }

    /// An answer: the entries, and where the next page begins.
    pub(super) fn reply(&self, items: Vec<Value>, last: Option<String>) -> Reply {
        let full = items.len() >= self.limit;
        Reply::shown(json!({ "items": items, "next": last.filter(|_| full) }))
    }
}

impl Call {
    /// Reads a request within its bounds.
    pub(super) async fn read(path: &RawPathParams, request: Request) -> Result<Self, Problem> {
        let bad = |code, why: String| Problem::new(StatusCode::BAD_REQUEST, code, why);
        let from = request.extensions().get::<SocketAddr>();
        let from = from.map(|peer| peer.ip().to_canonical());
        let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
        let Query(pairs) = query.map_err(|error| bad("bad_query", error.to_string()))?;
        let mut query = BTreeMap::new();
        for (name, value) in pairs {
            if !matches!(name.as_str(), "after" | "limit") || query.contains_key(&name) {
                let why = "only `after` and `limit`, each once, are understood";
                return Err(bad("bad_query", why.to_owned()));
            }
            query.insert(name, value);
        }
        let body = axum::body::to_bytes(request.into_body(), BODY).await;
        let body = body.map_err(|_| {
            let why = format!("the body is longer than {BODY} bytes, or did not come in full");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", why)
        })?;
        let path = path
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self {
            path: path.collect(),
            query,
            body: body.to_vec(),
            from,
        })
    }

    /// A parameter of the path; empty where the route has none of that name.
    pub(super) fn path(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The body as JSON of this shape; an empty body is `{}`.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body = if self.body.is_empty() {
            b"{}".as_slice()
        } else {
            &self.body
        };
        serde_json::from_slice(body).map_err(|error| {
            // The message names fields, places and expectations; it may repeat what the asker sent, to the asker.
            Problem::new(StatusCode::BAD_REQUEST, "bad_body", error.to_string())
        })
    }

    /// The page asked for.
    pub(super) fn page(&self) -> Result<Page, Refusal> {
        let (usual, most) = PAGE;
        let limit = match self.query.get("limit").map(|limit| limit.parse()) {
            None => usual,
            Some(Ok(limit)) if (1..=most).contains(&limit) => limit,
            Some(_) => return Err(Refusal::invalid("limit", format!("from 1 to {most}"))),
        };
        Ok(Page {
            after: self.query.get("after").cloned(),
            limit,
        })
    }

    /// What the audit log says of this call.
    pub(super) fn entry(&self, action: &'static str, subject: &str, detail: Value) -> Entry {
        Entry {
            at: now(),
            actor: "admin".to_owned(),
            action,
            subject: subject.to_owned(),
            detail,
            from: self.from,
        }
    }

    /// Where it came from.
    pub(super) fn from(&self) -> Option<IpAddr> {
        self.from
    }
}

/// A name for something new.
pub(super) fn new_name(field: &'static str, name: &str) -> Result<Arc<str>, Refusal> {
    if is_name(name) {
        return Ok(Arc::from(name));
    }
    let why = "a name is 1 to 63 of a-z, 0-9 and hyphen, with no hyphen at either end";
    Err(Refusal::invalid(field, why))
}

/// A text of bounded length.
pub(super) fn text(field: &'static str, text: &str) -> Result<Arc<str>, Refusal> {
    if text.is_empty() || text.len() > TEXT || text.chars().any(char::is_control) {
        let why = format!("1 to {TEXT} bytes without control characters");
        return Err(Refusal::invalid(field, why));
    }
    Ok(Arc::from(text))
}

/// A list of such texts.
pub(super) fn texts(field: &'static str, list: &[String]) -> Result<Vec<Arc<str>>, Refusal> {
    bounded(field, list)?;
    list.iter().map(|entry| text(field, entry)).collect()
}

/// A list of bounded length.
pub(super) fn bounded<T>(field: &'static str, list: &[T]) -> Result<(), Refusal> {
    if list.len() > LIST {
        return Err(Refusal::invalid(field, format!("more than {LIST} entries")));
    }
    Ok(())
}

/// A point in time.
pub(super) fn time(
    field: &'static str,
    text: Option<&String>,
) -> Result<Option<Timestamp>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let why = "a time is written as in 2026-11-21T16:00:00Z";
    let time = Timestamp::parse(text).ok_or_else(|| Refusal::invalid(field, why))?;
    Ok(Some(time))
}
