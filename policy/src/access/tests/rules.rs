//! ACL rules: each field, allow beside deny, shadows.

use super::*;

/// A rule that allows all but for one field.
fn only(change: impl FnOnce(&mut RuleConfig)) -> World {
    let mut config = rule("only", Effect::Allow);
    change(&mut config);
    World::with_rule(config)
}

/// Whether the rule matches, told by an allow rule and by the same as a denial.
fn matches(mut world: World) -> bool {
    let allowed = world.decide().is_ok();
    world.config.acl[0].effect = Effect::Deny;
    assert_eq!(world.decide().is_ok(), !allowed);
    allowed
}

#[test]
fn a_rule_without_fields_matches_every_call() {
    assert!(matches(only(|_| {})));
}

#[test]
fn one_value_of_a_field_is_enough() {
    type Field = fn(&mut RuleConfig) -> &mut Vec<Arc<str>>;
    let fields: [(Field, &str); 7] = [
        (|rule| &mut rule.consumers, "shop-web"),
        (|rule| &mut rule.projects, "shop"),
        (|rule| &mut rule.organisations, "acme"),
        (|rule| &mut rule.plans, "gold"),
        (|rule| &mut rule.roles, "buyer"),
        (|rule| &mut rule.roles, "reader"),
        (|rule| &mut rule.operations, "listBooks"),
    ];
    for (field, value) in fields {
        assert!(
            matches(only(|rule| *field(rule) = arcs(&[value]))),
            "{value}"
        );
        assert!(
            matches(only(|rule| *field(rule) = arcs(&["other", value]))),
            "{value}"
        );
    }
    for (field, value) in &fields[..6] {
        assert!(
            !matches(only(|rule| *field(rule) = arcs(&["other"]))),
            "{value}"
        );
        let mut nobody = only(|rule| *field(rule) = arcs(&[value]));
        (nobody.operation, nobody.consumer) = (HEALTH, None);
        assert!(!matches(nobody), "{value}");
    }
}

#[test]
fn a_token_brings_scopes_and_roles() {
    for (scopes, roles, expected) in [
        (&["books.write"][..], &[][..], true),
        (&["x", "books.read"], &[], true),
        (&["x"], &[], false),
        (&[], &["author"], true),
        (&[], &["buyer"], true),
        (&["books.write"], &["x"], false),
        (&["x"], &["author"], false),
    ] {
        let world = || only(|rule| (rule.scopes, rule.roles) = (arcs(scopes), arcs(roles)));
        let mut shown = world();
        shown.claims = Some(token());
        assert_eq!(matches(shown), expected, "{scopes:?} {roles:?}");
        let with_key = world();
        assert_eq!(
            matches(with_key),
            roles == ["buyer"],
            "{scopes:?} {roles:?}"
        );
    }
}

#[test]
fn all_fields_have_to_match() {
    let both = |project: &str| {
        only(|rule| (rule.consumers, rule.projects) = (arcs(&["shop-web"]), arcs(&[project])))
    };
    assert!(matches(both("shop")));
    assert!(!matches(both("other")));
}

#[test]
fn a_plan_of_another_api_does_not_count() {
    let mut world = only(|rule| rule.plans = arcs(&["gold"]));
    world.config.auth.subscription = crate::settings::SubscriptionMode::Off;
    world.subscription().api = arc("other");
    assert!(!matches(world));
}

#[test]
fn networks_of_a_rule() {
    for (client, expected) in [
        ("203.0.113.7", true),
        ("::ffff:203.0.113.7", true),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("2001:db8::1", false),
    ] {
        let mut world =
            only(|rule| rule.networks = vec![network("203.0.113.0/24"), network("192.0.2.1/32")]);
        world.client = Some(client.parse().unwrap());
        assert_eq!(matches(world), expected, "{client}");
    }
}

#[test]
fn an_unknown_address_is_refused_by_both_effects() {
    for effect in [Effect::Allow, Effect::Deny] {
        let networks = vec![network("203.0.113.0/24")];
        let mut world = World::with_rule(RuleConfig {
            networks,
            ..rule("near", effect)
        });
        world.client = None;
        assert_eq!(world.refusal(), Some(WhyNot::Undecidable), "{effect:?}");
        world.config.acl[0].consumers = arcs(&["other"]);
        let expected = (effect == Effect::Allow).then_some(WhyNot::Acl);
        assert_eq!(
            world.refusal(),
            expected,
            "it is not about this consumer anyway"
        );
    }
}

