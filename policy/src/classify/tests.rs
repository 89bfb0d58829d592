//! The rules on templates written by hand.

mod property;

use std::sync::Arc;

use super::*;
use crate::finding::Place;
use crate::openapi::{Dialect, Operation, OtherRoute, PathParameter, Security};

/// A description of these methods and templates.
fn description<S: AsRef<str>>(routes: &[(S, S)]) -> Description {
    let place = Place::file("test.yaml");
    let operations = routes.iter().map(|(method, template)| {
        let (method, template) = (method.as_ref(), template.as_ref());
        let (route, fragment) = template
            .split_once('#')
            .map_or((template, false), |(r, _)| (r, true));
        Operation {
            id: None,
            name: format!("{method} {template}").into(),
            method: method.into(),
            template: template.into(),
            route: route.into(),
            other_routes: Vec::new(),
            grpc: None,
            fragment,
            bases: vec!["".into()],
            path_parameters: Vec::new(),
            headers: Vec::new(),
            security: Security {
                alternatives: Vec::new(),
                unreadable: false,
            },
            settings: Default::default(),
            place: place.clone(),
        }
    });
    Description {
        limits: Vec::new(),
        file: "test.yaml".into(),
        title: String::new(),
        version: String::new(),
        dialect: Dialect::OpenApi30,
        operations: operations.collect(),
        settings: Default::default(),
        servers: Vec::new(),
        findings: Vec::new(),
        files: Vec::new(),
    }
}

fn get(templates: &[&str], path: &str) -> String {
    let routes: Vec<_> = templates.iter().map(|t| ("GET", *t)).collect();
    let (classifier, _) = Classifier::compile(&description(&routes));
    match classifier.classify("GET", path) {
        Ok(matched) => {
            let values = matched.parameters.iter().map(|(n, v)| format!(" {n}={v}"));
            format!(
                "{}{}",
                templates[matched.operation],
                values.collect::<String>()
            )
        }
        Err(why) => format!("{why:?}"),
    }
}

#[test]
fn the_more_specific_template_wins_and_gives_way_when_it_leads_nowhere() {
    let templates = ["/a/{x}/c", "/a/b/{y}", "/a/b{z}/c", "/a/b/{y}/d"];
    assert_eq!(get(&templates, "/a/b/c"), "/a/b/{y} y=c");
    assert_eq!(get(&templates, "/a/bc/c"), "/a/b{z}/c z=c");
    assert_eq!(get(&templates, "/a/x/c"), "/a/{x}/c x=x");
    assert_eq!(
        get(&["/a/b/{y}/d", "/a/{x}/c/{z}"], "/a/b/c/e"),
        "/a/{x}/c/{z} x=b z=e"
    );
}

#[test]
fn wildcards_span_segments_anywhere_and_take_as_much_as_they_can() {
    assert_eq!(get(&["/f/{p+}"], "/f/a/b"), "/f/{p+} p=a/b");
    assert_eq!(get(&["/f/{+p}/h"], "/f/a/h/h"), "/f/{+p}/h p=a/h");
    assert_eq!(
        get(&["/{*a}/x/{b*}"], "/1/x/2/x/3"),
        "/{*a}/x/{b*} a=1/x/2 b=3"
    );
    assert_eq!(
        get(&["/{+n}:cancel", "/{+n}"], "/a/b:cancel"),
        "/{+n}:cancel n=a/b"
    );
    assert_eq!(get(&["/f/{p+}"], "/f/"), "NoTemplate");
    assert_eq!(get(&["/f/{p+}"], "/f//"), "/f/{p+} p=/");
}

#[test]
fn after_a_wildcard_the_next_segment_decides_wherever_it_lies() {
    assert_eq!(get(&["/{+w}/{p}", "/{+w}/a/b"], "/x/a/b"), "/{+w}/a/b w=x");
    assert_eq!(get(&["/{+w}/a", "/{+w}"], "/x/a"), "/{+w} w=x/a");
    assert_eq!(get(&["/{+w}", "/{+w}/a"], "/x/a"), "/{+w} w=x/a");
}

#[test]
fn mixed_segments_that_rank_alike_are_decided_by_what_follows() {
    let templates = ["/a{x}d{y}c/{z}", "/a{x}b{y}c/lit"];
    assert_eq!(get(&templates, "/a1b2d3c/lit"), "/a{x}b{y}c/lit x=1 y=2d3");
    assert_eq!(
        get(&templates, "/a1b2d3c/other"),
        "/a{x}d{y}c/{z} x=1b2 y=3 z=other"
    );
}

