//! Mistakes in `auth` and their messages; what issuers and schemes mean.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "tests"
)]

use super::super::tests::{Files, LONG, Row};
use super::*;
use crate::finding::Severity;

const RIGHT: &str =
    "auth:\n  issuers:\n    id:\n      issuer: https://id.example.com\n      audiences: [books]\n";

#[test]
fn a_mistake_in_auth_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        ("auth: on", 3, 7, "wrong-shape", &["`auth`", "subscription"]),
        (
            "auth: {subscriptions: off}",
            3,
            8,
            "unknown-field",
            &["did you mean `subscription`?"],
        ),
        (
            "auth: {subscription: always}",
            3,
            22,
            "bad-value",
            &["consumers, required and off"],
        ),
        (
            "auth: {forward_credentials: some}",
            3,
            29,
            "bad-value",
            &["no switch"],
        ),
        (
            "auth: {issuers: {id: {}}}",
            3,
            22,
            "missing-field",
            &["`auth.issuers.id", "`issuer` is missing"],
        ),
        (
            "auth: {issuers: {ID: {issuer: 'https://a', audiences: [b]}}}",
            3,
            18,
            "bad-value",
            &["`ID` cannot be a name"],
        ),
        (
            "auth: {schemes: {jwt: {issuers: [id]}}}",
            3,
            34,
            "bad-value",
            &["`id` is no issuer of this API", "auth.issuers"],
        ),
        (
            "auth: {schemes: {jwt: {issuers: []}}}",
            3,
            18,
            "bad-value",
            &["`auth.schemes.jwt.issuers`: is empty"],
        ),
        (
            "auth: {schemes: {tls: {certificates: ['a*b']}}}",
            3,
            39,
            "bad-value",
            &["not at its end"],
        ),
        (
            "auth: {schemes: {tls: {certs: [a]}}}",
            3,
            24,
            "unknown-field",
            &["did you mean `certificates`?"],
        ),
        (
            "auth: {forward_claims: {sub: Host}}",
            3,
            30,
            "bad-value",
            &["`Host` has a meaning of its own"],
        ),
        (
            "auth: {forward_claims: {sub: Connection}}",
            3,
            30,
            "bad-value",
            &["meaning of its own"],
        ),
        (
            "auth: {forward_claims: {sub: x-tollgate-user}}",
            3,
            30,
            "bad-value",
            &["meaning of its own"],
        ),
        (
            "auth: {forward_claims: {sub: X-Forwarded-User}}",
            3,
            30,
            "bad-value",
            &["meaning of its own"],
        ),
        (
            "auth: {forward_claims: {sub: x_user}}",
            3,
            30,
            "bad-value",
            &["cannot be a header field"],
        ),
        (
            "auth: {forward_claims: {sub: 'x-us er'}}",
            3,
            30,
            "bad-value",
            &["cannot be a header field"],
        ),
        (
            "auth: {forward_claims: {'a b': x-user}}",
            3,
            25,
            "bad-value",
            &["no single word"],
        ),
        (
            "auth: {forward_claims: {email: x-user, sub: X-User}}",
            3,
            45,
            "bad-value",
            &["`x-user` is filled by `email` already"],
        ),
    ];
    Files::new().expect_api(table);
}

