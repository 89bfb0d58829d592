#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::num::NonZeroU32;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn address(number: u32) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::from_bits(number))
}

/// 100 requests a second, 60 failures a minute.
fn guard() -> Arc<Overload> {
    Overload::new(&OverloadConfig {
        requests_per_address: NonZeroU32::new(100),
        failures_per_address: NonZeroU32::new(60),
        ..OverloadConfig::default()
    })
}

/// How many of `times` requests are let in, at one moment.
fn let_in(guard: &Overload, client: &str, now: Instant, times: usize) -> usize {
    let client = Some(client.parse().unwrap());
    (0..times)
        .filter(|_| guard.enter(client, now, &mut Held::default()).is_ok())
        .count()
}

fn refused(denial: Denial) -> Journey {
    Journey::Refused {
        denial,
        api: None,
        operation: None,
        identified: None,
    }
}

/// A request that ends like this, if it is let in.
fn ask(guard: &Overload, client: IpAddr, now: Instant, journey: &Journey) -> Result<(), Denial> {
    let mut held = Held::default();
    guard.enter(Some(client), now, &mut held)?;
    guard.judge(&held, journey, 404, now);
    Ok(())
}

#[test]
fn a_source_is_held_to_its_rate_and_gets_it_back() {
    let guard = guard();
    let now = Instant::now();
    assert_eq!(
        let_in(&guard, "203.0.113.1", now, 500),
        200,
        "two seconds' worth"
    );
    assert_eq!(let_in(&guard, "203.0.113.2", now, 10), 10, "another source");
    assert_eq!(let_in(&guard, "203.0.113.1", now + SECOND, 500), 100);
    assert_eq!(let_in(&guard, "203.0.113.1", now + SECOND * 3600, 500), 200);
}

#[test]
fn an_ipv6_customer_is_one_source_and_a_mapped_address_is_ipv4() {
    let guard = guard();
    let now = Instant::now();
    assert_eq!(let_in(&guard, "2001:db8:1:2::1", now, 150), 150);
    assert_eq!(let_in(&guard, "2001:db8:1:2:ffff::9", now, 150), 50);
    assert_eq!(let_in(&guard, "2001:db8:1:3::1", now, 150), 150);
    assert_eq!(let_in(&guard, "203.0.113.1", now, 150), 150);
    assert_eq!(let_in(&guard, "::ffff:203.0.113.1", now, 150), 50);
}

#[test]
fn who_has_no_public_address_is_not_counted() {
    let guard = guard();
    let now = Instant::now();
    for near in [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.7.7",
        "100.64.0.1",
        "::1",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ] {
        assert_eq!(let_in(&guard, near, now, 1_000), 1_000, "{near}");
    }
    for far in ["172.32.0.1", "11.0.0.1", "100.128.0.1", "2a00::1", "::2"] {
        assert_eq!(let_in(&guard, far, now, 1_000), 200, "{far}");
    }
    let mut held = Held::default();
    assert!((0..1_000).all(|_| guard.enter(None, now, &mut held).is_ok()));
    assert!(guard.table.bytes() < 1 << 20);
}

#[test]
fn a_guard_that_is_off_counts_nothing() {
    let guard = Overload::new(&OverloadConfig {
        requests_per_address: None,
        failures_per_address: None,
        ..OverloadConfig::default()
    });
    assert_eq!(let_in(&guard, "203.0.113.1", Instant::now(), 5_000), 5_000);
    assert!(guard.table.bytes() < 1_024, "the table is not even made");
}

#[test]
fn a_million_addresses_take_no_more_memory_than_one_and_shut_nobody_out() {
    let guard = guard();
    let now = Instant::now();
    let_in(&guard, "203.0.113.1", now, 1);
    let before = guard.table.bytes();
    assert!(before <= 600 * 1024, "{before}");
    for number in 0..1_000_000 {
        let _one_each = guard.enter(
            Some(address(0x5000_0000 + number)),
            now,
            &mut Held::default(),
        );
    }
    assert_eq!(guard.table.bytes(), before);
    let later = now + SECOND;
    assert_eq!(let_in(&guard, "203.0.113.1", later, 100), 100);
}

