//! What a sidecar tells the gateway before it of a call it answered itself: that the service never saw it, so that it costs nothing.
//!
//! It is believed of a peer alone that showed the certificate of a sidecar, and goes no further than to the gateway. What the app behind a
//! sidecar says of the kind is taken out of its answers, or it could have its calls for nothing.

use http::HeaderValue;
use http::header::HeaderName;
use pingora_http::ResponseHeader;
use tollgate_policy::workload::{Kind, WorkloadId};

use super::passage::Passage;
use crate::request::Exchange;

/// The field of the answer.
pub(crate) static FIELD: HeaderName = HeaderName::from_static("x-tollgate-unsent");

/// Says so in an answer of our own, where a gateway of the installation asked and nothing of the call went on.
///
/// # Errors
/// None: the value is a field's.
pub(crate) fn say(answer: &mut ResponseHeader, exchange: &Exchange) -> pingora_error::Result<()> {
    let asked_by = exchange.workload.as_ref().map(WorkloadId::kind);
    if asked_by == Some(Kind::Gateway) && !exchange.upstream.sent {
        answer.insert_header(FIELD.clone(), HeaderValue::from_static("1"))?;
    }
    Ok(())
}

/// Takes in what the head of an answer says of this attempt. Before the attempt is over: its endpoint has to be known.
pub(super) fn hear(passage: &mut Passage, answer: &ResponseHeader) {
    if answer.headers.contains_key(&FIELD) {
        heard(passage);
    }
}

/// It was said. What earlier attempts sent stays sent.
pub(crate) fn heard(passage: &mut Passage) {
    let picked = passage.picked.as_ref();
    let peer = picked.and_then(|picked| picked.id()).map(WorkloadId::kind);
    if peer == Some(Kind::Service) {
        let story = &mut passage.exchange.upstream;
        story.sent = story.sent_before;
    }
}
