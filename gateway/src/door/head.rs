//! The raw HTTP/1 head, judged strictly before the parser sees it (RFC 9112).
//!
//! Two readers that disagree about where a request ends are how requests are smuggled. Whatever could be read in two ways is refused:
//! bare LF, folded lines, white space before a colon, several or odd lengths, length beside coding, codings other than `chunked`.

use memchr::{memchr, memchr2};

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
            if self
                .authority
                .is_some_and(|authority| !authority.eq_ignore_ascii_case(value))
            {
                return Err(malformed("Host differs from the authority of the target"));
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            if !digits || value.len() > MAX_LENGTH_DIGITS {
                return Err(malformed("Content-Length is not a plain decimal number"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(malformed("Transfer-Encoding other than `chunked`"));
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
}
