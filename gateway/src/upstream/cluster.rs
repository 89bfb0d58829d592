//! The endpoints of one API's service: what was configured, what it resolved to, and what is known about each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tollgate_policy::settings::{EndpointConfig, UpstreamConfig};

use super::budget::RetryBudget;
use super::credentials::Credentials;
use super::dns::{self, NameServers};
use super::endpoint::{self, Endpoint, EndpointState, EndpointStatus, Picked};
use super::located::{self, Place};
use super::peer::PeerMaker;
use super::pool::PoolKey;
use super::{EndpointAddress, NoEndpoint, health, picker};
use crate::node::services::Endpoints;
use crate::node::{Mesh, NodeIdentity};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How an endpoint is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) eject_after: u32,
    pub(super) eject_for: Duration,
    /// Active checks have a say.
    pub(super) checked: bool,
}

/// What a configured endpoint stands for.
enum Target<'e> {
    Address(EndpointAddress),
    Name,
    /// Of the installation, by its name.
    Service(&'e str),
}

/// Where the configured endpoints are.
#[derive(Clone, Debug, Default)]
struct Found {
    /// The places of each, in their order; empty while a name is unresolved.
    places: Vec<Vec<Place>>,
    /// What instances that have an identity are shown.
    credentials: Option<Arc<Credentials>>,
}

