//! The series of operations: what a request adds to, and how it is written on the metrics page.
//!
//! Promises: the path only adds to atomics; an operation nobody calls has no counters yet; labels come from
//! configuration and fixed sets alone. Own counters instead of the metrics library's, because a histogram of its costs
//! some two kilobytes per operation and ours a hundred bytes.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What [`OperationMetrics::finish`] counts.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// Status sent; 0 where none was.
    pub status: u16,
    /// Whole time.
    pub total: Duration,
    /// Time the upstream took to the head of its answer.
    pub upstream: Option<Duration>,
    /// `answered`, `connect_failed`, ... empty where none was asked.
    pub upstream_outcome: &'static str,
    /// Denial code, empty where admitted.
    pub denial: &'static str,
    /// Bytes of the request body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
}

/// Handles of one operation's series, resolved when a snapshot is compiled, so that the path only adds.
#[derive(Debug)]
pub struct OperationMetrics {
    api: Arc<ApiSeries>,
    operation: Arc<OperationSeries>,
    method: usize,
}

impl OperationMetrics {
    pub(super) fn new(api: Arc<ApiSeries>, operation: Arc<OperationSeries>, method: &str) -> Self {
        let other = METHODS.len() - 1;
        let method = METHODS
            .iter()
            .position(|known| *known == method)
            .unwrap_or(other);
        Self {
            api,
            operation,
            method,
        }
    }

    /// A request began.
    pub fn start(&self) {
        self.api.in_flight.fetch_add(1, Relaxed);
    }

    /// It is over.
    pub fn finish(&self, finished: &Finished) {
        self.api.in_flight.fetch_sub(1, Relaxed);
        let counters = self.operation.counters();
        counters.count(self.method, finished);
        if !finished.denial.is_empty() {
            self.operation.denied(finished.denial);
        }
        if !finished.upstream_outcome.is_empty() {
            self.api.outcomes.add(finished.upstream_outcome);
        }
    }
}

/// What is counted per API.
#[derive(Debug, Default)]
pub(super) struct ApiSeries {
    in_flight: AtomicI64,
    outcomes: Causes,
}

/// What is counted per operation. The counters come with the first request.
#[derive(Debug, Default)]
pub(super) struct OperationSeries {
    counters: OnceLock<Box<Counters>>,
    denials: OnceLock<Box<Causes>>,
}

impl OperationSeries {
    fn counters(&self) -> &Counters {
        self.counters.get_or_init(Box::default)
    }

    /// Requests that ended.
    pub(super) fn requests(&self) -> u64 {
        let counters = self.counters.get();
        let counted = counters.iter().flat_map(|it| &it.requests);
        let counted = counted.filter_map(OnceLock::get);
        let counted = counted.flat_map(|classes| classes.iter());
        counted.map(|it| it.load(Relaxed)).sum()
    }

    /// Counts a refusal.
    pub(super) fn denied(&self, cause: &'static str) {
        self.denials.get_or_init(Box::default).add(cause);
    }
}

