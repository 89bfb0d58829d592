//! No memory is taken for a decision that admits, while no rule holds a condition in CEL.
//!
//! A binary of its own, because it counts every allocation of its thread.

#![allow(
    unsafe_code,
    reason = "a counting allocator can only be written with unsafe; it forwards to the system's"
)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::access::{ApiAccess, Circumstances, Identity, Silent, Values, decide};
use tollgate_policy::directory::{
    Caller, Consumer, Credential, Defined, Plan, PlanApi, Subscription, TermsDuty, TermsVersion,
};
use tollgate_policy::settings::{ApiConfig, Effect, Network, RuleConfig, SecurityMode};
use tollgate_policy::time::Timestamp;
use tollgate_policy::{Place, openapi};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed to `System` unchanged; counting touches only a thread-local cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, which is `System`'s.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const API: &str = r#"
openapi: 3.1.0
info: { title: Bookstore, version: "1" }
security: [{ key: [] }]
components: { securitySchemes: { key: { type: apiKey, in: header, name: X-API-Key } } }
paths: { /books: { get: { operationId: listBooks, responses: {} } } }
"#;

struct Nothing;

impl Values for Nothing {
    fn path(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
    fn query(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

#[test]
fn a_decision_that_admits_allocates_nothing() {
    let (access, identity) = (access(None), identity());
    let circumstances = Circumstances {
        now: Timestamp::from_seconds(1_000_000),
        client: Some([203, 0, 113, 7].into()),
        method: "GET",
        host: "api.example.com",
        path: "/books",
        referrer: Some("https://shop.example.com/cart"),
        values: &Nothing,
    };
    let before = COUNT.with(Cell::get);
    let verdict = decide(
        &access,
        "bookstore",
        0,
        &identity,
        &circumstances,
        &mut Silent,
    );
    let taken = COUNT.with(Cell::get) - before;
    let grant = verdict.unwrap();
    assert_eq!((taken, grant.subscription), (0, Some(0)));
    assert!(grant.grace.is_some(), "a warning is free as well");

    let with_condition = self::access(Some("request.method == 'GET'"));
    let before = COUNT.with(Cell::get);
    decide(
        &with_condition,
        "bookstore",
        0,
        &identity,
        &circumstances,
        &mut Silent,
    )
    .unwrap();
    assert!(COUNT.with(Cell::get) > before, "the counter counts");
}

/// Networks, a denial and what allows: every step has something to look at.
fn access(when: Option<&str>) -> ApiAccess {
    let mut config = ApiConfig::for_spec(
        Path::new("bookstore.yaml"),
        "http://127.0.0.1:1",
        SecurityMode::Enforce,
    )
    .unwrap();
    let network = |address: [u8; 4], prefix| Network {
        address: address.into(),
        prefix,
    };
    config.networks.allow = vec![network([203, 0, 0, 0], 16)];
    config.networks.deny = vec![network([203, 0, 114, 0], 24)];
    let rule = |effect, consumer: &str| RuleConfig {
        name: consumer.into(),
        effect,
        operations: vec!["GET /books".into()],
        consumers: vec![consumer.into()],
        projects: Vec::new(),
        organisations: vec!["acme".into()],
        plans: vec!["gold".into()],
        scopes: Vec::new(),
        roles: vec!["reader".into()],
        networks: vec![network([203, 0, 113, 0], 24)],
        not_before: Some(Timestamp::from_seconds(0)),
        not_after: Some(Timestamp::from_seconds(2_000_000)),
        hours: Some((0, 1440)),
        when: when.map(Into::into),
        shadow: false,
        place: Place::file("bookstore.yaml"),
    };
    config.acl = vec![
        rule(Effect::Deny, "thief"),
        rule(Effect::Allow, "other"),
        rule(Effect::Allow, "shop-web"),
    ];
    let description = openapi::load_text("bookstore.yaml", API).unwrap();
    let (access, findings) = ApiAccess::compile(&config, &description);
    assert!(findings.is_empty(), "{findings:?}");
    access
}

fn identity() -> Identity {
    let plan = Plan {
        name: "gold".into(),
        apis: vec![PlanApi {
            api: "bookstore".into(),
            operations: Some(vec!["listBooks".into()]),
        }],
        roles: vec!["reader".into()],
        terms: vec!["fair-use".into()],
        limits: Vec::new(),
        price: Default::default(),
        origin: Defined::File(Place::file("plans.yaml")),
    };
    let version = TermsVersion {
        version: 2,
        effective: Timestamp::from_seconds(999_999),
        grace: Duration::from_secs(60),
        text_hash: "".into(),
        purpose_required: false,
    };
    let duty = TermsDuty {
        terms: "fair-use".into(),
        accepted: 1,
        versions: vec![version],
        shadow: false,
        origin: Defined::File(Place::file("terms.yaml")),
    };
    let consumer = Consumer {
        name: "shop-web".into(),
        project: "shop".into(),
        organisation: "acme".into(),
        suspended: false,
        roles: Vec::new(),
        explains: false,
        subscriptions: vec![Subscription {
            api: "bookstore".into(),
            plan: plan.into(),
            duties: vec![duty],
            limits: Vec::new(),
        }],
        overrides: Vec::new(),
        origin: Defined::Store,
    };
    let credential = Credential {
        id: "key_1".into(),
        not_before: Some(Timestamp::from_seconds(1)),
        expires: Some(Timestamp::from_seconds(2_000_000)),
        operations: Some(vec!["listBooks".into()]),
        networks: vec![Network {
            address: [203, 0, 113, 0].into(),
            prefix: 24,
        }],
        referrers: vec!["https://shop.example.com/".into()],
        password: None,
    };
    let caller = Caller {
        consumer: consumer.into(),
        credential,
    };
    Identity {
        caller: Some(Arc::new(caller)),
        ..Identity::default()
    }
}
