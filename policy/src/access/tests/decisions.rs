//! The order of the rules, and each but ACL at its edges.

use super::*;
use crate::settings::{NetworkLists, SubscriptionMode};

type Change = fn(&mut World);

#[test]
fn a_caller_in_order_may() {
    let world = World::new();
    let grant = world.decide().unwrap();
    assert_eq!(
        grant,
        Grant {
            subscription: Some(1),
            ..Grant::default()
        }
    );
}

#[test]
fn a_consumer_may_ask_about_itself_unless_it_or_its_credential_or_address_is_refused() {
    assert_eq!(World::new().own_refusal(), None);
    // Of these the operations know, not what a consumer asks about itself.
    let matters: [Change; 4] = [
        |world| world.plan().apis = Vec::new(),
        |world| world.subscription().api = arc("other"),
        |world| world.config.acl.push(rule("never", Effect::Deny)),
        |world| world.duty().accepted = 0,
    ];
    for change in matters {
        let mut world = World::new();
        change(&mut world);
        assert!(world.refusal().is_some());
        assert_eq!(world.own_refusal(), None);
    }
    let refused: [(Change, WhyNot); 5] = [
        (
            |world| world.consumer.as_mut().unwrap().suspended = true,
            WhyNot::Suspended,
        ),
        (
            |world| world.credential.expires = Some(world.now),
            WhyNot::CredentialExpired,
        ),
        (
            |world| world.credential.operations = Some(arcs(&["listBooks"])),
            WhyNot::CredentialRestricted,
        ),
        (
            |world| world.config.networks.deny = vec![network("0.0.0.0/0")],
            WhyNot::Network,
        ),
        (|world| world.consumer = None, WhyNot::Undecidable),
    ];
    for (change, why) in refused {
        let mut world = World::new();
        change(&mut world);
        assert_eq!(world.own_refusal(), Some(why));
    }
}

#[test]
fn the_first_rule_that_refuses_decides() {
    // Each wrong is added to all that come after it in the order.
    let wrongs: [(Change, &str); 9] = [
        (
            |world| world.consumer.as_mut().unwrap().suspended = true,
            "consumer shop-web",
        ),
        (
            |world| world.credential.expires = Some(world.now),
            "credential key_1",
        ),
        (
            |world| world.credential.networks = vec![network("10.0.0.0/8")],
            "credential key_1",
        ),
        (
            |world| world.subscription().api = arc("other"),
            "subscription bookstore",
        ),
        (|world| world.plan().apis = Vec::new(), "plan gold"),
        (
            |world| world.config.networks.deny = vec![network("0.0.0.0/0")],
            "network networks",
        ),
        (
            |world| world.config.acl.push(rule("never", Effect::Deny)),
            "acl never",
        ),
        (
            |world| {
                let strangers = arcs(&["partner-a"]);
                world.config.acl.push(RuleConfig {
                    consumers: strangers,
                    ..rule("some", Effect::Allow)
                });
            },
            "acl some",
        ),
        (|world| world.duty().accepted = 0, "terms fair-use"),
    ];
    for first in 0..wrongs.len() {
        let mut world = World::new();
        // The plan is changed before the subscription is lost.
        for (change, _) in wrongs[first..].iter().rev() {
            change(&mut world);
        }
        assert_eq!(world.refused_by(), wrongs[first].1, "{first}");
    }
}

#[test]
fn what_the_operation_demands_is_never_forgotten() {
    for (operation, open) in [
        (LIST, false),
        (ADD, false),
        (GET, true),
        (HEALTH, true),
        (ODD, false),
    ] {
        let verdict = World::anonymous(operation).decide();
        assert_eq!(verdict.is_ok(), open, "{operation}");
        if let Err(refusal) = verdict {
            assert_eq!(
                (refusal.rule.kind, refusal.why),
                ("security", WhyNot::Undecidable)
            );
        }
    }
    let mut world = World::new();
    for operation in [BROKEN, 6, usize::MAX] {
        world.operation = operation;
        assert_eq!(world.refused_by(), "security bookstore", "{operation}");
    }
    world = World::anonymous(BROKEN);
    world.config.security = SecurityMode::Off;
    assert!(world.decide().is_ok());
}

