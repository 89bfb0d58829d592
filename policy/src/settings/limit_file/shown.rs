//! Limits as they would be written.

use std::sync::Arc;

use super::super::amount;
use super::choice::{COUNTS, FAIL_MODES, SCOPES, name_of};
use crate::quota::{Limit, Window};

/// Limits as JSON, in the shape they are written in.
pub fn written_limits(limits: &[Arc<Limit>]) -> serde_json::Value {
    limits.iter().map(|limit| written_limit(limit)).collect()
}

fn written_limit(limit: &Limit) -> serde_json::Value {
    let mut shown = serde_json::Map::new();
    let mut put = |name: &str, value: serde_json::Value| {
        shown.insert(name.to_owned(), value);
    };
    put("name", (&*limit.name).into());
    put("metric", limit.metric.as_str().into());
    put(
        "amount",
        amount::written(&limit.metric, limit.amount).into(),
    );
    let (window, zone) = match limit.window {
        Window::Span(length) => (Some(format!("{}s", length.as_secs())), None),
        Window::Day(zone) => (Some("1d".to_owned()), Some(zone)),
        Window::Month(zone) => (Some("month".to_owned()), Some(zone)),
        Window::Lifetime => (Some("lifetime".to_owned()), None),
        Window::Gauge => (None, None),
    };
    if let Some(window) = window {
        put("window", window.into());
    }
    if let Some(zone) = zone {
        put("timezone", zone.name().into());
    }
    if let Some(burst) = limit.burst {
        put("burst", amount::written(&limit.metric, burst).into());
    }
    put("per", limit.subject.as_str().into());
    put("scope", name_of(limit.scope, SCOPES).into());
    if let Some(operations) = &limit.operations {
        let names = operations.iter().map(|name| &**name);
        put("operations", names.collect());
    }
    put(
        "on_unavailable",
        name_of(limit.on_unavailable, FAIL_MODES).into(),
    );
    put("counts", name_of(limit.counts, COUNTS).into());
    put("shadow", limit.shadow.into());
    shown.into()
}
