//! What compiling brings to light, and what it makes of schemes and demands.

use super::*;
use crate::finding::Severity;
use crate::settings::{Algorithm, IssuerConfig, KeySource, SchemeConfig};

pub(super) fn issuer(name: &str) -> IssuerConfig {
    IssuerConfig {
        issuer: format!("https://{name}.example.com").into(),
        audiences: arcs(&["books"]),
        algorithms: vec![Algorithm::Rs256],
        keys: KeySource::File("keys.json".into()),
        leeway: Duration::from_secs(30),
        stale_for: Duration::from_secs(60),
        allow_private: false,
        client_claims: Vec::new(),
        scope_claims: Vec::new(),
        role_claims: Vec::new(),
        ca: None,
        introspection: None,
        place: place(9),
    }
}

fn compiled(config: &ApiConfig) -> (ApiAccess, Vec<String>) {
    let (access, findings) = ApiAccess::compile(config, &bookstore());
    (access, findings.iter().map(ToString::to_string).collect())
}

fn told(change: impl FnOnce(&mut ApiConfig)) -> Vec<String> {
    let mut config = config();
    change(&mut config);
    compiled(&config).1
}

#[test]
fn an_api_in_order_has_no_findings() {
    assert!(told(|_| {}).is_empty());
}

#[test]
fn demands_are_kept_as_written() {
    let (access, _) = compiled(&config());
    let demand = |operation: usize| access.operations[operation].demand.clone();
    let one = |scheme: usize, scopes: &[&str]| SchemeDemand {
        scheme,
        scopes: arcs(scopes),
    };
    let of = |combinations, anonymous| Demand::Alternatives {
        combinations,
        anonymous,
    };
    let places: Vec<_> = access
        .schemes
        .iter()
        .map(|scheme| (&*scheme.name, scheme.place.clone()))
        .collect();
    assert_eq!(
        places,
        [
            ("key", CredentialPlace::Header(arc("x-api-key"))),
            ("token", CredentialPlace::Bearer),
            ("peer", CredentialPlace::Certificate),
            ("nobody", CredentialPlace::Nowhere),
        ]
    );
    assert_eq!(demand(LIST), of(vec![vec![one(0, &[])]], false));
    assert_eq!(
        demand(ADD),
        of(
            vec![
                vec![one(1, &["books.write"])],
                vec![one(0, &[]), one(2, &[])]
            ],
            false
        )
    );
    assert_eq!(demand(GET), of(vec![vec![one(0, &[])]], true));
    assert_eq!(demand(HEALTH), Demand::Public);
    assert_eq!(demand(BROKEN), Demand::Unreadable);
    assert_eq!(demand(ODD), of(vec![vec![one(3, &[])]], false));
    let unknown: Vec<_> = access.schemes.iter().map(|scheme| scheme.unknown).collect();
    assert_eq!(unknown, [false, false, false, true]);
}

#[test]
fn security_may_be_left_to_the_service() {
    let mut off = config();
    off.security = SecurityMode::Off;
    let (access, _) = compiled(&off);
    assert!(
        access
            .operations
            .iter()
            .all(|operation| operation.demand == Demand::Public)
    );
    assert!(access.schemes.is_empty());
    let mut one = config();
    let settings = crate::settings::OperationSettings {
        security_off: Some(true),
        ..Default::default()
    };
    one.operations.insert("listBooks".to_owned(), settings);
    let (access, _) = compiled(&one);
    assert_eq!(access.operations[LIST].demand, Demand::Public);
    assert_ne!(access.operations[ADD].demand, Demand::Public);
}

#[test]
fn tokens_of_every_issuer_count_unless_some_are_named() {
    let mut config = config();
    for name in ["staff", "partners"] {
        config.auth.issuers.insert(arc(name), issuer(name));
    }
    let issuers = |config: &ApiConfig| -> Vec<_> {
        let (access, _) = compiled(config);
        access
            .schemes
            .into_iter()
            .map(|scheme| (scheme.name.to_string(), scheme.issuers))
            .collect()
    };
    let expected = |key: &[usize], token: &[usize]| {
        [
            ("key", key),
            ("token", token),
            ("peer", &[]),
            ("nobody", &[]),
        ]
        .map(|(name, issuers)| (name.to_owned(), issuers.to_vec()))
    };
    assert_eq!(issuers(&config), expected(&[], &[0, 1]));
    let named = |names: &[&str]| SchemeConfig {
        issuers: arcs(names),
        ..Default::default()
    };
    config.auth.schemes.insert(arc("token"), named(&["staff"]));
    config
        .auth
        .schemes
        .insert(arc("key"), named(&["partners", "staff"]));
    assert_eq!(issuers(&config), expected(&[0, 1], &[1]));
    let names: Vec<_> = compiled(&config)
        .0
        .issuers
        .iter()
        .map(|issuer| issuer.name.clone())
        .collect();
    assert_eq!(names, arcs(&["partners", "staff"]));
}