#[test]
fn anonymous_callers_are_judged_by_networks_and_rules_only() {
    let mut world = World::anonymous(HEALTH);
    world.config.auth.subscription = SubscriptionMode::Required;
    assert_eq!(world.decide(), Ok(Grant::default()));
    world.config.networks.deny = vec![network("203.0.113.0/24")];
    assert_eq!(world.refusal(), Some(WhyNot::Network));
    world.config.networks = NetworkLists::default();
    world.config.acl.push(RuleConfig {
        consumers: arcs(&["shop-web"]),
        ..rule("own", Effect::Allow)
    });
    assert_eq!(world.refusal(), Some(WhyNot::Acl));
}

#[test]
fn a_credential_has_a_first_and_a_last_moment() {
    let moment = at(NOW);
    let just = |millis: i64| Timestamp::from_millis(moment.millis() + millis);
    for (not_before, expires, valid) in [
        (Some(just(0)), None, true),
        (Some(just(1)), None, false),
        (None, Some(just(0)), false),
        (None, Some(just(1)), true),
        (Some(just(0)), Some(just(1)), true),
        (Some(just(1)), Some(just(0)), false),
    ] {
        let mut world = World::new();
        (world.credential.not_before, world.credential.expires) = (not_before, expires);
        let expected = (!valid).then_some(WhyNot::CredentialExpired);
        assert_eq!(world.refusal(), expected, "{not_before:?} {expires:?}");
    }
}

#[test]
fn a_credential_may_be_for_some_operations() {
    for (names, open) in [
        (&["listBooks"][..], true),
        (&["GET /books"], true),
        (&["addBook", "listBooks"], true),
        (&["addBook"], false),
        (&["listbooks"], false),
        (&["*"], false),
        (&[], false),
    ] {
        let mut world = World::new();
        world.credential.operations = Some(arcs(names));
        assert_eq!(world.decide().is_ok(), open, "{names:?}");
        let expected = (!open).then_some(WhyNot::CredentialRestricted);
        assert_eq!(world.refusal(), expected, "{names:?}");
    }
}

#[test]
fn a_credential_may_be_for_some_networks() {
    let mut world = World::new();
    world.credential.networks = vec![network("10.0.0.0/8"), network("203.0.113.0/24")];
    for (client, open) in [
        (Some("203.0.113.255"), true),
        (Some("::ffff:203.0.113.1"), true),
        (Some("203.0.114.0"), false),
        (Some("2001:db8::1"), false),
        (None, false),
    ] {
        world.client = client.map(|client| client.parse().unwrap());
        let expected = (!open).then_some(WhyNot::CredentialRestricted);
        assert_eq!(world.refusal(), expected, "{client:?}");
    }
}

#[test]
fn a_credential_may_be_for_some_pages() {
    let slash = "https://shop.example.com/";
    for (own, referrer, open) in [
        (slash, Some("https://shop.example.com/"), true),
        (slash, Some("https://shop.example.com/cart?x"), true),
        (slash, Some("https://shop.example.com"), true),
        (slash, Some("https://shop.example.co"), false),
        (slash, Some("https://shop.example.com.evil.example/"), false),
        (slash, Some("http://shop.example.com/"), false),
        (slash, None, false),
        (
            "https://shop.example.com",
            Some("https://shop.example.com"),
            true,
        ),
        (
            "https://shop.example.com",
            Some("https://shop.example.com/cart"),
            true,
        ),
        (
            "https://shop.example.com",
            Some("https://shop.example.com?x"),
            true,
        ),
        (
            "https://shop.example.com",
            Some("https://shop.example.com#x"),
            true,
        ),
        (
            "https://shop.example.com",
            Some("https://shop.example.com.evil.example"),
            false,
        ),
        (
            "https://shop.example.com",
            Some("https://shop.example.com@evil.example"),
            false,
        ),
        (
            "https://shop.example.com",
            Some("https://shop.example.com:8443"),
            false,
        ),
        (
            "https://shop.example.com/app",
            Some("https://shop.example.com/apple"),
            false,
        ),
        (
            "https://shop.example.com/app/",
            Some("https://shop.example.com"),
            false,
        ),
    ] {
        let mut world = World::new();
        world.credential.referrers = vec![arc("https://other.example/"), arc(own)];
        world.referrer = referrer;
        let expected = (!open).then_some(WhyNot::CredentialRestricted);
        assert_eq!(world.refusal(), expected, "{own} {referrer:?}");
    }
}

