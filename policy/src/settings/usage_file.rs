//! `usage` of `tollgate.yaml`: as written, and turned into [`UsageConfig`].

use serde::Deserialize;

use super::decode::Text;
use super::reader::Reader;
use super::value::{self, Wrong};
use super::{UsageConfig, names};

/// Room for a few segments of several workers.
const SMALLEST: u64 = 8 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUsage {
    node: Option<Text>,
    max_bytes: Option<Text>,
    on_full: Option<Text>,
}

/// The meaning; what is unsaid is taken from `unsaid`.
pub(super) fn usage(
    reader: &mut Reader,
    unsaid: UsageConfig,
    written: &WrittenUsage,
) -> UsageConfig {
    UsageConfig {
        node: reader
            .value("usage.node", written.node.as_ref(), names::object)
            .or(unsaid.node),
        max_bytes: reader
            .value("usage.max_bytes", written.max_bytes.as_ref(), max_bytes)
            .unwrap_or(unsaid.max_bytes),
        serve_unmetered: reader
            .value("usage.on_full", written.on_full.as_ref(), serve_unmetered)
            .unwrap_or(unsaid.serve_unmetered),
    }
}

fn max_bytes(text: &str) -> Result<u64, Wrong> {
    let bytes = value::size(text)?;
    if bytes < SMALLEST {
        let what = format!("`{text}` holds too few records to bridge a pause");
        return Err(Wrong::new(what, "write at least 8MiB"));
    }
    Ok(bytes)
}

fn serve_unmetered(text: &str) -> Result<bool, Wrong> {
    match text {
        "refuse" => Ok(false),
        "serve_unmetered" => Ok(true),
        _ => Err(Wrong::new(
            format!("`{text}` is neither `refuse` nor `serve_unmetered`"),
            "write refuse: calls that cannot be recorded are refused with 503",
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_not_too_small_and_refuses_or_serves() {
        assert_eq!(max_bytes("64MiB").map_err(|_| ()), Ok(64 << 20));
        assert!(max_bytes("1MiB").is_err());
        assert_eq!(serve_unmetered("refuse").map_err(|_| ()), Ok(false));
        assert_eq!(serve_unmetered("serve_unmetered").map_err(|_| ()), Ok(true));
        assert!(serve_unmetered("drop").is_err());
    }
}
