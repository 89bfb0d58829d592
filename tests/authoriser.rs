//! An external judge (`ext_authz`), over HTTP and gRPC: it can refuse and never admit, and what happens without it is the policy's word.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod issuer;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::{HeaderMap, Response};
use issuer::{Gateway, Setting};
use tollgate_policy::credentials::key::make_key;
use world::{Service, Then, eventually};

const SPEC: &str = r#"{
  "openapi": "3.1.0",
  "info": {"title": "Books", "version": "1"},
  "paths": {
    "/public": {"get": {"operationId": "public", "security": [], "responses": {"200": {"description": "ok"}}}},
    "/public/{id}": {"get": {"operationId": "one", "security": [], "parameters": [{"name": "id", "in": "path", "required": true,
      "schema": {"type": "string"}}], "responses": {"200": {"description": "ok"}}}},
    "/keyed": {"get": {"operationId": "keyed", "security": [{"key": []}], "responses": {"200": {"description": "ok"}}}}
  },
  "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}}
}"#;

const CONSUMERS: &str = "organisations:\n  shops:\n    projects:\n      web:\n        consumers:\n          one:\n            \
    keys: [{name: first, secret: 'file:key-one'}]\n";

fn key() -> String {
    make_key("live", [1; 16])
}

fn start(service: &Service, authoriser: &str) -> Gateway {
    let api = format!("auth: {{subscription: off}}\nauthoriser: {{{authoriser}}}\n");
    let setting = Setting {
        spec: SPEC,
        api: &api,
        consumers: CONSUMERS,
    };
    setting.start_with(service, &[("key-one", &key())])
}

/// A judge over HTTP that answers with this status from now on.
fn says(judge: &Service, status: u16) {
    judge.now(move |_, stream| {
        use std::io::Write as _;
        let answer =
            format!("HTTP/1.1 {status} Judged\r\nx-user: root\r\ncontent-length: 0\r\n\r\n");
        let _gone = stream.write_all(answer.as_bytes());
        Then::Continue
    });
}

fn judge(status: u16) -> Service {
    let judge = Service::new();
    says(&judge, status);
    judge
}

#[test]
fn the_judge_sees_the_call_and_its_answer_counts() {
    let service = Service::new();
    let judge = judge(200);
    let gateway = start(
        &service,
        &format!(
            "http: '{}/check', deadline: 2s, headers: [x-tenant]",
            judge.url()
        ),
    );
    let key = key();
    let fields = [
        ("x-api-key", &*key),
        ("x-tenant", "a"),
        ("x-tenant", "b"),
        ("x-forwarded-host", "evil.test"),
    ];
    assert_eq!(gateway.get("/keyed?x=1", &fields).status, 200);
    let question = judge.last();
    assert_eq!(question.line(), "GET /check/keyed?x=1 HTTP/1.1");
    assert_eq!(question.all("x-tollgate-consumer"), ["one"]);
    assert_eq!(question.all("x-tollgate-operation"), ["keyed"]);
    assert_eq!(question.all("x-forwarded-host"), [world::HOST]);
    assert_eq!(question.all("x-tenant"), ["a, b"]);
    assert!(question.all("x-api-key").is_empty(), "{question:?}");
    // Nothing of the judge's answer reaches the service.
    assert!(service.last().all("x-user").is_empty());
    for status in [401, 403, 404, 302, 429] {
        says(&judge, status);
        gateway
            .get("/public", &[])
            .is_problem(403, "authoriser_refused");
    }
    says(&judge, 500);
    gateway
        .get("/public", &[])
        .is_problem(503, "policy_unavailable");
    assert_eq!(service.calls().len(), 1);
    let answered = "tollgate_authoriser_judgements_total{api=\"books\",result=\"answered\"}";
    assert_eq!(gateway.metric(answered), 6);
}

#[test]
fn authentication_never_opens_whatever_the_judge_does() {
    let service = Service::new();
    let present = judge(200);
    for url in [present.url(), Service::nowhere(), Service::stalling().url()] {
        let gateway = start(&service, &format!("http: '{url}', failure: fail_open"));
        gateway
            .get("/keyed", &[])
            .is_problem(401, "credential_required");
        let unknown = make_key("live", [7; 16]);
        gateway
            .get("/keyed", &[("x-api-key", &unknown)])
            .is_problem(401, "credential_invalid");
    }
    assert_eq!(service.calls().len(), 0);
    assert_eq!(
        present.calls().len(),
        0,
        "it is asked about callers who passed everything else"
    );
}

