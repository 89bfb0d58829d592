//! In which protocol a caller speaks, told from the head of its request alone: refusals are said in it before anything else is known.

use http::header::{CONTENT_TYPE, UPGRADE};
use pingora_http::RequestHeader;

use crate::door::asked::target_of;

/// How a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// gRPC itself.
    Grpc,
    /// gRPC-Web, whose frames may be in base64.
    Web {
        /// `application/grpc-web-text`.
        text: bool,
    },
    /// A single call of Connect.
    Connect(Encoding),
    /// The same as a GET, its message in the query.
    ConnectGet(Encoding),
    /// A stream of Connect.
    ConnectStream(Encoding),
    /// A WebSocket.
    Socket,
    /// HTTP as HTTP is meant.
    Rest,
}

/// How messages of Connect are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// ProtoJSON.
    Json,
    /// The wire format.
    Proto,
    /// Something else.
    Unknown,
}

impl Encoding {
    fn named(name: &str) -> Self {
        match name {
            "json" => Self::Json,
            "proto" => Self::Proto,
            _ => Self::Unknown,
        }
    }

    /// As in `application/json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proto => "proto",
            Self::Json | Self::Unknown => "json",
        }
    }
}

impl Dialect {
    /// Of a head.
    pub fn of(head: &RequestHeader) -> Self {
        let field = |name: &str| head.headers.get(name);
        if field(UPGRADE.as_str())
            .is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"))
        {
            return Self::Socket;
        }
        let content_type = field(CONTENT_TYPE.as_str()).and_then(|it| it.to_str().ok());
        let Some(kind) = content_type.and_then(subtype) else {
            let query = target_of(head).unwrap_or_default().split_once('?');
            return query.map_or(Self::Rest, |(_, query)| in_query(&head.method, query));
        };
        if let Some(encoding) = kind.strip_prefix("connect+") {
            return Self::ConnectStream(Encoding::named(encoding));
        }
        if let Some(rest) = kind.strip_prefix("grpc-web") {
            return Self::Web {
                text: rest.starts_with("-text"),
            };
        }
        match kind {
            "proto" => Self::Connect(Encoding::Proto),
            "json" if field("connect-protocol-version").is_some() => Self::Connect(Encoding::Json),
            _ if kind == "grpc" || kind.starts_with("grpc+") => Self::Grpc,
            _ => {
                let query = target_of(head).unwrap_or_default().split_once('?');
                query.map_or(Self::Rest, |(_, query)| in_query(&head.method, query))
            }
        }
    }
}

/// What stands behind `application/`, without parameters.
fn subtype(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_at_checked("application/".len())?;
    if !kind.eq_ignore_ascii_case("application/") {
        return None;
    }
    Some(rest.split(';').next().unwrap_or_default().trim())
}

/// A GET of Connect has its message, and how that is written, in the query.
fn in_query(method: &http::Method, query: &str) -> Dialect {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    match (value("message"), value("encoding")) {
        (Some(_), Some(encoding)) if method == http::Method::GET => {
            Dialect::ConnectGet(Encoding::named(encoding))
        }
        _ => Dialect::Rest,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    type Fields = [(&'static str, &'static str)];

    #[test]
    fn a_head_says_how_its_caller_speaks() {
        let none: &Fields = &[];
        let kind = |value: &'static str| ("content-type", value);
        let table: [(&str, &str, &Fields, Dialect); 14] = [
            ("POST", "/", none, Dialect::Rest),
            ("POST", "/", &[kind("application/json")], Dialect::Rest),
            ("POST", "/", &[kind("text/plain")], Dialect::Rest),
            ("POST", "/", &[kind("application/grpc")], Dialect::Grpc),
            (
                "POST",
                "/",
                &[kind("application/grpc+proto")],
                Dialect::Grpc,
            ),
            (
                "POST",
                "/",
                &[kind("application/grpc-web")],
                Dialect::Web { text: false },
            ),
            (
                "POST",
                "/",
                &[kind("application/grpc-web+proto")],
                Dialect::Web { text: false },
            ),
            (
                "POST",
                "/",
                &[kind("application/grpc-web-text+proto")],
                Dialect::Web { text: true },
            ),
            (
                "POST",
                "/",
                &[kind("application/proto")],
                Dialect::Connect(Encoding::Proto),
            ),
            (
                "POST",
                "/",
                &[
                    kind("Application/json; charset=utf-8"),
                    ("connect-protocol-version", "1"),
                ],
                Dialect::Connect(Encoding::Json),
            ),
            (
                "POST",
                "/",
                &[kind("application/connect+json")],
                Dialect::ConnectStream(Encoding::Json),
            ),
            (
                "POST",
                "/",
                &[kind("application/connect+x")],
                Dialect::ConnectStream(Encoding::Unknown),
            ),
            (
                "GET",
                "/a?message=x&encoding=proto&base64=1",
                none,
                Dialect::ConnectGet(Encoding::Proto),
            ),
            (
                "GET",
                "/a?x=1",
                &[("upgrade", "WebSocket")],
                Dialect::Socket,
            ),
        ];
        for (method, target, fields, expected) in table {
            let mut head = RequestHeader::build(method, target.as_bytes(), None).unwrap();
            for (name, value) in fields {
                head.insert_header((*name).to_owned(), *value).unwrap();
            }
            assert_eq!(Dialect::of(&head), expected, "{method} {target} {fields:?}");
        }
    }
}
