//! `tollgate.control.v1.Identity`: certificates for who has a one-time token, and for who has a certificate.
//!
//! Promises: a token is used up in the transaction that is noted in the audit log, before its certificate leaves; names come from the token
//! or from the certificate shown, never from what is sent; guesses are answered late, and only some at a time. What was revoked gets
//! nothing, and as long as it is not known what was, nobody does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tollgate_policy::directory::Revoked;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::identity_server::Identity;
use tollgate_proto::wire::{Credentials, JoinRequest, RenewRequest};
use tonic::{Request, Response, Status};

use super::claims::About;
use super::port::NodePeer;
use super::tokens;
use crate::Control;
use crate::audit::Entry;
use crate::ca::{Ca, CaError, Issued};
use crate::control::now;
use crate::refusal::{Refusal, chain};
use crate::store::JoinTokenRow;

/// How late a wrong token is answered.
const PAUSE: Duration = Duration::from_millis(300);
/// Wrong tokens that wait at once; more are turned away.
const WAITING: usize = 8;
/// Longest name of a node.
const NODE: usize = 128;

/// What is said to whoever sends a token that is not good, whichever way: a guesser learns nothing.
const NOT_GOOD: &str = "the join token is wrong, was used already or has expired; make another with `tollgate join-tokens create`";

/// The service.
pub(super) struct Certificates {
    control: Control,
    ca: Arc<Ca>,
    waiting: Semaphore,
}

impl Certificates {
    pub(super) fn new(control: Control, ca: Arc<Ca>) -> Self {
        Self {
            control,
            ca,
            waiting: Semaphore::new(WAITING),
        }
    }

    async fn turn_away(&self, from: Option<IpAddr>) -> Status {
        tracing::warn!(?from, "a node tried to join with a token that is not good");
        let Ok(_place) = self.waiting.try_acquire() else {
            return Status::resource_exhausted("too many wrong join tokens; try again later");
        };
        tokio::time::sleep(PAUSE).await;
        Status::unauthenticated(NOT_GOOD)
    }

    /// The token as it is kept, if it is good now.
    async fn good(&self, token: &str) -> Result<Option<JoinTokenRow>, Refusal> {
        if !tokens::is_token(token) {
            return Ok(None);
        }
        let digest = self.control.inner.pepper.digest(token);
        let store = self.control.store()?;
        let found = JoinTokenRow::find(&mut *store.read().await?, &digest).await?;
        let at = now();
        Ok(found.filter(|row| row.used_at.is_none() && at < row.expires))
    }

    fn issue(&self, id: &WorkloadId, request: &[u8]) -> Result<Credentials, Status> {
        if is_revoked(&self.control, id)? {
            return Err(revoked(id));
        }
        let Issued { chain, roots } = self.ca.issue(id, request).map_err(|error| match error {
            CaError::Request(_) => Status::invalid_argument(error.to_string()),
            other => {
                tracing::error!(error = told(&other), "no certificate");
                Status::internal("see the log of the control plane")
            }
        })?;
        Ok(Credentials {
            chain: chain.iter().map(|it| it.to_vec()).collect(),
            roots: roots.iter().map(|it| it.to_vec()).collect(),
            spiffe_id: id.to_string(),
            pepper: self.control.inner.pepper_bytes.to_vec(),
        })
    }

    /// Uses a token up; `false`: somebody else was first.
    async fn take(
        &self,
        row: &JoinTokenRow,
        node: &str,
        from: Option<IpAddr>,
    ) -> Result<bool, Refusal> {
        let at = now();
        let mut change = self.control.begin().await?;
        if !JoinTokenRow::take(change.on(), &row.id, node, at).await? {
            return Ok(false);
        }
        change.note(Entry {
            at,
            actor: format!("node:{node}"),
            action: "join_token.use",
            subject: row.id.to_string(),
            detail: json!({ "identity": &*row.identity }),
            from,
        });
        change.commit().await?;
        Ok(true)
    }
}

fn told(error: &CaError) -> String {
    chain(error)
}

#[tonic::async_trait]
impl Identity for Certificates {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Credentials>, Status> {
        let from = request.extensions().get::<SocketAddr>();
        let from = from.map(|peer| peer.ip().to_canonical());
        let asked = request.into_inner();
        let node = node(&asked.node)?;
        let Some(row) = self.good(&asked.token).await.map_err(away)? else {
            return Err(self.turn_away(from).await);
        };
        let id: WorkloadId = row.identity.parse().map_err(|_| {
            tracing::error!(token = &*row.id, "a join token is for no identity");
            Status::internal("see the log of the control plane")
        })?;
        if **id.domain() != **self.ca.domain() {
            return Err(Status::failed_precondition(
                "the token is of another domain; make another",
            ));
        }
        // Before the token is used: a request that is wrong costs none.
        let named = self.control.may_be(&id, node, About::Join).await;
        named.map_err(Status::already_exists)?;
        let credentials = self.issue(&id, &asked.request)?;
        if !self.take(&row, node, from).await.map_err(away)? {
            return Err(self.turn_away(from).await);
        }
        tracing::info!(%id, node, "a node has joined");
        Ok(Response::new(credentials))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Credentials>, Status> {
        let peer = request.extensions().get::<NodePeer>().cloned();
        let Some(NodePeer(id)) = peer else {
            return Err(Status::unauthenticated(
                "only who shows a certificate of this installation that counts gets another; join with a new token",
            ));
        };
        let asked = request.into_inner();
        let node = node(&asked.node)?;
        let named = self.control.may_be(&id, node, About::Join).await;
        named.map_err(Status::permission_denied)?;
        let credentials = self.issue(&id, &asked.request)?;
        tracing::debug!(%id, node, "a certificate was renewed");
        Ok(Response::new(credentials))
    }
}

/// Whether an identity was revoked.
///
/// # Errors
/// It is not known what was.
pub(super) fn is_revoked(control: &Control, id: &WorkloadId) -> Result<bool, Status> {
    if !control.facts_known() {
        return Err(Status::unavailable("it is not known what was revoked"));
    }
    let what = Revoked::Certificate(id.to_string().into());
    Ok(control.inner.index.read().is_revoked(&what))
}

/// What a revoked identity is told.
pub(super) fn revoked(id: &WorkloadId) -> Status {
    Status::unauthenticated(format!("{id} was revoked"))
}

fn node(name: &str) -> Result<&str, Status> {
    let good = (1..=NODE).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if good {
        return Ok(name);
    }
    let why = format!("a node's name is 1 to {NODE} visible characters of ASCII");
    Err(Status::invalid_argument(why))
}

fn away(refusal: Refusal) -> Status {
    Status::unavailable(refusal.to_string())
}
