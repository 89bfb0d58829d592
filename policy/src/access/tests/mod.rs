//! A small world to decide in: one API with four operations, a consumer with a plan and terms.

mod conditions;
mod decisions;
mod findings;
mod property;
mod remote;
mod rules;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::directory::{
    Consumer, Credential, Defined, Plan, PlanApi, Subscription, TermsDuty, TermsVersion,
};
use crate::openapi::{self, Description};
use crate::settings::{ApiConfig, Effect, Network, RuleConfig, SecurityMode};

/// A Saturday, 16:00 UTC.
pub(super) const NOW: &str = "2026-11-21T16:00:00Z";

const BOOKSTORE: &str = r#"
openapi: 3.1.0
info: { title: Bookstore, version: "1" }
security: [{ key: [] }]
components:
  securitySchemes:
    key: { type: apiKey, in: header, name: X-API-Key }
    token: { type: oauth2, flows: {} }
    user: { type: http, scheme: basic }
    peer: { type: mutualTLS }
paths:
  /books:
    get: { operationId: listBooks, responses: {} }
    post: { operationId: addBook, security: [{ token: [books.write] }, { key: [], peer: [] }], responses: {} }
  /books/{id}:
    get: { operationId: "get book!", security: [{ key: [] }, {}], responses: {} }
  /health:
    get: { security: [], responses: {} }
  /broken:
    get: { operationId: broken, security: 7, responses: {} }
  /odd:
    get: { operationId: odd, security: [{ nobody: [] }], responses: {} }
"#;

pub(super) const LIST: usize = 0;
pub(super) const ADD: usize = 1;
pub(super) const GET: usize = 2;
pub(super) const HEALTH: usize = 3;
pub(super) const BROKEN: usize = 4;
pub(super) const ODD: usize = 5;

pub(super) fn arc(text: &str) -> Arc<str> {
    text.into()
}

pub(super) fn arcs(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|text| arc(text)).collect()
}

pub(super) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub(super) fn network(text: &str) -> Network {
    let (address, prefix) = text.split_once('/').unwrap();
    Network {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
    }
}

pub(super) fn bookstore() -> Description {
    openapi::load_text("bookstore.yaml", BOOKSTORE).unwrap()
}

pub(super) fn config() -> ApiConfig {
    let spec = Path::new("apis/bookstore.yaml");
    ApiConfig::for_spec(spec, "http://127.0.0.1:1", SecurityMode::Enforce).unwrap()
}

pub(super) fn place(line: u32) -> Place {
    Place {
        file: arc("apis/bookstore.yaml"),
        line,
        column: 5,
    }
}

pub(super) fn rule(name: &str, effect: Effect) -> RuleConfig {
    RuleConfig {
        name: arc(name),
        effect,
        operations: Vec::new(),
        consumers: Vec::new(),
        projects: Vec::new(),
        organisations: Vec::new(),
        plans: Vec::new(),
        scopes: Vec::new(),
        roles: Vec::new(),
        networks: Vec::new(),
        not_before: None,
        not_after: None,
        hours: None,
        when: None,
        shadow: false,
        place: place(41),
    }
}

#[derive(Default)]
pub(super) struct Request {
    pub(super) path: BTreeMap<&'static str, String>,
    pub(super) query: BTreeMap<&'static str, String>,
    pub(super) header: BTreeMap<&'static str, String>,
}

impl Values for Request {
    fn path(&self, name: &str) -> Option<Cow<'_, str>> {
        self.path.get(name).map(Cow::from)
    }
    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query.get(name).map(Cow::from)
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.header.get(name).map(Cow::from)
    }
}

/// Everything a decision takes, to be changed at will.
pub(super) struct World {
    pub(super) config: ApiConfig,
    pub(super) consumer: Option<Consumer>,
    pub(super) credential: Credential,
    pub(super) claims: Option<Claims>,
    pub(super) certificate: Option<Arc<str>>,
    pub(super) operation: usize,
    pub(super) now: Timestamp,
    pub(super) client: Option<IpAddr>,
    pub(super) referrer: Option<&'static str>,
    pub(super) request: Request,
}

impl World {
    /// Everything is in order.
    pub(super) fn new() -> Self {
        Self {
            config: config(),
            consumer: Some(consumer()),
            credential: credential(),
            claims: None,
            certificate: None,
            operation: LIST,
            now: at(NOW),
            client: Some([203, 0, 113, 7].into()),
            referrer: None,
            request: Request::default(),
        }
    }

    pub(super) fn anonymous(operation: usize) -> Self {
        Self {
            consumer: None,
            operation,
            ..Self::new()
        }
    }

    pub(super) fn with_rule(rule: RuleConfig) -> Self {
        let mut world = Self::new();
        world.config.acl.push(rule);
        world
    }

    pub(super) fn plan(&mut self) -> &mut Plan {
        Arc::make_mut(&mut self.subscription().plan)
    }

    pub(super) fn subscription(&mut self) -> &mut Subscription {
        &mut self.consumer.as_mut().unwrap().subscriptions[1]
    }

