//! Mistakes in plans, consumers and terms and their messages; what they mean; how long many take.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::too_many_lines,
    reason = "tests"
)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::super::tests::{Files, Row, environment, expect};
use super::*;
use crate::directory::Defined;

const PLANS: &str = "plans:
  free: { apis: { bookstore: [listBooks, 'GET /books/{id}'] } }
  gold: { apis: { bookstore: all, '*': all }, roles: [staff], terms: [bookstore-terms] }
";

const TERMS: &str = "terms:
  bookstore-terms:
    title: Bookstore terms
    apis: [bookstore]
    versions:
      - { version: 2, text: terms/two.md, effective: 2026-06-01T00:00:00Z, grace: 14d, purpose: required }
      - { version: 1, text: terms/one.md, effective: 2026-01-01T00:00:00Z }
";

const CONSUMERS: &str = "organisations:
  acme:
    title: Acme Inc.
    projects:
      shop:
        title: Web shop
        consumers:
          shop-web:
            roles: [reader]
            explains: on
            subscriptions: { bookstore: gold }
            logins: [{ issuer: 'https://id.example.com', client: shop-web }]
            certificates: [spiffe://example.com/shop]
            users: [{ name: shop, password_hash: '${HASH}' }]
            keys:
              - name: first
                secret: ${KEY_A}
                not_before: 2026-01-01T00:00:00Z
                expires: 2027-01-01T00:00:00Z
                operations: [listBooks]
                networks: [10.0.0.0/8]
                referrers: ['https://shop.example.com']
          idle:
            suspended: on
  lone:
";

fn directory() -> Files {
    let files = Files::new();
    files.write("plans.yaml", PLANS);
    files.write("terms.yaml", TERMS);
    files.write("consumers.yaml", CONSUMERS);
    files.write("terms/one.md", "# One\n");
    files.write("terms/two.md", "# Two\n");
    files
}

fn read(files: &Files) -> Result<(DirectoryConfig, Vec<PathBuf>), Vec<Finding>> {
    read_directory(files.path(), &environment)
}

fn expect_all(name: &str, table: &[Row<'_>]) {
    for (text, line, column, code, words) in table {
        let files = directory();
        files.write(name, text);
        if name == "plans.yaml" {
            files.write("consumers.yaml", "");
        }
        expect((text, *line, *column, code, words), read(&files));
    }
}

#[test]
fn what_is_written_is_what_is_meant() {
    let files = directory();
    let (config, read) = read(&files).unwrap();
    assert_eq!(read.len(), 5);
    assert!(read.iter().all(|file| file.is_file()), "{read:?}");
    let names = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let [free, gold] = &*config.plans else {
        panic!("{:?}", config.plans)
    };
    assert_eq!(
        names(free.apis[0].operations.as_ref().unwrap()),
        ["listBooks", "GET /books/{id}"]
    );
    assert_eq!((&*gold.apis[0].api, &gold.apis[0].operations), ("*", &None));
    assert_eq!(
        (names(&gold.roles), names(&gold.terms)),
        (vec!["staff".into()], vec!["bookstore-terms".into()])
    );
    assert!(matches!(&free.origin, Defined::File(place) if (place.line, place.column) == (2, 3)));
    let titles: Vec<_> = config.organisations.iter().map(|it| &*it.title).collect();
    assert_eq!(titles, ["Acme Inc.", "lone"]);
    assert_eq!(
        (
            &*config.projects[0].title,
            &*config.projects[0].organisation
        ),
        ("Web shop", "acme")
    );
    let [idle, web] = &*config.consumers else {
        panic!("{:?}", config.consumers)
    };
    assert!(idle.suspended && !web.suspended && web.explains && !idle.explains);
    assert_eq!(
        (&*web.project, names(&web.roles)),
        ("shop", vec!["reader".to_owned()])
    );
    assert_eq!(web.subscriptions, [("bookstore".into(), "gold".into())]);
    assert_eq!(
        web.logins,
        [("https://id.example.com".into(), "shop-web".into())]
    );
    assert_eq!(names(&web.certificates), ["spiffe://example.com/shop"]);
    assert_eq!(
        (&*web.users[0].0, web.users[0].1.reveal().len()),
        ("shop", 97)
    );
    let key = &web.keys[0];
    assert_eq!(
        (&*key.name, key.secret.reveal()),
        ("first", "tg_test_aaaaaaaaaaaaaaaaaaaaaa")
    );
    assert!(key.not_before < key.expires && key.networks.len() == 1);
    assert_eq!(names(key.operations.as_ref().unwrap()), ["listBooks"]);
    assert_eq!(names(&key.referrers), ["https://shop.example.com/"]);
}

#[test]
fn terms_are_read_with_their_texts_and_sorted_by_version() {
    let (config, _) = read(&directory()).unwrap();
    let terms = &config.terms[0];
    assert_eq!(
        (&*terms.title, terms.shadow, terms.apis.len()),
        ("Bookstore terms", false, 1)
    );
    let [(one, first), (two, second)] = &*terms.versions else {
        panic!("{terms:?}")
    };
    assert_eq!(
        (one.version, &**first, two.version, &**second),
        (1, "# One\n", 2, "# Two\n")
    );
    assert_eq!(
        (one.grace, two.grace),
        (Duration::ZERO, Duration::from_secs(14 * 86_400))
    );
    assert_eq!((one.purpose_required, two.purpose_required), (false, true));
}

#[test]
fn a_hash_is_that_of_the_file() {
    let files = directory();
    files.write("terms/one.md", "abc");
    let (config, _) = read(&files).unwrap();
    let hash = &config.terms[0].versions[0].0.text_hash;
    // FIPS 180-4, the example of one block.
    assert_eq!(
        &**hash,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_directory_that_says_nothing_is_empty() {
    let files = Files::new();
    let (config, watched) = read(&files).unwrap();
    assert_eq!(config, DirectoryConfig::default());
    assert_eq!(watched.len(), 3);
    for name in ["plans.yaml", "consumers.yaml", "terms.yaml"] {
        files.write(name, "# nothing yet\n");
    }
    assert_eq!(read(&files).unwrap().0, DirectoryConfig::default());
}

#[test]
fn a_mistake_in_plans_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        (
            "plan: {}",
            1,
            1,
            "unknown-field",
            &["did you mean `plans`?"],
        ),
        (
            "plans: {free: {}}",
            1,
            15,
            "missing-field",
            &["`plans.free", "`apis` is missing"],
        ),
        (
            "plans: {free: {apis: {}}}",
            1,
            9,
            "bad-value",
            &["`plans.free.apis`: is empty"],
        ),
        (
            "plans: {Free: {apis: {a: all}}}",
            1,
            9,
            "bad-value",
            &["`Free` cannot be a name"],
        ),
        (
            "plans: {free: {apis: {a: some}}}",
            1,
            26,
            "bad-value",
            &["neither `all` nor a list"],
        ),
        (
            "plans: {free: {apis: {a: {b: c}}}}",
            1,
            26,
            "wrong-shape",
            &["found a mapping"],
        ),
        (
            "plans: {free: {apis: {A: all}}}",
            1,
            23,
            "bad-value",
            &["`A` cannot be a name"],
        ),
        (
            "plans: {free: {apis: {a: [[b]]}}}",
            1,
            27,
            "wrong-shape",
            &["found a list"],
        ),
        (
            "plans: {free: {apis: {a: all}, roles: ['']}}",
            1,
            40,
            "bad-value",
            &["`plans.free.roles`"],
        ),
        (
            "plans: {free: {apis: {a: all}, terms: [bookstore-term]}}",
            1,
            40,
            "unknown-name",
            &[
                "no terms `bookstore-term`",
                "did you mean `bookstore-terms`?",
            ],
        ),
        (
            "plans: {free: {apis: {a: all}, terms: [zzz]}}",
            1,
            40,
            "unknown-name",
            &["write them in terms.yaml"],
        ),
        (
            "plans: {free: {apis: {a: all}}, free: {apis: {a: all}}}",
            1,
            33,
            "duplicate-key",
            &["`free` stands twice"],
        ),
    ];
    expect_all("plans.yaml", table);
}

#[test]
fn a_mistake_in_consumers_is_told_with_its_place_and_a_remedy() {
    let one = |text: &str| {
        format!("organisations: {{a: {{projects: {{b: {{consumers: {{c: {{{text}}}}}}}}}}}}}")
    };
    // Columns count from the consumer's opening brace.
    let start = u32::try_from(one("").find("c: {").unwrap()).unwrap() + 4;
    let table: &[Row<'_>] = &[
        (
            "role: [x]",
            0,
            1,
            "unknown-field",
            &["did you mean `roles`?"],
        ),
        ("roles: ['a b']", 0, 9, "bad-value", &["`consumers.roles`"]),
        (
            "suspended: maybe",
            0,
            12,
            "bad-value",
            &["`consumers.suspended`"],
        ),
        (
            "subscriptions: {bookstore: golf}",
            0,
            28,
            "unknown-name",
            &["no plan `golf`", "did you mean `gold`?"],
        ),
        (
            "subscriptions: {bookstore: zzz}",
            0,
            28,
            "unknown-name",
            &["write it in plans.yaml"],
        ),
        (
            "subscriptions: {Books: gold}",
            0,
            17,
            "bad-value",
            &["`Books` cannot be a name"],
        ),
        (
            "logins: [{issuer: x}]",
            0,
            10,
            "missing-field",
            &["`client` is missing"],
        ),
        (
            "logins: [{issuer: x, client: y}, {issuer: x, client: y}]",
            0,
            54,
            "bad-value",
            &["client `y` of this issuer stands twice"],
        ),
        (
            "certificates: [s, s]",
            0,
            19,
            "bad-value",
            &["certificate `s` stands twice"],
        ),
        (
            "users: [{name: 'a:b', password_hash: '${HASH}'}]",
            0,
            16,
            "bad-value",
            &["colon"],
        ),
        (
            "users: [{name: a, password_hash: secret}]",
            0,
            34,
            "literal-secret",
            &["must not stand in a file"],
        ),
        (
            "users: [{name: a, password_hash: '${SHORT}'}]",
            0,
            34,
            "bad-value",
            &["no Argon2id hash"],
        ),
        (
            "users: [{name: a, password_hash: '${HASH}'}, {name: a, password_hash: '${HASH}'}]",
            0,
            53,
            "bad-value",
            &["user `a` stands twice"],
        ),
        (
            "keys: [{name: a}]",
            0,
            8,
            "missing-field",
            &["`secret` is missing"],
        ),
        (
            "keys: [{name: a, secret: tg_test_aaaaaaaaaaaaaaaaaaaaaa}]",
            0,
            26,
            "literal-secret",
            &["file:PATH"],
        ),
        (
            "keys: [{name: a, secret: '${SHORT}'}]",
            0,
            26,
            "bad-value",
            &["16 to 512"],
        ),
        (
            "keys: [{name: a, secret: '${HASH} '}]",
            0,
            26,
            "literal-secret",
            &["must not stand"],
        ),
        (
            "keys: [{name: a, secret: '${KEY_A}'}, {name: b, secret: '${KEY_A}'}]",
            0,
            57,
            "bad-value",
            &["the same secret stands twice"],
        ),
        (
            "keys: [{name: a, secret: '${KEY_A}'}, {name: a, secret: '${KEY_B}'}]",
            0,
            46,
            "bad-value",
            &["key `a` stands twice"],
        ),
        (
            "keys: [{name: a, secret: '${KEY_A}', expires: tomorrow}]",
            0,
            47,
            "bad-value",
            &["RFC 3339"],
        ),
        (
            "keys: [{name: a, secret: '${KEY_A}', not_before: '2027-01-01T00:00:00Z', expires: '2026-01-01T00:00:00Z'}]",
            0,
            83,
            "bad-value",
            &["never valid"],
        ),
        (
            "keys: [{name: a, secret: '${KEY_A}', networks: [lan]}]",
            0,
            49,
            "bad-value",
            &["no network"],
        ),
        (
            "keys: [{name: a, secret: '${KEY_A}', networks: []}]",
            0,
            15,
            "bad-value",
            &["is empty"],
        ),
        (
            "keys: [{name: a, secret: '${KEY_A}', referrers: [shop]}]",
            0,
            50,
            "bad-value",
            &["no origin"],
        ),
    ];
    for (text, _, column, code, words) in table {
        let whole = one(text);
        expect_all(
            "consumers.yaml",
            &[(&whole, 1, start + column, code, words)],
        );
    }
    let table: &[Row<'_>] = &[
        (
            "organisations: {A: }",
            1,
            17,
            "bad-value",
            &["`A` cannot be a name"],
        ),
        (
            "organisations: {a: {titel: x}}",
            1,
            21,
            "unknown-field",
            &["did you mean `title`?"],
        ),
        (
            "organisations:\n  a: {projects: {p: }}\n  b: {projects: {p: }}",
            3,
            18,
            "bad-value",
            &["project `p` stands twice, first in line 2"],
        ),
        (
            "organisations:\n  a: {projects: {p: {consumers: {c: }}}}\n  b: {projects: {q: {consumers: {c: }}}}",
            3,
            34,
            "bad-value",
            &["consumer `c` stands twice, first in line 2"],
        ),
    ];
    expect_all("consumers.yaml", table);
}

#[test]
fn a_mistake_in_terms_is_told_with_its_place_and_a_remedy() {
    let table: &[Row<'_>] = &[
        (
            "terms: {bookstore-terms: {}}",
            1,
            26,
            "missing-field",
            &["`versions` is missing"],
        ),
        (
            "terms: {bookstore-terms: {versions: []}}",
            1,
            9,
            "bad-value",
            &["`terms.bookstore-terms.versions`: is empty"],
        ),
        (
            "terms: {bookstore-terms: {apis: [A], versions: []}}",
            1,
            9,
            "bad-value",
            &["is empty"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 0, text: terms/one.md, effective: '2026-01-01T00:00:00Z'}]}}",
            1,
            48,
            "bad-value",
            &["from 1 to"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: terms/none.md, effective: '2026-01-01T00:00:00Z'}]}}",
            1,
            57,
            "unreadable-text",
            &["none.md", "relative to terms.yaml"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: terms, effective: '2026-01-01T00:00:00Z'}]}}",
            1,
            57,
            "unreadable-text",
            &["cannot read"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: 'file:terms/one.md', effective: '2026-01-01T00:00:00Z'}]}}",
            1,
            57,
            "bad-value",
            &["its path is due"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: terms/one.md, effective: soon}]}}",
            1,
            82,
            "bad-value",
            &["RFC 3339"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: terms/one.md, effective: '2026-01-01T00:00:00Z', grace: 2w}]}}",
            1,
            113,
            "bad-value",
            &["14d"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: terms/one.md, effective: '2026-01-01T00:00:00Z', purpose: ask}]}}",
            1,
            115,
            "bad-value",
            &["neither required nor optional"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: terms/one.md, effective: '2026-01-01T00:00:00Z'}, {version: 1, text: terms/one.md, effective: '2026-01-01T00:00:00Z'}]}}",
            1,
            117,
            "bad-value",
            &["1 stands twice"],
        ),
        (
            "terms: {bookstore-terms: {versions: [{version: 1, text: terms/one.md, effective: '2026-01-02T00:00:00Z'}, {version: 2, text: terms/one.md, effective: '2026-01-01T00:00:00Z'}]}}",
            1,
            151,
            "bad-value",
            &["before version 1 takes effect"],
        ),
    ];
    expect_all("terms.yaml", table);
}

