//! `tollgate.control.v1.Control`: what nodes ask and are told, over gRPC.
//!
//! Each stream is a task with a bounded queue towards its node: a node that does not read loses its stream, not our memory. What was
//! revoked travels on a stream of its own, which says several times a second that it lives. Not here: who the peer is (`port`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tollgate_policy::workload::WorkloadId;
use tollgate_proto::convert;
use tollgate_proto::stream::{Sent, sent};
use tollgate_proto::wire;
use tollgate_proto::wire::control_server::{self, ControlServer};
use tollgate_proto::{Answer, ControlClient, Question};
use tonic::{Request, Response, Status, Streaming};

use super::port::NodePeer;
use super::streams::{Ended, Outgoing};
use super::{check, streams};
use crate::Control;

/// Messages that wait for a node to read them.
const ROOM: usize = 64;
/// Bytes of a message from a node.
const LARGEST: usize = 4 << 20;
/// How long a question of a consumer's own affairs may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The service, for the port of nodes.
pub(super) fn router(control: Control, client: ControlClient) -> axum::Router {
    let service = ControlServer::new(Nodes {
        control,
        client,
        pace: check::Pace::default(),
    });
    let service = service.max_decoding_message_size(LARGEST);
    axum::Router::new().route_service("/tollgate.control.v1.Control/{method}", service)
}

/// Answers nodes.
#[derive(Debug)]
struct Nodes {
    control: Control,
    /// Questions of remote nodes take the same way as those from this process.
    client: ControlClient,
    /// How fast they ask whether a call may pass.
    pace: check::Pace,
}

type Stream<T> = Sent<Result<T, Status>>;

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Who asks, as its certificate says.
pub(super) fn peer_of<T>(request: &Request<T>) -> Result<WorkloadId, Status> {
    let peer = request.extensions().get::<NodePeer>();
    peer.map(|NodePeer(id)| id.clone())
        .ok_or_else(|| Status::unauthenticated("a certificate of the installation is needed"))
}

/// Begins a stream towards a node: `send` fills it, until it ends or the node is gone.
fn stream<T: Send + 'static, F>(fill: impl FnOnce(Outgoing<T>) -> F) -> Response<Stream<T>>
where
    F: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let (sender, stream) = sent(ROOM);
    let filling = fill(sender.clone());
    tokio::spawn(async move {
        if let Err(Ended(Some(status))) = filling.await {
            let _node_gone = sender.send(Err(status)).await;
        }
    });
    Response::new(stream)
}

impl Nodes {
    async fn ask(&self, question: Question) -> Result<Answer, Status> {
        let asked = self.client.ask(question, PATIENCE).await;
        match asked.map_err(|_| Status::unavailable("no answer in time"))? {
            Answer::Refused(why) => Err(Status::failed_precondition(why)),
            answer => Ok(answer),
        }
    }
}

fn strange() -> Status {
    Status::internal("an answer to another question")
}

#[tonic::async_trait]
impl control_server::Control for Nodes {
    type WatchPolicyStream = Stream<wire::PolicyEvent>;
    type WatchEndpointsStream = Stream<wire::EndpointsEvent>;
    type WatchRevocationsStream = Stream<wire::RevocationsEvent>;
    type WatchChangesStream = Stream<wire::ChangesEvent>;
    type ResolveStream = Stream<wire::ResolveResponse>;
    type LeasesStream = Stream<wire::LeasesResponse>;
    type ReportStream = Stream<wire::UsageReceipt>;

    async fn watch_policy(
        &self,
        request: Request<Streaming<wire::PolicyReport>>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        let (peer, control) = (peer_of(&request)?, self.control.clone());
        let address = request.extensions().get::<SocketAddr>();
        let address = address.map_or_else(String::new, SocketAddr::to_string);
        let from = request.into_inner();
        Ok(stream(|to| {
            streams::policy(control, (peer, address), from, to)
        }))
    }

    async fn watch_endpoints(
        &self,
        request: Request<Streaming<wire::EndpointsRequest>>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        let (peer, control) = (peer_of(&request)?, self.control.clone());
        let from = request.into_inner();
        Ok(stream(|to| streams::endpoints(control, peer, from, to)))
    }

