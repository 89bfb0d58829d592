//! `upstream:` of the API file: as written, and turned into what it means.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::decode::Text;
use super::reader::Reader;
use super::value::{self, Wrong};
use super::{EndpointConfig, HealthCheck, UpstreamConfig, UpstreamProtocol, UpstreamTls};
use crate::workload::is_label;

/// A URL alone, or a mapping.
#[derive(Debug, Deserialize)]
pub(super) enum WrittenUpstream {
    Text(Text),
    Map(Box<WrittenDetails>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenDetails {
    url: Option<Text>,
    endpoints: Option<Vec<Text>>,
    tls: Option<WrittenTls>,
    timeouts: Option<WrittenTimeouts>,
    keep_alive: Option<Text>,
    retries: Option<Text>,
    retry_budget_percent: Option<Text>,
    max_message: Option<Text>,
    health_check: Option<WrittenHealthCheck>,
    eject_after: Option<Text>,
    eject_for: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTls {
    server_name: Option<Text>,
    ca: Option<Text>,
    client_certificate: Option<WrittenPair>,
}

impl WrittenUpstream {
    /// Files that hold nothing secret. The client certificate goes with its key, which is never copied.
    pub(super) fn public_files(&mut self) -> Option<&mut Text> {
        match self {
            Self::Text(_) => None,
            Self::Map(details) => details.tls.as_mut()?.ca.as_mut(),
        }
    }
}

/// A certificate chain and its key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenPair {
    pub(super) cert: Text,
    pub(super) key: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTimeouts {
    connect: Option<Text>,
    first_byte: Option<Text>,
    idle: Option<Text>,
    total: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHealthCheck {
    path: Text,
    interval: Option<Text>,
    timeout: Option<Text>,
    unhealthy_after: Option<Text>,
    healthy_after: Option<Text>,
}

/// What an upstream URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) endpoint: EndpointConfig,
    protocol: UpstreamProtocol,
    tls: bool,
}

impl Target {
    /// Whether both can be endpoints of one upstream.
    fn fits(&self, other: &Self) -> bool {
        let kind = |it: &Self| (it.protocol, it.tls, it.endpoint.service().is_some());
        kind(self) == kind(other)
    }
}

/// Reads `http:// https:// h2c:// grpc:// h2:// grpcs:// unix:/path`, and `service://NAME service+h2://NAME service+grpc://NAME`: a
/// service of the installation, wherever its instances are, by mutual TLS where they have an identity.
pub(super) fn target(text: &str) -> Result<Target, Wrong> {
    const REMEDY: &str = "write http://host:port, https://, h2c://, grpc://, h2://, grpcs://, service://name or unix:/path";
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') || path.starts_with("//") {
            return Err(Wrong::new(
                format!("`{text}` is no absolute socket path"),
                "write unix:/run/service.sock",
            ));
        }
        let endpoint = EndpointConfig {
            host: text.into(),
            port: 0,
        };
        return Ok(Target {
            endpoint,
            protocol: UpstreamProtocol::Http1,
            tls: false,
        });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Wrong::new(format!("`{text}` is no upstream URL"), REMEDY));
    };
    let (protocol, tls) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (UpstreamProtocol::Http1, false),
        "https" => (UpstreamProtocol::Http1, true),
        "h2c" | "grpc" => (UpstreamProtocol::Http2, false),
        "h2" | "grpcs" => (UpstreamProtocol::Http2, true),
        "service" => return service(rest, UpstreamProtocol::Http1),
        "service+h2" | "service+grpc" => return service(rest, UpstreamProtocol::Http2),
        _ => {
            return Err(Wrong::new(
                format!("`{scheme}` is no scheme we speak"),
                REMEDY,
            ));
        }
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        return Err(Wrong::new(
            format!("`{text}` has a path"),
            "leave it away here and write it as `rewrite: {base_path: ...}`",
        ));
    }
    if authority.contains('@') {
        return Err(Wrong::new(
            "a user name or password stands in the URL",
            "leave it away",
        ));
    }
    let endpoint = endpoint(authority, if tls { 443 } else { 80 })
        .ok_or_else(|| Wrong::new(format!("`{authority}` is no host and port"), REMEDY))?;
    Ok(Target {
        endpoint,
        protocol,
        tls,
    })
}

