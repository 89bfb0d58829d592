//! Tokens that say nothing themselves: the issuer is asked (RFC 7662), and what it does not clearly say is no admission.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod issuer;
mod world;

use std::time::{Duration, Instant};

use issuer::{Gateway, ISSUER, Setting, publish, publishing};
use serde_json::json;
use world::{Service, Then, eventually};

const SPEC: &str = r#"{
  "openapi": "3.1.0",
  "info": {"title": "Books", "version": "1"},
  "paths": {
    "/public": {"get": {"operationId": "public", "security": [], "responses": {"200": {"description": "ok"}}}},
    "/plain": {"get": {"operationId": "plain", "security": [{"jwt": []}], "responses": {"200": {"description": "ok"}}}},
    "/scoped": {"get": {"operationId": "scoped", "security": [{"oauth": ["books:read"]}], "responses": {"200": {"description": "ok"}}}}
  },
  "components": {"securitySchemes": {
    "jwt": {"type": "http", "scheme": "bearer"},
    "oauth": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://id.test/token", "scopes": {"books:read": ""}}}}
  }}
}"#;

fn start(issuer: &Service, service: &Service, cache: &str) -> Gateway {
    let url = issuer.url();
    let api = format!(
        "auth:\n  subscription: off\n  issuers:\n    id:\n      issuer: {ISSUER}\n      audiences: [books]\n      \
         jwks: {url}/keys\n      allow_private: on\n      introspection: {{url: '{url}/introspect', client_id: gate, \
         client_secret: 'file:../secret', cache: {cache}, deadline: 1s}}\n"
    );
    let setting = Setting {
        spec: SPEC,
        api: &api,
        consumers: "",
    };
    setting.start_with(service, &[("secret", "s3cr3t&d0=n0t")])
}

fn asked(issuer: &Service) -> usize {
    let calls = issuer.calls();
    calls
        .iter()
        .filter(|call| call.target() == "/introspect")
        .count()
}

fn active() -> String {
    json!({"active": true, "aud": "books", "sub": "ann", "scope": "books:read"}).to_string()
}

#[test]
fn an_active_token_passes_and_is_asked_about_once() {
    let service = Service::new();
    let issuer = publishing(&active());
    let gateway = start(&issuer, &service, "30s");
    for _ in 0..5 {
        assert_eq!(gateway.show("/plain", "opaque&token=1").status, 200);
        assert_eq!(gateway.show("/scoped", "opaque&token=1").status, 200);
    }
    assert_eq!(asked(&issuer), 1);
    let calls = issuer.calls();
    let call = calls
        .iter()
        .find(|call| call.target() == "/introspect")
        .unwrap();
    assert_eq!(call.method(), "POST");
    let body = String::from_utf8_lossy(&call.body).into_owned();
    assert!(body.starts_with("token=opaque%26token%3D1&"), "{body}");
    // RFC 6749 section 2.3.1: user and password are encoded as in a form first.
    let expected = issuer::basic("gate", "s3cr3t%26d0%3Dn0t");
    assert_eq!(call.header("authorization"), Some(&*expected));
    assert_eq!(service.last().header("authorization"), None);
    assert!(!gateway.world.log().contains("s3cr3t"));
}

