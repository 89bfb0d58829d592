//! Tokens: every algorithm that is promised, every attack that is known, and issuers that come, go, and change their keys.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod issuer;
mod world;

use std::time::{Duration, Instant};

use issuer::{
    Gateway, ISSUER, Keys, SHARED, Setting, claims, coded, now, publish, publishing, with,
};
use serde_json::{Value, json};
use tollgate_policy::credentials::key::make_key;
use world::{Service, Then, eventually};

const SPEC: &str = r#"{
  "openapi": "3.1.0",
  "info": {"title": "Books", "version": "1"},
  "paths": {
    "/public": {"get": {"operationId": "public", "security": [], "responses": {"200": {"description": "ok"}}}},
    "/plain": {"get": {"operationId": "plain", "security": [{"jwt": []}], "responses": {"200": {"description": "ok"}}}},
    "/scoped": {"get": {"operationId": "scoped", "security": [{"oauth": ["books:read", "books:write"]}], "responses": {"200": {"description": "ok"}}}},
    "/keyed": {"get": {"operationId": "keyed", "security": [{"key": []}], "responses": {"200": {"description": "ok"}}}},
    "/either": {"get": {"operationId": "either", "security": [{"key": []}, {"jwt": []}], "responses": {"200": {"description": "ok"}}}},
    "/both": {"get": {"operationId": "both", "security": [{"key": [], "jwt": []}], "responses": {"200": {"description": "ok"}}}},
    "/optional": {"get": {"operationId": "optional", "security": [{"jwt": []}, {}], "responses": {"200": {"description": "ok"}}}}
  },
  "components": {"securitySchemes": {
    "jwt": {"type": "http", "scheme": "bearer"},
    "oauth": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://id.test/token",
      "scopes": {"books:read": "", "books:write": ""}}}},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"}
  }}
}"#;

const ALGORITHMS: &str = "[RS256, PS256, ES256, EdDSA]";

fn api(issuer: &Service, more: &str) -> String {
    format!(
        "auth:\n  subscription: off\n  issuers:\n    id:\n      issuer: {ISSUER}\n      audiences: [books]\n      \
         algorithms: {ALGORITHMS}\n      jwks: {}/keys\n      allow_private: on\n      leeway: 5s\n{more}",
        issuer.url()
    )
}

fn start(issuer: &Service, service: &Service) -> Gateway {
    Setting {
        spec: SPEC,
        api: &api(issuer, ""),
        consumers: "",
    }
    .start(service)
}

/// A gateway that has its issuer's keys.
fn ready(issuer: &Service, service: &Service) -> Gateway {
    let gateway = start(issuer, service);
    has_keys(&gateway);
    gateway
}

fn has_keys(gateway: &Gateway) {
    eventually("the gateway has keys", || {
        gateway.metric("tollgate_issuer_keys_usable{api=\"books\",issuer=\"id\"}") == 1
    });
}

#[test]
fn every_promised_algorithm_is_accepted() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let token = keys.token(algorithm, &claims());
        for _ in 0..2 {
            assert_eq!(gateway.show("/plain", &token).status, 200, "{algorithm}");
        }
    }
    assert!(gateway.metric("tollgate_tokens_total{result=\"known\"}") >= 4);
    assert_eq!(
        gateway.metric("tollgate_tokens_total{result=\"verified\"}"),
        4
    );
    let call = service.last();
    assert_eq!(call.header("authorization"), None, "{call:?}");
}

#[test]
fn a_shared_secret_is_accepted_where_it_is_configured() {
    let service = Service::new();
    let api = format!(
        "auth:\n  subscription: off\n  issuers:\n    id: {{issuer: '{ISSUER}', audiences: [books], algorithms: [HS256], secret: 'file:../shared'}}\n"
    );
    let setting = Setting {
        spec: SPEC,
        api: &api,
        consumers: "",
    };
    let gateway = setting.start_with(&service, &[("shared", SHARED)]);
    let header = json!({"alg": "HS256"});
    let token = coded(SHARED.as_bytes(), &header, &claims());
    assert_eq!(gateway.show("/plain", &token).status, 200);
    let forged = coded(&[0; 32], &header, &claims());
    gateway
        .show("/plain", &forged)
        .is_problem(401, "credential_invalid");
}

