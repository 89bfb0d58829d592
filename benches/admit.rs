//! What admitting and reporting a request costs in instructions and allocations: everything Tollgate does by itself between the
//! parser and the forward, without a socket.
//!
//! `admit OPENAPI-FILE [ADMISSIONS [line]]` walks through the file's operations that often and prints time and allocations for each;
//! with `line` it writes the access record too (to `/dev/null`, by the writer's own thread). Instructions, which no neighbour on the
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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pingora_http::RequestHeader;
use tollgate_gateway::live::{Live, Origin};
use tollgate_gateway::request::{Exchange, Seen, Shared};
use tollgate_gateway::telemetry::{AccessLog, Metrics};
use tollgate_policy::openapi;
use tollgate_policy::settings::{AccessLogTarget, ApiConfig, SecurityMode};

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
fn heads(spec: &Path) -> Vec<RequestHeader> {
    let description = openapi::load(spec).expect("the file is an OpenAPI file");
    let operations = description.operations.iter();
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

fn shared(spec: &Path, target: &AccessLogTarget) -> Arc<Shared> {
    let metrics = Metrics::new();
    // Nobody is asked: the address only has to be one.
    let api = ApiConfig::for_spec(spec, "http://127.0.0.1:9", SecurityMode::Off).unwrap();
    let live = Live::load(Origin::Single(Box::new(api)), None, metrics.clone()).unwrap();
    Arc::new(Shared {
        apis: live.apis().clone(),
        access_log: AccessLog::start(target, metrics.clone()).unwrap(),
        homeless: metrics.operation("", "", ""),
        metrics,
        trusted_hops: 0,
        max_body: 1 << 20,
        max_fields: 100,
        draining: Arc::default(),
        fast_path: true,
    })
}

/// Admits and reports `times` requests; how many were refused.
#[inline(never)]
fn admit_all(shared: &Arc<Shared>, heads: &[RequestHeader], times: usize) -> usize {
    let mut refused = 0;
    for head in heads.iter().cycle().take(times) {
        let mut exchange = Exchange::new(shared.clone());
        let denial = black_box(exchange.admit(black_box(head)));
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
    let heads = heads(&spec);
    let target = match words.next().as_deref() {
        Some("line") => AccessLogTarget::File("/dev/null".into()),
        _ => AccessLogTarget::Off,
    };
    println!(
        "{}: {} operations, {times} admissions",
        spec.display(),
        heads.len()
    );
    let shared = shared(&spec, &target);
    // The first call of an operation makes its counters.
    let refused = admit_all(&shared, &heads, heads.len());
    let (allocations, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
    admit_all(&shared, &heads, times);
    let spent = start.elapsed().as_nanos() / times as u128;
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - allocations) as f64 / times as f64;
    println!("{spent} ns, {allocations:.2} allocations each; {refused} heads refused");
    shared.access_log.flush(Duration::from_secs(5));
}
