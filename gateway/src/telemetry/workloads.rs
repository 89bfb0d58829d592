//! Which processes of the installation call: `tollgate_workload_requests_total`.
//!
//! Promises: nobody is named whose certificate was not verified; beyond a number of callers the rest is one, so that the page stays
//! bounded; a request only adds to atomics, but for the first of its kind. Not here: who calls through them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tollgate_policy::workload::{Kind, WorkloadId};

/// Callers with a label of their own. A service has a handful.
const CALLERS: usize = 200;
/// Whoever was not verified.
const UNKNOWN: &str = "unknown";
/// Verified, but one of too many.
const OTHER: &str = "other";
/// Label of requests no API serves.
const NO_API: &str = "none";
/// Classes of statuses; `none` where no answer was sent.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests by caller, API and class of the answer.
#[derive(Debug)]
pub struct Workloads {
    destination: Arc<str>,
    sources: ArcSwap<Sources>,
    adding: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Sources {
    named: HashMap<WorkloadId, Counts>,
    unknown: Counts,
    other: Counts,
}

/// By API.
type Counts = HashMap<Arc<str>, Arc<[AtomicU64; CLASSES.len()]>>;

impl Workloads {
    /// Nobody has called `destination`, the service this process stands beside.
    pub fn new(destination: Arc<str>) -> Self {
        Self {
            destination,
            sources: ArcSwap::default(),
            adding: Mutex::default(),
        }
    }

    /// A request of `source` to `api` (empty: none) was answered with `status` (0: not at all).
    pub fn count(&self, source: Option<&WorkloadId>, api: &str, status: u16) {
        let api = if api.is_empty() { NO_API } else { api };
        let class = usize::from(status / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        let add = |counts: &Counts| {
            let cell = counts.get(api).and_then(|classes| classes.get(class));
            cell.map(|cell| cell.fetch_add(1, Ordering::Relaxed))
        };
        if self.sources.load().of(source).and_then(add).is_none() {
            self.add(source, api);
            let _counted = self.sources.load().of(source).and_then(add);
        }
    }

    /// Makes room for what was not counted before.
    fn add(&self, source: Option<&WorkloadId>, api: &str) {
        let _one_at_a_time = self.adding.lock();
        let mut sources = Sources::clone(&self.sources.load());
        let counts = match source {
            None => &mut sources.unknown,
            Some(id) if sources.named.contains_key(id) || sources.named.len() < CALLERS => {
                sources.named.entry(id.clone()).or_default()
            }
            Some(_) => &mut sources.other,
        };
        counts.entry(api.into()).or_default();
        self.sources.store(Arc::new(sources));
    }

    /// Adds them to a page of metrics.
    pub fn write_page(&self, page: &mut String) {
        page.push_str(
            "# HELP tollgate_workload_requests_total Requests by the process of the installation that sent them.\n\
             # TYPE tollgate_workload_requests_total counter\n",
        );
        let sources = self.sources.load();
        let mut named: Vec<_> = sources
            .named
            .iter()
            .map(|(id, counts)| (label(id), counts))
            .collect();
        named.push((UNKNOWN.to_owned(), &sources.unknown));
        named.push((OTHER.to_owned(), &sources.other));
        named.sort_by(|(one, _), (two, _)| one.cmp(two));
        for (source, counts) in named {
            let mut apis: Vec<_> = counts.iter().collect();
            apis.sort_by_key(|(api, _)| *api);
            for (api, classes) in apis {
                for (class, count) in CLASSES.iter().zip(classes.iter()) {
                    self.write_row(page, &source, api, class, count.load(Ordering::Relaxed));
                }
            }
        }
    }

    fn write_row(&self, page: &mut String, source: &str, api: &str, class: &str, count: u64) {
        if count == 0 {
            return;
        }
        let destination = &self.destination;
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "tollgate_workload_requests_total{{source=\"{source}\",destination=\"{destination}\",\
             api=\"{api}\",code_class=\"{class}\"}} {count}"
        );
    }
}

impl Sources {
    fn of(&self, source: Option<&WorkloadId>) -> Option<&Counts> {
        match source {
            None => Some(&self.unknown),
            Some(id) => self.named.get(id).or_else(|| {
                let full = self.named.len() >= CALLERS;
                full.then_some(&self.other)
            }),
        }
    }
}

/// A service by its name, others by their kind as well: `orders`, `gateway/edge-1`. No name holds a slash.
fn label(id: &WorkloadId) -> String {
    match id.kind() {
        Kind::Service => id.name().to_string(),
        kind @ (Kind::Gateway | Kind::Control) => format!("{}/{}", kind.as_str(), id.name()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn page(workloads: &Workloads) -> String {
        let mut page = String::new();
        workloads.write_page(&mut page);
        page
    }

    #[test]
    fn callers_are_told_apart_by_what_they_proved() {
        let workloads = Workloads::new("orders".into());
        let service = WorkloadId::new("shop.example", Kind::Service, "carts").unwrap();
        let gateway = WorkloadId::new("shop.example", Kind::Gateway, "edge").unwrap();
        workloads.count(Some(&service), "books", 200);
        workloads.count(Some(&service), "books", 204);
        workloads.count(Some(&gateway), "books", 503);
        workloads.count(None, "", 0);
        let page = page(&workloads);
        let to = "destination=\"orders\"";
        for line in [
            format!("{{source=\"carts\",{to},api=\"books\",code_class=\"2xx\"}} 2"),
            format!("{{source=\"gateway/edge\",{to},api=\"books\",code_class=\"5xx\"}} 1"),
            format!("{{source=\"unknown\",{to},api=\"none\",code_class=\"none\"}} 1"),
        ] {
            assert!(page.contains(&line), "{line}\n{page}");
        }
    }

    #[test]
    fn too_many_callers_are_one() {
        let workloads = Workloads::new("orders".into());
        for number in 0..CALLERS + 50 {
            let name = format!("s{number}");
            let id = WorkloadId::new("shop.example", Kind::Service, &name).unwrap();
            workloads.count(Some(&id), "books", 200);
            workloads.count(Some(&id), "pens", 200);
        }
        let page = page(&workloads);
        let rows = page.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(rows, 2 * (CALLERS + 1));
        assert!(page.contains(
            "source=\"other\",destination=\"orders\",api=\"pens\",code_class=\"2xx\"} 50"
        ));
    }
}
