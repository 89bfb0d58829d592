//! Any values of the types that travel.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate_policy::Place;
use tollgate_policy::credentials::Digest;
use tollgate_policy::directory::{
    Caller, Consumer, Credential, CredentialRef, Defined, Plan, PlanApi, Price, Revoked, Secret,
    Subscription, TermsDuty, TermsVersion,
};
use tollgate_policy::quota::{
    Counter, CounterKey, Counts, EmergencyShare, LeaseAsk, LeaseGrant, Limit, Metric,
    OnUnavailable, Scope, Subject, Window,
};
use tollgate_policy::settings::{Grantee, LimitOverride, Network, Quantity};
use tollgate_policy::time::Timestamp;

use crate::convert::FastLane;
use crate::{Acceptance, Announcement, AuditRecord, Meters, RunId, TermsText};
use crate::{UsageBatch, UsageOutcome, UsageRecord};

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9/.:é -]{1,8}".prop_map(Arc::from)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,8}".prop_map(Arc::from)
}

fn texts() -> impl Strategy<Value = Vec<Arc<str>>> {
    vec(text(), 0..3)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn span() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_millis)
}

fn address() -> impl Strategy<Value = Option<IpAddr>> {
    any::<Option<IpAddr>>()
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn defined() -> impl Strategy<Value = Defined> {
    let place = (text(), any::<u32>(), any::<u32>());
    prop_oneof![
        place.prop_map(|(file, line, column)| Defined::File(Place { file, line, column })),
        Just(Defined::Store),
    ]
}

fn network() -> impl Strategy<Value = Network> {
    (any::<IpAddr>(), any::<u8>()).prop_map(|(address, bits)| match address {
        IpAddr::V4(v4) => {
            let prefix = bits % 33;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let address = IpAddr::V4((v4.to_bits() & mask).into());
            Network { address, prefix }
        }
        IpAddr::V6(v6) => {
            let prefix = bits % 129;
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            let address = IpAddr::V6((v6.to_bits() & mask).into());
            Network { address, prefix }
        }
    })
}

pub(super) fn window() -> impl Strategy<Value = Window> {
    let zone = select(&chrono_tz::TZ_VARIANTS[..]);
    prop_oneof![
        (1000..=i64::MAX as u64).prop_map(|millis| Window::Span(Duration::from_millis(millis))),
        zone.clone().prop_map(Window::Day),
        zone.prop_map(Window::Month),
        Just(Window::Lifetime),
        Just(Window::Gauge),
    ]
}

pub(super) fn limit() -> impl Strategy<Value = Limit> {
    let metric = prop_oneof![
        Just(Metric::Calls),
        Just(Metric::Bytes),
        Just(Metric::Money),
        name().prop_map(|name| Metric::named(&name)),
    ];
    let what = (
        name(),
        name(),
        metric,
        any::<u64>(),
        window(),
        any::<Option<u64>>(),
    );
    let subject = select(vec![
        Subject::Organisation,
        Subject::Project,
        Subject::Consumer,
        Subject::Credential,
        Subject::EndUser,
        Subject::Address,
        Subject::Everybody,
    ]);
    let scope = select(vec![Scope::Everything, Scope::Api, Scope::Operation]);
    let mode = select(vec![
        OnUnavailable::FailOpen,
        OnUnavailable::Degraded,
        OnUnavailable::FailClosed,
    ]);
    let counts = select(vec![Counts::Reached, Counts::Tried]);
    let how = (
        subject,
        scope,
        of(texts()),
        mode,
        counts,
        any::<bool>(),
        defined(),
    );
    (what, how).prop_map(|(what, how)| {
        let (id, name, metric, amount, window, burst) = what;
        let (subject, scope, operations, on_unavailable, counts, shadow, origin) = how;
        let metric = if window == Window::Gauge {
            Metric::Concurrent
        } else {
            metric
        };
        Limit {
            id,
            name,
            metric,
            amount,
            window,
            burst,
            subject,
            scope,
            operations,
            on_unavailable,
            counts,
            shadow,
            origin,
        }
    })
}

fn limits() -> impl Strategy<Value = Vec<Arc<Limit>>> {
    vec(limit().prop_map(Arc::new), 0..3)
}

fn plan() -> impl Strategy<Value = Plan> {
    let api = (name(), of(texts())).prop_map(|(api, operations)| PlanApi { api, operations });
    let price = (any::<u32>(), name()).prop_map(|(version, currency)| Price { version, currency });
    let parts = (
        name(),
        vec(api, 0..3),
        texts(),
        texts(),
        limits(),
        price,
        defined(),
    );
    parts.prop_map(|(name, apis, roles, terms, limits, price, origin)| Plan {
        name,
        apis,
        roles,
        terms,
        limits,
        price,
        origin,
    })
}

fn duty() -> impl Strategy<Value = TermsDuty> {
    let version = (any::<u32>(), time(), span(), text(), any::<bool>());
    let version =
        version.prop_map(
            |(version, effective, grace, text_hash, purpose_required)| TermsVersion {
                version,
                effective,
                grace,
                text_hash,
                purpose_required,
            },
        );
    let parts = (
        name(),
        any::<u32>(),
        vec(version, 0..3),
        any::<bool>(),
        defined(),
    );
    parts.prop_map(|(terms, accepted, versions, shadow, origin)| TermsDuty {
        terms,
        accepted,
        versions,
        shadow,
        origin,
    })
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let parts = (name(), plan(), vec(duty(), 0..2), limits());
    parts.prop_map(|(api, plan, duties, mut limits)| {
        limits.extend(plan.limits.iter().cloned());
        Subscription {
            api,
            plan: Arc::new(plan),
            duties,
            limits,
        }
    })
}

fn credential() -> impl Strategy<Value = Credential> {
    let networks = vec(network(), 0..3);
    let times = (of(time()), of(time()));
    let parts = (name(), times, of(texts()), networks, texts(), of(text()));
    parts.prop_map(
        |(id, times, operations, networks, referrers, password)| Credential {
            id,
            not_before: times.0,
            expires: times.1,
            operations,
            networks,
            referrers,
            password: password.map(Secret::new),
        },
    )
}

fn limit_override() -> impl Strategy<Value = LimitOverride> {
    let grantee = prop_oneof![
        Just(Grantee::Organisation),
        Just(Grantee::Project),
        Just(Grantee::Consumer),
    ];
    let quantity = prop_oneof![
        name().prop_map(Quantity::Amount),
        name().prop_map(Quantity::Extra),
    ];
    let parts = (grantee, name(), quantity, any::<bool>());
    parts.prop_map(|(grantee, limit, quantity, cap)| LimitOverride {
        grantee,
        limit,
        quantity,
        cap,
    })
}

pub(super) fn caller() -> impl Strategy<Value = Caller> {
    let names = (name(), text(), text());
    let subscriptions = vec(subscription(), 0..3);
    let parts = (names, any::<[bool; 2]>(), texts(), subscriptions, defined());
    (parts, vec(limit_override(), 0..3), credential()).prop_map(
        |((names, flags, roles, subscriptions, origin), overrides, credential)| {
            let consumer = Arc::new(Consumer {
                name: names.0,
                project: names.1,
                organisation: names.2,
                suspended: flags[0],
                roles,
                explains: flags[1],
                subscriptions,
                overrides,
                origin,
            });
            Caller {
                consumer,
                credential,
            }
        },
    )
}

pub(super) fn credential_ref() -> impl Strategy<Value = CredentialRef> {
    prop_oneof![
        digest().prop_map(CredentialRef::Key),
        (text(), text()).prop_map(|(issuer, client)| CredentialRef::Login { issuer, client }),
        text().prop_map(CredentialRef::Certificate),
        text().prop_map(CredentialRef::User),
    ]
}

fn revoked() -> impl Strategy<Value = Revoked> {
    let subject = (text(), text(), time());
    prop_oneof![
        digest().prop_map(Revoked::Key),
        (text(), text(), of(time())).prop_map(|(issuer, id, expires)| Revoked::Token {
            issuer,
            id,
            expires,
        }),
        subject.prop_map(|(issuer, subject, before)| Revoked::Subject {
            issuer,
            subject,
            before,
        }),
        text().prop_map(Revoked::Certificate),
        text().prop_map(Revoked::Consumer),
    ]
}

pub(super) fn fast_lane() -> impl Strategy<Value = FastLane> {
    let set = || (any::<u64>(), vec(revoked(), 0..4).prop_map(Arc::from));
    prop_oneof![
        (set(), text()).prop_map(|((generation, what), installation)| FastLane::All {
            generation,
            installation,
            what
        }),
        set().prop_map(|(generation, what)| FastLane::More { generation, what }),
        Just(FastLane::Heartbeat),
    ]
}

pub(super) fn counter_key() -> impl Strategy<Value = CounterKey> {
    (name(), text(), text(), name()).prop_map(|(limit, api, operation, subject)| CounterKey {
        limit,
        api,
        operation,
        subject,
    })
}

pub(super) fn announcement() -> impl Strategy<Value = Announcement> {
    let quota = (counter_key(), 1..=100u8, time(), of(time()));
    let names = texts().prop_map(Arc::from);
    let what = vec(revoked(), 0..3).prop_map(Arc::from);
    prop_oneof![
        (any::<u64>(), what)
            .prop_map(|(generation, what)| Announcement::Revoked { generation, what }),
        (any::<u64>(), names).prop_map(|(generation, consumers)| Announcement::Changed {
            generation,
            consumers,
        }),
        any::<u64>().prop_map(|generation| Announcement::Everything { generation }),
        quota.prop_map(|(key, percent, begins, ends)| Announcement::Quota {
            key,
            percent,
            begins,
            ends,
        }),
    ]
}

pub(super) fn ask() -> impl Strategy<Value = LeaseAsk> {
    let counter = (counter_key(), limit());
    let numbers = (any::<[u64; 7]>(), 1..=u64::MAX, any::<bool>());
    (vec(counter, 1..3), numbers).prop_map(|(counters, (numbers, number, closed))| {
        let [cell, lease, spent, owed, owed_known, want, needed] = numbers;
        // All of a cell's counters are of one metric.
        let (metric, gauge) = (counters[0].1.metric.clone(), counters[0].1.window);
        let counters = counters.into_iter().map(|(mut key, mut limit)| {
            if limit.metric != metric {
                limit.metric = metric.clone();
                limit.window = gauge;
            }
            key.limit = limit.id.clone();
            let limit = Arc::new(limit);
            Counter { key, limit }
        });
        LeaseAsk {
            cell,
            number,
            counters: counters.collect(),
            lease,
            spent,
            closed,
            owed,
            owed_known,
            want,
            needed,
        }
    })
}

pub(super) fn grant() -> impl Strategy<Value = LeaseGrant> {
    let share = (any::<u64>(), of(span()), of(span()));
    let share = share.prop_map(|(tokens, ends, period)| EmergencyShare {
        tokens,
        ends,
        period,
    });
    let few = (0..10_000usize, vec(share, 0..4));
    let parts = (any::<[u64; 5]>(), span(), of(span()), few);
    parts.prop_map(|(numbers, lifetime, reset, (closest, emergency))| {
        let [number, lease, tokens, owed, rest] = numbers;
        LeaseGrant {
            number,
            lease,
            tokens,
            owed,
            lifetime,
            closest,
            rest,
            reset,
            emergency,
        }
    })
}

fn meters() -> impl Strategy<Value = Meters> {
    let name = select(
        &[
            "units",
            "tokens",
            "pages",
            "a/b.c",
            "",
            "too long by far, so that it counts without its name, as it has to",
        ][..],
    );
    vec((name, any::<u64>()), 0..4).prop_map(|said| {
        let mut meters = Meters::default();
        for (name, amount) in said {
            meters.add(&name.into(), amount);
        }
        meters
    })
}

fn record() -> impl Strategy<Value = UsageRecord> {
    let names = [(); 7].map(|()| text());
    let counts = (any::<[u32; 2]>(), any::<[u64; 8]>(), meters());
    let parts = (time(), names, counts, select(&UsageOutcome::ALL[..]));
    parts.prop_map(|(at, names, (few, many, units), outcome)| {
        let [
            organisation,
            project,
            consumer,
            api,
            operation,
            plan,
            currency,
        ] = names;
        let [price_version, calls] = few;
        let [
            money,
            request_bytes,
            response_bytes,
            cpu_nanos,
            micros,
            stream_seconds,
            request_messages,
            response_messages,
        ] = many;
        UsageRecord {
            at,
            organisation,
            project,
            consumer,
            api,
            operation,
            plan,
            price_version,
            currency,
            outcome,
            calls,
            units,
            money,
            request_bytes,
            response_bytes,
            cpu_nanos,
            micros,
            stream_seconds,
            request_messages,
            response_messages,
        }
    })
}

pub(super) fn batch() -> impl Strategy<Value = UsageBatch> {
    let place = (
        name(),
        any::<u128>(),
        any::<u32>(),
        0..u64::MAX - 9,
        any::<bool>(),
    );
    (place, vec(record(), 0..4)).prop_map(|((node, run, shard, first, closing), records)| {
        UsageBatch {
            node,
            run: RunId(run),
            shard,
            first,
            records,
            closing,
        }
    })
}

pub(super) fn terms_text() -> impl Strategy<Value = TermsText> {
    let times = (time(), time());
    let parts = (
        name(),
        any::<[u32; 2]>(),
        times,
        text(),
        "\\PC{0,99}",
        any::<bool>(),
    );
    parts.prop_map(
        |(terms, versions, times, text_hash, text, purpose_required)| TermsText {
            terms,
            version: versions[0],
            effective: times.0,
            enforced: times.1,
            text_hash,
            text: text.into(),
            purpose_required,
            accepted: versions[1],
        },
    )
}

pub(super) fn acceptance() -> impl Strategy<Value = Acceptance> {
    let what = (name(), any::<u32>(), of(text()), "\\PC{0,20}");
    let parts = (name(), text(), what, time(), address());
    parts.prop_map(|(consumer, credential, what, at, from)| Acceptance {
        consumer,
        credential,
        terms: what.0,
        version: what.1,
        text_hash: what.2,
        purpose: what.3,
        at,
        from,
    })
}

pub(super) fn audit_record() -> impl Strategy<Value = AuditRecord> {
    let texts = (text(), text(), text(), text(), text(), name(), text());
    (time(), texts, any::<u64>(), address()).prop_map(|(at, texts, generation, client)| {
        let (request_id, api, operation, consumer, credential, verdict, rule) = texts;
        AuditRecord {
            at,
            request_id: request_id.to_string(),
            api,
            generation,
            operation,
            consumer,
            credential,
            client,
            verdict: verdict.to_string().into(),
            rule: rule.to_string(),
        }
    })
}
