//! One message of each kind with everything in it that can be.

use prost::Message;
use prost_types::Timestamp;

use crate::wire::{self, *};

/// All of them, encoded, by name; one for each choice where there is one.
pub(super) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = identity();
    all.extend(policy());
    all.extend(endpoints());
    all.extend(announcements());
    all.extend(callers());
    all.extend(quota());
    all.extend(rest());
    all.push(own_limits());
    all.push(sample("Caller overrides", &granted()));
    all.push(sample("UsageBatch metered", &metered_batch()));
    all.push(sample("LeasesResponse emergency", &emergency()));
    all
}

fn sample(name: &'static str, message: &impl Message) -> (&'static str, Vec<u8>) {
    (name, message.encode_to_vec())
}

fn time(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds,
        nanos: 5_000_000,
    })
}

fn identity() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        sample(
            "JoinRequest",
            &JoinRequest {
                token: "once".into(),
                request: vec![1, 2],
                node: "edge-1".into(),
            },
        ),
        sample(
            "RenewRequest",
            &RenewRequest {
                request: vec![3],
                node: "edge-1".into(),
            },
        ),
        sample(
            "Credentials",
            &Credentials {
                chain: vec![vec![4], vec![5]],
                roots: vec![vec![6]],
                spiffe_id: "spiffe://d/gateway/edge-1".into(),
                pepper: vec![7; 32],
            },
        ),
    ]
}

fn policy() -> Vec<(&'static str, Vec<u8>)> {
    let file = BundleFile {
        kind: bundle_file::Kind::Spec.into(),
        path: "/etc/books.yaml".into(),
        content: vec![9],
    };
    let bundle = Bundle {
        api: "books".into(),
        generation: 7,
        hash: vec![8; 32],
        files: vec![file],
        service: "orders".into(),
    };
    let withdrawn = Withdrawn {
        api: "books".into(),
        generation: 8,
    };
    let event = |event| PolicyEvent { event: Some(event) };
    vec![
        sample("PolicyReport", &policy_report()),
        sample(
            "PolicyEvent bundle",
            &event(policy_event::Event::Bundle(bundle)),
        ),
        sample(
            "PolicyEvent withdrawn",
            &event(policy_event::Event::Withdrawn(withdrawn)),
        ),
        sample(
            "PolicyEvent complete",
            &event(policy_event::Event::Complete(Complete {})),
        ),
    ]
}

fn policy_report() -> PolicyReport {
    PolicyReport {
        node: Some(NodeDescription {
            node: "edge-1".into(),
            version: "0.1.0".into(),
            run: "r".into(),
        }),
        held: vec![Held {
            api: "books".into(),
            generation: 6,
            hash: vec![8; 32],
        }],
        verdict: Some(Verdict {
            kind: verdict::Kind::Nack.into(),
            api: "books".into(),
            generation: 7,
            reason: "line 3".into(),
        }),
        counts: Some(NodeCounts {
            hits: 1,
            asked: 2,
            requests: 3,
            usage_waiting: 4,
        }),
    }
}

fn endpoints() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        sample(
            "EndpointsRequest",
            &EndpointsRequest {
                registration: Some(Registration {
                    service: "orders".into(),
                    address: "10.0.0.1:9080".into(),
                }),
                wanted: vec!["books".into()],
                leaving: true,
                unwanted: Vec::new(),
            },
        ),
        sample(
            "EndpointsRequest unwanted",
            &EndpointsRequest {
                unwanted: vec!["music".into()],
                ..EndpointsRequest::default()
            },
        ),
        sample(
            "EndpointsEvent",
            &EndpointsEvent {
                service: "books".into(),
                endpoints: vec![ServiceEndpoint {
                    address: "10.0.0.2:9080".into(),
                    spiffe_id: "spiffe://d/service/books".into(),
                    tls: true,
                }],
                partial: false,
            },
        ),
        sample(
            "EndpointsEvent partial",
            &EndpointsEvent {
                service: "books".into(),
                endpoints: Vec::new(),
                partial: true,
            },
        ),
        sample(
            "WatchRequest",
            &WatchRequest {
                node: "edge-1".into(),
            },
        ),
    ]
}

pub(super) fn revoked_set() -> RevokedSet {
    let what = [
        revoked::What::Key(vec![1; 32]),
        revoked::What::Token(RevokedToken {
            issuer: "https://id".into(),
            id: "t1".into(),
            expires: time(1_800_003_600),
        }),
        revoked::What::Subject(RevokedSubject {
            issuer: "https://id".into(),
            subject: "ann".into(),
            before: time(1_800_000_000),
        }),
        revoked::What::Certificate("spiffe://d/service/old".into()),
        revoked::What::Consumer("shop".into()),
    ];
    RevokedSet {
        generation: 11,
        revoked: what.map(|what| Revoked { what: Some(what) }).into(),
        // Only the first message of a stream has it.
        installation: String::new(),
    }
}

