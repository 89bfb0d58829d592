//! Conditions in CEL: what they see, what they cannot be, what they may cost.

use super::*;

fn caller() -> World {
    let mut world = World::with_rule(rule("when", Effect::Allow));
    world.claims = Some(token());
    world.request.path.insert("id", "7".to_owned());
    world.request.query.insert("team", "red".to_owned());
    world.request.header.insert("x-kind", "a".to_owned());
    world
}

fn judge(text: &str) -> Option<WhyNot> {
    let mut world = caller();
    world.config.acl[0].when = Some(arc(text));
    let (_, findings) = ApiAccess::compile(&world.config, &bookstore());
    assert!(findings.is_empty(), "{text}: {findings:?}");
    world.refusal()
}

fn finding(text: &str) -> String {
    let mut world = caller();
    world.config.acl[0].when = Some(arc(text));
    let (access, findings) = ApiAccess::compile(&world.config, &bookstore());
    let [found] = &findings[..] else {
        panic!("{text}: {findings:?}")
    };
    assert_eq!(
        (found.code, found.severity),
        ("bad-condition", Severity::Error)
    );
    assert_eq!(found.place, place(41));
    assert!(access.operations[LIST].needs_cel);
    assert_eq!(world.refusal(), Some(WhyNot::Undecidable), "{text}");
    found.what.clone()
}

use crate::finding::Severity;

#[test]
fn a_condition_sees_the_request_the_caller_and_the_time() {
    for text in [
        "true",
        "request.method == 'GET' && request.host == 'api.example.com' && request.path == '/books'",
        "request.operation == 'listBooks' && request['client'] == '203.0.113.7'",
        "path.id == '7' && int(path['id']) > 6",
        "query.team == claims.team",
        "'team' in query && !('other' in query) && !has(query.more)",
        "header['x-kind'] == 'a'",
        "caller.consumer == 'shop-web' && caller.project == 'shop' && caller.organisation == 'acme'",
        "caller.plan == 'gold' && caller.credential == 'key_1'",
        "['buyer', 'reader', 'author'].all(role, role in caller.roles)",
        "caller.scopes.exists(scope, scope.startsWith('books.'))",
        "claims.level == 7 && claims.level < 8 && claims.big > 7u && claims.share < 1.0",
        "claims.none == null && claims.admin && 'a' in claims.groups",
        "claims.org.id == 'o1' && has(claims.org.tags) && claims.org.tags[0] == 'x'",
        "claims['te' + 'am'] == 'red' && claims.exists(name, name == 'sub')",
        "now == timestamp('2026-11-21T16:00:00Z') && now.getDayOfWeek() == 6",
        "now - timestamp('2026-11-21T15:00:00Z') <= duration('1h')",
        "request.path.matches('^/books(/[0-9]{1,9})?$')",
        "matches(query.team, 'red|blue') && query.team.matches('^r') && !query.team.matches('^e')",
        "caller.scopes.all(scope, scope.matches('^books[.](read|write)$'))",
        "[1, 2].exists(request, request == 2)",
        "claims.groups.map(group, group).size() == 2",
        "claims.groups.filter(group, group == 'a').size() == 1",
        "size('a' + 'b') == 2",
    ] {
        assert_eq!(judge(text), None, "{text}");
    }
}

#[test]
fn a_false_condition_matches_no_call() {
    for text in [
        "false",
        "path.id == '8'",
        "has(query.more)",
        "'x' in caller.roles",
    ] {
        assert_eq!(judge(text), Some(WhyNot::Acl), "{text}");
    }
}

#[test]
fn what_is_neither_true_nor_false_refuses() {
    for text in [
        "query.more == '1'",
        "claims.more == '1'",
        "claims.team",
        "1",
        "path.id > 6",
        "int(query.team) == 1",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "claims.groups[7] == 'a'",
        "claims.level.matches('7')",
        "[1][9223372036854775807] == 1",
        "timestamp('never') == now",
        "duration('1x') > duration('1s')",
    ] {
        assert_eq!(judge(text), Some(WhyNot::Undecidable), "{text}");
        let mut world = caller();
        world.config.acl[0] = RuleConfig {
            when: Some(arc(text)),
            ..rule("when", Effect::Deny)
        };
        assert_eq!(
            world.refusal(),
            Some(WhyNot::Undecidable),
            "{text} as a denial"
        );
    }
}

#[test]
fn what_one_rule_cannot_tell_another_may_allow() {
    let mut world = caller();
    world.config.acl[0].when = Some(arc("query.more == '1'"));
    world.config.acl.push(RuleConfig {
        consumers: arcs(&["other"]),
        ..rule("strangers", Effect::Allow)
    });
    assert_eq!(world.refusal(), Some(WhyNot::Undecidable));
    assert_eq!(world.refused_by(), "acl when");
    world.config.acl.swap(0, 1);
    assert_eq!(world.refused_by(), "acl when");
    world.config.acl.push(rule("all", Effect::Allow));
    assert!(world.decide().is_ok());
}