    async fn watch_revocations(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        peer_of(&request)?;
        // Before the rest is read: what is revoked in between is told twice rather than not at all.
        let (told, control) = (self.client.announcements(), self.control.clone());
        Ok(stream(|to| streams::revocations(control, told, to)))
    }

    async fn watch_changes(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        peer_of(&request)?;
        let (told, control) = (self.client.announcements(), self.control.clone());
        Ok(stream(|to| streams::changes(control, told, to)))
    }

    async fn resolve(
        &self,
        request: Request<Streaming<wire::ResolveRequest>>,
    ) -> Result<Response<Self::ResolveStream>, Status> {
        peer_of(&request)?;
        let control = self.control.clone();
        let from = request.into_inner();
        Ok(stream(|to| streams::resolve(control, from, to)))
    }

    async fn check(
        &self,
        request: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckResponse>, Status> {
        let peer = peer_of(&request)?;
        let address = request.extensions().get::<SocketAddr>();
        let address = address.map(SocketAddr::ip);
        self.pace.count(peer, address, Instant::now())?;
        check::check(&self.control, request.get_ref()).map(Response::new)
    }

    async fn leases(
        &self,
        request: Request<Streaming<wire::LeasesRequest>>,
    ) -> Result<Response<Self::LeasesStream>, Status> {
        let (peer, control) = (peer_of(&request)?, self.control.clone());
        let from = request.into_inner();
        Ok(stream(|to| streams::leases(control, peer, from, to)))
    }

    async fn report(
        &self,
        request: Request<Streaming<wire::UsageBatch>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (peer, control) = (peer_of(&request)?, self.control.clone());
        let from = request.into_inner();
        Ok(stream(|to| streams::usage(control, peer, from, to)))
    }

    async fn terms(
        &self,
        request: Request<wire::AboutConsumer>,
    ) -> Result<Response<wire::TermsResponse>, Status> {
        peer_of(&request)?;
        let (consumer, api) = convert::about(request.into_inner()).map_err(malformed)?;
        match self.ask(Question::Terms { consumer, api }).await? {
            Answer::Terms(terms) => Ok(Response::new(convert::terms_response(&terms))),
            _ => Err(strange()),
        }
    }

    async fn accept(
        &self,
        request: Request<wire::Acceptance>,
    ) -> Result<Response<wire::AcceptResponse>, Status> {
        peer_of(&request)?;
        let acceptance = request.into_inner().try_into().map_err(malformed)?;
        let asked = self.client.ask(Question::Accept(acceptance), PATIENCE);
        let refused = match asked.await {
            Ok(Answer::Accepted) => String::new(),
            Ok(Answer::Refused(why)) => why,
            Ok(_) => return Err(strange()),
            Err(_) => return Err(Status::unavailable("no answer in time")),
        };
        Ok(Response::new(wire::AcceptResponse { refused }))
    }

    async fn overview(
        &self,
        request: Request<wire::AboutConsumer>,
    ) -> Result<Response<wire::JsonDocument>, Status> {
        peer_of(&request)?;
        let consumer = request.into_inner().consumer.into();
        match self.ask(Question::Overview { consumer }).await? {
            Answer::Overview(value) => Ok(Response::new(convert::json_document(&value))),
            _ => Err(strange()),
        }
    }

    async fn own_usage(
        &self,
        request: Request<wire::AboutConsumer>,
    ) -> Result<Response<wire::JsonDocument>, Status> {
        peer_of(&request)?;
        let mut request = request.into_inner();
        let limits = std::mem::take(&mut request.limits);
        let limits = convert::counters(limits).map_err(malformed)?;
        let (consumer, api) = convert::about(request).map_err(malformed)?;
        let question = Question::OwnUsage {
            consumer,
            api,
            limits,
        };
        match self.ask(question).await? {
            Answer::OwnUsage(value) => Ok(Response::new(convert::json_document(&value))),
            _ => Err(strange()),
        }
    }

    async fn audit(
        &self,
        request: Request<wire::AuditRequest>,
    ) -> Result<Response<wire::AuditResponse>, Status> {
        peer_of(&request)?;
        let records = convert::audit_records(request.into_inner()).map_err(malformed)?;
        match self.ask(Question::Audit(records)).await? {
            Answer::Noted => Ok(Response::new(wire::AuditResponse {})),
            _ => Err(strange()),
        }
    }
}
