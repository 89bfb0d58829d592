//! What a node keeps of callers and revocations: there and back, and what of it counts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use tollgate_policy::credentials::Digest;
use tollgate_policy::directory::{Consumer, Credential, Defined};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn after(hours: i64) -> Timestamp {
    Timestamp::from_millis(NOW.millis() + hours * 3_600_000)
}

pub(in crate::node::line) fn caller(consumer: &str) -> Arc<Caller> {
    Arc::new(Caller {
        consumer: Arc::new(Consumer {
            name: consumer.into(),
            project: "p".into(),
            organisation: "o".into(),
            suspended: false,
            roles: vec!["staff".into()],
            explains: true,
            subscriptions: Vec::new(),
            overrides: Vec::new(),
            origin: Defined::Store,
        }),
        credential: Credential {
            id: "c-1".into(),
            not_before: None,
            expires: Some(after(9000)),
            operations: None,
            networks: Vec::new(),
            referrers: Vec::new(),
            password: None,
        },
    })
}

fn digest(of: u8) -> Digest {
    Digest([of; 32])
}

pub(in crate::node::line) fn key(of: u8) -> CredentialRef {
    CredentialRef::Key(digest(of))
}

/// One of each kind of credential, all of one consumer.
fn references() -> [CredentialRef; 4] {
    [
        key(1),
        CredentialRef::User("shop".into()),
        CredentialRef::Certificate("spiffe://a/shop".into()),
        CredentialRef::Login {
            issuer: "i".into(),
            client: "shop".into(),
        },
    ]
}

fn filled() -> Memory {
    let mut memory = Memory::default();
    memory.revoke_all(&[Revoked::Key(digest(9))], "inst-1");
    memory.heard(NOW);
    for reference in references() {
        memory.learn(reference, caller("shop"), "inst-1", NOW);
    }
    memory
}

fn sorted(memory: &Memory) -> Vec<String> {
    let revoked = memory.revoked().unwrap();
    let mut revoked: Vec<_> = revoked.iter().map(|it| format!("{it:?}")).collect();
    revoked.sort();
    revoked
}

#[test]
fn the_file_brings_everything_back() {
    let mut memory = filled();
    let tokens = [
        Revoked::Token {
            issuer: "i".into(),
            id: "t".into(),
            expires: Some(NOW),
        },
        Revoked::Subject {
            issuer: "i".into(),
            subject: "s".into(),
            before: NOW,
        },
        Revoked::Certificate("spiffe://a/old".into()),
        Revoked::Consumer("gone".into()),
    ];
    memory.revoke(&tokens);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callers");
    crate::whole_file::write(&path, &memory.changed().unwrap()).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let read = Memory::read(&path);
    for reference in references() {
        assert_eq!(read.recall(&reference, NOW), Some(caller("shop")));
    }
    assert_eq!(sorted(&read), sorted(&memory));
    assert_eq!(read.installation, "inst-1");
    assert_eq!(read.last_heard(), Some(NOW));
}

#[test]
fn only_what_changed_is_written_again() {
    let mut memory = filled();
    assert!(memory.changed().is_some());
    assert!(memory.changed().is_none());
    memory.heard(after(1));
    memory.forget(&key(7));
    memory.revoke(&[Revoked::Key(digest(9))]);
    assert!(memory.changed().is_none(), "nothing new");
    memory.touch();
    assert!(memory.changed().is_some());
}

#[test]
fn a_node_that_never_heard_of_revocations_keeps_nothing_that_says_there_are_none() {
    let mut memory = Memory::default();
    memory.learn(key(1), caller("shop"), "inst-1", NOW);
    memory.touch();
    assert!(memory.changed().is_none());
    memory.revoke_all(&[], "inst-1");
    memory.heard(NOW);
    let file = memory.changed().unwrap();
    assert_eq!(
        Memory::parse(&file).unwrap().recall(&key(1), NOW),
        Some(caller("shop"))
    );
}

#[test]
fn a_file_damaged_anywhere_or_cut_off_is_as_good_as_none() {
    let file = filled().changed().unwrap();
    assert!(Memory::parse(&file).is_some());
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(Memory::parse(&damaged).is_none(), "byte {at}");
        assert!(Memory::parse(&file[..at]).is_none(), "cut at {at}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callers");
    assert_eq!(Memory::read(&path).revoked(), None, "there is no file");
    crate::whole_file::write(&path, &file[..file.len() - 1]).unwrap();
    let read = Memory::read(&path);
    assert_eq!(read.recall(&key(1), NOW), None);
    assert_eq!(read.revoked(), None, "unknown, which is not none");
}

#[test]
fn a_revoked_caller_is_not_recalled() {
    for (revoked, reference) in [
        (Revoked::Key(digest(1)), key(1)),
        (
            Revoked::Certificate("spiffe://a/shop".into()),
            CredentialRef::Certificate("spiffe://a/shop".into()),
        ),
    ] {
        let mut memory = filled();
        memory.revoke(&[revoked]);
        assert_eq!(memory.recall(&reference, NOW), None);
        let others = references().into_iter().filter(|it| *it != reference);
        for other in others {
            assert!(memory.recall(&other, NOW).is_some());
        }
        memory.learn(reference.clone(), caller("shop"), "inst-1", NOW);
        assert_eq!(memory.recall(&reference, NOW), None, "told once more");
    }
    let mut memory = filled();
    memory.revoke(&[Revoked::Consumer("shop".into())]);
    for reference in references() {
        assert_eq!(memory.recall(&reference, NOW), None);
    }
}

#[test]
fn what_was_told_counts_for_three_days() {
    let memory = filled();
    assert!(memory.recall(&key(1), after(72)).is_some());
    let late = Timestamp::from_millis(after(72).millis() + 1);
    assert_eq!(memory.recall(&key(1), late), None);
    assert!(
        memory.recall(&key(1), after(-5)).is_some(),
        "clock set back"
    );
    let mut memory = memory;
    memory.learn(key(1), caller("shop"), "inst-1", after(70));
    assert!(memory.recall(&key(1), after(100)).is_some());
}

#[test]
fn the_same_store_takes_revocations_back_and_one_that_began_anew_does_not() {
    let mut memory = filled();
    assert!(!memory.revoke_all(&[], "inst-1"));
    assert_eq!(memory.revoked(), Some(Vec::new()));
    let mut memory = filled();
    let consumer = Revoked::Consumer("gone".into());
    assert!(memory.revoke_all(std::slice::from_ref(&consumer), "inst-2"));
    let known = memory.revoked().unwrap();
    assert!(known.contains(&Revoked::Key(digest(9))) && known.contains(&consumer));
    assert_eq!(memory.installation, "inst-1", "it stays a stranger");
    assert!(memory.recall(&key(1), NOW).is_some());
}

#[test]
fn who_has_a_credential_no_more_is_forgotten() {
    let mut memory = filled();
    memory.forget(&key(1));
    assert_eq!(memory.recall(&key(1), NOW), None);
}