#[test]
fn without_a_token_or_consumer_there_are_no_claims_and_empty_names() {
    let mut world = World::anonymous(HEALTH);
    world.client = None;
    let text =
        "caller.consumer == '' && caller.roles == [] && caller.plan == '' && request.client == ''";
    world.config.acl.push(RuleConfig {
        when: Some(arc(text)),
        ..rule("when", Effect::Allow)
    });
    assert_eq!(world.refusal(), None);
    world.config.acl[0].when = Some(arc("has(claims.sub)"));
    assert_eq!(world.refusal(), Some(WhyNot::Acl));
}

#[test]
fn names_are_known_when_the_file_is_read() {
    for (text, expected) in [
        (
            "requst.method == 'GET'",
            "there is no variable `requst`; did you mean `request`?",
        ),
        ("zzz", "there is no variable `zzz`; there are request, path"),
        (
            "request.methd == 'GET'",
            "there is no member of `request` `methd`; did you mean `method`?",
        ),
        (
            "caller.consumr == ''",
            "there is no member of `caller` `consumr`; did you mean `consumer`?",
        ),
        (
            "query.a.startWith('a')",
            "there is no function `startWith`; did you mean `startsWith`?",
        ),
        ("query[path.id] == 'a'", "`query` is used as a whole"),
        (
            "query.exists(name, name == 'a')",
            "`query` is used as a whole",
        ),
        ("path.x in header", "`header` is used as a whole"),
        ("request == caller", "`request` is used as a whole"),
        ("now.x == 1", "`now` has no members"),
        (
            "claims.a.matches(query.b)",
            "`matches` needs a pattern that stands in the expression",
        ),
        (
            "claims.a.matches('a' + 'b')",
            "`matches` needs a pattern that stands in the expression",
        ),
        (
            "claims.a.matches('(')",
            "the pattern `(` cannot be read: unclosed group",
        ),
        (
            "claims.a.matches('(?=a)')",
            "the pattern `(?=a)` cannot be read: look-around",
        ),
        (
            "claims.a.matches('a{2,1}')",
            "the pattern `a{2,1}` cannot be read: invalid repetition count range",
        ),
        ("Thing{x: 1}.x == 1", "it makes an object"),
        ("query.?a == '1'", "unsupported"),
        ("1 +", "Syntax error"),
        ("", "Syntax error"),
    ] {
        let what = finding(text);
        let why = what
            .strip_prefix("the condition of rule `when` is refused: ")
            .unwrap();
        assert!(why.contains(expected), "{text}: {why}");
    }
}

#[test]
fn what_a_condition_may_cost_is_bounded_when_the_file_is_read() {
    let lists = "claims.a.all(a, claims.b.all(b, claims.c.all(c, a == b)))".to_owned();
    let literal = format!(
        "[{}].all(a, claims.b.all(b, a == b))",
        "1,".repeat(60) + "1"
    );
    let long_list = format!("[{}].all(a, true)", "1,".repeat(500) + "1");
    let deep = "1".to_owned() + &" + 1".repeat(60) + " > 0";
    let brackets = |depth: usize| "(".repeat(depth) + "true" + &")".repeat(depth);
    let choices = |depth: usize| "false ? false : ".repeat(depth) + "true";
    let wide = "true".to_owned() + &"&&true".repeat(290);
    let pattern = |pattern: &str| format!("request.path.matches('{pattern}')");
    for (text, expected) in [
        (lists, "lists are walked within lists"),
        (literal, "lists are walked within lists"),
        (long_list, "nodes"),
        (deep, "nested"),
        (brackets(49), "more than 48 brackets"),
        (choices(49), "more than 48 question marks"),
        (wide, "nodes"),
        (
            "'".to_owned() + &"a".repeat(3000) + "' == ''",
            "longer than 2048 bytes",
        ),
        (pattern(&"a".repeat(257)), "longer than 256 bytes"),
        (pattern("\\\\w{40}"), "more than 1048576 bytes compiled"),
        (
            pattern("((a{99}){99}){99}"),
            "more than 1048576 bytes compiled",
        ),
        (pattern("[a-z]{99999}"), "more than 1048576 bytes compiled"),
        (
            "claims.a.all(a, a.matches('b') || a.matches('c'))".to_owned(),
            "several patterns are held against each member",
        ),
        (
            "claims.a.map(a, a + a).size() > 0".to_owned(),
            "where values could grow",
        ),
    ] {
        let what = finding(&text);
        assert!(what.contains(expected), "{text}: {what}");
    }
    for text in [
        pattern("a{64}"),
        pattern("\\\\w+/\\\\d{1,4}"),
        pattern("^\\\\w{1,16}$"),
        pattern("[a-z0-9]{1,64}(-[a-z0-9]{1,64}){3}"),
        pattern(&"a".repeat(256)),
        "claims.groups.all(a, [1, 2].all(b, b > 0))".to_owned(),
        brackets(48),
        choices(23),
    ] {
        let mut world = caller();
        world.config.acl[0].when = Some(arc(&text));
        let (_, findings) = ApiAccess::compile(&world.config, &bookstore());
        assert!(findings.is_empty(), "{text}: {findings:?}");
    }
}

