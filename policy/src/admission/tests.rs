//! An admission says what it said, counts once, and for nobody else.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn id(text: &str) -> WorkloadId {
    text.parse().unwrap()
}

fn edge() -> WorkloadId {
    id("spiffe://shop.example/gateway/edge-1")
}

fn admission() -> Admission {
    Admission {
        issuer: edge(),
        audience: "books".into(),
        operation: "listBooks".into(),
        request_id: "0f3c".into(),
        generation: 7,
        issued: NOW,
        lifetime: LIFETIME,
        nonce: 42,
        credential: Some(CredentialRef::Key(Digest([3; 32]))),
        end_user: Some("ann".into()),
        plan: "gold".into(),
        claims: vec![("scope".into(), "books:read".into())],
    }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,9}".prop_map(Arc::from)
}

fn name() -> impl Strategy<Value = Arc<str>> {
    "\\PC{1,9}".prop_map(Arc::from)
}

fn credential() -> impl Strategy<Value = Option<CredentialRef>> {
    prop_oneof![
        Just(None),
        any::<[u8; 32]>().prop_map(|bytes| Some(CredentialRef::Key(Digest(bytes)))),
        (text(), text()).prop_map(|(issuer, client)| Some(CredentialRef::Login { issuer, client })),
        text().prop_map(|name| Some(CredentialRef::Certificate(name))),
        text().prop_map(|name| Some(CredentialRef::User(name))),
    ]
}

fn any_admission() -> impl Strategy<Value = Admission> {
    let issuer = "spiffe://[a-z]{1,9}[.][a-z]{1,3}/(gateway|service)/[a-z0-9]{1,9}";
    let texts = (issuer, name(), name(), text(), text());
    let numbers = (any::<u64>(), any::<i64>(), 0..=60_000u64, any::<u64>());
    let who = (credential(), of(text()), vec((text(), text()), 0..4));
    (texts, numbers, who).prop_map(
        |(texts, numbers, (credential, end_user, claims))| Admission {
            issuer: id(&texts.0),
            audience: texts.1,
            operation: texts.2,
            request_id: texts.3,
            plan: texts.4,
            generation: numbers.0,
            issued: Timestamp::from_millis(numbers.1),
            lifetime: Duration::from_millis(numbers.2),
            nonce: numbers.3,
            credential,
            end_user,
            claims,
        },
    )
}

proptest! {
    #[test]
    fn an_admission_is_read_as_it_was_written(admission in any_admission()) {
        let text = admission.encode().unwrap();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        prop_assert_eq!(Admission::decode(text.as_bytes()), Ok(admission));
    }

    #[test]
    fn any_bytes_are_refused_or_are_the_one_form_of_what_they_say(
        bytes in vec(any::<u8>(), 0..300), at: proptest::sample::Index, to: u8,
    ) {
        let _ = Admission::decode(&bytes);
        let mut binary = URL_SAFE_NO_PAD.decode(admission().encode().unwrap()).unwrap();
        let at = at.index(binary.len());
        binary[at] = to;
        for text in [URL_SAFE_NO_PAD.encode(&binary), URL_SAFE_NO_PAD.encode(&bytes)] {
            if let Ok(read) = Admission::decode(text.as_bytes()) {
                prop_assert_eq!(read.encode(), Ok(text));
            }
        }
    }

    /// Whatever the clock does, nothing that is good is used twice.
    #[test]
    fn no_admission_counts_twice_whatever_the_clock_does(
        steps in vec((-200_000..200_000i64, 0..6u64, -10_000..70_000i64), 1..200),
    ) {
        let (mut replays, mut now) = (Replays::default(), NOW.millis());
        let mut used = HashSet::new();
        for (step, nonce, age) in steps {
            now += step;
            let at = Timestamp::from_millis(now);
            // Times that come again when the clock goes back, so that the same admission does.
            let issued = Timestamp::from_millis((now - age) / 20_000 * 20_000);
            let shown = Admission { issued, nonce, lifetime: LONGEST_LIFETIME, ..admission() };
            let good = shown.check(&edge(), |_| true, "books", at);
            if good.is_ok() && replays.first_use(&shown, at).is_ok() {
                prop_assert!(used.insert((issued.millis(), nonce)), "{issued} {nonce}");
            }
        }
    }
}

#[test]
fn the_form_is_what_it_always_was() {
    let known = "AQAkc3BpZmZlOi8vc2hvcC5leGFtcGxlL2dhdGV3YXkvZWRnZS0xAAVib29rcwAJbGlzdEJvb2tzAAQwZjNjAARnb2xkAAAAAAAAAAcAAAGjGFxQAAAAdTAAAAAAAAAAKgEDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwEAA2FubgEABXNjb3BlAApib29rczpyZWFk";
    assert_eq!(admission().encode().as_deref(), Ok(known));
    assert_eq!(Admission::decode(known.as_bytes()), Ok(admission()));
}

