//! Names resolved in the background: all addresses of a name, looked up again when their time is over.
//!
//! The last good answer is kept for as long as there is no better one: a name server that is away, or a name that
//! is briefly empty, takes no service down. It never runs on the request path.

use std::net::IpAddr;
use std::sync::Weak;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::cluster::Cluster;
use super::picker::random_below;

/// Bounds of the time between two lookups, whatever the records say.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Longest pause between lookups that fail; the first is [`SHORTEST`], each doubles.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Addresses used of one name: a name server cannot grow the list without end.
const MAX_ADDRESSES: usize = 256;

/// Who is asked for addresses.
#[derive(Clone, Debug, Default)]
pub enum NameServers {
    /// The system's (`/etc/resolv.conf`), with `/etc/hosts` first. Both are read again for every lookup.
    #[default]
    System,
    /// These, with `/etc/hosts` first.
    Given(Box<ResolverConfig>),
}

impl NameServers {
    fn resolver(&self) -> Result<TokioResolver, String> {
        let mut builder = match self {
            // Without a usable resolv.conf, hosts and `localhost` still work.
            Self::System => TokioResolver::builder_tokio().unwrap_or_else(|_| given(no_servers())),
            Self::Given(config) => given((**config).clone()),
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Every lookup is meant to ask: the pause between them is ours.
        options.cache_size = 0;
        builder.build().map_err(|error| error.to_string())
    }

    /// The addresses of `host` and how long they hold.
    async fn look_up(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        let answer = self
            .resolver()?
            .lookup_ip(host)
            .await
            .map_err(|error| error.to_string())?;
        let addresses: Vec<_> = answer.iter().take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err("the answer holds no address".to_owned());
        }
        let valid = answer
            .valid_until()
            .saturating_duration_since(Instant::now());
        Ok((addresses, valid.clamp(SHORTEST, LONGEST)))
    }
}

fn no_servers() -> ResolverConfig {
    ResolverConfig::from_parts(None, Vec::new(), Vec::new())
}

fn given(config: ResolverConfig) -> hickory_resolver::ResolverBuilder<TokioRuntimeProvider> {
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

/// Keeps the addresses of the configured endpoint `index` up to date until the cluster is gone.
pub(super) async fn follow(cluster: Weak<Cluster>, index: usize) {
    let mut pause = SHORTEST;
    loop {
        let Some((servers, host)) = cluster.upgrade().and_then(|cluster| cluster.name(index))
        else {
            return;
        };
        let answer = servers.look_up(&host).await;
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        let wait = match answer {
            Ok((addresses, valid)) => {
                pause = SHORTEST;
                cluster.resolved(index, &addresses);
                valid
            }
            Err(error) => {
                tracing::warn!(
                    api = cluster.api(),
                    host = &*host,
                    error,
                    "name not resolved"
                );
                let wait = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                wait
            }
        };
        drop(cluster);
        tokio::time::sleep(jittered(wait)).await;
    }
}

/// Up to a tenth less: those who started together shall not stay together.
pub(super) fn jittered(time: Duration) -> Duration {
    let thousandths = u32::try_from(random_below(100)).unwrap_or(0);
    time - time / 1000 * thousandths
}