#[test]
fn an_inactive_token_is_refused_and_not_asked_about_again_at_once() {
    let service = Service::new();
    let issuer = publishing(r#"{"active": false}"#);
    let gateway = start(&issuer, &service, "30s");
    for _ in 0..5 {
        gateway
            .show("/plain", "opaque")
            .is_problem(401, "credential_invalid");
    }
    assert_eq!(asked(&issuer), 1);
    publish(&issuer, &active());
    eventually("a token that became active passes", || {
        gateway.show("/plain", "opaque").status == 200
    });
}

#[test]
fn what_is_not_clearly_active_is_no_admission() {
    let service = Service::new();
    let issuer = publishing("");
    let gateway = start(&issuer, &service, "30s");
    let answers = [
        ("<html>", 503),
        ("", 503),
        ("true", 503),
        (r#"{"active": "true", "aud": "books"}"#, 503),
        (r#"{"active": 1, "aud": "books"}"#, 503),
        (r#"{"aud": "books"}"#, 503),
        (r#"{"active": false, "active": true, "aud": "books"}"#, 503),
        (
            r#"{"active": true, "aud": "books", "exp": "9999999999"}"#,
            503,
        ),
        (r#"{"active": true}"#, 401),
        (r#"{"active": true, "aud": "other"}"#, 401),
        (
            r#"{"active": true, "aud": "books", "iss": "https://evil.test"}"#,
            401,
        ),
        (r#"{"active": true, "aud": "books", "exp": 1000}"#, 401),
    ];
    for (number, (answer, expected)) in answers.iter().enumerate() {
        publish(&issuer, answer);
        let shown = gateway.show("/plain", &format!("opaque-{number}"));
        assert_eq!(shown.status, *expected, "{answer}: {shown:?}");
    }
    let huge = format!(
        r#"{{"active": true, "aud": "books", "x": "{}"}}"#,
        "x".repeat(70_000)
    );
    publish(&issuer, &huge);
    assert_eq!(gateway.show("/plain", "opaque-huge").status, 503);
    assert_eq!(service.calls().len(), 0);
    assert_eq!(gateway.get("/public", &[]).status, 200);
}

#[test]
fn a_slow_or_failing_issuer_means_503_within_the_deadline() {
    let service = Service::new();
    let slow = Service::stalling();
    let failing = Service::answering(|_, stream| {
        use std::io::Write as _;
        let _gone = stream.write_all(b"HTTP/1.1 401 no\r\ncontent-length: 0\r\n\r\n");
        Then::Continue
    });
    for issuer in [&slow, &failing] {
        let gateway = start(issuer, &service, "30s");
        let begun = Instant::now();
        gateway
            .show("/plain", "opaque")
            .is_problem(503, "policy_unavailable");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(gateway.get("/public", &[]).status, 200);
        let unanswered =
            "tollgate_introspections_total{api=\"books\",issuer=\"id\",result=\"unanswered\"}";
        assert_eq!(gateway.metric(unanswered), 1);
    }
    assert_eq!(service.calls().len(), 2, "the public operation alone");
}

#[test]
fn an_answer_is_believed_for_as_long_as_configured() {
    let service = Service::new();
    let issuer = publishing(&active());
    let gateway = start(&issuer, &service, "1s");
    assert_eq!(gateway.show("/plain", "opaque").status, 200);
    publish(&issuer, r#"{"active": false}"#);
    eventually("the answer grows old", || {
        gateway.show("/plain", "opaque").status == 401
    });
    assert_eq!(asked(&issuer), 2);
}

#[test]
fn a_broken_jwt_is_not_asked_about() {
    let service = Service::new();
    let issuer = publishing(&active());
    let gateway = start(&issuer, &service, "30s");
    let none = issuer::message(&json!({"alg": "none"}), &issuer::claims());
    assert_eq!(gateway.show("/plain", &format!("{none}.")).status, 401);
    assert_eq!(asked(&issuer), 0);
}

#[test]
fn guessed_tokens_do_not_flood_the_issuer() {
    let service = Service::new();
    let issuer = publishing(r#"{"active": false}"#);
    let gateway = start(&issuer, &service, "30s");
    let mut refused = 0;
    for number in 0..200 {
        let answer = gateway.show("/plain", &format!("guess-{number}"));
        assert!(matches!(answer.status, 401 | 429), "{answer:?}");
        refused += usize::from(answer.status == 429);
    }
    assert!(refused > 0, "{} asked", asked(&issuer));
    assert_eq!(asked(&issuer), 200 - refused);
}

#[test]
fn one_question_is_on_its_way_for_one_token() {
    let service = Service::new();
    let issuer = Service::answering(|_, stream| {
        std::thread::sleep(Duration::from_millis(300));
        world::service::ok(stream, r#"{"active": true, "aud": "books"}"#)
    });
    let gateway = start(&issuer, &service, "30s");
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(gateway.show("/plain", "opaque").status, 200));
        }
    });
    assert_eq!(asked(&issuer), 1);
}
