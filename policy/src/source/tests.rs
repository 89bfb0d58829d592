//! Tests of the tree reader.
