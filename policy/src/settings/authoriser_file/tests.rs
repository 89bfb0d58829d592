//! Mistakes in `authoriser` and their messages; what it means.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "tests"
)]

use super::super::tests::{Files, Row};
use super::*;

#[test]
fn a_mistake_in_an_authoriser_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        (
            "authoriser: http://opa:8181",
            3,
            13,
            "wrong-shape",
            &["`authoriser`", "grpc, http"],
        ),
        (
            "authoriser: {}",
            3,
            1,
            "missing-field",
            &["names nobody to ask"],
        ),
        (
            "authoriser: {grpc: 'h2c://a:1', http: 'http://a:2'}",
            3,
            39,
            "bad-value",
            &["stands beside `grpc`"],
        ),
        (
            "authoriser: {grpc: 'a:1'}",
            3,
            20,
            "bad-value",
            &["no address of a gRPC service"],
        ),
        (
            "authoriser: {grpc: 'h2c://a:1/path'}",
            3,
            20,
            "bad-value",
            &["without a path"],
        ),
        (
            "authoriser: {http: 'h2c://a:1'}",
            3,
            20,
            "bad-value",
            &["no address of an HTTP service"],
        ),
        (
            "authoriser: {http: 'http://a?x'}",
            3,
            20,
            "bad-value",
            &["without a query"],
        ),
        (
            "authoriser: {http: 'http://a', deadline: 1m}",
            3,
            42,
            "bad-value",
            &["longer than callers wait"],
        ),
        (
            "authoriser: {http: 'http://a', deadline: off}",
            3,
            42,
            "bad-value",
            &["no duration"],
        ),
        (
            "authoriser: {http: 'http://a', failure: open}",
            3,
            41,
            "bad-value",
            &["fail_open, degraded and fail_closed"],
        ),
        (
            "authoriser: {http: 'http://a', failure: degraded}",
            3,
            41,
            "bad-value",
            &["needs `stale_ok`"],
        ),
        (
            "authoriser: {http: 'http://a', stale_ok: 5m}",
            3,
            42,
            "bad-value",
            &["only with `failure: degraded`"],
        ),
        (
            "authoriser: {http: 'http://a', failure: degraded, stale_ok: 5m}",
            3,
            61,
            "bad-value",
            &["nothing without `vary`"],
        ),
        (
            "authoriser: {http: 'http://a', cache: 5s}",
            3,
            39,
            "bad-value",
            &["nothing without `vary`"],
        ),
        (
            "authoriser: {http: 'http://a', vary: [body]}",
            3,
            39,
            "bad-value",
            &["header:NAME"],
        ),
        (
            "authoriser: {http: 'http://a', vary: ['header:a b']}",
            3,
            39,
            "bad-value",
            &["cannot be a header field"],
        ),
        (
            "authoriser: {http: 'http://a', headers: ['']}",
            3,
            42,
            "bad-value",
            &["cannot be a header field"],
        ),
        (
            "authoriser: {http: 'http://a', timeout: 1s}",
            3,
            32,
            "unknown-field",
            &["fields here", "deadline"],
        ),
        (
            "authoriser: {http: 'http://a', shadow: x}",
            3,
            40,
            "bad-value",
            &["no switch"],
        ),
    ];
    Files::new().expect_api(table);
}

#[test]
fn an_authoriser_that_says_little_means_the_defaults() {
    let files = Files::new();
    let api = files.meant("authoriser: {http: 'http://opa:8181/v1/'}");
    let it = api.authoriser.unwrap();
    assert_eq!(
        (it.transport, &*it.url),
        (AuthoriserTransport::Http, "http://opa:8181/v1")
    );
    assert_eq!(
        (it.deadline, it.failure),
        (DEADLINE, FailureMode::FailClosed)
    );
    assert!(it.cache.is_zero() && it.stale_ok.is_zero() && !it.shadow);
    assert_eq!((it.place.line, it.place.column), (3, 1));
}

#[test]
fn what_is_written_of_an_authoriser_is_what_is_meant() {
    let files = Files::new();
    let written = "authoriser:
  grpc: http://opa:9191
  deadline: 50ms
  failure: degraded
  cache: 10s
  stale_ok: 5m
  vary: [consumer, operation, method, path, client, 'header:X-Tenant']
  headers: [X-Tenant]
  shadow: on";
    let it = files.meant(written).authoriser.unwrap();
    assert_eq!(
        (it.transport, &*it.url),
        (AuthoriserTransport::Grpc, "h2c://opa:9191")
    );
    assert_eq!(
        (it.deadline, it.failure),
        (Duration::from_millis(50), FailureMode::Degraded)
    );
    assert_eq!(
        (it.cache, it.stale_ok),
        (Duration::from_secs(10), Duration::from_secs(300))
    );
    assert_eq!(
        (it.vary.len(), &*it.vary[5], &*it.headers[0]),
        (6, "header:x-tenant", "x-tenant")
    );
    assert!(it.shadow);
    let secure = files
        .meant("authoriser: {grpc: 'grpcs://opa'}")
        .authoriser
        .unwrap();
    assert_eq!(&*secure.url, "h2://opa");
}
