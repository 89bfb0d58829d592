//! What admitting and reporting a request costs in instructions and allocations: everything Tollgate does by itself between the
//! parser and the forward, without a socket.
//!
//! `admit OPENAPI-FILE [ADMISSIONS [line]]` walks through the file's operations that often and prints time and allocations for each;
//! with `line` it writes the access record too (to `/dev/null`, by the writer's own thread). With `key` every operation's demand is
//! enforced and each call shows an API key of a consumer with a plan and accepted terms, known since the first call. Instructions, which no neighbour on the
//! machine disturbs:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='admit::admit_all*' target/release/examples/admit openapi-specs/bookstore.yaml
//! ```

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench is no request path; counting allocations needs an allocator"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pingora_http::RequestHeader;
use tollgate_gateway::journey::{Peer, Shared};
use tollgate_gateway::live::{Live, Origin};
use tollgate_gateway::report::Seen;
use tollgate_gateway::request::Exchange;
use tollgate_gateway::telemetry::{AccessLog, Metrics};
use tollgate_policy::credentials::key::make_key;
use tollgate_policy::directory::{
    Caller, Consumer, Credential, Defined, Plan, PlanApi, Subscription, TermsDuty, TermsVersion,
};
use tollgate_policy::openapi;
use tollgate_policy::settings::{AccessLogTarget, ApiConfig, SecurityMode};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Answer, ControlServer, Question, Resolved};

/// Admissions where the command line names no number: enough that starting up does not show.
const ADMISSIONS: usize = 20_000;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: forwards to the system's allocator unchanged; counting touches nothing but an atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Heads of calls to every operation of a file, as a browser or an SDK sends them.
fn heads(spec: &Path, key: Option<&str>) -> Vec<RequestHeader> {
    let description = openapi::load(spec).expect("the file is an OpenAPI file");
    // With a key, only where one is demanded: the rest is nobody's.
    let demanding = |it: &&openapi::Operation| key.is_none() || !it.security.admits_anonymous();
    let operations = description.operations.iter().filter(demanding);
    let heads = operations.map(|operation| {
        let base = operation.bases.first().map_or("", |base| &**base);
        let path = filled(&format!("{base}{}", operation.route));
        let mut head = RequestHeader::build(&*operation.method, path.as_bytes(), None).unwrap();
        for (name, value) in [
            ("host", "api.example.com"),
            ("user-agent", "bench/1.0"),
            ("accept", "application/json"),
        ] {
            head.insert_header(name, value).unwrap();
        }
        if let Some(key) = key {
            head.insert_header("x-api-key", key).unwrap();
        }
        head
    });
    heads.collect()
}

/// The template with a value for every expression.
fn filled(template: &str) -> String {
    let pieces = template.split(['{', '}']).enumerate();
    let pieces = pieces.map(|(index, piece)| if index % 2 == 1 { "octo-7" } else { piece });
    pieces.collect()
}

fn shared(spec: &Path, target: &AccessLogTarget, security: SecurityMode) -> Arc<Shared> {
    let metrics = Metrics::new();
    // Nobody is asked: the address only has to be one.
    let api = ApiConfig::for_spec(spec, "http://127.0.0.1:9", security).unwrap();
    let name = api.name.clone();
    let live = Live::load(Origin::Single(Box::new(api)), None, metrics.clone()).unwrap();
    let log = AccessLog::start(target, metrics.clone()).unwrap();
    let (control, server) = tollgate_proto::channel([7; 32]);
    std::thread::spawn(move || answer(server, &caller(name)));
    let (shared, _) = Shared::new(live.apis().clone(), metrics, log, control);
    Arc::new(shared)
}

/// A control plane that knows one caller.
fn answer(mut server: ControlServer, caller: &Arc<Caller>) {
    while let Some((question, back)) = server.questions.blocking_recv() {
        let answer = match question {
            Question::Resolve(_) => Answer::Resolved(Resolved {
                caller: Some(caller.clone()),
                generation: 1,
            }),
            _ => Answer::Noted,
        };
        let _asker_gone = back.send(answer);
    }
}

