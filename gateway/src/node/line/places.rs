//! Where services live: what is wanted is asked for, what this node serves is registered. What was told stays while nobody answers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::{self, control_client::ControlClient as Wire};
use tonic::transport::Channel;

use super::duplex::{Duplex, Event};
use crate::node::{ServiceEndpoint, Services};

/// What a sidecar registers: its service and where it is reached.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The service.
    pub service: Arc<str>,
    /// Where others reach it.
    pub address: SocketAddr,
}

/// Follows services, and keeps the registration until `leaving` turns true.
pub(super) async fn follow(
    channel: Channel,
    services: Arc<Services>,
    registration: Option<Registration>,
    mut leaving: watch::Receiver<bool>,
) {
    let mut stream = Duplex::new("services", move |from| {
        let mut wire = Wire::new(channel.clone());
        async move { wire.watch_endpoints(from).await }
    });
    let mut wanted = services.wanted();
    let all = |services: &Services| services.names().iter().map(ToString::to_string).collect();
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Event::Opened => {
                    let registration = registration.as_ref().filter(|_| !*leaving.borrow());
                    let registration = registration.map(|own| wire::Registration {
                        service: own.service.to_string(),
                        address: own.address.to_string(),
                    });
                    wanted.mark_unchanged();
                    let wanted = all(&services);
                    stream.send(wire::EndpointsRequest { registration, wanted, leaving: false });
                }
                Event::Closed => {}
                Event::Message(event) => take(&services, event),
            },
            Ok(()) = wanted.changed() => {
                let wanted = all(&services);
                stream.send(wire::EndpointsRequest { registration: None, wanted, leaving: false });
            }
            Ok(()) = leaving.changed() => {
                let leaving = *leaving.borrow();
                stream.send(wire::EndpointsRequest { registration: None, wanted: Vec::new(), leaving });
            }
        }
    }
}

/// Takes endpoints into use; one that is not understood is none, rather than one that is not verified.
fn take(services: &Services, event: wire::EndpointsEvent) {
    let read = |endpoint: wire::ServiceEndpoint| {
        let address = endpoint.address.parse().ok()?;
        let id = match endpoint.tls {
            true => Some(endpoint.spiffe_id.parse::<WorkloadId>().ok()?),
            false => None,
        };
        Some(ServiceEndpoint { address, id })
    };
    let endpoints: Vec<_> = event.endpoints.into_iter().filter_map(read).collect();
    services.set(&event.service, endpoints.into());
}
