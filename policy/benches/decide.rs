//! What a warm decision costs, and what each kind of rule adds to it.
//!
//! Prints nanoseconds per decision: the median over interleaved rounds, so that a busy machine disturbs all subjects alike. How to
//! read it: `all` (a plan of 20 operations that names the called one last, networks, three rules, terms) is the budget's subject,
//! to stay below 500 ns with room for everything around it; `bare` is what remains without any rule.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench is no request path"
)]

use std::borrow::Cow;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_policy::access::{ApiAccess, Circumstances, Identity, Silent, Values, decide};
use tollgate_policy::directory::{
    Caller, Consumer, Credential, Defined, Plan, PlanApi, Subscription, TermsDuty, TermsVersion,
};
use tollgate_policy::settings::{ApiConfig, Effect, Network, RuleConfig, SecurityMode};
use tollgate_policy::time::Timestamp;
use tollgate_policy::{Place, openapi};

const ROUNDS: usize = 31;
const PASSES: usize = 50_000;
const OPERATIONS: usize = 20;

struct Subject {
    name: &'static str,
    access: ApiAccess,
    identity: Identity,
    rounds: Vec<f64>,
}

struct Query;

impl Values for Query {
    fn path(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "team").then_some(Cow::Borrowed("red"))
    }
    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

impl Subject {
    fn new(name: &'static str, config: &ApiConfig, plan: PlanApi, terms: bool) -> Self {
        let description = openapi::load_text("bench.json", &description()).unwrap();
        let (access, findings) = ApiAccess::compile(config, &description);
        assert!(findings.is_empty(), "{findings:?}");
        Self {
            name,
            access,
            identity: identity(plan, terms),
            rounds: Vec::new(),
        }
    }

    #[inline(never)]
    fn round(&mut self) {
        let circumstances = Circumstances {
            now: Timestamp::from_seconds(1_000_000),
            client: Some([203, 0, 113, 7].into()),
            method: "GET",
            host: "api.example.com",
            path: "/v1/things19",
            referrer: None,
            values: &Query,
        };
        let passes = if self.name.starts_with("condition") {
            PASSES / 50
        } else {
            PASSES
        };
        let start = Instant::now();
        for _ in 0..passes {
            let identity = black_box(&self.identity);
            let operation = black_box(OPERATIONS - 1);
            let verdict = decide(
                &self.access,
                "bench",
                operation,
                identity,
                &circumstances,
                &mut Silent,
            );
            assert!(black_box(verdict).is_ok());
        }
        self.rounds
            .push(start.elapsed().as_secs_f64() * 1e9 / passes as f64);
    }
}

fn description() -> String {
    let paths = (0..OPERATIONS).map(|index| {
        let get = serde_json::json!({ "get": { "operationId": format!("listThings{index:02}"), "responses": {} } });
        (format!("/v1/things{index}"), get)
    });
    let paths: serde_json::Map<_, _> = paths.collect();
    let key = serde_json::json!({ "type": "apiKey", "in": "header", "name": "X-API-Key" });
    let file = serde_json::json!({
        "openapi": "3.1.0", "info": { "title": "bench", "version": "1" }, "security": [{ "key": [] }],
        "components": { "securitySchemes": { "key": key } }, "paths": paths,
    });
    file.to_string()
}

fn network(address: [u8; 4], prefix: u8) -> Network {
    Network {
        address: address.into(),
        prefix,
    }
}

fn rule(name: &str, effect: Effect, consumers: &[&str], when: Option<&str>) -> RuleConfig {
    RuleConfig {
        name: name.into(),
        effect,
        operations: Vec::new(),
        consumers: consumers.iter().map(|name| Arc::from(*name)).collect(),
        projects: Vec::new(),
        organisations: Vec::new(),
        plans: Vec::new(),
        scopes: Vec::new(),
        roles: Vec::new(),
        networks: Vec::new(),
        not_before: None,
        not_after: None,
        hours: None,
        when: when.map(Into::into),
        shadow: false,
        place: Place::file("bench.yaml"),
    }
}