#[test]
fn of_several_rules_that_cannot_tell_the_first_is_named() {
    let near = |name: &str| RuleConfig {
        networks: vec![network("203.0.113.0/24")],
        ..rule(name, Effect::Allow)
    };
    let mut world = World::with_rule(near("one"));
    world.config.acl.push(near("two"));
    world.client = None;
    assert_eq!(world.refused_by(), "acl one");
}

#[test]
fn a_rule_has_a_first_and_a_last_moment() {
    let just = |millis: i64| Some(Timestamp::from_millis(at(NOW).millis() + millis));
    for (start, end, expected) in [
        (just(0), None, true),
        (just(1), None, false),
        (None, just(0), false),
        (None, just(1), true),
        (just(-1), just(1), true),
    ] {
        let world = only(|rule| (rule.not_before, rule.not_after) = (start, end));
        assert_eq!(matches(world), expected, "{start:?} {end:?}");
    }
}

#[test]
fn hours_may_pass_midnight() {
    let minute = |hour: u16, minute: u16| hour * 60 + minute;
    for (from, until, now, expected) in [
        (minute(9, 0), minute(17, 0), "2026-11-21T09:00:00Z", true),
        (
            minute(9, 0),
            minute(17, 0),
            "2026-11-21T08:59:59.999Z",
            false,
        ),
        (
            minute(9, 0),
            minute(17, 0),
            "2026-11-21T16:59:59.999Z",
            true,
        ),
        (minute(9, 0), minute(17, 0), "2026-11-21T17:00:00Z", false),
        (
            minute(9, 0),
            minute(17, 0),
            "2026-11-21T18:00:00+02:00",
            true,
        ),
        (minute(22, 0), minute(6, 0), "2026-11-21T22:00:00Z", true),
        (minute(22, 0), minute(6, 0), "2026-11-21T21:59:59Z", false),
        (minute(22, 0), minute(6, 0), "2026-11-21T00:00:00Z", true),
        (minute(22, 0), minute(6, 0), "2026-11-21T05:59:59Z", true),
        (minute(22, 0), minute(6, 0), "2026-11-21T06:00:00Z", false),
        (0, 1440, "2026-11-21T23:59:59.999Z", true),
        (0, 1440, "2026-11-21T00:00:00Z", true),
        (minute(23, 0), 0, "2026-11-21T23:30:00Z", true),
        (minute(23, 0), 0, "2026-11-21T00:00:00Z", false),
        (0, 1, "1969-12-31T00:00:30Z", true),
        (minute(12, 0), minute(12, 0), "2026-11-21T12:00:00Z", false),
    ] {
        let mut world = only(|rule| rule.hours = Some((from, until)));
        world.now = at(now);
        world.duty().versions.clear();
        assert_eq!(matches(world), expected, "{from} {until} {now}");
    }
}

#[test]
fn a_denial_wins_over_what_allows() {
    let mut world = World::with_rule(rule("all", Effect::Allow));
    assert!(world.decide().is_ok());
    world.config.acl.push(rule("none", Effect::Deny));
    assert_eq!(world.refused_by(), "acl none");
}

#[test]
fn one_of_several_that_allow_is_enough() {
    let strangers = || RuleConfig {
        consumers: arcs(&["other"]),
        ..rule("strangers", Effect::Allow)
    };
    let mut world = World::with_rule(strangers());
    world.config.acl.push(RuleConfig {
        name: arc("more"),
        ..strangers()
    });
    assert_eq!(world.refused_by(), "acl strangers");
    assert_eq!(world.refusal(), Some(WhyNot::Acl));
    world.config.acl.push(RuleConfig {
        projects: arcs(&["shop"]),
        ..rule("shop", Effect::Allow)
    });
    assert!(world.decide().is_ok());
    let told = world.explained();
    assert!(told.contains("acl strangers: not applicable (consumer shop-web is not one of other)"));
    assert!(told.contains("acl shop: passed (the call matches)"));
}

