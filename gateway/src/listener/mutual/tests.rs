//! Who may connect, who is known afterwards, and what happens when the identity changes meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use std::net::SocketAddr;

use pingora_core::apps::{HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate_policy::settings::{DoorLimits, ListenAddress};
use tollgate_policy::workload::WorkloadId;

use super::super::{Bound, Door, Drain, TlsKeys, serve, watch};
use super::*;
use crate::denial::Denial;
use crate::identity::clock;
use crate::telemetry::Metrics;

const PATIENCE: Duration = Duration::from_secs(10);
const ORDERS: &str = "spiffe://shop.example/service/orders";
const CARTS: &str = "spiffe://shop.example/service/carts";

/// The authority of an installation.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(parameters, key),
            certificate,
        }
    }

    /// A certificate of this identity, with its key.
    fn issue(&self, id: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut parameters = CertificateParams::default();
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        parameters.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        if let Ok(id) = id.parse::<WorkloadId>() {
            let name = SanType::DnsName(id.dns_name().try_into().unwrap());
            parameters.subject_alt_names.push(name);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        (certificate.der().clone(), key)
    }

    /// What a process of this identity holds, believing the holders of these roots.
    fn hold(&self, id: &str, roots: &[&Self]) -> Held {
        let (certificate, key) = self.issue(id);
        let chain = vec![certificate];
        let provider = aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).unwrap();
        let root_certificates: Vec<_> = roots.iter().map(|it| it.certificate.clone()).collect();
        Held {
            id: id.parse().unwrap(),
            chain,
            key,
            certified: Arc::new(certified),
            roots: Arc::new(store(roots)),
            root_certificates,
        }
    }
}

fn store(roots: &[&Authority]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.certificate.clone()).unwrap();
    }
    store
}

/// Answers with the identity the client was known by.
struct Who;

#[async_trait]
impl HttpServerApp for Who {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        let tls = session.digest().and_then(|it| it.ssl_digest.as_ref());
        let known = tls
            .and_then(|tls| tls.extension.get::<Handshake>())
            .and_then(|handshake| handshake.workload(clock::now()));
        let text = known.map_or_else(|| "nobody".to_owned(), ToString::to_string);
        let mut head = ResponseHeader::build(200, None).unwrap();
        let length = text.len().to_string();
        head.insert_header("content-length", length).unwrap();
        head.insert_header("connection", "close").unwrap();
        session.write_response_header(Box::new(head)).await.ok()?;
        let body = bytes::Bytes::from(text);
        session.write_response_body(body, true).await.ok()?;
        session.finish().await.ok()??;
        None
    }
}

struct World {
    address: SocketAddr,
    identity: Arc<NodeIdentity>,
    metrics: Arc<Metrics>,
    keys: Arc<TlsKeys>,
    _drain: Drain,
}

