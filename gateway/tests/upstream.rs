//! What an upstream cluster promises: the picker, ejection, names, health checks, the retry budget, certificates,
//! and the pool of idle connections. Loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::upstreams::peer::Peer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tollgate_gateway::upstream::pool::{self, PoolKey};
use tollgate_gateway::upstream::{Cluster, EndpointAddress, NameServers, NoEndpoint, Outcome};
use tollgate_policy::settings::{
    EndpointConfig, HealthCheck, UpstreamConfig, UpstreamProtocol, UpstreamTls,
};

const MS: Duration = Duration::from_millis(1);

fn config(endpoints: &[(&str, u16)]) -> UpstreamConfig {
    let endpoint = |(host, port): &(&str, u16)| EndpointConfig {
        host: (*host).into(),
        port: *port,
    };
    UpstreamConfig {
        endpoints: endpoints.iter().map(endpoint).collect(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        connect_timeout: Duration::from_secs(1),
        first_byte_timeout: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(60),
        total_timeout: None,
        keep_alive: Duration::from_secs(50),
        retries: 1,
        retry_budget_percent: 20,
        max_message: 4 << 20,
        health_check: None,
        eject_after: 3,
        eject_for: 50 * MS,
    }
}

fn tcp(port: u16) -> EndpointAddress {
    EndpointAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Three endpoints on ports 1, 2 and 3.
fn three() -> Arc<Cluster> {
    let endpoints = [("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)];
    Cluster::new("api", &config(&endpoints), None).unwrap()
}

fn eject(cluster: &Cluster, address: &EndpointAddress) {
    for _ in 0..10_000 {
        let picked = cluster.pick(None).unwrap();
        let outcome = if picked.address() == address {
            Outcome::Broken
        } else {
            Outcome::Answered
        };
        drop(picked.finish(outcome, MS));
        if cluster.endpoints().iter().any(|one| one.ejected) {
            return;
        }
    }
    panic!("never ejected");
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(5 * MS).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect(what);
}

#[test]
fn the_picker_prefers_the_faster_endpoint() {
    let cluster = three();
    let mut slow = 0;
    for _ in 0..1000 {
        let picked = cluster.pick(None).unwrap();
        let is_slow = *picked.address() == tcp(2);
        slow += u32::from(is_slow);
        drop(picked.finish(Outcome::Answered, if is_slow { 200 * MS } else { MS }));
    }
    assert!(slow < 50, "{slow} of 1000 calls went to the slow endpoint");
}

#[test]
fn the_picker_prefers_the_less_loaded_endpoint() {
    let cluster = three();
    for _ in 0..100 {
        drop(cluster.pick(None).unwrap().finish(Outcome::Answered, MS));
    }
    let held: Vec<_> = (0..300).map(|_| cluster.pick(None).unwrap()).collect();
    for endpoint in cluster.endpoints() {
        assert!((80..=120).contains(&endpoint.in_flight), "{endpoint:?}");
    }
    drop(held);
    assert!(
        cluster
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.in_flight == 0)
    );
}

#[test]
fn a_call_is_in_flight_until_its_answer_is_over() {
    let cluster = Cluster::new("api", &config(&[("127.0.0.1", 1)]), None).unwrap();
    let in_flight = || cluster.endpoints()[0].in_flight;
    let answering = cluster.pick(None).unwrap().finish(Outcome::Answered, MS);
    assert_eq!(in_flight(), 1);
    drop(answering);
    assert_eq!(in_flight(), 0);
    drop(cluster.pick(None).unwrap());
    assert_eq!(in_flight(), 0, "never reported");
}

#[test]
fn an_endpoint_to_avoid_is_avoided_while_there_is_another() {
    let cluster = three();
    for _ in 0..100 {
        assert_ne!(*cluster.pick(Some(&tcp(1))).unwrap().address(), tcp(1));
    }
    let alone = Cluster::new("api", &config(&[("127.0.0.1", 1)]), None).unwrap();
    assert_eq!(*alone.pick(Some(&tcp(1))).unwrap().address(), tcp(1));
}

#[test]
fn a_failing_endpoint_is_ejected_and_one_good_probe_brings_it_back() {
    let cluster = three();
    let ejected_at = std::time::Instant::now();
    eject(&cluster, &tcp(2));
    let mut held = Vec::new();
    while ejected_at.elapsed() < 40 * MS {
        let picked = cluster.pick(None).unwrap();
        if *picked.address() == tcp(2) {
            assert!(ejected_at.elapsed() >= 40 * MS, "too early");
            held.push(picked);
            break;
        }
        drop(picked.finish(Outcome::Answered, MS));
    }
    // The time is over: exactly one call tries it, however many are under way.
    while held
        .iter()
        .all(|picked: &tollgate_gateway::upstream::Picked| *picked.address() != tcp(2))
    {
        assert!(ejected_at.elapsed() < Duration::from_secs(5), "no probe");
        held.clear();
        held.extend((0..10).map(|_| cluster.pick(None).unwrap()));
    }
    held.extend((0..50).map(|_| cluster.pick(None).unwrap()));
    let (mut probes, others): (Vec<_>, Vec<_>) = held
        .into_iter()
        .partition(|picked| *picked.address() == tcp(2));
    assert_eq!(probes.len(), 1);
    drop(probes.remove(0).finish(Outcome::Answered, MS));
    drop(others);
    assert!(cluster.endpoints().iter().all(|endpoint| !endpoint.ejected));
}

#[test]
fn abandoned_calls_blame_nobody() {
    let cluster = Cluster::new("api", &config(&[("127.0.0.1", 1)]), None).unwrap();
    for _ in 0..100 {
        drop(cluster.pick(None).unwrap().finish(Outcome::Abandoned, MS));
    }
    assert!(!cluster.endpoints()[0].ejected);
}

#[test]
fn when_all_are_ejected_all_are_used() {
    let cluster = three();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..300 {
        let picked = cluster.pick(None).unwrap();
        seen.insert(picked.address().clone());
        drop(picked.finish(Outcome::ConnectFailed, MS));
    }
    assert!(cluster.endpoints().iter().all(|endpoint| endpoint.ejected));
    assert_eq!(seen.len(), 3);
}

#[test]
fn endpoints_that_stay_keep_their_state() {
    let old = three();
    eject(&old, &tcp(2));
    let mut changed = config(&[("127.0.0.1", 2), ("127.0.0.1", 4)]);
    changed.eject_after = 7;
    let new = Cluster::new("api", &changed, Some(&old)).unwrap();
    let ejected: Vec<_> = new
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.ejected)
        .collect();
    assert_eq!(ejected, [true, false]);
}

#[test]
fn retries_stay_within_the_budget() {
    let cluster = three();
    for _ in 0..500 {
        cluster.count_call();
    }
    assert_eq!((0..1000).filter(|_| cluster.take_retry()).count(), 110);
}

#[test]
fn a_peer_has_every_limit_set() {
    let mut config = config(&[("127.0.0.1", 80), ("[::1]", 81), ("unix:/run/service", 0)]);
    config.protocol = UpstreamProtocol::Http2;
    let cluster = Cluster::new("api", &config, None).unwrap();
    let mut authorities = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let picked = cluster.pick(None).unwrap();
        let (peer, options) = (picked.peer(), &picked.peer().options);
        assert_eq!(options.connection_timeout, Some(config.connect_timeout));
        assert_eq!(options.read_timeout, Some(config.first_byte_timeout));
        assert_eq!(options.idle_timeout, Some(config.keep_alive));
        assert!(options.write_timeout.is_some() && options.tcp_keepalive.is_some());
        assert_eq!((options.max_h2_streams, &options.alpn), (100, &ALPN::H2));
        assert!(!peer.tls() && peer.group_key != 0 && peer.group_key == picked.group_key());
        authorities.insert(picked.authority().to_owned());
        drop(picked.finish(Outcome::Answered, MS));
    }
    let expected = ["127.0.0.1", "[::1]:81", "localhost"].map(str::to_owned);
    assert_eq!(authorities, expected.into());
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn tls_config(tls: UpstreamTls) -> UpstreamConfig {
    UpstreamConfig {
        tls: Some(tls),
        ..config(&[("127.0.0.1", 443)])
    }
}

#[test]
fn a_bad_pem_file_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let good = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = write(directory.path(), "chain.pem", &good.cert.pem());
    let good_key = write(
        directory.path(),
        "key.pem",
        &good.signing_key.serialize_pem(),
    );
    let other_key = write(
        directory.path(),
        "other.pem",
        &other.signing_key.serialize_pem(),
    );
    let text = write(directory.path(), "text.pem", "no PEM at all");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let garbage = write(directory.path(), "garbage.pem", garbage);
    let missing = directory.path().join("missing.pem");

    for bad in [&text, &garbage, &missing] {
        let tls = UpstreamTls {
            ca: Some(bad.clone()),
            ..UpstreamTls::default()
        };
        let error = Cluster::new("api", &tls_config(tls), None).unwrap_err();
        assert!(error.contains(bad.to_str().unwrap()), "{error}");
    }
    for (chain, key, named) in [
        (&text, &good_key, &text),
        (&garbage, &good_key, &garbage),
        (&chain, &text, &text),
        (&chain, &missing, &missing),
        (&chain, &other_key, &other_key),
    ] {
        let pair = Some((chain.clone(), key.clone()));
        let tls = UpstreamTls {
            client_certificate: pair,
            ..UpstreamTls::default()
        };
        let error = Cluster::new("api", &tls_config(tls), None).unwrap_err();
        assert!(error.contains(named.to_str().unwrap()), "{error}");
    }
}

#[test]
fn different_tls_policies_never_share_a_group_key() {
    let directory = tempfile::tempdir().unwrap();
    let good = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let ca = write(directory.path(), "ca.pem", &good.cert.pem());
    let key = write(
        directory.path(),
        "key.pem",
        &good.signing_key.serialize_pem(),
    );
    let with_ca = UpstreamTls {
        ca: Some(ca.clone()),
        ..UpstreamTls::default()
    };
    let with_name = UpstreamTls {
        server_name: Some("localhost".into()),
        ..with_ca.clone()
    };
    let with_identity = UpstreamTls {
        client_certificate: Some((ca, key)),
        ..with_name.clone()
    };
    let mut configs = vec![config(&[("127.0.0.1", 443)])];
    for tls in [UpstreamTls::default(), with_ca, with_name, with_identity] {
        configs.push(tls_config(tls));
    }
    let group_key = |api: &str, config: &UpstreamConfig| {
        let cluster = Cluster::new(api, config, None).unwrap();
        let picked = cluster.pick(None).unwrap();
        assert_eq!(picked.peer().tls(), config.tls.is_some());
        assert!(picked.peer().verify_cert() && picked.peer().verify_hostname());
        picked.group_key()
    };
    let keys: Vec<_> = configs
        .iter()
        .map(|config| group_key("api", config))
        .collect();
    let again: Vec<_> = configs
        .iter()
        .map(|config| group_key("api", config))
        .collect();
    assert_eq!(keys, again);
    let mut all: Vec<_> = configs
        .iter()
        .map(|config| group_key("another", config))
        .collect();
    all.extend(keys);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10);
}