#[test]
fn rules_about_other_operations_do_not_count() {
    let elsewhere = |effect| RuleConfig {
        operations: arcs(&["addBook"]),
        ..rule("elsewhere", effect)
    };
    for effect in [Effect::Allow, Effect::Deny] {
        let mut world = World::with_rule(RuleConfig {
            consumers: vec![],
            ..elsewhere(effect)
        });
        assert!(world.decide().is_ok());
        assert!(!world.explained().contains("elsewhere"));
        world.operation = ADD;
        assert_eq!(world.decide().is_ok(), effect == Effect::Allow);
    }
}

#[test]
fn a_shadow_denial_is_noted_and_not_enforced() {
    let mut world = World::with_rule(RuleConfig {
        shadow: true,
        ..rule("soon", Effect::Deny)
    });
    assert_eq!(world.shadowed(), ["acl soon"]);
    assert!(
        world
            .explained()
            .contains("acl soon: would refuse, but is a shadow (the call matches)")
    );
    world.config.acl.push(RuleConfig {
        shadow: true,
        ..rule("later", Effect::Deny)
    });
    assert_eq!(world.shadowed(), ["acl soon", "acl later"]);
    world.config.acl[0].consumers = arcs(&["other"]);
    assert_eq!(world.shadowed(), ["acl later"]);
    world.config.acl[1].when = Some(arc("query.x == '1'"));
    assert_eq!(
        world.shadowed(),
        ["acl later"],
        "what it cannot tell it would refuse"
    );
    world.config.acl[1].shadow = false;
    assert_eq!(world.refusal(), Some(WhyNot::Undecidable));
}

#[test]
fn shadows_that_allow_are_asked_where_none_is_enforced() {
    let shadow = |consumer: &str| RuleConfig {
        shadow: true,
        consumers: arcs(&[consumer]),
        ..rule("soon", Effect::Allow)
    };
    let mut world = World::with_rule(shadow("other"));
    assert_eq!(world.shadowed(), ["acl soon"]);
    world.config.acl.push(RuleConfig {
        name: arc("too"),
        ..shadow("shop-web")
    });
    assert!(world.shadowed().is_empty(), "one of them would allow it");
    assert!(world.explained().contains("acl soon: not applicable"));
    world.config.acl.pop();
    world.config.acl.push(RuleConfig {
        projects: arcs(&["shop"]),
        ..rule("now", Effect::Allow)
    });
    assert!(world.shadowed().is_empty());
    assert!(
        world
            .explained()
            .contains("acl soon: not applicable (a shadow beside rules that are enforced)")
    );
    world.config.acl[1].projects = arcs(&["other"]);
    world.config.acl[0].consumers = arcs(&["shop-web"]);
    assert_eq!(world.refused_by(), "acl now", "a shadow admits nobody");
}

#[test]
fn differences_are_told_in_words() {
    let mut world = World::anonymous(HEALTH);
    let mut deny = |change: &dyn Fn(&mut RuleConfig)| {
        let mut config = rule("r", Effect::Deny);
        change(&mut config);
        world.config.acl = vec![config];
        let text = world.explained();
        text.lines()
            .last()
            .unwrap()
            .split_once('(')
            .unwrap()
            .1
            .to_owned()
    };
    let later = Some(at("2027-01-01T00:00:00Z"));
    let early = Some(at("2026-01-01T00:00:00Z"));
    assert_eq!(
        deny(&|r| r.plans = arcs(&["a", "b"])),
        "the caller has no plan, wanted is one of a, b)"
    );
    assert_eq!(
        deny(&|r| r.scopes = arcs(&["a", "b"])),
        "the caller has no scope of a, b)"
    );
    assert_eq!(
        deny(&|r| r.networks = vec![network("10.0.0.0/8")]),
        "address 203.0.113.7 is in none of its networks)"
    );
    assert_eq!(
        deny(&|r| r.not_before = later),
        "it holds from 2027-01-01T00:00:00Z)"
    );
    assert_eq!(
        deny(&|r| r.not_after = early),
        "it held until 2026-01-01T00:00:00Z)"
    );
    assert_eq!(
        deny(&|r| r.hours = Some((1385, 65))),
        "it holds from 23:05 to 01:05 UTC)"
    );
    assert_eq!(deny(&|r| r.when = Some(arc("1 > 2"))), "`1 > 2` is false)");
    let told = deny(&|r| r.when = Some(arc("query.x == '1'")));
    assert!(
        told.starts_with("its condition cannot be evaluated: "),
        "{told}"
    );
}