    pub(super) fn duty(&mut self) -> &mut TermsDuty {
        &mut self.subscription().duties[0]
    }

    pub(super) fn witnessed(&self, witness: &mut impl Witness) -> Result<Grant, Refusal> {
        self.ask(|access, identity, circumstances| {
            let operation = self.operation;
            decide(
                access,
                "bookstore",
                operation,
                identity,
                circumstances,
                witness,
            )
        })
    }

    /// Why the consumer may not ask about itself; `None`: it may.
    pub(super) fn own_refusal(&self) -> Option<WhyNot> {
        let decided = self.ask(|access, identity, circumstances| {
            decide_own(access, "bookstore", identity, circumstances, &mut Silent)
        });
        decided.err().map(|refusal| refusal.why)
    }

    pub(super) fn ask<T>(
        &self,
        ask: impl FnOnce(&ApiAccess, &Identity, &Circumstances<'_>) -> T,
    ) -> T {
        let (access, _) = ApiAccess::compile(&self.config, &bookstore());
        let caller = self.consumer.clone().map(|consumer| {
            Arc::new(Caller {
                consumer: consumer.into(),
                credential: self.credential.clone(),
            })
        });
        let identity = Identity {
            caller,
            claims: self.claims.clone().map(Arc::new),
            certificate: self.certificate.clone(),
        };
        let circumstances = Circumstances {
            now: self.now,
            client: self.client,
            method: "GET",
            host: "api.example.com",
            path: "/books",
            referrer: self.referrer,
            values: &self.request,
        };
        ask(&access, &identity, &circumstances)
    }

    /// The same with and without somebody who listens.
    pub(super) fn decide(&self) -> Result<Grant, Refusal> {
        let verdict = self.witnessed(&mut Silent);
        assert_eq!(self.witnessed(&mut Explanation::default()), verdict);
        verdict
    }

    pub(super) fn explained(&self) -> String {
        let mut explanation = Explanation::default();
        self.witnessed(&mut explanation).ok();
        explanation.to_string()
    }

    pub(super) fn refusal(&self) -> Option<WhyNot> {
        self.decide().err().map(|refusal| refusal.why)
    }

    /// Kind and name of the rule that refuses.
    pub(super) fn refused_by(&self) -> String {
        let refusal = self.decide().unwrap_err();
        format!("{} {}", refusal.rule.kind, refusal.rule.name)
    }

    pub(super) fn shadowed(&self) -> Vec<String> {
        let grant = self.decide().unwrap();
        grant
            .shadowed
            .iter()
            .map(|rule| format!("{} {}", rule.kind, rule.name))
            .collect()
    }
}

pub(super) fn version(version: u32, effective: &str, grace_seconds: u64) -> TermsVersion {
    TermsVersion {
        version,
        effective: at(effective),
        grace: Duration::from_secs(grace_seconds),
        text_hash: arc(""),
        purpose_required: false,
    }
}

fn consumer() -> Consumer {
    let plan = Plan {
        name: arc("gold"),
        apis: vec![PlanApi {
            api: arc("bookstore"),
            operations: None,
        }],
        roles: arcs(&["reader"]),
        terms: Vec::new(),
        limits: Vec::new(),
        price: Default::default(),
        origin: Defined::File(Place::file("plans.yaml")),
    };
    let duty = TermsDuty {
        terms: arc("fair-use"),
        accepted: 1,
        versions: vec![version(1, "2026-01-01T00:00:00Z", 0)],
        shadow: false,
        origin: Defined::File(Place::file("terms.yaml")),
    };
    let other = Subscription {
        api: arc("films"),
        plan: plan.clone().into(),
        duties: Vec::new(),
        limits: Vec::new(),
    };
    let held = Subscription {
        api: arc("bookstore"),
        plan: plan.into(),
        duties: vec![duty],
        limits: Vec::new(),
    };
    Consumer {
        name: arc("shop-web"),
        project: arc("shop"),
        organisation: arc("acme"),
        suspended: false,
        roles: arcs(&["buyer"]),
        explains: false,
        subscriptions: vec![other, held],
        overrides: Vec::new(),
        origin: Defined::File(Place::file("consumers.yaml")),
    }
}

fn credential() -> Credential {
    Credential {
        id: arc("key_1"),
        not_before: None,
        expires: None,
        operations: None,
        networks: Vec::new(),
        referrers: Vec::new(),
        password: None,
    }
}

pub(super) fn token() -> Claims {
    let all = serde_json::json!({
        "iss": "https://id.example.com", "sub": "u1", "team": "red", "level": 7, "big": u64::MAX, "share": 0.5,
        "none": null, "groups": ["a", "b"], "org": { "id": "o1", "tags": ["x"] }, "admin": true,
    });
    Claims {
        issuer: arc("https://id.example.com"),
        subject: arc("u1"),
        client: arc("app"),
        scopes: arcs(&["books.read", "books.write"]),
        roles: arcs(&["author"]),
        id: arc(""),
        expires: None,
        not_before: None,
        issued: None,
        all: all.as_object().unwrap().clone(),
    }
}
