//! The raw HTTP/1 head, judged strictly before the parser sees it (RFC 9112), and the head of an HTTP/2 request (RFC 9113).
//!
//! Two readers that disagree about where a request ends are how requests are smuggled. Whatever could be read in two ways is refused:
//! bare LF, folded lines, white space before a colon, several or odd lengths, length beside coding, codings other than `chunked`.

use http::Method;
use http::header::{CONTENT_LENGTH, HOST};
use memchr::{memchr, memchr2};
use pingora_http::RequestHeader;

use crate::denial::Denial;

/// Longest decimal length accepted: anything longer does not fit 63 bits.
const MAX_LENGTH_DIGITS: usize = 18;

/// Judges a complete HTTP/1 head: request line to the empty line, inclusive.
///
/// # Errors
/// The refusal; the connection is closed after it.
pub fn check(head: &[u8], max_fields: usize) -> Result<(), Denial> {
    let mut lines = Lines { rest: head };
    let (version, authority) = request_line(lines.next_line()?)?;
    authority.map_or(Ok(()), judge_host)?;
    let mut framing = Framing {
        authority,
        ..Framing::default()
    };
    let mut fields = 0;
    loop {
        let line = lines.next_line()?;
        if line.is_empty() {
            return framing.judge(version);
        }
        fields += 1;
        if fields > max_fields {
            return Err(Denial::HeadTooLarge);
        }
        framing.field(line)?;
    }
}

/// Options of `Connection`: honest clients name one or two. The proxy behind us takes fewer than ten.
const CONNECTION_OPTIONS: usize = 8;

/// Fields that no client may have removed by naming them in `Connection`.
const NEVER_OPTIONS: [&[u8]; 8] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"authorization",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

#[derive(Clone, Copy, PartialEq)]
enum Version {
    Http10,
    Http11,
}

fn malformed(text: &'static str) -> Denial {
    Denial::Malformed(text.into())
}

struct Lines<'h> {
    rest: &'h [u8],
}

impl<'h> Lines<'h> {
    fn next_line(&mut self) -> Result<&'h [u8], Denial> {
        let end = memchr2(b'\r', b'\n', self.rest).ok_or_else(|| malformed("incomplete head"))?;
        let (line, after) = self.rest.split_at(end);
        self.rest = after
            .strip_prefix(b"\r\n")
            .ok_or_else(|| malformed("a line of the head does not end in CR LF"))?;
        Ok(line)
    }
}

/// The version, and the authority of an absolute form.
fn request_line(line: &[u8]) -> Result<(Version, Option<&[u8]>), Denial> {
    let bad = || malformed("the request line is not `METHOD target HTTP/1.1`");
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad());
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(malformed("the method is not a token"));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(bad()),
    };
    if matches!(method, b"CONNECT" | b"TRACE") {
        return Err(Denial::MethodNotServed);
    }
    let form = target.starts_with(b"/")
        || target.starts_with(b"http://")
        || target.starts_with(b"https://")
        || (target == b"*" && method == b"OPTIONS");
    if !form || !target.iter().all(u8::is_ascii_graphic) || memchr(b'#', target).is_some() {
        return Err(malformed(
            "the request target holds a byte that must be percent-encoded",
        ));
    }
    let rest = target
        .strip_prefix(b"http://")
        .or_else(|| target.strip_prefix(b"https://"));
    let authority = rest.map(|rest| {
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    });
    Ok((version, authority))
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What decides where the request ends and whom it is for.
#[derive(Default)]
struct Framing<'h> {
    /// Of an absolute form: the Host field may not say otherwise (RFC 9112, section 3.2.2).
    authority: Option<&'h [u8]>,
    hosts: usize,
    lengths: usize,
    codings: usize,
    /// Of all `Connection` fields.
    options: usize,
}

impl Framing<'_> {
    fn field(&mut self, line: &[u8]) -> Result<(), Denial> {
        if line
            .first()
            .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            return Err(malformed("a header field is folded over two lines"));
        }
        let colon = memchr(b':', line).ok_or_else(|| malformed("a header line has no colon"))?;
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(malformed(
                "a header field name is not a token directly before its colon",
            ));
        }
        // Judged before it is trimmed: a form feed at its edge is white space to some readers only.
        let value = value.get(1..).unwrap_or_default();
        if value
            .iter()
            .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
        {
            return Err(malformed("a header field value holds a control character"));
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            judge_host(value)?;
            // To the letter: the parser behind us is as strict, and would refuse with nothing but a status.
            if self.authority.is_some_and(|authority| authority != value) {
                return Err(malformed("Host differs from the authority of the target"));
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            judge_length(value)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(malformed("Transfer-Encoding other than `chunked`"));
            }
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.connection_options(value)?;
        }
        Ok(())
    }

    /// What `Connection` names is removed on the way (RFC 9110, section 7.6.1). Naming a field that says who calls, for whom, or where
    /// the body ends is how such fields are made to vanish.
    fn connection_options(&mut self, value: &[u8]) -> Result<(), Denial> {
        let options = value
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|option| !option.is_empty());
        for option in options {
            self.options += 1;
            if self.options > CONNECTION_OPTIONS {
                return Err(malformed("Connection holds too many options"));
            }
            if !option.iter().all(|byte| is_token(*byte)) {
                return Err(malformed("Connection holds an option that is no token"));
            }
            if NEVER_OPTIONS
                .iter()
                .any(|it| option.eq_ignore_ascii_case(it))
            {
                return Err(malformed(
                    "Connection names a field that is not the client's to remove",
                ));
            }
        }
        Ok(())
    }

    fn judge(&self, version: Version) -> Result<(), Denial> {
        if self.hosts > 1 || (self.hosts == 0 && version == Version::Http11) {
            return Err(malformed("a request has exactly one Host field"));
        }
        if self.lengths > 1 || self.codings > 1 {
            return Err(malformed(
                "Content-Length or Transfer-Encoding is given more than once",
            ));
        }
        if self.lengths + self.codings > 1 {
            return Err(malformed("Content-Length beside Transfer-Encoding"));
        }
        if self.codings > 0 && version == Version::Http10 {
            return Err(malformed("Transfer-Encoding in HTTP/1.0"));
        }
        Ok(())
    }
}