#[test]
fn a_text_that_is_empty_or_endless_is_refused() {
    for text in [
        String::from(" \n"),
        "a".repeat(usize::try_from(terms::MAX_TEXT).unwrap() + 1),
    ] {
        let files = directory();
        files.write("terms/two.md", &text);
        let findings = read(&files).unwrap_err();
        assert_eq!(
            (findings.len(), findings[0].code, findings[0].place.line),
            (1, "unreadable-text", 6)
        );
    }
}

#[test]
fn one_broken_file_does_not_make_the_others_look_broken() {
    let files = directory();
    files.write("plans.yaml", "plans: [free]");
    let findings = read(&files).unwrap_err();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].place.file.ends_with("plans.yaml"));
}

#[test]
fn a_secret_is_never_quoted() {
    let files = directory();
    let bad = CONSUMERS
        .replace("${KEY_A}", "hunter2hunter2hunter2")
        .replace("'${HASH}'", "'${SHORT}'");
    files.write("consumers.yaml", &bad);
    let findings = read(&files).unwrap_err();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(!format!("{findings:?}").contains("hunter2"), "{findings:?}");
}

#[test]
fn many_consumers_are_read_in_seconds() {
    let mut text = String::from("organisations:\n");
    for project in 0..100 {
        writeln!(
            text,
            "  org-{project}:\n    projects:\n      project-{project}:\n        consumers:"
        )
        .unwrap();
        for one in 0..50 {
            let name = format!("consumer-{project}-{one}");
            writeln!(
                text,
                "          {name}:\n            roles: [reader]\n            \
                 subscriptions: {{ bookstore: gold }}\n            \
                 logins: [{{ issuer: https://id.example.com, client: {name} }}]\n            \
                 keys: [{{ name: first, secret: '${{K{project}_{one}}}' }}]"
            )
            .unwrap();
        }
    }
    let files = directory();
    files.write("consumers.yaml", &text);
    let environment = |name: &str| Some(format!("tg_test_{name:0>32}"));
    let start = Instant::now();
    let (config, _) = read_directory(files.path(), &environment).unwrap();
    let took = start.elapsed();
    println!("{} bytes in {took:?}", text.len());
    assert_eq!(config.consumers.len(), 5_000);
    // A debug build on a crowded machine takes a second or two; what grows with the square takes minutes.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_directory_has_an_end() {
    let names: String = (0..=100_000).map(|at| format!("c{at}: ,")).collect();
    let files = directory();
    let text = format!("organisations: {{a: {{projects: {{b: {{consumers: {{{names}}}}}}}}}}}");
    files.write("consumers.yaml", &text);
    let findings = read(&files).unwrap_err();
    assert_eq!(findings.len(), 1);
    assert!(
        findings[0].what.contains("more than 100000"),
        "{findings:?}"
    );
}