const ANSWERS: u8 = 0;
const FAILS: u8 = 1;
const EMPTY: u8 = 2;

/// A name server that knows one address (`127.0.0.<last>`, for one second) and obeys `mode`.
async fn name_server(
    mode: Arc<AtomicU8>,
    last: Arc<AtomicU8>,
    asked: Arc<AtomicU8>,
) -> NameServers {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let question = 12
                + buffer[12..length]
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap()
                + 5;
            let mode = mode.load(SeqCst);
            let is_a = buffer[question - 3] == 1;
            let mut answer = buffer[..question].to_vec();
            let rcode = if mode == FAILS { 2 } else { 0 };
            let count = u8::from(mode == ANSWERS && is_a);
            answer[2..12].copy_from_slice(&[0x81, 0x80 | rcode, 0, 1, 0, count, 0, 0, 0, 0]);
            if count == 1 {
                answer.extend([
                    0xC0,
                    12,
                    0,
                    1,
                    0,
                    1,
                    0,
                    0,
                    0,
                    1,
                    0,
                    4,
                    127,
                    0,
                    0,
                    last.load(SeqCst),
                ]);
            }
            asked.fetch_add(u8::from(is_a), SeqCst);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    let mut udp = ConnectionConfig::udp();
    udp.port = port;
    let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, vec![udp]);
    NameServers::Given(Box::new(ResolverConfig::from_name_servers(vec![server])))
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster
        .endpoints()
        .into_iter()
        .map(|endpoint| endpoint.address)
        .collect()
}