#[test]
fn certificates_are_named_whole_or_by_their_beginning() {
    let mut config = config();
    let certificates = arcs(&["spiffe://x/shop", "spiffe://x/jobs/*"]);
    config.auth.schemes.insert(
        arc("peer"),
        SchemeConfig {
            certificates,
            ..Default::default()
        },
    );
    let (access, findings) = compiled(&config);
    assert!(findings.is_empty());
    for (subject, counts) in [
        ("spiffe://x/shop", true),
        ("spiffe://x/shop2", false),
        ("spiffe://x/sho", false),
        ("spiffe://x/jobs/", true),
        ("spiffe://x/jobs/a", true),
        ("spiffe://x/jobs", false),
    ] {
        assert_eq!(
            access.schemes[2].admits_certificate(subject),
            counts,
            "{subject}"
        );
        assert!(!access.schemes[0].admits_certificate(subject), "{subject}");
    }
    let (access, _) = compiled(&super::config());
    assert!(access.schemes[2].admits_certificate("anything"));
}

#[test]
fn mistakes_about_issuers_and_schemes_are_found() {
    let found = told(|config| {
        let any = IssuerConfig {
            audiences: Vec::new(),
            ..issuer("staff")
        };
        config.auth.issuers.insert(arc("staff"), any);
        let named = |name: &str, line: u32| SchemeConfig {
            issuers: arcs(&[name]),
            place: Some(place(line)),
            ..Default::default()
        };
        config.auth.schemes.insert(arc("token"), named("stuff", 20));
        config
            .auth
            .schemes
            .insert(arc("tokens"), named("staff", 21));
        config
            .auth
            .schemes
            .insert(arc("zzz"), SchemeConfig::default());
    });
    assert_eq!(
        found,
        [
            "apis/bookstore.yaml:9:5: warning[no-audience]: issuer `staff` has no `audiences`: its tokens for any other \
             service count here; write `audiences: [...]`, what `aud` says in tokens for this API",
            "apis/bookstore.yaml:20:5: error[unknown-issuer]: scheme `token` names issuer `stuff`, which there is not; \
             did you mean `staff`?",
            "apis/bookstore.yaml:21:5: warning[unknown-scheme]: no operation of bookstore.yaml demands a scheme `tokens`; \
             did you mean `token`?",
            "apis/bookstore.yaml: warning[unknown-scheme]: no operation of bookstore.yaml demands a scheme `zzz`; \
             name a scheme its `security` uses",
        ]
    );
}

#[test]
fn a_scheme_whose_issuer_is_unknown_is_satisfied_by_no_token() {
    let mut config = config();
    config.auth.issuers.insert(arc("staff"), issuer("staff"));
    let schemes = SchemeConfig {
        issuers: arcs(&["stuff"]),
        ..Default::default()
    };
    config.auth.schemes.insert(arc("token"), schemes);
    assert!(compiled(&config).0.schemes[1].issuers.is_empty());
}

/// One operation for each of these schemes, which are called after their issuer.
const ISSUERS: &str = r"
openapi: 3.1.0
components:
  securitySchemes:
    staff: { type: http, scheme: bearer, x-google-issuer: 'https://staff.example.com', x-google-audiences: books }
    slash: { type: openIdConnect, openIdConnectUrl: 'https://slash.example.com/.well-known/openid-configuration' }
    google: { type: oauth2, flows: {}, x-google-issuer: robot@example.com, x-google-jwks_uri: 'https://robot.example.com/keys', x-google-audiences: books }
    again: { type: oauth2, flows: {}, x-google-issuer: robot@example.com, x-google-jwks_uri: 'https://robot.example.com/keys', x-google-audiences: books }
    other: { type: openIdConnect, openIdConnectUrl: 'https://staff.example.com/.well-known/openid-configuration', x-google-issuer: 'https://other.example.com', x-google-audiences: books }
    films: { type: oauth2, flows: {}, x-google-issuer: robot@example.com, x-google-jwks_uri: 'https://robot.example.com/keys', x-google-audiences: films }
    hidden: { type: openIdConnect, openIdConnectUrl: 'https://hidden.example.com/openid' }
    plain: { type: http, scheme: bearer }