/// A consumer with a plan for the whole API and terms it accepted.
fn caller(api: Arc<str>) -> Arc<Caller> {
    let plan = Plan {
        name: "bench".into(),
        apis: vec![PlanApi {
            api: api.clone(),
            operations: None,
        }],
        roles: Vec::new(),
        terms: vec!["terms".into()],
        limits: Vec::new(),
        price: Default::default(),
        origin: Defined::Store,
    };
    let version = TermsVersion {
        version: 1,
        effective: Timestamp::default(),
        grace: Duration::ZERO,
        text_hash: "".into(),
        purpose_required: false,
    };
    let duty = TermsDuty {
        terms: "terms".into(),
        accepted: 1,
        versions: vec![version],
        shadow: false,
        origin: Defined::Store,
    };
    let consumer = Consumer {
        name: "bench".into(),
        project: "bench".into(),
        organisation: "bench".into(),
        suspended: false,
        roles: Vec::new(),
        explains: false,
        subscriptions: vec![Subscription {
            api,
            plan: Arc::new(plan),
            duties: vec![duty],
            limits: Vec::new(),
        }],
        overrides: Vec::new(),
        origin: Defined::Store,
    };
    let credential = Credential {
        id: "key_bench".into(),
        not_before: None,
        expires: None,
        operations: None,
        networks: Vec::new(),
        referrers: Vec::new(),
        password: None,
    };
    Arc::new(Caller {
        consumer: Arc::new(consumer),
        credential,
    })
}

/// Has the directory's answers fetched, and the counters of every operation made.
fn warm_up(shared: &Arc<Shared>, heads: &[RequestHeader]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        for head in heads {
            let mut exchange = Exchange::new(shared.clone());
            let _refused = exchange.admit(head, &Peer::default()).await;
        }
    });
}

/// What is known already is admitted without waiting.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a warm admission waits for nobody"),
    }
}

/// Admits and reports `times` requests; how many were refused.
#[inline(never)]
fn admit_all(shared: &Arc<Shared>, heads: &[RequestHeader], times: usize) -> usize {
    let (mut refused, peer) = (0, Peer::default());
    for head in heads.iter().cycle().take(times) {
        let mut exchange = Exchange::new(shared.clone());
        let denial = black_box(at_once(exchange.admit(black_box(head), &peer)));
        refused += usize::from(denial.is_err());
        exchange.report(&Seen {
            head: Some(head),
            client: Some(([192, 0, 2, 1], 40_000).into()),
            tls: false,
            status: 200,
            response_bytes: 1024,
            aborted: false,
        });
    }
    refused
}

fn main() {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let spec = PathBuf::from(
        words
            .next()
            .unwrap_or_else(|| "openapi-specs/bookstore.yaml".into()),
    );
    let times = words
        .next()
        .map_or(ADMISSIONS, |word| word.parse().expect("a number"));
    let modes: Vec<String> = words.collect();
    let says = |mode: &str| modes.iter().any(|word| word == mode);
    let target = match says("line") {
        true => AccessLogTarget::File("/dev/null".into()),
        false => AccessLogTarget::Off,
    };
    let (security, key) = match says("key") {
        true => (SecurityMode::Enforce, Some(make_key("live", [7; 16]))),
        false => (SecurityMode::Off, None),
    };
    let heads = heads(&spec, key.as_deref());
    println!(
        "{}: {} operations, {times} admissions",
        spec.display(),
        heads.len()
    );
    let shared = shared(&spec, &target, security);
    warm_up(&shared, &heads);
    let refused = admit_all(&shared, &heads, heads.len());
    let (allocations, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
    admit_all(&shared, &heads, times);
    let spent = start.elapsed().as_nanos() / times as u128;
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - allocations) as f64 / times as f64;
    println!("{spent} ns, {allocations:.2} allocations each; {refused} heads refused");
    shared.access_log.flush(Duration::from_secs(5));
}
