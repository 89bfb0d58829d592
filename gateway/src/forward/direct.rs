//! The short way to the service: no pump, one task, one select.
//!
//! Taken where it is provably the same as the pump: HTTP/1.1 on both sides, no request body, no upgrade, no expectation, no trailers.
//! It puts back by hand what the pump would do: notices a client that leaves, retries, batches head and body into one write, frames
//! a close-delimited answer, and never ends a truncated one cleanly.
//!
//! What not every request needs is boxed: the future of this way is moved once per request, and is as large as its largest state.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::v1::client::HttpSession as ClientSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tollgate_policy::settings::UpstreamProtocol;

use super::fields::{KEEP_ALIVE, PROXY_CONNECTION, to_service};
use super::passage::{Passage, exhausted, origin_of};
use super::{Forwarder, answer, unsent, watch};
use crate::denial::Denial;
use crate::journey::{Admitted, Journey};
use crate::request::flow::Spoken;
use crate::upstream::{Outcome, pool};

/// How long an idle connection is kept where its peer does not say.
const POOL_AGE: Duration = Duration::from_secs(50);

/// How one attempt ended.
enum Attempt {
    /// The answer is with the client.
    Complete,
    /// Nothing of an answer came; another attempt is allowed.
    Again,
    /// Nothing of an answer came, and it is over.
    Failed(Box<Error>),
}

