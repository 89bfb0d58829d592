//! Descriptors are part of an API like its other files: they reload it, a bad one leaves the old in place, and last-known-good holds them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tollgate_gateway::live::{ApiStatus, Live, Origin};
use tollgate_gateway::telemetry::Metrics;

struct World {
    directory: tempfile::TempDir,
}

/// A service with a method for each name.
fn proto(methods: &[&str]) -> String {
    let methods = methods
        .iter()
        .map(|name| format!("rpc {name}(M) returns (M);\n"));
    let methods: String = methods.collect();
    format!(
        "syntax = \"proto3\";\npackage a;\nimport \"parts/m.proto\";\nservice S {{\n{methods}}}\n"
    )
}

const PART: &str = "syntax = \"proto3\";\npackage a;\nmessage M { string name = 1; }\n";

impl World {
    fn new(api: &str) -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        world.write("apis/books.yaml", api);
        world.write("protos/s.proto", proto(&["One"]));
        world.write("shared/parts/m.proto", PART);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn start(&self) -> Arc<Live> {
        let origin = Origin::Directory(self.path(""));
        Live::load(origin, Some(self.path("state")), Metrics::new()).unwrap()
    }

    /// The compiled set of what lies in the directory.
    fn compiled(&self) -> Vec<u8> {
        let include = [self.path("protos"), self.path("shared")];
        let mut compiler = protox::Compiler::new(include).unwrap();
        compiler.include_imports(true).open_file("s.proto").unwrap();
        compiler.encode_file_descriptor_set()
    }
}

fn status(live: &Live) -> ApiStatus {
    live.statuses().remove(0)
}

const PROTOS: &str = "upstream: grpc://127.0.0.1:1
grpc: { protos: [../protos/s.proto], include: [../protos, ../shared] }
";

/// Must-have: descriptors from `.proto` files, reloaded without restart.
#[test]
fn a_changed_proto_file_or_import_reloads_the_api_and_a_bad_one_leaves_the_old_in_place() {
    let world = World::new(PROTOS);
    let live = world.start();
    assert_eq!(
        (status(&live).state.as_str(), status(&live).operations),
        ("serving", 1)
    );
    world.write("protos/s.proto", proto(&["One", "Two"]));
    live.reload();
    assert_eq!((status(&live).generation, status(&live).operations), (2, 2));
    world.write("shared/parts/m.proto", PART.replace("name = 1", "name = "));
    live.reload();
    let broken = status(&live);
    assert_eq!(
        (broken.state.as_str(), broken.operations),
        ("serving_previous", 2)
    );
    assert!(
        broken.last_error.contains("m.proto:3:"),
        "{}",
        broken.last_error
    );
    world.write("shared/parts/m.proto", PART);
    live.reload();
    assert_eq!(status(&live).state, "serving");
}

/// Must-have: descriptors from a compiled file, reloaded without restart.
#[test]
fn a_compiled_set_is_watched_and_a_bad_one_is_visible_in_status() {
    let world = World::new("upstream: grpc://127.0.0.1:1\ngrpc: { descriptors: ../s.binpb }\n");
    world.write("s.binpb", world.compiled());
    let live = world.start();
    assert_eq!(status(&live).operations, 1);
    world.write("s.binpb", &world.compiled()[5..]);
    live.reload();
    let broken = status(&live);
    assert_eq!(
        (broken.state.as_str(), broken.operations),
        ("serving_previous", 1)
    );
    assert!(
        broken.last_error.contains("error[descriptors]"),
        "{}",
        broken.last_error
    );
    world.write("protos/s.proto", proto(&["One", "Two", "Three"]));
    world.write("s.binpb", world.compiled());
    live.reload();
    assert_eq!(
        (status(&live).state.as_str(), status(&live).operations),
        ("serving", 3)
    );
}

