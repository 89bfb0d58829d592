//! What a consumer with a limit costs in memory once it has called: its cell here, and its book at the grantor.
//!
//! A binary of its own, because it counts every byte of its process. The figure is printed (`--nocapture`).

#![allow(
    unsafe_code,
    reason = "a counting allocator can only be written with unsafe; it forwards to the system's"
)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use tollgate_gateway::api::Api;
use tollgate_gateway::identity::Identified;
use tollgate_gateway::live::{Live, Origin};
use tollgate_gateway::quota::renewal::Renewal;
use tollgate_gateway::quota::{Call, Named, Quotas, Settled};
use tollgate_gateway::telemetry::Metrics;
use tollgate_policy::access::Identity;
use tollgate_policy::directory::{Caller, Consumer, Credential, Defined};
use tollgate_policy::quota::Grantor;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Answer, Asked, Question};

/// Bytes that are taken now.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed to `System` unchanged; counting touches only an atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above, which is `System`'s.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONSUMERS: usize = 100_000;

/// An API with one operation, and a limit a day for each consumer.
fn api() -> (tempfile::TempDir, Arc<Live>, Arc<Api>) {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    fs::create_dir_all(place.path().join("apis")).unwrap();
    let spec = "openapi: 3.0.3\ninfo: { title: t, version: '1' }\npaths: { /books: { get: { operationId: listBooks, responses: { '200': { description: ok } } } } }\n";
    write("shop.yaml", spec);
    let file = "spec: ../shop.yaml\nupstream: http://127.0.0.1:9\nlimits: [{ name: daily, amount: 1000, window: 1d }]\n";
    write("apis/shop.yaml", file);
    let origin = Origin::Directory(place.path().to_owned());
    let live = Live::load(origin, None, Metrics::new()).unwrap();
    let api = live
        .apis()
        .load()
        .select("any.example.com", "/books")
        .cloned();
    (place, live, api.unwrap())
}

fn identified(number: usize) -> Identified {
    let consumer = Consumer {
        name: format!("consumer-{number}").into(),
        project: "web".into(),
        organisation: "shop".into(),
        suspended: false,
        roles: Vec::new(),
        explains: false,
        subscriptions: Vec::new(),
        overrides: Vec::new(),
        origin: Defined::Store,
    };
    let credential = Credential {
        id: format!("key_{number}").into(),
        not_before: None,
        expires: None,
        operations: None,
        networks: Vec::new(),
        referrers: Vec::new(),
        password: None,
    };
    let caller = Caller {
        consumer: Arc::new(consumer),
        credential,
    };
    Identified {
        identity: Identity {
            caller: Some(Arc::new(caller)),
            ..Identity::default()
        },
        ..Identified::default()
    }
}

/// Answers asks for quota; what the grantor has taken for its books is told at the end.
async fn grant(mut questions: mpsc::Receiver<Asked>) {
    let mut grantor = Grantor::new(1);
    while let Some((question, back)) = questions.recv().await {
        if let Question::Lease(holder, asks) = question {
            let now = Timestamp::from_seconds(1_800_000_000);
            let granted = asks
                .iter()
                .map(|ask| grantor.ask(now, holder, ask))
                .collect();
            drop(grantor.take_changes());
            drop(grantor.take_alerts());
            let _gave_up = back.send(Answer::Leased(granted));
        }
    }
}

#[tokio::test]
async fn a_consumer_that_called_takes_less_than_two_kilobytes_here_and_at_the_grantor() {
    let (_place, _live, api) = api();
    let callers: Vec<Identified> = (0..CONSUMERS).map(identified).collect();
    let (client, server) = tollgate_proto::channel([0; 32]);
    tokio::spawn(grant(server.questions));
    let quotas = Quotas::new(client);
    let _renewal = Renewal::start(Arc::clone(&quotas));
    let before = TAKEN.load(Ordering::Relaxed);
    for identified in &callers {
        let call = Call {
            api: &api,
            operation: 0,
            identified,
            client: None,
        };
        let charges = quotas.charges(&call).unwrap();
        let now = quotas.ticks(Instant::now());
        let mut reservation = quotas
            .reserve(charges, |_| Named::default(), now)
            .await
            .unwrap();
        reservation.settle(&Settled {
            reached: true,
            request_bytes: 0,
            response_bytes: 0,
            said: &[],
            messages: 0,
            seconds: 0,
        });
    }
    let each = (TAKEN.load(Ordering::Relaxed) - before) / CONSUMERS;
    eprintln!("{each} bytes for each of {CONSUMERS} consumers with one limit");
    assert!((100..2_048).contains(&each), "{each}");
}
