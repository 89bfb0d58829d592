//! The head sent to the service: what the client may not say is dropped, what we say is added. Both ways to the upstream call this.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderName, HeaderValue, TE, UPGRADE};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tollgate_policy::settings::HostRewrite;

use super::caller;
use crate::admission;
use crate::door::asked::{raw_host, target_of};
use crate::door::fields::dropped;
use crate::journey::Admitted;
use crate::request::Exchange;
use crate::telemetry::digits::ip;

/// Older fields of one connection (RFC 9110, section 7.6.1).
pub(super) static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Sent by some clients to every proxy.
pub(super) static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What the connection tells about the client.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The peer, after PROXY protocol.
    pub peer: Option<IpAddr>,
    /// Whether it came by TLS.
    pub tls: bool,
}

/// Rewrites `head` (a copy of the client's) into what the service gets. `authority` is the endpoint's.
///
/// # Errors
/// A value that cannot be a field; cannot happen for judged heads.
pub fn to_service(
    head: &mut RequestHeader,
    exchange: &Exchange,
    admitted: &Admitted,
    origin: Origin,
    authority: &str,
) -> Result<()> {
    let mut forwarded = Forwarded::of(head, origin, exchange.believed_hops());
    if let Some(protocol) = exchange.said_by_gateway(head) {
        forwarded.protocol = protocol;
    }
    drop_client_claims(head, admitted);
    if !exchange.trace_continued {
        head.remove_header(&TRACESTATE);
    }
    caller::write(head, admitted)?;
    rewrite_host(head, admitted, authority)?;
    rewrite_path(head, admitted)?;
    forwarded.write(head)?;
    head.insert_header("x-request-id", exchange.request_id.as_str())?;
    head.insert_header("traceparent", exchange.trace.header())?;
    if let Some(operation) = admitted.operation() {
        head.insert_header("x-tollgate-operation", &*operation.name)?;
    }
    admission::write(head, exchange, admitted)
}

fn drop_client_claims(head: &mut RequestHeader, admitted: &Admitted) {
    let declared = admitted
        .operation()
        .map_or(&[][..], |operation| &operation.declared_headers);
    let doomed: SmallVec<[HeaderName; 4]> = head
        .headers
        .keys()
        .filter(|name| dropped(name.as_str(), declared))
        .cloned()
        .collect();
    for name in doomed {
        head.remove_header(&name);
    }
    let websocket = admitted
        .operation()
        .is_some_and(|operation| operation.settings.websocket);
    if !websocket {
        head.remove_header(&UPGRADE);
    }
    // RFC 9110, section 10.1.4: only `trailers` means something beyond this hop, and only gRPC needs it.
    if head
        .headers
        .get(TE)
        .is_some_and(|te| te.as_bytes() != b"trailers")
    {
        head.remove_header(&TE);
    }
}

fn rewrite_host(head: &mut RequestHeader, admitted: &Admitted, authority: &str) -> Result<()> {
    let host = match &admitted.api.config.rewrite.host {
        HostRewrite::Preserve => return Ok(()),
        HostRewrite::Upstream => authority,
        HostRewrite::Fixed(host) => host,
    };
    let value = HeaderValue::from_str(host).or_err(ErrorType::InternalError, "host rewrite")?;
    head.insert_header(HOST, value)?;
    if head.uri.authority().is_some() {
        let mut parts = head.uri.clone().into_parts();
        parts.authority = Some(
            host.parse()
                .or_err(ErrorType::InternalError, "host rewrite")?,
        );
        head.set_uri(
            http::Uri::from_parts(parts).or_err(ErrorType::InternalError, "host rewrite")?,
        );
    }
    Ok(())
}

/// Replaces the base path, and turns an absolute form into the origin form.
fn rewrite_path(head: &mut RequestHeader, admitted: &Admitted) -> Result<()> {
    let target = target_of(head)
        .or_else(|_| pingora_error::Error::e_explain(ErrorType::InternalError, "target"))?;
    let replaced = match &admitted.api.config.rewrite.base_path {
        None if target.len() == head.raw_path().len() => return Ok(()),
        None => target.to_owned(),
        Some(base) => {
            let rest = target.get(admitted.base_length..).unwrap_or(target);
            let slash = if rest.starts_with('/') { "" } else { "/" };
            format!("{base}{slash}{rest}")
        }
    };
    set_target(head, &replaced)
}

