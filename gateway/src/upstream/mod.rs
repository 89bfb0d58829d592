//! Where calls go: endpoints, the picker, ejection, health checks, names resolved in the background.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;
use tollgate_policy::settings::UpstreamConfig;

/// The endpoints of one API's service.
#[derive(Debug)]
pub struct Cluster {
    /// What was asked for.
    pub config: UpstreamConfig,
}

/// No endpoint can be used (none resolved yet, or none at all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEndpoint;

/// An endpoint chosen for one attempt. It counts as in flight until dropped.
#[derive(Debug)]
pub struct Picked {
    _private: (),
}

/// A resolved address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
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

impl Cluster {
    /// Reads PEM files and prepares one `HttpPeer` template per endpoint; resolves nothing that is not an address
    /// literal. `api` names it in logs. Endpoints that `previous` has too keep their latency, ejection and resolution.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn new(
        api: &str,
        config: &UpstreamConfig,
        previous: Option<&Cluster>,
    ) -> Result<Arc<Self>, String> {
        let _ = (api, previous);
        Ok(Arc::new(Self {
            config: config.clone(),
        }))
    }

    /// Spawns DNS resolution and health checks on the current runtime; they end when the cluster is dropped.
    pub fn maintain(self: &Arc<Self>) {}

    /// Picks by P2C over peak-EWMA latency × in-flight among endpoints neither ejected nor unhealthy (all of them when none is
    /// left), avoiding `avoid` where there is another.
    ///
    /// # Errors
    /// [`NoEndpoint`].
    pub fn pick(&self, avoid: Option<&EndpointAddress>) -> Result<Picked, NoEndpoint> {
        let _ = avoid;
        Err(NoEndpoint)
    }

    /// Takes one retry from the budget; `false` when it is used up. `count_call` feeds it.
    pub fn take_retry(&self) -> bool {
        false
    }

    /// Counts a call towards the retry budget.
    pub fn count_call(&self) {}
}

impl Picked {
    /// Where it is.
    pub fn address(&self) -> &EndpointAddress {
        unreachable!("written by the upstream module")
    }

    /// The peer to connect to: timeouts, TLS, protocol, `group_key`, `max_h2_streams`, `idle_timeout` all set.
    pub fn peer(&self) -> &Arc<HttpPeer> {
        unreachable!("written by the upstream module")
    }

    /// Host and port as configured, for `Host` rewriting and logs.
    pub fn authority(&self) -> &str {
        unreachable!("written by the upstream module")
    }

    /// Reports how the attempt ended; `latency` is from sending the request to the head of the answer.
    pub fn finish(self, outcome: Outcome, latency: Duration) {
        let _ = (outcome, latency);
    }
}