/// Judges the head of an HTTP/2 request: what a service behind HTTP/1.1 could read in another way than we do.
///
/// # Errors
/// The refusal; only this stream ends.
pub fn check_http2(head: &RequestHeader) -> Result<(), Denial> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Denial::MethodNotServed);
    }
    let only = |name, text| {
        let mut values = head.headers.get_all(name).iter();
        let value = values.next();
        values.next().map_or(Ok(value), |_| Err(malformed(text)))
    };
    let host = only(HOST, "a request has at most one Host field")?;
    let authority = head.uri.authority().map(|it| it.as_str().as_bytes());
    match (authority, host) {
        (None, None) => return Err(malformed("a request has :authority or Host")),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(malformed("Host differs from :authority"));
        }
        (Some(authority), _) => judge_host(authority)?,
        (None, Some(host)) => judge_host(host.as_bytes())?,
    }
    if let Some(length) = only(CONTENT_LENGTH, "Content-Length is given more than once")? {
        judge_length(length.as_bytes())?;
    }
    let path = head.raw_path();
    let asterisk = head.method == Method::OPTIONS && path == b"*";
    if !asterisk && !path.starts_with(b"/") {
        return Err(malformed(":path is neither a path nor `*` of OPTIONS"));
    }
    Ok(())
}

fn judge_length(value: &[u8]) -> Result<(), Denial> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if digits && value.len() <= MAX_LENGTH_DIGITS {
        Ok(())
    } else {
        Err(malformed("Content-Length is not a plain decimal number"))
    }
}

/// A host is a registered name or an address with an optional port: nothing that another reader could take for a path or user.
pub(crate) fn judge_host(host: &[u8]) -> Result<(), Denial> {
    let bad = || malformed("the host is not a name or address with an optional port");
    let text = std::str::from_utf8(host).map_err(|_| bad())?;
    let (name, rest) = match text.strip_prefix('[') {
        Some(address) => {
            let (address, rest) = address.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            (address, rest)
        }
        None => text
            .find(':')
            .map_or((text, ""), |colon| text.split_at(colon)),
    };
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let named = !name.is_empty() && name.len() <= 255 && name.bytes().all(plain);
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let ported = port.is_empty() == rest.is_empty()
        && (port.is_empty() || (port.len() < rest.len() && port.parse::<u16>().is_ok()));
    if named && ported && !port.starts_with('+') {
        Ok(())
    } else {
        Err(bad())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn judged(head: &str) -> Result<(), Denial> {
        check(head.as_bytes(), 100)
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a]:[b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b:c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]:80:90\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://A/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://me@a/ HTTP/1.0\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000000000000\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{0}b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: host\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: \"close\"\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: a,b,c,d,e\r\nConnection: f,g,h,i\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{c}chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\u{c}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a",
        ] {
            assert!(
                matches!(judged(head), Err(Denial::Malformed(_))),
                "{head:?}"
            );
        }
    }

    #[test]
    fn connect_and_trace_are_not_served() {
        assert_eq!(
            judged("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Err(Denial::MethodNotServed)
        );
        assert_eq!(
            judged("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            Err(Denial::MethodNotServed)
        );
    }

    #[test]
    fn what_honest_clients_send_passes() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET http://a/b?c=d HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a:8080\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive,, x-hop\r\nConnection: te\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\nTRANSFER-ENCODING: Chunked\r\nX:\r\nY: a\tb\r\n\r\n",
        ] {
            assert_eq!(judged(head), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn too_many_fields_are_refused() {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "A: b\r\n".repeat(100)
        );
        assert_eq!(judged(&head), Err(Denial::HeadTooLarge));
    }

    fn over_http2(
        uri: &str,
        method: Method,
        fields: &[(&'static str, &str)],
    ) -> Result<(), Denial> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check_http2(&request.body(()).unwrap().into_parts().0.into())
    }

    #[test]
    fn http2_heads_are_judged_by_the_same_rules() {
        let refused = |uri, fields: &[(&'static str, &str)]| {
            let judged = over_http2(uri, Method::GET, fields);
            assert!(
                matches!(judged, Err(Denial::Malformed(_))),
                "{uri} {fields:?}"
            );
        };
        refused("http://a/", &[("host", "b")]);
        refused("http://a/", &[("host", "a"), ("host", "a")]);
        refused("http://me@a/", &[]);
        refused("http://a:b@c/", &[]);
        refused("/", &[]);
        refused("/", &[("host", "me@a")]);
        refused(
            "http://a/",
            &[("content-length", "1"), ("content-length", "1")],
        );
        refused("http://a/", &[("content-length", "1, 1")]);
        for method in [Method::CONNECT, Method::TRACE] {
            assert_eq!(
                over_http2("http://a/", method, &[]),
                Err(Denial::MethodNotServed)
            );
        }
        for (uri, fields) in [
            ("http://a/", &[][..]),
            (
                "http://a:80/b?c",
                &[("host", "A:80"), ("content-length", "5")],
            ),
            ("/b", &[("host", "a")]),
            ("https://[::1]:443/", &[]),
        ] {
            assert_eq!(
                over_http2(uri, Method::GET, fields),
                Ok(()),
                "{uri} {fields:?}"
            );
        }
    }
}
