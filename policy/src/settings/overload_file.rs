//! `overload` of `tollgate.yaml`: as written, and turned into [`OverloadConfig`].

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::decode::Text;
use super::reader::Reader;
use super::value::{self, Wrong};
use super::{OverloadConfig, Priority};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenOverload {
    requests_per_address: Option<Text>,
    failures_per_address: Option<Text>,
    exempt: Option<Vec<Text>>,
    queue_delay: Option<Text>,
}

/// The meaning; what is unsaid is taken from `unsaid`.
pub(super) fn overload(
    reader: &mut Reader,
    unsaid: OverloadConfig,
    written: &WrittenOverload,
) -> OverloadConfig {
    let requests = written.requests_per_address.as_ref();
    let failures = written.failures_per_address.as_ref();
    let exempt = written.exempt.as_ref();
    let delay = written.queue_delay.as_ref();
    OverloadConfig {
        requests_per_address: reader
            .value("overload.requests_per_address", requests, number_or_off)
            .unwrap_or(unsaid.requests_per_address),
        failures_per_address: reader
            .value("overload.failures_per_address", failures, number_or_off)
            .unwrap_or(unsaid.failures_per_address),
        exempt: match exempt {
            Some(_) => reader.list("overload.exempt", exempt, value::network),
            None => unsaid.exempt,
        },
        queue_delay: reader
            .value("overload.queue_delay", delay, delay_or_off)
            .unwrap_or(unsaid.queue_delay),
    }
}

/// `priority` of an operation.
pub(super) fn priority(text: &str) -> Result<Priority, Wrong> {
    match text {
        "low" => Ok(Priority::Low),
        "normal" => Ok(Priority::Normal),
        "critical" => Ok(Priority::Critical),
        _ => Err(Wrong::new(
            format!("`{text}` is none of low, normal and critical"),
            "write one of them",
        )),
    }
}

fn number_or_off(text: &str) -> Result<Option<NonZeroU32>, Wrong> {
    match text {
        "off" => Ok(None),
        _ => value::number(text, 1, 10_000_000).map(NonZeroU32::new),
    }
}

/// Timers fire a millisecond late on an idle machine: a limit near that would shed calls for nothing.
fn delay_or_off(text: &str) -> Result<Option<Duration>, Wrong> {
    match text {
        "off" => Ok(None),
        _ => match value::duration(text)? {
            delay if delay < Duration::from_millis(5) => Err(Wrong::new(
                format!("`{text}` is shorter than a timer can tell"),
                "write at least 5ms, or off",
            )),
            delay => Ok(Some(delay)),
        },
    }
}
