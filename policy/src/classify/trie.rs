//! All templates of an API as one trie of segments, flat in memory.
//!
//! Literal children stand in one open-addressing table for the whole trie, keyed by node and hash of the segment, so a look-up
//! costs the same for ten operations and ten thousand. Does not search (`search`) and reports nothing (`findings`).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::target::{Part, hash};
use super::template::{Kind, Rank, Segment, Template};

/// Index of a node. The root is 0.
pub(super) type NodeIndex = u32;

/// One operation under one base path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) operation: usize,
    /// Which way to call it.
    pub(super) way: usize,
    pub(super) base: Arc<str>,
    pub(super) method: Arc<str>,
    /// The path key, for people.
    pub(super) key: Arc<str>,
    pub(super) fragment: bool,
    pub(super) template: Template,
}

/// A place in the trie.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Methods answered here or below: see [`Trie::method_bit`].
    pub(super) below: u64,
    /// Where templates end: methods and their routes, in `Trie::answers`.
    pub(super) answers: Range<u32>,
    /// Children that are no literals, by rank, in `Trie::branches`.
    pub(super) branches: Range<u32>,
    /// The child for `{x}` alone, where that is the only branch; 0 where not.
    pub(super) sole: NodeIndex,
    pub(super) has_literals: bool,
}

impl Node {
    /// Whether no template goes on from here.
    pub(super) fn is_leaf(&self) -> bool {
        !self.has_literals && self.branches.is_empty()
    }
}

/// A child that is no literal.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) rank: Rank,
    pub(super) segment: Segment,
    pub(super) child: NodeIndex,
}

/// A method answered at a node, and by which route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) method: usize,
    pub(super) route: usize,
}

/// The compiled trie.
#[derive(Debug)]
pub(super) struct Trie {
    pub(super) nodes: Vec<Node>,
    pub(super) branches: Vec<Branch>,
    pub(super) answers: Vec<Answer>,
    /// Distinct methods, sorted.
    pub(super) methods: Vec<Arc<str>>,
    /// In document order, then in the order of the bases: the index is the last word in a tie.
    pub(super) routes: Vec<Route>,
    table: Vec<Slot>,
    /// The text of all slots, one behind the other.
    text: String,
    /// Literal children of each node, for those that walk the trie without a call.
    pub(super) literals: Vec<Vec<(Box<str>, NodeIndex)>>,
}

/// Small, so that four share a cache line.
#[derive(Debug, Clone, Default)]
struct Slot {
    parent: NodeIndex,
    /// 0, the root, is nobody's child: an empty slot.
    child: NodeIndex,
    /// Where its text begins in `Trie::text`.
    start: u32,
    length: u32,
}

/// A table that needs a longer run than this to find a child is built anew, twice the size.
const PROBE_LIMIT: usize = 8;

/// The bit of HEAD is set beside GET's wherever GET is answered; methods beyond the 63rd share the last bit.
const SHARED_BIT: usize = 63;

#[derive(Default)]
struct Growing {
    literals: HashMap<Box<str>, NodeIndex>,
    order: Vec<(Box<str>, NodeIndex)>,
    branches: Vec<Branch>,
    by_segment: HashMap<Segment, NodeIndex>,
    routes: Vec<usize>,
}

impl Trie {
    pub(super) fn build(routes: Vec<Route>) -> Self {
        let mut methods: Vec<Arc<str>> = routes.iter().map(|r| Arc::clone(&r.method)).collect();
        methods.sort_unstable();
        methods.dedup();
        let mut growing = vec![Growing::default()];
        for (index, route) in routes.iter().enumerate() {
            let mut node = 0;
            for segment in &route.template.segments {
                node = child(&mut growing, node, segment);
            }
            if let Some(end) = get_mut(&mut growing, node) {
                end.routes.push(index);
            }
        }
        let mut trie = Self {
            nodes: Vec::with_capacity(growing.len()),
            branches: Vec::new(),
            answers: Vec::new(),
            methods,
            routes,
            table: Vec::new(),
            text: String::new(),
            literals: Vec::with_capacity(growing.len()),
        };
        for node in growing {
            trie.freeze(node);
        }
        trie.sum_methods();
        trie.hash_literals();
        trie
    }

