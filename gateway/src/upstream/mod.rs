//! Where calls go: endpoints, the picker, ejection, health checks, names resolved in the background.
//!
//! Nothing here waits on the request path: picking reads a snapshot of addresses, and what keeps that snapshot true
//! (names, health) runs in tasks of its own, which end with the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

pub use self::cluster::Cluster;
pub(crate) use self::credentials::Credentials;
pub use self::dns::NameServers;
pub use self::endpoint::{EndpointStatus, InFlight, Picked};
pub(crate) use self::peer::client_tls;

mod budget;
mod cluster;
mod credentials;
mod dns;
mod ejection;
mod endpoint;
mod health;
mod located;
mod peer;
mod picker;
pub mod pool;

/// No endpoint can be used (none resolved yet, or none at all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEndpoint;

/// A resolved address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How an attempt ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered (any status below 500, and 501).
    Answered,
    /// It answered with 5xx other than 501.
    ServerError,
    /// Connecting failed.
    ConnectFailed,
    /// It reset, sent garbage, or closed early.
    Broken,
    /// It did not answer in time.
    TimedOut,
    /// The client went away first: nobody is to blame.
    Abandoned,
}
