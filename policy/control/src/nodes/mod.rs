//! Data planes elsewhere: how they become nodes of the installation, and the port they are served at.

mod identity;
pub mod port;
pub(crate) mod tokens;
