//! One request as its operation sees it, and the answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, LINK};
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
    text: Option<Text>,
}

/// A body that is no JSON object.
#[derive(Debug)]
struct Text {
    content: &'static str,
    text: String,
    /// Where the next page is (RFC 8288).
    next: Option<String>,
}

impl Reply {
    /// Here it is.
    pub(super) fn shown(body: Value) -> Self {
        Self::of(StatusCode::OK, body)
    }

    /// Here it is, in another form than JSON, and where the next page is.
    pub(super) fn text(content: &'static str, text: String, next: Option<String>) -> Self {
        let text = Some(Text {
            content,
            text,
            next,
        });
        Self {
            text,
            ..Self::of(StatusCode::OK, Value::Null)
        }
    }

    /// It was made.
    pub(super) fn created(body: Value) -> Self {
        Self::of(StatusCode::CREATED, body)
    }

    /// It is done, and there is nothing to show.
    pub(super) fn done() -> Self {
        Self::of(StatusCode::NO_CONTENT, Value::Null)
    }

    fn of(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body,
            text: None,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        if let Some(text) = self.text {
            let mut response = Response::new(Body::from(text.text));
            let content = HeaderValue::from_static(text.content);
            response.headers_mut().insert(CONTENT_TYPE, content);
            let link = text.next.map(|next| format!("<{next}>; rel=\"next\""));
            // It is escaped: there is nothing in it that a header may not hold.
            if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
                response.headers_mut().insert(LINK, link);
            }
            return response;
        }
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
    /// Reads a request within its bounds. Its query has `parameters`, and those of a page.
    pub(super) async fn read(
        path: &RawPathParams,
        request: Request,
        parameters: &[&str],
    ) -> Result<Self, Problem> {
        let bad = |code, why: String| Problem::new(StatusCode::BAD_REQUEST, code, why);
        let from = request.extensions().get::<SocketAddr>();
        let from = from.map(|peer| peer.ip().to_canonical());
        let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
        let Query(pairs) = query.map_err(|error| bad("bad_query", error.to_string()))?;
        let mut query = BTreeMap::new();
        for (name, value) in pairs {
            let known = matches!(name.as_str(), "after" | "limit");
            if !(known || parameters.contains(&&*name)) || query.contains_key(&name) {
                let all: Vec<&str> = [&["after", "limit"], parameters].concat();
                let why = format!("only {}, each once, are understood", all.join(", "));
                return Err(bad("bad_query", why));
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

    /// A parameter of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// The reference to the next page of this list at `path`.
    pub(super) fn next_link(&self, path: &str, after: &str) -> String {
        let asked = self.query.iter().map(|(name, value)| (&**name, &**value));
        let kept = asked.filter(|(name, _)| *name != "after");
        let pairs = kept.chain([("after", after)]);
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect();
        format!("{path}?{}", pairs.join("&"))
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

/// A text as one value of a query (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
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