pub(super) fn counter_key() -> CounterKey {
    CounterKey {
        limit: "plan/gold/books".into(),
        api: "books".into(),
        operation: "listBooks".into(),
        subject: "consumer:shop".into(),
    }
}

pub(super) fn quota_alert() -> QuotaAlert {
    QuotaAlert {
        key: Some(counter_key()),
        percent: 80,
        begins: time(1_800_000_000),
        ends: time(1_800_000_060),
    }
}

fn announcements() -> Vec<(&'static str, Vec<u8>)> {
    let lane = |event| RevocationsEvent { event: Some(event) };
    let change = |event| ChangesEvent { event: Some(event) };
    let consumers = ChangedConsumers {
        generation: 12,
        consumers: vec!["shop".into()],
    };
    let everything = ChangedEverything { generation: 13 };
    vec![
        sample(
            "RevocationsEvent all",
            &lane(revocations_event::Event::All(revoked_set())),
        ),
        sample(
            "RevocationsEvent all of an installation",
            &lane(revocations_event::Event::All(RevokedSet {
                installation: "i1".into(),
                ..revoked_set()
            })),
        ),
        sample(
            "RevocationsEvent more",
            &lane(revocations_event::Event::More(revoked_set())),
        ),
        sample(
            "RevocationsEvent heartbeat",
            &lane(revocations_event::Event::Heartbeat(Heartbeat {})),
        ),
        sample(
            "ChangesEvent consumers",
            &change(changes_event::Event::Consumers(consumers)),
        ),
        sample(
            "ChangesEvent everything",
            &change(changes_event::Event::Everything(everything)),
        ),
        sample(
            "ChangesEvent quota",
            &change(changes_event::Event::Quota(quota_alert())),
        ),
    ]
}

fn callers() -> Vec<(&'static str, Vec<u8>)> {
    let ask = |kind| ResolveRequest {
        number: 1,
        credential: Some(CredentialRef { kind: Some(kind) }),
        more: Vec::new(),
    };
    let answer = |answer| ResolveResponse {
        number: 1,
        generation: 14,
        answer: Some(answer),
        installation: String::new(),
    };
    let login = Login {
        issuer: "https://id".into(),
        client: "app".into(),
    };
    vec![
        sample(
            "ResolveRequest key",
            &ask(credential_ref::Kind::Key(vec![2; 32])),
        ),
        sample(
            "ResolveRequest login",
            &ask(credential_ref::Kind::Login(login)),
        ),
        sample(
            "ResolveRequest certificate",
            &ask(credential_ref::Kind::Certificate("CN=x".into())),
        ),
        sample(
            "ResolveRequest user",
            &ask(credential_ref::Kind::User("ann".into())),
        ),
        sample(
            "ResolveRequest more",
            &ResolveRequest {
                more: vec![ResolveQuestion {
                    number: 2,
                    credential: Some(CredentialRef {
                        kind: Some(credential_ref::Kind::Certificate("CN=y".into())),
                    }),
                }],
                ..ask(credential_ref::Kind::User("ann".into()))
            },
        ),
        sample(
            "ResolveResponse caller",
            &answer(resolve_response::Answer::Caller(caller())),
        ),
        sample(
            "ResolveResponse nobody",
            &answer(resolve_response::Answer::Nobody(Nobody {})),
        ),
        sample(
            "ResolveResponse nobody of an installation",
            &ResolveResponse {
                installation: "i1".into(),
                ..answer(resolve_response::Answer::Nobody(Nobody {}))
            },
        ),
        sample(
            "ResolveResponse refused",
            &answer(resolve_response::Answer::Refused("busy".into())),
        ),
    ]
}

pub(super) fn caller() -> Caller {
    Caller {
        consumer: Some(consumer()),
        credential: Some(Credential {
            id: "key_7f".into(),
            not_before: time(-1),
            expires: time(1_900_000_000),
            operations: operations(),
            networks: vec!["10.0.0.0/8".into(), "fd00::/8".into()],
            referrers: vec!["https://shop.example/".into()],
            password: Some("$argon2id$x".into()),
        }),
    }
}