    pub(super) fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(usize::try_from(index).ok()?)
    }

    pub(super) fn branches(&self, node: &Node) -> &[Branch] {
        within(&self.branches, &node.branches)
    }

    pub(super) fn answers(&self, node: &Node) -> &[Answer] {
        within(&self.answers, &node.answers)
    }

    /// The child for a literal segment.
    pub(super) fn literal(&self, parent: NodeIndex, part: &Part<'_>) -> Option<NodeIndex> {
        let start = slot_of(parent, part.hash, self.table.len());
        for slot in self.table.get(start..start + PROBE_LIMIT)? {
            if slot.child == 0 {
                return None;
            }
            if slot.parent == parent && self.slot_text(slot) == Some(part.text.as_bytes()) {
                return Some(slot.child);
            }
        }
        None
    }

    fn slot_text(&self, slot: &Slot) -> Option<&[u8]> {
        let start = usize::try_from(slot.start).ok()?;
        let end = start + usize::try_from(slot.length).ok()?;
        self.text.as_bytes().get(start..end)
    }

    /// Index of a method that some route declares. They are few: looking at each is quicker than halving.
    pub(super) fn method(&self, name: &str) -> Option<usize> {
        self.methods.iter().position(|method| **method == *name)
    }

    pub(super) fn method_bit(method: usize) -> u64 {
        1 << method.min(SHARED_BIT)
    }

    fn freeze(&mut self, mut node: Growing) {
        node.branches.sort_by_key(|branch| branch.rank);
        let sole = match node.branches.as_slice() {
            [
                Branch {
                    segment: Segment::Pattern(pattern),
                    child,
                    ..
                },
            ] if pattern.is_plain() => *child,
            _ => 0,
        };
        let branches = short(self.branches.len());
        self.branches.append(&mut node.branches);
        // A route without a fragment goes before one with; beyond that document order stands.
        node.routes
            .sort_by_key(|route| self.routes.get(*route).map(|r| r.fragment));
        let answers = short(self.answers.len());
        for route in node.routes {
            let declared = self.routes.get(route).and_then(|r| self.method(&r.method));
            self.answers
                .extend(declared.map(|method| Answer { method, route }));
        }
        self.nodes.push(Node {
            below: 0,
            answers: answers..short(self.answers.len()),
            branches: branches..short(self.branches.len()),
            sole,
            has_literals: !node.order.is_empty(),
        });
        self.literals.push(node.order);
    }

    /// Children stand behind their parents: from the back, every child is done before its parent.
    fn sum_methods(&mut self) {
        for index in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get(index) else {
                continue;
            };
            let here = self
                .answers(node)
                .iter()
                .map(|a| Self::method_bit(a.method));
            let mut below = here.fold(0, |all, bit| all | bit);
            let literals = self
                .literals
                .get(index)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let children = literals.iter().map(|(_, child)| *child);
            for child in children.chain(self.branches(node).iter().map(|b| b.child)) {
                below |= self.node(child).map_or(0, |node| node.below);
            }
            if let Some(node) = self.nodes.get_mut(index) {
                node.below = below;
            }
        }
    }

    fn hash_literals(&mut self) {
        let mut slots = Vec::new();
        for (parent, children) in (0..).zip(&self.literals) {
            for (text, child) in children {
                let slot = Slot {
                    parent,
                    child: *child,
                    start: short(self.text.len()),
                    length: short(text.len()),
                };
                self.text.push_str(text);
                slots.push((hash(text.as_bytes()), slot));
            }
        }
        let mut size = (slots.len() * 2).next_power_of_two().max(16);
        self.table = loop {
            if let Some(table) = try_table(&slots, size) {
                break table;
            }
            size *= 2;
        };
    }
}

fn try_table(slots: &[(u32, Slot)], size: usize) -> Option<Vec<Slot>> {
    // Runs may go beyond the last slot instead of wrapping round.
    let mut table = vec![Slot::default(); size + PROBE_LIMIT];
    for (hash, slot) in slots {
        let start = slot_of(slot.parent, *hash, table.len());
        let run = table.get_mut(start..start + PROBE_LIMIT)?;
        *run.iter_mut().find(|slot| slot.child == 0)? = slot.clone();
    }
    Some(table)
}

/// An API file is far smaller than what an index of 32 bits reaches; what were beyond would not be found.
fn short(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn within<'s, T>(all: &'s [T], range: &Range<u32>) -> &'s [T] {
    let wide = |index: u32| usize::try_from(index).unwrap_or(usize::MAX);
    all.get(wide(range.start)..wide(range.end))
        .unwrap_or_default()
}

fn slot_of(parent: NodeIndex, hash: u32, length: usize) -> usize {
    let mixed = (u64::from(parent) << 32 | u64::from(hash)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let size = length.saturating_sub(PROBE_LIMIT);
    usize::try_from(mixed >> 32).unwrap_or(0) & size.wrapping_sub(1)
}

fn get_mut(nodes: &mut [Growing], index: NodeIndex) -> Option<&mut Growing> {
    nodes.get_mut(usize::try_from(index).ok()?)
}

fn child(nodes: &mut Vec<Growing>, parent: NodeIndex, segment: &Segment) -> NodeIndex {
    let next = NodeIndex::try_from(nodes.len()).unwrap_or(NodeIndex::MAX);
    let Some(node) = get_mut(nodes, parent) else {
        return 0;
    };
    let known = match segment {
        Segment::Literal(text) => node.literals.get(text),
        Segment::Pattern(_) => node.by_segment.get(segment),
    };
    if let Some(known) = known {
        return *known;
    }
    match segment {
        Segment::Literal(text) => {
            node.literals.insert(text.clone(), next);
            node.order.push((text.clone(), next));
        }
        Segment::Pattern(_) => {
            let (segment, rank) = (segment.clone(), segment.rank());
            debug_assert_ne!(rank.kind(), Kind::Literal);
            node.by_segment.insert(segment.clone(), next);
            node.branches.push(Branch {
                rank,
                segment,
                child: next,
            });
        }
    }
    nodes.push(Growing::default());
    next
}
