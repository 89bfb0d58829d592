//! Settings that a description carries: `x-tollgate`, and of `x-google-*` what means the same.

use std::sync::Arc;
use std::time::Duration;

use super::finder::Finder;
use super::management;
use super::reference::Spot;
use crate::quota::Limit;
use crate::settings::operation::{from_node, unreadable};
use crate::settings::{OperationSettings, limits_from_node};
use crate::source::{Map, Node, Value};

const TOLLGATE: &str = "x-tollgate";
const LIMITS: &str = "limits";

/// `x-tollgate` of a document, path item or operation; what cannot be read is a finding and says nothing, except that rules in it
/// let nobody pass until they are repaired.
pub(super) fn tollgate(owner: Spot<'_>, finder: &mut Finder) -> OperationSettings {
    let own = owner.get(TOLLGATE);
    own.map_or_else(OperationSettings::default, |own| {
        read(own, own.node, finder)
    })
}

fn read(own: Spot<'_>, node: &Node, finder: &mut Finder) -> OperationSettings {
    from_node(own.document, node).unwrap_or_else(|finding| {
        let settings = unreadable(node, &finding.place);
        finder.adopt(finding);
        settings
    })
}

/// As [`tollgate`], of the document, where `limits` may stand besides: see [`limits`].
pub(super) fn document(root: Spot<'_>, finder: &mut Finder) -> OperationSettings {
    let Some(own) = root.get(TOLLGATE) else {
        return OperationSettings::default();
    };
    let Some(map) = own.node.as_map().filter(|map| map.get(LIMITS).is_some()) else {
        return read(own, own.node, finder);
    };
    let mut others = Map::default();
    for entry in map.iter().filter(|entry| *entry.key != *LIMITS) {
        // Keys of a mapping are unique.
        let _ = others.push(entry.clone());
    }
    let others = Node {
        value: Value::Map(others),
        ..*own.node
    };
    read(own, &others, finder)
}

/// The limits a document carries: its own, and those of `x-google-management` with other names.
pub(super) fn limits(root: Spot<'_>, finder: &mut Finder) -> Vec<Arc<Limit>> {
    let own = root.get(TOLLGATE).and_then(|own| own.get(LIMITS));
    let (mut limits, findings) = own
        .map(|list| limits_from_node(list.document, list.node))
        .unwrap_or_default();
    for finding in findings {
        finder.adopt(finding);
    }
    for google in management::limits(root, finder) {
        if limits.iter().all(|own| own.name != google.name) {
            limits.push(google);
        }
    }
    limits
}

/// `x-google-backend.deadline`, in seconds: the total time of a call. Zero and less means "the default" there. And what
/// `x-google-quota` says of costs.
pub(super) fn google(owner: Spot<'_>, finder: &mut Finder) -> OperationSettings {
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
        costs: management::costs(owner, finder),
        ..OperationSettings::default()
    }
}
