//! The form of messages on the wire: what one version sends, every later one reads. A change of a number or a type fails here.

use prost::Message;
use tollgate_policy::directory::{Caller, CredentialRef};
use tollgate_policy::quota::{CounterKey, Limit, Window};

use super::*;
use crate::wire;

/// `NAME[ CHOICE]: HEX`, one message a line.
const KNOWN: &str = include_str!("../../../fixtures/control.hex");

const DESCRIPTION: &str = include_str!("../../../proto/tollgate/control/v1/control.proto");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn messages_have_the_form_they_always_had() {
    let filled = filled::all();
    let written: Vec<String> = filled
        .iter()
        .map(|(name, bytes)| format!("{name}: {}", hex(bytes)))
        .collect();
    let known: Vec<&str> = KNOWN.lines().collect();
    for (now, known) in written.iter().zip(&known) {
        assert_eq!(
            now, known,
            "nodes of another version read and write the second"
        );
    }
    assert_eq!(written.len(), known.len(), "{}", written.join("\n"));
}

/// What other versions know stays as it was; something new may stand beside it, and from then on in the list.
#[test]
fn every_field_has_the_number_it_always_had() {
    let declared = declared();
    for known in include_str!("../../../fixtures/control.fields").lines() {
        assert!(declared.iter().any(|it| it == known), "{known} is gone");
    }
}

/// `Message.Enum: declaration` of each field and each value.
fn declared() -> Vec<String> {
    let mut within: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in DESCRIPTION.lines().map(str::trim) {
        if line.ends_with('{') && !line.starts_with("//") {
            within.push(line.split(' ').nth(1).unwrap());
        } else if line == "}" {
            within.pop();
        } else if line.ends_with(';') && !line.starts_with("//") && !within.is_empty() {
            found.push(format!("{}: {line}", within.join(".")));
        }
    }
    assert!(found.len() > 200, "the description was not understood");
    found
}

/// Whatever bytes say, reading them as any message ends, and what was understood is written so that it is understood again.
pub(super) fn read_as_everything(bytes: &[u8]) {
    again::<Caller, wire::Caller>(bytes);
    again::<Consumer, wire::Consumer>(bytes);
    again::<Plan, wire::Plan>(bytes);
    again::<CredentialRef, wire::CredentialRef>(bytes);
    again::<Limit, wire::Limit>(bytes);
    again::<Window, wire::Window>(bytes);
    again::<CounterKey, wire::CounterKey>(bytes);
    again::<LeaseAsk, wire::LeaseAsk>(bytes);
    again::<LeaseGrant, wire::LeaseGrant>(bytes);
    again::<UsageBatch, wire::UsageBatch>(bytes);
    again::<UsageRecord, wire::UsageRecord>(bytes);
    again::<FastLane, wire::RevocationsEvent>(bytes);
    again::<TermsText, wire::TermsText>(bytes);
    again::<Acceptance, wire::Acceptance>(bytes);
    again::<AuditRecord, wire::AuditRecord>(bytes);
    if let Ok(message) = wire::ResolveRequest::decode(bytes) {
        let _ = resolve_questions(message);
    }
    if let Ok(message) = wire::ResolveResponse::decode(bytes) {
        let _ = resolved(message);
    }
    if let Ok(message) = wire::LeasesRequest::decode(bytes) {
        let _ = lease_asks(message);
    }
    if let Ok(message) = wire::LeasesResponse::decode(bytes) {
        let asks = [LeaseAsk::try_from(filled::lease_ask()).unwrap()];
        let _ = leased(message, &asks);
    }
    if let Ok(message) = wire::UsageReceipt::decode(bytes) {
        let _ = Received::try_from(message);
    }
    if let Ok(message) = wire::ChangesEvent::decode(bytes) {
        let _ = Announcement::try_from(message);
    }
    if let Ok(message) = wire::TermsResponse::decode(bytes) {
        let _ = terms_texts(message);
    }
    if let Ok(message) = wire::AuditRequest::decode(bytes) {
        let _ = audit_records(message);
    }
    if let Ok(message) = wire::AboutConsumer::decode(bytes) {
        let _ = counters(message.limits.clone());
        let _ = about(message);
    }
    if let Ok(message) = wire::JsonDocument::decode(bytes) {
        let _ = document(message);
    }
}

fn again<P, W>(bytes: &[u8])
where
    W: for<'p> From<&'p P> + Message + Default,
    P: TryFrom<W, Error = Malformed> + PartialEq + Debug,
{
    if let Ok(message) = W::decode(bytes)
        && let Ok(plain) = P::try_from(message)
    {
        is_carried::<P, W>(&plain);
    }
}
