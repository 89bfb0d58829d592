//! Forwarding: two ways to the service behind one journey.
//!
//! `direct` is the short way for the plain majority (HTTP/1 service, no request body, no upgrade). Everything else takes pingora's
//! two-direction pump, whose hooks are `hooks`. Both share the fields (`fields`), the refusals (`answer`) and the picker.

pub mod answer;
pub mod caller;
pub mod direct;
pub mod fields;
mod frames;
pub mod hold;
pub mod hooks;
pub(crate) mod messages;
pub mod passage;
mod streams;
pub(crate) mod unsent;
pub mod watch;

use std::sync::Arc;

use pingora_core::connectors::TransportConnector;

use crate::journey::Shared;

/// One worker's proxy: the journey, with this worker's own connections to the services.
pub struct Forwarder {
    /// What all workers share.
    pub shared: Arc<Shared>,
    pub(crate) connector: TransportConnector,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

impl Forwarder {
    /// A worker's forwarder.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            connector: TransportConnector::new(None),
        }
    }
}
