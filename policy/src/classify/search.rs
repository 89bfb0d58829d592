//! Finding the one template that wins.
//!
//! Two walks. The plain one goes down from one node at a time, for as long as a single template segment stands for a single
//! path segment and ranks decide alone. The broad one keeps every (node, position) that is equal so far, and takes over where
//! a wildcard may end at several places or mixed segments tie.
//!
//! Bound: every node has one parent and is entered from it at most once for each position, so a call costs at most nodes ×
//! (path segments + 1) steps; where no wildcard is in play, at most the nodes no deeper than the path. Memory is the frontier.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::pattern::Pattern;
use super::target::{Part, Target};
use super::template::{Rank, Segment};
use super::trie::{Branch, Node, NodeIndex, Trie};

/// A search for one method over one path.
#[derive(Debug)]
pub(super) struct Search<'s, 't, 'p> {
    trie: &'s Trie,
    target: &'s Target<'t, 'p>,
    method: Option<usize>,
    /// GET, where HEAD is asked for.
    instead: Option<usize>,
    wanted: u64,
}

/// Equal so far: nodes, and the path segments used up to reach them. Sorted, without repeats.
type Frontier = SmallVec<[(NodeIndex, usize); 8]>;

impl<'s, 't, 'p> Search<'s, 't, 'p> {
    pub(super) fn new(trie: &'s Trie, target: &'s Target<'t, 'p>, method: &str) -> Self {
        let instead = if method == "HEAD" {
            trie.method("GET")
        } else {
            None
        };
        let method = trie.method(method);
        let bit = |method: Option<usize>| method.map_or(0, Trie::method_bit);
        Self {
            trie,
            target,
            method,
            instead,
            wanted: bit(method) | bit(instead),
        }
    }

    /// Index of the winning route.
    pub(super) fn winner(&self) -> Option<usize> {
        self.plain(0, 0)
    }