#[test]
fn a_hundred_floods_shut_out_no_other_source() {
    let guard = guard();
    let now = Instant::now();
    for flood in 0..100 {
        let flood = Some(address(0x5000_0000 + flood));
        for _ in 0..300 {
            let _most_are_refused = guard.enter(flood, now, &mut Held::default());
        }
    }
    let others = (0..10_000).map(|number| Some(address(0x6000_0000 + number)));
    let shut_out = others
        .filter(|other| guard.enter(*other, now, &mut Held::default()).is_err())
        .count();
    // Both places taken by chance: 1 in 27,000.
    assert!(shut_out <= 5, "{shut_out} of 10,000");
}

#[test]
fn a_source_that_only_fails_is_refused_until_it_has_waited() {
    let guard = guard();
    let (scanner, now) = (address(0x5000_0001), Instant::now());
    let missing = refused(Denial::UnknownOperation);
    let attempts = (0..100).filter(|_| ask(&guard, scanner, now, &missing).is_ok());
    assert_eq!(attempts.count(), 60);
    let Err(Denial::TooManyFailures { retry_after }) = ask(&guard, scanner, now, &missing) else {
        panic!("not refused");
    };
    assert!((1..=7).contains(&retry_after), "{retry_after}");
    assert!(ask(&guard, address(0x5000_0002), now, &missing).is_ok());
    // One a second from then on, and everything again after two minutes.
    assert!(ask(&guard, scanner, now + SECOND, &missing).is_ok());
    assert!(ask(&guard, scanner, now + SECOND, &missing).is_err());
    let later = now + SECOND * 120;
    let attempts = (0..100).filter(|_| ask(&guard, scanner, later, &missing).is_ok());
    assert_eq!(attempts.count(), 60);
}

#[test]
fn failures_that_were_under_way_together_are_forgiven_in_time() {
    let guard = guard();
    let (scanner, now) = (address(0x5000_0001), Instant::now());
    let mut held = Held::default();
    guard.enter(Some(scanner), now, &mut held).unwrap();
    for _ in 0..10_000 {
        guard.judge(&held, &refused(Denial::UnknownApi), 404, now);
    }
    assert!(ask(&guard, scanner, now + SECOND * 59, &Journey::Arrived).is_err());
    assert!(ask(&guard, scanner, now + SECOND * 61, &Journey::Arrived).is_ok());
}

#[test]
fn good_answers_make_up_for_failures_of_the_same_address() {
    let guard = guard();
    let (office, now) = (address(0x5000_0001), Instant::now());
    let mut held = Held::default();
    guard.enter(Some(office), now, &mut held).unwrap();
    let own = |status| {
        let scanning = guard.scanning.as_ref().unwrap();
        let at = guard.since_began(now);
        match status {
            200 => scanning.succeeded(&guard.table, held.source.unwrap(), at),
            _ => scanning.failed(&guard.table, held.source.unwrap(), at),
        }
    };
    for _ in 0..500 {
        own(404);
        own(200);
    }
    assert!(ask(&guard, office, now, &Journey::Arrived).is_ok());
    for _ in 0..100 {
        own(404);
        own(404);
        own(200);
    }
    assert!(ask(&guard, office, now, &Journey::Arrived).is_err());
}

#[test]
fn only_what_looks_like_searching_is_a_failure() {
    let counts = |denial: &Denial| {
        let guard = guard();
        let (source, now) = (address(0x5000_0001), Instant::now());
        let journey = refused(denial.clone());
        (0..100).any(|_| ask(&guard, source, now, &journey).is_err())
    };
    for denial in [
        Denial::UnknownApi,
        Denial::UnknownOperation,
        Denial::CredentialRequired(Vec::new()),
        Denial::CredentialInvalid(Vec::new()),
        Denial::TooManyUnknown,
    ] {
        assert!(counts(&denial), "{denial:?}");
    }
    for denial in [
        Denial::TooManyRequests { retry_after: 1 },
        Denial::TooManyFailures { retry_after: 1 },
        Denial::Saturated { retry_after: 1 },
        Denial::UpstreamFailed,
        Denial::MethodsAsked(Vec::new()),
        Denial::PolicyUnavailable,
        Denial::NotPermitted(crate::denial::Forbidden::NotSubscribed),
    ] {
        assert!(!counts(&denial), "{denial:?}");
    }
}

#[test]
fn what_is_told_to_come_back_does_not_come_back_together() {
    let guard = guard();
    let told: std::collections::BTreeSet<u32> =
        (0..100).map(|_| guard.retry_after(SECOND * 3)).collect();
    assert_eq!(told, (4..9).collect());
}
