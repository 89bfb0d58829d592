//! Settings that a description carries: `x-tollgate`, and of `x-google-backend` what means the same.

use std::time::Duration;

use super::finder::Finder;
use super::reference::Spot;
use crate::settings::OperationSettings;
use crate::settings::operation::{from_node, unreadable};
use crate::source::Node;

/// `x-tollgate` of a document, path item or operation; what cannot be read is a finding and says nothing, except that rules in it
/// let nobody pass until they are repaired.
pub(super) fn tollgate(owner: Spot<'_>, finder: &mut Finder) -> OperationSettings {
    let Some(own) = owner.get("x-tollgate") else {
        return OperationSettings::default();
    };
    from_node(own.document, own.node).unwrap_or_else(|finding| {
        let settings = unreadable(own.node, &finding.place);
        finder.adopt(finding);
        settings
    })
}

/// `x-google-backend.deadline`, in seconds: the total time of a call. Zero and less means "the default" there.
pub(super) fn google(owner: Spot<'_>) -> OperationSettings {
    let deadline = owner
        .node
        .get("x-google-backend")
        .and_then(|backend| backend.get("deadline"));
    let total = deadline
        .and_then(Node::as_f64)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|total| !total.is_zero());
    OperationSettings {
        total,
        ..OperationSettings::default()
    }
}