impl Forwarder {
    /// Forwards by the short way; `false` leaves the request to the pump.
    pub(super) async fn forward(
        &self,
        session: &mut Session,
        passage: &mut Passage,
    ) -> Result<bool> {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Ok(false);
        };
        if !self.shared.fast_path || !plain(session, admitted) {
            return Ok(false);
        }
        loop {
            match self.attempt(session, passage).await? {
                Attempt::Complete => return Ok(true),
                Attempt::Again => {}
                Attempt::Failed(error) => {
                    Box::pin(self.refuse_failed(session, passage, &error)).await?;
                    return Ok(true);
                }
            }
        }
    }

    async fn refuse_failed(
        &self,
        session: &mut Session,
        passage: &mut Passage,
        error: &Error,
    ) -> Result<()> {
        passage.exchange.reason = Cow::Owned(error.to_string());
        let denial = match &passage.exchange.journey {
            Journey::Refused { denial, .. } => denial.clone(),
            Journey::Admitted(_) | Journey::Own(_) | Journey::Arrived => {
                Self::denial_of(error).unwrap_or(Denial::UpstreamFailed)
            }
        };
        passage.exchange.fail(denial.clone());
        answer::refuse(session, &denial, &passage.exchange).await
    }

    async fn attempt(&self, session: &mut Session, passage: &mut Passage) -> Result<Attempt> {
        if let Err(error) = self.pick(passage) {
            return Ok(Attempt::Failed(error));
        }
        let Some((peer, key)) = passage
            .picked
            .as_ref()
            .map(|it| (it.peer().clone(), it.pool_key().clone()))
        else {
            return Error::e_explain(ErrorType::InternalError, "no endpoint picked");
        };
        let (stream, reused) = match self.connect(&peer, &key).await {
            Ok(connection) => connection,
            Err(error) => {
                if exhausted(&error) {
                    passage.finish_attempt(Outcome::Abandoned);
                    passage.exchange.fail(Denial::Overloaded);
                    return Ok(Attempt::Failed(error));
                }
                passage.finish_attempt(Outcome::ConnectFailed);
                return Ok(self.again_or(session, passage, true, error.into_up()));
            }
        };
        let mut service = ClientSession::new_with_options(stream, &*peer);
        service.read_timeout = Some(self.patience(passage));
        service.write_timeout = peer.options.write_timeout;
        let head = self.head_for_service(session, passage)?;
        passage.exchange.upstream.sent = true;
        if let Err(error) = service.write_request_header(Box::new(head)).await {
            return Ok(self.broken(session, passage, reused, error));
        }
        let first = match first_answer(session, &mut service, passage).await? {
            Ok(first) => first,
            Err(error) => return Ok(self.broken(session, passage, reused, error)),
        };
        let (mut answer_head, mut end) = first;
        unsent::hear(passage, &answer_head);
        self.answer_began(passage, answer_head.status.as_u16());
        frame(&mut answer_head, end, &session.req_header().method);
        self.dress(session, passage, &mut answer_head)?;
        self.streams(session, passage, &answer_head);
        let mut tasks = vec![HttpTask::Header(answer_head, end)];
        if !end && let Some(task) = ready_task(&mut service).await {
            end = push(&mut tasks, task)?;
        }
        service.read_timeout = self.idle(passage);
        passage.exchange.releases(&tasks, end);
        session
            .write_response_tasks(tasks)
            .await
            .map_err(|error| error.into_down())?;
        if !end {
            Box::pin(self.body(session, &mut service, passage)).await?;
        }
        service.respect_keepalive();
        let keep_alive = peer.options.idle_timeout.unwrap_or(POOL_AGE);
        if let Some(stream) = service.reuse().await {
            pool::put(&key, stream, keep_alive);
        }
        Ok(Attempt::Complete)
    }

    /// The rest of the answer's body, piece by piece.
    async fn body(
        &self,
        session: &mut Session,
        service: &mut ClientSession,
        passage: &mut Passage,
    ) -> Result<()> {
        loop {
            let task = tokio::select! {
                biased;
                task = service.read_response_task() => task.map_err(|error| error.into_up())?,
                left = session.downstream_session.read_body_or_idle(true) => return Err(gone(left)),
            };
            // A service that never pauses leaves no moment in which the client's side would tell.
            if watch::is_cut() {
                return Err(Error::explain(ErrorType::ReadTimedout, "cut off").into_down());
            }
            if self
                .deadline(passage)
                .is_some_and(|end| Instant::now() >= end)
            {
                return Err(
                    Error::explain(ErrorType::ReadTimedout, "total time exceeded").into_up(),
                );
            }
            if watch::is_long() {
                self.goes_on(session, passage, Spoken::default());
            }
            let mut tasks = Vec::with_capacity(1);
            let end = push(&mut tasks, task)?;
            passage.exchange.releases(&tasks, end);
            session
                .write_response_tasks(tasks)
                .await
                .map_err(|error| error.into_down())?;
            if end {
                return Ok(());
            }
        }
    }

    async fn connect(&self, peer: &Arc<HttpPeer>, key: &pool::PoolKey) -> Result<(Stream, bool)> {
        match pool::take(key) {
            Some(stream) => Ok((stream, true)),
            None => Ok((Box::pin(self.connector.new_stream(&**peer)).await?, false)),
        }
    }

    fn head_for_service(&self, session: &Session, passage: &Passage) -> Result<RequestHeader> {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return Error::e_explain(ErrorType::InternalError, "forward before admission");
        };
        let mut head = session.req_header().clone();
        // Requests with `TE` or `Upgrade` do not come this way.
        for name in [&CONNECTION, &KEEP_ALIVE, &PROXY_CONNECTION] {
            head.remove_header(name);
        }
        let authority = passage
            .picked
            .as_ref()
            .map_or("", |picked| picked.authority());
        to_service(
            &mut head,
            &passage.exchange,
            admitted,
            origin_of(session),
            authority,
        )?;
        Ok(head)
    }

    /// The connection broke, or time ran out, before the head of an answer.
    fn broken(
        &self,
        session: &Session,
        passage: &mut Passage,
        reused: bool,
        error: Box<Error>,
    ) -> Attempt {
        let timed_out = matches!(
            error.etype(),
            ErrorType::ReadTimedout | ErrorType::WriteTimedout
        );
        passage.finish_attempt(match (timed_out, reused) {
            (true, _) => Outcome::TimedOut,
            // A kept connection that turns out closed is nobody's fault.
            (false, true) => Outcome::Abandoned,
            (false, false) => Outcome::Broken,
        });
        let answered_garbage = *error.etype() == ErrorType::InvalidHTTPHeader;
        if timed_out || answered_garbage {
            return Attempt::Failed(error.into_up());
        }
        self.again_or(session, passage, false, error.into_up())
    }

    fn again_or(
        &self,
        session: &Session,
        passage: &Passage,
        unsent: bool,
        error: Box<Error>,
    ) -> Attempt {
        match self.may_retry(passage, &session.req_header().method, unsent) {
            true => Attempt::Again,
            false => Attempt::Failed(error),
        }
    }

    fn idle(&self, passage: &Passage) -> Option<Duration> {
        let Journey::Admitted(admitted) = &passage.exchange.journey else {
            return None;
        };
        admitted
            .operation()
            .map(|operation| operation.settings.idle)
    }
}

