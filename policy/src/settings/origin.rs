//! Pages as browsers name them in `Origin` (RFC 6454): a scheme, a host, and a port where it is not the scheme's own.
//!
//! Not here: which calls a page of another site is judged for.

use std::sync::Arc;

use super::value::{Wrong, ipv6, name};

/// Pages that are let in though they are of another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`: every page.
    Any,
    /// `https://app.example.com`, in lower case.
    Exact(Arc<str>),
    /// `https://*.example.com`: every host below a domain.
    Below {
        /// In lower case.
        scheme: Arc<str>,
        /// In lower case, held as `.example.com`.
        suffix: Arc<str>,
    },
}

impl OriginPattern {
    /// Whether this is one of its pages; `origin` is what a browser said.
    pub fn admits(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(known) => known.eq_ignore_ascii_case(origin),
            Self::Below { scheme, suffix } => {
                let (shown, host) = origin.split_once("://").unwrap_or_default();
                let end = host.len().saturating_sub(suffix.len());
                let below = host.get(end..);
                end > 0
                    && shown.eq_ignore_ascii_case(scheme)
                    && below.is_some_and(|it| it.eq_ignore_ascii_case(suffix))
                    && name(host)
            }
        }
    }
}

/// An origin as it is written.
pub(super) fn origin(text: &str) -> Result<OriginPattern, Wrong> {
    if text == "*" {
        return Ok(OriginPattern::Any);
    }
    let lower = text.to_ascii_lowercase();
    let (scheme, authority) = lower.split_once("://").unwrap_or_default();
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let pattern = match authority.strip_prefix("*.") {
        _ if scheme.is_empty() || !scheme.bytes().all(fit) => None,
        Some(domain) if name(domain) => Some(OriginPattern::Below {
            scheme: scheme.into(),
            suffix: format!(".{domain}").into(),
        }),
        Some(_) => None,
        None => exact(scheme, authority).map(|it| OriginPattern::Exact(it.into())),
    };
    pattern.ok_or_else(|| {
        Wrong::new(
            format!("`{text}` is no origin of a page"),
            "write scheme and host without a path: https://app.example.com, https://*.example.com, or \"*\"",
        )
    })
}

/// As browsers write it: without the port that the scheme has anyway.
fn exact(scheme: &str, authority: &str) -> Option<String> {
    let bracketed = authority.ends_with(']');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !bracketed => (host, Some(port.parse::<u16>().ok()?)),
        _ => (authority, None),
    };
    if !name(host) && !ipv6(host) {
        return None;
    }
    Some(match (scheme, port) {
        (_, None) | ("https", Some(443)) | ("http", Some(80)) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_admitted_by_its_whole_origin() {
        let table = [
            ("https://app.example.com", "https://app.example.com", true),
            (
                "HTTPS://App.Example.com:443",
                "https://app.example.com",
                true,
            ),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://[::1]:80", "http://[::1]", true),
            ("app://electron", "app://electron", true),
            ("https://app.example.com", "http://app.example.com", false),
            (
                "https://app.example.com",
                "https://app.example.com:8443",
                false,
            ),
            (
                "https://app.example.com",
                "https://app.example.com.evil.example",
                false,
            ),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://A.EXAMPLE.COM", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://.example.com", false),
            (
                "https://*.example.com",
                "https://evil.example/.example.com",
                false,
            ),
            ("https://*.example.com", "http://a.example.com", false),
            ("https://*.example.com", "null", false),
            ("*", "null", true),
        ];
        for (written, shown, admitted) in table {
            let pattern = origin(written).unwrap();
            assert_eq!(pattern.admits(shown), admitted, "{written} {shown}");
        }
    }

    #[test]
    fn what_no_browser_would_say_is_refused() {
        for text in [
            "",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://a b",
            "https://app.example.com:port",
            "https://*",
            "https://*.",
            "https://*.example.com:8443",
            "://app.example.com",
            "null",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
