//! What a process of the installation is called: `spiffe://DOMAIN/service/NAME` for a sidecar beside a service,
//! `spiffe://DOMAIN/gateway/NAME` for a gateway, `spiffe://DOMAIN/control` for the control plane.
//!
//! TLS verifies names of DNS, so each identity has one of those too, made of it; no two identities have the same. Not here: who may
//! have an identity.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name of DNS.
const LONGEST: usize = 253;

/// What a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An instance of a service, with its sidecar.
    Service,
    /// A gateway at the edge.
    Gateway,
    /// The control plane.
    Control,
}

impl Kind {
    /// As written in identities.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Gateway => "gateway",
            Self::Control => "control",
        }
    }
}

/// An identity. All instances of a service share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId {
    domain: Arc<str>,
    kind: Kind,
    name: Arc<str>,
}

/// Why a text is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no identity of a workload: write spiffe://DOMAIN/service/NAME or spiffe://DOMAIN/gateway/NAME, of a-z, 0-9 and -"
)]
pub struct NoWorkloadId;

impl WorkloadId {
    /// Puts an identity together. The control plane's has no name of its own.
    ///
    /// # Errors
    /// Domain or name cannot stand in a name of DNS, or the whole is too long.
    pub fn new(domain: &str, kind: Kind, name: &str) -> Result<Self, NoWorkloadId> {
        let named = match kind {
            Kind::Control => name.is_empty(),
            Kind::Service | Kind::Gateway => is_label(name),
        };
        let id = Self {
            domain: domain.into(),
            kind,
            name: name.into(),
        };
        if !named || !domain.split('.').all(is_label) || id.dns_name().len() > LONGEST {
            return Err(NoWorkloadId);
        }
        Ok(id)
    }

    /// The installation's domain of trust.
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Name of the service or gateway; empty for the control plane.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name certificates are verified by: `orders.service.DOMAIN`, `control.DOMAIN`.
    pub fn dns_name(&self) -> String {
        let kind = self.kind.as_str();
        match self.kind {
            Kind::Control => format!("{kind}.{}", self.domain),
            Kind::Service | Kind::Gateway => format!("{}.{kind}.{}", self.name, self.domain),
        }
    }
}

/// The SPIFFE ID.
impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.domain, self.kind.as_str())?;
        match self.kind {
            Kind::Control => Ok(()),
            Kind::Service | Kind::Gateway => write!(f, "/{}", self.name),
        }
    }
}

impl FromStr for WorkloadId {
    type Err = NoWorkloadId;

    fn from_str(text: &str) -> Result<Self, NoWorkloadId> {
        let rest = text.strip_prefix("spiffe://").ok_or(NoWorkloadId)?;
        let (domain, path) = rest.split_once('/').ok_or(NoWorkloadId)?;
        match path.split_once('/') {
            Some(("service", name)) => Self::new(domain, Kind::Service, name),
            Some(("gateway", name)) => Self::new(domain, Kind::Gateway, name),
            None if path == "control" => Self::new(domain, Kind::Control, ""),
            _ => Err(NoWorkloadId),
        }
    }
}

/// Whether a text can be one label of a name of DNS (RFC 1123), in lower case.
pub fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written_and_has_one_name_of_dns() {
        for (text, name) in [
            (
                "spiffe://shop.example/service/orders",
                "orders.service.shop.example",
            ),
            (
                "spiffe://shop.example/gateway/edge-1",
                "edge-1.gateway.shop.example",
            ),
            ("spiffe://tollgate/control", "control.tollgate"),
        ] {
            let id: WorkloadId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(id.dns_name(), name);
        }
    }

    #[test]
    fn what_could_be_taken_for_another_is_no_identity() {
        let long = format!("spiffe://{}/service/a", "a.".repeat(125) + "a");
        for text in [
            "orders",
            "spiffe://shop.example",
            "spiffe://shop.example/",
            "spiffe:///service/orders",
            "spiffe://shop.example/service/",
            "spiffe://shop.example/service/Orders",
            "spiffe://shop.example/service/a.b",
            "spiffe://shop.example/service/a/b",
            "spiffe://shop.example/service/-a",
            "spiffe://shop..example/service/a",
            "spiffe://shop.example/job/a",
            "spiffe://shop.example/control/a",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<WorkloadId>(), Err(NoWorkloadId), "{text}");
        }
    }
}
