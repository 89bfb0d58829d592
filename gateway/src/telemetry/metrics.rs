//! All metrics of the process and the page that shows them.
//!
//! Promises: labels come from configuration and fixed sets alone, so no caller can make series; the series of an API
//! end with it. Locks are taken when configuration changes, a connection comes or goes, or the page is asked for:
//! never per request.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::process;
use super::series::{ApiSeries, Listed, OperationMetrics, OperationSeries, write_page};

/// Label of requests no API serves.
const NO_API: &str = "none";
/// Label of requests that are no operation of their API.
const NO_OPERATION: &str = "unmatched";

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    apis: Mutex<BTreeMap<Arc<str>, Served>>,
    /// Refusals before any API was known.
    unserved: Arc<OperationSeries>,
    registry: Registry,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    connections_refused: IntCounterVec,
    generation: IntGaugeVec,
    reload_failed: IntGaugeVec,
    reloads: IntCounterVec,
    access_log_dropped: IntCounter,
    quota_alerts: IntCounterVec,
}

#[derive(Debug, Default)]
struct Served {
    series: Arc<ApiSeries>,
    operations: BTreeMap<Arc<str>, Arc<OperationSeries>>,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        register_build_info(&registry);
        let unserved = Arc::<OperationSeries>::default();
        let none = Served {
            series: Arc::default(),
            operations: BTreeMap::from([(NO_OPERATION.into(), Arc::clone(&unserved))]),
        };
        let gauge = |name, help, labels: &[&str]| gauges(&registry, name, help, labels);
        let counter = |name, help, labels: &[&str]| counters(&registry, name, help, labels);
        Arc::new(Self {
            apis: Mutex::new(BTreeMap::from([(NO_API.into(), none)])),
            unserved,
            connections: gauge("tollgate_connections", "Connections open.", &["listener"]),
            connections_total: counter(
                "tollgate_connections_total",
                "Connections accepted.",
                &["listener"],
            ),
            connections_refused: counter(
                "tollgate_connections_refused_total",
                "Connections cut or refused, by cause.",
                &["listener", "cause"],
            ),
            generation: gauge(
                "tollgate_api_generation",
                "Generation last loaded.",
                &["api"],
            ),
            reload_failed: gauge(
                "tollgate_api_reload_failed",
                "1 where the last reload failed.",
                &["api"],
            ),
            reloads: counter(
                "tollgate_api_reloads_total",
                "Reloads ended.",
                &["api", "result"],
            ),
            access_log_dropped: counters(
                &registry,
                "tollgate_access_log_dropped_total",
                "Access records lost because they could not be written in time.",
                &[],
            )
            .with_label_values::<&str>(&[]),
            quota_alerts: counter(
                "tollgate_quota_alerts_total",
                "Counters that came to this share of their limit in a window.",
                &["percent"],
            ),
            registry,
        })
    }

    /// Requests that ended, of all APIs.
    pub fn requests(&self) -> u64 {
        let apis = self.apis.lock();
        let all = apis.values().flat_map(|served| served.operations.values());
        all.map(|series| series.requests()).sum()
    }

    /// Handles of one operation. `operation` is `""` for what is no operation of the API; `api` is `""` for what no API serves.
    /// Asking again for the same labels returns the same series.
    pub fn operation(&self, api: &str, operation: &str, method: &str) -> Arc<OperationMetrics> {
        let mut apis = self.apis.lock();
        let served = entry(&mut apis, or(api, NO_API));
        let series = Arc::clone(entry(&mut served.operations, or(operation, NO_OPERATION)));
        Arc::new(OperationMetrics::new(
            Arc::clone(&served.series),
            series,
            method,
        ))
    }

    /// A counter came to this share of its limit.
    pub fn quota_alert(&self, percent: u8) {
        let percent = percent.to_string();
        self.quota_alerts.with_label_values(&[&*percent]).inc();
    }

    /// Forgets the series of an API that is no longer served. Requests still under way count into nothing.
    pub fn forget_api(&self, api: &str) {
        // An API may bear the name under which we count what no API serves; those counts stay.
        if !api.is_empty() && api != NO_API {
            self.apis.lock().remove(api);
        }
        // Removing what was never there is an error of the library and none of ours.
        let _ = self.generation.remove_label_values(&[api]);
        let _ = self.reload_failed.remove_label_values(&[api]);
        let _ = self.reloads.remove_label_values(&[api, "ok"]);
        let _ = self.reloads.remove_label_values(&[api, "failed"]);
    }

    /// A connection was accepted (`tollgate_connections_total`, `tollgate_connections`).
    pub fn connection_opened(&self, listener: &str) {
        self.connections_total.with_label_values(&[listener]).inc();
        self.connections.with_label_values(&[listener]).inc();
    }

    /// A connection ended.
    pub fn connection_closed(&self, listener: &str) {
        self.connections.with_label_values(&[listener]).dec();
    }

    /// A connection was cut or refused: `permits`, `per_address`, `handshake`, `handshake_timeout`, `proxy_protocol`, `h2_flood`, ...
    pub fn connection_refused(&self, listener: &str, cause: &'static str) {
        self.connections_refused
            .with_label_values(&[listener, cause])
            .inc();
    }

    /// A reload of an API ended: `ok` or not; sets `tollgate_api_generation` and `tollgate_api_reload_failed`.
    pub fn reloaded(&self, api: &str, ok: bool, generation: u64) {
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        self.generation.with_label_values(&[api]).set(generation);
        self.reload_failed
            .with_label_values(&[api])
            .set(i64::from(!ok));
        self.reloads
            .with_label_values(&[api, if ok { "ok" } else { "failed" }])
            .inc();
        self.forget_unheld_operations(api);
    }

    /// A request on the parser level was refused before any API was known.
    pub fn malformed(&self, denial: &'static str) {
        self.unserved.denied(denial);
    }

    /// Access records were lost (`tollgate_access_log_dropped_total`).
    pub fn access_log_dropped(&self, records: u64) {
        self.access_log_dropped.inc_by(records);
    }

    /// The Prometheus text page.
    pub fn render(&self) -> String {
        let mut page = String::new();
        write_page(&mut page, &self.listed());
        // Only a family without a name or metrics makes this fail, and a page with gaps is better than none.
        let _ = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut page);
        process::write_page(&mut page);
        page
    }

    /// An operation that left its file is held by no snapshot any more (at the latest one reload later, when the last
    /// request on the old snapshot is over): its series go, or a file that changes its names daily would grow the page
    /// for ever.
    pub(crate) fn forget_unheld_operations(&self, api: &str) {
        let mut apis = self.apis.lock();
        let Some(served) = apis.get_mut(api) else {
            return;
        };
        served
            .operations
            .retain(|_, series| Arc::strong_count(series) > 1);
        // Loaded, but refused: another API has its host and base path.
        if served.operations.is_empty() && Arc::strong_count(&served.series) == 1 {
            apis.remove(api);
        }
    }

    /// A copy of the handles, so that the lock is not held while the page is written.
    fn listed(&self) -> Vec<Listed> {
        let copy = |(api, served): (&Arc<str>, &Served)| Listed {
            api: Arc::clone(api),
            series: Arc::clone(&served.series),
            operations: served
                .operations
                .iter()
                .map(|(name, series)| (Arc::clone(name), Arc::clone(series)))
                .collect(),
        };
        self.apis.lock().iter().map(copy).collect()
    }
}

fn or<'l>(label: &'l str, empty: &'static str) -> &'l str {
    if label.is_empty() { empty } else { label }
}

fn entry<'m, V: Default>(map: &'m mut BTreeMap<Arc<str>, V>, name: &str) -> &'m mut V {
    map.entry(Arc::from(name)).or_default()
}

/// Names, labels and their uniqueness are constants of this file, so that both steps succeed or no test passes.
#[expect(
    clippy::expect_used,
    reason = "constant names; fails at start or never"
)]
fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let family = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
    registry
        .register(Box::new(family.clone()))
        .expect("a name used once");
    family
}

/// As [`gauges`].
#[expect(
    clippy::expect_used,
    reason = "constant names; fails at start or never"
)]
fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
    registry
        .register(Box::new(family.clone()))
        .expect("a name used once");
    family
}

fn register_build_info(registry: &Registry) {
    let family: IntGaugeVec = gauges(
        registry,
        "tollgate_build_info",
        "The build; always 1.",
        &["version"],
    );
    let info: IntGauge = family.with_label_values(&[env!("CARGO_PKG_VERSION")]);
    info.set(1);
}

#[cfg(test)]
mod tests;