#[test]
fn each_bound_is_met_and_not_passed() {
    let filled = |length: usize| format!("true || query.x == '{}'", "a".repeat(length - 21));
    let nested = |plus: usize| "1".to_owned() + &" + 1".repeat(plus) + " > 0";
    let members = |count: usize| format!("1 in [{}1]", "1,".repeat(count - 1));
    for (fits, longer) in [
        (filled(2048), filled(2049)),
        (nested(22), nested(23)),
        // The list, the call and what is looked for are nodes as well.
        (members(397), members(398)),
    ] {
        assert!(cel::Condition::compile(&arc(&fits)).is_ok(), "{fits}");
        assert!(cel::Condition::compile(&arc(&longer)).is_err(), "{longer}");
    }
}

#[test]
fn hostile_texts_are_refused_within_a_small_stack() {
    let repeated = |text: &str| text.repeat(2048 / text.len());
    let mut texts: Vec<_> = [
        "(",
        "[",
        "{",
        "!",
        "-",
        "!(",
        "a.",
        "a[",
        "a?a:",
        "1+",
        "'",
        "{1:",
        "[].all(a,",
        "\u{0}",
        "é",
    ]
    .iter()
    .flat_map(|text| {
        [
            repeated(text),
            repeated(text) + "1",
            repeated(text).replacen("1", "true", 1),
        ]
    })
    .collect();
    for depth in [20, 48, 1000] {
        texts.push("[".repeat(depth) + &"]".repeat(depth));
        texts.push("1".to_owned() + &" + 1".repeat(depth));
        texts.push("false?false:".repeat(depth.min(170)) + "true");
        texts.push("(".repeat(depth) + "true" + &")".repeat(depth));
    }
    let judge = move || {
        for text in texts {
            let mut world = caller();
            world.config.acl[0].when = Some(arc(&text));
            assert_ne!(world.refusal(), Some(WhyNot::Acl), "{text}");
        }
    };
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(judge)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn what_a_token_brings_is_bounded_when_it_is_judged() {
    let mut nested = serde_json::json!(1);
    for _ in 0..9 {
        nested = serde_json::json!([nested]);
    }
    let list = |length: usize| serde_json::Value::from(vec![1; length]);
    let map = |length: usize| {
        (0..length)
            .map(|n| (n.to_string(), serde_json::json!(1)))
            .collect::<serde_json::Value>()
    };
    for (claim, fits) in [
        (list(256), true),
        (list(257), false),
        (map(256), true),
        (map(257), false),
        ("a".repeat(8192).into(), true),
        ("a".repeat(8193).into(), false),
        (nested[0].clone(), true),
        (nested, false),
    ] {
        let mut world = caller();
        world
            .claims
            .as_mut()
            .unwrap()
            .all
            .insert("x".to_owned(), claim);
        world.config.acl[0].when = Some(arc("has(claims.x)"));
        assert_eq!(world.refusal().is_none(), fits);
        world.config.acl[0].when = Some(arc("has(claims.sub)"));
        assert_eq!(
            world.refusal(),
            None,
            "a claim that is not asked for does not matter"
        );
    }
}

#[test]
fn values_of_the_request_are_bounded_when_they_are_judged() {
    let mut world = caller();
    world.config.acl[0].when = Some(arc("has(query.long)"));
    world.request.query.insert("long", "a".repeat(8193));
    assert_eq!(world.refusal(), Some(WhyNot::Undecidable));
    world.request.query.insert("long", "a".repeat(8192));
    assert_eq!(world.refusal(), None);
    world.config.acl[0].when = Some(arc("size(caller.roles) > 0"));
    // With the consumer's own and the token's.
    world.plan().roles = (0..255).map(|n| n.to_string().into()).collect();
    assert_eq!(world.refusal(), Some(WhyNot::Undecidable));
    world.plan().roles.pop();
    assert_eq!(world.refusal(), None);
    world.config.acl[0].when = Some(arc("claims.all(name, name != '')"));
    let claims = &mut world.claims.as_mut().unwrap().all;
    *claims = (0..256)
        .map(|n| (n.to_string(), serde_json::json!(n)))
        .collect();
    assert_eq!(world.refusal(), None);
    let claims = &mut world.claims.as_mut().unwrap().all;
    claims.insert("one more".to_owned(), serde_json::json!(1));
    assert_eq!(world.refusal(), Some(WhyNot::Undecidable));
}
