//! Where services live: what is wanted is asked for, what this node serves is registered. What was told stays while nobody answers, and
//! beside what a control plane says that began a moment ago.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::{self, control_client::ControlClient as Wire};
use tonic::transport::Channel;

use super::contact::Contact;
use super::duplex::{Duplex, Event};
use super::told::Told;
use crate::node::{ServiceEndpoint, Services};
use crate::whole_file;

/// What a sidecar registers: its service and where it is reached.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The service.
    pub service: Arc<str>,
    /// Where others reach it.
    pub address: SocketAddr,
}

type Stream = Duplex<wire::EndpointsRequest, wire::EndpointsEvent>;

/// Follows services, and keeps the registration until `leaving` turns true. What was told is kept in `file`, for a start without a control
/// plane.
pub(super) async fn follow(
    channel: Channel,
    services: Arc<Services>,
    registration: Option<Registration>,
    mut leaving: watch::Receiver<bool>,
    (file, contact): (PathBuf, Arc<Contact>),
) {
    let mut told = Told::read(&file);
    let mut stream: Stream = Duplex::new("services", &contact, move |from| {
        let mut wire = Wire::new(channel.clone());
        async move { wire.watch_endpoints(from).await }
    });
    let mut wanted = services.wanted();
    told.follow(&services.names());
    take_all(&services, &told);
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Event::Opened => {
                    told.begin();
                    wanted.mark_unchanged();
                    told.follow(&services.names());
                    take_all(&services, &told);
                    let own = registration.as_ref().filter(|_| !*leaving.borrow());
                    stream.send(wire::EndpointsRequest {
                        registration: own.map(registered),
                        wanted: told.names(),
                        ..wire::EndpointsRequest::default()
                    });
                }
                Event::Closed => {}
                Event::Message(event) => {
                    hear(&services, &mut told, event);
                    keep(&file, &mut told).await;
                }
            },
            Ok(()) = wanted.changed() => {
                let (wanted, unwanted) = told.follow(&services.names());
                take_all(&services, &told);
                let change = wire::EndpointsRequest {
                    wanted,
                    unwanted,
                    ..wire::EndpointsRequest::default()
                };
                // What is not heard of now is asked for when the stream is open again.
                if !stream.send(change) && stream.is_open() {
                    stream.give_up("what is wanted is not taken");
                }
            }
            Ok(()) = leaving.changed() => {
                let leaving = *leaving.borrow();
                let change = wire::EndpointsRequest { leaving, ..wire::EndpointsRequest::default() };
                stream.send(change);
            }
        }
    }
}

fn registered(own: &Registration) -> wire::Registration {
    wire::Registration {
        service: own.service.to_string(),
        address: own.address.to_string(),
    }
}

/// The control plane says where a service lives.
fn hear(services: &Services, told: &mut Told, event: wire::EndpointsEvent) {
    if endpoints(&event).is_none() {
        tracing::error!(
            service = event.service,
            "where it lives is not understood; what was told before holds"
        );
    } else if let Some(all) = told.told(event) {
        take(services, all);
    }
}

fn take_all(services: &Services, told: &Told) {
    for event in told.followed() {
        take(services, event);
    }
}

/// Takes endpoints into use, if they are understood.
fn take(services: &Services, event: &wire::EndpointsEvent) {
    if let Some(endpoints) = endpoints(event) {
        services.set(&event.service, endpoints.into());
    }
}

/// All endpoints or, where one is not understood, none: it is not to be taken for one that needs no verification, nor for one that is
/// gone.
fn endpoints(event: &wire::EndpointsEvent) -> Option<Vec<ServiceEndpoint>> {
    let read = |endpoint: &wire::ServiceEndpoint| {
        let address = endpoint.address.parse().ok()?;
        let id = match endpoint.tls {
            true => Some(endpoint.spiffe_id.parse::<WorkloadId>().ok()?),
            false => None,
        };
        Some(ServiceEndpoint { address, id })
    };
    event.endpoints.iter().map(read).collect()
}

async fn keep(file: &Path, told: &mut Told) {
    let Some(bytes) = told.changed() else {
        return;
    };
    let file = file.to_owned();
    let written = tokio::task::spawn_blocking(move || whole_file::write(&file, &bytes)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "where services live is not kept for the next start");
        told.not_written();
    }
}
