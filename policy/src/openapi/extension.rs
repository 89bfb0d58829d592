//! Settings that a description carries: `x-tollgate`, and of `x-google-backend` what means the same.

use std::time::Duration;

use super::finder::{Finder, unusable};
use super::reference::Spot;
use crate::finding::Finding;
use crate::settings::OperationSettings;
use crate::source::{Document, Node};

/// `x-tollgate` of a document, path item or operation; what cannot be read is a finding and says nothing.
pub(super) fn tollgate(owner: Spot<'_>, finder: &mut Finder) -> OperationSettings {
    let Some(own) = owner.get("x-tollgate") else {
        return OperationSettings::default();
    };
    read_settings(own.document, own.node).unwrap_or_else(|finding| {
        finder.adopt(finding);
        OperationSettings::default()
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

fn read_settings(document: &Document, node: &Node) -> Result<OperationSettings, Finding> {
    let bad = |node: &Node, what: &str, remedy: &str| {
        unusable(document.place(node), "bad-setting", what, remedy)
    };
    let Some(map) = node.as_map() else {
        return Err(bad(
            node,
            "`x-tollgate` is no mapping",
            "write settings below it",
        ));
    };
    let mut settings = OperationSettings::default();
    for entry in map.iter() {
        let node = &entry.node;
        match &*entry.key {
            "timeouts" => timeouts(node, &mut settings)
                .ok_or_else(|| bad(node, "`timeouts` cannot be read", "write `total: 30s`")),
            "retries" => {
                settings.retries = node.as_u64().and_then(|n| u8::try_from(n).ok());
                settings
                    .retries
                    .filter(|retries| *retries <= 3)
                    .map(drop)
                    .ok_or_else(|| bad(node, "`retries` is not from 0 to 3", "write `retries: 1`"))
            }
            "upgrade" => {
                let kinds = node.as_list().unwrap_or_default();
                settings.websocket = Some(kinds.iter().any(|k| k.as_str() == Some("websocket")));
                let known = node.as_list().is_some()
                    && kinds.iter().all(|kind| kind.as_str() == Some("websocket"));
                known
                    .then_some(())
                    .ok_or_else(|| bad(node, "`upgrade` is not known", "write `[websocket]`"))
            }
            "max_body" => {
                settings.max_body = node.as_u64().or_else(|| size(node.as_str()?));
                settings
                    .max_body
                    .map(drop)
                    .ok_or_else(|| bad(node, "`max_body` is no size", "write `max_body: 1MiB`"))
            }
            "security" => {
                settings.security_off = match (node.as_str(), node.as_bool()) {
                    (Some("off"), _) | (_, Some(false)) => Some(true),
                    (Some("enforce"), _) => Some(false),
                    _ => None,
                };
                settings
                    .security_off
                    .map(drop)
                    .ok_or_else(|| bad(node, "`security` is not known", "write `security: off`"))
            }
            // Settings of other parts; the reader of this crate's settings judges names.
            _ => Ok(()),
        }?;
    }
    Ok(settings)
}

fn timeouts(node: &Node, settings: &mut OperationSettings) -> Option<()> {
    for entry in node.as_map()?.iter() {
        let time = Some(duration(entry.node.as_str()?)?);
        match &*entry.key {
            "total" => settings.total = time,
            "first_byte" => settings.first_byte = time,
            "idle" => settings.idle = time,
            _ => return None,
        }
    }
    Some(())
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