#[test]
fn scopes_are_demanded_and_their_absence_is_told() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    let scoped = |scope: Value| keys.token("ES256", &with("scope", scope));
    for (scope, passes) in [
        (json!("books:read books:write"), true),
        (json!("other books:write books:read"), true),
        (json!("books:read"), false),
        (json!("books:readbooks:write"), false),
        (json!(""), false),
        (Value::Null, false),
    ] {
        let answer = gateway.show("/scoped", &scoped(scope.clone()));
        if passes {
            assert_eq!(answer.status, 200, "{scope}");
            continue;
        }
        answer.is_problem(403, "insufficient_scope");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("insufficient_scope"), "{challenge}");
    }
    let listed = keys.token("ES256", &with("scp", json!(["books:read", "books:write"])));
    assert_eq!(gateway.show("/scoped", &listed).status, 200);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_attack_on_a_token_is_refused() {
    let (keys, stranger, service) = (Keys::new(), Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    let none = |alg: &str| format!("{}.", issuer::message(&json!({"alg": alg}), &claims()));
    let es = |header: Value, claims: &Value| keys.signed("ES256", &header, claims);
    let header = || json!({"alg": "ES256", "kid": "p256"});
    let told = |name: &str, value: Value| {
        let mut header = header();
        header[name] = value;
        header
    };
    let good = keys.token("ES256", &claims());
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    let attacks = [
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("no signature", format!("{unsigned}.")),
        ("two parts", unsigned.to_owned()),
        ("a zero signature", format!("{unsigned}.{}", "A".repeat(86))),
        (
            "RS to HS",
            coded(
                &keys.rsa_modulus(),
                &json!({"alg": "HS256", "kid": "rsa"}),
                &claims(),
            ),
        ),
        (
            "RS to HS by document",
            coded(
                keys.jwks("").as_bytes(),
                &json!({"alg": "HS256"}),
                &claims(),
            ),
        ),
        (
            "another algorithm of the key",
            keys.signed("PS256", &json!({"alg": "RS256", "kid": "rsa"}), &claims()),
        ),
        (
            "a key of another kind",
            es(json!({"alg": "ES256", "kid": "rsa"}), &claims()),
        ),
        ("a stranger's key", stranger.token("RS256", &claims())),
        (
            "an embedded key",
            stranger.signed(
                "RS256",
                &json!({"alg": "RS256", "kid": "rsa", "jwk": stranger.rsa_jwk("")}),
                &claims(),
            ),
        ),
        (
            "an unknown kid",
            es(json!({"alg": "ES256", "kid": "nobody"}), &claims()),
        ),
        ("crit", es(told("crit", json!(["exp"])), &claims())),
        ("b64", es(told("b64", json!(false)), &claims())),
        ("kid as number", es(told("kid", json!(7)), &claims())),
        ("wrong aud", es(header(), &with("aud", json!("other")))),
        (
            "aud of a wrong type",
            es(header(), &with("aud", json!({"books": true}))),
        ),
        ("no aud", es(header(), &with("aud", Value::Null))),
        (
            "wrong iss",
            es(header(), &with("iss", json!("https://evil.test"))),
        ),
        ("iss as list", es(header(), &with("iss", json!([ISSUER])))),
        ("no iss", es(header(), &with("iss", Value::Null))),
        ("expired", es(header(), &with("exp", json!(now() - 6)))),
        (
            "exp as text",
            es(header(), &with("exp", json!("99999999999"))),
        ),
        ("no exp", es(header(), &with("exp", Value::Null))),
        ("nbf ahead", es(header(), &with("nbf", json!(now() + 60)))),
        ("nbf as text", es(header(), &with("nbf", json!("0")))),
        ("iat ahead", es(header(), &with("iat", json!(now() + 60)))),
        ("sub as list", es(header(), &with("sub", json!(["ann"])))),
        (
            "sub with a line end",
            es(header(), &with("sub", json!("ann\r\nx: y"))),
        ),
        ("too long", format!("{good}{}", "A".repeat(17_000))),
        ("another payload", good.replacen('.', ".e30", 1)),
    ];
    for (name, token) in &attacks {
        let answer = gateway.show("/plain", token);
        answer.is_problem(401, "credential_invalid");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("invalid_token"), "{name}: {challenge}");
        // What is wrong is the log's business.
        assert!(
            !answer.text().contains("signature"),
            "{name}: {}",
            answer.text()
        );
    }
    assert_eq!(service.calls().len(), 0);
    // Within the leeway of five seconds.
    let late = keys.token("ES256", &with("exp", json!(now() - 1)));
    assert_eq!(gateway.show("/plain", &late).status, 200);
    assert_eq!(gateway.show("/plain", &good).status, 200);
}

