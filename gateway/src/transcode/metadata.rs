//! What goes from a request's head into gRPC metadata, and from metadata into an answer's head.
//!
//! Fields of one hop, of the body's form, and of the protocols themselves end here; everything else passes, `authorization`,
//! `traceparent` and `-bin` fields among it. Promise: nothing malformed goes on to a service, for some keep it in the connection's
//! table of fields and fail other calls by it.

use std::time::Duration;

use base64::Engine as _;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::deadline;
use super::status::BASE64;
use crate::denial::Denial;

/// How long a caller waits.
const TIMEOUT: &str = "grpc-timeout";
const CONNECT_TIMEOUT: &str = "connect-timeout-ms";

/// Fields about this hop or about the body, which is another one on the other side.
const OF_THE_HOP: [&str; 24] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-ranges",
    "alt-svc",
    "connection",
    "content-encoding",
    "content-length",
    "content-md5",
    "content-range",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-grpc-web",
];

/// Beginnings of fields that belong to a protocol and not to the call.
const OF_THE_PROTOCOL: [&str; 3] = ["grpc-", "connect-", "sec-websocket-"];

/// Whether the field is a matter between caller and gateway, or gateway and service.
fn stays(name: &str) -> bool {
    OF_THE_HOP.contains(&name) || OF_THE_PROTOCOL.iter().any(|start| name.starts_with(start))
}

/// What the caller of a gRPC method may not have said, in any of the protocols.
///
/// # Errors
/// A malformed timeout, or a `-bin` field that is not base64.
pub fn check(fields: &HeaderMap) -> Result<(), Denial> {
    let mut timeouts = fields.get_all(TIMEOUT).iter();
    let timeout = timeouts
        .next()
        .map(|it| deadline::parse_grpc(it.as_bytes()));
    if timeout == Some(None) || timeouts.next().is_some() {
        let text = "`grpc-timeout` is not one to eight digits and a unit of H, M, S, m, u, n";
        return Err(Denial::Malformed(text.into()));
    }
    if let Some(timeout) = fields.get(CONNECT_TIMEOUT)
        && deadline::parse_connect(timeout.as_bytes()).is_none()
    {
        let text = "`connect-timeout-ms` is not one to ten digits";
        return Err(Denial::Malformed(text.into()));
    }
    for (name, value) in fields {
        if name.as_str().ends_with("-bin") && !is_base64(value.as_bytes()) {
            let text = format!("the field `{name}` is not base64");
            return Err(Denial::Malformed(text.into()));
        }
    }
    Ok(())
}

/// Leaves the service no more time in `grpc-timeout` than there is.
///
/// # Errors
/// A value that cannot be a field; cannot happen.
pub fn cap_timeout(head: &mut RequestHeader, left: Duration) -> pingora_error::Result<()> {
    let asked = head.headers.get(TIMEOUT);
    let asked = asked.and_then(|it| deadline::parse_grpc(it.as_bytes()));
    if asked.is_none_or(|asked| asked > left) {
        head.insert_header(TIMEOUT, deadline::format_grpc(left))?;
    }
    Ok(())
}

/// How long the caller wants to wait, in whichever protocol it says so.
pub fn timeout(fields: &HeaderMap) -> Option<Duration> {
    let grpc = fields.get(TIMEOUT);
    let grpc = grpc.and_then(|it| deadline::parse_grpc(it.as_bytes()));
    let connect = fields.get(CONNECT_TIMEOUT);
    let connect = connect.and_then(|it| deadline::parse_connect(it.as_bytes()));
    [grpc, connect].into_iter().flatten().min()
}

/// Several values of one `-bin` field may be joined by commas.
fn is_base64(value: &[u8]) -> bool {
    let mut values = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    values.all(|value| BASE64.decode(value).is_ok())
}

