//! What a head asks for: host, target, path, and whether it speaks gRPC. Reads what the door has judged, in each of its forms.

use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::head::judge_host;
use crate::denial::Denial;

/// The host asked for: lower case, no port, on the stack.
pub struct Host {
    bytes: SmallVec<[u8; 64]>,
}

impl Host {
    /// Of a head; empty where it names none.
    ///
    /// # Errors
    /// It is no name or address with an optional port.
    pub fn of(head: &RequestHeader) -> Result<Self, Denial> {
        let Some(raw) = raw_host(head) else {
            return Ok(Self {
                bytes: SmallVec::new(),
            });
        };
        judge_host(raw.as_bytes())?;
        let name = match raw.rfind(':') {
            Some(colon) if !raw.ends_with(']') => raw.get(..colon).unwrap_or(raw),
            _ => raw,
        };
        let mut bytes: SmallVec<[u8; 64]> = SmallVec::from_slice(name.as_bytes());
        bytes.make_ascii_lowercase();
        if bytes.len() > 1 && bytes.last() == Some(&b'.') {
            bytes.pop();
        }
        Ok(Self { bytes })
    }

    /// The name or address.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// Authority of an HTTP/2 request or absolute form, else the Host field.
pub fn raw_host(head: &RequestHeader) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(http::header::HOST)?.to_str().ok(),
    }
}

/// The origin form of the target as it came.
///
/// # Errors
/// It is not ASCII, or holds a fragment.
pub fn target_of(head: &RequestHeader) -> Result<&str, Denial> {
    let raw = std::str::from_utf8(head.raw_path())
        .map_err(|_| Denial::Malformed("the target is not ASCII".into()))?;
    if raw.contains('#') {
        return Err(Denial::Malformed("the target holds a fragment".into()));
    }
    if raw.starts_with('/') {
        return Ok(raw);
    }
    let after_scheme = raw.split_once("://").map(|(_, rest)| rest);
    match after_scheme {
        Some(rest) => Ok(rest
            .find(['/', '?'])
            .and_then(|at| rest.get(at..))
            .unwrap_or("/")),
        None => Ok(raw),
    }
}

/// The path of the target, without query.
pub fn path_of(head: &RequestHeader) -> &str {
    let target = target_of(head).unwrap_or_default();
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// Whether the request can be taken at all, its caller aside.
///
/// # Errors
/// The body is announced larger than allowed, an expectation is unknown, or gRPC came over HTTP/1.
pub fn acceptable(head: &RequestHeader, max_body: u64) -> Result<(), Denial> {
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_body) {
        return Err(Denial::BodyTooLarge);
    }
    let expects = head.headers.get(http::header::EXPECT);
    if expects.is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Denial::ExpectationFailed);
    }
    if head.version < http::Version::HTTP_2 && is_grpc(head) {
        return Err(Denial::GrpcNeedsHttp2);
    }
    Ok(())
}

/// Whether the caller speaks gRPC (not gRPC-Web).
pub fn is_grpc(head: &RequestHeader) -> bool {
    head.headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';')))
        })
}
