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
    pub(super) answers: Range<usize>,
    /// Children that are no literals, by rank, in `Trie::branches`.
    pub(super) branches: Range<usize>,
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
    /// Literal children of each node, for those that walk the trie without a call.
    pub(super) literals: Vec<Vec<(Box<str>, NodeIndex)>>,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    parent: NodeIndex,
    hash: u32,
    /// 0, the root, is nobody's child: an empty slot.
    child: NodeIndex,
    text: Box<str>,
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
            literals: Vec::with_capacity(growing.len()),
        };
        for node in growing {
            trie.freeze(node);
        }
        trie.sum_methods();
        trie.table = trie.hash_literals();
        trie
    }

    pub(super) fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(usize::try_from(index).ok()?)
    }

    pub(super) fn branches(&self, node: &Node) -> &[Branch] {
        self.branches.get(node.branches.clone()).unwrap_or_default()
    }

    pub(super) fn answers(&self, node: &Node) -> &[Answer] {
        self.answers.get(node.answers.clone()).unwrap_or_default()
    }

    /// The child for a literal segment.
    pub(super) fn literal(&self, parent: NodeIndex, part: &Part<'_>) -> Option<NodeIndex> {
        let start = slot_of(parent, part.hash, self.table.len());
        for index in start..start + PROBE_LIMIT {
            let slot = self.table.get(index)?;
            if slot.child == 0 {
                return None;
            }
            if slot.hash == part.hash && slot.parent == parent && *slot.text == *part.text {
                return Some(slot.child);
            }
        }
        None
    }

    /// Index of a method that some route declares.
    pub(super) fn method(&self, name: &str) -> Option<usize> {
        self.methods
            .binary_search_by(|method| (**method).cmp(name))
            .ok()
    }

    pub(super) fn method_bit(method: usize) -> u64 {
        1 << method.min(SHARED_BIT)
    }

    fn freeze(&mut self, mut node: Growing) {
        node.branches.sort_by_key(|branch| branch.rank);
        let branches = self.branches.len();
        self.branches.append(&mut node.branches);
        // A route without a fragment goes before one with; beyond that document order stands.
        node.routes
            .sort_by_key(|route| self.routes.get(*route).map(|r| r.fragment));
        let answers = self.answers.len();
        for route in node.routes {
            let declared = self.routes.get(route).and_then(|r| self.method(&r.method));
            self.answers
                .extend(declared.map(|method| Answer { method, route }));
        }
        self.nodes.push(Node {
            below: 0,
            answers: answers..self.answers.len(),
            branches: branches..self.branches.len(),
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

    fn hash_literals(&self) -> Vec<Slot> {
        let count: usize = self.literals.iter().map(Vec::len).sum();
        let mut size = (count * 2).next_power_of_two().max(16);
        loop {
            if let Some(table) = self.try_table(size) {
                return table;
            }
            size *= 2;
        }
    }

    fn try_table(&self, size: usize) -> Option<Vec<Slot>> {
        // Runs may go beyond the last slot instead of wrapping round.
        let mut table = vec![Slot::default(); size + PROBE_LIMIT];
        for (parent, (text, child)) in (0..)
            .zip(&self.literals)
            .flat_map(|(parent, children)| children.iter().map(move |child| (parent, child)))
        {
            let hash = hash(text.as_bytes());
            let start = slot_of(parent, hash, table.len());
            let run = table.get_mut(start..start + PROBE_LIMIT)?;
            let free = run.iter_mut().find(|slot| slot.child == 0)?;
            *free = Slot {
                parent,
                hash,
                child: *child,
                text: text.clone(),
            };
        }
        Some(table)
    }
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