    /// Ends of all matching templates, whatever their methods.
    pub(super) fn ends(&self) -> BTreeSet<NodeIndex> {
        let mut ends = BTreeSet::new();
        let mut frontier = Frontier::from_slice(&[(0, 0)]);
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for run in frontier.chunk_by(|a, b| a.0 == b.0) {
                let ended = run.iter().filter(|(_, at)| *at == self.target.parts.len());
                ends.extend(ended.map(|(index, _)| *index));
                self.children(run, u64::MAX, &mut next);
            }
            frontier = next
                .into_iter()
                .map(|(_, index, position)| (index, position))
                .collect();
            tidy(&mut frontier);
        }
        ends.retain(|index| {
            self.trie
                .node(*index)
                .is_some_and(|n| !n.answers.is_empty())
        });
        ends
    }

    /// The route that answers at a node: the first in its order with the method.
    pub(super) fn answer(&self, node: &Node) -> Option<usize> {
        let answers = self.trie.answers(node);
        let found = answers.iter().find(|answer| {
            Some(answer.method) == self.method
                || (Some(answer.method) == self.instead && !self.declares_head(node, answer.route))
        });
        found.map(|answer| answer.route)
    }

    /// Whether the very template of a GET declares HEAD as well.
    fn declares_head(&self, node: &Node, get: usize) -> bool {
        let Some(head) = self.method else {
            return false;
        };
        let key = |route: usize| self.trie.routes.get(route).map(|r| &r.key);
        let mut answers = self.trie.answers(node).iter();
        answers.any(|answer| answer.method == head && key(answer.route) == key(get))
    }

    fn plain(&self, mut index: NodeIndex, mut position: usize) -> Option<usize> {
        loop {
            let node = self.trie.node(index)?;
            if node.below & self.wanted == 0 {
                return None;
            }
            let Some(part) = self.target.parts.get(position) else {
                return self.answer(node);
            };
            position += 1;
            let literal = if node.has_literals {
                self.trie.literal(index, part)
            } else {
                None
            };
            // Where there is but one way on, there is nothing to come back to.
            if let Some(child) = literal {
                if node.branches.is_empty() {
                    index = child;
                    continue;
                }
                let found = self.plain(child, position);
                if found.is_some() {
                    return found;
                }
            }
            if node.sole == 0 {
                return self.branches(node, part, position - 1);
            }
            if part.text.is_empty() {
                return None;
            }
            index = node.sole;
        }
    }

    /// The winner among templates that go on with anything but a literal.
    fn branches(&self, node: &Node, part: &Part<'_>, position: usize) -> Option<usize> {
        let mut branches = self.trie.branches(node);
        while let Some(first) = branches.first() {
            let length = branches.iter().take_while(|b| b.rank == first.rank).count();
            let (equal, lower) = branches.split_at_checked(length)?;
            let found = match equal {
                [
                    Branch {
                        segment: Segment::Pattern(pattern),
                        child,
                        ..
                    },
                ] if !pattern.spans() => {
                    if pattern.matches(part.text) && self.verb_stands(pattern, position) {
                        self.plain(*child, position + 1)
                    } else {
                        None
                    }
                }
                several => self.several(several, position),
            };
            if found.is_some() {
                return found;
            }
            branches = lower;
        }
        None
    }

    fn several(&self, equal: &[Branch], position: usize) -> Option<usize> {
        let mut frontier = Frontier::new();
        for branch in equal {
            self.enter(branch, position, self.wanted, |end| {
                frontier.push((branch.child, end))
            });
        }
        tidy(&mut frontier);
        self.broad(&frontier)
    }

    /// The winner among templates that are equal so far.
    fn broad(&self, frontier: &Frontier) -> Option<usize> {
        match frontier.as_slice() {
            [] => return None,
            [(index, position)] => return self.plain(*index, *position),
            _ => {}
        }
        let mut ended = None;
        let mut children = Vec::new();
        for run in frontier.chunk_by(|a, b| a.0 == b.0) {
            for (index, _) in run.iter().filter(|(_, at)| *at == self.target.parts.len()) {
                let answer = self.trie.node(*index).and_then(|node| self.answer(node));
                ended = earlier(ended, answer);
            }
            self.children(run, self.wanted, &mut children);
        }
        // A template that ends with its wildcard leaves nothing for those that go on.
        if ended.is_some() {
            return ended;
        }
        children.sort_unstable();
        let mut rest = children.as_slice();
        while let Some((rank, _, _)) = rest.first() {
            let length = rest.iter().take_while(|(r, _, _)| r == rank).count();
            let (equal, lower) = rest.split_at_checked(length)?;
            let mut next: Frontier = equal.iter().map(|(_, node, end)| (*node, *end)).collect();
            tidy(&mut next);
            if let Some(found) = self.broad(&next) {
                return Some(found);
            }
            rest = lower;
        }
        None
    }

    /// All that can follow one node, reached at several positions in ascending order.
    fn children(
        &self,
        run: &[(NodeIndex, usize)],
        wanted: u64,
        into: &mut Vec<(Rank, NodeIndex, usize)>,
    ) {
        let Some((index, _)) = run.first().copied() else {
            return;
        };
        let Some(node) = self.trie.node(index) else {
            return;
        };
        for (_, position) in run.iter().filter(|_| node.has_literals) {
            let Some(part) = self.target.parts.get(*position) else {
                continue;
            };
            if let Some(child) = self.trie.literal(index, part)
                && self
                    .trie
                    .node(child)
                    .is_some_and(|child| child.below & wanted != 0)
            {
                into.push((Segment::Literal(Box::default()).rank(), child, position + 1));
            }
        }
        for branch in self.trie.branches(node) {
            for (_, position) in run {
                let add = |end| into.push((branch.rank, branch.child, end));
                // What begins at the first fit may end wherever a later one may.
                if self.enter(branch, *position, wanted, add) {
                    break;
                }
            }
        }
    }

    /// Positions at which a branch may end. Whether it spans and begins here.
    fn enter(
        &self,
        branch: &Branch,
        position: usize,
        wanted: u64,
        mut ends: impl FnMut(usize),
    ) -> bool {
        let Segment::Pattern(pattern) = &branch.segment else {
            return false;
        };
        let Some(child) = self
            .trie
            .node(branch.child)
            .filter(|c| c.below & wanted != 0)
        else {
            return false;
        };
        let Some(part) = self.target.parts.get(position) else {
            return false;
        };
        if !pattern.spans() {
            if pattern.matches(part.text) && self.verb_stands(pattern, position) {
                ends(position + 1);
            }
            return false;
        }
        let last = self.target.parts.len();
        let first = if child.is_leaf() { last } else { position + 1 };
        (first..=last)
            .filter(|end| self.across(pattern, position, *end))
            .for_each(ends);
        pattern.begins(part.text)
    }

    fn across(&self, pattern: &Pattern, from: usize, to: usize) -> bool {
        self.target
            .parts
            .get(from..to)
            .is_some_and(|parts| pattern.matches_across(parts))
            && self.verb_stands(pattern, to.saturating_sub(1))
    }

    /// Whether the `:` of a verb is one, and no data that was percent-encoded.
    fn verb_stands(&self, pattern: &Pattern, last: usize) -> bool {
        match pattern.verb() {
            Some(verb) if self.target.encoded() => {
                let raw = self.target.path.split('/').nth(last + 1);
                raw.is_some_and(|raw| raw.ends_with(verb))
            }
            _ => true,
        }
    }
}

fn tidy(frontier: &mut Frontier) {
    frontier.sort_unstable();
    frontier.dedup();
}

fn earlier(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
