//! Whatever the rules are: more denials admit fewer, fewer allowances never admit through a denial, shadows change nothing.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn names() -> impl Strategy<Value = Vec<Arc<str>>> {
    let names = [
        "shop-web",
        "shop",
        "acme",
        "gold",
        "buyer",
        "reader",
        "other",
        "listBooks",
        "addBook",
    ];
    vec(prop::sample::select(names.to_vec()), 0..3).prop_map(|names| arcs(&names))
}

fn any_rule() -> impl Strategy<Value = RuleConfig> {
    let who = (names(), names(), names(), names());
    let when = prop::option::of(prop::sample::select(vec![
        "true",
        "false",
        "query.a == '1'",
        "request.method == 'GET'",
    ]));
    let networks = prop::sample::select(vec![None, Some("203.0.113.0/24"), Some("10.0.0.0/8")]);
    let hours = prop::option::of((0..1440_u16, 0..1440_u16));
    (any::<[bool; 2]>(), who, when, networks, hours).prop_map(
        |([deny, shadow], (consumers, plans, roles, operations), when, networks, hours)| {
            RuleConfig {
                consumers,
                plans,
                roles,
                operations: if operations.len() == 1 {
                    operations
                } else {
                    Vec::new()
                },
                networks: networks.into_iter().map(network).collect(),
                hours,
                when: when.map(arc),
                shadow,
                ..rule("any", if deny { Effect::Deny } else { Effect::Allow })
            }
        },
    )
}

fn admits(rules: &[RuleConfig], known: bool) -> bool {
    let mut world = if known {
        World::new()
    } else {
        World::anonymous(HEALTH)
    };
    world.config.acl = rules.to_vec();
    world.decide().is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_more_denial_never_admits_more(
        mut rules in vec(any_rule(), 0..6), denial in any_rule(), known: bool,
    ) {
        let before = admits(&rules, known);
        rules.push(RuleConfig { effect: Effect::Deny, ..denial });
        prop_assert!(before || !admits(&rules, known));
    }

    #[test]
    fn one_more_that_allows_beside_others_never_refuses_more(
        mut rules in vec(any_rule(), 0..6), more in any_rule(), known: bool,
    ) {
        let before = admits(&rules, known);
        let enforced = |rule: &RuleConfig| {
            !rule.shadow && rule.effect == Effect::Allow && rule.operations.is_empty()
        };
        prop_assume!(rules.iter().any(enforced));
        rules.push(RuleConfig { effect: Effect::Allow, ..more });
        prop_assert!(!before || admits(&rules, known));
    }

    #[test]
    fn taking_the_last_that_allows_away_never_opens_what_a_denial_closes(
        mut rules in vec(any_rule(), 0..6), known: bool,
    ) {
        let denials: Vec<_> = rules.iter().filter(|rule| rule.effect == Effect::Deny).cloned().collect();
        let closed = !admits(&denials, known);
        rules.retain(|rule| rule.effect == Effect::Deny || !rule.shadow);
        prop_assert!(!closed || !admits(&rules, known));
    }

    #[test]
    fn shadows_change_no_verdict(rules in vec(any_rule(), 0..6), known: bool) {
        let enforced: Vec<_> = rules.iter().filter(|rule| !rule.shadow).cloned().collect();
        prop_assert_eq!(admits(&rules, known), admits(&enforced, known));
    }

    #[test]
    fn the_order_of_rules_changes_no_verdict(rules in vec(any_rule(), 0..6), known: bool) {
        let mut reversed = rules.clone();
        reversed.reverse();
        prop_assert_eq!(admits(&rules, known), admits(&reversed, known));
    }

    #[test]
    fn who_is_told_of_a_call_decides_as_who_sees_it_and_admits_nobody_where_a_condition_counts(
        rules in vec(any_rule(), 0..6), address in prop::sample::select(vec!["203.0.113.7", "10.1.1.1"]), known: bool,
    ) {
        let mut world = World::new();
        world.client = known.then(|| address.parse().unwrap());
        let conditional = rules.iter().any(|rule| rule.when.is_some());
        world.config.acl = rules;
        let told = remote::told(&world);
        match conditional {
            // A rule of another operation has no say.
            true => prop_assert!(told == world.refusal() || told == Some(WhyNot::Undecidable)),
            false => prop_assert_eq!(told, world.refusal()),
        }
    }
}