fn identity(plan: PlanApi, terms: bool) -> Identity {
    let plan = Plan {
        name: "gold".into(),
        apis: vec![plan],
        roles: vec!["reader".into()],
        terms: Vec::new(),
        limits: Vec::new(),
        price: Default::default(),
        origin: Defined::File(Place::file("plans.yaml")),
    };
    let version = |version, effective| TermsVersion {
        version,
        effective: Timestamp::from_seconds(effective),
        grace: Duration::from_secs(60),
        text_hash: "".into(),
        purpose_required: false,
    };
    let duty = TermsDuty {
        terms: "fair-use".into(),
        accepted: 2,
        versions: vec![version(1, 1), version(2, 1000), version(3, 2_000_000)],
        shadow: false,
        origin: Defined::File(Place::file("terms.yaml")),
    };
    let consumer = Consumer {
        name: "shop-web".into(),
        project: "shop".into(),
        organisation: "acme".into(),
        suspended: false,
        roles: vec!["buyer".into()],
        explains: false,
        subscriptions: vec![Subscription {
            api: "bench".into(),
            plan: plan.into(),
            duties: if terms { vec![duty] } else { Vec::new() },
            limits: Vec::new(),
        }],
        overrides: Vec::new(),
        origin: Defined::Store,
    };
    let credential = Credential {
        id: "key_1".into(),
        not_before: None,
        expires: Some(Timestamp::from_seconds(2_000_000)),
        operations: None,
        networks: Vec::new(),
        referrers: Vec::new(),
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

fn subjects() -> Vec<Subject> {
    let bare = ApiConfig::for_spec(
        Path::new("bench.yaml"),
        "http://127.0.0.1:1",
        SecurityMode::Enforce,
    )
    .unwrap();
    let mut all = bare.clone();
    all.networks.allow = vec![network([10, 0, 0, 0], 8), network([203, 0, 113, 0], 24)];
    let mut reader = rule("readers", Effect::Allow, &[], None);
    reader.roles = vec!["author".into(), "reader".into()];
    all.acl = vec![
        rule("thieves", Effect::Deny, &["thief-a", "thief-b"], None),
        rule("partners", Effect::Allow, &["partner-a", "partner-b"], None),
        reader,
    ];
    let mut condition = bare.clone();
    let when = "request.method == 'GET' && query.team == 'red' && 'buyer' in caller.roles";
    condition.acl = vec![rule("when", Effect::Allow, &[], Some(when))];
    let mut pattern = bare.clone();
    let when = r"request.path.matches('^/v1/[a-z]{1,16}\\d+$')";
    pattern.acl = vec![rule("when", Effect::Allow, &[], Some(when))];
    let open = || PlanApi {
        api: "bench".into(),
        operations: None,
    };
    let named = || {
        let names = (0..OPERATIONS).map(|index| format!("listThings{index:02}").into());
        PlanApi {
            api: "bench".into(),
            operations: Some(names.collect()),
        }
    };
    vec![
        Subject::new("bare", &bare, open(), false),
        Subject::new("plan of 20 operations", &bare, named(), false),
        Subject::new("terms", &bare, open(), true),
        Subject::new("rules and networks", &all, open(), false),
        Subject::new("all", &all, named(), true),
        Subject::new("condition", &condition, open(), false),
        Subject::new("condition with a pattern", &pattern, open(), false),
    ]
}

fn main() {
    // `cargo bench` adds a flag of its own.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let chosen = words.next().unwrap_or_default();
    let rounds = words.next().map_or(ROUNDS, |word| word.parse().unwrap());
    let mut subjects = subjects();
    subjects.retain(|subject| chosen.is_empty() || subject.name == chosen);
    for _ in 0..rounds {
        subjects.iter_mut().for_each(Subject::round);
    }
    for subject in &mut subjects {
        subject.rounds.sort_by(f64::total_cmp);
        println!(
            "{}: {:.0} ns per decision",
            subject.name,
            subject.rounds[rounds / 2]
        );
    }
}