#[test]
fn what_is_cut_or_added_to_is_malformed() {
    let text = admission().encode().unwrap();
    let binary = URL_SAFE_NO_PAD.decode(&text).unwrap();
    for length in 0..text.len() {
        let cut = Admission::decode(&text.as_bytes()[..length]);
        assert_eq!(cut, Err(BadAdmission::Malformed), "{length} characters");
    }
    for length in 0..binary.len() {
        let cut = URL_SAFE_NO_PAD.encode(&binary[..length]);
        let read = Admission::decode(cut.as_bytes());
        assert_eq!(read, Err(BadAdmission::Malformed), "{length} bytes");
    }
    let longer = URL_SAFE_NO_PAD.encode([&*binary, &[0]].concat());
    let mut second = binary.clone();
    second[0] = 2;
    let second = URL_SAFE_NO_PAD.encode(&second);
    for text in [longer, second, format!("{text}="), format!(" {text}")] {
        let read = Admission::decode(text.as_bytes());
        assert_eq!(read, Err(BadAdmission::Malformed), "{text}");
    }
}

#[test]
fn what_nobody_would_read_is_not_written() {
    let long = Admission {
        claims: vec![("groups".into(), "g".repeat(LONGEST).into())],
        ..admission()
    };
    assert_eq!(long.encode(), Err(TooLong));
    let many = Admission {
        claims: vec![("a".into(), "b".into()); MOST_CLAIMS + 1],
        ..admission()
    };
    assert_eq!(many.encode(), Err(TooLong));
    let eternal = Admission {
        lifetime: LONGEST_LIFETIME + Duration::from_millis(1),
        ..admission()
    };
    assert_eq!(eternal.encode(), Err(TooLong));
    let huge = Admission {
        request_id: "r".repeat(70_000).into(),
        ..admission()
    };
    assert_eq!(huge.encode(), Err(TooLong));
    let claims = vec![("a".into(), "b".into()); MOST_CLAIMS];
    let full = Admission {
        claims,
        ..admission()
    };
    let text = full.encode().unwrap();
    assert_eq!(Admission::decode(text.as_bytes()), Ok(full));
}

#[test]
fn parts_that_are_needed_are_not_empty() {
    for nameless in [
        Admission {
            audience: "".into(),
            ..admission()
        },
        Admission {
            operation: "".into(),
            ..admission()
        },
    ] {
        let text = nameless.encode().unwrap();
        assert_eq!(
            Admission::decode(text.as_bytes()),
            Err(BadAdmission::Malformed)
        );
    }
}

#[test]
fn an_admission_counts_for_whom_and_what_it_is() {
    let check = |admission: &Admission, peer: &WorkloadId, api: &str| {
        admission.check(peer, |peer| &**peer.name() == "edge-1", api, NOW)
    };
    let good = admission();
    assert_eq!(check(&good, &edge(), "books"), Ok(()));
    assert_eq!(check(&good, &edge(), "music"), Err(BadAdmission::OtherApi));
    for peer in [
        "spiffe://shop.example/gateway/edge-2",
        "spiffe://shop.example/service/edge-1",
        "spiffe://other.example/gateway/edge-1",
    ] {
        assert_eq!(
            check(&good, &id(peer), "books"),
            Err(BadAdmission::Foreign),
            "{peer}"
        );
    }
    // Their own admissions, and still nobody believes them.
    for issuer in [
        "spiffe://shop.example/gateway/edge-2",
        "spiffe://shop.example/service/x",
    ] {
        let own = Admission {
            issuer: id(issuer),
            ..admission()
        };
        assert_eq!(
            check(&own, &id(issuer), "books"),
            Err(BadAdmission::Foreign),
            "{issuer}"
        );
    }
    let control = Admission {
        issuer: id("spiffe://shop.example/control"),
        ..admission()
    };
    let anybody = control.check(&control.issuer, |_| true, "books", NOW);
    assert_eq!(anybody, Err(BadAdmission::Foreign));
}