#[test]
fn a_token_that_is_kept_ends_in_time() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    let token = keys.token("ES256", &with("exp", json!(now() - 2)));
    assert_eq!(gateway.show("/plain", &token).status, 200);
    eventually("the token ends", || {
        gateway.show("/plain", &token).status == 401
    });
}

const CONSUMERS: &str = "organisations:\n  shops:\n    projects:\n      web:\n        consumers:\n          one:\n            \
    logins: [{issuer: 'https://id.test', client: ann}]\n            keys: [{name: first, secret: 'file:key-one'}]\n          two:\n            \
    keys: [{name: first, secret: 'file:key-two'}]\n";

#[test]
fn alternatives_combinations_optional_and_public_are_honoured() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let (one, two) = (make_key("live", [1; 16]), make_key("live", [2; 16]));
    let setting = Setting {
        spec: SPEC,
        api: &api(&issuer, ""),
        consumers: CONSUMERS,
    };
    let gateway = setting.start_with(&service, &[("key-one", &one), ("key-two", &two)]);
    has_keys(&gateway);
    let ann = issuer::bearer(&keys.token("ES256", &claims()));
    let stranger = issuer::bearer(&keys.token("ES256", &with("sub", json!("nobody"))));
    let bad = issuer::bearer("e30.e30.AAAA");
    let nothing: &[(&str, &str)] = &[];
    let unknown = make_key("live", [9; 16]);
    for (path, shown, expected) in [
        ("/public", nothing, 200),
        ("/public", &[("authorization", &*bad)], 200),
        ("/plain", nothing, 401),
        ("/plain", &[("authorization", &*ann)], 200),
        ("/keyed", &[("x-api-key", &*one)], 200),
        ("/keyed", &[("x-api-key", &*unknown)], 401),
        ("/keyed", &[("authorization", &*ann)], 401),
        ("/either", nothing, 401),
        ("/either", &[("x-api-key", &*one)], 200),
        ("/either", &[("authorization", &*ann)], 200),
        (
            "/either",
            &[("authorization", &*ann), ("x-api-key", &*unknown)],
            200,
        ),
        ("/either", &[("authorization", &*bad)], 401),
        ("/both", &[("x-api-key", &*one)], 401),
        ("/both", &[("authorization", &*ann)], 401),
        (
            "/both",
            &[("authorization", &*ann), ("x-api-key", &*one)],
            200,
        ),
        (
            "/both",
            &[("authorization", &*stranger), ("x-api-key", &*one)],
            200,
        ),
        // Two consumers are nobody.
        (
            "/both",
            &[("authorization", &*ann), ("x-api-key", &*two)],
            401,
        ),
        ("/optional", nothing, 200),
        ("/optional", &[("authorization", &*ann)], 200),
        // Whoever shows something is not taken for nobody.
        ("/optional", &[("authorization", &*bad)], 401),
        (
            "/plain",
            &[("authorization", &*ann), ("authorization", &*bad)],
            401,
        ),
    ] {
        let answer = gateway.get(path, shown);
        assert_eq!(answer.status, expected, "{path} {shown:?}: {answer:?}");
    }
}

