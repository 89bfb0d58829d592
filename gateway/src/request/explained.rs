//! The journey of a call that is only described, for `tollgate explain`, and the explanation of one that is under way.

use std::sync::Arc;

use pingora_http::RequestHeader;

use super::{Exchange, Found};
use crate::explain::Ear;
use crate::journey::{Journey, Peer, Shared};

impl Exchange {
    /// Explains a call that is only described: the same steps, nothing counted, logged or forwarded.
    pub async fn explain(
        shared: Arc<Shared>,
        head: &RequestHeader,
        peer: &Peer,
    ) -> (Journey, Ear, String) {
        let mut exchange = Self::new(shared);
        exchange.begin(head);
        exchange.ear = Ear::listening();
        exchange.is_described = true;
        let mut found = Found::default();
        let journey = exchange.journey_to_admission(head, peer, &mut found).await;
        let journey = journey.unwrap_or_else(|denial| Journey::Refused {
            denial,
            api: found.api,
            operation: found.operation,
            identified: found.identified,
        });
        let ear = std::mem::take(&mut exchange.ear);
        (journey, ear, exchange.reason.to_string())
    }

    /// The explanation, where the caller asked for it and may see it.
    pub fn explanation(&self) -> Option<String> {
        self.ear.shown()
    }
}
