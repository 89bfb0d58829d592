//! What is sent arrives as it was meant; what was not meant arrives as nothing.

mod filled;
mod plain;
mod refused;
mod wire_form;

use std::fmt::Debug;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use tollgate_policy::directory::{Caller, Consumer, CredentialRef, Plan, Revoked, Subscription};
use tollgate_policy::quota::{Counter, CounterKey, LeaseAsk, LeaseGrant, Limit, Window};

use super::*;
use crate::{Acceptance, Announcement, Answer, AuditRecord, Resolved, TermsText};
use crate::{Meters, UsageBatch, UsageReceipt, UsageRecord};

/// Through bytes and back.
fn sent<W: Message + Default>(message: &W) -> W {
    W::decode(&*message.encode_to_vec()).unwrap()
}

fn is_carried<P, W>(plain: &P)
where
    W: for<'p> From<&'p P> + Message + Default,
    P: TryFrom<W, Error = Malformed> + PartialEq + Debug,
{
    let arrived = P::try_from(sent(&W::from(plain)));
    assert_eq!(arrived.as_ref(), Ok(plain));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn callers_are_carried(caller in plain::caller()) {
        is_carried::<Caller, wire::Caller>(&caller);
        is_carried::<Consumer, wire::Consumer>(&caller.consumer);
        for subscription in &caller.consumer.subscriptions {
            is_carried::<Subscription, wire::Subscription>(subscription);
            is_carried::<Plan, wire::Plan>(&subscription.plan);
        }
    }

    #[test]
    fn answers_to_who_it_is_are_carried(
        number: u64, generation: u64, caller in proptest::option::of(plain::caller()), why in "\\PC{1,40}", store in "\\PC{0,40}",
    ) {
        let meant = Resolved { caller: caller.map(Arc::new), generation };
        let response = sent(&resolve_response(number, &meant, &store));
        prop_assert_eq!(response.number, number);
        prop_assert_eq!(&response.installation, &store);
        let Ok(Answer::Resolved(arrived)) = resolved(response) else { panic!("no answer") };
        prop_assert_eq!(arrived, meant);
        let response = sent(&refused_resolve(number, &why));
        let Ok(Answer::Refused(arrived)) = resolved(response) else { panic!("no refusal") };
        prop_assert_eq!(arrived, why);
    }

    #[test]
    fn questions_of_a_frame_are_carried(
        asked in proptest::collection::vec((proptest::num::u64::ANY, plain::credential_ref()), 0..4),
    ) {
        let questions = asked.iter().map(|(number, credential)| (*number, credential));
        match resolve_request(questions) {
            None => prop_assert!(asked.is_empty()),
            Some(request) => prop_assert_eq!(resolve_questions(sent(&request)), Ok(asked)),
        }
    }

    #[test]
    fn limits_and_windows_are_carried(limit in plain::limit(), window in plain::window()) {
        is_carried::<Limit, wire::Limit>(&limit);
        is_carried::<Window, wire::Window>(&window);
    }

    #[test]
    fn names_of_credentials_and_counters_are_carried(
        credential in plain::credential_ref(), key in plain::counter_key(),
    ) {
        is_carried::<CredentialRef, wire::CredentialRef>(&credential);
        is_carried::<CounterKey, wire::CounterKey>(&key);
    }

    #[test]
    fn frames_of_asks_and_grants_are_carried(
        number: u64, holder in 1..u64::MAX, asks in proptest::collection::vec(plain::ask(), 0..4),
        grant in plain::grant(), why in "\\PC{1,40}",
    ) {
        for ask in &asks {
            is_carried::<LeaseAsk, wire::LeaseAsk>(ask);
            is_carried::<Counter, wire::Counter>(&ask.counters[0]);
        }
        let frame = sent(&leases_request(number, crate::HolderId(holder), &asks));
        prop_assert_eq!(frame.number, number);
        prop_assert_eq!(lease_asks(frame), Ok((crate::HolderId(holder), asks.clone())));
        is_carried::<LeaseGrant, wire::LeaseGrant>(&grant);
        let grants = vec![LeaseGrant { closest: 0, ..grant }; asks.len()];
        let response = sent(&leases_response(number, &grants));
        let Ok(Answer::Leased(arrived)) = leased(response, &asks) else { panic!("no grants") };
        prop_assert_eq!(arrived, grants);
        let response = sent(&refused_leases(number, &why));
        let Ok(Answer::Refused(arrived)) = leased(response, &asks) else { panic!("no refusal") };
        prop_assert_eq!(arrived, why);
    }

    #[test]
    fn usage_and_its_receipts_are_carried(batch in plain::batch(), next: u64, why in "\\PC{1,40}") {
        for record in &batch.records {
            is_carried::<UsageRecord, wire::UsageRecord>(record);
        }
        is_carried::<UsageBatch, wire::UsageBatch>(&batch);
        let received = |receipt| Received {
            node: batch.node.clone(), run: batch.run, shard: batch.shard, receipt,
        };
        let receipt = sent(&usage_receipt(&batch, UsageReceipt { next }));
        prop_assert_eq!(receipt.try_into(), Ok(received(Ok(UsageReceipt { next }))));
        let receipt = sent(&refused_usage(&batch, &why));
        prop_assert_eq!(receipt.try_into(), Ok(received(Err(why))));
    }

    #[test]
    fn announcements_are_carried(announcement in plain::announcement(), lane in plain::fast_lane()) {
        is_carried::<FastLane, wire::RevocationsEvent>(&lane);
        if let Some(event) = changes_event(&announcement) {
            prop_assert_eq!(Announcement::try_from(sent(&event)), Ok(announcement));
        } else {
            prop_assert!(matches!(announcement, Announcement::Revoked { .. }), "only those have another way");
        }
    }

    #[test]
    fn terms_and_their_acceptance_are_carried(
        terms in proptest::collection::vec(plain::terms_text(), 0..3), acceptance in plain::acceptance(),
    ) {
        for text in &terms {
            is_carried::<TermsText, wire::TermsText>(text);
        }
        prop_assert_eq!(terms_texts(sent(&terms_response(&terms))), Ok(terms));
        is_carried::<Acceptance, wire::Acceptance>(&acceptance);
    }

    #[test]
    fn decisions_are_carried(records in proptest::collection::vec(plain::audit_record(), 0..3)) {
        for record in &records {
            is_carried::<AuditRecord, wire::AuditRecord>(record);
        }
        prop_assert_eq!(audit_records(sent(&audit_request(&records))), Ok(records));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        wire_form::read_as_everything(&bytes);
    }

    #[test]
    fn messages_with_bytes_changed_are_read_or_refused(
        which: proptest::sample::Index, at: proptest::sample::Index, to: u8, cut: proptest::sample::Index,
    ) {
        let samples = filled::all();
        let mut bytes = which.get(&samples).1.clone();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
            wire_form::read_as_everything(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            wire_form::read_as_everything(&bytes);
        }
    }
}