#[test]
fn unknown_keys_do_not_flood_the_issuer_and_a_new_key_counts_within_ten_seconds() {
    let (keys, new, service) = (Keys::new(), Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    let begun = Instant::now();
    let before = issuer.calls().len();
    for number in 0..100 {
        let header = json!({"alg": "ES256", "kid": format!("unknown-{number}")});
        let token = new.signed("ES256", &header, &claims());
        assert_eq!(gateway.show("/plain", &token).status, 401);
    }
    publish(&issuer, &new.jwks("-new"));
    let header = json!({"alg": "ES256", "kid": "p256-new"});
    let token = new.signed("ES256", &header, &claims());
    eventually("the new key counts", || {
        gateway.show("/plain", &token).status == 200
    });
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        issuer.calls().len() - before <= 2,
        "{}",
        issuer.calls().len()
    );
    // The old keys are gone, with what was verified by them.
    let old = keys.token("ES256", &claims());
    assert_eq!(gateway.show("/plain", &old).status, 401);
}

#[test]
fn an_issuer_away_at_the_start_stops_only_what_needs_it() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = Service::answering(|_, stream| {
        use std::io::Write as _;
        let _gone = stream.write_all(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n");
        Then::Continue
    });
    let gateway = start(&issuer, &service);
    let token = keys.token("RS256", &claims());
    gateway
        .show("/plain", &token)
        .is_problem(503, "policy_unavailable");
    assert_eq!(gateway.get("/public", &[]).status, 200);
    assert_eq!(gateway.get("/optional", &[]).status, 200);
    assert_eq!(gateway.get("/plain", &[]).status, 401);
    // What is of nobody we know needs no keys to be refused.
    let foreign = keys.token("RS256", &with("iss", json!("https://evil.test")));
    assert_eq!(gateway.show("/plain", &foreign).status, 401);
    publish(&issuer, &keys.jwks(""));
    eventually("the issuer is back", || {
        gateway.show("/plain", &token).status == 200
    });
}

#[test]
fn an_issuer_that_goes_away_or_talks_nonsense_leaves_its_keys() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    let unknown = keys.signed("ES256", &json!({"alg": "ES256", "kid": "?"}), &claims());
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(1 << 20));
    for nonsense in [huge.as_str(), "<html>"] {
        publish(&issuer, nonsense);
        let asked = issuer.calls().len();
        // Somebody shows a key nobody knows: the keys are fetched again.
        assert_eq!(gateway.show("/plain", &unknown).status, 401);
        issuer.has_calls(asked + 1);
        eventually("the failure shows", || {
            gateway.metric("tollgate_issuer_keys_failed{api=\"books\",issuer=\"id\"}") == 1
        });
        let token = keys.token("RS256", &with("jti", json!(asked.to_string())));
        assert_eq!(gateway.show("/plain", &token).status, 200);
    }
    drop(issuer);
    assert_eq!(
        gateway
            .show("/plain", &keys.token("EdDSA", &claims()))
            .status,
        200
    );
}

#[test]
fn a_reload_keeps_the_keys() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    let token = keys.token("RS256", &claims());
    assert_eq!(gateway.show("/plain", &token).status, 200);
    publish(&issuer, "nothing of use");
    for more in ["networks: {deny: [192.0.2.0/24]}\n", "acl: []\n"] {
        let setting = Setting {
            spec: SPEC,
            api: &api(&issuer, more),
            consumers: "",
        };
        gateway.reload(&setting, &service);
        assert_eq!(gateway.show("/plain", &token).status, 200, "{more}");
    }
    // Other bounds, the same issuer.
    let bounded = api(&issuer, "").replace("leeway: 5s", "leeway: 5s\n      stale_for: 2h");
    let setting = Setting {
        spec: SPEC,
        api: &bounded,
        consumers: "",
    };
    gateway.reload(&setting, &service);
    assert_eq!(gateway.show("/plain", &token).status, 200);
}