#[test]
fn who_needs_a_plan_depends_on_the_mode() {
    let subscriber: Change = |_| {};
    let stranger: Change = |world| world.subscription().api = arc("other");
    let closed_plan: Change = |world| world.plan().apis.clear();
    let token: Change = |world| (world.consumer, world.claims) = (None, Some(super::token()));
    let peer: Change =
        |world| (world.consumer, world.certificate) = (None, Some(arc("spiffe://x/y")));
    use SubscriptionMode::{Consumers, Off, Required};
    for (mode, caller, expected) in [
        (Consumers, subscriber, Ok(Some(1))),
        (Consumers, stranger, Err(WhyNot::NotSubscribed)),
        (Consumers, closed_plan, Err(WhyNot::NotInPlan)),
        (Consumers, token, Ok(None)),
        (Consumers, peer, Ok(None)),
        (Required, subscriber, Ok(Some(1))),
        (Required, stranger, Err(WhyNot::NotSubscribed)),
        (Required, token, Err(WhyNot::NotSubscribed)),
        (Required, peer, Err(WhyNot::NotSubscribed)),
        (Off, subscriber, Ok(None)),
        (Off, stranger, Ok(None)),
        (Off, closed_plan, Ok(None)),
        (Off, token, Ok(None)),
    ] {
        let mut world = World::new();
        world.config.auth.subscription = mode;
        caller(&mut world);
        let verdict = world
            .decide()
            .map(|grant| grant.subscription)
            .map_err(|no| no.why);
        assert_eq!(verdict, expected, "{mode:?}");
    }
}

#[test]
fn a_plan_opens_operations_by_each_of_their_names() {
    let part = |api: &str, names: Option<&[&str]>| PlanApi {
        api: arc(api),
        operations: names.map(arcs),
    };
    for (apis, operation, open) in [
        (vec![part("bookstore", None)], LIST, true),
        (vec![part("*", None)], LIST, true),
        (vec![part("films", None)], LIST, false),
        (vec![part("bookstore", Some(&[]))], LIST, false),
        (vec![part("bookstore", Some(&["listBooks"]))], LIST, true),
        (vec![part("*", Some(&["listBooks"]))], LIST, true),
        (vec![part("films", Some(&["listBooks"]))], LIST, false),
        (
            vec![
                part("bookstore", Some(&["addBook"])),
                part("*", Some(&["listBooks"])),
            ],
            LIST,
            true,
        ),
        (vec![part("bookstore", Some(&["get book!"]))], GET, true),
        (vec![part("bookstore", Some(&["get_book_"]))], GET, true),
        (
            vec![part("bookstore", Some(&["GET /books/{id}"]))],
            GET,
            true,
        ),
        (
            vec![part("bookstore", Some(&["POST /books/{id}"]))],
            GET,
            false,
        ),
        (
            vec![part("bookstore", Some(&["get /books/{id}"]))],
            GET,
            false,
        ),
        (Vec::new(), LIST, false),
    ] {
        let mut world = World::new();
        world.operation = operation;
        world.plan().apis.clone_from(&apis);
        let expected = (!open).then_some(WhyNot::NotInPlan);
        assert_eq!(world.refusal(), expected, "{apis:?}");
    }
}

#[test]
fn addresses_are_allowed_and_denied() {
    let inside = "203.0.113.7";
    for (allow, deny, client, open) in [
        (None, None, None, true),
        (Some("203.0.113.0/24"), None, Some(inside), true),
        (
            Some("203.0.113.0/24"),
            None,
            Some("::ffff:203.0.113.7"),
            true,
        ),
        (Some("203.0.113.0/24"), None, Some("203.0.112.255"), false),
        (Some("203.0.113.0/24"), None, Some("2001:db8::1"), false),
        (Some("203.0.113.0/24"), None, None, false),
        (None, Some("203.0.113.0/24"), Some(inside), false),
        (
            None,
            Some("203.0.113.0/24"),
            Some("::ffff:203.0.113.7"),
            false,
        ),
        (None, Some("203.0.113.0/24"), Some("192.0.2.1"), true),
        (None, Some("203.0.113.0/24"), None, false),
        (
            Some("203.0.113.0/24"),
            Some("203.0.113.7/32"),
            Some(inside),
            false,
        ),
        (
            Some("203.0.113.0/24"),
            Some("203.0.113.7/32"),
            Some("203.0.113.8"),
            true,
        ),
        (Some("2001:db8::/32"), None, Some("2001:db8::1"), true),
    ] {
        let mut world = World::new();
        world.config.networks.allow = allow.into_iter().map(network).collect();
        world.config.networks.deny = deny.into_iter().map(network).collect();
        world.client = client.map(|client| client.parse().unwrap());
        let expected = (!open).then_some(WhyNot::Network);
        assert_eq!(world.refusal(), expected, "{allow:?} {deny:?} {client:?}");
        world.config.networks.shadow = true;
        let shadowed = if open {
            vec![]
        } else {
            vec!["network networks".to_owned()]
        };
        assert_eq!(world.shadowed(), shadowed, "{allow:?} {deny:?} {client:?}");
    }
}

