//! Settings that may hang on a document, a path item or an operation (`x-tollgate`), or on an operation in the API file.

use std::time::Duration;

use super::cost_file::merged;
pub use super::operation_file::{from_node, unreadable};
use super::{Durability, FailureMode, Priority, RuleConfig};
use crate::quota::Cost;

/// `x-tollgate` on the document, path item or operation. `None`: not said here, ask one level out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperationSettings {
    /// `timeouts.total`: from the request's first byte to the answer's last; for streams see `stream`.
    pub total: Option<Duration>,
    /// `timeouts.first_byte`: until the head of the answer.
    pub first_byte: Option<Duration>,
    /// `timeouts.idle`: between two reads or writes of a body.
    pub idle: Option<Duration>,
    /// `retries`: how often to try again, 0 to 3.
    pub retries: Option<u8>,
    /// `upgrade: [websocket]`: the operation may become a WebSocket.
    pub websocket: Option<bool>,
    /// `max_body`: bytes of a request body.
    pub max_body: Option<u64>,
    /// `priority`: what a call is worth when not every one can be served.
    pub priority: Option<Priority>,
    /// `durability`: how well the record of a call is kept.
    pub durability: Option<Durability>,
    /// `stale_ok`: how long callers known from before are served while nobody can say whether they were revoked.
    pub stale_ok: Option<Duration>,
    /// `on_unavailable`: what a gateway's admission is worth at a sidecar that cannot have its caller looked up.
    pub on_unavailable: Option<FailureMode>,
    /// `recheck`: how often a call that goes on is judged again.
    pub recheck: Option<Recheck>,
    /// `security: off`: what the file demands of callers is left to the service.
    pub security_off: Option<bool>,
    /// `acl`: rules about the operations these settings hang on, besides those of the API file's own `acl`. The innermost
    /// place that has `acl` counts alone.
    pub acl: Option<Vec<RuleConfig>>,
    /// `cost`: what a call costs, by metric. Each metric counts as said in the innermost place that has it.
    pub costs: Option<Vec<Cost>>,
}

/// When a call that goes on is judged again, and charged for what it came to: whichever comes first. Looked at once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// So long after it was last judged.
    pub every: Duration,
    /// After so many bytes of bodies, both ways.
    pub bytes: Option<u64>,
    /// After so many messages, both ways.
    pub messages: Option<u64>,
}

impl Default for Recheck {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
            bytes: None,
            messages: None,
        }
    }
}

impl OperationSettings {
    /// These settings, with what they leave unsaid taken from `outer`.
    #[must_use]
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            total: self.total.or(outer.total),
            first_byte: self.first_byte.or(outer.first_byte),
            idle: self.idle.or(outer.idle),
            retries: self.retries.or(outer.retries),
            websocket: self.websocket.or(outer.websocket),
            max_body: self.max_body.or(outer.max_body),
            priority: self.priority.or(outer.priority),
            durability: self.durability.or(outer.durability),
            stale_ok: self.stale_ok.or(outer.stale_ok),
            on_unavailable: self.on_unavailable.or(outer.on_unavailable),
            recheck: self.recheck.or(outer.recheck),
            security_off: self.security_off.or(outer.security_off),
            acl: self.acl.as_ref().or(outer.acl.as_ref()).cloned(),
            costs: merged(self.costs.as_ref(), outer.costs.as_ref()),
        }
    }
}