#[test]
fn without_an_answer_the_policy_decides() {
    let service = Service::new();
    let silent = Service::stalling();
    for (failure, expected) in [
        ("fail_open", 200),
        ("fail_closed", 503),
        ("degraded, stale_ok: 1m, vary: [path]", 503),
    ] {
        for url in [silent.url(), Service::nowhere()] {
            let gateway = start(
                &service,
                &format!("http: '{url}', deadline: 100ms, failure: {failure}"),
            );
            let begun = Instant::now();
            assert_eq!(gateway.get("/public", &[]).status, expected, "{failure}");
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{:?}",
                begun.elapsed()
            );
            let unanswered =
                "tollgate_authoriser_judgements_total{api=\"books\",result=\"unanswered\"}";
            assert_eq!(gateway.metric(unanswered), 1);
        }
    }
}

#[test]
fn a_caller_cannot_choose_not_to_be_judged() {
    let service = Service::new();
    let judge = judge(403);
    let gateway = start(
        &service,
        &format!("http: '{}', deadline: 2s, failure: fail_open", judge.url()),
    );
    for path in [
        "/public?x=<",
        "/public?x=\"",
        "/public/<",
        "/public/a`b",
        "/public/%3C",
        "/public?%",
        "/public?a=b|c",
    ] {
        let status = gateway.get(path, &[]).status;
        assert!(matches!(status, 400 | 403 | 404), "{path}: {status}");
    }
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn answers_are_kept_by_what_they_depend_on() {
    let service = Service::new();
    let judge = judge(200);
    let how = format!(
        "http: '{}', deadline: 2s, cache: 1m, vary: [path, 'header:x-tenant'], headers: [x-tenant]",
        judge.url()
    );
    let gateway = start(&service, &how);
    let ask = |path: &str, tenant: &str| gateway.get(path, &[("x-tenant", tenant)]).status;
    assert_eq!((ask("/public", "a"), ask("/public", "a")), (200, 200));
    assert_eq!(judge.calls().len(), 1);
    assert_eq!((ask("/public", "b"), ask("/public?q", "a")), (200, 200));
    assert_eq!(judge.calls().len(), 3);
    says(&judge, 403);
    assert_eq!((ask("/public", "a"), ask("/public/1", "a")), (200, 403));
    says(&judge, 200);
    assert_eq!(ask("/public/1", "a"), 403);
    assert_eq!(judge.calls().len(), 4);
}

#[test]
fn degraded_uses_an_old_answer_for_as_long_as_it_may() {
    let service = Service::new();
    let judge = judge(200);
    let how = format!(
        "http: '{}', deadline: 500ms, cache: 0, failure: degraded, stale_ok: 2s, vary: [path]",
        judge.url()
    );
    let how = how.replace("cache: 0, ", "");
    let gateway = start(&service, &how);
    assert_eq!(gateway.get("/public", &[]).status, 200);
    let begun = Instant::now();
    says(&judge, 500);
    let stale = gateway.get("/public", &[]).status;
    assert!(stale == 200 || begun.elapsed() > Duration::from_secs(2));
    assert_eq!(gateway.get("/public/never-judged", &[]).status, 503);
    eventually("the old answer is too old", || {
        gateway.get("/public", &[]).status == 503
    });
    says(&judge, 403);
    assert_eq!(gateway.get("/public", &[]).status, 403);
}

#[test]
fn a_shadowed_judge_refuses_nobody() {
    let service = Service::new();
    let judge = judge(403);
    let gateway = start(
        &service,
        &format!("http: '{}', deadline: 2s, shadow: on", judge.url()),
    );
    assert_eq!(gateway.get("/public", &[]).status, 200);
    let shadowed = "tollgate_authoriser_judgements_total{api=\"books\",result=\"shadowed\"}";
    assert_eq!(gateway.metric(shadowed), 1);
    says(&judge, 500);
    assert_eq!(gateway.get("/public", &[]).status, 200);
    assert_eq!(gateway.get("/keyed", &[]).status, 401);
}

/// Path and body of a question.
type Asked = (String, Vec<u8>);

/// A judge over gRPC.
struct GrpcJudge {
    address: std::net::SocketAddr,
    answer: Arc<Mutex<Verdict>>,
    questions: Arc<Mutex<Vec<Asked>>>,
    asked: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Verdict {
    /// `CheckResponse` with this status code.
    Code(u8),
    /// `CheckResponse` without a status.
    Nothing,
    /// No message, and this `grpc-status`.
    Fails(&'static str),
    Silence,
}

impl GrpcJudge {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let judge = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(Verdict::Code(0))),
            questions: Arc::default(),
            asked: Arc::default(),
        };
        let (answer, questions) = (judge.answer.clone(), judge.questions.clone());
        let asked = judge.asked.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let served = tokio::task::LocalSet::new();
            served.block_on(&runtime.unwrap(), async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let state = (answer.clone(), questions.clone(), asked.clone());
                    tokio::task::spawn_local(serve(stream, state));
                }
            });
        });
        judge
    }

    fn says(&self, verdict: Verdict) {
        *self.answer.lock().unwrap() = verdict;
    }
}

