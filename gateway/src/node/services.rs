//! Where the services of the installation live, as far as this process has asked.
//!
//! Whoever wants to reach a service follows it; the names that are followed are what the control plane is asked for, so that memory
//! grows with what is used, not with what there is. What the configuration names is not asked for: it holds. Not here: choosing among
//! endpoints.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tollgate_policy::settings::ServiceInstance;
use tollgate_policy::workload::WorkloadId;

/// Services followed at once. Bounds what callers who make up names can cost.
const FOLLOWED: usize = 1000;

/// An instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who it has to be: mutual TLS. `None`: plain, and anybody.
    pub id: Option<WorkloadId>,
}

impl From<ServiceInstance> for ServiceEndpoint {
    fn from(instance: ServiceInstance) -> Self {
        Self {
            address: instance.address,
            id: instance.id,
        }
    }
}

/// All instances of one service; `None`: nobody has said yet.
pub type Endpoints = Option<Arc<[ServiceEndpoint]>>;

/// The services that are followed.
#[derive(Debug, Default)]
pub struct Services {
    known: Mutex<HashMap<Arc<str>, watch::Sender<Endpoints>>>,
    /// Those of the configuration.
    fixed: Mutex<HashMap<Arc<str>, watch::Sender<Endpoints>>>,
    wanted: watch::Sender<u64>,
    /// Nobody will ever say where a service lives: what is not fixed lives nowhere.
    alone: bool,
}

impl Services {
    /// Of a process that nobody tells where services live: what is not [fixed](Self::fix) lives nowhere.
    pub fn alone() -> Self {
        Self {
            alone: true,
            ..Self::default()
        }
    }

    /// Says for good where a service lives, whatever [`Self::set`] says.
    pub fn fix(&self, name: &str, endpoints: Arc<[ServiceEndpoint]>) {
        let mut fixed = self.fixed.lock();
        let held = fixed.entry(name.into()).or_default();
        held.send_replace(Some(endpoints));
    }

    /// Follows a service; `None`: too many are.
    pub fn follow(&self, name: &str) -> Option<watch::Receiver<Endpoints>> {
        if let Some(held) = self.fixed.lock().get(name) {
            return Some(held.subscribe());
        }
        if self.alone {
            return Some(watch::Sender::new(Some(Arc::default())).subscribe());
        }
        let mut known = self.known.lock();
        if let Some(held) = known.get(name) {
            return Some(held.subscribe());
        }
        if known.len() >= FOLLOWED {
            known.retain(|_, held| held.receiver_count() > 0);
        }
        if known.len() >= FOLLOWED {
            return None;
        }
        let (held, followed) = watch::channel(None);
        known.insert(name.into(), held);
        drop(known);
        self.wanted.send_modify(|count| *count += 1);
        Some(followed)
    }

    /// Moves whenever another service is wanted.
    pub fn wanted(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// The names that are followed and not fixed.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.known.lock().keys().cloned().collect()
    }

    /// Says where a service lives. One that nobody follows is forgotten.
    pub fn set(&self, name: &str, endpoints: Arc<[ServiceEndpoint]>) {
        let known = self.known.lock();
        if let Some(held) = known.get(name) {
            held.send_replace(Some(endpoints));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_holds_and_is_asked_for_by_nobody() {
        let endpoint = |port| ServiceEndpoint {
            address: ([127, 0, 0, 1], port).into(),
            id: None,
        };
        let ports = |followed: &watch::Receiver<Endpoints>| {
            let endpoints = followed.borrow();
            let ports = endpoints.iter().flat_map(|it| it.iter());
            ports.map(|it| it.address.port()).collect::<Vec<_>>()
        };
        let services = Services::default();
        services.fix("orders", [endpoint(1)].into());
        let orders = services.follow("orders").unwrap();
        services.set("orders", [endpoint(2)].into());
        assert_eq!(ports(&orders), [1]);
        assert!(services.names().is_empty());
        services.fix("orders", [endpoint(3)].into());
        assert_eq!(ports(&orders), [3]);
        let unknown = services.follow("billing").unwrap();
        assert_eq!(*unknown.borrow(), None);
        let unknown = Services::alone().follow("billing").unwrap();
        assert_eq!(*unknown.borrow(), Some(Arc::default()));
    }

    #[test]
    fn made_up_names_are_forgotten_and_used_ones_are_kept() {
        let services = Services::default();
        let kept = services.follow("orders").unwrap();
        for number in 0..3 * FOLLOWED {
            assert!(services.follow(&format!("s{number}")).is_some());
        }
        let endpoint = ServiceEndpoint {
            address: ([127, 0, 0, 1], 9080).into(),
            id: None,
        };
        services.set("orders", [endpoint].into());
        assert_eq!(kept.borrow().as_ref().unwrap().len(), 1);
        assert!(services.names().len() <= FOLLOWED);
        let all: Vec<_> = (0..FOLLOWED - 1)
            .map(|number| services.follow(&format!("t{number}")).unwrap())
            .collect();
        assert!(services.follow("one-more").is_none());
        drop(all);
        assert!(services.follow("one-more").is_some());
    }
}
