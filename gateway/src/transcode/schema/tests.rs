//! Reading descriptor sets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