#[test]
fn documents_are_carried() {
    let meant = serde_json::json!({"name": "shop", "used": 12.5, "list": [1, null, "x"]});
    assert_eq!(document(sent(&json_document(&meant))), Ok(meant));
    let question = wire::AboutConsumer {
        consumer: "shop".into(),
        api: String::new(),
        limits: Vec::new(),
    };
    assert_eq!(about(question), Ok(("shop".into(), "".into())));
}

#[test]
fn what_parts_have_in_common_is_held_once() {
    let mut consumer = filled::consumer();
    let mut second = consumer.subscriptions[0].clone();
    second.api = "music".into();
    consumer.subscriptions.push(second);
    let consumer = Consumer::try_from(consumer).unwrap();
    let [first, second] = &*consumer.subscriptions else {
        panic!("two subscriptions")
    };
    assert!(Arc::ptr_eq(&first.plan, &second.plan));
    assert!(Arc::ptr_eq(&first.limits[0], &first.plan.limits[0]));
    assert!(Arc::ptr_eq(&first.limits[0], &second.limits[0]));

    let mut frame = filled::leases_request();
    frame.asks.push(frame.asks[0].clone());
    let (_, asks) = lease_asks(frame).unwrap();
    assert!(Arc::ptr_eq(
        &asks[0].counters[0].limit,
        &asks[1].counters[0].limit
    ));
    let mut batch = filled::usage_batch();
    batch.records.push(batch.records[0].clone());
    let batch = UsageBatch::try_from(batch).unwrap();
    assert!(Arc::ptr_eq(&batch.records[0].api, &batch.records[1].api));
}