#[test]
fn discovery_believes_only_the_document_of_its_issuer() {
    let (keys, service) = (Keys::new(), Service::new());
    for (claimed, usable) in [(true, true), (false, false)] {
        let issuer = publishing("");
        let url = issuer.url();
        let named = if claimed {
            url.clone()
        } else {
            "https://evil.test".to_owned()
        };
        let (jwks, document) = (
            keys.jwks(""),
            json!({"issuer": named, "jwks_uri": format!("{url}/keys")}).to_string(),
        );
        issuer.now(move |call, stream| {
            let found = call.target().ends_with("/openid-configuration");
            world::service::ok(stream, if found { &document } else { &jwks })
        });
        let api = format!(
            "auth:\n  subscription: off\n  issuers:\n    id: {{issuer: '{url}', audiences: [books], allow_private: on}}\n"
        );
        let setting = Setting {
            spec: SPEC,
            api: &api,
            consumers: "",
        };
        let gateway = setting.start(&service);
        let token = keys.token("RS256", &with("iss", json!(url)));
        if usable {
            eventually("keys are found", || {
                gateway.show("/plain", &token).status == 200
            });
        } else {
            issuer.has_calls(2);
            assert_eq!(gateway.show("/plain", &token).status, 503);
            assert!(
                issuer
                    .calls()
                    .iter()
                    .all(|call| !call.target().contains("keys"))
            );
            assert!(gateway.world.log().contains("of another issuer"));
        }
    }
}

#[test]
fn keys_are_not_fetched_from_private_addresses_unless_allowed() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let api = api(&issuer, "").replace("      allow_private: on\n", "");
    let setting = Setting {
        spec: SPEC,
        api: &api,
        consumers: "",
    };
    let gateway = setting.start(&service);
    eventually("the refusal is told", || {
        gateway.world.log().contains("private address")
    });
    assert_eq!(
        gateway
            .show("/plain", &keys.token("RS256", &claims()))
            .status,
        503
    );
    assert_eq!(issuer.calls().len(), 0);
}

#[test]
fn redirects_and_silence_of_an_issuer_are_no_keys() {
    let (keys, service) = (Keys::new(), Service::new());
    let elsewhere = publishing(&keys.jwks(""));
    let there = elsewhere.url();
    let redirecting = Service::answering(move |_, stream| {
        use std::io::Write as _;
        let answer =
            format!("HTTP/1.1 302 Found\r\nlocation: {there}/keys\r\ncontent-length: 0\r\n\r\n");
        let _gone = stream.write_all(answer.as_bytes());
        Then::Continue
    });
    let silent = Service::stalling();
    for issuer in [&redirecting, &silent] {
        let gateway = start(issuer, &service);
        eventually("it is asked", || issuer.connections() > 0);
        assert_eq!(
            gateway
                .show("/plain", &keys.token("RS256", &claims()))
                .status,
            503
        );
        assert_eq!(gateway.get("/public", &[]).status, 200);
    }
    assert_eq!(elsewhere.calls().len(), 0);
}

#[test]
fn claims_reach_the_service_and_a_clients_own_fields_do_not() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let forwarded = "  forward_claims: {sub: x-user, email: x-email, tenant: x-tenant}\n";
    let setting = Setting {
        spec: SPEC,
        api: &api(&issuer, forwarded),
        consumers: "",
    };
    let gateway = setting.start(&service);
    has_keys(&gateway);
    let mut claims = with("email", json!("ann@books.test\r\nx-admin: yes"));
    claims["tenant"] = json!(7);
    let shown = issuer::bearer(&keys.token("ES256", &claims));
    let fields = [
        ("authorization", &*shown),
        ("x-user", "root"),
        ("x-email", "root@books.test"),
        ("x-tenant", "1"),
        ("x-tollgate-consumer", "root"),
    ];
    assert_eq!(gateway.get("/plain", &fields).status, 200);
    let call = service.last();
    assert_eq!(call.all("x-user"), ["ann"], "{call:?}");
    assert_eq!(call.all("x-tenant"), ["7"]);
    for absent in ["x-email", "x-admin", "x-tollgate-consumer", "authorization"] {
        assert!(call.all(absent).is_empty(), "{absent}: {call:?}");
    }
}

