//! Where services live: what is wanted is asked for, what this node serves is registered. What was told stays while nobody answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;

use tokio::sync::watch;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::{self, control_client::ControlClient as Wire};
use tonic::transport::Channel;

use super::contact::Contact;
use super::duplex::{Duplex, Event};
use super::memory;
use crate::node::{ServiceEndpoint, Services};

/// What a sidecar registers: its service and where it is reached.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The service.
    pub service: Arc<str>,
    /// Where others reach it.
    pub address: SocketAddr,
}

/// Follows services, and keeps the registration until `leaving` turns true. What was told is kept in `file`, for a start without a control
/// plane.
pub(super) async fn follow(
    channel: Channel,
    services: Arc<Services>,
    registration: Option<Registration>,
    mut leaving: watch::Receiver<bool>,
    (file, contact): (PathBuf, Arc<Contact>),
) {
    let mut told = read(&file);
    for event in told.values() {
        let _damaged_on_disk = take(&services, event);
    }
    let mut stream = Duplex::new("services", &contact, move |from| {
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
                Event::Message(event) => {
                    if take(&services, &event) {
                        told.insert(event.service.clone(), event);
                        keep(&file, &told).await;
                    } else {
                        tracing::error!(service = event.service, "where it lives is not understood; what was told before holds");
                    }
                }
            },
            Ok(()) = wanted.changed() => {
                for event in told.values() {
                    let _understood_before = take(&services, event);
                }
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

/// Takes endpoints into use, all or, where one is not understood, none: it is not to be taken for one that needs no verification, nor
/// for one that is gone. Whether they are.
fn take(services: &Services, event: &wire::EndpointsEvent) -> bool {
    let read = |endpoint: &wire::ServiceEndpoint| {
        let address = endpoint.address.parse().ok()?;
        let id = match endpoint.tls {
            true => Some(endpoint.spiffe_id.parse::<WorkloadId>().ok()?),
            false => None,
        };
        Some(ServiceEndpoint { address, id })
    };
    let endpoints: Option<Vec<_>> = event.endpoints.iter().map(read).collect();
    let understood = endpoints.is_some();
    if let Some(endpoints) = endpoints {
        services.set(&event.service, endpoints.into());
    }
    understood
}

/// What a former process was told, by service. A file that is damaged says nothing.
fn read(file: &Path) -> BTreeMap<String, wire::EndpointsEvent> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let mut rest = &*bytes;
    let mut told = BTreeMap::new();
    while !rest.is_empty() {
        let Ok(event) = wire::EndpointsEvent::decode_length_delimited(&mut rest) else {
            tracing::warn!(
                "{} is damaged: where services live is asked for anew",
                file.display()
            );
            break;
        };
        told.insert(event.service.clone(), event);
    }
    told
}

async fn keep(file: &Path, told: &BTreeMap<String, wire::EndpointsEvent>) {
    let mut bytes = Vec::new();
    for event in told.values() {
        bytes.extend(event.encode_length_delimited_to_vec());
    }
    let file = file.to_owned();
    let written = tokio::task::spawn_blocking(move || memory::write(&file, &bytes)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "where services live is not kept for the next start");
    }
}
