//! Identity of nodes, end to end over TLS on loopback: joining, renewing, the exchange of roots, and who is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod installation;

use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use installation::{DEADLINE, DOMAIN, Node, Plane, ask_who, mode, refusal};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use serde_json::json;
use sqlx::Connection as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tollgate_gateway::node::{
    JoinError, Membership, NodeIdentity, channel, join, membership, renewal, tls,
};
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::identity_client::IdentityClient;
use tollgate_proto::wire::{JoinRequest, RenewRequest};

const ORDERS: &str = "spiffe://tollgate.internal/service/orders";

/// A handshake between two workloads: what either end says of it, and whom the server found.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<Option<WorkloadId>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let accepted = TlsAcceptor::from(server).accept(stream).await;
        accepted
            .map(|stream| tls::peer_of(stream.get_ref().1.peer_certificates().unwrap_or_default()))
            .map_err(|error| error.to_string())
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connected = TlsConnector::from(client).connect(name, stream).await;
    let connected = connected.map_err(|error| error.to_string());
    let accepted = accepting.await.unwrap();
    connected?;
    accepted
}

fn between(server: &Node, client: &Node) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    (
        tls::server_config(&server.identity, true).unwrap(),
        tls::client_config(&client.identity).unwrap(),
    )
}

#[tokio::test]
async fn a_node_joins_by_its_token_and_is_known_by_its_certificate() {
    let plane = Plane::new().await;
    let node = plane.node("orders").await;
    assert_eq!(node.id(), ORDERS);
    assert_eq!(node.membership.pepper, installation::PEPPER);
    assert_eq!(node.who().await.unwrap(), ORDERS);
    let body = json!({ "gateway": "edge", "lifetime": "5m" });
    let (_, made) = plane.admin("POST", "/v1/join-tokens", body).await;
    let token = made["token"].as_str().unwrap();
    let edge = Node::of(join(&plane.address, token, "edge-1").await.unwrap());
    assert_eq!(edge.id(), format!("spiffe://{DOMAIN}/gateway/edge"));
    // What is listed holds no token, and says who used it; so does the audit log.
    let (_, listed) = plane.admin("GET", "/v1/join-tokens", json!({})).await;
    let used = listed["items"].as_array().unwrap().iter();
    let mut by: Vec<_> = used.map(|it| it["used_by"].as_str().unwrap()).collect();
    by.sort_unstable();
    assert_eq!(by, ["edge-1", "orders-1"]);
    assert!(!listed.to_string().contains("tgj_"));
    let (_, log) = plane.admin("GET", "/v1/audit", json!({})).await;
    assert!(!log.to_string().contains("tgj_"));
    let acts = log["items"].as_array().unwrap().iter();
    let acts: Vec<_> = acts.map(|it| it["action"].as_str().unwrap()).collect();
    let expected = ["create", "use", "create", "use"].map(|act| format!("join_token.{act}"));
    assert_eq!(acts, expected);
}

#[tokio::test]
async fn a_token_that_is_wrong_used_or_expired_lets_nobody_in() {
    let plane = Plane::new().await;
    let used = plane.token("orders").await;
    join(&plane.address, &used, "node-1").await.unwrap();
    let wrong = used.replacen(&used[4..8], "0000", 1);
    let expired = plane.token("orders").await;
    let store = plane.state.path().join("control.db");
    let mut store = sqlx::SqliteConnection::connect(store.to_str().unwrap())
        .await
        .unwrap();
    sqlx::query("UPDATE join_tokens SET expires_at = 1 WHERE used_at IS NULL")
        .execute(&mut store)
        .await
        .unwrap();
    for token in [&used, &wrong, &expired] {
        let refused = join(&plane.address, token, "node-2").await.unwrap_err();
        assert!(matches!(refused, JoinError::Refused(_)), "{refused}");
        assert!(refused.to_string().contains("tollgate join-tokens create"));
    }
    let nonsense = join(&plane.address, "tgj_x", "node-2").await.unwrap_err();
    assert!(matches!(nonsense, JoinError::Token));
    let (status, _) = plane
        .admin("POST", "/v1/join-tokens", json!({ "service": "Orders" }))
        .await;
    assert_eq!(status, 422);
    let both = json!({ "service": "a", "gateway": "b" });
    assert_eq!(plane.admin("POST", "/v1/join-tokens", both).await.0, 422);
}