#[tokio::test]
async fn names_are_followed_and_the_last_good_answer_is_kept() {
    let mode = Arc::new(AtomicU8::new(ANSWERS));
    let last = Arc::new(AtomicU8::new(7));
    let asked = Arc::new(AtomicU8::new(0));
    let servers = name_server(Arc::clone(&mode), Arc::clone(&last), Arc::clone(&asked)).await;
    let config = config(&[("service.example.test", 8080)]);
    let cluster = Cluster::with_name_servers("api", &config, None, servers).unwrap();
    assert_eq!(cluster.pick(None).unwrap_err(), NoEndpoint);
    cluster.maintain();
    assert!(cluster.ready(Duration::from_secs(10)).await);
    assert_eq!(addresses(&cluster), ["127.0.0.7:8080"]);
    assert_eq!(
        cluster.pick(None).unwrap().authority(),
        "service.example.test:8080"
    );

    // The second question after an empty answer shows that both kinds were taken in.
    for (bad, questions) in [(FAILS, 1), (EMPTY, 2)] {
        mode.store(bad, SeqCst);
        asked.store(0, SeqCst);
        until("asked again", || asked.load(SeqCst) >= questions).await;
        assert_eq!(addresses(&cluster), ["127.0.0.7:8080"]);
    }
    last.store(8, SeqCst);
    mode.store(ANSWERS, SeqCst);
    until("the new address", || {
        addresses(&cluster) == ["127.0.0.8:8080"]
    })
    .await;

    // A new configuration starts with what the old one knows.
    let next = Cluster::new("api", &config, Some(&cluster)).unwrap();
    assert_eq!(addresses(&next), ["127.0.0.8:8080"]);
}