/// Methods with a label of their own; the last stands for all others.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY", "other",
];
/// Classes of statuses; `none` where no answer was sent.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Default)]
struct Counters {
    /// By method, then class. An operation has one method as a rule, so the others are not held ready.
    requests: [OnceLock<Box<[AtomicU64; CLASSES.len()]>>; METHODS.len()],
    total: Histogram,
    upstream: Histogram,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

impl Counters {
    fn count(&self, method: usize, finished: &Finished) {
        let class = usize::from(finished.status / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        if let Some(classes) = self.requests.get(method)
            && let Some(requests) = classes.get_or_init(Box::default).get(class)
        {
            requests.fetch_add(1, Relaxed);
        }
        self.total.observe(finished.total);
        if let Some(upstream) = finished.upstream {
            self.upstream.observe(upstream);
        }
        self.request_bytes
            .fetch_add(finished.request_bytes, Relaxed);
        self.response_bytes
            .fetch_add(finished.response_bytes, Relaxed);
    }
}

/// Upper bounds of the buckets in microseconds and as written: from what we add ourselves to what a caller gives up on.
const BOUNDS: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// Times by bucket. The count is the sum of the buckets, so that the two never disagree on a page.
#[derive(Debug, Default)]
struct Histogram {
    /// One more than there are bounds: the last is what lies above all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let bucket = BOUNDS
            .iter()
            .position(|(bound, _)| time <= Duration::from_micros(*bound));
        if let Some(count) = self.buckets.get(bucket.unwrap_or(BOUNDS.len())) {
            count.fetch_add(1, Relaxed);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    fn write(&self, page: &mut String, name: &str, labels: &str) {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        let mut count = 0;
        for (bound, bucket) in bounds.zip(&self.buckets) {
            count += bucket.load(Relaxed);
            line(
                page,
                format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}"),
            );
        }
        let nanoseconds = self.nanoseconds.load(Relaxed);
        let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        line(
            page,
            format_args!("{name}_sum{{{labels}}} {seconds}.{rest:09}"),
        );
        line(page, format_args!("{name}_count{{{labels}}} {count}"));
    }
}

/// How many causes are told apart; more would be counted as `other`. The code has about half as many.
const CAUSES: usize = 32;

/// Counts by cause: a name is a constant of the program and takes the first free place when it is first seen.
#[derive(Debug, Default)]
struct Causes {
    places: [(OnceLock<&'static str>, AtomicU64); CAUSES],
    other: AtomicU64,
}

impl Causes {
    fn add(&self, cause: &'static str) {
        let place = self
            .places
            .iter()
            .find(|(name, _)| *name.get_or_init(|| cause) == cause);
        place
            .map_or(&self.other, |(_, count)| count)
            .fetch_add(1, Relaxed);
    }

    /// Names and counts that are not zero, sorted, so that the page does not depend on what came first.
    fn counted(&self) -> Vec<(&'static str, u64)> {
        let named = self
            .places
            .iter()
            .filter_map(|(name, count)| Some((*name.get()?, count)));
        let mut counted: Vec<_> = named
            .chain([("other", &self.other)])
            .map(|(name, count)| (name, count.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        counted.sort_unstable();
        counted
    }
}

/// One API or operation with its name, as the page lists them.
pub(super) struct Listed {
    /// Value of the label `api`.
    pub(super) api: Arc<str>,
    /// What is counted for the API.
    pub(super) series: Arc<ApiSeries>,
    /// Values of the label `operation`, and what is counted.
    pub(super) operations: Vec<(Arc<str>, Arc<OperationSeries>)>,
}

/// Writes all families of operations and APIs in the Prometheus text format.
pub(super) fn write_page(page: &mut String, apis: &[Listed]) {
    let used: Vec<(String, &OperationSeries)> = apis
        .iter()
        .flat_map(|api| api.operations.iter().map(move |operation| (api, operation)))
        .filter(|(_, (_, series))| {
            series.counters.get().is_some() || series.denials.get().is_some()
        })
        .map(|(api, (name, series))| {
            (
                format!("api=\"{}\",operation=\"{}\"", Label(&api.api), Label(name)),
                &**series,
            )
        })
        .collect();
    write_requests(page, &used);
    write_times(page, &used);
    write_bytes(page, &used);
    write_denials(page, &used);
    write_apis(page, apis);
}

fn write_requests(page: &mut String, used: &[(String, &OperationSeries)]) {
    head(
        page,
        "tollgate_requests_total",
        "counter",
        "Requests finished.",
    );
    for (labels, series) in used {
        let Some(counters) = series.counters.get() else {
            continue;
        };
        for (method, classes) in METHODS.iter().zip(&counters.requests) {
            let counts = CLASSES
                .iter()
                .zip(classes.get().into_iter().flat_map(|c| c.iter()));
            for (class, count) in counts.filter(|(_, count)| count.load(Relaxed) > 0) {
                let count = count.load(Relaxed);
                line(
                    page,
                    format_args!(
                        "tollgate_requests_total{{{labels},method=\"{method}\",status_class=\"{class}\"}} {count}"
                    ),
                );
            }
        }
    }
}

fn write_times(page: &mut String, used: &[(String, &OperationSeries)]) {
    let name = "tollgate_request_duration_seconds";
    head(page, name, "histogram", "Whole time of requests.");
    for (labels, series) in used {
        if let Some(counters) = series.counters.get() {
            counters.total.write(page, name, labels);
        }
    }
    let name = "tollgate_upstream_duration_seconds";
    head(
        page,
        name,
        "histogram",
        "Time of the upstream to the head of its answer.",
    );
    for (labels, series) in used {
        if let Some(counters) = series.counters.get() {
            counters.upstream.write(page, name, labels);
        }
    }
}

fn write_bytes(page: &mut String, used: &[(String, &OperationSeries)]) {
    type Pick = fn(&Counters) -> &AtomicU64;
    let families: [(&str, &str, Pick); 2] = [
        ("tollgate_request_bytes", "Bytes of request bodies.", |c| {
            &c.request_bytes
        }),
        (
            "tollgate_response_bytes",
            "Bytes of the bodies of answers.",
            |c| &c.response_bytes,
        ),
    ];
    for (name, help, pick) in families {
        head(page, name, "counter", help);
        for (labels, series) in used {
            if let Some(counters) = series.counters.get() {
                let bytes = pick(counters).load(Relaxed);
                line(page, format_args!("{name}{{{labels}}} {bytes}"));
            }
        }
    }
}

fn write_denials(page: &mut String, used: &[(String, &OperationSeries)]) {
    head(
        page,
        "tollgate_denials_total",
        "counter",
        "Requests refused, by cause.",
    );
    for (labels, series) in used {
        for (cause, count) in series
            .denials
            .get()
            .map(|d| d.counted())
            .unwrap_or_default()
        {
            line(
                page,
                format_args!(
                    "tollgate_denials_total{{{labels},cause=\"{}\"}} {count}",
                    Label(cause)
                ),
            );
        }
    }
}

fn write_apis(page: &mut String, apis: &[Listed]) {
    head(
        page,
        "tollgate_requests_in_flight",
        "gauge",
        "Requests begun and not over.",
    );
    for api in apis {
        let count = api.series.in_flight.load(Relaxed).max(0);
        line(
            page,
            format_args!(
                "tollgate_requests_in_flight{{api=\"{}\"}} {count}",
                Label(&api.api)
            ),
        );
    }
    head(
        page,
        "tollgate_upstream_outcomes_total",
        "counter",
        "How asking the upstream ended.",
    );
    for api in apis {
        for (outcome, count) in api.series.outcomes.counted() {
            line(
                page,
                format_args!(
                    "tollgate_upstream_outcomes_total{{api=\"{}\",outcome=\"{}\"}} {count}",
                    Label(&api.api),
                    Label(outcome)
                ),
            );
        }
    }
}

/// `# HELP` and `# TYPE` of a family.
pub(super) fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    line(
        page,
        format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"),
    );
}

/// Adds a line; writing to a string cannot fail.
pub(super) fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(page, "{text}");
}

/// A label's value, escaped as the text format demands.
pub(super) struct Label<'l>(pub(super) &'l str);

impl std::fmt::Display for Label<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => out.write_str("\\\\"),
            '"' => out.write_str("\\\""),
            '\n' => out.write_str("\\n"),
            c => out.write_char(c),
        })
    }
}