#[tokio::test]
async fn the_name_of_a_node_is_taken_by_no_other_identity_also_after_a_restart() {
    let plane = Plane::new().await;
    plane.node("orders").await;
    let taken = plane.token("billing").await;
    let plane = plane.restart().await;
    let refused = join(&plane.address, &taken, "orders-1").await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("`orders-1`") && why.contains(ORDERS), "{why}");
    // The token was not used up by that.
    join(&plane.address, &taken, "billing-1").await.unwrap();
    // Another machine of the same service may be called so: the old one is gone.
    plane.node("orders").await;
    let mut page = String::new();
    plane.control.write_page(&mut page);
    let counted = "tollgate_node_claims_refused_total{about=\"join\"} 1\n";
    assert!(page.contains(counted), "{page}");
}

#[tokio::test]
async fn one_token_lets_one_of_two_in_that_come_together() {
    let plane = Plane::new().await;
    let token = plane.token("orders").await;
    let (one, two) = tokio::join!(
        join(&plane.address, &token, "node-1"),
        join(&plane.address, &token, "node-2")
    );
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
}

#[tokio::test]
async fn an_impostor_never_sees_the_token() {
    let plane = Plane::new().await;
    let token = plane.token("orders").await;
    // Another installation, of the same domain.
    let other = Plane::new().await;
    let refused = join(&other.address, &token, "node-1").await.unwrap_err();
    assert!(matches!(refused, JoinError::Impostor(_)), "{refused}");
    // A workload of this installation that pretends to be the control plane, and shows the right root.
    let rogue = plane.node("billing").await;
    let mut chain = rogue.membership.chain.clone();
    chain.extend(rogue.membership.roots.clone());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, rogue.membership.key.clone_key().into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        accepted.is_err()
    });
    let address = address.parse().unwrap();
    let refused = join(&address, &token, "node-1").await.unwrap_err();
    assert!(matches!(refused, JoinError::Impostor(_)), "{refused}");
    assert!(
        serving.await.unwrap(),
        "the handshake failed on its side too"
    );
    join(&plane.address, &token, "node-1").await.unwrap();
}

