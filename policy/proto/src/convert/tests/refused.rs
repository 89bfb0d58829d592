//! What says nothing, or something nobody knows, is refused by name; nothing takes its place.

use tollgate_policy::directory::Defined;

use super::*;
use crate::wire::{defined, resolve_response, revocations_event, revoked, window};

/// The part that is named when this is wrong.
type Row<W> = (&'static str, fn(&mut W));

/// A message, and what is wrong with it next.
fn refuses<W, P>(good: &W, table: &[Row<W>])
where
    W: Clone,
    P: TryFrom<W, Error = Malformed> + Debug,
{
    assert!(
        P::try_from(good.clone()).is_ok(),
        "the message is good as it is"
    );
    for (number, (field, spoil)) in table.iter().enumerate() {
        let mut message = good.clone();
        spoil(&mut message);
        let read = P::try_from(message);
        assert_eq!(read.err(), Some(Malformed(field)), "row {number}");
    }
}

#[test]
fn limits_that_say_too_little() {
    refuses::<wire::Limit, Limit>(
        &filled::limit(),
        &[
            ("limit.id", |it| it.id.clear()),
            ("limit.id", |it| it.id = "x".repeat(LONGEST_TEXT + 1)),
            ("limit.name", |it| it.name.clear()),
            ("limit.metric", |it| it.metric.clear()),
            ("limit.window", |it| it.window = None),
            ("limit.window", |it| it.metric = "concurrent".into()),
            ("limit.window", |it| {
                it.window.as_mut().unwrap().kind = Some(window::Kind::Gauge(wire::Gauge {}));
            }),
            ("limit.subject", |it| it.subject = 0),
            ("limit.subject", |it| it.subject = 8),
            ("limit.scope", |it| it.scope = 0),
            ("limit.scope", |it| it.scope = 4),
            ("on_unavailable", |it| it.on_unavailable = 0),
            ("limit.on_unavailable", |it| it.on_unavailable = 4),
            ("limit.on_unavailable", |it| it.on_unavailable = -1),
            ("limit.counts", |it| it.counts = 0),
            ("limit.counts", |it| it.counts = 3),
            ("limit.defined", |it| it.defined = None),
            ("defined.where", |it| {
                it.defined.as_mut().unwrap().r#where = None
            }),
            ("limit.operations", |it| {
                it.operations.as_mut().unwrap().names = vec![String::new(); LONGEST_LIST + 1];
            }),
        ],
    );
}

#[test]
fn windows_that_are_none() {
    let day = wire::Window {
        kind: Some(window::Kind::Day("Europe/Berlin".into())),
    };
    refuses::<wire::Window, Window>(
        &day,
        &[
            ("window.kind", |it| it.kind = None),
            ("window.day", |it| {
                it.kind = Some(window::Kind::Day("Mars/Olympus".into()))
            }),
            ("window.day", |it| {
                it.kind = Some(window::Kind::Day(String::new()))
            }),
            ("window.month", |it| {
                it.kind = Some(window::Kind::Month("europe".into()))
            }),
            ("window.span", |it| it.kind = Some(window::Kind::Span(999))),
            ("window.span", |it| {
                it.kind = Some(window::Kind::Span(u64::MAX))
            }),
        ],
    );
}

#[test]
fn callers_that_say_too_little() {
    fn subscription(caller: &mut wire::Caller) -> &mut wire::Subscription {
        &mut caller.consumer.as_mut().unwrap().subscriptions[0]
    }
    fn plan(caller: &mut wire::Caller) -> &mut wire::Plan {
        subscription(caller).plan.as_mut().unwrap()
    }
    fn duty(caller: &mut wire::Caller) -> &mut wire::TermsDuty {
        &mut subscription(caller).duties[0]
    }
    fn granted(caller: &mut wire::Caller) -> &mut wire::LimitOverride {
        &mut caller.consumer.as_mut().unwrap().overrides[0]
    }
    fn credential(caller: &mut wire::Caller) -> &mut wire::Credential {
        caller.credential.as_mut().unwrap()
    }
    refuses::<wire::Caller, Caller>(
        &filled::granted(),
        &[
            ("caller.consumer", |it| it.consumer = None),
            ("caller.credential", |it| it.credential = None),
            ("consumer.name", |it| {
                it.consumer.as_mut().unwrap().name.clear()
            }),
            ("consumer.defined", |it| {
                it.consumer.as_mut().unwrap().defined = None
            }),
            ("consumer.roles", |it| {
                it.consumer.as_mut().unwrap().roles = vec![String::new(); LONGEST_LIST + 1];
            }),
            ("limit_override.grantee", |it| granted(it).grantee = 0),
            ("limit_override.grantee", |it| granted(it).grantee = 4),
            ("limit_override.limit", |it| granted(it).limit.clear()),
            ("limit_override.quantity", |it| granted(it).quantity = None),
            ("subscription.api", |it| subscription(it).api.clear()),
            ("subscription.plan", |it| subscription(it).plan = None),
            ("limit.counts", |it| subscription(it).limits[0].counts = 0),
            ("plan.name", |it| plan(it).name.clear()),
            ("plan.price", |it| plan(it).price = None),
            ("price.currency", |it| {
                plan(it).price = Some(wire::Price::default())
            }),
            ("plan.defined", |it| plan(it).defined = None),
            ("plan_api.api", |it| plan(it).apis[0].api.clear()),
            ("limit.window", |it| plan(it).limits[0].window = None),
            ("terms_duty.terms", |it| duty(it).terms.clear()),
            ("terms_duty.defined", |it| duty(it).defined = None),
            ("terms_version.effective", |it| {
                duty(it).versions[0].effective = None
            }),
            ("terms_version.effective", |it| {
                duty(it).versions[0].effective.as_mut().unwrap().nanos = 1_000_000_000;
            }),
            ("credential.id", |it| credential(it).id.clear()),
            ("credential.expires", |it| {
                credential(it).expires.as_mut().unwrap().seconds = i64::MAX;
            }),
            ("credential.not_before", |it| {
                credential(it).not_before.as_mut().unwrap().nanos = -1;
            }),
            ("credential.networks", |it| {
                credential(it).networks[0] = "10.0.0.0".into()
            }),
            ("credential.networks", |it| {
                credential(it).networks[0] = "10.0.0.1/8".into()
            }),
            ("credential.networks", |it| {
                credential(it).networks[0] = "10.0.0.0/33".into()
            }),
            ("credential.networks", |it| {
                credential(it).networks[0] = "fd00::1/127".into()
            }),
            ("credential.networks", |it| {
                credential(it).networks[0] = "fd00::/129".into()
            }),
            ("credential.networks", |it| {
                credential(it).networks[0] = String::new()
            }),
            ("credential.password", |it| {
                credential(it).password = Some("x".repeat(LONGEST_TEXT + 1));
            }),
        ],
    );
}

#[test]
fn a_place_or_a_choice_nobody_knows_is_not_the_first_one() {
    let unknown_choice = [0xfa, 0x3e, 0]; // Field 1007, of no length.
    for read in [
        wire::Defined::decode(&unknown_choice[..]).map(|it| Defined::try_from(it).err()),
        wire::Window::decode(&unknown_choice[..]).map(|it| Window::try_from(it).err()),
        wire::Revoked::decode(&unknown_choice[..]).map(|it| Revoked::try_from(it).err()),
        wire::CredentialRef::decode(&unknown_choice[..])
            .map(|it| CredentialRef::try_from(it).err()),
        wire::RevocationsEvent::decode(&unknown_choice[..]).map(|it| FastLane::try_from(it).err()),
        wire::ChangesEvent::decode(&unknown_choice[..]).map(|it| Announcement::try_from(it).err()),
        wire::ResolveResponse::decode(&unknown_choice[..]).map(|it| resolved(it).err()),
    ] {
        assert!(read.unwrap().is_some());
    }
    let defined = wire::Defined {
        r#where: Some(defined::Where::Store(wire::InStore {})),
    };
    assert_eq!(Defined::try_from(defined), Ok(Defined::Store));
}

#[test]
fn credentials_that_name_nobody() {
    let key = |bytes| wire::CredentialRef {
        kind: Some(wire::credential_ref::Kind::Key(bytes)),
    };
    for length in [0, 31, 33] {
        let read = CredentialRef::try_from(key(vec![0; length]));
        assert_eq!(read, Err(Malformed("credential_ref.key")));
    }
    let user = wire::CredentialRef {
        kind: Some(wire::credential_ref::Kind::User(
            "x".repeat(LONGEST_CLAIM + 1),
        )),
    };
    assert_eq!(
        CredentialRef::try_from(user),
        Err(Malformed("credential_ref.user"))
    );
    let mut request = resolve_request([(1, &CredentialRef::User("ann".into())); 2]).unwrap();
    assert!(resolve_questions(request.clone()).is_ok());
    request.more[0].credential = None;
    let missing = Err(Malformed("resolve_request.credential"));
    assert_eq!(resolve_questions(request.clone()), missing);
    request.more = vec![wire::ResolveQuestion::default(); LONGEST_LIST + 1];
    let long = Err(Malformed("resolve_request.more"));
    assert_eq!(resolve_questions(request), long);
    let response = wire::ResolveResponse {
        number: 1,
        generation: 1,
        answer: Some(resolve_response::Answer::Caller(wire::Caller::default())),
        installation: String::new(),
    };
    assert_eq!(resolved(response).err(), Some(Malformed("caller.consumer")));
}

#[test]
fn a_restriction_that_is_not_understood_spoils_its_message() {
    let event = |set| wire::RevocationsEvent {
        event: Some(revocations_event::Event::More(set)),
    };
    assert!(FastLane::try_from(event(filled::revoked_set())).is_ok());
    type Spoil = fn(&mut wire::RevokedSet);
    let table: [(&str, Spoil); 4] = [
        ("revoked.what", |it| it.revoked[0].what = None),
        ("revoked.key", |it| {
            it.revoked[0].what = Some(revoked::What::Key(vec![1; 31]))
        }),
        ("revoked_subject.before", |it| {
            it.revoked[2].what = Some(revoked::What::Subject(wire::RevokedSubject::default()));
        }),
        ("revoked_set.revoked", |it| {
            it.revoked = vec![it.revoked[0].clone(); LONGEST_LIST + 1];
        }),
    ];
    for (field, spoil) in table {
        let mut set = filled::revoked_set();
        spoil(&mut set);
        assert_eq!(FastLane::try_from(event(set)), Err(Malformed(field)));
    }
}

#[test]
fn alerts_that_say_too_little() {
    let event = |alert| wire::ChangesEvent {
        event: Some(wire::changes_event::Event::Quota(alert)),
    };
    assert!(Announcement::try_from(event(filled::quota_alert())).is_ok());
    type Spoil = fn(&mut wire::QuotaAlert);
    let table: [(&str, Spoil); 6] = [
        ("quota_alert.key", |it| it.key = None),
        ("counter_key.limit", |it| {
            it.key.as_mut().unwrap().limit.clear()
        }),
        ("counter_key.subject", |it| {
            it.key.as_mut().unwrap().subject.clear()
        }),
        ("quota_alert.percent", |it| it.percent = 0),
        ("quota_alert.percent", |it| it.percent = 300),
        ("quota_alert.begins", |it| it.begins = None),
    ];
    for (field, spoil) in table {
        let mut alert = filled::quota_alert();
        spoil(&mut alert);
        assert_eq!(Announcement::try_from(event(alert)), Err(Malformed(field)));
    }
}

#[test]
fn frames_of_asks_that_say_too_little() {
    type Spoil = fn(&mut wire::LeasesRequest);
    let table: [(&str, Spoil); 7] = [
        ("leases_request.holder", |it| it.holder = 0),
        ("lease_ask.number", |it| it.asks[0].number = 0),
        ("lease_ask.counters", |it| it.asks[0].counters.clear()),
        ("lease_ask.counters", |it| {
            let mut other = it.asks[0].counters[0].clone();
            other.limit.as_mut().unwrap().metric = "calls".into();
            it.asks[0].counters.push(other);
        }),
        ("counter.key", |it| it.asks[0].counters[0].key = None),
        ("counter.limit", |it| it.asks[0].counters[0].limit = None),
        ("counter.limit", |it| {
            it.asks[0].counters[0].limit.as_mut().unwrap().id = "plan/iron/books".into();
        }),
    ];
    for (field, spoil) in table {
        let mut frame = filled::leases_request();
        spoil(&mut frame);
        assert_eq!(lease_asks(frame), Err(Malformed(field)));
    }
}

#[test]
fn grants_that_do_not_fit_what_was_asked() {
    let ask = || LeaseAsk::try_from(filled::lease_ask()).unwrap();
    let mut good = filled::leases_response();
    good.refused.clear();
    good.grants[0].closest = 0;
    assert!(
        matches!(leased(good.clone(), &[ask()]), Ok(Answer::Leased(grants)) if grants.len() == 1)
    );
    assert!(leased(good.clone(), &[]).is_err());
    assert!(leased(good.clone(), &[ask(), ask()]).is_err());
    let mut beyond = good.clone();
    beyond.grants[0].closest = 1;
    assert_eq!(
        leased(beyond, &[ask()]).err(),
        Some(Malformed("lease_grant.closest"))
    );
    let both = filled::leases_response();
    assert_eq!(
        leased(both, &[ask()]).err(),
        Some(Malformed("leases_response.grants"))
    );
    let nothing = wire::LeasesResponse::default();
    assert_eq!(
        leased(nothing, &[ask()]).err(),
        Some(Malformed("leases_response.grants"))
    );
}

#[test]
fn usage_that_could_be_lost_or_counted_wrong() {
    refuses::<wire::UsageBatch, UsageBatch>(
        &filled::usage_batch(),
        &[
            ("usage_batch.run", |it| it.run.clear()),
            ("usage_batch.run", |it| it.run.push(0)),
            ("usage_batch.node", |it| it.node.clear()),
            ("usage_batch.first", |it| it.first = u64::MAX),
            ("usage_record.outcome", |it| it.records[0].outcome = 0),
            ("usage_record.outcome", |it| it.records[0].outcome = 6),
            ("usage_record.api", |it| {
                it.records[0].api = "x".repeat(LONGEST_TEXT + 1)
            }),
            ("usage_batch.records", |it| {
                it.records = vec![wire::UsageRecord::default(); LONGEST_LIST + 1];
            }),
            ("usage_record.units_by_name", |it| {
                it.records[0].units_by_name = vec![wire::UsageMeter::default()];
            }),
            ("usage_record.units_by_name", |it| {
                let name = "x".repeat(64);
                it.records[0].units_by_name = vec![wire::UsageMeter { name, amount: 1 }];
            }),
            ("usage_record.units_by_name", |it| {
                let meter = |n| wire::UsageMeter {
                    name: format!("meter{n}"),
                    amount: 1,
                };
                it.records[0].units_by_name = (0..18).map(meter).collect();
            }),
        ],
    );
    let mut receipt = filled::usage_receipt();
    receipt.refused.clear();
    refuses::<wire::UsageReceipt, Received>(
        &receipt,
        &[
            ("usage_receipt.next", |it| it.next = None),
            ("usage_receipt.next", |it| it.refused = "full".into()),
            ("usage_receipt.run", |it| it.run.clear()),
            ("usage_receipt.node", |it| it.node.clear()),
        ],
    );
}

#[test]
fn terms_acceptances_and_decisions_that_say_too_little() {
    refuses::<wire::TermsText, TermsText>(
        &filled::terms_text(),
        &[
            ("terms_text.terms", |it| it.terms.clear()),
            ("terms_text.effective", |it| it.effective = None),
            ("terms_text.enforced", |it| it.enforced = None),
            ("terms_text.text", |it| {
                it.text = "x".repeat(LONGEST_DOCUMENT + 1)
            }),
        ],
    );
    refuses::<wire::Acceptance, Acceptance>(
        &filled::acceptance(),
        &[
            ("acceptance.consumer", |it| it.consumer.clear()),
            ("acceptance.terms", |it| it.terms.clear()),
            ("acceptance.at", |it| it.at = None),
            ("acceptance.from", |it| it.from = "here".into()),
            ("acceptance.purpose", |it| {
                it.purpose = "x".repeat(LONGEST_TEXT + 1)
            }),
        ],
    );
    refuses::<wire::AuditRecord, AuditRecord>(
        &filled::audit_record(),
        &[
            ("audit_record.at", |it| it.at = None),
            ("audit_record.verdict", |it| it.verdict.clear()),
            ("audit_record.client", |it| it.client = "192.0.2".into()),
        ],
    );
    let about_nobody = about(wire::AboutConsumer::default());
    assert_eq!(about_nobody, Err(Malformed("about_consumer.consumer")));
    let broken = wire::JsonDocument { json: "{".into() };
    assert_eq!(document(broken), Err(Malformed("json_document.json")));
}