impl World {
    fn start(held: Option<Held>, mutual: Mutual) -> Self {
        let identity = NodeIdentity::none();
        if let Some(held) = held {
            identity.replace(held);
        }
        let bound = Bound::bind(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let ListenAddress::Tcp(address) = *bound.local_address() else {
            panic!("a TCP address was bound")
        };
        let metrics = Metrics::new();
        let refused = Arc::new(|_: Option<SocketAddr>, _: &Denial| Vec::new());
        let limits = DoorLimits::default();
        let door = Door::new(limits, metrics.clone(), Arc::default(), refused);
        let keys = TlsKeys::of_node(Node::new(identity.clone(), mutual));
        tokio::spawn(watch(keys.clone()));
        let drain = Drain::new();
        tokio::spawn(serve(
            bound.into_listener().unwrap(),
            "inbound".into(),
            Some(keys.clone()),
            Vec::new(),
            Arc::new(Who),
            Arc::new(door),
            drain.clone(),
        ));
        Self {
            address,
            identity,
            metrics,
            keys,
            _drain: drain,
        }
    }

    /// As whom a client with TLS is known, that believes `roots` and shows `shown`; `None`: it is not served.
    async fn asked_by(
        &self,
        roots: &[&Authority],
        shown: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Option<String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store(roots));
        let mut config = match shown {
            Some((certificate, key)) => config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from("orders.service.shop.example").unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = within(connecting).await.ok()?;
        ask(stream).await
    }

    /// The same without TLS.
    async fn asked_plainly(&self) -> Option<String> {
        ask(TcpStream::connect(self.address).await.unwrap()).await
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<String> {
    let mut answer = Vec::new();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    // However it is closed: what came counts.
    let _closed_hard = within(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

#[tokio::test]
async fn permissive_takes_both_and_knows_whom_a_certificate_of_the_installation_names() {
    let ours = Authority::new();
    let world = World::start(Some(ours.hold(ORDERS, &[&ours])), Mutual::Permissive);
    assert_eq!(world.asked_plainly().await.as_deref(), Some("nobody"));
    assert_eq!(
        world.asked_by(&[&ours], None).await.as_deref(),
        Some("nobody")
    );
    let known = world.asked_by(&[&ours], Some(ours.issue(CARTS))).await;
    assert_eq!(known.as_deref(), Some(CARTS));
}

#[tokio::test]
async fn strict_refuses_plain_and_whoever_shows_nothing() {
    let ours = Authority::new();
    let world = World::start(Some(ours.hold(ORDERS, &[&ours])), Mutual::Strict);
    assert_eq!(world.asked_plainly().await, None);
    assert_eq!(world.asked_by(&[&ours], None).await, None);
    let known = world.asked_by(&[&ours], Some(ours.issue(CARTS))).await;
    assert_eq!(known.as_deref(), Some(CARTS));
}

#[tokio::test]
async fn certificates_of_others_and_of_nobody_here_are_refused() {
    let (ours, others) = (Authority::new(), Authority::new());
    for mutual in [Mutual::Permissive, Mutual::Strict] {
        let world = World::start(Some(ours.hold(ORDERS, &[&ours])), mutual);
        let forged = others.issue(CARTS);
        assert_eq!(world.asked_by(&[&ours], Some(forged)).await, None);
        for foreign in [
            "spiffe://mall.example/service/carts",
            "spiffe://shop.example/job/carts",
        ] {
            let shown = Some(ours.issue(foreign));
            assert_eq!(world.asked_by(&[&ours], shown).await, None, "{foreign}");
        }
    }
}

#[tokio::test]
async fn without_an_identity_no_handshake_succeeds_and_with_one_it_does() {
    let ours = Authority::new();
    let world = World::start(None, Mutual::Permissive);
    assert_eq!(world.asked_plainly().await.as_deref(), Some("nobody"));
    assert_eq!(world.asked_by(&[&ours], None).await, None);
    assert!(world.metrics.render().contains("cause=\"no_identity\""));
    world.identity.replace(ours.hold(ORDERS, &[&ours]));
    served_by(&world, &ours).await;
}

#[tokio::test]
async fn an_exchanged_identity_is_shown_and_its_roots_are_believed_at_once() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = World::start(Some(old.hold(ORDERS, &[&old])), Mutual::Strict);
    let kept = world.keys.acceptor().unwrap();
    // While roots are exchanged both are believed.
    world.identity.replace(new.hold(ORDERS, &[&old, &new]));
    served_by(&world, &new).await;
    let known = world.asked_by(&[&new], Some(old.issue(CARTS))).await;
    assert_eq!(known.as_deref(), Some(CARTS));
    world.identity.replace(new.hold(ORDERS, &[&new]));
    within(async {
        while world
            .asked_by(&[&new], Some(old.issue(CARTS)))
            .await
            .is_some()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!Arc::ptr_eq(&kept, &world.keys.acceptor().unwrap()));
}

/// Until the listener shows a certificate of `authority`: whoever follows an identity learns of it a moment later.
async fn served_by(world: &World, authority: &Authority) {
    within(async {
        let shown = || Some(authority.issue(CARTS));
        while world.asked_by(&[authority], shown()).await.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_has_run_out_names_nobody() {
    let ours = Authority::new();
    let (certificate, _) = ours.issue(CARTS);
    let certificate = clients::named(&certificate).unwrap();
    let end = certificate.not_after;
    let workload = clients::workload(&certificate, "shop.example").unwrap();
    let handshake = Handshake::with_workload(certificate, workload);
    assert!(handshake.workload(end).is_some());
    let later = tollgate_policy::time::Timestamp::from_seconds(end.seconds() + 1);
    assert!(handshake.workload(later).is_none());
}