#[tokio::test]
async fn without_a_certificate_nothing_but_join_is_answered() {
    let plane = Plane::new().await;
    let node = plane.node("orders").await;
    // Believes the control plane, and shows nothing.
    let held = node.identity.current().unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(Arc::clone(&held.roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let channel = anonymous(&plane, Arc::new(config));
    let refused = refusal(ask_who(channel.clone()).await);
    assert!(refused.contains("Unauthenticated"), "{refused}");
    let mut client = IdentityClient::new(channel);
    let asked = RenewRequest::default();
    let status = client.renew(asked).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    let status = client.join(JoinRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    // The HTTP API stays closed to who has no admin credential, certificate or not.
    assert_eq!(plane.admin("GET", "/v1/ca", json!({})).await.0, 200);
    let mut stranger = plane;
    stranger.credential = "wrong".to_owned();
    assert_eq!(stranger.admin("GET", "/v1/ca", json!({})).await.0, 401);
}

/// A channel over connections made with this configuration.
fn anonymous(plane: &Plane, config: Arc<ClientConfig>) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::from_static("http://control");
    endpoint.connect_with_connector_lazy(Anonymous(config, plane.address.port))
}

#[derive(Clone)]
struct Anonymous(Arc<ClientConfig>, u16);

impl tonic::codegen::Service<http::Uri> for Anonymous {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self(config, port) = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let name = ServerName::try_from(format!("control.{DOMAIN}")).unwrap();
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[tokio::test]
async fn renewing_keeps_the_identity_and_exchanges_the_key() {
    let plane = Plane::new().await;
    let node = plane.node("orders").await;
    let renewed = renewal::renew(&node.identity, &node.membership).await;
    let renewed = renewed.unwrap();
    assert_ne!(renewed.chain, node.membership.chain);
    assert_ne!(
        renewed.key.secret_pkcs8_der(),
        node.membership.key.secret_pkcs8_der()
    );
    // What was made of the identity before goes on with the new one.
    let (server, client) = between(&node, &node);
    node.identity.replace(renewed.held().unwrap());
    let name = node.identity.current().unwrap().id.dns_name();
    let found = handshake(server, client, &name).await.unwrap();
    assert_eq!(found.unwrap().to_string(), ORDERS);
    assert_eq!(node.who().await.unwrap(), ORDERS);
}

#[tokio::test]
async fn nobody_renews_as_somebody_else() {
    let plane = Plane::new().await;
    let node = plane.node("orders").await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut asked = rcgen::CertificateParams::new(vec!["control.tollgate.internal".to_owned()]);
    let params = asked.as_mut().unwrap();
    let uri = "spiffe://tollgate.internal/service/billing";
    params
        .subject_alt_names
        .push(rcgen::SanType::URI(uri.try_into().unwrap()));
    let request = params.serialize_request(&key).unwrap().der().to_vec();
    let channel = channel(&plane.address, Arc::clone(&node.identity)).unwrap();
    let asked = RenewRequest {
        request,
        node: "node-1".to_owned(),
    };
    let given = IdentityClient::new(channel).renew(asked).await.unwrap();
    let given = given.into_inner();
    assert_eq!(given.spiffe_id, ORDERS);
    let chain: Vec<_> = given.chain.into_iter().map(Into::into).collect();
    assert_eq!(tls::peer_of(&chain).unwrap().to_string(), ORDERS);
}

#[tokio::test]
async fn what_was_revoked_is_neither_renewed_nor_answered_and_its_connection_ends() {
    let plane = Plane::new().await;
    let (node, other) = (plane.node("orders").await, plane.node("billing").await);
    let open = channel(&plane.address, Arc::clone(&node.identity)).unwrap();
    assert_eq!(ask_who(open.clone()).await.unwrap(), ORDERS);
    let body = json!({ "kind": "certificate", "name": ORDERS });
    assert_eq!(plane.admin("POST", "/v1/revocations", body).await.0, 201);
    // Its connection is ended; who comes again is told why.
    refusal(ask_who(open).await);
    let refused = refusal(node.who().await);
    assert!(refused.contains("was revoked"), "{refused}");
    let refused = refusal(renewal::renew(&node.identity, &node.membership).await);
    assert!(refused.contains("was revoked"), "{refused}");
    other.who().await.unwrap();
    renewal::renew(&other.identity, &other.membership)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_connection_ends_when_its_identity_is_revoked() {
    let plane = Plane::new().await;
    let node = plane.node("orders").await;
    let config = tls::client_config(&node.identity).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", plane.address.port)).await;
    let name = ServerName::try_from(format!("control.{DOMAIN}")).unwrap();
    let connector = TlsConnector::from(config);
    let stream = connector.connect(name, stream.unwrap()).await.unwrap();
    let (_sender, connection) = hyper::client::conn::http2::handshake::<_, _, String>(
        hyper_util::rt::TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    let body = json!({ "kind": "certificate", "name": ORDERS });
    assert_eq!(plane.admin("POST", "/v1/revocations", body).await.0, 201);
    let ended = tokio::time::timeout(DEADLINE, connection).await;
    let _ = ended.expect("the control plane closes it").unwrap();
}

#[tokio::test]
async fn while_roots_are_exchanged_old_and_new_nodes_understand_each_other() {
    let plane = Plane::with(DOMAIN, Duration::from_secs(40)).await;
    let (old, new) = (plane.node("orders").await, plane.node("billing").await);
    let (status, shown) = plane.admin("POST", "/v1/ca/rotate", json!({})).await;
    assert_eq!((status, shown["roots"].as_array().unwrap().len()), (201, 2));
    assert_eq!(plane.admin("POST", "/v1/ca/rotate", json!({})).await.0, 409);
    // Everybody renews: both roots are known, the old one signs.
    let mut nodes = Vec::new();
    for node in [old, new] {
        let renewed = renewal::renew(&node.identity, &node.membership).await;
        let renewed = renewed.unwrap();
        assert_eq!(renewed.roots.len(), 2);
        assert_eq!(node.membership.roots, renewed.roots[..1]);
        nodes.push(Node::of(renewed));
    }
    // The new one signs from now on.
    let before = plane.ca.fingerprint();
    plane.ahead.store(41, Ordering::Relaxed);
    assert_ne!(plane.ca.fingerprint(), before);
    let renewed = renewal::renew(&nodes[1].identity, &nodes[1].membership).await;
    let [old, new] = [nodes.remove(0), Node::of(renewed.unwrap())];
    for (server, client) in [(&old, &new), (&new, &old)] {
        let name = server.identity.current().unwrap().id.dns_name();
        let (serving, asking) = between(server, client);
        let found = handshake(serving, asking, &name).await.unwrap();
        assert_eq!(found.unwrap().to_string(), client.id());
        client.who().await.unwrap();
    }
    let token = plane.token("shipping").await;
    join(&plane.address, &token, "node-2").await.unwrap();
}

#[tokio::test]
async fn the_certificate_of_another_domain_is_refused() {
    let plane = Plane::new().await;
    let other = Plane::with("other.example", Duration::from_secs(3600)).await;
    let (node, foreign) = (plane.node("orders").await, other.node("orders").await);
    let (server, client) = between(&node, &foreign);
    refusal(handshake(server, client, "orders.service.tollgate.internal").await);
    let (_, trusting) = between(&node, &node);
    let (server, _) = between(&foreign, &node);
    refusal(handshake(server, trusting, "orders.service.tollgate.internal").await);
    // Its own control plane is believed, and this one is not, nor does it believe.
    foreign.who().await.unwrap();
    let crossed = channel(&plane.address, Arc::clone(&foreign.identity)).unwrap();
    refusal(ask_who(crossed).await);
}

#[tokio::test]
async fn a_rogue_with_the_certificate_of_another_service_is_refused_by_name() {
    let plane = Plane::new().await;
    let (orders, rogue) = (plane.node("orders").await, plane.node("billing").await);
    let (server, client) = between(&rogue, &orders);
    let refused = handshake(server, client, "orders.service.tollgate.internal").await;
    let refused = refusal(refused);
    assert!(refused.contains("certificate"), "{refused}");
    // Where a certificate is not required, none is shown and none is found.
    let open = tls::server_config(&orders.identity, false).unwrap();
    let nobody = NodeIdentity::none();
    let believing = ClientConfig::builder()
        .with_root_certificates(Arc::clone(&orders.identity.current().unwrap().roots))
        .with_no_client_auth();
    let name = "orders.service.tollgate.internal";
    let found = handshake(open, Arc::new(believing), name).await.unwrap();
    assert_eq!(found, None);
    // Who has no identity neither serves nor asks.
    let none = Node {
        membership: orders.membership,
        identity: nobody,
    };
    let (server, client) = between(&none, &none);
    refusal(handshake(server, client, name).await);
}

#[tokio::test]
async fn a_control_plane_that_restarts_has_the_same_authority() {
    let plane = Plane::new().await;
    let (node, token) = (plane.node("orders").await, plane.token("billing").await);
    let kept = channel(&plane.address, Arc::clone(&node.identity)).unwrap();
    ask_who(kept.clone()).await.unwrap();
    let before = plane.ca.fingerprint();
    let plane = plane.restart().await;
    assert_eq!(plane.ca.fingerprint(), before);
    assert_eq!(node.who().await.unwrap(), ORDERS);
    join(&plane.address, &token, "node-2").await.unwrap();
}

#[tokio::test]
async fn a_node_starts_from_its_disk_and_damage_names_file_and_remedy() {
    let plane = Plane::new().await;
    let node = plane.node("orders").await;
    let state = tempfile::tempdir().unwrap();
    assert!(Membership::load(state.path()).unwrap().is_none());
    node.membership.save(state.path()).unwrap();
    let path = membership::path(state.path());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let again = Node::of(Membership::load(state.path()).unwrap().unwrap());
    assert_eq!(again.who().await.unwrap(), ORDERS);
    assert_eq!(again.membership.pepper, installation::PEPPER);
    let whole = std::fs::read(&path).unwrap();
    let mut turned = whole.clone();
    turned[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &turned, b"", b"{}"] {
        std::fs::write(&path, damaged).unwrap();
        let refused = refusal(Membership::load(state.path()));
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
        assert!(refused.contains("tollgate join-tokens create"), "{refused}");
    }
    std::fs::write(&path, &whole).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = refusal(Membership::load(state.path()));
    assert!(refused.contains("open to others"), "{refused}");
}

#[tokio::test]
async fn certificates_are_renewed_by_themselves_in_memory_and_on_the_disk() {
    // With what is given for clocks that are behind, half of such a life is over at its beginning.
    let plane = Plane::with(DOMAIN, Duration::from_secs(30)).await;
    let node = plane.node("orders").await;
    let first = node.membership.chain.clone();
    let state = tempfile::tempdir().unwrap();
    node.membership.save(state.path()).unwrap();
    let mut changed = node.identity.changed();
    let renewing = tokio::spawn(renewal::keep_renewing(
        Arc::clone(&node.identity),
        node.membership,
        state.path().to_owned(),
    ));
    for _ in 0..2 {
        let moved = tokio::time::timeout(DEADLINE, changed.changed()).await;
        moved.expect("a renewal").unwrap();
    }
    renewing.abort();
    let held = node.identity.current().unwrap();
    assert_ne!(held.chain, first);
    let kept = Membership::load(state.path()).unwrap().unwrap();
    assert_ne!(kept.chain, first);
    assert_eq!(kept.held().unwrap().id, held.id);
}