/// Whether the short way is provably the same as the pump.
fn plain(session: &mut Session, admitted: &Admitted) -> bool {
    let head = session.req_header();
    let connection = head.headers.get_all(CONNECTION).iter().all(|value| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    });
    let special = [UPGRADE, EXPECT, TE, TRAILER, TRANSFER_ENCODING];
    head.version == http::Version::HTTP_11
        && connection
        && !special.iter().any(|name| head.headers.contains_key(name))
        && admitted.api.cluster.config.protocol == UpstreamProtocol::Http1
        && session.downstream_session.is_body_empty()
}

/// The final head of the answer; informational ones are passed on. The outer error is the client's, the inner one the service's.
async fn first_answer(
    session: &mut Session,
    service: &mut ClientSession,
    passage: &mut Passage,
) -> Result<Result<(Box<ResponseHeader>, bool)>> {
    loop {
        let task = tokio::select! {
            biased;
            task = service.read_response_task() => match task {
                Ok(task) => task,
                Err(error) => return Ok(Err(error)),
            },
            left = session.downstream_session.read_body_or_idle(true) => {
                passage.finish_attempt(Outcome::Abandoned);
                return Err(gone(left));
            }
        };
        match task {
            HttpTask::Header(head, end) if !head.status.is_informational() => {
                return Ok(Ok((head, end)));
            }
            HttpTask::Header(mut head, _)
                if head.status != http::StatusCode::SWITCHING_PROTOCOLS =>
            {
                head.remove_header(&unsent::FIELD);
                let tasks = vec![HttpTask::Header(head, false)];
                Box::pin(session.write_response_tasks(tasks))
                    .await
                    .map_err(|error| error.into_down())?;
            }
            HttpTask::Failed(error) => return Ok(Err(error)),
            _ => {
                let text = "the service answered out of turn";
                return Ok(Error::e_explain(ErrorType::InvalidHTTPHeader, text));
            }
        }
    }
}

/// The client left, or spoke out of turn.
fn gone(left: Result<Option<bytes::Bytes>>) -> Box<Error> {
    match left {
        Err(error) => error.into_down(),
        Ok(_) => {
            Error::explain(ErrorType::ConnectionClosed, "the client spoke out of turn").into_down()
        }
    }
}

/// A task that is there already, so that head and body leave in one write. Reading is cancel-safe.
async fn ready_task(service: &mut ClientSession) -> Option<Result<HttpTask>> {
    tokio::select! {
        biased;
        task = service.read_response_task() => Some(task),
        () = std::future::ready(()) => None,
    }
}

trait IntoTask {
    fn into_task(self) -> Result<HttpTask>;
}

impl IntoTask for HttpTask {
    fn into_task(self) -> Result<HttpTask> {
        match self {
            HttpTask::Failed(error) => Err(error.into_up()),
            task => Ok(task),
        }
    }
}

impl IntoTask for Result<HttpTask> {
    fn into_task(self) -> Result<HttpTask> {
        self.map_err(|error| error.into_up())?.into_task()
    }
}

fn push(tasks: &mut Vec<HttpTask>, task: impl IntoTask) -> Result<bool> {
    let task = task.into_task()?;
    let end = task.is_end();
    tasks.push(task);
    Ok(end)
}

/// Gives an answer that ends with its connection a framing of its own, or the client could not tell a truncated one.
fn frame(answer: &mut ResponseHeader, end: bool, method: &http::Method) {
    let framed = answer.headers.contains_key(CONTENT_LENGTH)
        || answer.headers.contains_key(TRANSFER_ENCODING);
    answer.set_version(http::Version::HTTP_11);
    if !framed && !end && *method != http::Method::HEAD {
        let _ = answer.insert_header(TRANSFER_ENCODING, "chunked");
    }
}
