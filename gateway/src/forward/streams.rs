//! Which calls go on: streams of messages from their first moment, others once they have taken long.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Forwarder;
use super::messages::Messages;
use super::passage::{Passage, peer_of};
use crate::door::asked::is_grpc;
use crate::journey::Journey;
use crate::request::flow::Spoken;

impl Forwarder {
    /// The call goes on: it is judged again while it does.
    pub(crate) fn goes_on(&self, session: &Session, passage: &mut Passage, spoken: Spoken) {
        if passage.exchange.stream.is_some() {
            return;
        }
        let peer = peer_of(session, self.shared.trusted_hops);
        passage
            .exchange
            .goes_on(session.req_header(), &peer, spoken);
    }

    /// An answer begins: is it a stream?
    pub(super) fn streams(
        &self,
        session: &Session,
        passage: &mut Passage,
        answer: &ResponseHeader,
    ) {
        let spoken = if answer.status == http::StatusCode::SWITCHING_PROTOCOLS {
            Spoken {
                request: Messages::Socket(Default::default()),
                response: Messages::Socket(Default::default()),
            }
        } else if are_events(answer) {
            Spoken {
                request: Messages::None,
                response: Messages::Events(Default::default()),
            }
        } else {
            return;
        };
        self.goes_on(session, passage, spoken);
    }

    /// A call of gRPC begins: where it is not known to be one message each way, it is a stream.
    pub(super) fn grpc_streams(&self, session: &Session, passage: &mut Passage) {
        if !is_grpc(session.req_header()) {
            return;
        }
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return;
        };
        let face = admitted.api.face.as_ref();
        let method = face.and_then(|face| face.method(admitted.operation));
        if method.is_none_or(|method| method.client_streaming || method.server_streaming) {
            let spoken = Spoken {
                request: Messages::Prefixed(Default::default()),
                response: Messages::Prefixed(Default::default()),
            };
            self.goes_on(session, passage, spoken);
        }
    }
}

/// Server-sent events that can be read on their way.
fn are_events(answer: &ResponseHeader) -> bool {
    let content = answer.headers.get(CONTENT_TYPE);
    let is_stream = content.is_some_and(|it| {
        let mut parts = it.as_bytes().split(|byte| *byte == b';');
        let essence = parts.next().unwrap_or_default();
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"text/event-stream")
    });
    is_stream && !answer.headers.contains_key(CONTENT_ENCODING)
}
