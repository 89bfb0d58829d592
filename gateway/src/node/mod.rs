//! A data plane as a node of an installation whose control plane runs elsewhere: who it is, and where other services live.
//!
//! Without a control plane elsewhere there is none of it: [`NodeIdentity`] holds nothing then, and no service is known.

pub mod channel;
pub mod identity;
pub mod join;
pub mod membership;
pub mod renewal;
pub mod services;
pub mod tls;

pub use channel::{ControlAddress, channel};
pub use identity::{Held, NodeIdentity};
pub use join::{JoinError, join};
pub use membership::{Membership, MembershipError};
pub use services::{ServiceEndpoint, Services};