/// Replaces path and query, in whichever form the head holds them.
pub(super) fn set_target(head: &mut RequestHeader, target: &str) -> Result<()> {
    if head.uri.authority().is_some() {
        let mut parts = head.uri.clone().into_parts();
        parts.path_and_query = Some(
            target
                .parse()
                .or_err(ErrorType::InternalError, "path rewrite")?,
        );
        head.set_uri(
            http::Uri::from_parts(parts).or_err(ErrorType::InternalError, "path rewrite")?,
        );
        return Ok(());
    }
    head.set_raw_path(target.as_bytes())
}

/// Where the call came from, in the forms services read (RFC 7239 and the older fields).
struct Forwarded {
    /// Believed hops before us, then the peer.
    chain: Vec<u8>,
    client: Option<IpAddr>,
    protocol: &'static str,
    host: SmallVec<[u8; 64]>,
}

impl Forwarded {
    fn of(head: &RequestHeader, origin: Origin, trusted_hops: u8) -> Self {
        let mut chain = Vec::with_capacity(48);
        let claimed = claimed_hops(head, trusted_hops);
        for hop in &claimed {
            ip(&mut chain, *hop);
            chain.extend_from_slice(b", ");
        }
        if let Some(peer) = origin.peer {
            ip(&mut chain, peer);
        }
        Self {
            chain,
            client: claimed.first().copied().or(origin.peer),
            protocol: if origin.tls { "https" } else { "http" },
            host: SmallVec::from_slice(raw_host(head).unwrap_or_default().as_bytes()),
        }
    }

    fn write(self, head: &mut RequestHeader) -> Result<()> {
        let mut forwarded = Vec::with_capacity(128);
        match self.client {
            Some(v4 @ IpAddr::V4(_)) => {
                forwarded.extend_from_slice(b"for=");
                ip(&mut forwarded, v4);
            }
            Some(v6 @ IpAddr::V6(_)) => {
                forwarded.extend_from_slice(b"for=\"[");
                ip(&mut forwarded, v6);
                forwarded.extend_from_slice(b"]\"");
            }
            None => forwarded.extend_from_slice(b"for=unknown"),
        }
        if !self.host.is_empty() {
            forwarded.extend_from_slice(b";host=\"");
            forwarded.extend_from_slice(&self.host);
            forwarded.push(b'"');
            head.insert_header("x-forwarded-host", &self.host[..])?;
        }
        forwarded.extend_from_slice(b";proto=");
        forwarded.extend_from_slice(self.protocol.as_bytes());
        head.insert_header("forwarded", forwarded)?;
        let protocol = HeaderValue::from_static(self.protocol);
        head.insert_header("x-forwarded-proto", protocol)?;
        if !self.chain.is_empty() {
            head.insert_header("x-forwarded-for", self.chain)?;
        }
        Ok(())
    }
}

/// The last `trusted_hops` addresses of the client's `X-Forwarded-For`: each was written by a proxy we were told to believe.
fn claimed_hops(head: &RequestHeader, trusted_hops: u8) -> SmallVec<[IpAddr; 4]> {
    let mut hops = SmallVec::new();
    if trusted_hops == 0 {
        return hops;
    }
    let values = head.headers.get_all("x-forwarded-for");
    let all: SmallVec<[&str; 8]> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    for hop in all.iter().rev().take(usize::from(trusted_hops)) {
        let Ok(address) = hop.parse() else { break };
        hops.insert(0, address);
    }
    hops
}

/// The client's address after trusted hops, for the access record.
pub fn client_address(
    head: &RequestHeader,
    peer: Option<SocketAddr>,
    trusted_hops: u8,
) -> Option<SocketAddr> {
    match claimed_hops(head, trusted_hops).first() {
        Some(address) => Some(SocketAddr::new(*address, 0)),
        None => peer,
    }
}