pub(super) fn consumer() -> Consumer {
    Consumer {
        name: "shop".into(),
        project: "web".into(),
        organisation: "acme".into(),
        suspended: true,
        roles: vec!["reader".into()],
        explains: true,
        subscriptions: vec![Subscription {
            api: "books".into(),
            plan: Some(plan()),
            duties: vec![TermsDuty {
                terms: "fair-use".into(),
                accepted: 1,
                versions: vec![TermsVersion {
                    version: 2,
                    effective: time(1_800_000_000),
                    grace_millis: 86_400_000,
                    text_hash: "ab".into(),
                    purpose_required: true,
                }],
                shadow: true,
                defined: Some(wire::Defined {
                    r#where: Some(defined::Where::Store(InStore {})),
                }),
            }],
            limits: vec![limit()],
        }],
        defined: in_file(),
        overrides: Vec::new(),
    }
}

/// The same caller, with limits of APIs that are others for it.
pub(super) fn granted() -> Caller {
    let granted = |grantee: Grantee, quantity| LimitOverride {
        grantee: grantee.into(),
        limit: "api/books/calls".into(),
        quantity: Some(quantity),
        cap: true,
    };
    let mut caller = caller();
    if let Some(consumer) = &mut caller.consumer {
        consumer.overrides = vec![
            granted(
                Grantee::Project,
                limit_override::Quantity::Amount("500".into()),
            ),
            granted(
                Grantee::Organisation,
                limit_override::Quantity::Extra("5".into()),
            ),
        ];
    }
    caller
}

fn plan() -> Plan {
    Plan {
        name: "gold".into(),
        apis: vec![PlanApi {
            api: "books".into(),
            operations: operations(),
        }],
        roles: vec!["buyer".into()],
        terms: vec!["fair-use".into()],
        limits: vec![limit()],
        price: Some(Price {
            version: 3,
            currency: "EUR".into(),
        }),
        defined: in_file(),
    }
}

fn operations() -> Option<Operations> {
    Some(Operations {
        names: vec!["listBooks".into()],
    })
}

fn in_file() -> Option<Defined> {
    Some(Defined {
        r#where: Some(defined::Where::File(Place {
            file: "plans.yaml".into(),
            line: 4,
            column: 5,
        })),
    })
}

pub(super) fn limit() -> Limit {
    Limit {
        id: "plan/gold/books".into(),
        name: "books".into(),
        metric: "units".into(),
        amount: 1000,
        window: Some(Window {
            kind: Some(window::Kind::Span(60_000)),
        }),
        burst: Some(50),
        subject: Subject::EndUser.into(),
        scope: Scope::Operation.into(),
        operations: operations(),
        on_unavailable: OnUnavailable::FailClosed.into(),
        counts: Counts::Tried.into(),
        shadow: true,
        defined: in_file(),
    }
}

pub(super) fn leases_request() -> LeasesRequest {
    LeasesRequest {
        number: 1,
        holder: 0x0102_0304_0506_0708,
        asks: vec![lease_ask()],
    }
}

pub(super) fn lease_ask() -> LeaseAsk {
    LeaseAsk {
        cell: 1,
        number: 2,
        counters: vec![Counter {
            key: Some(counter_key()),
            limit: Some(limit()),
        }],
        lease: 3,
        spent: 4,
        closed: true,
        owed: 5,
        owed_known: 6,
        want: 7,
        needed: 8,
    }
}

/// With a part of the message that came later.
fn emergency() -> LeasesResponse {
    let mut response = leases_response();
    response.grants[0].emergency.push(EmergencyShare {
        tokens: 11,
        ends_millis: Some(12),
        period_millis: Some(13),
    });
    response
}

pub(super) fn leases_response() -> LeasesResponse {
    LeasesResponse {
        number: 1,
        grants: vec![LeaseGrant {
            number: 2,
            lease: 3,
            tokens: 4,
            owed: 5,
            lifetime_millis: 6,
            closest: 7,
            rest: 8,
            reset_millis: Some(9),
            credit: 10,
            emergency: Vec::new(),
        }],
        refused: "busy".into(),
    }
}

fn quota() -> Vec<(&'static str, Vec<u8>)> {
    let window = |kind| Window { kind: Some(kind) };
    vec![
        sample("Limit", &limit()),
        sample(
            "Window day",
            &window(window::Kind::Day("Europe/Berlin".into())),
        ),
        sample("Window month", &window(window::Kind::Month("UTC".into()))),
        sample(
            "Window lifetime",
            &window(window::Kind::Lifetime(Lifetime {})),
        ),
        sample("Window gauge", &window(window::Kind::Gauge(Gauge {}))),
        sample("LeasesRequest", &leases_request()),
        sample("LeasesResponse", &leases_response()),
    ]
}

