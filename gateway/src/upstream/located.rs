//! Where a service of the installation lives, followed in the background: the cluster has what was said last, and our certificate of
//! now.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tollgate_policy::workload::WorkloadId;

use super::EndpointAddress;
use super::cluster::Cluster;
use crate::node::NodeIdentity;
use crate::node::services::Endpoints;

/// Instances used of one service: whoever says where they are cannot grow the list without end.
const MOST: usize = 4096;

/// A place where a configured endpoint is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: EndpointAddress,
    /// Who listens there: mutual TLS.
    pub(super) id: Option<WorkloadId>,
}

impl From<EndpointAddress> for Place {
    fn from(address: EndpointAddress) -> Self {
        Self { address, id: None }
    }
}

/// The instances of a service, as places; `None`: nobody has said yet.
pub(super) fn places(endpoints: &Endpoints) -> Option<Vec<Place>> {
    let endpoints = endpoints.as_ref()?;
    let places = endpoints.iter().take(MOST).map(|endpoint| Place {
        address: EndpointAddress::Tcp(endpoint.address),
        id: endpoint.id.clone(),
    });
    Some(places.collect())
}

/// Keeps the instances of the configured endpoint `index` up to date until the cluster is gone.
pub(super) async fn follow(
    cluster: Weak<Cluster>,
    index: usize,
    mut endpoints: watch::Receiver<Endpoints>,
    identity: Arc<NodeIdentity>,
) {
    let mut renewed = identity.changed();
    loop {
        {
            let Some(cluster) = cluster.upgrade() else {
                return;
            };
            renewed.mark_unchanged();
            let said = endpoints.borrow_and_update().clone();
            cluster.located(index, &said, &identity);
        }
        // Whoever says where the service lives may be gone, our certificate is renewed all the same, and the other way round.
        tokio::select! {
            Ok(()) = endpoints.changed() => {}
            Ok(()) = renewed.changed() => {}
            else => return,
        }
    }
}
