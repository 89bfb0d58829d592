//! What holds without anybody having configured it: how much one address may ask for, and what happens when the process is saturated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::Network;

/// The guard of a process, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverloadConfig {
    /// Requests per second of one address (IPv6: of one /64), with two seconds' worth at once; `None`: any. Default 1,000.
    pub requests_per_address: Option<NonZeroU32>,
    /// Failed attempts per minute of one address (no such path, no or a bad credential) that good answers do not make up for;
    /// `None`: any. Default 120.
    pub failures_per_address: Option<NonZeroU32>,
    /// Networks whose addresses are not counted. Default: all that are not public.
    pub exempt: Vec<Network>,
    /// How late the loop of a worker may stand before calls are shed; `None`: none are. Default 50 ms.
    pub queue_delay: Option<Duration>,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            requests_per_address: NonZeroU32::new(1_000),
            failures_per_address: NonZeroU32::new(120),
            exempt: not_public(),
            queue_delay: Some(Duration::from_millis(50)),
        }
    }
}

/// Loopback, private (RFC 1918, RFC 4193), shared (RFC 6598) and link-local networks: an address from there stands for a balancer, a
/// neighbouring service or a load test as often as for a client.
fn not_public() -> Vec<Network> {
    let v4 = |a, b, prefix| Network {
        address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)),
        prefix,
    };
    let v6 = |first, prefix, last| Network {
        address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)),
        prefix,
    };
    vec![
        v4(127, 0, 8),
        v4(10, 0, 8),
        v4(172, 16, 12),
        v4(192, 168, 16),
        v4(100, 64, 10),
        v4(169, 254, 16),
        v6(0, 128, 1),
        v6(0xfc00, 7, 0),
        v6(0xfe80, 10, 0),
    ]
}

/// What an operation is worth when not every call can be served: the least first is turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Can wait: reports, crawlers, prefetching.
    Low,
    /// Everything nobody spoke about.
    #[default]
    Normal,
    /// Somebody loses money or health without it.
    Critical,
}
