//! Mistakes in settings and their messages; values and what they mean.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "tests"
)]

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::upstream_file::{plain, target};
use super::*;
use crate::finding::{Finding, Severity};
use crate::openapi;

/// A directory with a description and the files under test.
pub(super) struct Files(tempfile::TempDir);

const DESCRIPTION: &str = "openapi: 3.1.0\ninfo: {title: T, version: '1'}\npaths:\n  /books:\n    get:\n      operationId: listBooks\n      responses: {}\n";

/// Of tests, where descriptors are not read: an API of those alone has one operation of ours.
pub(super) fn described(config: &ApiConfig) -> Result<openapi::Description, Vec<Finding>> {
    match &config.spec {
        Some(spec) => openapi::load(spec),
        None => openapi::load_text("descriptors", DESCRIPTION),
    }
}

impl Files {
    /// Rows over an API file, each after two lines that are right.
    pub(super) fn expect_api(&self, table: &[Row<'_>]) {
        for (text, line, column, code, words) in table {
            let whole = format!("spec: spec.yaml\nupstream: http://a:1\n{text}\n");
            expect((&whole, *line, *column, code, words), self.api(&whole));
        }
    }

    /// The meaning of lines of an API file.
    pub(super) fn meant(&self, text: &str) -> ApiConfig {
        self.api(&format!("spec: spec.yaml\nupstream: http://a:1\n{text}\n"))
            .unwrap()
    }

    /// What `check` says of lines of an API file: severity and code.
    pub(super) fn checked(&self, text: &str) -> Vec<(Severity, &'static str)> {
        let whole = format!("spec: spec.yaml\nupstream: http://a:1\n{text}\n");
        let report = check::check(&self.write("api.yaml", &whole), &environment, &described);
        report
            .findings
            .iter()
            .map(|it| (it.severity, it.code))
            .collect()
    }

    pub(super) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    pub(super) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("spec.yaml", DESCRIPTION);
        files
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn api(&self, text: &str) -> Result<ApiConfig, Vec<Finding>> {
        read_api(&self.write("api.yaml", text), &environment)
    }

    pub(super) fn process(&self, text: &str) -> Result<ProcessConfig, Vec<Finding>> {
        let unsaid = ProcessConfig::default_for(1, "state".into());
        read_process(&self.write("tollgate.yaml", text), unsaid, &environment)
    }
}

/// A secret of 64 bytes.
pub(super) const LONG: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The hash of a password.
const HASH: &str = "$argon2id$v=19$m=65536,t=2,p=1$gZiV/M1gPc22ElAH/Jh1Hw$CWOrkoo7oJBQ/iyh7uJ0LO2aLEfrHwTWllSAxT0zRno";

pub(super) fn environment(name: &str) -> Option<String> {
    let value = match name {
        "SERVICE" => "http://service:9000",
        "LONG" => LONG,
        "SHORT" => "hunter2",
        "EMPTY" => "",
        "HASH" => HASH,
        "KEY_A" => "tg_test_aaaaaaaaaaaaaaaaaaaaaa",
        "KEY_B" => "tg_test_bbbbbbbbbbbbbbbbbbbbbb",
        _ => return None,
    };
    Some(value.to_owned())
}

/// Line, column, code, and words of the message.
pub(super) type Row<'a> = (&'a str, u32, u32, &'a str, &'a [&'a str]);

pub(super) fn expect<T: std::fmt::Debug>(row: Row<'_>, read: Result<T, Vec<Finding>>) {
    let (text, line, column, code, words) = row;
    let findings = read.expect_err(text);
    let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let place = (findings[0].place.line, findings[0].place.column);
    assert_eq!(place, (line, column), "{text}\n{told:?}");
    assert_eq!(findings[0].code, code, "{text}\n{told:?}");
    for word in words {
        assert!(told[0].contains(word), "{word}: {text}\n{told:?}");
    }
    assert!(findings.iter().all(|it| !it.remedy.is_empty()), "{told:?}");
}

#[test]
fn a_mistake_in_an_api_file_is_told_with_its_place_and_a_remedy() {
    // Each text follows two lines that are right.
    let table: &[Row<'_>] = &[
        (
            "base_pth: /v1",
            3,
            1,
            "unknown-field",
            &["`base_pth`", "did you mean `base_path`?"],
        ),
        (
            "zzz: 1",
            3,
            1,
            "unknown-field",
            &["fields here: spec, hosts"],
        ),
        (
            "hosts: a.example",
            3,
            8,
            "wrong-shape",
            &["`hosts`: expected a list"],
        ),
        (
            "hosts: [a.example, 'a:80']",
            3,
            20,
            "bad-value",
            &["`hosts`: `a:80`"],
        ),
        (
            "hosts: ['http://a']",
            3,
            9,
            "bad-value",
            &["without scheme"],
        ),
        ("hosts: ['*']", 3, 9, "bad-value", &["`*` is no host name"]),
        ("hosts: ['a.*.b']", 3, 9, "bad-value", &["`a.*.b`"]),
        ("hosts: ['']", 3, 9, "bad-value", &["is no host name"]),
        (
            "hosts: [[a]]",
            3,
            9,
            "wrong-shape",
            &["found a list, expected a single value"],
        ),
        ("base_path: v1", 3, 12, "bad-value", &["leading slash"]),
        ("base_path: /a//b", 3, 12, "bad-value", &["`/a//b`"]),
        (
            "base_path: /a/../b",
            3,
            12,
            "bad-value",
            &["no empty or dot segments"],
        ),
        ("base_path: /a%2Fb", 3, 12, "bad-value", &["no escapes"]),
        (
            "security: none",
            3,
            11,
            "bad-value",
            &["neither enforce nor off"],
        ),
        (
            "security: off\nsecurity: off",
            4,
            1,
            "duplicate-key",
            &["first in line 3"],
        ),
        (
            "rewrite: yes",
            3,
            10,
            "wrong-shape",
            &["`rewrite`", "its fields are host, base_path"],
        ),
        (
            "rewrite: {host: 'a b'}",
            3,
            17,
            "bad-value",
            &["`rewrite.host`"],
        ),
        (
            "rewrite: {hots: a}",
            3,
            11,
            "unknown-field",
            &["did you mean `host`?"],
        ),
        (
            "defaults: {retries: 4}",
            3,
            21,
            "bad-value",
            &["`defaults.retries`", "from 0 to 3"],
        ),
        (
            "defaults: {max_body: 1MB}",
            3,
            22,
            "bad-value",
            &["`1MB` is no size", "MiB"],
        ),
        (
            "defaults: {upgrade: [h2c]}",
            3,
            22,
            "bad-value",
            &["write websocket"],
        ),
        (
            "operations: {getBook: {timeouts: {total: 1d}}}",
            3,
            42,
            "bad-value",
            &["`operations.getBook.timeouts.total`", "250ms, 30s, 5m, 1h"],
        ),
        (
            "operations: [getBook]",
            3,
            13,
            "wrong-shape",
            &["`operations`: expected a mapping"],
        ),
    ];
    let files = Files::new();
    for (text, line, column, code, words) in table {
        let whole = format!("spec: spec.yaml\nupstream: http://a:1\n{text}\n");
        expect((&whole, *line, *column, code, words), files.api(&whole));
    }
}

#[test]
fn a_mistake_in_an_upstream_is_told_with_its_place_and_a_remedy() {
    // Each text follows one line that is right.
    let table: &[Row<'_>] = &[
        ("", 0, 0, "missing-field", &["`upstream` is missing"]),
        (
            "upstream:",
            0,
            0,
            "missing-field",
            &["`upstream` is missing"],
        ),
        (
            "upstream: localhost:9000",
            2,
            11,
            "bad-value",
            &["is no upstream URL"],
        ),
        (
            "upstream: ftp://a",
            2,
            11,
            "bad-value",
            &["`ftp` is no scheme"],
        ),
        (
            "upstream: http://a/v1",
            2,
            11,
            "bad-value",
            &["has a path", "rewrite"],
        ),
        (
            "upstream: http://u:p@a",
            2,
            11,
            "bad-value",
            &["password", "leave it away"],
        ),
        (
            "upstream: http://a:0",
            2,
            11,
            "bad-value",
            &["`a:0` is no host and port"],
        ),
        (
            "upstream: http://a:65536",
            2,
            11,
            "bad-value",
            &["is no host and port"],
        ),
        (
            "upstream: unix:run/a.sock",
            2,
            11,
            "bad-value",
            &["no absolute socket path"],
        ),
        (
            "upstream: [http://a]",
            2,
            11,
            "wrong-shape",
            &["`upstream`", "found a list"],
        ),
        (
            "upstream: ${NOWHERE}",
            2,
            11,
            "bad-reference",
            &["`NOWHERE` is not set"],
        ),
        (
            "upstream: ${SERVICE",
            2,
            11,
            "bad-reference",
            &["without `}`"],
        ),
        (
            "upstream: file:nothing",
            2,
            11,
            "bad-reference",
            &["cannot read"],
        ),
        (
            "upstream: {}",
            0,
            0,
            "missing-field",
            &["`upstream.url` is missing"],
        ),
        (
            "upstream: {endpoints: []}",
            0,
            0,
            "bad-value",
            &["`upstream.endpoints` is empty"],
        ),
        (
            "upstream: {url: 'http://a', endpoints: ['http://b']}",
            2,
            17,
            "bad-value",
            &["keep one"],
        ),
        (
            "upstream: {endpoints: ['http://a', 'service://b']}",
            2,
            36,
            "bad-value",
            &["a service and addresses"],
        ),
        (
            "upstream: {url: 'service://orders', tls: {}}",
            2,
            17,
            "bad-value",
            &["remove `tls`"],
        ),
        (
            "upstream: 'service://orders:9080'",
            2,
            11,
            "bad-value",
            &["no name of a service"],
        ),
        (
            "upstream: {endpoints: ['http://a', 'h2c://b']}",
            2,
            36,
            "bad-value",
            &["same scheme"],
        ),
        (
            "upstream: {url: 'http://a', tls: {}}",
            2,
            17,
            "bad-value",
            &["has no TLS", "https://"],
        ),
        (
            "upstream: {url: 'http://a', keep_alive: 50}",
            2,
            41,
            "bad-value",
            &["is no duration"],
        ),
        (
            "upstream: {url: 'http://a', keep_alive: 0s}",
            2,
            41,
            "bad-value",
            &["longer than zero"],
        ),
        (
            "upstream: {url: 'http://a', keep_alive: 999h}",
            2,
            41,
            "bad-value",
            &["than a week"],
        ),
        (
            "upstream: {url: 'http://a', timeouts: {conect: 1s}}",
            2,
            40,
            "unknown-field",
            &["did you mean `connect`?"],
        ),
        (
            "upstream: {url: 'http://a', health_check: {interval: 1s}}",
            2,
            43,
            "missing-field",
            &["`upstream.health_check`: `path` is missing"],
        ),
        (
            "upstream: {url: 'http://a', health_check: {path: up}}",
            2,
            50,
            "bad-value",
            &["/healthz"],
        ),
    ];
    let files = Files::new();
    for (text, line, column, code, words) in table {
        let whole = format!("spec: spec.yaml\n{text}\n");
        expect((&whole, *line, *column, code, words), files.api(&whole));
    }
}

#[test]
fn a_mistake_in_tollgate_yaml_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        (
            "control: {api: everywhere}",
            1,
            16,
            "bad-value",
            &["`control.api`", "no address with port"],
        ),
        (
            "control: {port: 1}",
            1,
            11,
            "unknown-field",
            &["fields here: api"],
        ),
        (
            "listeners: [{address: 'a:1', tls: {certificates: [{cert: a, key: b}], client_ca: r, client_certificates: yes}}]",
            1,
            23,
            "bad-value",
            &["no address to listen on"],
        ),
        (
            "listeners: [{address: '[::]:1', tls: {certificates: [{cert: a, key: b}], client_certificates: must}}]",
            1,
            95,
            "bad-value",
            &[
                "`listeners.tls.client_certificates`",
                "off, optional and required",
            ],
        ),
        (
            "listeners: [{address: '[::]:1', tls: {certificates: [{cert: a, key: b}], client_certificates: required}}]",
            1,
            95,
            "bad-value",
            &["needs `client_ca`"],
        ),
        (
            "listenrs: []",
            1,
            1,
            "unknown-field",
            &["did you mean `listeners`?"],
        ),
        (
            "listeners: []",
            0,
            0,
            "bad-value",
            &["`listeners` is empty"],
        ),
        (
            "listeners: [0.0.0.0:80]",
            1,
            13,
            "wrong-shape",
            &["`listeners`", "its fields are address"],
        ),
        (
            "listeners: [{tls: {certificates: []}}]",
            1,
            13,
            "missing-field",
            &["`address` is missing"],
        ),
        (
            "listeners: [{address: 8080}]",
            1,
            23,
            "bad-value",
            &["`8080`", "address and port"],
        ),
        (
            "listeners: [{address: 'unix:a'}]",
            1,
            23,
            "bad-value",
            &["no absolute socket path"],
        ),
        (
            "listeners:\n  - address: 0.0.0.0:1\n  - address: 0.0.0.0:1",
            3,
            14,
            "bad-value",
            &["twice"],
        ),
        (
            "listeners: [{address: 0.0.0.0:1, tls: {certificates: []}}]",
            1,
            23,
            "bad-value",
            &["`listeners.tls.certificates`: is empty"],
        ),
        (
            "listeners: [{address: 0.0.0.0:1, tls: {certificates: [{cert: a}]}}]",
            1,
            55,
            "missing-field",
            &["`key` is missing"],
        ),
        (
            "listeners: [{address: 0.0.0.0:1, tls: {certificates: [{cert: a, key: b}], min_version: '1.1'}}]",
            1,
            88,
            "bad-value",
            &["`1.1` is no version"],
        ),
        (
            "listeners: [{address: 0.0.0.0:1, proxy_protocol_from: [10.0.0.1/8]}]",
            1,
            56,
            "bad-value",
            &["write 10.0.0.0/8"],
        ),
        (
            "admin: localhost:9900",
            1,
            8,
            "bad-value",
            &["write 127.0.0.1:9900"],
        ),
        ("workers: 0", 1, 10, "bad-value", &["from 1 to 1024"]),
        ("workers: two", 1, 10, "bad-value", &["`two`"]),
        (
            "drain_timeout: 1.5s",
            1,
            16,
            "bad-value",
            &["whole number and a unit"],
        ),
        ("trusted_hops: -1", 1, 15, "bad-value", &["from 0 to 16"]),
        (
            "fast_path: maybe",
            1,
            12,
            "bad-value",
            &["write `on` or `off`"],
        ),
        (
            "limits: [a]",
            1,
            9,
            "wrong-shape",
            &["`limits`: expected a mapping"],
        ),
        (
            "limits: {head_bytes: 100}",
            1,
            22,
            "bad-value",
            &["`limits.head_bytes`"],
        ),
        (
            "limits: {body_bytes: 0}",
            1,
            22,
            "bad-value",
            &["more than zero"],
        ),
        (
            "limits: {head_field: 1}",
            1,
            10,
            "unknown-field",
            &["did you mean `head_fields`?"],
        ),
        (
            "limits: {connections: 0}",
            1,
            23,
            "bad-value",
            &["`limits.connections`"],
        ),
        (
            "limits: {h2_streams: {}}",
            1,
            22,
            "wrong-shape",
            &["`limits.h2_streams`: found a mapping"],
        ),
        (
            "overload: {queue_delay: 1ms}",
            1,
            25,
            "bad-value",
            &["`overload.queue_delay`", "at least 5ms, or off"],
        ),
        (
            "overload: {requests_per_address: 0}",
            1,
            34,
            "bad-value",
            &["`overload.requests_per_address`"],
        ),
        (
            "overload: {exempt: [a/8]}",
            1,
            21,
            "bad-value",
            &["`overload.exempt`"],
        ),
        ("- a", 1, 1, "wrong-shape", &["expected a mapping"]),
    ];
    let files = Files::new();
    for row in table {
        expect(*row, files.process(row.0));
    }
}