#[test]
fn a_mistake_in_an_issuer_is_told_with_its_place_and_a_remedy() {
    // Each text follows the five lines of `RIGHT`, which follow two of the API.
    let table: &[Row<'_>] = &[
        (
            "issuers: x",
            8,
            7,
            "unknown-field",
            &["did you mean `issuer`?"],
        ),
        (
            "algorithms: [RS256, none]",
            8,
            27,
            "bad-value",
            &["`none` is no algorithm", "ES256"],
        ),
        (
            "algorithms: [HS256]",
            8,
            20,
            "bad-value",
            &["HS256 needs a shared secret"],
        ),
        (
            "algorithms: []",
            6,
            15,
            "bad-value",
            &["`auth.issuers.id.algorithms`: is empty"],
        ),
        (
            "jwks: http://id.example.com/keys",
            8,
            13,
            "bad-value",
            &["is not protected", "https://"],
        ),
        (
            "jwks: ftp://id.example.com/keys",
            8,
            13,
            "bad-value",
            &["no URL we can ask"],
        ),
        (
            "jwks: nothing.json",
            8,
            13,
            "unreadable-key",
            &["no keys can be read from", "nothing.json", "JWKS or PEM"],
        ),
        (
            "jwks: file:empty.json",
            8,
            13,
            "bad-value",
            &["without `file:`"],
        ),
        (
            "jwks: empty.json",
            8,
            13,
            "unreadable-key",
            &["its `keys` are empty"],
        ),
        (
            "jwks: text.txt",
            8,
            13,
            "unreadable-key",
            &["neither PEM nor JWKS"],
        ),
        (
            "jwks: private.pem",
            8,
            13,
            "unreadable-key",
            &["private key"],
        ),
        (
            "jwks: list.json",
            8,
            13,
            "unreadable-key",
            &["no list `keys`"],
        ),
        (
            "secret: 0123456789abcdef0123456789abcdef",
            8,
            15,
            "literal-secret",
            &["must not stand in a file", "${NAME}"],
        ),
        (
            "secret: x${LONG}",
            8,
            15,
            "literal-secret",
            &["must not stand in a file"],
        ),
        (
            "secret: ${EMPTY}",
            8,
            15,
            "bad-value",
            &["the secret is empty"],
        ),
        (
            "secret: ${SHORT}",
            8,
            15,
            "bad-value",
            &["shorter than 32 bytes"],
        ),
        (
            "secret: ${NOWHERE}",
            8,
            15,
            "bad-reference",
            &["`NOWHERE` is not set"],
        ),
        (
            "secret: ${LONG}\n      jwks: discovery",
            9,
            13,
            "bad-value",
            &["stands beside `secret`"],
        ),
        (
            "secret: ${LONG}\n      algorithms: [HS256, RS256]",
            9,
            27,
            "bad-value",
            &["RS256 needs public keys"],
        ),
        (
            "leeway: 6m",
            8,
            15,
            "bad-value",
            &["expired tokens live on", "at most 5m"],
        ),
        ("leeway: 30", 8, 15, "bad-value", &["no duration"]),
        ("stale_for: 8d", 8, 18, "bad-value", &["longer than a week"]),
        ("allow_private: maybe", 8, 22, "bad-value", &["no switch"]),
        (
            "client_claims: []",
            5,
            5,
            "bad-value",
            &["`auth.issuers.id.client_claims`: is empty"],
        ),
        ("role_claims: ['']", 8, 21, "bad-value", &["no single word"]),
        (
            "introspection: {url: 'https://a'}",
            8,
            22,
            "missing-field",
            &["`client_id` is missing"],
        ),
        (
            "introspection: {url: 'http://a', client_id: b, client_secret: '${LONG}'}",
            8,
            28,
            "bad-value",
            &["is not protected"],
        ),
        (
            "introspection: {url: 'https://a', client_id: b, client_secret: c}",
            8,
            70,
            "literal-secret",
            &["introspection.client_secret"],
        ),
        (
            "introspection: {url: 'https://a', client_id: b, client_secret: '${LONG}', deadline: off}",
            8,
            91,
            "bad-value",
            &["no duration"],
        ),
        (
            "introspection: {url: 'https://a', client_id: b, client_secret: '${LONG}', cache: x}",
            8,
            88,
            "bad-value",
            &["`x` is no duration"],
        ),
    ];
    let files = Files::new();
    files.write("empty.json", r#"{"keys": []}"#);
    files.write("list.json", "[]");
    files.write("text.txt", "hello");
    files.write("private.pem", "-----BEGIN PRIVATE KEY-----\n");
    for (text, line, column, code, words) in table {
        let whole = format!("{RIGHT}      {text}");
        files.expect_api(&[(&whole, *line, *column, code, words)]);
    }
}

#[test]
fn a_secret_is_never_quoted() {
    let files = Files::new();
    for value in ["hunter2hunter2hunter2hunter2hunter2", "${SHORT}"] {
        let whole =
            format!("spec: spec.yaml\nupstream: http://a:1\n{RIGHT}      secret: {value}\n");
        let findings = files.api(&whole).unwrap_err();
        assert!(!format!("{findings:?}").contains("hunter2"), "{findings:?}");
    }
}

#[test]
fn two_issuers_of_one_name_are_a_mistake() {
    let two = "auth:\n  issuers:\n    a: {issuer: 'https://id', audiences: [x]}\n    b: {issuer: 'https://id', audiences: [y]}";
    let words: &[&str] = &["is the issuer `a` already"];
    Files::new().expect_api(&[(two, 6, 17, "bad-value", words)]);
}

#[test]
fn an_issuer_that_says_little_means_the_defaults() {
    let files = Files::new();
    let api = files.meant(RIGHT);
    let issuer = &api.auth.issuers["id"];
    let discovery = "https://id.example.com/.well-known/openid-configuration";
    assert_eq!(issuer.keys, KeySource::Discovery(discovery.into()));
    assert_eq!(issuer.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
    assert_eq!(issuer.leeway, Duration::from_secs(30));
    assert_eq!(issuer.stale_for, Duration::from_secs(86_400));
    assert!(!issuer.allow_private && issuer.introspection.is_none());
    assert_eq!(
        issuer.client_claims,
        ["azp".into(), "client_id".into(), Arc::<str>::from("sub")]
    );
    assert_eq!((issuer.place.line, issuer.place.column), (5, 5));
    assert_eq!(api.auth.subscription, SubscriptionMode::Consumers);
    assert!(!api.auth.forward_credentials);
}

#[test]
fn keys_come_from_where_the_file_says() {
    let files = Files::new();
    files.write("keys.json", r#"{"keys": [{"kty": "EC"}]}"#);
    files.write("keys.pem", "-----BEGIN PUBLIC KEY-----\n");
    let keys = |text: &str| {
        let api = files.meant(&format!("{RIGHT}      {text}"));
        api.auth.issuers["id"].keys.clone()
    };
    let discovery = |url: &str| KeySource::Discovery(url.into());
    assert_eq!(
        keys("jwks: discovery"),
        discovery("https://id.example.com/.well-known/openid-configuration")
    );
    let elsewhere = "https://login.example.com/t/.well-known/openid-configuration";
    assert_eq!(keys(&format!("jwks: {elsewhere}")), discovery(elsewhere));
    let url = "https://id.example.com/keys";
    assert_eq!(keys(&format!("jwks: {url}")), KeySource::Url(url.into()));
    let near = "http://127.0.0.1:8080/keys";
    assert_eq!(keys(&format!("jwks: {near}")), KeySource::Url(near.into()));
    let inside = "http://keys.internal/keys";
    assert_eq!(
        keys(&format!("jwks: {inside}\n      allow_private: on")),
        KeySource::Url(inside.into())
    );
    for name in ["keys.json", "keys.pem"] {
        let path = files.path().join(name);
        assert_eq!(keys(&format!("jwks: {name}")), KeySource::File(path));
    }
    assert!(
        matches!(keys("secret: ${LONG}"), KeySource::Secret(secret) if secret.reveal() == LONG)
    );
}

#[test]
fn what_is_written_of_auth_is_what_is_meant() {
    let files = Files::new();
    let api = files.meant(
        "auth:
  subscription: required
  forward_credentials: on
  issuers:
    shop:
      issuer: shop
      audiences: [books, 'https://books.example.com']
      algorithms: [HS512, HS384]
      secret: ${LONG}
      leeway: off
      stale_for: 1h
      client_claims: [client]
      scope_claims: [permissions]
      role_claims: [realm_access.roles]
      introspection: { url: 'https://id/introspect', client_id: tollgate, client_secret: '${LONG}', cache: off, deadline: 1s }
  schemes:
    jwt: { issuers: [shop] }
    tls: { certificates: ['spiffe://example.com/*'] }
    other:
  forward_claims: { sub: X-User, email: x-mail }",
    );
    let auth = &api.auth;
    assert_eq!(auth.subscription, SubscriptionMode::Required);
    assert!(auth.forward_credentials);
    let issuer = &auth.issuers["shop"];
    assert_eq!(issuer.algorithms, [Algorithm::Hs384, Algorithm::Hs512]);
    assert_eq!(
        (issuer.leeway, issuer.stale_for),
        (Duration::ZERO, Duration::from_secs(3_600))
    );
    assert_eq!(issuer.role_claims, [Arc::<str>::from("realm_access.roles")]);
    let asked = issuer.introspection.as_ref().unwrap();
    assert_eq!(
        (asked.cache, asked.deadline),
        (Duration::ZERO, Duration::from_secs(1))
    );
    assert_eq!(auth.schemes["jwt"].issuers, [Arc::<str>::from("shop")]);
    assert_eq!(
        auth.schemes["tls"].certificates,
        [Arc::<str>::from("spiffe://example.com/*")]
    );
    let place = auth.schemes["other"].place.clone();
    assert_eq!(place.as_ref().map(|at| (at.line, at.column)), Some((21, 5)));
    assert_eq!(
        auth.schemes["other"],
        SchemeConfig {
            place,
            ..SchemeConfig::default()
        }
    );
    let forwarded: Vec<_> = auth
        .forward_claims
        .iter()
        .map(|(a, b)| (&**a, &**b))
        .collect();
    assert_eq!(forwarded, [("email", "x-mail"), ("sub", "x-user")]);
}

#[test]
fn what_is_only_doubtful_is_a_warning_and_is_served() {
    let files = Files::new();
    let any = "auth: {issuers: {id: {issuer: 'https://id.example.com'}}}";
    files.meant(any);
    assert_eq!(files.checked(any), [(Severity::Warning, "no-audience")]);
    let off = "security: off\nacl: [{name: a, effect: deny}]";
    files.meant(off);
    assert_eq!(files.checked(off), [(Severity::Warning, "security-off")]);
    let strange = "auth: {schemes: {jwt: {}}}";
    files.meant(strange);
    assert_eq!(
        files.checked(strange),
        [(Severity::Warning, "unknown-scheme")]
    );
}
