//! What is put to the judge, and what an answer is kept under. How it is asked is a promise of `tests/authoriser.rs`.

use std::time::Duration;

use tollgate_policy::finding::Place;

use super::*;

fn authoriser(vary: &[&str]) -> Arc<Authoriser> {
    let config = AuthoriserConfig {
        transport: AuthoriserTransport::Http,
        url: "http://judge.example/check".into(),
        ca: None,
        deadline: Duration::from_secs(1),
        failure: FailureMode::FailOpen,
        cache: Duration::from_secs(1),
        stale_ok: Duration::ZERO,
        vary: vary.iter().map(|name| Arc::from(*name)).collect(),
        headers: vec!["x-tenant".into()],
        shadow: false,
        place: Place {
            file: "api.yaml".into(),
            line: 1,
            column: 1,
        },
    };
    Authoriser::new(&config).unwrap()
}

fn question<'q>(path: &'q str, query: &'q str) -> Question<'q> {
    Question {
        request_id: "r",
        method: "GET",
        path,
        query,
        host: "books.example",
        operation: "listBooks",
        consumer: "",
        principal: "ann",
        client: None,
        fields: vec![("x-tenant", "one".to_owned())],
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_put_is_refused_though_the_policy_fails_open() {
    let authoriser = authoriser(&[]);
    for (path, query) in [("/a<b", ""), ("/a", "x=<"), ("/a", "x=\"")] {
        let asked = authoriser.ask(&question(path, query)).await;
        assert!(
            matches!(asked, Err(Unjudged::Unaskable(_))),
            "{path}?{query}"
        );
    }
}

#[test]
fn an_answer_about_one_subject_is_not_used_for_another() {
    let authoriser = authoriser(&["consumer", "path"]);
    let ann = question("/a", "");
    let bob = Question {
        principal: "bob",
        ..question("/a", "")
    };
    assert_ne!(authoriser.key_of(&ann), authoriser.key_of(&bob));
    assert_eq!(
        authoriser.key_of(&ann),
        authoriser.key_of(&question("/a", ""))
    );
    assert_ne!(
        authoriser.key_of(&ann),
        authoriser.key_of(&question("/a", "b"))
    );
    let long = "/a".repeat(LONGEST_KEY);
    assert_eq!(authoriser.key_of(&question(&long, "")), None);
}

#[test]
fn our_word_comes_before_the_callers_and_framing_is_not_the_callers() {
    let authoriser = authoriser(&[]);
    let mut question = question("/a", "");
    question.fields = vec![
        ("x-forwarded-host", "evil.example".to_owned()),
        ("content-length", "7".to_owned()),
        ("x-tenant", "one, two".to_owned()),
    ];
    let inquiry = http::inquiry(&authoriser.config, &question).unwrap();
    let names: Vec<_> = inquiry
        .fields
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "x-tollgate-consumer",
            "x-tollgate-operation",
            "x-forwarded-host",
            "x-request-id",
            "x-tenant"
        ]
    );
    let host = inquiry
        .fields
        .iter()
        .find(|(name, _)| name == "x-forwarded-host");
    assert_eq!(host.unwrap().1, "books.example");
}

#[test]
fn the_judge_sees_every_value_of_a_field() {
    let mut head = RequestHeader::build("GET", b"/", None).unwrap();
    head.append_header("x-tenant", "one").unwrap();
    head.append_header("x-tenant", &b"two\xff"[..]).unwrap();
    assert_eq!(values_of(&head, "x-tenant").unwrap(), "one, two\u{fffd}");
    assert_eq!(values_of(&head, "x-none"), None);
}
