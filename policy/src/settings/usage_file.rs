//! `usage` of `tollgate.yaml`: as written, and turned into [`UsageConfig`].

use std::time::Duration;

use serde::Deserialize;

use super::decode::Text;
use super::reader::Reader;
use super::value::{self, Wrong};
use super::{Durability, UsageConfig, UsageRetention, names};

/// Room for a few segments of several workers.
const SMALLEST: u64 = 8 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUsage {
    node: Option<Text>,
    max_bytes: Option<Text>,
    on_full: Option<Text>,
    keep: Option<WrittenRetention>,
    event_source: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRetention {
    minutes: Option<Text>,
    hours: Option<Text>,
    days: Option<Text>,
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
        keep: match &written.keep {
            Some(written) => retention(reader, unsaid.keep, written),
            None => unsaid.keep,
        },
        event_source: reader
            .value(
                "usage.event_source",
                written.event_source.as_ref(),
                event_source,
            )
            .unwrap_or(unsaid.event_source),
    }
}

fn retention(
    reader: &mut Reader,
    unsaid: UsageRetention,
    written: &WrittenRetention,
) -> UsageRetention {
    let mut kept = |name: &str, text: &Option<Text>, unsaid| {
        let field = format!("usage.keep.{name}");
        reader.value(&field, text.as_ref(), kept).unwrap_or(unsaid)
    };
    UsageRetention {
        minutes: kept("minutes", &written.minutes, unsaid.minutes),
        hours: kept("hours", &written.hours, unsaid.hours),
        days: kept("days", &written.days, unsaid.days),
    }
}

/// A day at least: the numbers of today are asked for most.
fn kept(text: &str) -> Result<Duration, Wrong> {
    let time = value::days(text)?;
    if time < Duration::from_secs(86_400) {
        let what = format!("`{text}` is shorter than a day");
        return Err(Wrong::new(what, "write at least 1d"));
    }
    Ok(time)
}

/// A URI reference (CloudEvents 1.0, `source`), as far as that can be seen.
fn event_source(text: &str) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !br#"\"<>^`{|}"#.contains(&byte);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(plain) {
        let what = format!("`{text}` is no URI reference");
        return Err(Wrong::new(what, "write for example /acme/gateway/usage"));
    }
    Ok(text.to_owned())
}

fn max_bytes(text: &str) -> Result<u64, Wrong> {
    let bytes = value::size(text)?;
    if bytes < SMALLEST {
        let what = format!("`{text}` holds too few records to bridge a pause");
        return Err(Wrong::new(what, "write at least 8MiB"));
    }
    Ok(bytes)
}

/// `durability` of an operation.
pub(super) fn durability(text: &str) -> Result<Durability, Wrong> {
    match text {
        "metric" => Ok(Durability::Metric),
        "process" => Ok(Durability::Process),
        "disk" => Ok(Durability::Disk),
        _ => Err(Wrong::new(
            format!("`{text}` is none of `metric`, `process` and `disk`"),
            "write process: the record of a call survives the process, disk: also a power cut, metric: there is none",
        )),
    }
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
        assert!(durability("disk").is_ok() && durability("ssd").is_err());
        assert!(kept("1d").is_ok() && kept("23h").is_err() && kept("off").is_err());
        assert!(event_source("https://a.example/b?c#d").is_ok());
        assert!(event_source("").is_err() && event_source("a b").is_err());
    }
}