pub(super) fn usage_batch() -> UsageBatch {
    UsageBatch {
        run: (0..16).collect(),
        shard: 1,
        first: 2,
        records: vec![UsageRecord {
            at_millis: -3,
            organisation: "acme".into(),
            project: "web".into(),
            consumer: "shop".into(),
            api: "books".into(),
            operation: "listBooks".into(),
            plan: "gold".into(),
            price_version: 8,
            outcome: Outcome::Aborted.into(),
            calls: 10,
            units: 11,
            money: 12,
            request_bytes: 13,
            response_bytes: 14,
            cpu_nanos: 15,
            micros: 16,
            // As those wrote it who did not know them yet.
            stream_seconds: 0,
            request_messages: 0,
            response_messages: 0,
            units_by_name: Vec::new(),
            currency: String::new(),
        }],
        closing: true,
        node: "edge-1".into(),
    }
}

/// The same, of who tells cost units apart and says the currency.
pub(super) fn metered_batch() -> UsageBatch {
    let mut batch = usage_batch();
    let record = &mut batch.records[0];
    let meter = |name: &str, amount| UsageMeter {
        name: name.into(),
        amount,
    };
    record.units_by_name = vec![meter("pages", 3), meter("tokens", 8)];
    record.currency = "EUR".into();
    batch
}

pub(super) fn usage_receipt() -> UsageReceipt {
    UsageReceipt {
        run: (0..16).collect(),
        shard: 1,
        node: "edge-1".into(),
        next: Some(3),
        refused: "full".into(),
    }
}

pub(super) fn terms_text() -> TermsText {
    TermsText {
        terms: "fair-use".into(),
        version: 2,
        effective: time(1_800_000_000),
        enforced: time(1_800_086_400),
        text_hash: "ab".into(),
        text: "# Be fair".into(),
        purpose_required: true,
        accepted: 1,
    }
}

pub(super) fn acceptance() -> Acceptance {
    Acceptance {
        consumer: "shop".into(),
        credential: "key_7f".into(),
        terms: "fair-use".into(),
        version: 2,
        text_hash: Some("ab".into()),
        purpose: "research".into(),
        at: time(1_800_000_000),
        from: "192.0.2.7".into(),
    }
}

pub(super) fn audit_record() -> AuditRecord {
    AuditRecord {
        at: time(1_800_000_000),
        request_id: "r1".into(),
        api: "books".into(),
        generation: 7,
        operation: "listBooks".into(),
        consumer: "shop".into(),
        credential: "key_7f".into(),
        client: "192.0.2.7".into(),
        verdict: "allow".into(),
        rule: "plan gold".into(),
    }
}

fn own_limits() -> (&'static str, Vec<u8>) {
    let about = AboutConsumer {
        consumer: "shop".into(),
        api: "books".into(),
        limits: vec![Counter {
            key: Some(counter_key()),
            limit: Some(limit()),
        }],
    };
    sample("AboutConsumer limits", &about)
}

fn rest() -> Vec<(&'static str, Vec<u8>)> {
    let about = AboutConsumer {
        consumer: "shop".into(),
        api: "books".into(),
        limits: Vec::new(),
    };
    let check = CheckRequest {
        phase: check_request::Phase::Continue.into(),
        operation_id: "o1".into(),
        api: "books".into(),
        operation: "listBooks".into(),
        credential: Some(CredentialRef {
            kind: Some(credential_ref::Kind::User("ann".into())),
        }),
        ..CheckRequest::default()
    };
    let checked = CheckResponse {
        decision: check_response::Decision::Cut.into(),
        reason: "suspended".into(),
        detail: "by hand".into(),
        consumer: "shop".into(),
        failure: OnUnavailable::Degraded.into(),
        valid_millis: 1000,
        stale_ok_millis: 2000,
    };
    vec![
        sample("UsageBatch", &usage_batch()),
        sample("UsageReceipt", &usage_receipt()),
        sample("AboutConsumer", &about),
        sample(
            "TermsResponse",
            &TermsResponse {
                terms: vec![terms_text()],
            },
        ),
        sample("Acceptance", &acceptance()),
        sample(
            "AcceptResponse",
            &AcceptResponse {
                refused: "old".into(),
            },
        ),
        sample("JsonDocument", &JsonDocument { json: "{}".into() }),
        sample(
            "AuditRequest",
            &AuditRequest {
                records: vec![audit_record()],
            },
        ),
        sample("AuditResponse", &AuditResponse {}),
        sample("CheckRequest", &check),
        sample(
            "CheckRequest told",
            &CheckRequest {
                client: "192.0.2.7".into(),
                referrer: "https://a".into(),
                scopes: vec!["s".into()],
                roles: vec!["r".into()],
                ..check.clone()
            },
        ),
        sample("CheckResponse", &checked),
    ]
}