/// A service of the installation, by its name. Where it listens is not written here.
fn service(rest: &str, protocol: UpstreamProtocol) -> Result<Target, Wrong> {
    let name = service_name(rest.strip_suffix('/').unwrap_or(rest))?;
    let endpoint = EndpointConfig {
        host: format!("service:{name}").into(),
        port: 0,
    };
    Ok(Target {
        endpoint,
        protocol,
        tls: false,
    })
}

/// The name of a service of the installation.
pub(super) fn service_name(text: &str) -> Result<Arc<str>, Wrong> {
    if is_label(text) {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no name of a service"),
        "write at most 63 of a-z, 0-9 and -, without port and path, such as service://orders",
    ))
}

fn endpoint(authority: &str, default_port: u16) -> Option<EndpointConfig> {
    let parsed = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0);
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        let port = match rest {
            "" => default_port,
            rest => parsed(rest.strip_prefix(':')?)?,
        };
        return Some(EndpointConfig {
            host: address.into(),
            port,
        });
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, parsed(port)?),
        None => (authority, default_port),
    };
    let host = host.to_ascii_lowercase();
    value::name(&host).then(|| EndpointConfig {
        host: host.into(),
        port,
    })
}

/// An upstream with one endpoint and every default.
pub(super) fn plain(target: Target) -> UpstreamConfig {
    UpstreamConfig {
        endpoints: vec![target.endpoint],
        protocol: target.protocol,
        tls: target.tls.then(UpstreamTls::default),
        connect_timeout: Duration::from_secs(1),
        first_byte_timeout: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(60),
        total_timeout: None,
        keep_alive: Duration::from_secs(50),
        retries: 1,
        retry_budget_percent: 20,
        max_message: 4 << 20,
        health_check: None,
        eject_after: 5,
        eject_for: Duration::from_secs(10),
    }
}

/// The meaning of `upstream:`; mistakes go to `reader`.
pub(super) fn upstream(reader: &mut Reader, written: &WrittenUpstream) -> Option<UpstreamConfig> {
    let details = match written {
        WrittenUpstream::Text(url) => {
            return reader.value("upstream", Some(url), target).map(plain);
        }
        WrittenUpstream::Map(details) => details,
    };
    let base = addresses(reader, details);
    // Without an address the rest is read all the same, for its mistakes.
    let found = base.is_some();
    let mut config = base.unwrap_or_else(|| plain(nowhere()));
    if let Some(tls) = &details.tls {
        let first = details.endpoints.as_deref().unwrap_or_default().first();
        let url = details.url.as_ref().or(first).filter(|_| found);
        upstream_tls(reader, &mut config, tls, url);
    }
    times(reader, &mut config, details);
    numbers(reader, &mut config, details);
    config.health_check = details
        .health_check
        .as_ref()
        .and_then(|written| health(reader, written));
    found.then_some(config)
}

fn times(reader: &mut Reader, config: &mut UpstreamConfig, details: &WrittenDetails) {
    let mut read = |field: &str, text: Option<&Text>, target: &mut Duration| {
        let field = format!("upstream.{field}");
        *target = reader
            .value(&field, text, value::duration)
            .unwrap_or(*target);
    };
    let timeouts = details.timeouts.as_ref();
    read(
        "timeouts.connect",
        timeouts.and_then(|it| it.connect.as_ref()),
        &mut config.connect_timeout,
    );
    read(
        "timeouts.first_byte",
        timeouts.and_then(|it| it.first_byte.as_ref()),
        &mut config.first_byte_timeout,
    );
    read(
        "timeouts.idle",
        timeouts.and_then(|it| it.idle.as_ref()),
        &mut config.idle_timeout,
    );
    read(
        "keep_alive",
        details.keep_alive.as_ref(),
        &mut config.keep_alive,
    );
    read(
        "eject_for",
        details.eject_for.as_ref(),
        &mut config.eject_for,
    );
    let total = timeouts.and_then(|it| it.total.as_ref());
    config.total_timeout = reader.value("upstream.timeouts.total", total, value::duration);
}

fn nowhere() -> Target {
    let endpoint = EndpointConfig {
        host: "".into(),
        port: 0,
    };
    Target {
        endpoint,
        protocol: UpstreamProtocol::Http1,
        tls: false,
    }
}