fn hanging(rules: &[RuleConfig]) -> crate::settings::OperationSettings {
    crate::settings::OperationSettings {
        acl: Some(rules.to_vec()),
        ..Default::default()
    }
}

#[test]
fn a_rule_that_hangs_on_an_operation_is_about_it_alone() {
    let mut world = World::new();
    let rules = [rule("closed", Effect::Deny)];
    world
        .config
        .operations
        .insert("listBooks".to_owned(), hanging(&rules));
    assert_eq!(world.refused_by(), "acl closed");
    for operation in [ADD, GET] {
        world.operation = operation;
        assert_eq!(world.refusal(), None, "{operation}");
    }
}

#[test]
fn rules_of_the_api_hold_beside_those_of_the_operation() {
    let stranger = |name| RuleConfig {
        consumers: arcs(&["other"]),
        ..rule(name, Effect::Allow)
    };
    let mut world = World::with_rule(stranger("wide"));
    let own = |rule| hanging(&[rule]);
    let set = |world: &mut World, rule| {
        let operations = &mut world.config.operations;
        operations.insert("listBooks".to_owned(), own(rule));
    };
    set(&mut world, rule("own", Effect::Allow));
    assert_eq!(world.refusal(), None, "one that allows is enough");
    set(&mut world, stranger("own"));
    assert_eq!(world.refusal(), Some(WhyNot::Acl));
    world.config.acl[0] = rule("wide", Effect::Deny);
    set(&mut world, rule("own", Effect::Allow));
    assert_eq!(world.refused_by(), "acl wide");
}

#[test]
fn a_rule_that_hangs_on_every_operation_is_compiled_once() {
    let mut world = World::new();
    let when = RuleConfig {
        when: Some(arc("request.method == 'GET'")),
        ..rule("reads", Effect::Allow)
    };
    world.config.defaults = hanging(std::slice::from_ref(&when));
    let elsewhere = RuleConfig {
        place: place(60),
        ..when
    };
    let operations = &mut world.config.operations;
    operations.insert("broken".to_owned(), hanging(&[elsewhere]));
    operations.insert("odd".to_owned(), hanging(&[]));
    let (access, findings) = ApiAccess::compile(&world.config, &bookstore());
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(access.rules.len(), 2);
    let allowances: Vec<_> = access
        .operations
        .iter()
        .map(|it| it.allowances.clone())
        .collect();
    let none = Vec::new();
    assert_eq!(
        allowances,
        [vec![0], vec![0], vec![0], vec![0], vec![1], none]
    );
    let needs = access.operations.iter().map(|it| it.needs_cel);
    assert_eq!(
        needs.collect::<Vec<_>>(),
        [true, true, true, true, true, false]
    );
    assert_eq!(world.refusal(), None);
}

#[test]
fn the_rules_of_an_operation_have_names_of_their_own() {
    let told = |wide: &[&str], own: &[RuleConfig]| {
        let mut config = config();
        config.acl = wide.iter().map(|name| rule(name, Effect::Deny)).collect();
        config.defaults = hanging(own);
        let (_, findings) = ApiAccess::compile(&config, &bookstore());
        let found = findings.into_iter();
        let found: Vec<_> = found.map(|it| (it.code, it.place.line, it.what)).collect();
        found
    };
    let at_line = |name: &str, line| RuleConfig {
        place: place(line),
        ..rule(name, Effect::Allow)
    };
    assert_eq!(told(&["a"], &[at_line("b", 7), at_line("c", 8)]), []);
    let doubled = |line| {
        let what = "operation `listBooks` has two rules `a`".to_owned();
        [("duplicate-rule", line, what)]
    };
    assert_eq!(told(&["a"], &[at_line("a", 7)]), doubled(7));
    assert_eq!(told(&[], &[at_line("a", 7), at_line("a", 8)]), doubled(8));
}