#[test]
fn last_known_good_holds_the_descriptors_and_what_they_import() {
    for (api, broken) in [
        (PROTOS, "protos/s.proto"),
        (PROTOS, "shared/parts/m.proto"),
        (
            "upstream: grpc://127.0.0.1:1\ngrpc: { descriptors: ../s.binpb, rules: ../r.yaml }\n",
            "s.binpb",
        ),
    ] {
        let world = World::new(api);
        world.write("s.binpb", world.compiled());
        world.write(
            "r.yaml",
            "http: { rules: [{ selector: a.S.One, get: '/one' }] }\n",
        );
        drop(world.start());
        world.write(broken, "broken");
        let again = status(&world.start());
        assert_eq!(
            (again.state.as_str(), again.operations),
            ("serving_last_known_good", 1),
            "{broken}"
        );
        std::fs::remove_file(world.path(broken)).unwrap();
        let gone = status(&world.start());
        assert_eq!(
            gone.state, "serving_last_known_good",
            "{broken}: {}",
            gone.last_error
        );
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, optional, tag = "3")]
    file: Option<String>,
    #[prost(string, optional, tag = "4")]
    symbol: Option<String>,
    #[prost(string, optional, tag = "7")]
    services: Option<String>,
}

/// `field`, as bytes, of a message.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(number << 3 | 2).unwrap()];
    prost::encode_length_delimiter(bytes.len(), &mut out).unwrap();
    out.extend_from_slice(bytes);
    out
}

/// A service that answers to reflection with what it is told, in one version alone.
struct Service {
    port: u16,
    files: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl Service {
    async fn start(version: &'static str, set: Vec<u8>) -> Self {
        Self::start_with(version, set, None).await
    }

    async fn start_with(version: &'static str, set: Vec<u8>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (files, asked) = (Arc::new(Mutex::new(set)), Arc::new(AtomicUsize::new(0)));
        let service = Self {
            port,
            files: Arc::clone(&files),
            asked: Arc::clone(&asked),
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (files, asked) = (Arc::clone(&files), Arc::clone(&asked));
                let answer = service_fn(move |request| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    answer(request, version, files.lock().clone())
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        return http.serve_connection(TokioIo::new(stream), answer).await;
                    };
                    match tls.accept(stream).await {
                        Ok(stream) => http.serve_connection(TokioIo::new(stream), answer).await,
                        // Whoever asks does not believe us.
                        Err(_) => Ok(()),
                    }
                });
            }
        });
        service
    }
}

async fn answer(
    request: Request<Incoming>,
    version: &str,
    set: Vec<u8>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    let known = request.uri().path() == path;
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let question = Question::decode(body.get(5..).unwrap_or_default()).unwrap();
    let set = prost_types::FileDescriptorSet::decode(&*set).unwrap_or_default();
    let file = |wanted: &dyn Fn(&prost_types::FileDescriptorProto) -> bool| {
        let found = set.file.iter().find(|file| wanted(file));
        field(4, &field(1, &found.unwrap().encode_to_vec()))
    };
    let told = if question.services.is_some() {
        let names = ["a.S", "grpc.reflection.v1.ServerReflection"];
        let names: Vec<u8> = names
            .iter()
            .flat_map(|name| field(1, &field(1, name.as_bytes())))
            .collect();
        field(6, &names)
    } else if let Some(name) = question.file {
        file(&|file| file.name() == name)
    } else {
        // Only its own file: what it imports is to be asked for.
        file(&|file| !file.service.is_empty())
    };
    let mut frame = vec![0];
    frame.extend(u32::try_from(told.len()).unwrap().to_be_bytes());
    frame.extend(told);
    let code = if known { "0" } else { "12" };
    let trailers = HeaderMap::from_iter([(
        "grpc-status".parse().unwrap(),
        HeaderValue::from_static(code),
    )]);
    let body = Full::new(Bytes::from(if known { frame } else { Vec::new() }));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body).unwrap())
}