#[test]
fn terms_are_required_from_their_first_moment_and_grace_ends() {
    let first = || version(1, "2026-01-01T00:00:00Z", 0);
    let second = |grace| version(2, "2026-11-21T15:00:00Z", grace);
    let due = |version| {
        Err(WhyNot::Terms {
            terms: arc("fair-use"),
            version,
        })
    };
    let grace = |version, until| Ok(Some((arc("fair-use"), version, at(until))));
    for (accepted, versions, expected) in [
        (0, vec![], Ok(None)),
        (0, vec![first()], due(1)),
        (1, vec![first()], Ok(None)),
        (2, vec![first()], Ok(None)),
        (1, vec![first(), second(0)], due(2)),
        (2, vec![first(), second(0)], Ok(None)),
        // Grace ends at 16:00:00 and at 16:00:01.
        (1, vec![first(), second(3600)], due(2)),
        (
            1,
            vec![first(), second(3601)],
            grace(2, "2026-11-21T16:00:01Z"),
        ),
        // Who never accepted the first does not profit from the grace of the second.
        (0, vec![first(), second(3601)], due(2)),
        // Two in grace: the highest is asked for, by the earliest end.
        (
            0,
            vec![version(1, "2026-11-21T14:00:00Z", 7800), second(7200)],
            grace(2, "2026-11-21T16:10:00Z"),
        ),
        // In force at this very moment, and a moment later.
        (1, vec![first(), version(2, NOW, 0)], due(2)),
        (
            1,
            vec![first(), version(2, NOW, 1)],
            grace(2, "2026-11-21T16:00:01Z"),
        ),
        (
            1,
            vec![first(), version(2, "2026-11-21T16:00:00.001Z", 0)],
            Ok(None),
        ),
    ] {
        let mut world = World::new();
        (world.duty().accepted, world.duty().versions) = (accepted, versions.clone());
        let verdict = world
            .decide()
            .map(|grant| grant.grace)
            .map_err(|refusal| refusal.why);
        assert_eq!(verdict, expected, "{accepted} {versions:?}");
        world.duty().shadow = true;
        let shadowed = if expected.is_err() {
            vec!["terms fair-use".to_owned()]
        } else {
            vec![]
        };
        assert_eq!(world.shadowed(), shadowed, "{accepted} {versions:?}");
        assert_eq!(world.decide().unwrap().grace, None, "shadows warn nobody");
    }
}

#[test]
fn of_several_terms_each_counts_and_the_first_end_is_told() {
    let mut world = World::new();
    let ending = |name: &str, seconds| TermsDuty {
        terms: arc(name),
        accepted: 0,
        versions: vec![version(1, NOW, seconds)],
        shadow: false,
        origin: Defined::Store,
    };
    for order in [[30, 20], [20, 30]] {
        let duties = [ending("a", order[0]), ending("b", order[1])];
        world.subscription().duties = duties.to_vec();
        let (name, _, until) = world.decide().unwrap().grace.unwrap();
        assert_eq!(until, at("2026-11-21T16:00:20Z"));
        assert_eq!(&*name, if order[0] == 20 { "a" } else { "b" });
    }
    // The first one told stays where both end together.
    world.subscription().duties = vec![ending("a", 20), ending("b", 20)];
    assert_eq!(&*world.decide().unwrap().grace.unwrap().0, "a");
    world.subscription().duties = vec![ending("a", 20), ending("b", 0)];
    assert_eq!(world.refused_by(), "terms b");
    world.config.auth.subscription = SubscriptionMode::Off;
    assert_eq!(
        world.decide(),
        Ok(Grant::default()),
        "without plans nothing is asked for"
    );
}