#[test]
fn a_mistake_in_x_tollgate_is_told_with_its_place_and_a_remedy() {
    let table = [
        ("{retrys: 1}", 8, 20, "did you mean `retries`?"),
        ("{retries: 9}", 8, 29, "from 0 to 3"),
        ("{max_body: lots}", 8, 30, "is no size"),
        (
            "{priority: urgent}",
            8,
            30,
            "none of low, normal and critical",
        ),
        ("{upgrade: websocket}", 8, 29, "expected a list"),
        (
            "{timeouts: 1s}",
            8,
            30,
            "its fields are total, first_byte, idle",
        ),
        ("{timeouts: {total: 1}}", 8, 38, "is no duration"),
        (
            "{security: '${SERVICE}'}",
            8,
            30,
            "`${SERVICE}` is neither enforce nor off",
        ),
        ("[a]", 8, 19, "expected a mapping"),
    ];
    let files = Files::new();
    for (text, line, column, words) in table {
        let whole = format!("{DESCRIPTION}      x-tollgate: {text}\n");
        let findings = match openapi::load(&files.write("x.yaml", &whole)) {
            Ok(description) => description.findings,
            Err(findings) => findings,
        };
        let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
        let found = findings
            .iter()
            .find(|it| (it.place.line, it.place.column) == (line, column))
            .unwrap_or_else(|| panic!("{text}: {told:?}"));
        assert!(found.to_string().contains(words), "{text}: {told:?}");
        assert!(found.severity > Severity::Note);
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_in_its_order() {
    let text = "spec: nowhere.yaml\nhots: []\nupstream: ftp://a\nsecurity: never\n";
    let findings = Files::new().api(text).unwrap_err();
    let lines: Vec<_> = findings.iter().map(|it| it.place.line).collect();
    assert_eq!(lines, [1, 2, 3, 4]);
    assert!(findings[0].what.contains("there is no file"));
}

#[test]
fn a_file_name_that_is_no_name_of_an_api_is_refused() {
    let files = Files::new();
    let path = files.write("My_API.yaml", "spec: spec.yaml\nupstream: http://a\n");
    let findings = read_api(&path, &environment).unwrap_err();
    assert_eq!(findings[0].code, "bad-name");
}

#[test]
fn durations_mean_what_their_unit_says() {
    let table = [
        ("1ms", Some(1)),
        ("250ms", Some(250)),
        ("30s", Some(30_000)),
        ("5m", Some(300_000)),
        ("168h", Some(604_800_000)),
        ("169h", None),
        ("0s", None),
        ("", None),
        ("30", None),
        ("s", None),
        ("-1s", None),
        ("+1s", None),
        ("1 s", None),
        ("1S", None),
        ("1h30m", None),
        ("99999999999999999999s", None),
    ];
    for (text, milliseconds) in table {
        let expected = milliseconds.map(Duration::from_millis);
        assert_eq!(value::duration(text).ok(), expected, "{text}");
    }
}

#[test]
fn sizes_mean_what_their_unit_says() {
    let table = [
        ("500", Some(500)),
        ("500B", Some(500)),
        ("32KiB", Some(32 << 10)),
        ("8MiB", Some(8 << 20)),
        ("2GiB", Some(2 << 30)),
        ("0", None),
        ("1KB", None),
        ("1kib", None),
        ("1.5MiB", None),
        ("99999999999GiB", None),
    ];
    for (text, bytes) in table {
        assert_eq!(value::size(text).ok(), bytes, "{text}");
    }
}

#[test]
fn upstream_urls_say_protocol_tls_host_and_port() {
    use UpstreamProtocol::{Http1, Http2};
    let table = [
        ("http://a", Http1, false, "a", 80),
        (
            "HTTP://Service.Example:9000/",
            Http1,
            false,
            "service.example",
            9000,
        ),
        ("https://a", Http1, true, "a", 443),
        ("h2c://a", Http2, false, "a", 80),
        ("grpc://a:50051", Http2, false, "a", 50051),
        ("h2://a", Http2, true, "a", 443),
        ("grpcs://a:1", Http2, true, "a", 1),
        ("http://10.0.0.1:8", Http1, false, "10.0.0.1", 8),
        ("http://[::1]:8", Http1, false, "::1", 8),
        ("https://[fd00::1]", Http1, true, "fd00::1", 443),
        ("unix:/run/a.sock", Http1, false, "unix:/run/a.sock", 0),
        ("service://orders", Http1, false, "service:orders", 0),
        ("service+h2://orders/", Http2, false, "service:orders", 0),
        ("service+grpc://orders", Http2, false, "service:orders", 0),
    ];
    for (text, protocol, tls, host, port) in table {
        let upstream = plain(target(text).unwrap());
        let endpoint = EndpointConfig {
            host: host.into(),
            port,
        };
        assert_eq!(upstream.endpoints, [endpoint], "{text}");
        assert_eq!(
            (upstream.protocol, upstream.tls.is_some()),
            (protocol, tls),
            "{text}"
        );
    }
}

#[test]
fn networks_hold_what_their_prefix_says() {
    let table = [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ("192.0.2.7", "192.0.2.7", true),
        ("192.0.2.7", "192.0.2.8", false),
        ("0.0.0.0/0", "203.0.113.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("fd00::/8", "fdff::1", true),
        ("fd00::/8", "fe80::1", false),
        ("::/0", "2001:db8::1", true),
        ("2001:db8::1", "2001:db8::1", true),
    ];
    for (network, address, inside) in table {
        let held = value::network(network)
            .unwrap()
            .contains(address.parse().unwrap());
        assert_eq!(held, inside, "{network} {address}");
    }
    for wrong in [
        "",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "fd00::/129",
        "10.0.0/8",
        "a/8",
        "10.0.0.0/",
    ] {
        assert!(value::network(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn files_that_say_nothing_mean_the_defaults() {
    let files = Files::new();
    let unsaid = ProcessConfig::default_for(1, "state".into());
    for text in [
        "",
        "# nothing\n",
        "{}",
        "listeners:\nlimits: {}\nworkers:\n",
    ] {
        assert_eq!(files.process(text).unwrap(), unsaid, "{text}");
    }
    let api = files
        .api("spec: spec.yaml\nupstream: ${SERVICE}\n")
        .unwrap();
    let spec = files.0.path().join("spec.yaml");
    let mut plain =
        ApiConfig::for_spec(&spec, "http://service:9000", SecurityMode::Enforce).unwrap();
    (plain.name, plain.file) = ("api".into(), files.0.path().join("api.yaml"));
    assert_eq!(api, plain);
}

#[test]
fn what_is_written_is_what_is_meant() {
    let files = Files::new();
    let process = files
        .process(
            "state_dir: s\naccess_log: logs/a.json\nfast_path: off\nlimits: {body_bytes: 1KiB}\n",
        )
        .unwrap();
    assert_eq!(process.state_dir, files.0.path().join("s"));
    let log = files.0.path().join("logs/a.json");
    assert_eq!(process.access_log, AccessLogTarget::File(log));
    assert_eq!(
        (process.fast_path, process.limits.body_bytes),
        (false, 1024)
    );
    let process = files
        .process("overload: {requests_per_address: 7, failures_per_address: off, exempt: [], queue_delay: off}\n")
        .unwrap();
    let off = OverloadConfig {
        requests_per_address: NonZeroU32::new(7),
        failures_per_address: None,
        exempt: Vec::new(),
        queue_delay: None,
    };
    assert_eq!(process.overload, off);

    let api = files
        .api("spec: spec.yaml\nupstream: http://a\nhosts: [A.Example, '*.B.example']\nbase_path: /v1/\nrewrite: {host: upstream, base_path: /}\n")
        .unwrap();
    let hosts = [
        HostPattern::Exact("a.example".into()),
        HostPattern::Suffix(".b.example".into()),
    ];
    assert_eq!(api.hosts, hosts);
    assert_eq!(api.base_path.as_deref(), Some("/v1"));
    assert_eq!(api.rewrite.host, HostRewrite::Upstream);
    assert_eq!(api.rewrite.base_path.as_deref(), Some(""));
}

#[test]
fn an_operation_is_set_by_its_entry_then_the_files_defaults_then_the_description() {
    let files = Files::new();
    let api = files
        .api("spec: spec.yaml\nupstream: http://a\ndefaults: {retries: 2, max_body: 1MiB}\noperations: {GET /books: {retries: 0}}\n")
        .unwrap();
    let text = format!(
        "{DESCRIPTION}      x-tollgate: {{retries: 3, priority: critical, timeouts: {{idle: 9s}}}}\n"
    );
    let description = openapi::load(&files.write("x.yaml", &text)).unwrap();
    let settings = api.settings_for(&description.operations[0]);
    assert_eq!(settings.retries, Some(0));
    assert_eq!(settings.max_body, Some(1 << 20));
    assert_eq!(settings.idle, Some(Duration::from_secs(9)));
    assert_eq!(settings.priority, Some(Priority::Critical));
}

/// A pipe that nobody writes to.
fn pipe(files: &Files, name: &str) -> PathBuf {
    let path = files.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[test]
fn what_is_no_plain_file_or_too_large_is_refused_and_not_waited_for() {
    let files = Files::new();
    let unreadable = |found: Vec<Finding>, words: &str| {
        let [finding] = &*found else {
            panic!("{found:?}")
        };
        assert_eq!(finding.code, "unreadable-file");
        assert!(finding.what.contains(words), "{finding}");
    };
    let api = pipe(&files, "apis/books.yaml");
    let plain = "not a plain file";
    unreadable(read_api(&api, &environment).unwrap_err(), plain);
    unreadable(check::check(&api, &environment, &described).findings, plain);
    unreadable(
        check::check(files.path(), &environment, &described).findings,
        plain,
    );
    let directory = files.path().join("apis");
    unreadable(read_api(&directory, &environment).unwrap_err(), plain);
    let unsaid = || ProcessConfig::default_for(1, "state".into());
    let process = read_process(&api, unsaid(), &environment);
    unreadable(process.unwrap_err(), plain);
    for name in ["plans.yaml", "consumers.yaml", "terms.yaml"] {
        let files = Files::new();
        pipe(&files, name);
        unreadable(
            read_directory(files.path(), &environment).unwrap_err(),
            plain,
        );
    }
    let limit = usize::try_from(plain_file::MAX_SETTINGS).unwrap();
    let filled = |length: usize| {
        format!(
            "spec: spec.yaml\nupstream: http://a\n#{}",
            "a".repeat(length)
        )
    };
    let longest = limit - filled(0).len();
    assert!(files.api(&filled(longest)).is_ok());
    let too_large = files.api(&filled(longest + 1)).unwrap_err();
    unreadable(too_large, "more than 4194304 bytes");
    files.write("consumers.yaml", &format!("#{}", "a".repeat(limit)));
    assert!(read_directory(files.path(), &environment).is_ok());
}

#[test]
fn a_reference_leads_to_a_plain_file_only() {
    let files = Files::new();
    pipe(&files, "pipe");
    for path in ["/dev/zero", "pipe", "."] {
        let found = files.api(&format!(
            "spec: spec.yaml\nupstream: http://a\nhosts: ['file:{path}']\n"
        ));
        let found = found.unwrap_err();
        let [finding] = &*found else {
            panic!("{found:?}")
        };
        assert_eq!((finding.code, finding.place.line), ("bad-reference", 3));
        assert!(finding.what.contains("not a plain file"), "{finding}");
    }
}

#[test]
fn two_apis_with_the_same_host_and_base_path_are_a_conflict() {
    let files = Files::new();
    let api = "spec: ../spec.yaml\nupstream: http://a\n";
    files.write(
        "apis/one.yaml",
        &format!("{api}hosts: [A.example]\nbase_path: /v1\n"),
    );
    files.write(
        "apis/two.yaml",
        &format!("{api}hosts: [a.example]\nbase_path: /v1/\n"),
    );
    let report = check::check(files.0.path(), &environment, &described);
    let found: Vec<_> = report.findings.iter().map(|it| it.code).collect();
    assert_eq!(found, ["conflict"]);
    assert!(report.failed() && report.findings[0].place.file.ends_with("two.yaml"));
    files.write("apis/two.yaml", &format!("{api}hosts: [b.example]\n"));
    assert!(!check::check(files.0.path(), &environment, &described).failed());
}

#[test]
fn clients_are_asked_for_certificates_as_the_listener_says() {
    let files = Files::new();
    let client = |said: &str| {
        let text = format!(
            "listeners: [{{address: '[::]:1', tls: {{certificates: [{{cert: a, key: b}}]{said}}}}}]"
        );
        let process = files.process(&text).unwrap();
        process.listeners[0].tls.clone().unwrap().client
    };
    let roots = |required| {
        let roots = files.path().join("ca.pem");
        Some(ClientCertificates { roots, required })
    };
    assert_eq!(client(""), None);
    assert_eq!(client(", client_certificates: off"), None);
    assert_eq!(
        client(", client_ca: ca.pem, client_certificates: off"),
        None
    );
    assert_eq!(client(", client_ca: ca.pem"), roots(false));
    assert_eq!(
        client(", client_ca: ca.pem, client_certificates: optional"),
        roots(false)
    );
    assert_eq!(
        client(", client_ca: ca.pem, client_certificates: required"),
        roots(true)
    );
}

#[test]
fn the_operators_api_is_on_loopback_elsewhere_or_off() {
    let files = Files::new();
    let api = |text: &str| files.process(text).unwrap().control_api;
    assert_eq!(api(""), Some("127.0.0.1:9911".parse().unwrap()));
    assert_eq!(api("control:"), api(""));
    assert_eq!(
        api("control: {api: '[::1]:1'}"),
        Some("[::1]:1".parse().unwrap())
    );
    assert_eq!(api("control: {api: off}"), None);
}

#[test]
fn times_of_people_know_days_and_hours_know_the_clock() {
    let day = Duration::from_secs(24 * 3_600);
    assert_eq!(value::days("14d"), Ok(14 * day));
    assert_eq!(value::days("48h"), Ok(2 * day));
    assert_eq!(value::days("off"), Ok(Duration::ZERO));
    assert_eq!(value::days("0d"), Ok(Duration::ZERO));
    assert_eq!(value::days("3650d"), Ok(3_650 * day));
    for wrong in ["3651d", "d", "", "1w", "-1d", "99999999999999999999d"] {
        assert!(value::days(wrong).is_err(), "{wrong}");
    }
    for wrong in ["1d", "8d"] {
        assert!(value::duration(wrong).is_err(), "{wrong}");
    }
    assert_eq!(value::hours("08:00-18:30"), Ok((480, 1_110)));
    assert_eq!(value::hours("22:00-06:00"), Ok((1_320, 360)));
    assert_eq!(value::hours("00:00-24:00"), Ok((0, 1_440)));
    for wrong in [
        "8:00-18:00",
        "08:00",
        "08:00-08:00",
        "24:00-08:00",
        "08:00-24:01",
        "08:60-09:00",
        "+8:00-09:00",
    ] {
        assert!(value::hours(wrong).is_err(), "{wrong}");
    }
}
