//! A data plane as a node of an installation whose control plane runs elsewhere: who it is, and where other services live.
//!
//! Without a control plane elsewhere there is none of it: [`NodeIdentity`] holds nothing then, and no service is known but those that
//! the configuration names.

use std::sync::Arc;

pub mod channel;
pub mod identity;
pub mod join;
pub mod line;
pub mod membership;
pub mod renewal;
pub mod services;
pub mod tls;

pub use channel::{ControlAddress, channel};
pub use identity::{Held, NodeIdentity};
pub use join::{JoinError, join};
pub use membership::{Membership, MembershipError};
pub use services::{ServiceEndpoint, Services};

/// What the way to other services of the installation stands on.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Who we are to them.
    pub identity: Arc<NodeIdentity>,
    /// Where they live.
    pub services: Arc<Services>,
}

impl Mesh {
    /// Of a process that belongs to no installation: it has no identity, and knows the services that its configuration names.
    pub fn none() -> Self {
        Self {
            identity: NodeIdentity::none(),
            services: Arc::new(Services::alone()),
        }
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self::none()
    }
}