/// The endpoints of one API's service.
#[derive(Debug)]
pub struct Cluster {
    /// What was asked for.
    pub config: UpstreamConfig,
    api: Arc<str>,
    peers: PeerMaker,
    servers: NameServers,
    found: Mutex<Found>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    budget: RetryBudget,
    ready: watch::Sender<bool>,
    tasks: Mutex<Vec<AbortHandle>>,
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
        Self::with_name_servers(api, config, previous, NameServers::System)
    }

    /// As [`Self::new`], asking `servers` for the addresses of names.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn with_name_servers(
        api: &str,
        config: &UpstreamConfig,
        previous: Option<&Cluster>,
        servers: NameServers,
    ) -> Result<Arc<Self>, String> {
        let places = config.endpoints.iter().map(|it| match target(it) {
            Target::Address(address) => vec![address.into()],
            Target::Name | Target::Service(_) => {
                previous.map(|old| old.known(it)).unwrap_or_default()
            }
        });
        let found = Found {
            places: places.collect(),
            credentials: previous.and_then(|old| old.found.lock().credentials.clone()),
        };
        let cluster = Self {
            config: config.clone(),
            api: api.into(),
            peers: PeerMaker::new(api, config)?,
            servers,
            found: Mutex::default(),
            endpoints: ArcSwap::default(),
            budget: RetryBudget::new(config.retry_budget_percent),
            ready: watch::Sender::new(false),
            tasks: Mutex::default(),
        };
        for endpoint in &config.endpoints {
            cluster.check_name(endpoint)?;
        }
        let known = previous
            .map(|old| old.endpoints.load_full())
            .unwrap_or_default();
        cluster.publish(&found, &known)?;
        *cluster.found.lock() = found;
        Ok(Arc::new(cluster))
    }

    /// As [`Self::maintain_in`] a process that belongs to no installation.
    pub fn maintain(self: &Arc<Self>) {
        self.maintain_in(&Mesh::none());
    }

    /// Spawns DNS resolution, the following of services and health checks on the current runtime; they end when the cluster is dropped.
    pub fn maintain_in(self: &Arc<Self>, mesh: &Mesh) {
        let mut tasks = self.tasks.lock();
        for (index, endpoint) in self.config.endpoints.iter().enumerate() {
            match target(endpoint) {
                Target::Address(_) => {}
                Target::Name => {
                    let follow = dns::follow(Arc::downgrade(self), index);
                    tasks.push(tokio::spawn(follow).abort_handle());
                }
                Target::Service(name) => tasks.extend(self.follow(index, name, mesh)),
            }
        }
        if self.config.health_check.is_some() {
            tasks.push(tokio::spawn(health::watch(Arc::downgrade(self))).abort_handle());
        }
    }

    fn follow(self: &Arc<Self>, index: usize, name: &str, mesh: &Mesh) -> Option<AbortHandle> {
        let Some(endpoints) = mesh.services.follow(name) else {
            tracing::error!(
                api = &*self.api,
                "where {name} lives cannot be followed: too many services are"
            );
            return None;
        };
        // What is known already serves the first call.
        let said = endpoints.borrow().clone();
        self.located(index, &said, &mesh.identity);
        let identity = Arc::clone(&mesh.identity);
        let follow = located::follow(Arc::downgrade(self), index, endpoints, identity);
        Some(tokio::spawn(follow).abort_handle())
    }

    /// Waits until there is an endpoint (at once for addresses, else the first resolution); `false` after `limit`.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut ready = self.ready.subscribe();
        matches!(
            tokio::time::timeout(limit, ready.wait_for(|ready| *ready)).await,
            Ok(Ok(_))
        )
    }

    /// Picks by P2C over peak-EWMA latency × in-flight among endpoints neither ejected nor unhealthy (all of them when none is
    /// left), avoiding `avoid` where there is another.
    ///
    /// # Errors
    /// [`NoEndpoint`].
    pub fn pick(&self, avoid: Option<&EndpointAddress>) -> Result<Picked, NoEndpoint> {
        let now = endpoint::now();
        let endpoints = self.endpoints.load();
        let picked = picker::pick(&endpoints, avoid, now).ok_or(NoEndpoint)?;
        Ok(Picked::new(Arc::clone(picked), now))
    }

    /// Takes one retry from the budget; `false` when it is used up. `count_call` feeds it.
    pub fn take_retry(&self) -> bool {
        self.budget.take_retry(endpoint::now() / NANOS_PER_SECOND)
    }

    /// Counts a call towards the retry budget.
    pub fn count_call(&self) {
        self.budget.count_call(endpoint::now() / NANOS_PER_SECOND);
    }

    /// A snapshot of the endpoints for status pages and metrics.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let now = endpoint::now();
        self.endpoints
            .load()
            .iter()
            .map(|endpoint| endpoint.status(now))
            .collect()
    }

    pub(super) fn api(&self) -> &str {
        &self.api
    }

    pub(super) fn current(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Whom to ask, and for which name.
    pub(super) fn name(&self, index: usize) -> Option<(NameServers, Arc<str>)> {
        let endpoint = self.config.endpoints.get(index)?;
        Some((self.servers.clone(), Arc::clone(&endpoint.host)))
    }

    /// Takes the addresses of the configured endpoint `index` into use.
    pub(super) fn resolved(&self, index: usize, addresses: &[IpAddr]) {
        let Some(endpoint) = self.config.endpoints.get(index) else {
            return;
        };
        let mut new: Vec<_> = addresses
            .iter()
            .map(|ip| Place::from(EndpointAddress::Tcp((*ip, endpoint.port).into())))
            .collect();
        new.sort_by_key(|place| place.address.to_string());
        new.dedup();
        let mut found = self.found.lock();
        match found.places.get_mut(index) {
            Some(old) if *old != new => *old = new,
            _ => return,
        }
        tracing::info!(
            api = &*self.api,
            host = &*endpoint.host,
            ?addresses,
            "name resolved"
        );
        self.republish(&found);
    }

    /// Takes the instances of the service that the configured endpoint `index` stands for into use, and our identity of now. What was
    /// said before holds until something else is.
    pub(super) fn located(&self, index: usize, said: &Endpoints, identity: &NodeIdentity) {
        let mut found = self.found.lock();
        let credentials = identity.credentials().unwrap_or_else(|error| {
            tracing::error!(api = &*self.api, error, "the identity stays as it was");
            found.credentials.clone()
        });
        let Some(old) = found.places.get_mut(index) else {
            return;
        };
        let mut changed = false;
        if let Some(new) = located::places(said).filter(|new| new != old) {
            let service = self.config.endpoints.get(index).and_then(|it| it.service());
            let instances = new.len();
            tracing::info!(api = &*self.api, service, instances, "service located");
            *old = new;
            changed = true;
        }
        let pointer = |it: &Option<Arc<Credentials>>| it.as_ref().map(Arc::as_ptr);
        if pointer(&found.credentials) != pointer(&credentials) {
            found.credentials = credentials;
            changed = true;
        }
        if changed {
            self.republish(&found);
        }
    }

    fn republish(&self, found: &Found) {
        if let Err(error) = self.publish(found, &self.endpoints.load_full()) {
            tracing::error!(api = &*self.api, error, "addresses not taken into use");
        }
    }

    /// The places this cluster has for `endpoint`.
    fn known(&self, endpoint: &EndpointConfig) -> Vec<Place> {
        let index = self.config.endpoints.iter().position(|own| own == endpoint);
        index
            .and_then(|index| self.found.lock().places.get(index).cloned())
            .unwrap_or_default()
    }

    /// A name that TLS cannot verify is an error at once, not when it resolves.
    fn check_name(&self, endpoint: &EndpointConfig) -> Result<(), String> {
        if endpoint.service().is_some() {
            return Ok(());
        }
        let anywhere = EndpointAddress::Tcp(([127, 0, 0, 1], endpoint.port).into());
        self.peers.make(&anywhere, &endpoint.host).map(drop)
    }

    /// Makes `found` what is picked from; what is known of a place in `old` stays known.
    fn publish(&self, found: &Found, old: &[Arc<Endpoint>]) -> Result<(), String> {
        let credentials = found.credentials.as_deref();
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
        let mut unreachable = 0_usize;
        for (config, places) in self.config.endpoints.iter().zip(&found.places) {
            let authority = self.authority(config);
            for place in places {
                let same = |one: &&Arc<Endpoint>| {
                    one.address == place.address && one.id == place.id && one.authority == authority
                };
                if endpoints.iter().any(|one| same(&one)) {
                    continue;
                }
                if place.id.is_some() && credentials.is_none() {
                    unreachable += 1;
                    continue;
                }
                let state = old.iter().find(same).map(|one| Arc::clone(&one.state));
                let endpoint = self.endpoint(config, place, credentials, &authority, state)?;
                endpoints.push(Arc::new(endpoint));
            }
        }
        if unreachable > 0 {
            tracing::warn!(
                api = &*self.api,
                instances = unreachable,
                "left out until this process has an identity, which mutual TLS needs"
            );
        }
        let ready = !endpoints.is_empty();
        self.endpoints.store(Arc::new(endpoints));
        if ready {
            self.ready.send_replace(true);
        }
        Ok(())
    }

    fn endpoint(
        &self,
        config: &EndpointConfig,
        place: &Place,
        credentials: Option<&Credentials>,
        authority: &Arc<str>,
        state: Option<Arc<EndpointState>>,
    ) -> Result<Endpoint, String> {
        let (peer, tls) = match config.service() {
            Some(_) => (
                self.peers.make_in_mesh(place, credentials)?,
                place
                    .id
                    .as_ref()
                    .zip(credentials)
                    .and_then(|(id, it)| it.policy(id)),
            ),
            None => (
                self.peers.make(&place.address, &config.host)?,
                self.peers.tls(&config.host),
            ),
        };
        Ok(Endpoint {
            address: place.address.clone(),
            id: place.id.clone(),
            authority: Arc::clone(authority),
            label: match config.service() {
                Some(service) => format!("{service}@{}", place.address).into(),
                None => Arc::clone(authority),
            },
            tls,
            pool_key: PoolKey {
                group_key: peer.group_key,
                address: place.address.clone(),
            },
            peer: Arc::new(peer),
            state: state.unwrap_or_default(),
            rules: Rules {
                eject_after: self.config.eject_after,
                eject_for: self.config.eject_for,
                checked: self.config.health_check.is_some(),
            },
        })
    }

    fn authority(&self, endpoint: &EndpointConfig) -> Arc<str> {
        let scheme_port = if self.config.tls.is_some() { 443 } else { 80 };
        let host = &endpoint.host;
        if let Some(name) = endpoint.service() {
            return name.into();
        }
        if host.starts_with("unix:") {
            return "localhost".into();
        }
        let bare = host.contains(':') && !host.starts_with('[');
        let host: Arc<str> = if bare {
            format!("[{host}]").into()
        } else {
            Arc::clone(host)
        };
        if endpoint.port == scheme_port {
            host
        } else {
            format!("{host}:{}", endpoint.port).into()
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

fn target(endpoint: &EndpointConfig) -> Target<'_> {
    if let Some(name) = endpoint.service() {
        return Target::Service(name);
    }
    if let Some(path) = endpoint.host.strip_prefix("unix:") {
        return Target::Address(EndpointAddress::Unix(PathBuf::from(path)));
    }
    let literal = endpoint.host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<IpAddr>() {
        Ok(ip) => Target::Address(EndpointAddress::Tcp((ip, endpoint.port).into())),
        Err(_) => Target::Name,
    }
}