/// Leaves in `fields` what a service gets as metadata. What gRPC cannot carry (bytes outside printable ASCII) is left out.
pub fn keep_for_service(fields: &mut HeaderMap) {
    drop_all(fields, |name, value| {
        stays(name)
            || !value
                .as_bytes()
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~'))
    });
}

/// Appends what the caller gets of initial or trailing metadata, each name after `prefix` (Connect's `trailer-`, or nothing).
pub fn copy_to_caller(
    metadata: &HeaderMap,
    prefix: &str,
    mut append: impl FnMut(HeaderName, HeaderValue),
) {
    for (name, value) in metadata {
        if stays(name.as_str()) {
            continue;
        }
        let name = match prefix {
            "" => Some(name.clone()),
            prefix => HeaderName::from_bytes(format!("{prefix}{name}").as_bytes()).ok(),
        };
        if let Some(name) = name {
            append(name, value.clone());
        }
    }
}

fn drop_all(fields: &mut HeaderMap, doomed: impl Fn(&str, &HeaderValue) -> bool) {
    let names: SmallVec<[HeaderName; 16]> = fields
        .iter()
        .filter(|(name, value)| doomed(name.as_str(), value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        fields.remove(name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        fields
    }

    fn names(fields: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Must-have: header hygiene: custom fields pass, those of hop and protocol do not.
    #[test]
    fn protocol_and_hop_fields_stay_and_the_rest_passes() {
        let mut sent = fields(&[
            ("authorization", b"Bearer x"),
            ("traceparent", b"00-1-2-01"),
            ("x-custom", b"1"),
            ("x-data-bin", b"AAEC"),
            ("content-length", b"5"),
            ("content-type", b"application/json"),
            ("te", b"trailers"),
            ("grpc-encoding", b"gzip"),
            ("grpc-accept-encoding", b"gzip"),
            ("grpc-status", b"0"),
            ("connect-protocol-version", b"1"),
            ("sec-websocket-key", b"x"),
            ("accept-encoding", b"gzip"),
            ("x-umlaut", "ü".as_bytes()),
        ]);
        keep_for_service(&mut sent);
        assert_eq!(
            names(&sent),
            ["authorization", "traceparent", "x-custom", "x-data-bin"]
        );
    }

    #[test]
    fn the_caller_sees_metadata_and_not_the_protocol() {
        let metadata = fields(&[
            ("x-a", b"1"),
            ("x-a", b"2"),
            ("grpc-status", b"0"),
            ("grpc-message", b"x"),
            ("content-type", b"application/grpc"),
        ]);
        let mut seen = HeaderMap::new();
        copy_to_caller(&metadata, "", |name, value| {
            seen.append(name, value);
        });
        assert_eq!(seen.get_all("x-a").iter().count(), 2);
        assert_eq!(seen.len(), 2);
        let mut seen = HeaderMap::new();
        copy_to_caller(&metadata, "trailer-", |name, value| {
            seen.append(name, value);
        });
        assert_eq!(names(&seen), ["trailer-x-a"]);
    }

    /// Must-have: header hygiene: `-bin` fields are base64.
    #[test]
    fn what_is_malformed_does_not_pass() {
        for good in [
            fields(&[("grpc-timeout", b"5S")]),
            fields(&[("x-bin", b"AAE="), ("y-bin", b"AAE")]),
            fields(&[("x-bin", b"AAE=, AAE")]),
            fields(&[("connect-timeout-ms", b"100")]),
        ] {
            assert_eq!(check(&good), Ok(()), "{good:?}");
        }
        for bad in [
            fields(&[("grpc-timeout", b"5")]),
            fields(&[("grpc-timeout", b"123456789S")]),
            fields(&[("grpc-timeout", b"5S"), ("grpc-timeout", b"5S")]),
            fields(&[("x-bin", b"no base64")]),
            fields(&[("connect-timeout-ms", b"-1")]),
        ] {
            assert!(matches!(check(&bad), Err(Denial::Malformed(_))), "{bad:?}");
        }
    }
}