#[test]
fn earlier_expressions_take_as_much_as_they_can() {
    assert_eq!(get(&["/{a}{b}{c}"], "/wörté"), "/{a}{b}{c} a=wör b=t c=é");
    assert_eq!(get(&["/{a}-{b}"], "/x-y-z"), "/{a}-{b} a=x-y b=z");
    assert_eq!(get(&["/{a}-{b}"], "/x--"), "/{a}-{b} a=x b=-");
    assert_eq!(get(&["/{a}-{b}"], "/-x"), "NoTemplate");
    assert_eq!(get(&["/{a}{b}"], "/x"), "NoTemplate");
}

#[test]
fn only_templates_with_the_method_compete_and_get_answers_head() {
    let api = description(&[
        ("GET", "/u/me"),
        ("DELETE", "/u/{id}"),
        ("GET", "/u/{id}"),
        ("HEAD", "/h"),
        ("GET", "/h"),
    ]);
    let (classifier, _) = Classifier::compile(&api);
    let operation = |method, path| classifier.classify(method, path).map(|m| m.operation);
    assert_eq!(operation("DELETE", "/u/me"), Ok(1));
    assert_eq!(operation("HEAD", "/u/me"), Ok(0));
    assert_eq!(operation("HEAD", "/h"), Ok(3));
    assert!(operation("get", "/u/me").is_err());
    let allow = ["DELETE", "GET", "HEAD"].map(Arc::from).to_vec();
    assert_eq!(
        operation("PUT", "/u/me"),
        Err(Unclassified::NoMethod { allow })
    );
    assert_eq!(operation("PUT", "/v"), Err(Unclassified::NoTemplate));
    assert_eq!(operation("GET", "/u/%zz"), Err(Unclassified::BadEncoding));
    assert_eq!(operation("GET", "/u/%ff"), Err(Unclassified::BadEncoding));
}

#[test]
fn a_fragment_yields_to_the_same_path_without() {
    let api = description(&[("GET", "/x#one"), ("GET", "/x"), ("PUT", "/x#two")]);
    let (classifier, findings) = Classifier::compile(&api);
    assert_eq!(classifier.classify("GET", "/x").unwrap().operation, 1);
    assert_eq!(classifier.classify("PUT", "/x").unwrap().operation, 2);
    assert_eq!(codes(&findings), ["shadowed"]);
}

#[test]
fn the_door_is_told_of_encoded_slashes_percents_and_semicolons() {
    let mut api = description(&[("GET", "/p/{a}"), ("GET", "/q/{a}"), ("GET", "/w/{a+}")]);
    api.operations[1].path_parameters = vec![PathParameter {
        name: "a".into(),
        multi_segment: false,
        matrix: true,
        allow_encoded_slash: true,
        allow_encoded_percent: true,
    }];
    let (classifier, _) = Classifier::compile(&api);
    let told = |path| {
        let m = classifier.classify("GET", path).unwrap();
        (
            m.encoded_slash_refused,
            m.encoded_percent_refused,
            m.semicolon_refused,
        )
    };
    assert_eq!(told("/p/a%2Fb"), (true, false, false));
    assert_eq!(told("/p/a%252Fb"), (false, true, false));
    assert_eq!(told("/p/a%3bb"), (false, false, true));
    assert_eq!(told("/p/a;b"), (false, false, true));
    assert_eq!(told("/p/100%25"), (false, false, false));
    assert_eq!(told("/q/a%2F%252F;"), (false, false, false));
    assert_eq!(told("/w/a%2F/b"), (false, false, false));
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|f| f.code).collect()
}

#[test]
fn findings_name_what_cannot_be_reached_and_what_overlaps() {
    let of = |routes: &[(&str, &str)]| codes(&Classifier::compile(&description(routes)).1);
    assert_eq!(
        of(&[("GET", "/a/{x}"), ("GET", "/a/{y}")]),
        ["identical-template"]
    );
    assert_eq!(of(&[("GET", "/a/{x}"), ("PUT", "/a/{y}")]), [""; 0]);
    assert_eq!(
        of(&[("GET", "/a/{x+}"), ("GET", "/a/{x+}/b")]),
        ["shadowed"]
    );
    assert_eq!(
        of(&[("GET", "/a/{x+}/b"), ("GET", "/a/{x+}")]),
        ["shadowed"]
    );
    assert_eq!(of(&[("GET", "/a/{x+}/b"), ("PUT", "/a/{x+}")]), [""; 0]);
    assert_eq!(of(&[("GET", "/a/{x}"), ("GET", "/a/b")]), ["overlap"]);
    assert_eq!(of(&[("GET", "/a/{x}/{x}")]), ["repeated-expression"]);
    assert_eq!(
        of(&[("GET", "/a/{x"), ("GET", "/a/x}"), ("GET", "/{a}{b+}")]),
        ["unroutable-template"; 3]
    );
}

