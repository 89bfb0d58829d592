//! What classification came to, and the guard of the process before and after it.

use std::sync::Arc;

use tollgate_policy::settings::Priority;

use super::Exchange;
use crate::api::Api;
use crate::denial::Denial;
use crate::journey::{Called, Peer};

/// What classification came to.
pub(super) enum Classified {
    /// An operation of the file.
    Operation(Called),
    /// What Tollgate itself answers.
    Own {
        /// The API.
        api: Arc<Api>,
        /// Length of the base path.
        base_length: usize,
    },
}

impl Exchange {
    /// May this source ask at all?
    pub(super) fn enter(&mut self, peer: &Peer) -> Result<(), Denial> {
        let guard = &self.shared.overload;
        guard.enter(peer.client, self.started, &mut self.held)
    }

    /// A saturated worker turns away calls of the APIs that ask for most.
    pub(super) fn take_place(&mut self, classified: &Classified) -> Result<(), Denial> {
        let (api, priority) = match classified {
            Classified::Operation(called) => (&called.api, called.priority()),
            Classified::Own { api, .. } => (api, Priority::Normal),
        };
        let guard = &self.shared.overload;
        guard.take_place(&api.traffic, priority, self.started, &mut self.held)
    }

    /// While the worker is behind, a refusal of the guard is delivered late.
    pub(super) async fn pause(&self, denial: &Denial) {
        self.shared.overload.pause(denial).await;
    }
}
