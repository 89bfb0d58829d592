//! A control plane that lies: it has the installation's authority and port, and says nonsense.
#![allow(unreachable_pub, missing_docs, reason = "for tests")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tollgate_control::nodes::port;
use tollgate_control::{Ca, Control, Options, UsageSettings};
use tollgate_proto::bundles::content_hash;
use tollgate_proto::stream::{Sent, sent};
use tollgate_proto::wire::control_server::{self, ControlServer};
use tollgate_proto::wire::{self, bundle_file, policy_event, resolve_response, revocations_event};
use tonic::{Request, Response, Status, Streaming};

use crate::world::shop::SPEC;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Messages without content: every choice left open, every enum zero.
    Zeros,
    /// Messages that contradict themselves, and everybody is somebody, by limits that say nothing.
    Nonsense,
    /// A policy of long ago that asks nobody who he is.
    Old,
    /// Bytes that are no protocol at all.
    Noise,
}

/// How often it was asked, by kind.
#[derive(Debug, Default)]
pub struct Asked {
    pub policy: AtomicU64,
    pub revocations: AtomicU64,
    pub callers: AtomicU64,
    pub quota: AtomicU64,
    pub usage: AtomicU64,
    /// Connections that got noise.
    pub noise: AtomicU64,
}

/// It lies until it is dropped.
pub struct Liar {
    pub asked: Arc<Asked>,
    stop: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
    _state: tempfile::TempDir,
}

impl Liar {
    /// With the authority that is kept in this control plane's directory, where nodes look for it.
    pub fn start(lie: Lie, control: &Path, nodes: SocketAddr) -> Self {
        let _again = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let (state, asked) = (tempfile::tempdir().unwrap(), Arc::<Asked>::default());
        let ca = Ca::load_or_make(control, "tollgate.internal").unwrap();
        let (stop, stopped) = oneshot::channel();
        let listener = {
            let _context = runtime.enter();
            tollgate_gateway::listener::bind_shared(nodes).unwrap()
        };
        if lie == Lie::Noise {
            runtime.spawn(noise(listener, ca, Arc::clone(&asked)));
        } else {
            let (_client, server) = tollgate_proto::channel([7; 32]);
            let options = Options {
                state_dir: state.path().to_owned(),
                pepper: [7; 32],
                files: None,
                key_environment: "test".to_owned(),
                usage: UsageSettings::default(),
            };
            let host = runtime.block_on(Control::start(options, server)).unwrap();
            let told = Told(lie, Arc::clone(&asked));
            let service = ControlServer::new(told);
            let router =
                axum::Router::new().route_service("/tollgate.control.v1.Control/{method}", service);
            runtime.spawn(async move {
                let ending = async { drop(stopped.await) };
                port::serve(listener, host, ca, router, ending)
                    .await
                    .unwrap();
            });
        }
        Self {
            asked,
            stop: Some(stop),
            runtime: Some(runtime),
            _state: state,
        }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

/// After a good handshake, anything but HTTP/2.
async fn noise(listener: std::net::TcpListener, ca: Arc<Ca>, asked: Arc<Asked>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (acceptor, asked) = (
            tokio_rustls::TlsAcceptor::from(ca.tls().unwrap()),
            asked.clone(),
        );
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            // Each connection another way: text, a frame that promises much, and what looks like settings.
            let number = asked.noise.fetch_add(1, Ordering::Relaxed);
            let said: &[u8] = match number % 3 {
                0 => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                1 => b"\xff\xff\xff\x01\xff\xff\xff\xff\xff\xff\xff",
                _ => b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff",
            };
            let _gone = stream.write_all(said).await;
            let _gone = stream.write_all(&[0xa5; 70_000]).await;
            let mut rest = Vec::new();
            let _gone = stream.read_to_end(&mut rest).await;
        });
    }
}

struct Told(Lie, Arc<Asked>);

type Answers<T> = Result<Response<Sent<Result<T, Status>>>, Status>;

/// A stream that says this and stays open as long as the other end does.
fn say<T: Send + 'static, Q: Send + 'static>(all: Vec<T>, mut from: Streaming<Q>) -> Answers<T> {
    let (to, stream) = sent(64);
    tokio::spawn(async move {
        for message in all {
            let _gone = to.send(Ok(message)).await;
        }
        while let Ok(Some(_)) = from.message().await {}
    });
    Ok(Response::new(stream))
}