#[test]
fn overlaps_of_a_large_file_are_capped_and_summed_up() {
    let names: Vec<String> = (0..400)
        .flat_map(|i| [format!("/a/{{x}}/n{i}"), format!("/a/l{i}/{{y}}")])
        .collect();
    let routes: Vec<_> = names.iter().map(|name| ("GET", name.as_str())).collect();
    let (_, findings) = Classifier::compile(&description(&routes));
    assert_eq!(findings.len(), 201);
    assert!(
        findings[200].what.contains("pairs of templates overlap"),
        "{}",
        findings[200].what
    );
}

#[test]
fn an_explanation_names_the_deciding_segment() {
    let api = description(&[("GET", "/u/{id}"), ("GET", "/u/me"), ("PUT", "/u/me/x")]);
    let (classifier, _) = Classifier::compile(&api);
    assert_eq!(
        classifier.explain("GET", "/u/me"),
        [
            "GET /u/me wins",
            "segment 2: literal `me` beats parameter `{x}` (over GET /u/{id})",
        ]
    );
    assert_eq!(
        classifier.explain("DELETE", "/u/7")[1],
        "matches GET /u/{id}"
    );
    let lines = classifier.explain("GET", "/u/me/y");
    assert_eq!(
        lines[1..],
        [
            "nothing matches segment 3, `y`",
            "near: GET /u/me",
            "near: PUT /u/me/x",
            "near: GET /u/{id}",
        ]
    );
}

#[test]
fn a_crafted_path_costs_no_more_than_the_trie_times_its_length() {
    let templates: Vec<String> = (0..10)
        .map(|depth| format!("{}/end", "/{x+}/a".repeat(depth + 1)))
        .collect();
    let routes: Vec<_> = templates
        .iter()
        .map(|t: &String| ("GET", t.as_str()))
        .collect();
    let (classifier, _) = Classifier::compile(&description(&routes));
    // Without the bound these are some 10^40 ways; quadratic would be minutes.
    let path = "/a".repeat(16_000);
    assert_eq!(
        classifier.classify("GET", &path),
        Err(Unclassified::NoTemplate)
    );
}

/// A gRPC method with several ways to call it.
fn method(routes: &[(&str, &str)]) -> Description {
    let mut whole = description(&routes[..1]);
    let operation = &mut whole.operations[0];
    let open = |template: &str| {
        let names = template.split('{').skip(1);
        let names = names.map(|rest| rest.split(['}', '+']).next().unwrap());
        names
            .map(|name| PathParameter {
                name: name.into(),
                multi_segment: false,
                matrix: true,
                allow_encoded_slash: true,
                allow_encoded_percent: true,
            })
            .collect::<Vec<_>>()
    };
    operation.grpc = Some("pkg.Books/Get".into());
    operation.path_parameters = open(routes[0].1);
    let others = routes[1..].iter().map(|(method, template)| OtherRoute {
        method: (*method).into(),
        template: (*template).into(),
        route: (*template).into(),
        path_parameters: open(template),
    });
    operation.other_routes = others.collect();
    whole
}

#[test]
fn several_routes_lead_to_one_operation_and_each_says_which_it_was() {
    let description = method(&[
        ("GET", "/v1/books/{id}"),
        ("GET", "/v1/{name+}"),
        ("POST", "/pkg.Books/Get"),
        ("GET", "/v1/books/{id}:show"),
    ]);
    let (classifier, findings) = Classifier::compile(&description);
    let found = |method: &str, path: &str| {
        let matched = classifier.classify(method, path).unwrap();
        (matched.operation, matched.route)
    };
    assert_eq!(found("GET", "/v1/books/5"), (0, 0));
    assert_eq!(found("GET", "/v1/shelves/a/books/b"), (0, 1));
    assert_eq!(found("POST", "/pkg.Books/Get"), (0, 2));
    assert_eq!(found("GET", "/v1/books/5:show"), (0, 3));
    assert!(findings.is_empty(), "{findings:?}");
    let names = description.operations[0].names().join(", ");
    assert!(
        names.starts_with("pkg.Books/Get, GET /v1/books/{id}, GET /v1/{name+}"),
        "{names}"
    );
}

#[test]
fn an_encoded_slash_or_colon_never_acts_as_a_separator_for_a_grpc_method() {
    let description = method(&[("GET", "/v1/{name}"), ("GET", "/v1/{name}:show")]);
    let (classifier, _) = Classifier::compile(&description);
    for (path, route) in [
        ("/v1/a%2Fb", 0),
        ("/v1/a%3Ashow", 0),
        ("/v1/a%3Ab:show", 1),
        ("/v1/%61:show", 1),
        ("/v1/a:show", 1),
        ("/v1/a:%73how", 0),
    ] {
        let matched = classifier.classify("GET", path).unwrap();
        assert_eq!(matched.route, route, "{path}");
        assert!(!matched.encoded_slash_refused && !matched.encoded_percent_refused);
    }
}