fn reflecting(port: u16) -> String {
    format!("upstream: grpc://127.0.0.1:{port}\ngrpc: {{ reflection: {{ refresh: 50ms }} }}\n")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn until(live: &Live, what: impl Fn(&ApiStatus) -> bool) -> ApiStatus {
    let mut reloads = live.reloads();
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let status = status(live);
            if what(&status) {
                return status;
            }
            // A refusal alone is no reload: looked at again soon.
            let _ = tokio::time::timeout(Duration::from_millis(50), reloads.changed()).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{:?}", status(live)))
}

/// Must-have: descriptors by reflection, asked again without restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_asked_by_reflection_v1_or_v1alpha_and_again_as_it_changes() {
    for version in ["v1", "v1alpha"] {
        let world = World::new("");
        let service = Service::start(version, world.compiled()).await;
        world.write("apis/books.yaml", reflecting(service.port));
        let world = Arc::new(world);
        let here = Arc::clone(&world);
        let live = blocking(move || here.start()).await;
        assert_eq!(status(&live).operations, 1, "{}", status(&live).last_error);
        live.watch().unwrap();
        world.write("protos/s.proto", proto(&["One", "Two"]));
        *service.files.lock() = world.compiled();
        until(&live, |it| it.operations == 2).await;
        // What is no descriptor leaves the old in place.
        let broken = proto(&["One"]).replace("(M)", "(a.M)");
        world.write("protos/s.proto", broken);
        let mut set = prost_types::FileDescriptorSet::decode(&*world.compiled()).unwrap();
        set.file.retain(|file| !file.service.is_empty());
        set.file[0].dependency.clear();
        *service.files.lock() = set.encode_to_vec();
        let bad = until(&live, |it| it.state == "serving_previous").await;
        assert_eq!(bad.operations, 2);
        assert!(
            bad.last_error.contains("not in the descriptor set"),
            "{}",
            bad.last_error
        );
        assert!(service.asked.load(Ordering::SeqCst) > 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_asked_by_reflection_over_tls_only_where_its_certificate_is_believed() {
    let own = rcgen::generate_simple_self_signed(vec!["books.test".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["books.test".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let compiled = World::new("").compiled();
    let service = Service::start_with("v1", compiled, Some(acceptor)).await;
    let table = [
        (own.cert.pem(), "books.test", true),
        (other.cert.pem(), "books.test", false),
        (own.cert.pem(), "other.test", false),
    ];
    for (ca, name, believed) in table {
        let asked = service.asked.load(Ordering::SeqCst);
        let world = World::new(&format!(
            "upstream: {{ url: 'grpcs://127.0.0.1:{}', tls: {{ ca: ../ca.pem, server_name: {name} }} }}\n\
             grpc: {{ reflection: on }}\n",
            service.port
        ));
        world.write("ca.pem", ca);
        let live = blocking(move || world.start()).await;
        let told = status(&live);
        if believed {
            assert_eq!(told.operations, 1, "{}", told.last_error);
            continue;
        }
        assert_eq!(told.state, "refused");
        assert!(
            told.last_error.contains("error[reflection]"),
            "{}",
            told.last_error
        );
        assert_eq!(
            service.asked.load(Ordering::SeqCst),
            asked,
            "nothing was asked"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_keeps_its_descriptors_and_is_told_of() {
    let world = World::new("");
    let service = Service::start("v1", world.compiled()).await;
    world.write("apis/books.yaml", reflecting(service.port));
    let world = Arc::new(world);
    let here = Arc::clone(&world);
    drop(blocking(move || here.start()).await);
    // Nobody listens there any more.
    let away = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    world.write("apis/books.yaml", reflecting(away));
    let here = Arc::clone(&world);
    let live = blocking(move || here.start()).await;
    assert_eq!(
        (status(&live).state.as_str(), status(&live).operations),
        ("serving", 1)
    );
    live.watch().unwrap();
    let told = |it: &ApiStatus| {
        it.warnings
            .iter()
            .any(|line| line.contains("by reflection"))
    };
    assert_eq!(until(&live, told).await.operations, 1);
    // Without any there is nothing to serve.
    let alone = World::new(&reflecting(away));
    let live = blocking(move || alone.start()).await;
    assert_eq!(status(&live).state, "refused");
    assert!(
        status(&live).last_error.contains("error[reflection]"),
        "{}",
        status(&live).last_error
    );
}

#[test]
fn a_set_with_nothing_to_serve_is_refused() {
    let world = World::new("upstream: grpc://127.0.0.1:1\ngrpc: { descriptors: ../s.binpb }\n");
    world.write("s.binpb", "");
    let refused = status(&world.start());
    assert_eq!(refused.state, "refused");
    assert!(
        refused.last_error.contains("no-operations"),
        "{}",
        refused.last_error
    );
    assert!(Path::new(&refused.file).ends_with("apis/books.yaml"));
}
