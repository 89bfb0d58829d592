//! The assembled admission: any head against two APIs. It is admitted or refused, never anything else, and what is said of the
//! path agrees with a slow and obvious matcher.
//!
//! Input: `VERSION METHOD target` (the version `0`, `1` or `2`), then one field `name:value` a line.
#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use libfuzzer_sys::fuzz_target;
use pingora_http::RequestHeader;
use tollgate_gateway::api::Api;
use tollgate_gateway::apis::Apis;
use tollgate_gateway::denial::Denial;
use tollgate_gateway::journey::{Admitted, Journey, Peer, Shared};
use tollgate_gateway::request::Exchange;
use tollgate_gateway::telemetry::{AccessLog, Metrics};
use tollgate_policy::openapi;
use tollgate_policy::settings::{AccessLogTarget, ApiConfig, HostPattern, SecurityMode};

static SHARED: LazyLock<Arc<Shared>> = LazyLock::new(|| {
    let metrics = Metrics::new();
    let compile = |file: &str, security, hosts| {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(file);
        let mut config =
            ApiConfig::for_spec(&file, "http://127.0.0.1:9", security).expect("a good URL");
        config.hosts = hosts;
        let description = openapi::load(&file).expect("a readable file");
        let (api, _) =
            Api::compile(config, description, None, 1, None, &metrics).expect("a good API");
        Arc::new(api)
    };
    let odd_hosts = vec![HostPattern::Suffix(".odd.test".into())];
    let apis = vec![
        compile(
            "openapi-specs/bookstore.yaml",
            SecurityMode::Enforce,
            Vec::new(),
        ),
        compile(
            "policy/fixtures/classify-sample.yaml",
            SecurityMode::Off,
            odd_hosts,
        ),
    ];
    let log = AccessLog::start(&AccessLogTarget::Off, metrics.clone()).expect("no log");
    // A control plane that is away: nobody is known.
    let (control, _) = tollgate_proto::channel([0; 32]);
    let apis = Arc::new(ArcSwap::from_pointee(Apis::new(apis)));
    let (mut shared, _) = Shared::new(apis, metrics, log, control);
    shared.max_fields = 20;
    Arc::new(shared)
});

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
}

fuzz_target!(|text: &str| {
    let Some(head) = head(text) else { return };
    let mut exchange = Exchange::new(SHARED.clone());
    let outcome = RUNTIME.with(|runtime| runtime.block_on(exchange.admit(&head, &Peer::default())));
    match (&outcome, &exchange.journey) {
        (Ok(()), Journey::Admitted(admitted)) => fits(admitted, &head),
        (
            Err(denial),
            Journey::Refused {
                denial: kept, api, ..
            },
        ) => {
            assert_eq!(denial, kept);
            assert!((400..600).contains(&denial.status()) || denial.status() == 204);
            if let Some(api) = api {
                justified(denial, api, &head);
            }
        }
        (outcome, journey) => panic!("{outcome:?} beside {journey:?}"),
    }
});

fn head(text: &str) -> Option<RequestHeader> {
    let mut lines = text.lines();
    let mut words = lines.next()?.splitn(3, ' ');
    let (version, method, target) = (words.next()?, words.next()?, words.next()?);
    let mut head = if version == "2" {
        let request = http::Request::builder()
            .method(method)
            .uri(target)
            .body(())
            .ok()?;
        request.into_parts().0.into()
    } else {
        RequestHeader::build(method, target.as_bytes(), None).ok()?
    };
    head.set_version(match version {
        "0" => http::Version::HTTP_10,
        "1" => http::Version::HTTP_11,
        "2" => http::Version::HTTP_2,
        _ => return None,
    });
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        head.append_header(name.to_owned(), value.to_owned()).ok()?;
    }
    Some(head)
}

/// The path as the client wrote it, without an absolute form's scheme and authority, and without the query.
fn path(head: &RequestHeader) -> &str {
    let raw = std::str::from_utf8(head.raw_path()).expect("admission saw text");
    let origin = match raw.split_once("://") {
        Some((_, rest)) if !raw.starts_with('/') => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => raw,
    };
    origin.split_once('?').map_or(origin, |(path, _)| path)
}

/// What an admission promises.
fn fits(admitted: &Admitted, head: &RequestHeader) {
    let operation = admitted
        .operation()
        .expect("an admitted request has an operation");
    let (method, path) = (head.method.as_str(), path(head));
    assert!(*operation.method == *method || (method == "HEAD" && *operation.method == *"GET"));
    assert!(
        !operation.settings.demands,
        "nobody is known to a control plane that is away"
    );
    assert!(head.headers.len() <= SHARED.max_fields);
    let (base, rest) = path.split_at(admitted.base_length);
    assert!(admitted.api.bases.iter().any(|served| **served == *base));
    assert!(
        matches(&operation.template, rest),
        "{} for {rest}",
        operation.template
    );
    assert!(!path.contains("//"));
    for segment in path.split('/').map(decoded) {
        assert!(segment != "." && segment != "..");
    }
}

/// A refusal because of the path says the truth about it.
fn justified(denial: &Denial, api: &Api, head: &RequestHeader) {
    let (method, path) = (head.method.as_str(), path(head));
    let declared = |method: Option<&str>| {
        api.operations.iter().any(|operation| {
            method.is_none_or(|method| *operation.method == *method)
                && api.bases.iter().any(|base| {
                    path.strip_prefix(&**base)
                        .is_some_and(|rest| matches(&operation.template, rest))
                })
        })
    };
    match denial {
        Denial::UnknownOperation => assert!(!declared(None), "{path} has a template"),
        Denial::MethodNotAllowed(allow) | Denial::MethodsAsked(allow) => {
            assert!(declared(None) && !declared(Some(method)) && !allow.is_empty());
            assert!(!allow.iter().any(|allowed| **allowed == *method));
            for allowed in allow {
                assert!(declared(Some(allowed)) || (**allowed == *"HEAD" && declared(Some("GET"))));
            }
        }
        _ => {}
    }
}

/// Whether a path fits a template, found by trying.
fn matches(template: &str, path: &str) -> bool {
    let template = template.split('#').next().unwrap_or_default();
    let template: Vec<String> = template.split('/').map(decoded).collect();
    let path: Vec<String> = path.split('/').map(decoded).collect();
    // Slashes between segments are `\n`, which no segment holds: those within a segment were encoded.
    fit(&template.join("\n"), &path.join("\n"))
}

fn fit(template: &str, path: &str) -> bool {
    let Some(first) = template.chars().next() else {
        return path.is_empty();
    };
    if first != '{' {
        return path
            .strip_prefix(first)
            .is_some_and(|rest| fit(&template[first.len_utf8()..], rest));
    }
    let (name, after) = template[1..].split_once('}').expect("a closed expression");
    // In these two files the parameters named `path` span segments, and `{+rest}`.
    let spans = name == "path" || name.starts_with('+');
    let longest = if spans {
        path.len()
    } else {
        path.find('\n').unwrap_or(path.len())
    };
    (1..=longest).any(|length| path.is_char_boundary(length) && fit(after, &path[length..]))
}

fn decoded(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let escaped =
            digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