#[test]
fn a_revoked_token_is_refused_within_a_second() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let setting = Setting {
        spec: SPEC,
        api: &api(&issuer, ""),
        consumers: "",
    };
    let gateway = setting.start(&service);
    has_keys(&gateway);
    let token = |id: &str, sub: &str| {
        let mut claims = with("jti", json!(id));
        claims["sub"] = json!(sub);
        claims["iat"] = json!(now() - 10);
        keys.token("ES256", &claims)
    };
    let (stolen, kept, bobs) = (token("a", "ann"), token("b", "ann"), token("c", "bob"));
    for token in [&stolen, &kept, &bobs] {
        assert_eq!(gateway.show("/plain", token).status, 200);
    }
    let revoke = |body: Value| {
        assert_eq!(gateway.administer("/v1/revocations", &body), 201);
        Instant::now()
    };
    let refused = |token: &str, since: Instant| {
        eventually("it is refused", || {
            gateway.show("/plain", token).status == 401
        });
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "{:?}",
            since.elapsed()
        );
    };
    let since = revoke(json!({"kind": "token", "issuer": ISSUER, "id": "a"}));
    refused(&stolen, since);
    assert_eq!(gateway.show("/plain", &kept).status, 200);
    let since = revoke(json!({"kind": "subject", "issuer": ISSUER, "subject": "bob"}));
    refused(&bobs, since);
    assert_eq!(gateway.show("/plain", &kept).status, 200);
    // Also one that was never seen before.
    assert_eq!(gateway.show("/plain", &token("d", "bob")).status, 401);
}

#[test]
fn many_genuine_tokens_of_clients_nobody_knows_are_not_held_against_their_source() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    for number in 0..100 {
        let token = keys.token("ES256", &with("sub", json!(format!("user-{number}"))));
        assert_eq!(gateway.show("/plain", &token).status, 200, "{number}");
    }
}

#[test]
fn an_issuer_that_the_description_names_is_believed() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let scheme = json!({"type": "http", "scheme": "bearer", "x-google-issuer": ISSUER,
        "x-google-jwks_uri": format!("{}/keys", issuer.url()), "x-google-audiences": "books"});
    let mut spec: Value = serde_json::from_str(SPEC).unwrap();
    spec["components"]["securitySchemes"]["jwt"] = scheme;
    let spec = spec.to_string();
    let setting = Setting {
        spec: &spec,
        api: "auth: {subscription: off}\n",
        consumers: "",
    };
    let gateway = setting.start(&service);
    let token = keys.token("RS256", &claims());
    // A description may not lead the gateway to private addresses; that it was tried shows whose keys count.
    eventually("the keys are looked for", || {
        gateway.world.log().contains("private address")
    });
    assert_eq!(gateway.show("/plain", &token).status, 503);
    let foreign = keys.token("RS256", &with("iss", json!("https://evil.test")));
    assert_eq!(gateway.show("/plain", &foreign).status, 401);
}

#[test]
fn a_deleted_consumer_is_not_a_client_without_one() {
    let (keys, service) = (Keys::new(), Service::new());
    let issuer = publishing(&keys.jwks(""));
    let gateway = ready(&issuer, &service);
    let token = keys.token("ES256", &claims());
    let made = |path: &str, body: &serde_json::Value| {
        let answer = gateway.world.ask_control("POST", path, body);
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    made("/v1/organisations", &json!({ "name": "shops" }));
    made(
        "/v1/projects",
        &json!({ "name": "web", "organisation": "shops" }),
    );
    let login = json!({ "issuer": "https://id.test", "client": "ann" });
    let consumer = |name: &str| json!({ "name": name, "project": "web", "logins": [login] });
    made("/v1/consumers", &consumer("ann"));
    assert_eq!(gateway.show("/plain", &token).status, 200);
    let deleted = gateway
        .world
        .ask_control("DELETE", "/v1/consumers/ann", &json!(null));
    assert_eq!(deleted.status, 204);
    gateway
        .show("/plain", &token)
        .is_problem(403, "consumer_suspended");
    made("/v1/consumers", &consumer("bob"));
    assert_eq!(gateway.show("/plain", &token).status, 200);
}
