//! Active health checks: a GET on each endpoint in turn, healthy on 2xx and 3xx.
//!
//! To an HTTP/2-only service the check is that it accepts a connection. Checks use connections of their own.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tollgate_policy::settings::{HealthCheck, UpstreamProtocol};

use super::EndpointAddress;
use super::cluster::Cluster;
use super::dns::jittered;
use super::endpoint::Endpoint;
use super::peer::TlsPolicy;
use super::picker::random_below;
use crate::descriptors::tells_of_lack;

/// Checks of one cluster under way at once: a long list of endpoints is no burst of connections.
const AT_ONCE: usize = 16;
/// Whatever is configured, a check is no busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// A status line is at the very beginning of an answer.
const MAX_READ: usize = 1024;

/// What one check needs, apart from the cluster, so that the cluster may go while it runs.
struct Probe {
    check: HealthCheck,
    endpoint: Arc<Endpoint>,
    tls: Option<TlsPolicy>,
    connect_only: bool,
}

/// Checks the endpoints of the cluster, round after round, until it is gone.
pub(super) async fn watch(cluster: Weak<Cluster>) {
    loop {
        let Some((interval, probes)) = cluster.upgrade().and_then(|cluster| probes(&cluster))
        else {
            return;
        };
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut round: JoinSet<()> = probes
            .into_iter()
            .map(|probe| one(probe, Arc::clone(&permits), interval))
            .collect();
        while round.join_next().await.is_some() {}
        tokio::time::sleep(jittered(interval)).await;
    }
}

fn probes(cluster: &Cluster) -> Option<(Duration, Vec<Probe>)> {
    let check = cluster.config.health_check.as_ref()?;
    let endpoints = cluster.current();
    let probes = endpoints.iter().map(|endpoint| Probe {
        check: check.clone(),
        tls: endpoint.tls.clone(),
        endpoint: Arc::clone(endpoint),
        connect_only: cluster.config.protocol == UpstreamProtocol::Http2,
    });
    Some((check.interval.max(SHORTEST_INTERVAL), probes.collect()))
}

async fn one(probe: Probe, permits: Arc<Semaphore>, interval: Duration) {
    // Spread over a part of the interval, so that replicas are not all asked at the same moment.
    let spread = interval / 1000 * u32::try_from(random_below(100)).unwrap_or(0);
    tokio::time::sleep(spread).await;
    let Ok(_permit) = permits.acquire().await else {
        return;
    };
    let verdict = match tokio::time::timeout(probe.check.timeout, probe.ask()).await {
        Ok(verdict) => verdict,
        Err(_) => Err("no answer in time".to_owned()),
    };
    // A lack of descriptors says nothing about the endpoint.
    if !verdict.as_ref().is_err_and(|why| tells_of_lack(why)) {
        probe.judge(verdict);
    }
}

impl Probe {
    fn judge(&self, verdict: Result<(), String>) {
        let state = &self.endpoint.state;
        if verdict.is_ok() == state.healthy.load(Relaxed) {
            state.dissent.store(0, Relaxed);
            return;
        }
        let dissent = state.dissent.fetch_add(1, Relaxed).saturating_add(1);
        let (needed, healthy) = match &verdict {
            Ok(()) => (self.check.healthy_after, true),
            Err(_) => (self.check.unhealthy_after, false),
        };
        if dissent >= needed {
            state.healthy.store(healthy, Relaxed);
            state.dissent.store(0, Relaxed);
            let (endpoint, reason) = (&self.endpoint.address, verdict.err().unwrap_or_default());
            tracing::warn!(%endpoint, healthy, reason, "health of an endpoint changed");
        }
    }

    async fn ask(&self) -> Result<(), String> {
        match &self.endpoint.address {
            EndpointAddress::Tcp(address) => {
                self.over(
                    TcpStream::connect(address)
                        .await
                        .map_err(|e| e.to_string())?,
                )
                .await
            }
            EndpointAddress::Unix(path) => {
                self.over(UnixStream::connect(path).await.map_err(|e| e.to_string())?)
                    .await
            }
        }
    }

    async fn over(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
        if self.connect_only {
            return Ok(());
        }
        match &self.tls {
            Some((config, name)) => {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await;
                self.get(stream.map_err(|error| error.to_string())?).await
            }
            None => self.get(stream).await,
        }
    }

    async fn get(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: tollgate-health\r\nconnection: close\r\n\r\n",
            self.check.path, self.endpoint.authority
        );
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        let mut head = Vec::with_capacity(MAX_READ);
        while head.len() < MAX_READ && !head.contains(&b'\n') {
            match stream.read_buf(&mut head).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let status = status(&head).ok_or("not an HTTP/1 answer")?;
        if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(format!("status {status}"))
        }
    }
}

/// The status of an answer that begins with `head` (RFC 9112, section 4).
fn status(head: &[u8]) -> Option<u16> {
    let mut words = std::str::from_utf8(head.get(..12)?).ok()?.split(' ');
    words.next()?.strip_prefix("HTTP/1.")?;
    words.next().filter(|code| code.len() == 3)?.parse().ok()
}