#[tokio::test]
async fn localhost_needs_no_name_server() {
    let none = NameServers::Given(Box::new(ResolverConfig::from_name_servers(Vec::new())));
    let config = config(&[("localhost", 8080)]);
    let cluster = Cluster::with_name_servers("api", &config, None, none).unwrap();
    cluster.maintain();
    assert!(cluster.ready(Duration::from_secs(10)).await);
    assert!(addresses(&cluster).contains(&"127.0.0.1:8080".to_owned()));
}

#[tokio::test]
async fn background_tasks_end_with_the_cluster() {
    let config = UpstreamConfig {
        health_check: Some(check()),
        ..config(&[("service.example.test", 80), ("127.0.0.1", 9)])
    };
    let cluster = Cluster::new("api", &config, None).unwrap();
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    cluster.maintain();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    assert_eq!(tasks(), before + 2);
    drop(cluster);
    until("no task left", || tasks() == before).await;
}

fn check() -> HealthCheck {
    HealthCheck {
        path: "/healthz".into(),
        interval: 20 * MS,
        timeout: Duration::from_secs(1),
        unhealthy_after: 2,
        healthy_after: 1,
    }
}

/// Answers every request with `status` in hundreds.
async fn service(status: Arc<AtomicU8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 512];
            let length = stream.read(&mut head).await.unwrap_or(0);
            assert!(head[..length].starts_with(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:"));
            let answer = format!(
                "HTTP/1.1 {}00 Any\r\ncontent-length: 0\r\n\r\n",
                status.load(SeqCst)
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn a_health_check_takes_an_endpoint_out_and_back() {
    let status = Arc::new(AtomicU8::new(2));
    let sick = service(Arc::clone(&status)).await;
    let well = service(Arc::new(AtomicU8::new(2))).await;
    let config = UpstreamConfig {
        health_check: Some(check()),
        ..config(&[("127.0.0.1", sick), ("127.0.0.1", well)])
    };
    let cluster = Cluster::new("api", &config, None).unwrap();
    cluster.maintain();
    status.store(5, SeqCst);
    until("out", || !cluster.endpoints()[0].healthy).await;
    for _ in 0..50 {
        assert_eq!(*cluster.pick(None).unwrap().address(), tcp(well));
    }
    status.store(3, SeqCst);
    until("back", || cluster.endpoints()[0].healthy).await;
    assert!(cluster.endpoints()[1].healthy);
}

/// A TLS service that demands a client certificate of the CA; with the policies of a client it trusts and of one
/// that trusts another CA.
async fn tls_service(directory: &Path, answered: Arc<AtomicU8>) -> (u16, UpstreamTls, UpstreamTls) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (service, service_key) = issue("service.test");
    let (client, client_key) = issue("gateway.test");
    let stranger = rcgen::generate_simple_self_signed(vec!["service.test".to_owned()]).unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let key = rustls_pki_types::PrivateKeyDer::try_from(service_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![service.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            let _ = stream.shutdown().await;
            answered.fetch_add(1, SeqCst);
        }
    });
    let good = UpstreamTls {
        server_name: Some("service.test".into()),
        ca: Some(write(directory, "ca.pem", &ca.pem())),
        client_certificate: Some((
            write(directory, "client.pem", &client.pem()),
            write(directory, "client.key", &client_key.serialize_pem()),
        )),
    };
    let wary = write(directory, "stranger.pem", &stranger.cert.pem());
    let wary = UpstreamTls {
        ca: Some(wary),
        ..good.clone()
    };
    (port, good, wary)
}

#[tokio::test]
async fn peers_and_health_checks_verify_the_service_and_show_their_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let answered = Arc::new(AtomicU8::new(0));
    let (port, good, wary) = tls_service(directory.path(), Arc::clone(&answered)).await;
    let connector = pingora_core::connectors::TransportConnector::new(None);
    for (tls, trusted) in [(good, true), (wary, false)] {
        let config = UpstreamConfig {
            tls: Some(tls),
            health_check: Some(check()),
            ..config(&[("127.0.0.1", port), ("127.0.0.1", port)])
        };
        let cluster = Cluster::new("api", &config, None).unwrap();
        assert_eq!(cluster.endpoints().len(), 1);
        let peer = Arc::clone(cluster.pick(None).unwrap().peer());
        match connector.new_stream(&*peer).await {
            Ok(mut stream) => {
                assert!(trusted);
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
                stream.flush().await.unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 204");
            }
            Err(error) => assert!(!trusted, "{error}"),
        }
        cluster.maintain();
        if trusted {
            // One call and more checks than it takes to take it out.
            until("checked", || answered.load(SeqCst) >= 5).await;
            assert!(cluster.endpoints()[0].healthy);
        } else {
            until("out", || !cluster.endpoints()[0].healthy).await;
        }
    }
}