type State = (
    Arc<Mutex<Verdict>>,
    Arc<Mutex<Vec<(String, Vec<u8>)>>>,
    Arc<AtomicUsize>,
);

async fn serve(stream: tokio::net::TcpStream, (answer, questions, asked): State) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (answer, questions, asked) = (answer.clone(), questions.clone(), asked.clone());
        tokio::task::spawn_local(async move {
            let path = request.uri().path().to_owned();
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
            questions.lock().unwrap().push((path, message));
            asked.fetch_add(1, Ordering::SeqCst);
            let verdict = *answer.lock().unwrap();
            let (message, status) = match verdict {
                // Field 1 is the status, whose field 1 is its code; zero is not written.
                Verdict::Code(0) => (Some(vec![0x0a, 0]), "0"),
                Verdict::Code(code) => (Some(vec![0x0a, 2, 0x08, code]), "0"),
                Verdict::Nothing => (Some(Vec::new()), "0"),
                Verdict::Fails(status) => (None, status),
                Verdict::Silence => return std::future::pending().await,
            };
            let head = Response::builder().header("content-type", "application/grpc");
            let Ok(mut send) = respond.send_response(head.body(()).unwrap(), false) else {
                return;
            };
            if let Some(message) = message {
                let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
                frame.extend(message);
                let _gone = send.send_data(Bytes::from(frame), false);
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            let _gone = send.send_trailers(trailers);
        });
    }
}

#[test]
fn a_judge_over_grpc_is_asked_as_envoy_asks() {
    let (service, judge) = (Service::new(), GrpcJudge::new());
    let gateway = start(
        &service,
        &format!(
            "grpc: 'h2c://{}', deadline: 2s, headers: [x-tenant]",
            judge.address
        ),
    );
    let key = key();
    let fields = [("x-api-key", &*key), ("x-tenant", "acme")];
    assert_eq!(gateway.get("/keyed?x=1", &fields).status, 200);
    let (path, message) = judge.questions.lock().unwrap().pop().unwrap();
    assert_eq!(path, "/envoy.service.auth.v3.Authorization/Check");
    let text = String::from_utf8_lossy(&message).into_owned();
    for part in [
        "GET",
        "/keyed?x=1",
        world::HOST,
        "127.0.0.1",
        "x-tenant",
        "acme",
        "consumer",
        "one",
        "keyed",
    ] {
        assert!(text.contains(part), "{part} is not in {text:?}");
    }
    assert!(!text.contains("tg_live"), "{text:?}");
    for (verdict, expected) in [
        (Verdict::Code(7), 403),
        (Verdict::Code(16), 403),
        (Verdict::Nothing, 503),
        (Verdict::Fails("7"), 503),
        (Verdict::Fails("14"), 503),
        (Verdict::Code(0), 200),
    ] {
        judge.says(verdict);
        assert_eq!(gateway.get("/public", &[]).status, expected);
    }
    assert_eq!(judge.asked.load(Ordering::SeqCst), 7);
}

#[test]
fn a_silent_or_absent_judge_over_grpc_has_a_deadline() {
    let (service, judge) = (Service::new(), GrpcJudge::new());
    judge.says(Verdict::Silence);
    let nowhere = Service::nowhere().replace("http://", "");
    for address in [judge.address.to_string(), nowhere] {
        for (failure, expected) in [("fail_open", 200), ("fail_closed", 503)] {
            let how = format!("grpc: 'h2c://{address}', deadline: 200ms, failure: {failure}");
            let gateway = start(&service, &how);
            let begun = Instant::now();
            assert_eq!(
                gateway.get("/public", &[]).status,
                expected,
                "{address} {failure}"
            );
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{:?}",
                begun.elapsed()
            );
            assert_eq!(gateway.get("/keyed", &[]).status, 401);
        }
    }
}

#[test]
fn a_judge_over_grpc_by_tls_is_not_spoken_to_in_cleartext() {
    let (service, judge) = (Service::new(), GrpcJudge::new());
    let gateway = start(
        &service,
        &format!("grpc: 'h2://{}', deadline: 1s", judge.address),
    );
    gateway
        .get("/public", &[])
        .is_problem(503, "policy_unavailable");
    assert_eq!(judge.asked.load(Ordering::SeqCst), 0);
}
