//! Writing a refusal to the client, in the form the client speaks.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use pingora_core::protocols::http::HttpTask;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::unsent;
use crate::denial::Denial;
use crate::door::asked::is_grpc;
use crate::explain;
use crate::journey::Journey;
use crate::request::Exchange;
use crate::transcode::dialect::Dialect;
use crate::transcode::refusal::{Refusal, refusal};
use crate::transcode::rpc;

/// Writes the refusal in the words of the caller's protocol: gRPC, gRPC-Web, Connect, the errors of a gRPC service's REST face; else
/// as problem+json.
///
/// # Errors
/// The client is gone.
pub async fn refuse(session: &mut Session, denial: &Denial, exchange: &Exchange) -> Result<()> {
    let request_id = exchange.request_id.as_str();
    if denial.closes() {
        session.set_keepalive(None);
    }
    let head = session.req_header();
    if head.version == http::Version::HTTP_2 && is_grpc(head) {
        return refuse_grpc(session, denial, exchange).await;
    }
    let bodiless = head.method == http::Method::HEAD;
    let (face, operation) = match &exchange.journey {
        Journey::Refused { api, operation, .. } => {
            (api.as_ref().and_then(|api| api.face.as_deref()), *operation)
        }
        Journey::Arrived | Journey::Admitted(_) | Journey::Own(_) => (None, None),
    };
    let face = face.map(|face| (face, operation));
    if let Some(told) = refusal(Dialect::of(head), denial, face, request_id) {
        return refuse_with(session, denial, exchange, told).await;
    }
    let body = denial.problem(request_id);
    let mut answer = head_of(denial.status(), denial, exchange)?;
    if body.is_empty() {
        return session.write_response_header(Box::new(answer), true).await;
    }
    answer.insert_header("content-type", "application/problem+json")?;
    answer.insert_header("content-length", body.len().to_string())?;
    answer.insert_header("cache-control", "no-store")?;
    session
        .write_response_header(Box::new(answer), bodiless)
        .await?;
    if !bodiless {
        session
            .write_response_body(Some(Bytes::from(body)), true)
            .await?;
    }
    Ok(())
}

/// Writes the refusal in the words of another protocol.
async fn refuse_with(
    session: &mut Session,
    denial: &Denial,
    exchange: &Exchange,
    told: Refusal,
) -> Result<()> {
    let bodiless = session.req_header().method == http::Method::HEAD;
    let mut answer = head_of(told.status, denial, exchange)?;
    answer.insert_header("content-type", told.content_type)?;
    answer.insert_header("content-length", told.body.len().to_string())?;
    answer.insert_header("cache-control", "no-store")?;
    session
        .write_response_header(Box::new(answer), bodiless)
        .await?;
    if bodiless {
        return Ok(());
    }
    let body = Bytes::from(told.body);
    session.write_response_body(Some(body), true).await
}

/// What every refusal says in its head.
fn head_of(status: u16, denial: &Denial, exchange: &Exchange) -> Result<ResponseHeader> {
    let mut answer = ResponseHeader::build(status, Some(8))?;
    for (name, value) in denial.fields() {
        answer.append_header(name, value)?;
    }
    if exchange.shared.legacy_quota_fields
        && let Denial::Unpaid(why) = denial
    {
        for (name, value) in why.legacy_fields() {
            answer.insert_header(name, value)?;
        }
    }
    answer.insert_header("x-request-id", exchange.request_id.as_str())?;
    unsent::say(&mut answer, exchange)?;
    if let Some(explanation) = exchange.explanation() {
        answer.insert_header(explain::FIELD, explanation)?;
    }
    Ok(answer)
}

/// Ends an answer that is under way, with the reason where its protocol has a place for one: a closing frame of a WebSocket, an
/// event, the status of gRPC. Whether or not that arrives, the stream ends.
pub(super) async fn end_stream(session: &mut Session, denial: &Denial, exchange: &Exchange) {
    let response = exchange.stream.as_ref().map(|it| &it.spoken.response);
    let request_id = exchange.request_id.as_str();
    let farewell = response.and_then(|it| it.farewell(denial, request_id));
    if session.was_upgraded() {
        if farewell.is_some() {
            let _gone = session.write_response_body(farewell, true).await;
        }
        return;
    }
    if farewell.is_some() {
        // Not its last piece: a stream that was cut off does not look complete.
        let tasks = vec![HttpTask::Body(farewell, false)];
        let _gone = session.write_response_tasks(tasks).await;
        return;
    }
    let head = session.req_header();
    if head.version == http::Version::HTTP_2 && is_grpc(head) {
        let mut trailers = HeaderMap::new();
        trailers.insert(
            "grpc-status",
            HeaderValue::from(u16::from(denial.grpc_status())),
        );
        if let Ok(message) = HeaderValue::from_str(&denial.grpc_message()) {
            trailers.insert("grpc-message", message);
        }
        let session = &mut session.downstream_session;
        let _gone = session.write_response_trailers(trailers).await;
    }
}

/// Trailers-only: status and message in the head (gRPC over HTTP/2, "Responses").
async fn refuse_grpc(session: &mut Session, denial: &Denial, exchange: &Exchange) -> Result<()> {
    let request_id = exchange.request_id.as_str();
    let mut answer = ResponseHeader::build(200, Some(6))?;
    unsent::say(&mut answer, exchange)?;
    answer.insert_header("content-type", "application/grpc")?;
    answer.insert_header("grpc-status", denial.grpc_status().to_string())?;
    answer.insert_header("grpc-message", denial.grpc_message())?;
    if let Some(details) = rpc::status_of(denial, request_id).details_field() {
        answer.insert_header("grpc-status-details-bin", details)?;
    }
    answer.insert_header("x-request-id", request_id)?;
    // The head itself has to end the stream: an empty piece of a body after it is no answer of gRPC's.
    let tasks = vec![HttpTask::Header(Box::new(answer), true)];
    session.write_response_tasks(tasks).await.map(drop)
}