fn numbers(reader: &mut Reader, config: &mut UpstreamConfig, details: &WrittenDetails) {
    let retries = details.retries.as_ref();
    config.retries = reader
        .value("upstream.retries", retries, |text| {
            value::number(text, 0, 3)
        })
        .unwrap_or(config.retries);
    let budget = details.retry_budget_percent.as_ref();
    config.retry_budget_percent = reader
        .value("upstream.retry_budget_percent", budget, |text| {
            value::number(text, 0, 100)
        })
        .unwrap_or(config.retry_budget_percent);
    let max_message = details.max_message.as_ref();
    config.max_message = reader
        .value("upstream.max_message", max_message, value::size)
        .unwrap_or(config.max_message);
    let eject_after = details.eject_after.as_ref();
    config.eject_after = reader
        .value("upstream.eject_after", eject_after, |text| {
            value::number(text, 0, 1_000)
        })
        .unwrap_or(config.eject_after);
}

fn addresses(reader: &mut Reader, details: &WrittenDetails) -> Option<UpstreamConfig> {
    const REMEDY: &str = "write `url: http://host:port`, or `endpoints:` with a list of such";
    let texts: Vec<&Text> = match (&details.url, &details.endpoints) {
        (Some(url), None) => vec![url],
        (None, Some(list)) if !list.is_empty() => list.iter().collect(),
        (Some(url), Some(_)) => {
            let wrong = Wrong::new("stands beside `endpoints`", "keep one of the two");
            reader.refuse("upstream.url", url, wrong);
            return None;
        }
        (None, Some(_)) => {
            reader.empty("upstream.endpoints", "name at least one, or write `url`");
            return None;
        }
        (None, None) => {
            reader.missing("upstream.url", REMEDY);
            return None;
        }
    };
    let mut first: Option<(Target, UpstreamConfig)> = None;
    for text in texts {
        let target = reader.value("upstream", Some(text), target)?;
        match &mut first {
            None => first = Some((target.clone(), plain(target))),
            Some((like, config)) if like.fits(&target) => {
                config.endpoints.push(target.endpoint);
            }
            Some(_) => {
                let wrong = Wrong::new(
                    "the endpoints speak different protocols, or are a service and addresses",
                    "give all endpoints the same scheme",
                );
                reader.refuse("upstream.endpoints", text, wrong);
            }
        }
    }
    first.map(|(_, config)| config)
}

fn upstream_tls(
    reader: &mut Reader,
    config: &mut UpstreamConfig,
    written: &WrittenTls,
    url: Option<&Text>,
) {
    if let (None, Some(url)) = (&config.tls, url) {
        let of_service = config.endpoints.iter().any(|it| it.service().is_some());
        let wrong = if of_service {
            Wrong::new(
                "is a service of the installation, but `tls` stands beside it",
                "remove `tls`: both sides show the identity of their workload",
            )
        } else {
            Wrong::new(
                "has no TLS, but `tls` stands beside it",
                "write https://, h2:// or grpcs://, or remove `tls`",
            )
        };
        reader.refuse("upstream.url", url, wrong);
        return;
    }
    let server_name = reader.value(
        "upstream.tls.server_name",
        written.server_name.as_ref(),
        |text| match value::name(text) {
            true => Ok(text.to_ascii_lowercase().into()),
            false => Err(Wrong::new(
                format!("`{text}` is no host name"),
                "write service.example.com",
            )),
        },
    );
    let pair = written.client_certificate.as_ref();
    config.tls = Some(UpstreamTls {
        server_name,
        ca: written.ca.as_ref().map(|ca| reader.path(ca)),
        client_certificate: pair.map(|pair| (reader.path(&pair.cert), reader.path(&pair.key))),
    });
}

fn health(reader: &mut Reader, written: &WrittenHealthCheck) -> Option<HealthCheck> {
    let path = reader.value(
        "upstream.health_check.path",
        Some(&written.path),
        value::request_path,
    );
    let mut read = |name: &str, text: Option<&Text>, default: u64| {
        reader
            .value(
                &format!("upstream.health_check.{name}"),
                text,
                value::duration,
            )
            .unwrap_or(Duration::from_secs(default))
    };
    let interval = read("interval", written.interval.as_ref(), 5);
    let timeout = read("timeout", written.timeout.as_ref(), 1);
    let mut count = |name: &str, text: Option<&Text>, default: u32| {
        let field = format!("upstream.health_check.{name}");
        reader
            .value(&field, text, |text| value::number(text, 1, 1_000))
            .unwrap_or(default)
    };
    let unhealthy_after = count("unhealthy_after", written.unhealthy_after.as_ref(), 2);
    let healthy_after = count("healthy_after", written.healthy_after.as_ref(), 1);
    Some(HealthCheck {
        path: path?,
        interval,
        timeout,
        unhealthy_after,
        healthy_after,
    })
}
