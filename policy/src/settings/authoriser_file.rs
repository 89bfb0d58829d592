//! `authoriser` of an API file: as written, and turned into [`AuthoriserConfig`]. Not here: asking it.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::decode::Text;
use super::names;
use super::reader::Reader;
use super::roots_file::roots;
use super::url::Url;
use super::value::{self, Wrong};
use super::{AuthoriserConfig, AuthoriserTransport, FailureMode};

/// How long to wait for an answer. Every call that is not cached waits for it.
const DEADLINE: Duration = Duration::from_millis(200);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAuthoriser {
    grpc: Option<Text>,
    http: Option<Text>,
    ca: Option<Text>,
    deadline: Option<Text>,
    failure: Option<Text>,
    cache: Option<Text>,
    stale_ok: Option<Text>,
    vary: Option<Vec<Text>>,
    headers: Option<Vec<Text>>,
    shadow: Option<Text>,
}

impl WrittenAuthoriser {
    /// Files that hold nothing secret.
    pub(super) fn public_files(&mut self) -> Option<&mut Text> {
        self.ca.as_mut()
    }
}

/// The meaning of `authoriser`; mistakes go to `reader`.
pub(super) fn authoriser(
    reader: &mut Reader,
    written: Option<&WrittenAuthoriser>,
) -> Option<AuthoriserConfig> {
    let written = written?;
    let target = target(reader, written);
    let ca = roots(reader, "authoriser.ca", written.ca.as_ref());
    let deadline = reader.value("authoriser.deadline", written.deadline.as_ref(), deadline);
    let failure = reader.value("authoriser.failure", written.failure.as_ref(), failure);
    let cache = reader.value(
        "authoriser.cache",
        written.cache.as_ref(),
        value::duration_or_off,
    );
    let stale_ok = reader.value(
        "authoriser.stale_ok",
        written.stale_ok.as_ref(),
        value::duration_or_off,
    );
    let vary = reader.list("authoriser.vary", written.vary.as_ref(), attribute);
    let headers = reader.list("authoriser.headers", written.headers.as_ref(), names::field);
    let shadow = reader.value("authoriser.shadow", written.shadow.as_ref(), value::switch);
    let config = (failure.unwrap_or_default(), stale_ok.unwrap_or_default());
    agree(reader, written, config, cache.unwrap_or_default());
    let (transport, url) = target?;
    Some(AuthoriserConfig {
        transport,
        url,
        ca,
        deadline: deadline.unwrap_or(DEADLINE),
        failure: config.0,
        cache: cache.unwrap_or_default(),
        stale_ok: config.1,
        vary,
        headers,
        shadow: shadow.unwrap_or_default(),
        place: reader.key("authoriser"),
    })
}

fn target(
    reader: &mut Reader,
    written: &WrittenAuthoriser,
) -> Option<(AuthoriserTransport, Arc<str>)> {
    match (&written.grpc, &written.http) {
        (Some(grpc), None) => reader
            .value("authoriser.grpc", Some(grpc), grpc_url)
            .map(|url| (AuthoriserTransport::Grpc, url)),
        (None, Some(http)) => reader
            .value("authoriser.http", Some(http), http_url)
            .map(|url| (AuthoriserTransport::Http, url)),
        (Some(_), Some(http)) => {
            let wrong = Wrong::new("stands beside `grpc`", "keep one of the two");
            reader.refuse("authoriser.http", http, wrong);
            None
        }
        (None, None) => {
            let place = reader.key("authoriser");
            let what = "`authoriser` names nobody to ask".to_owned();
            let remedy = "write `grpc: h2c://host:port` or `http: http://host:port/prefix`";
            reader.push("missing-field", place, what, remedy.to_owned());
            None
        }
    }
}

fn grpc_url(text: &str) -> Result<Arc<str>, Wrong> {
    let url = Url::parse(text).filter(|url| matches!(url.path, "" | "/"));
    let scheme = url.and_then(|url| match url.scheme {
        "h2c" | "grpc" | "http" => Some("h2c"),
        "h2" | "grpcs" | "https" => Some("h2"),
        _ => None,
    });
    match url.zip(scheme) {
        Some((url, scheme)) => Ok(format!("{scheme}://{}", url.authority).into()),
        None => Err(Wrong::new(
            format!("`{text}` is no address of a gRPC service"),
            "write h2c://host:port, or h2://host:port for TLS, without a path",
        )),
    }
}

fn http_url(text: &str) -> Result<Arc<str>, Wrong> {
    let fits = |url: &Url<'_>| matches!(url.scheme, "http" | "https") && !url.path.contains('?');
    match Url::parse(text).filter(fits) {
        Some(_) => Ok(text.trim_end_matches('/').into()),
        None => Err(Wrong::new(
            format!("`{text}` is no address of an HTTP service"),
            "write http://host:port or http://host:port/prefix, without a query",
        )),
    }
}

fn deadline(text: &str) -> Result<Duration, Wrong> {
    value::duration(text).and_then(|deadline| match deadline <= Duration::from_secs(30) {
        true => Ok(deadline),
        false => Err(Wrong::new(
            format!("`{text}` is longer than callers wait"),
            "write at most 30s",
        )),
    })
}

pub(super) fn failure(text: &str) -> Result<FailureMode, Wrong> {
    match text {
        "fail_open" => Ok(FailureMode::FailOpen),
        "degraded" => Ok(FailureMode::Degraded),
        "fail_closed" => Ok(FailureMode::FailClosed),
        _ => Err(Wrong::new(
            format!("`{text}` is none of fail_open, degraded and fail_closed"),
            "write one of them",
        )),
    }
}

/// What an answer may depend on.
fn attribute(text: &str) -> Result<Arc<str>, Wrong> {
    if let Some(name) = text.strip_prefix("header:") {
        return names::field(name).map(|name| format!("header:{name}").into());
    }
    match text {
        "consumer" | "operation" | "method" | "path" | "client" => Ok(text.into()),
        _ => Err(Wrong::new(
            format!("`{text}` is nothing an answer can depend on"),
            "write consumer, operation, method, path, client, or header:NAME",
        )),
    }
}

/// Settings that only count together.
fn agree(
    reader: &mut Reader,
    written: &WrittenAuthoriser,
    (failure, stale_ok): (FailureMode, Duration),
    cache: Duration,
) {
    let kept = written.vary.as_ref().is_some_and(|list| !list.is_empty());
    let needs_vary = "write what an answer depends on, such as `vary: [consumer, operation]`";
    let mut refuse = |field: &str, at: &Option<Text>, what: &str, remedy: &str| {
        if let Some(at) = at {
            reader.refuse(field, at, Wrong::new(what, remedy));
        }
    };
    if !cache.is_zero() && !kept {
        let what = "keeps nothing without `vary`";
        refuse("authoriser.cache", &written.cache, what, needs_vary);
    }
    if !stale_ok.is_zero() && failure != FailureMode::Degraded {
        let what = "counts only with `failure: degraded`";
        let remedy = "write that as well, or remove the field";
        refuse("authoriser.stale_ok", &written.stale_ok, what, remedy);
    } else if !stale_ok.is_zero() && !kept {
        let what = "keeps nothing without `vary`";
        refuse("authoriser.stale_ok", &written.stale_ok, what, needs_vary);
    } else if failure == FailureMode::Degraded && stale_ok.is_zero() {
        let what = "degraded needs `stale_ok`: how old an answer may be";
        let remedy = "write for example `stale_ok: 5m`, or `failure: fail_closed`";
        refuse("authoriser.failure", &written.failure, what, remedy);
    }
}

#[cfg(test)]
mod tests;