paths:
  /staff: { get: { operationId: staff, security: [{ staff: [] }] } }
  /slash: { get: { operationId: slash, security: [{ slash: [] }] } }
  /google: { get: { operationId: google, security: [{ google: [] }] } }
  /again: { get: { operationId: again, security: [{ again: [] }] } }
  /other: { get: { operationId: other, security: [{ other: [] }] } }
  /films: { get: { operationId: films, security: [{ films: [] }] } }
  /hidden: { get: { operationId: hidden, security: [{ hidden: [] }] } }
  /plain: { get: { operationId: plain, security: [{ plain: [] }] } }
";

/// `iss`, name and first audience of those whose tokens count, by scheme.
fn trusted(config: &ApiConfig) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let description = openapi::load_text("issuers.yaml", ISSUERS).unwrap();
    let (access, findings) = ApiAccess::compile(config, &description);
    let told = |index: &usize| {
        let issuer = &access.issuers[*index];
        let audience = issuer.config.audiences.first();
        let audience = audience.map_or("any", |audience| audience);
        format!("{} as {} for {audience}", issuer.config.issuer, issuer.name)
    };
    let schemes = access.schemes.iter();
    let schemes = schemes.map(|it| (it.name.to_string(), it.issuers.iter().map(told).collect()));
    let found = findings
        .iter()
        .map(|it| format!("{} {}", it.code, it.place));
    (schemes.collect(), found.collect())
}

#[test]
fn the_issuer_a_definition_names_counts_alone() {
    let (schemes, findings) = trusted(&config());
    let expected = [
        (
            "staff",
            &["https://staff.example.com as staff for books"][..],
        ),
        ("slash", &["https://slash.example.com as slash for any"]),
        ("google", &["robot@example.com as google for books"]),
        // The same once more is the same issuer; for another audience it is not.
        ("again", &["robot@example.com as google for books"]),
        ("other", &["https://other.example.com as other for books"]),
        ("films", &["robot@example.com as films for films"]),
        ("hidden", &[]),
        ("plain", &[]),
    ];
    let expected = expected.map(|(name, issuers)| {
        let issuers = issuers.iter().map(|it| (*it).to_owned());
        (name.to_owned(), issuers.collect::<Vec<_>>())
    });
    assert_eq!(schemes, expected);
    assert_eq!(
        findings,
        [
            "no-audience issuers.yaml:6:12",
            "no-issuer issuers.yaml:11:13"
        ]
    );
}

