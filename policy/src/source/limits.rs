//! What one document may cost before it is refused.
//!
//! The numbers are constants, not settings: they protect the process from a file, and no real file has come near them. They
//! are handed in so that each can be met in a test at no cost.

/// Bytes of one file. The largest description seen in the wild has 47 MB.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Nesting of lists and maps. Real descriptions stay below 60; each level costs stack when a tree is walked.
pub const MAX_DEPTH: usize = 200;

/// Values that are written in one document. The largest description seen has about 2,000,000; a value costs up to 100
/// bytes of memory.
pub const MAX_NODES: usize = 5_000_000;

/// Values that YAML aliases may add to one document. Authors repeat snippets, not whole documents; without a limit a
/// file of ten lines grows to gigabytes.
pub const MAX_ALIASED_NODES: usize = 1_000_000;

/// The limits one document is read within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its text; [`MAX_BYTES`].
    pub bytes: usize,
    /// Levels of lists and maps in one another; [`MAX_DEPTH`].
    pub depth: usize,
    /// Values; [`MAX_NODES`].
    pub nodes: usize,
    /// Values that aliases add; [`MAX_ALIASED_NODES`].
    pub aliased_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: MAX_BYTES,
            depth: MAX_DEPTH,
            nodes: MAX_NODES,
            aliased_nodes: MAX_ALIASED_NODES,
        }
    }
}
