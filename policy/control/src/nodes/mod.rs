//! Nodes: the data planes of the installation.

pub mod registry;
