//! The head sent to the service: what the client may not say is dropped, what we say is added. Both ways to the upstream call this.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderName, HeaderValue, TE, UPGRADE};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tollgate_policy::settings::HostRewrite;

use super::caller;
use crate::door::asked::{raw_host, target_of};
use crate::door::fields::dropped;
use crate::journey::Admitted;
use crate::request::Exchange;

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
    let forwarded = Forwarded::of(head, origin, exchange.shared.trusted_hops);
    drop_client_claims(head, admitted);
    if !exchange.trace_continued {
        head.remove_header("tracestate");
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
    Ok(())
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
    chain: SmallVec<[u8; 64]>,
    client: Option<IpAddr>,
    protocol: &'static str,
    host: SmallVec<[u8; 64]>,
}

impl Forwarded {
    fn of(head: &RequestHeader, origin: Origin, trusted_hops: u8) -> Self {
        let mut chain = SmallVec::new();
        let mut client = origin.peer;
        let claimed = claimed_hops(head, trusted_hops);
        for hop in &claimed {
            chain.extend_from_slice(hop.to_string().as_bytes());
            chain.extend_from_slice(b", ");
        }
        client = claimed.first().copied().or(client);
        if let Some(peer) = origin.peer {
            chain.extend_from_slice(peer.to_string().as_bytes());
        }
        Self {
            chain,
            client,
            protocol: if origin.tls { "https" } else { "http" },
            host: SmallVec::from_slice(raw_host(head).unwrap_or_default().as_bytes()),
        }
    }

    fn write(&self, head: &mut RequestHeader) -> Result<()> {
        let mut forwarded = String::with_capacity(96);
        let bad = "forwarded field";
        match self.client {
            Some(IpAddr::V4(v4)) => write!(forwarded, "for={v4};"),
            Some(IpAddr::V6(v6)) => write!(forwarded, "for=\"[{v6}]\";"),
            None => write!(forwarded, "for=unknown;"),
        }
        .or_err(ErrorType::InternalError, bad)?;
        if !self.host.is_empty() {
            let host = std::str::from_utf8(&self.host).unwrap_or_default();
            write!(forwarded, "host=\"{host}\";").or_err(ErrorType::InternalError, bad)?;
            head.insert_header("x-forwarded-host", &self.host[..])?;
        }
        forwarded.push_str("proto=");
        forwarded.push_str(self.protocol);
        head.insert_header("forwarded", forwarded)?;
        head.insert_header("x-forwarded-proto", self.protocol)?;
        if !self.chain.is_empty() {
            head.insert_header("x-forwarded-for", &self.chain[..])?;
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