#[test]
fn a_token_needs_every_scope() {
    let token = token();
    assert_eq!(scopes_satisfied(&[], &token), Ok(()));
    assert_eq!(
        scopes_satisfied(&arcs(&["books.read", "books.write"]), &token),
        Ok(())
    );
    assert_eq!(
        scopes_satisfied(&arcs(&["books.read", "books.admin"]), &token),
        Err(arc("books.admin"))
    );
    assert_eq!(
        scopes_satisfied(&arcs(&["books"]), &token),
        Err(arc("books"))
    );
}

#[test]
fn an_explanation_names_every_rule_with_its_place() {
    let mut world = World::new();
    world.config.networks.allow = vec![network("203.0.113.0/24")];
    world.config.acl.push(RuleConfig {
        roles: arcs(&["thief"]),
        ..rule("no-thieves", Effect::Deny)
    });
    let partners = RuleConfig {
        consumers: arcs(&["partner-a"]),
        ..rule("partners-only", Effect::Allow)
    };
    world.config.acl.push(partners);
    assert_eq!(
        world.explained(),
        "consumers.yaml consumer shop-web: passed (not suspended)\n\
         credential key_1: passed (within its time and restrictions)\n\
         plans.yaml plan gold: passed (opens listBooks)\n\
         apis/bookstore.yaml network networks: passed (203.0.113.7 may call)\n\
         apis/bookstore.yaml:41:5 acl no-thieves: not applicable (the caller has no role of thief)\n\
         apis/bookstore.yaml:41:5 acl partners-only: refused (consumer shop-web is not one of partner-a)\n"
    );
    world.config.acl[1].shadow = true;
    let mut explanation = Explanation::default();
    world.witnessed(&mut explanation).unwrap();
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(
        json[5],
        serde_json::json!({
            "kind": "acl", "name": "partners-only", "place": "apis/bookstore.yaml:41:5", "outcome": "shadowed",
            "detail": "consumer shop-web is not one of partner-a",
        })
    );
    assert_eq!(json[6]["detail"], "accepted in version 1");
}

#[test]
fn every_refusal_is_the_last_line_of_its_explanation() {
    let wrongs: [Change; 10] = [
        |world| world.operation = BROKEN,
        |world| world.operation = 99,
        |world| world.consumer.as_mut().unwrap().suspended = true,
        |world| world.credential.not_before = Some(at("2027-01-01T00:00:00Z")),
        |world| world.credential.operations = Some(Vec::new()),
        |world| world.subscription().api = arc("other"),
        |world| world.plan().apis = Vec::new(),
        |world| world.config.networks.deny = vec![network("0.0.0.0/0")],
        |world| world.config.acl.push(rule("never", Effect::Deny)),
        |world| world.duty().accepted = 0,
    ];
    for change in wrongs {
        let mut world = World::new();
        change(&mut world);
        let mut explanation = Explanation::default();
        let refusal = world.witnessed(&mut explanation).unwrap_err();
        let last = explanation.lines.pop().unwrap();
        assert_eq!(
            (last.kind, &*last.name),
            (refusal.rule.kind, &*refusal.rule.name)
        );
        assert_eq!(last.outcome, Outcome::Refused);
        assert!(
            explanation
                .lines
                .iter()
                .all(|line| line.outcome != Outcome::Refused)
        );
    }
}

#[test]
fn an_explanation_follows_grace_and_shadows() {
    let mut world = World::anonymous(HEALTH);
    assert_eq!(
        world.explained(),
        "apis/bookstore.yaml subscription bookstore: not applicable (no plan needed)\n"
    );
    world = World::new();
    world.duty().versions = vec![version(2, NOW, 60)];
    assert!(world.explained().ends_with(
        "terms.yaml terms fair-use: passed (version 2 has to be accepted before 2026-11-21T16:01:00Z)\n"
    ));
    world.duty().versions = vec![version(2, NOW, 0)];
    world.duty().shadow = true;
    assert!(world.explained().ends_with(
        "terms.yaml terms fair-use: would refuse, but is a shadow (version 2 is required, 1 accepted)\n"
    ));
}
