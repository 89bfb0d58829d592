//! The classifier against a slow, obvious matcher written straight from the rules: try every template, keep the best.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::description;
use crate::classify::{Classifier, Unclassified};

/// A piece of a template segment.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    One,
    Wild,
}

type Segment = Vec<Piece>;

fn pieces(segment: &str) -> Segment {
    let mut pieces = Vec::new();
    let mut rest = segment;
    while let Some((text, after)) = rest.split_once('{') {
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        let (name, after) = after.split_once('}').unwrap();
        pieces.push(if name.ends_with('+') {
            Piece::Wild
        } else {
            Piece::One
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    pieces
}

/// Values of the greediest match of the whole template, by plain backtracking. `/` is `None` among the path's characters.
fn fit(pieces: &[Option<Piece>], path: &[char]) -> Option<Vec<String>> {
    let Some((piece, rest)) = pieces.split_first() else {
        return path.is_empty().then(Vec::new);
    };
    match piece {
        None => fit(rest, path.strip_prefix(&['/'])?),
        Some(Piece::Text(text)) => fit(
            rest,
            path.strip_prefix(text.chars().collect::<Vec<_>>().as_slice())?,
        ),
        Some(expression) => {
            let wild = *expression == Piece::Wild;
            let longest = if wild {
                path.len()
            } else {
                path.iter().take_while(|c| **c != '/').count()
            };
            (1..=longest).rev().find_map(|length| {
                let mut values = fit(rest, &path[length..])?;
                values.insert(0, path[..length].iter().collect());
                Some(values)
            })
        }
    }
}

fn rank(segment: &Segment) -> (u8, Reverse<usize>, usize, Reverse<usize>) {
    let length = |piece: &Piece| {
        if let Piece::Text(t) = piece {
            t.chars().count()
        } else {
            0
        }
    };
    let text: usize = segment.iter().map(length).sum();
    let expressions = segment
        .iter()
        .filter(|p| !matches!(p, Piece::Text(_)))
        .count();
    match (expressions, text) {
        (0, _) => (0, Reverse(0), 0, Reverse(0)),
        (_, 0) if segment.contains(&Piece::Wild) => (3, Reverse(0), expressions, Reverse(0)),
        (_, 0) => (2, Reverse(0), expressions, Reverse(0)),
        _ => (
            1,
            Reverse(text),
            expressions,
            Reverse(segment.first().map_or(0, length)),
        ),
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    Match(usize, Vec<String>),
    NoTemplate,
    NoMethod(Vec<String>),
}

fn slow(routes: &[(String, String)], method: &str, path: &str) -> Answer {
    let path: Vec<char> = path.chars().collect();
    let split = |template: &str| template[1..].split('/').map(pieces).collect::<Vec<_>>();
    let mut matching = Vec::new();
    for (index, (_, template)) in routes.iter().enumerate() {
        let segments = split(template);
        let all: Vec<Option<Piece>> = segments
            .iter()
            .flat_map(|s| std::iter::once(None).chain(s.iter().cloned().map(Some)))
            .collect();
        matching.extend(fit(&all, &path).map(|values| (index, segments, values)));
    }
    let declares =
        |template: &str, method: &str| routes.iter().any(|(m, t)| t == template && m == method);
    let declared: Vec<&(String, String)> = matching.iter().map(|(i, ..)| &routes[*i]).collect();
    let mut allow: BTreeSet<String> = declared.iter().map(|(m, _)| m.clone()).collect();
    if allow.contains("GET") {
        allow.insert("HEAD".into());
    }
    let nothing = matching.is_empty();
    matching.retain(|(index, ..)| {
        let (declared, template) = &routes[*index];
        declared == method || (method == "HEAD" && declared == "GET" && !declares(template, "HEAD"))
    });
    // Segment by segment, whoever ranks worst drops out; one that has ended ranks best.
    for position in 0..8 {
        let ranked = |segments: &[Segment]| segments.get(position).map(rank);
        let best = matching
            .iter()
            .map(|(_, segments, _)| ranked(segments))
            .min();
        matching.retain(|(_, segments, _)| Some(ranked(segments)) == best);
    }
    match matching.into_iter().min_by_key(|(index, ..)| *index) {
        Some((index, _, values)) => Answer::Match(index, values),
        None if nothing => Answer::NoTemplate,
        None => Answer::NoMethod(allow.into_iter().collect()),
    }
}

fn fast(routes: &[(String, String)], method: &str, path: &str) -> Answer {
    let (classifier, _) = Classifier::compile(&description(routes));
    match classifier.classify(method, path) {
        Ok(m) => Answer::Match(
            m.operation,
            m.parameters.iter().map(|(_, v)| v.to_string()).collect(),
        ),
        Err(Unclassified::NoTemplate) => Answer::NoTemplate,
        Err(Unclassified::NoMethod { allow }) => {
            Answer::NoMethod(allow.iter().map(ToString::to_string).collect())
        }
        Err(Unclassified::BadEncoding) => panic!("nothing is encoded"),
    }
}

fn template() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec![
        "a", "b", "ab", "", "{x}", "{x}", "{x}{y}", "a{x}", "{x}b", "a{x}b{y}", "{x}a{y}",
        "a{x}a{y}", "{x+}", "{x+}a", "b{x+}",
    ]);
    prop::collection::vec(segment, 1..5)
        .prop_map(|segments| segments.iter().map(|s| format!("/{s}")).collect())
}

fn route() -> impl Strategy<Value = (String, String)> {
    let method = prop::sample::select(vec!["GET", "GET", "HEAD", "PUT"]);
    (method.prop_map(String::from), template())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_trie_answers_as_trying_every_template_does(
        routes in prop::collection::vec(route(), 1..9),
        paths in prop::collection::vec("(/[abc]{0,4}){1,5}", 8),
        method in prop::sample::select(vec!["GET", "HEAD", "PUT", "POST"]),
    ) {
        for path in &paths {
            prop_assert_eq!(
                fast(&routes, method, path), slow(&routes, method, path), "{} {}", method, path
            );
        }
    }
}