#[test]
fn an_admission_counts_in_its_time() {
    let at = |issued: i64, lifetime: Duration| {
        let admission = Admission {
            issued: Timestamp::from_millis(NOW.millis() + issued),
            lifetime,
            ..admission()
        };
        admission.check(&edge(), |_| true, "books", NOW)
    };
    for (issued, expected) in [
        (0, Ok(())),
        (5_000, Ok(())),
        (5_001, Err(BadAdmission::Expired)),
        (-29_999, Ok(())),
        (-30_000, Err(BadAdmission::Expired)),
        (-NOW.millis(), Err(BadAdmission::Expired)),
    ] {
        assert_eq!(at(issued, LIFETIME), expected, "{issued}");
    }
    assert_eq!(at(0, Duration::ZERO), Err(BadAdmission::Expired));
    let eternal = at(-60_000, Duration::from_secs(1_000_000));
    assert_eq!(eternal, Err(BadAdmission::Expired));
    for end in [i64::MIN, i64::MAX] {
        let admission = Admission {
            issued: Timestamp::from_millis(end),
            ..admission()
        };
        let checked = admission.check(&edge(), |_| true, "books", NOW);
        assert_eq!(checked, Err(BadAdmission::Expired));
    }
}

#[test]
fn an_admission_is_used_once_up_to_the_end_of_its_life() {
    // It is shown first when the issuer's clock is as far ahead as it may be, at any phase of the memory.
    for phase in (0..65_000).step_by(5_000) {
        let mut replays = Replays::default();
        let first = Timestamp::from_millis(NOW.millis() + phase);
        let other = Admission {
            nonce: 1,
            ..admission()
        };
        assert_eq!(replays.first_use(&other, NOW), Ok(()));
        let shown = Admission {
            issued: first.plus(AHEAD),
            lifetime: LONGEST_LIFETIME,
            ..admission()
        };
        assert_eq!(shown.check(&edge(), |_| true, "books", first), Ok(()));
        assert_eq!(replays.first_use(&shown, first), Ok(()));
        let last = shown.expires().minus(Duration::from_millis(1));
        assert_eq!(shown.check(&edge(), |_| true, "books", last), Ok(()));
        for again in [first, first.plus(LIFETIME), last] {
            assert_eq!(
                replays.first_use(&shown, again),
                Err(BadAdmission::Replayed)
            );
        }
        let expired = shown.check(&edge(), |_| true, "books", shown.expires());
        assert_eq!(expired, Err(BadAdmission::Expired));
    }
}

#[test]
fn nonces_are_of_their_issuer() {
    let mut replays = Replays::default();
    let other = Admission {
        issuer: id("spiffe://shop.example/gateway/edge-2"),
        ..admission()
    };
    let next = Admission {
        nonce: 43,
        ..admission()
    };
    for admission in [admission(), other, next] {
        assert_eq!(replays.first_use(&admission, NOW), Ok(()));
        assert_eq!(
            replays.first_use(&admission, NOW),
            Err(BadAdmission::Replayed)
        );
    }
}

#[test]
fn what_a_clock_that_was_set_back_brings_again_was_used() {
    let mut replays = Replays::default();
    assert_eq!(replays.first_use(&admission(), NOW), Ok(()));
    let later = NOW.plus(Duration::from_secs(3600));
    let then = Admission {
        issued: later,
        nonce: 43,
        ..admission()
    };
    assert_eq!(replays.first_use(&then, later), Ok(()));
    assert_eq!(replays.len(), 1);
    // Its time comes again; and new calls of that time still pass.
    assert_eq!(
        replays.first_use(&admission(), NOW),
        Err(BadAdmission::Replayed)
    );
    let new = Admission {
        issued: NOW.plus(Duration::from_secs(1)),
        nonce: 44,
        ..admission()
    };
    assert_eq!(replays.first_use(&new, NOW), Ok(()));
}

#[test]
fn memory_is_bounded_and_given_back() {
    let mut replays = Replays::new(100);
    let numbered = |nonce, issued| Admission {
        nonce,
        issued,
        ..admission()
    };
    for nonce in 0..100 {
        assert_eq!(replays.first_use(&numbered(nonce, NOW), NOW), Ok(()));
    }
    assert_eq!(
        replays.first_use(&numbered(100, NOW), NOW),
        Err(BadAdmission::Crowded)
    );
    assert_eq!(
        replays.first_use(&numbered(99, NOW), NOW),
        Err(BadAdmission::Replayed)
    );
    let turn = NOW.plus(Replays::MEMORY);
    assert_eq!(
        replays.first_use(&numbered(101, turn), turn),
        Err(BadAdmission::Crowded),
        "as old as that they may still be used"
    );
    let second = turn.plus(Replays::MEMORY);
    assert_eq!(replays.first_use(&numbered(101, second), second), Ok(()));
    assert_eq!(replays.len(), 1);
    let third = second.plus(Replays::MEMORY);
    assert_eq!(replays.first_use(&numbered(102, third), third), Ok(()));
    assert!(replays.young.known.capacity() < 20);
    assert!(!replays.is_empty());
}
