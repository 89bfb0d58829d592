//! What stands around the proxy for each request: the watch over its limits, and the panic that shall cost this request alone.
//!
//! Promises: a request that is over a limit is answered as long as it can be; a panic is answered with a 500 where nothing had been
//! sent, counted and reported as `internal`, and felt by no other request or stream. Not here: what a request does.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use tollgate_policy::settings::{Direction, DoorLimits};

use crate::denial::Denial;
use crate::forward::watch::{Cut, WATCH, Watch};
use crate::journey::{Peer, Shared};
use crate::listener;
use crate::report::Seen;
use crate::request::Exchange;
use crate::telemetry::{RequestId, TraceContext};

/// How long a request that was cut off may take to say so.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The same for a call whose credential was revoked: it is over within a second, said or not.
const LAST_WORD_REVOKED: Duration = Duration::from_millis(400);

/// The application every connection of a worker is served by.
pub(super) struct Guarded<P> {
    inner: Arc<P>,
    limits: DoorLimits,
    options: HttpServerOptions,
    shared: Arc<Shared>,
    direction: Direction,
}

impl<P> Guarded<P> {
    pub(super) fn new(
        inner: Arc<P>,
        shared: Arc<Shared>,
        limits: DoorLimits,
        direction: Direction,
    ) -> Self {
        Self {
            inner,
            limits,
            options: HttpServerOptions::default(),
            shared,
            direction,
        }
    }

    /// pingora answers CONNECT itself, with nothing but a status. (On HTTP/1 the door refuses it before a session exists.)
    async fn refuse_connect(&self, session: &mut ServerSession) {
        let mut exchange = Exchange::new(self.shared.clone());
        let peer = Peer {
            direction: self.direction,
            ..Peer::default()
        };
        let admitted = exchange.admit(session.req_header(), &peer).await;
        let denial = match admitted {
            Err(denial) => denial,
            Ok(()) => Denial::MethodNotServed,
        };
        let id = exchange.request_id;
        let written = write_denial(session, &denial, id.as_str()).await;
        let client = session.client_addr().and_then(|it| it.as_inet()).copied();
        exchange.report(&Seen {
            head: Some(session.req_header()),
            client,
            tls: session.digest().is_some_and(|it| it.ssl_digest.is_some()),
            status: denial.status(),
            response_bytes: u64::try_from(session.body_bytes_sent()).unwrap_or(u64::MAX),
            aborted: written.is_err(),
        });
    }

    /// The parser refused a head that the door had let in, with nothing but a status. The door is meant to be the stricter one;
    /// where it is not, the refusal shall at least be known.
    fn unheard_of(&self, client: Option<SocketAddr>) {
        let denial = Denial::Malformed("the head is not well-formed".into());
        refused_unread(&self.shared, client, &denial);
    }
}

/// Counts and records the refusal of a request that was not read; gives the id it is recorded by.
pub(super) fn refused_unread(
    shared: &Arc<Shared>,
    client: Option<SocketAddr>,
    denial: &Denial,
) -> RequestId {
    shared.metrics.malformed(denial.code());
    let mut exchange = Exchange::new(shared.clone());
    exchange.request_id = RequestId::accept_or_new(None);
    exchange.trace = TraceContext::accept_or_new(None).0;
    exchange.refuse(denial.clone(), None, None);
    exchange.report(&Seen {
        head: None,
        client,
        tls: false,
        status: denial.status(),
        response_bytes: 0,
        aborted: false,
    });
    exchange.request_id
}

async fn write_denial(session: &mut ServerSession, denial: &Denial, id: &str) -> Result<()> {
    let body = denial.problem(id);
    let mut head = ResponseHeader::build(denial.status(), Some(5))?;
    for (name, value) in denial.fields() {
        head.append_header(name, value)?;
    }
    head.insert_header("x-request-id", id)?;
    head.insert_header("content-type", "application/problem+json")?;
    head.insert_header("content-length", body.len().to_string())?;
    session.write_response_header(Box::new(head)).await?;
    session.write_response_body(Bytes::from(body), true).await
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static> HttpServerApp for Guarded<P> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.is_custom() && session.req_header().method == Method::CONNECT {
            self.refuse_connect(&mut session).await;
            return None;
        }
        let client = session.client_addr().and_then(|it| it.as_inet()).copied();
        let watch = Arc::new(Watch::towards(self.direction));
        let served = Caught {
            future: self.inner.process_new_http(session, shutdown),
        };
        let mut served = pin!(WATCH.scope(watch.clone(), served));
        let ended = tokio::select! {
            biased;
            ended = &mut served => Ok(ended),
            cut = watch.expired(self.limits.body_min_rate) => Err(cut),
        };
        let ended = match ended {
            Ok(ended) => ended,
            // Polled again, it finds itself cut off, and answers. What hangs elsewhere is dropped.
            Err(cut) => {
                let patience = match cut {
                    Cut::Revoked | Cut::Ended(_) => LAST_WORD_REVOKED,
                    Cut::Total | Cut::AnswerLate | Cut::BodySlow | Cut::BodyMalformed => LAST_WORD,
                };
                pingora_timeout::timeout(patience, served)
                    .await
                    .unwrap_or(Ok(None))
            }
        };
        match ended {
            Ok(reused) => {
                if !watch.is_named() {
                    self.unheard_of(client);
                }
                reused
            }
            Err(Panicked) => {
                tracing::error!("a request panicked; it alone is lost");
                None
            }
        }
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(listener::h2_options(&self.limits))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}

/// Turns a panic of a future into a value. What the future owned has been dropped by then, which is when the client is told.
struct Caught<F> {
    future: F,
}

struct Panicked;

impl<T, F: Future<Output = T> + Unpin> Future for Caught<F> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = Pin::new(&mut self.future);
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests;