#[tokio::test]
async fn a_sweep_finds_every_closed_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut servers = Vec::new();
    for number in 0..200 {
        let (stream, server) = connected(&listener).await;
        pool::put(&pool_key(100 + number % 4), stream, Duration::from_secs(60));
        servers.push(server);
    }
    assert_eq!((pool::sweep(), pool::idle()), (0, 200));
    drop(servers);
    until("all swept", || {
        pool::sweep();
        pool::idle() == 0
    })
    .await;
    assert_eq!(pool::counters().dead, 200);
}

async fn connected(listener: &TcpListener) -> (Stream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (
        Box::new(pingora_core::protocols::l4::stream::Stream::from(client)),
        server,
    )
}

fn pool_key(group_key: u64) -> PoolKey {
    PoolKey {
        group_key,
        address: tcp(1),
    }
}

#[tokio::test]
async fn the_pool_gives_back_live_connections_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = pool_key(1);
    let minute = Duration::from_secs(60);
    assert!(pool::take(&key).is_none());

    let (stream, server) = connected(&listener).await;
    pool::put(&key, stream, minute);
    assert!(pool::take(&pool_key(2)).is_none());
    let stream = pool::take(&key).expect("alive");
    pool::put(&key, stream, minute);
    drop(server);
    until("swept", || pool::sweep() == 1).await;

    // Bytes nobody asked for would be taken for the next answer.
    let (mut stream, mut server) = connected(&listener).await;
    server.write_all(b"xy").await.unwrap();
    stream.read_u8().await.unwrap();
    pool::put(&key, stream, minute);
    assert!(pool::take(&key).is_none());

    let (stream, _server) = connected(&listener).await;
    pool::put(&key, stream, Duration::ZERO);
    assert!(pool::take(&key).is_none());
    let counters = pool::counters();
    assert_eq!(
        (counters.reused, counters.dead, counters.expired),
        (1, 2, 1)
    );
    assert_eq!(pool::idle(), 0);
}

#[tokio::test]
async fn the_pool_is_bounded_and_keeps_the_newest() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = pool_key(3);
    let mut servers = Vec::new();
    // As where descriptors are few; other tests of this process keep fewer than that.
    pool::limit_idle(128);
    let most = pool::idle_limit_per_key();
    for _ in 0..most + 1 {
        let (stream, server) = connected(&listener).await;
        pool::put(&key, stream, Duration::from_secs(60));
        servers.push(server);
    }
    assert_eq!((pool::idle(), pool::counters().crowded), (most, 1));
    let mut newest = pool::take(&key).unwrap();
    newest.write_all(b"n").await.unwrap();
    newest.flush().await.unwrap();
    assert_eq!(servers.last_mut().unwrap().read_u8().await.unwrap(), b'n');
    pool::clear();
    assert_eq!(pool::idle(), 0);
}
