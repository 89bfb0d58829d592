//! What a role adds to the engine. A gateway adds nothing.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tollgate_policy::settings::ApiConfig;

use crate::listener::{Mutual, Node, TlsKeys};
use crate::node::NodeIdentity;

/// Something that goes on beside the requests, on the control thread.
pub type Beside = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a role adds, said before the listeners are opened.
#[derive(Default)]
pub struct Role {
    /// Health probes that go to the service unjudged.
    pub probes: Option<ProbedApp>,
    /// TLS of the listeners that have no certificates of their own.
    pub mutual: Option<MutualTls>,
    /// Usage is recorded by nobody, since there is nobody to bill.
    pub unmetered: bool,
}

impl fmt::Debug for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Role")
            .field("probes", &self.probes)
            .field("mutual", &self.mutual)
            .field("unmetered", &self.unmetered)
            .finish()
    }
}

/// What is probed.
#[derive(Debug)]
pub struct ProbedApp {
    /// Paths, exactly.
    pub paths: Vec<Box<str>>,
    /// How the service is reached.
    pub app: ApiConfig,
}

/// TLS between processes of the installation.
#[derive(Clone, Debug)]
pub struct MutualTls {
    /// Who this process is, now and later.
    pub identity: Arc<NodeIdentity>,
    /// Who may connect.
    pub mutual: Mutual,
    /// The service it stands beside, as metrics name it.
    pub service: Arc<str>,
}

impl MutualTls {
    pub(super) fn keys(&self) -> Arc<TlsKeys> {
        TlsKeys::of_node(Node::new(Arc::clone(&self.identity), self.mutual))
    }
}

/// Says what is still missing before traffic is to come; `None`: nothing. Asked for every `/readyz`: it looks, and does not wait.
#[derive(Clone)]
pub struct ReadyWhen(pub Arc<dyn Fn() -> Option<Cow<'static, str>> + Send + Sync>);

impl fmt::Debug for ReadyWhen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReadyWhen")
    }
}
