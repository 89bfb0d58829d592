//! Absolute URLs of parties we ask: key servers, token introspection, authorisers. Not here: where calls go (`upstream`).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::value::{self, Wrong};

/// Longest URL anybody needs.
const MAX_BYTES: usize = 2_048;

/// What a URL consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'t> {
    pub(super) scheme: &'t str,
    /// Host with its port, as written.
    pub(super) authority: &'t str,
    /// Host without port; IPv6 in brackets.
    pub(super) host: &'t str,
    /// Path and query; empty where there is none.
    pub(super) path: &'t str,
}

impl<'t> Url<'t> {
    /// Takes `text` apart.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>^`{|}#".contains(&b);
        if text.len() > MAX_BYTES || !text.bytes().all(plain) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = match authority.rfind(']') {
            Some(_) if authority.ends_with(']') => (authority, None),
            _ => authority
                .rsplit_once(':')
                .map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        (port_fits && (value::name(host) || ipv6(host).is_some())).then_some(Self {
            scheme,
            authority,
            host,
            path,
        })
    }

    /// Whether it leads to this machine itself, by its name alone.
    pub(super) fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>().ok();
        let address = address.or_else(|| ipv6(self.host).map(IpAddr::V6));
        match address {
            Some(address) => address.is_loopback(),
            None => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse().ok()
}

/// A URL that secrets or keys come from: `https://`, or `http://` on this machine and where `cleartext` allows it.
pub(super) fn trusted(text: &str, cleartext: bool) -> Result<Arc<str>, Wrong> {
    let Some(url) = Url::parse(text).filter(|url| matches!(url.scheme, "https" | "http")) else {
        return Err(Wrong::new(
            format!("`{text}` is no URL we can ask"),
            "write https://host/path",
        ));
    };
    if url.scheme == "http" && !cleartext && !url.is_loopback() {
        return Err(Wrong::new(
            format!(
                "`{text}` is not protected: whoever is on the way could give us keys of theirs"
            ),
            "write https://, or `allow_private: true` where the network itself is trusted",
        ));
    }
    Ok(text.into())
}

/// As [`trusted`], for URLs of a description, which may relax nothing.
pub(crate) fn key_url(text: &str) -> Option<Arc<str>> {
    trusted(text, false).ok()
}

/// The OpenID Connect discovery document of an issuer that is a URL (OpenID Connect Discovery 1.0, section 4).
pub(crate) fn discovery_of(issuer: &str) -> String {
    format!("{}{DISCOVERY}", issuer.trim_end_matches('/'))
}

/// The issuer whose discovery document `url` is.
pub(crate) fn issuer_of(url: &str) -> Option<&str> {
    url.strip_suffix(DISCOVERY)
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Whether `url` is a discovery document and not a key set: by the path that the standards give them (RFC 8414 too).
pub(super) fn is_discovery(url: &str) -> bool {
    url.contains(DISCOVERY) || url.contains("/.well-known/oauth-authorization-server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_or_refused() {
        let parse = |text| Url::parse(text).map(|it| (it.scheme, it.authority, it.host, it.path));
        assert_eq!(
            parse("https://id.example.com/keys?v=1"),
            Some(("https", "id.example.com", "id.example.com", "/keys?v=1"))
        );
        assert_eq!(
            parse("http://[::1]:8080"),
            Some(("http", "[::1]:8080", "[::1]", ""))
        );
        assert_eq!(parse("http://[::1]"), Some(("http", "[::1]", "[::1]", "")));
        for wrong in [
            "id.example.com",
            "https://",
            "https://a:0/",
            "https://a:99999/",
            "https://user@host/",
            "https://a b/",
            "https://a/#f",
            "https://[::1/",
            "https://ä/",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn cleartext_stays_on_this_machine() {
        for text in [
            "https://id.example.com/keys",
            "http://127.0.0.1/keys",
            "http://[::1]:9/keys",
            "http://localhost:9/keys",
        ] {
            assert!(trusted(text, false).is_ok(), "{text}");
        }
        for text in ["http://id.example.com/keys", "http://10.0.0.1/", "ftp://a/"] {
            assert!(trusted(text, false).is_err(), "{text}");
        }
        assert!(trusted("http://10.0.0.1/", true).is_ok());
    }
}
