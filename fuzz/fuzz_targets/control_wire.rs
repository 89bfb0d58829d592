//! Any bytes as a message of the control plane's conversation: read or refused, and what is read is, sent again, read as the same.
//!
//! Input: a byte for the message, its wire bytes.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tollgate_policy::directory::{Caller, CredentialRef};
use tollgate_policy::quota::{LeaseAsk, LeaseGrant, Limit};
use tollgate_proto::convert::{self, FastLane, Malformed, Received};
use tollgate_proto::{Acceptance, Announcement, AuditRecord, TermsText, UsageBatch, wire};

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    match which % 16 {
        0 => same::<Caller, wire::Caller>(bytes),
        1 => same::<CredentialRef, wire::CredentialRef>(bytes),
        2 => same::<Limit, wire::Limit>(bytes),
        3 => same::<LeaseAsk, wire::LeaseAsk>(bytes),
        4 => same::<LeaseGrant, wire::LeaseGrant>(bytes),
        5 => same::<UsageBatch, wire::UsageBatch>(bytes),
        6 => same::<FastLane, wire::RevocationsEvent>(bytes),
        7 => same::<TermsText, wire::TermsText>(bytes),
        8 => same::<Acceptance, wire::Acceptance>(bytes),
        9 => same::<AuditRecord, wire::AuditRecord>(bytes),
        10 => changes(bytes),
        11 => leases(bytes),
        12 => drop(decoded::<wire::ResolveResponse>(bytes).map(convert::resolved)),
        13 => drop(decoded::<wire::UsageReceipt>(bytes).map(Received::try_from)),
        14 => drop(decoded::<wire::TermsResponse>(bytes).map(convert::terms_texts)),
        _ => drop(decoded::<wire::JsonDocument>(bytes).map(convert::document)),
    }
});

fn decoded<W: Message + Default>(bytes: &[u8]) -> Option<W> {
    W::decode(bytes).ok()
}

fn same<P, W>(bytes: &[u8])
where
    W: for<'p> From<&'p P> + Message + Default,
    P: TryFrom<W, Error = Malformed> + PartialEq + Debug,
{
    let Some(Ok(read)) = decoded::<W>(bytes).map(P::try_from) else {
        return;
    };
    let sent = decoded::<W>(&W::from(&read).encode_to_vec()).expect("a message");
    assert_eq!(P::try_from(sent).as_ref(), Ok(&read));
}

fn changes(bytes: &[u8]) {
    let Some(Ok(read)) = decoded::<wire::ChangesEvent>(bytes).map(Announcement::try_from) else {
        return;
    };
    let sent = convert::changes_event(&read).expect("revocations come another way");
    assert_eq!(Announcement::try_from(sent), Ok(read));
}

fn leases(bytes: &[u8]) {
    let Some(Ok((holder, asks))) = decoded(bytes).map(convert::lease_asks) else {
        return;
    };
    let sent = convert::leases_request(1, holder, &asks);
    assert_eq!(convert::lease_asks(sent), Ok((holder, asks)));
}
