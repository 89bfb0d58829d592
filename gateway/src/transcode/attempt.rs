//! One attempt of a call: an endpoint, a connection to it, and the head of the call on it.

use std::time::Instant;

use http::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri, Version};
use pingora_error::{Error, ErrorType, Result};

use super::call::{self, Failure, Receiving, Sending};
use super::caller::Caller;
use super::conversation::{Trouble, limit_of};
use super::link::{self, LinkKey};
use super::plan::Plan;
use super::{deadline, metadata};
use crate::denial::Denial;
use crate::door::asked::raw_host;
use crate::forward::Forwarder;
use crate::forward::fields::to_service;
use crate::forward::passage::{Passage, exhausted, origin_of};
use crate::journey::{Admitted, Journey};
use crate::upstream::Outcome;

/// Kept connections that turn out to be closed, one after the other, before that counts as a failure.
const STALE_LINKS: u32 = 3;

/// By whom a service is called where its caller does not say who it is.
const AGENT: HeaderValue = HeaderValue::from_static("tollgate");

impl Forwarder {
    /// Begins the call at an endpoint; another one where nothing could be sent, as far as that is allowed.
    pub(super) async fn open(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
        plan: &Plan,
    ) -> std::result::Result<(Sending, Receiving), Trouble> {
        loop {
            if self.pick(passage).is_err() {
                return Err(Denial::NoEndpoint.into());
            }
            let failed = match self.open_at(caller, passage, plan).await? {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            let method = &caller.session.req_header().method;
            if !self.may_retry(passage, method, true) {
                passage.exchange.reason = failed.to_string().into();
                let denial = Self::denial_of(&failed).unwrap_or(Denial::UpstreamFailed);
                return Err(denial.into());
            }
        }
    }

    /// The inner error: nothing was sent.
    async fn open_at(
        &self,
        caller: &mut Caller<'_>,
        passage: &mut Passage,
        plan: &Plan,
    ) -> std::result::Result<Result<(Sending, Receiving)>, Trouble> {
        let mut stale = 0;
        loop {
            let Some(picked) = &passage.picked else {
                return Err(Denial::NoEndpoint.into());
            };
            let peer = picked.peer().clone();
            let key = LinkKey {
                pool: picked.pool_key().clone(),
                streams: plan.form_streams(),
            };
            let seated = caller
                .beside(link::seat(&self.connector, &peer, &key))
                .await?;
            let seat = match seated {
                Ok(seat) => seat,
                Err(error) if exhausted(&error) => {
                    passage.finish_attempt(Outcome::Abandoned);
                    return Err(Denial::Overloaded.into());
                }
                Err(error) => {
                    passage.finish_attempt(Outcome::ConnectFailed);
                    let kind = error.etype().clone();
                    return Ok(Err(Error::explain(kind, error.to_string()).into_up()));
                }
            };
            let reused = seat.reused;
            let request = self.request(caller, passage, plan, peer.is_tls())?;
            let opened = call::open(seat, request, limit_of(passage));
            match caller.beside(opened).await? {
                Ok(opened) => {
                    passage.exchange.upstream.sent = true;
                    return Ok(Ok(opened));
                }
                // A kept connection that turns out closed is nobody's fault.
                Err(Failure::Unseen(_)) if reused && stale < STALE_LINKS => stale += 1,
                Err(failure) => {
                    passage.finish_attempt(Outcome::Broken);
                    let text = failure.reason();
                    return Ok(Err(
                        Error::explain(ErrorType::ConnectionClosed, text).into_up()
                    ));
                }
            }
        }
    }

    /// The head of the call, as the service gets it.
    fn request(
        &self,
        caller: &Caller<'_>,
        passage: &Passage,
        plan: &Plan,
        by_tls: bool,
    ) -> std::result::Result<Request<()>, Trouble> {
        let (Journey::Admitted(admitted), Some(picked)) =
            (&passage.exchange.journey, &passage.picked)
        else {
            return Err(Denial::Internal.into());
        };
        let mut head = caller.session.req_header().clone();
        let origin = origin_of(caller.session);
        to_service(
            &mut head,
            &passage.exchange,
            admitted,
            origin,
            picked.authority(),
        )
        .map_err(|_no_field| Denial::Internal)?;
        let authority = raw_host(&head).unwrap_or(picked.authority()).to_owned();
        let uri = uri_of(plan, admitted, &authority, by_tls);
        let uri = uri.ok_or(Denial::Internal)?;
        let mut fields = std::mem::replace(&mut head.as_owned_parts().headers, HeaderMap::new());
        metadata::keep_for_service(&mut fields);
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
        fields.entry(USER_AGENT).or_insert(AGENT);
        if let Some(end) = passage.deadline {
            let left = end.saturating_duration_since(Instant::now());
            if let Ok(left) = HeaderValue::from_str(&deadline::format_grpc(left)) {
                fields.insert("grpc-timeout", left);
            }
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        Ok(request)
    }
}

/// The method's path, under the base path that the service is said to have.
fn uri_of(plan: &Plan, admitted: &Admitted, authority: &str, by_tls: bool) -> Option<Uri> {
    let scheme = if by_tls { "https" } else { "http" };
    let path = &plan.method().ok()?.path;
    let builder = Uri::builder().scheme(scheme).authority(authority);
    match admitted.api.config.rewrite.base_path.as_deref() {
        None | Some("" | "/") => builder.path_and_query(path.clone()).build().ok(),
        Some(base) => {
            let path = format!("{}{path}", base.trim_end_matches('/'));
            builder.path_and_query(path).build().ok()
        }
    }
}