/// A stream that says this over and over.
fn repeat<T: Clone + Send + Sync + 'static>(all: Vec<T>) -> Answers<T> {
    let (to, stream) = sent(64);
    tokio::spawn(async move {
        loop {
            for message in &all {
                if to.send(Ok(message.clone())).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    Ok(Response::new(stream))
}

/// A stream that answers each message.
fn answer<T: Send + 'static, Q: Send + 'static>(
    mut from: Streaming<Q>,
    answer: impl Fn(Q) -> Vec<T> + Send + 'static,
) -> Answers<T> {
    let (to, stream) = sent(64);
    tokio::spawn(async move {
        while let Ok(Some(question)) = from.message().await {
            for said in answer(question) {
                if to.send(Ok(said)).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(Response::new(stream))
}

fn bundle(generation: u64, files: Vec<wire::BundleFile>) -> wire::PolicyEvent {
    let bundle = wire::Bundle {
        api: "shop".to_owned(),
        generation,
        hash: content_hash(&files),
        files,
        service: "shop".to_owned(),
    };
    event(bundle)
}

fn event(bundle: wire::Bundle) -> wire::PolicyEvent {
    wire::PolicyEvent {
        event: Some(policy_event::Event::Bundle(bundle)),
    }
}

fn file(kind: bundle_file::Kind, path: &str, content: &[u8]) -> wire::BundleFile {
    wire::BundleFile {
        kind: kind.into(),
        path: path.to_owned(),
        content: content.to_vec(),
    }
}

/// The shop, open to everybody.
fn open_shop() -> Vec<wire::BundleFile> {
    let api = "spec: ../shop-spec.yaml\nservice: shop\nupstream: service://shop\nsecurity: off\n";
    vec![
        file(
            bundle_file::Kind::Api,
            "/lies/apis/shop.yaml",
            api.as_bytes(),
        ),
        file(
            bundle_file::Kind::Spec,
            "/lies/shop-spec.yaml",
            SPEC.as_bytes(),
        ),
    ]
}

/// Somebody who may do everything, but for what is left unsaid.
fn somebody() -> wire::Caller {
    let limit = wire::Limit {
        id: "plan/all/none".to_owned(),
        name: "none".to_owned(),
        metric: "calls".to_owned(),
        amount: u64::MAX,
        ..wire::Limit::default()
    };
    let plan = wire::Plan {
        name: "all".to_owned(),
        apis: vec![wire::PlanApi {
            api: "shop".to_owned(),
            operations: None,
        }],
        ..wire::Plan::default()
    };
    wire::Caller {
        consumer: Some(wire::Consumer {
            name: "desk".to_owned(),
            subscriptions: vec![wire::Subscription {
                api: "shop".to_owned(),
                plan: Some(plan),
                limits: vec![limit],
                ..wire::Subscription::default()
            }],
            ..wire::Consumer::default()
        }),
        credential: Some(wire::Credential {
            id: "lie".to_owned(),
            ..wire::Credential::default()
        }),
    }
}

fn note(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[tonic::async_trait]
impl control_server::Control for Told {
    type WatchPolicyStream = Sent<Result<wire::PolicyEvent, Status>>;
    type WatchEndpointsStream = Sent<Result<wire::EndpointsEvent, Status>>;
    type WatchRevocationsStream = Sent<Result<wire::RevocationsEvent, Status>>;
    type WatchChangesStream = Sent<Result<wire::ChangesEvent, Status>>;
    type ResolveStream = Sent<Result<wire::ResolveResponse, Status>>;
    type LeasesStream = Sent<Result<wire::LeasesResponse, Status>>;
    type ReportStream = Sent<Result<wire::UsageReceipt, Status>>;

    async fn watch_policy(
        &self,
        request: Request<Streaming<wire::PolicyReport>>,
    ) -> Answers<wire::PolicyEvent> {
        note(&self.1.policy);
        let api = bundle_file::Kind::Api;
        let events = match self.0 {
            Lie::Old => vec![bundle(1, open_shop())],
            Lie::Zeros => {
                let unsaid = wire::Bundle {
                    api: "shop".to_owned(),
                    generation: u64::MAX,
                    ..wire::Bundle::default()
                };
                let kinds = open_shop()
                    .into_iter()
                    .map(|file| wire::BundleFile { kind: 0, ..file });
                vec![
                    wire::PolicyEvent::default(),
                    event(wire::Bundle::default()),
                    event(unsaid),
                    bundle(u64::MAX - 1, kinds.collect()),
                ]
            }
            Lie::Nonsense | Lie::Noise => {
                let mut torn = wire::Bundle {
                    api: "shop".to_owned(),
                    generation: u64::MAX - 2,
                    hash: content_hash(&open_shop()),
                    files: open_shop(),
                    service: "shop".to_owned(),
                };
                torn.files[1].content.truncate(40);
                let outside = wire::Bundle {
                    api: "../../shop".to_owned(),
                    ..torn.clone()
                };
                vec![
                    bundle(
                        u64::MAX - 3,
                        vec![file(api, "/lies/apis/shop.yaml", &[0xff; 4096])],
                    ),
                    bundle(
                        u64::MAX - 4,
                        vec![file(api, "../../../etc/passwd", b"spec: x\n")],
                    ),
                    event(torn),
                    event(outside),
                ]
            }
        };
        say(events, request.into_inner())
    }

    async fn watch_endpoints(
        &self,
        request: Request<Streaming<wire::EndpointsRequest>>,
    ) -> Answers<wire::EndpointsEvent> {
        let nowhere = wire::EndpointsEvent {
            service: "shop".to_owned(),
            endpoints: vec![wire::ServiceEndpoint {
                address: "\u{0}nowhere:99999".to_owned(),
                ..wire::ServiceEndpoint::default()
            }],
            partial: false,
        };
        let events = match self.0 {
            Lie::Old => Vec::new(),
            _ => vec![wire::EndpointsEvent::default(), nowhere],
        };
        say(events, request.into_inner())
    }

    async fn watch_revocations(
        &self,
        _: Request<wire::WatchRequest>,
    ) -> Answers<wire::RevocationsEvent> {
        note(&self.1.revocations);
        let more = |revoked| wire::RevocationsEvent {
            event: Some(revocations_event::Event::More(wire::RevokedSet {
                revoked,
                ..wire::RevokedSet::default()
            })),
        };
        repeat(match self.0 {
            Lie::Zeros => vec![wire::RevocationsEvent::default()],
            _ => vec![more(vec![wire::Revoked::default()]), more(Vec::new())],
        })
    }

    async fn watch_changes(&self, _: Request<wire::WatchRequest>) -> Answers<wire::ChangesEvent> {
        repeat(vec![wire::ChangesEvent::default()])
    }

    async fn resolve(
        &self,
        request: Request<Streaming<wire::ResolveRequest>>,
    ) -> Answers<wire::ResolveResponse> {
        let (lie, asked) = (self.0, Arc::clone(&self.1));
        answer(request.into_inner(), move |question| {
            note(&asked.callers);
            let said = |number, caller| wire::ResolveResponse {
                number,
                generation: u64::MAX,
                answer: Some(resolve_response::Answer::Caller(caller)),
                installation: String::new(),
            };
            match lie {
                Lie::Zeros => vec![wire::ResolveResponse {
                    number: question.number,
                    ..wire::ResolveResponse::default()
                }],
                _ => vec![
                    // Of another question, of nobody, and of somebody of whom the half is left open.
                    said(question.number + 1, somebody()),
                    said(question.number, wire::Caller::default()),
                    said(question.number, somebody()),
                ],
            }
        })
    }

    async fn check(
        &self,
        _: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckResponse>, Status> {
        Ok(Response::new(wire::CheckResponse::default()))
    }

    async fn leases(
        &self,
        request: Request<Streaming<wire::LeasesRequest>>,
    ) -> Answers<wire::LeasesResponse> {
        let (lie, asked) = (self.0, Arc::clone(&self.1));
        answer(request.into_inner(), move |question| {
            note(&asked.quota);
            let grant = match lie {
                Lie::Zeros => wire::LeaseGrant::default(),
                _ => wire::LeaseGrant {
                    lease: u64::MAX,
                    tokens: u64::MAX,
                    lifetime_millis: u64::MAX,
                    closest: u32::MAX,
                    ..wire::LeaseGrant::default()
                },
            };
            vec![wire::LeasesResponse {
                number: question.number,
                grants: vec![grant; question.asks.len()],
                refused: String::new(),
            }]
        })
    }

    async fn report(
        &self,
        request: Request<Streaming<wire::UsageBatch>>,
    ) -> Answers<wire::UsageReceipt> {
        let (lie, asked) = (self.0, Arc::clone(&self.1));
        answer(request.into_inner(), move |batch| {
            note(&asked.usage);
            match lie {
                Lie::Zeros => vec![wire::UsageReceipt::default()],
                // More is stored than was ever sent; believed, it would be thrown away.
                _ => vec![wire::UsageReceipt {
                    run: batch.run,
                    shard: batch.shard,
                    node: batch.node,
                    next: Some(u64::MAX),
                    refused: String::new(),
                }],
            }
        })
    }

    async fn terms(
        &self,
        _: Request<wire::AboutConsumer>,
    ) -> Result<Response<wire::TermsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn accept(
        &self,
        _: Request<wire::Acceptance>,
    ) -> Result<Response<wire::AcceptResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn overview(
        &self,
        _: Request<wire::AboutConsumer>,
    ) -> Result<Response<wire::JsonDocument>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn own_usage(
        &self,
        _: Request<wire::AboutConsumer>,
    ) -> Result<Response<wire::JsonDocument>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn audit(
        &self,
        _: Request<wire::AuditRequest>,
    ) -> Result<Response<wire::AuditResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}