#[test]
fn what_the_api_file_says_of_an_issuer_wins_over_the_description() {
    let mut config = config();
    config.auth.issuers.insert(arc("a"), issuer("staff"));
    // Its name is known from the discovery document, which does not tell whether it ends in a slash.
    let slash = IssuerConfig {
        issuer: arc("https://slash.example.com/"),
        ..issuer("slash")
    };
    config.auth.issuers.insert(arc("films"), slash);
    let hidden = IssuerConfig {
        keys: KeySource::Discovery(arc("https://hidden.example.com/openid")),
        ..issuer("hidden")
    };
    config.auth.issuers.insert(arc("z"), hidden);
    let named = SchemeConfig {
        issuers: arcs(&["z"]),
        ..Default::default()
    };
    config.auth.schemes.insert(arc("again"), named);
    let (schemes, findings) = trusted(&config);
    let issuers: Vec<_> = schemes
        .iter()
        .map(|(_, issuers)| issuers.join(", "))
        .collect();
    let (staff, slash, hidden) = (
        "https://staff.example.com as a for books",
        "https://slash.example.com/ as films for books",
        "https://hidden.example.com as z for books",
    );
    assert_eq!(
        issuers,
        [
            staff,
            slash,
            "robot@example.com as google for books",
            hidden,
            "https://other.example.com as other for books",
            "robot@example.com as films-2 for films",
            hidden,
            &[staff, slash, hidden].join(", "),
        ]
    );
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn mistakes_about_rules_are_found() {
    let found = told(|config| {
        let operations = arcs(&["listBook", "GET /books", "zzz"]);
        config.acl.push(RuleConfig {
            operations,
            ..rule("one", Effect::Deny)
        });
        config.acl.push(RuleConfig {
            place: place(50),
            ..rule("one", Effect::Allow)
        });
    });
    assert_eq!(
        found,
        [
            "apis/bookstore.yaml:41:5: error[unknown-operation]: rule `one` is about `listBook`, which is no operation; \
             did you mean `listBooks`?",
            "apis/bookstore.yaml:41:5: error[unknown-operation]: rule `one` is about `zzz`, which is no operation; \
             write an operationId, or method and template as in the OpenAPI file",
            "apis/bookstore.yaml:50:5: error[duplicate-rule]: there are two rules `one`; give each rule its own name",
        ]
    );
}

#[test]
fn rules_that_never_match_are_found() {
    let never = |change: &dyn Fn(&mut RuleConfig), networks: Option<(&str, &str)>| {
        let found = told(|config| {
            let mut rule = rule("r", Effect::Deny);
            change(&mut rule);
            config.acl.push(rule);
            if let Some((allow, deny)) = networks {
                config.networks.allow = vec![network(allow)];
                config.networks.deny = vec![network(deny)];
            }
        });
        found
            .iter()
            .any(|finding| finding.contains("error[never-matches]: rule `r` never matches"))
    };
    let (early, late) = (
        Some(at("2026-01-01T00:00:00Z")),
        Some(at("2027-01-01T00:00:00Z")),
    );
    assert!(!never(
        &|r| (r.not_before, r.not_after) = (early, late),
        None
    ));
    assert!(never(
        &|r| (r.not_before, r.not_after) = (early, early),
        None
    ));
    assert!(never(
        &|r| (r.not_before, r.not_after) = (late, early),
        None
    ));
    for (hours, expected) in [
        ((0, 1440), false),
        ((1439, 1440), false),
        ((1439, 0), false),
        ((600, 60), false),
        ((60, 60), true),
        ((1440, 60), true),
        ((0, 1441), true),
    ] {
        assert_eq!(
            never(&|r| r.hours = Some(hours), None),
            expected,
            "{hours:?}"
        );
    }
    for (own, allow, deny, expected) in [
        ("10.1.0.0/16", "10.0.0.0/8", "192.0.2.0/24", false),
        ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", false),
        ("192.168.0.0/16", "10.0.0.0/8", "192.0.2.0/24", true),
        ("10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", true),
        ("10.1.0.0/16", "10.0.0.0/8", "10.1.0.0/16", true),
        ("10.1.0.0/16", "10.0.0.0/8", "10.1.1.0/24", false),
        ("2001:db8::/32", "10.0.0.0/8", "192.0.2.0/24", true),
    ] {
        let found = never(&|r| r.networks = vec![network(own)], Some((allow, deny)));
        assert_eq!(found, expected, "{own} {allow} {deny}");
    }
    let lists = told(|config| {
        config.acl.push(RuleConfig {
            networks: vec![network("10.0.0.0/8")],
            ..rule("r", Effect::Deny)
        });
        config.networks.allow = vec![network("192.0.2.0/24")];
        config.networks.shadow = true;
    });
    assert!(lists.is_empty(), "a shadow refuses nobody: {lists:?}");
}

#[test]
fn only_operations_with_a_condition_need_the_evaluator() {
    let mut config = config();
    let when = Some(arc("request.method == 'GET'"));
    config.acl.push(RuleConfig {
        operations: arcs(&["listBooks"]),
        when,
        ..rule("r", Effect::Deny)
    });
    config.acl.push(rule("plain", Effect::Allow));
    let (access, _) = compiled(&config);
    let needs: Vec<_> = access
        .operations
        .iter()
        .map(|operation| operation.needs_cel)
        .collect();
    assert_eq!(needs, [true, false, false, false, false, false]);
}

#[test]
fn findings_name_severities_that_stop_what_could_open() {
    let mut config = config();
    config.acl.push(RuleConfig {
        operations: arcs(&["zzz"]),
        ..rule("r", Effect::Deny)
    });
    let (_, findings) = ApiAccess::compile(&config, &bookstore());
    assert!(
        findings
            .iter()
            .all(|finding| finding.severity == Severity::Error)
    );
}
