//! Why a call is classified as it is, in words.
//!
//! Walks everything that matches, so it costs more than a classification. Not for the request path.

use super::search::Search;
use super::target::{Path, Target};
use super::template::{Kind, Rank, Segment};
use super::trie::{NodeIndex, Route, Trie};

/// Nearest templates that are named for a call that is none.
const NEAREST: usize = 3;

/// Lines for a person.
pub(super) fn lines(trie: &Trie, method: &str, target: &str) -> Vec<String> {
    let path = match Path::parse(target) {
        Ok(Some(path)) => path,
        Ok(None) => return vec!["404: the target is no path, it does not begin with `/`".into()],
        Err(_) => {
            return vec![
                "400: a `%` stands without two hex digits, or what is encoded is no UTF-8".into(),
            ];
        }
    };
    let target = Target::new(&path);
    let search = Search::new(trie, &target, method);
    if let Some(winner) = search.winner()
        && let Some(route) = trie.routes.get(winner)
    {
        return won(trie, &search, winner, route, method);
    }
    let ends = search.ends();
    if ends.is_empty() {
        unknown(trie, &target)
    } else {
        no_method(trie, method, &ends)
    }
}

fn won(
    trie: &Trie,
    search: &Search<'_, '_, '_>,
    winner: usize,
    route: &Route,
    method: &str,
) -> Vec<String> {
    let mut lines = vec![format!("{} wins", name(route))];
    if *route.method != *method {
        lines.push(format!("{} answers {method}", route.method));
    }
    let matching = search.ends();
    let nodes = matching.iter().filter_map(|end| trie.node(*end));
    for node in nodes {
        for answer in trie.answers(node) {
            let Some(other) = trie.routes.get(answer.route) else {
                continue;
            };
            let competes =
                *other.method == *method || (method == "HEAD" && *other.method == *"GET");
            if answer.route == winner || (other.key == route.key && other.base == route.base) {
                continue;
            }
            if competes {
                lines.push(format!("{} (over {})", decisive(route, other), name(other)));
            }
        }
    }
    lines
}

/// The first segment that decides between two templates.
fn decisive(winner: &Route, other: &Route) -> String {
    let pairs = winner
        .template
        .segments
        .iter()
        .zip(&other.template.segments);
    for (position, (ours, theirs)) in (1..).zip(pairs) {
        let (our_rank, their_rank) = (ours.rank(), theirs.rank());
        if our_rank != their_rank {
            let (ours, theirs) = (described(ours, our_rank), described(theirs, their_rank));
            return format!("segment {position}: {ours} beats {theirs}");
        }
    }
    if winner.template.segments.len() < other.template.segments.len() {
        return "its wildcard takes the rest".into();
    }
    if other.fragment && !winner.fragment {
        return "a path key without `#fragment` beats one with".into();
    }
    "no segment decides: first in the document".into()
}

fn described(segment: &Segment, rank: Rank) -> String {
    let text = match segment {
        Segment::Literal(text) => text.to_string(),
        Segment::Pattern(pattern) => {
            let gap = if pattern.spans() { "{x+}" } else { "{x}" };
            pattern.literals().join(gap)
        }
    };
    match rank.kind() {
        kind @ (Kind::Literal | Kind::Mixed | Kind::Parameter | Kind::Wildcard) => {
            format!("{} `{text}`", kind.word())
        }
    }
}

fn no_method(
    trie: &Trie,
    method: &str,
    ends: &std::collections::BTreeSet<NodeIndex>,
) -> Vec<String> {
    let mut lines = vec![format!("405: templates match, none declares {method}")];
    let nodes = ends.iter().filter_map(|end| trie.node(*end));
    let routes = nodes.flat_map(|node| trie.answers(node));
    lines.extend(
        routes
            .filter_map(|a| trie.routes.get(a.route))
            .map(|r| format!("matches {}", name(r))),
    );
    lines
}

fn unknown(trie: &Trie, target: &Target<'_, '_>) -> Vec<String> {
    let (reached, nodes) = deepest(trie, target);
    let mut lines = vec!["404: no template matches".to_owned()];
    lines.push(match target.parts.get(reached) {
        Some(part) if part.text.is_empty() => {
            format!(
                "segment {} is empty, which no template has here",
                reached + 1
            )
        }
        Some(part) => format!("nothing matches segment {}, `{}`", reached + 1, part.text),
        None => format!("templates that match all {reached} segments go on after them"),
    });
    let mut near: Vec<String> = Vec::new();
    for node in nodes {
        below(trie, node, &mut near);
    }
    lines.extend(near.into_iter().map(|name| format!("near: {name}")));
    lines
}

/// How many path segments some template matches, and the nodes there.
fn deepest(trie: &Trie, target: &Target<'_, '_>) -> (usize, Vec<NodeIndex>) {
    let mut nodes = vec![0];
    for (position, part) in target.parts.iter().enumerate() {
        let mut next = Vec::new();
        for index in &nodes {
            next.extend(trie.literal(*index, part));
            let Some(node) = trie.node(*index) else {
                continue;
            };
            for branch in trie.branches(node) {
                if let Segment::Pattern(pattern) = &branch.segment
                    && pattern.matches(part.text)
                {
                    next.push(branch.child);
                }
            }
        }
        if next.is_empty() {
            return (position, nodes);
        }
        nodes = next;
    }
    (target.parts.len(), nodes)
}

fn below(trie: &Trie, index: NodeIndex, into: &mut Vec<String>) {
    let mut waiting = vec![index];
    while let Some(index) = waiting.pop() {
        let Some(node) = trie.node(index) else {
            continue;
        };
        for answer in trie.answers(node) {
            if into.len() >= NEAREST {
                return;
            }
            into.extend(trie.routes.get(answer.route).map(name));
        }
        let literals = usize::try_from(index)
            .ok()
            .and_then(|index| trie.literals.get(index));
        waiting.extend(trie.branches(node).iter().map(|branch| branch.child));
        waiting.extend(
            literals
                .into_iter()
                .flatten()
                .rev()
                .map(|(_, child)| *child),
        );
    }
}

fn name(route: &Route) -> String {
    format!("{} {}{}", route.method, route.base, route.key)
}
