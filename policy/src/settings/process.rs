//! `tollgate.yaml`: the process.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{OverloadConfig, QuotaConfig, UsageConfig};
use crate::workload::WorkloadId;

/// The process, as meant.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessConfig {
    /// Where clients connect. At least one.
    pub listeners: Vec<ListenerConfig>,
    /// Admin, loopback by default: 127.0.0.1:9900.
    pub admin: SocketAddr,
    /// HTTP API for operators: 127.0.0.1:9911 by default; `None`: off.
    pub control_api: Option<SocketAddr>,
    /// Where data planes of other processes connect; see [`NodesConfig`].
    pub nodes: NodesConfig,
    /// Worker threads; default: one per core.
    pub workers: usize,
    /// Store of last-known-good configuration and the lock.
    pub state_dir: PathBuf,
    /// How long a drain may last. Default 30 s.
    pub drain_timeout: Duration,
    /// How many proxies in front of us may be believed in `X-Forwarded-For`. Default 0.
    pub trusted_hops: u8,
    /// Limits at the door.
    pub limits: DoorLimits,
    /// What holds when strangers or everybody ask for too much.
    pub overload: OverloadConfig,
    /// How limits are told of.
    pub quota: QuotaConfig,
    /// How what was served is written down.
    pub usage: UsageConfig,
    /// Where access records go.
    pub access_log: AccessLogTarget,
    /// Where services of the installation live, for `service://NAME`: what is written here holds, whatever a control plane says.
    pub services: BTreeMap<Arc<str>, Vec<ServiceInstance>>,
    /// The short way for plain requests (default true); off, every request takes the pump. For comparing the two.
    pub fast_path: bool,
}

/// The control plane's port for data planes of other processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodesConfig {
    /// Where they connect; `None` (the default of a gateway): they cannot. `tollgate control` opens 0.0.0.0:9910.
    pub listen: Option<SocketAddr>,
    /// Names and addresses the port is reached at, besides loopback: its certificate has them.
    pub hosts: Vec<Arc<str>>,
    /// The installation's domain of trust, in every identity. Default `tollgate.internal`.
    pub domain: Arc<str>,
}

impl Default for NodesConfig {
    fn default() -> Self {
        Self {
            listen: None,
            hosts: Vec::new(),
            domain: "tollgate.internal".into(),
        }
    }
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Where.
    pub address: ListenAddress,
    /// TLS; `None`: cleartext.
    pub tls: Option<ListenerTls>,
    /// Peers (networks) whose PROXY protocol header is demanded and believed; empty: none.
    pub proxy_protocol_from: Vec<Network>,
    /// Which way its calls go.
    pub direction: Direction,
}

impl ListenerConfig {
    /// A listener for callers, in cleartext.
    pub fn cleartext(address: ListenAddress) -> Self {
        Self {
            address,
            tls: None,
            proxy_protocol_from: Vec::new(),
            direction: Direction::Inbound,
        }
    }

    /// A listener by which the app beside us reaches other services of the installation.
    pub fn outbound(address: ListenAddress) -> Self {
        Self {
            direction: Direction::Outbound,
            ..Self::cleartext(address)
        }
    }
}

/// Which way the calls of a listener go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// From callers to the APIs served here.
    #[default]
    Inbound,
    /// From the app beside us to other services of the installation, by their names.
    Outbound,
}

/// An instance of a service of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInstance {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who it has to be: mutual TLS. `None`: plain, and anybody.
    pub id: Option<WorkloadId>,
}

/// Address of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix socket path.
    Unix(PathBuf),
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// PEM certificate chain and key, selected by SNI; the first is the default.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Whether TLS 1.2 is accepted beside 1.3. Default true.
    pub tls12: bool,
    /// Whether clients are asked for a certificate; `None`: not.
    pub client: Option<ClientCertificates>,
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            tls12: true,
            client: None,
        }
    }
}

/// How clients are asked for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file of the roots that vouch for them.
    pub roots: PathBuf,
    /// No handshake without one; else a client without counts as one that shows nothing.
    pub required: bool,
}

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Address with the host bits cleared.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` lies in this network; IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let ((ours, ours_width), (theirs, theirs_width)) = (bits(self.address), bits(address));
        let mask = u128::MAX
            .checked_shl(128 - u32::from(self.prefix))
            .unwrap_or(0);
        ours_width == theirs_width && ours & mask == theirs & mask
    }
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum AccessLogTarget {
    /// Standard output (the default).
    #[default]
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// What a stranger may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Bytes of a request head. Default 32 KiB.
    pub head_bytes: usize,
    /// Fields of a request head. Default 100.
    pub head_fields: usize,
    /// Bytes of a request body. Default 8 MiB.
    pub body_bytes: u64,
    /// Concurrent streams of an HTTP/2 connection. Default 100.
    pub h2_streams: u32,
    /// Time for a request head. Default 10 s.
    pub head_timeout: Duration,
    /// Slowest request body, bytes per second, after 5 s. Default 1024.
    pub body_min_rate: u64,
    /// Time for a TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// TLS handshakes at once, per worker. Default 256.
    pub handshakes: usize,
    /// Connections per listener. Default 20 000.
    pub connections: usize,
    /// Connections per address (IPv6: per /64). Default 1 000.
    pub connections_per_address: usize,
    /// Idle time of a kept connection. Default 75 s.
    pub keep_alive: Duration,
    /// Requests per connection. Default 100 000.
    pub requests_per_connection: u32,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            head_bytes: 32 * 1024,
            head_fields: 100,
            body_bytes: 8 * 1024 * 1024,
            h2_streams: 100,
            head_timeout: Duration::from_secs(10),
            body_min_rate: 1024,
            handshake_timeout: Duration::from_secs(10),
            handshakes: 256,
            connections: 20_000,
            connections_per_address: 1_000,
            keep_alive: Duration::from_secs(75),
            requests_per_connection: 100_000,
        }
    }
}
