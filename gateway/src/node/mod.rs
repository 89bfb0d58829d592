//! A data plane as a node of an installation whose control plane runs elsewhere: who it is, and where other services live.
//!
//! Without a control plane elsewhere there is none of it: [`NodeIdentity`] holds nothing then, and no service is known.

pub mod identity;
pub mod services;

pub use identity::{Held, NodeIdentity};
pub use services::{ServiceEndpoint, Services};