/// A node of an older version tells one number, and a control plane of an older version reads one.
#[test]
fn cost_units_without_names_are_those_of_no_name() {
    let batch = UsageBatch::try_from(filled::usage_batch()).unwrap();
    assert_eq!(batch.records[0].units, Meters::from(11));
    assert_eq!(&*batch.records[0].currency, "");
    let sent = wire::UsageBatch::from(&batch);
    assert_eq!(sent.records[0].units, 11);
    assert!(sent.records[0].units_by_name.is_empty());
    let batch = UsageBatch::try_from(filled::metered_batch()).unwrap();
    let shown: Vec<_> = batch.records[0].units.iter().collect();
    assert_eq!(shown, [(&"pages".into(), 3), (&"tokens".into(), 8)]);
    assert_eq!(wire::UsageBatch::from(&batch).records[0].units, 11);
}

#[test]
fn a_limit_that_is_another_by_the_same_name_stays_another() {
    let mut consumer = filled::consumer();
    consumer.subscriptions[0].limits[0].amount += 1;
    let consumer = Consumer::try_from(consumer).unwrap();
    let held = &consumer.subscriptions[0];
    assert_eq!(held.limits[0].amount, held.plan.limits[0].amount + 1);
}

#[test]
fn many_revocations_travel_in_several_messages() {
    let what: Vec<Revoked> = (0..25_000)
        .map(|number| Revoked::Consumer(format!("c{number}").into()))
        .collect();
    let sets = revoked_sets(7, "inst-1", &what);
    assert_eq!(sets.len(), 3);
    let mut arrived = Vec::new();
    for set in sets {
        let event = wire::RevocationsEvent {
            event: Some(wire::revocations_event::Event::More(sent(&set))),
        };
        let Ok(FastLane::More {
            generation: 7,
            what,
        }) = event.try_into()
        else {
            panic!("unusable")
        };
        arrived.extend_from_slice(&what);
    }
    assert_eq!(arrived, what);
    let long: Arc<str> = "x".repeat(LONGEST_TEXT).into();
    let sets = revoked_sets(7, "inst-1", &vec![Revoked::Consumer(long); 1000]);
    assert!(sets.len() > 7 && sets.iter().all(|set| set.encoded_len() < 1024 * 1024));
    assert_eq!(revoked_sets(7, "inst-1", &[]).len(), 1);
}

#[test]
fn a_long_reason_is_cut_rather_than_lost() {
    let record = AuditRecord {
        rule: "é".repeat(LONGEST_TEXT),
        ..AuditRecord::try_from(filled::audit_record()).unwrap()
    };
    let arrived = audit_records(sent(&audit_request(&[record]))).unwrap();
    assert_eq!(arrived[0].rule.len(), LONGEST_TEXT);
    let many: Arc<[Arc<str>]> = vec!["shop".into(); LONGEST_LIST + 1].into();
    let changed = Announcement::Changed {
        generation: 3,
        consumers: many,
    };
    let arrived = Announcement::try_from(sent(&changes_event(&changed).unwrap()));
    assert_eq!(arrived, Ok(Announcement::Everything { generation: 3 }));
}
