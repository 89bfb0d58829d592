//! Where the instances of services live: registered by their sidecars for as long as these stay connected.
//!
//! A registration ends a while after its stream: a sidecar that connects again in time is never missing in between. A control plane that
//! began a moment ago says that it may not know all yet. Not here: whether an instance answers; those who call it find out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::{EndpointsEvent, ServiceEndpoint};

/// How long an instance counts whose sidecar is not connected any more.
pub(crate) const GONE: Duration = Duration::from_secs(30);

/// Instances of all services together.
const MOST: usize = 100_000;

#[derive(Debug)]
struct Instance {
    id: WorkloadId,
    /// Streams that hold it. None: since then.
    held: usize,
    gone: Option<Instant>,
}

/// Those of one service, by address.
type Instances = BTreeMap<Arc<str>, Instance>;

/// All instances.
#[derive(Debug)]
pub(crate) struct Endpoints {
    services: Mutex<BTreeMap<Arc<str>, Instances>>,
    changed: watch::Sender<u64>,
    /// From then on it knows all that live: who was connected to a control plane before this one had time to come back.
    whole: Instant,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            services: Mutex::default(),
            changed: watch::Sender::new(0),
            whole: Instant::now() + GONE,
        }
    }
}

/// Keeps an instance registered while it lives.
#[derive(Debug)]
pub(crate) struct Registered {
    endpoints: Arc<Endpoints>,
    service: Arc<str>,
    address: Arc<str>,
}

impl Endpoints {
    /// Registers an instance. `None`: there are too many.
    pub(crate) fn register(self: &Arc<Self>, id: &WorkloadId, address: &str) -> Option<Registered> {
        let service = Arc::clone(id.name());
        let address: Arc<str> = address.into();
        {
            let mut services = self.services.lock();
            let all: usize = services.values().map(BTreeMap::len).sum();
            let instances = services.entry(Arc::clone(&service)).or_default();
            if all >= MOST && !instances.contains_key(&address) {
                return None;
            }
            let instance = instances
                .entry(Arc::clone(&address))
                .or_insert_with(|| Instance {
                    id: id.clone(),
                    held: 0,
                    gone: None,
                });
            instance.held += 1;
            instance.gone = None;
        }
        self.changed.send_modify(|count| *count += 1);
        Some(Registered {
            endpoints: Arc::clone(self),
            service,
            address,
        })
    }

    /// Moves whenever instances came or went.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// From then on nothing is partial.
    pub(crate) fn whole(&self) -> Instant {
        self.whole
    }

    /// All instances of a service, as far as it is known `now`.
    pub(crate) fn of(&self, service: &str, now: Instant) -> EndpointsEvent {
        let services = self.services.lock();
        let instances = services.get(service).into_iter().flatten();
        EndpointsEvent {
            service: service.to_owned(),
            endpoints: instances
                .map(|(address, instance)| ServiceEndpoint {
                    address: address.to_string(),
                    spiffe_id: instance.id.to_string(),
                    tls: true,
                })
                .collect(),
            partial: now < self.whole,
        }
    }

    /// Forgets instances that have been gone for long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut removed = BTreeSet::new();
        self.services.lock().retain(|service, instances| {
            instances.retain(|_, instance| {
                let long = |since| now.saturating_duration_since(since) >= GONE;
                let stays = !instance.gone.is_some_and(long);
                if !stays {
                    removed.insert(Arc::clone(service));
                }
                stays
            });
            !instances.is_empty()
        });
        if !removed.is_empty() {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

impl Registered {
    /// Ends it at once: nobody shall be sent there any more.
    pub(crate) fn leave(self) {
        let mut services = self.endpoints.services.lock();
        if let Some(instances) = services.get_mut(&self.service)
            && instances.get(&self.address).is_some_and(|it| it.held == 1)
        {
            instances.remove(&self.address);
        }
        drop(services);
        self.endpoints.changed.send_modify(|count| *count += 1);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut services = self.endpoints.services.lock();
        let instances = services.get_mut(&self.service);
        if let Some(instance) = instances.and_then(|it| it.get_mut(&self.address)) {
            instance.held = instance.held.saturating_sub(1);
            if instance.held == 0 {
                instance.gone = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_instance_stays_a_while_after_its_stream_and_leaves_at_once_when_it_says_so() {
        let endpoints = Arc::new(Endpoints::default());
        let id: WorkloadId = "spiffe://d/service/orders".parse().unwrap();
        let count = || endpoints.of("orders", Instant::now()).endpoints.len();
        let first = endpoints.register(&id, "10.0.0.1:9080").unwrap();
        let again = endpoints.register(&id, "10.0.0.1:9080").unwrap();
        let other = endpoints.register(&id, "10.0.0.2:9080").unwrap();
        assert_eq!(count(), 2);
        drop(first);
        endpoints.sweep(Instant::now() + 2 * GONE);
        assert_eq!(count(), 2);
        drop(again);
        endpoints.sweep(Instant::now());
        assert_eq!(count(), 2);
        endpoints.sweep(Instant::now() + 2 * GONE);
        assert_eq!(count(), 1);
        other.leave();
        assert_eq!(count(), 0);
    }

    #[test]
    fn for_as_long_as_instances_take_to_come_back_it_may_not_know_all() {
        let endpoints = Endpoints::default();
        let begun = Instant::now();
        assert!(endpoints.of("orders", begun).partial);
        assert!(!endpoints.of("orders", begun + GONE).partial);
    }
}
