//! What classification came to, and the guard of the process before and after it.

use std::sync::Arc;

use pingora_http::RequestHeader;
use tollgate_policy::classify::{Matched, Unclassified};
use tollgate_policy::settings::{Direction, Priority};

use super::{Exchange, Found};
use crate::api::Api;
use crate::cost;
use crate::denial::Denial;
use crate::door::asked::{Host, is_grpc};
use crate::door::target::Target;
use crate::journey::{Called, Peer};
use crate::outbound::Speech;
use crate::transcode::dialect::Dialect;

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

/// The route of a call.
///
/// # Errors
/// There is none, or not for this method.
pub(super) fn matched<'a>(
    api: &'a Api,
    head: &RequestHeader,
    path: &'a str,
) -> Result<Matched<'a>, Denial> {
    let method = head.method.as_str();
    let why = match api.classifier.classify(method, path) {
        Ok(matched) => return Ok(matched),
        Err(why) => why,
    };
    // A WebSocket begins with a GET, whatever method the rule of its stream has.
    if let Some(face) = &api.face
        && Dialect::of(head) == Dialect::Socket
        && let Ok(matched) = api.classifier.classify("POST", path)
        && face
            .method(matched.operation)
            .is_some_and(|method| method.client_streaming || method.server_streaming)
    {
        return Ok(matched);
    }
    Err(match why {
        Unclassified::BadEncoding => {
            Denial::Malformed("the path is not valid percent-encoded UTF-8".into())
        }
        Unclassified::NoTemplate => Denial::UnknownOperation,
        Unclassified::NoMethod { allow } if method == "OPTIONS" => Denial::MethodsAsked(allow),
        Unclassified::NoMethod { allow } => Denial::MethodNotAllowed(allow),
    })
}

impl Exchange {
    /// Which service does a call of the app beside us name? What of it may be called is for that service to say.
    pub(super) async fn address(
        &self,
        head: &RequestHeader,
        host: &Host,
    ) -> Result<Called, Denial> {
        let Some(outbound) = &self.shared.outbound else {
            return Err(Denial::UnknownService(host.as_str().into()));
        };
        let service = outbound.service_of(host.as_str())?;
        let speech = if is_grpc(head) {
            Speech::Grpc
        } else {
            Speech::Http
        };
        let api = match outbound.known(service, speech) {
            Some(api) => api,
            // Boxed: it happens once per service.
            None => Box::pin(outbound.open(service, speech)).await?,
        };
        cost::belongs_to(&api.traffic.cost);
        Ok(Called {
            api,
            operation: 0,
            route: 0,
            base_length: 0,
        })
    }

    /// What no API took may be a health probe.
    pub(super) fn probe(
        &self,
        why: Denial,
        head: &RequestHeader,
        target: &Target<'_>,
        found: &mut Found,
    ) -> Result<Classified, Denial> {
        let probes = self.shared.probes.as_ref();
        let called = probes.and_then(|probes| probes.called(&why, head, target.path));
        let called = called.ok_or(why)?;
        found.api = Some(Arc::clone(&called.api));
        found.operation = Some(called.operation);
        Ok(Classified::Operation(called))
    }

    /// May this source ask at all?
    pub(super) fn enter(&mut self, peer: &Peer) -> Result<(), Denial> {
        // The app beside us is no stranger.
        if peer.direction == Direction::Outbound {
            return Ok(());
        }
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
