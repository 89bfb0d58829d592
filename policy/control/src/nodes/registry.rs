//! Who is connected, and what became there of what was published. In memory; who is gone stays known for a day.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_proto::wire::{Held, NodeCounts, NodeDescription, Verdict, verdict};

use crate::Control;

/// How long a node is known after it was heard last.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Processes known at once; the one that was heard longest ago gives way.
const MOST: usize = 10_000;

/// APIs remembered of one.
const MOST_APIS: usize = 10_000;

/// Longest text taken from a node.
const TEXT: usize = 4_096;

/// All nodes. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// By name and run.
    nodes: Arc<Mutex<BTreeMap<Key, Node>>>,
}

type Key = (String, String);

#[derive(Clone, Debug)]
struct Node {
    identity: WorkloadId,
    address: String,
    version: String,
    connections: usize,
    since: SystemTime,
    heard: SystemTime,
    apis: BTreeMap<String, ApiAtNode>,
    counts: NodeCounts,
}

/// One API at one node.
#[derive(Clone, Debug, Default)]
struct ApiAtNode {
    /// Served; 0 for none.
    generation: u64,
    /// The last that is not served: its generation, what became of it, and why.
    refused: Option<(u64, &'static str, String)>,
}

/// The stream of one node; when it is dropped, the node is gone.
#[derive(Debug)]
pub struct Connected {
    registry: Registry,
    key: Key,
}

impl Control {
    /// The nodes of this installation.
    pub fn nodes(&self) -> Registry {
        self.inner.nodes.clone()
    }
}

impl Registry {
    /// A node connected.
    pub fn connect(
        &self,
        description: &NodeDescription,
        identity: &WorkloadId,
        address: String,
        held: &[Held],
    ) -> Connected {
        let key = (bounded(&description.node), bounded(&description.run));
        let now = SystemTime::now();
        let mut nodes = self.nodes.lock();
        make_room(&mut nodes, now);
        let node = nodes.entry(key.clone()).or_insert_with(|| Node {
            identity: identity.clone(),
            address: String::new(),
            version: String::new(),
            connections: 0,
            since: now,
            heard: now,
            apis: BTreeMap::new(),
            counts: NodeCounts::default(),
        });
        if node.connections == 0 {
            node.since = now;
        }
        node.identity = identity.clone();
        node.address = address;
        node.version = bounded(&description.version);
        node.connections += 1;
        node.heard = now;
        let held = held.iter().take(MOST_APIS);
        let held = held.map(|held| {
            let api = ApiAtNode {
                generation: held.generation,
                refused: None,
            };
            (bounded(&held.api), api)
        });
        node.apis = held.collect();
        Connected {
            registry: self.clone(),
            key,
        }
    }

    /// Every node, for administration. `published` has the current generation of each API and the service it stands before.
    pub(crate) fn shown(&self, published: &BTreeMap<String, (u64, String)>) -> Vec<Value> {
        let mut nodes = self.nodes.lock();
        make_room(&mut nodes, SystemTime::now());
        let twice = |name: &str| {
            let named = nodes
                .iter()
                .filter(|((other, _), node)| other == name && node.connections > 0);
            named.count() > 1
        };
        // Of a node that came back, the processes before say nothing more.
        let is_back = |name: &str, node: &Node| {
            let mut others = nodes.iter().filter(|((other, _), _)| other == name);
            node.connections == 0 && others.any(|(_, other)| other.since > node.since)
        };
        let shown = nodes
            .iter()
            .filter(|((name, _), node)| !is_back(name, node));
        let shown = shown.map(|(key, node)| {
            let mut warnings = Vec::new();
            if node.connections > 0 && twice(&key.0) {
                warnings.push("another process has the same node name");
            }
            node.shown(key, published, &warnings)
        });
        shown.collect()
    }
}

impl Connected {
    /// What became of a bundle there.
    pub fn verdict(&self, verdict: &Verdict) {
        self.heard(|node| {
            if node.apis.len() >= MOST_APIS && !node.apis.contains_key(&verdict.api) {
                return;
            }
            let api = node.apis.entry(bounded(&verdict.api)).or_default();
            let refused = |what| Some((verdict.generation, what, bounded(&verdict.reason)));
            match verdict.kind() {
                verdict::Kind::Ack => {
                    api.generation = verdict.generation;
                    api.refused = None;
                }
                verdict::Kind::Nack => api.refused = refused("nack"),
                verdict::Kind::RolledBack => api.refused = refused("rolled_back"),
                verdict::Kind::Unspecified => {}
            }
        });
    }

    /// It was told that an API is withdrawn.
    pub fn withdrawn(&self, api: &str) {
        self.heard(|node| {
            node.apis.remove(api);
        });
    }

    /// Its numbers.
    pub fn counts(&self, counts: NodeCounts) {
        self.heard(|node| node.counts = counts);
    }

    fn heard(&self, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.registry.nodes.lock().get_mut(&self.key) {
            node.heard = SystemTime::now();
            change(node);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.heard(|node| node.connections = node.connections.saturating_sub(1));
    }
}

impl Node {
    fn shown(
        &self,
        (name, run): &Key,
        published: &BTreeMap<String, (u64, String)>,
        warnings: &[&str],
    ) -> Value {
        let service = match self.identity.kind() {
            Kind::Service => Some(&**self.identity.name()),
            Kind::Gateway | Kind::Control => None,
        };
        let role = match self.identity.kind() {
            Kind::Service => "sidecar",
            Kind::Gateway => "gateway",
            Kind::Control => "control",
        };
        let apis = self.apis.iter().map(|(api, it)| {
            let refused = it.refused.as_ref();
            json!({
                "api": api,
                "generation": it.generation,
                "state": refused.map_or("ack", |(_, what, _)| what),
                "refused_generation": refused.map(|(generation, _, _)| generation),
                "reason": refused.map(|(_, _, reason)| reason),
            })
        });
        let due = published.iter();
        let due = due.filter(|(_, (_, of))| service.is_none_or(|service| service == of));
        let behind = due.filter(|(api, (generation, _))| {
            self.apis
                .get(*api)
                .is_none_or(|it| it.generation < *generation)
        });
        json!({
            "node": name,
            "run": run,
            "role": role,
            "service": service,
            "identity": self.identity.to_string(),
            "address": self.address,
            "version": self.version,
            "connected": self.connections > 0,
            "since": Timestamp::from(self.since).to_string(),
            "last_contact": Timestamp::from(self.heard).to_string(),
            "apis": apis.collect::<Vec<_>>(),
            "lag": behind.count(),
            "counts": {
                "hits": self.counts.hits,
                "asked": self.counts.asked,
                "requests": self.counts.requests,
                "usage_waiting": self.counts.usage_waiting,
            },
            "warnings": warnings,
        })
    }
}

/// Forgets who is gone for long, and who was heard longest ago where there are too many.
fn make_room(nodes: &mut BTreeMap<Key, Node>, now: SystemTime) {
    let gone = |node: &Node| {
        let silent = now.duration_since(node.heard).unwrap_or_default();
        node.connections == 0 && silent > REMEMBERED
    };
    nodes.retain(|_, node| !gone(node));
    if nodes.len() < MOST {
        return;
    }
    let idle = nodes.iter().filter(|(_, node)| node.connections == 0);
    let oldest = idle.min_by_key(|(_, node)| node.heard);
    if let Some(key) = oldest.map(|(key, _)| key.clone()) {
        nodes.remove(&key);
    }
}

fn bounded(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .take(TEXT)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn description(node: &str, run: &str) -> NodeDescription {
        NodeDescription {
            node: node.to_owned(),
            version: "1".to_owned(),
            run: run.to_owned(),
        }
    }

    fn verdict(kind: verdict::Kind, generation: u64) -> Verdict {
        Verdict {
            kind: kind.into(),
            api: "books".to_owned(),
            generation,
            reason: "why".to_owned(),
        }
    }

    #[test]
    fn a_node_is_shown_with_what_became_of_each_api_and_stays_known_when_it_is_gone() {
        let registry = Registry::default();
        let identity: WorkloadId = "spiffe://shop/service/orders".parse().unwrap();
        let published = BTreeMap::from([
            ("books".to_owned(), (3, "orders".to_owned())),
            ("other".to_owned(), (9, String::new())),
        ]);
        let node = registry.connect(&description("a", "1"), &identity, "here".to_owned(), &[]);
        assert_eq!(
            registry.shown(&published)[0]["lag"],
            1,
            "of its service alone"
        );
        node.verdict(&verdict(verdict::Kind::Ack, 2));
        node.verdict(&verdict(verdict::Kind::Nack, 3));
        let shown = &registry.shown(&published)[0];
        assert_eq!(shown["apis"][0]["generation"], 2);
        assert_eq!(shown["apis"][0]["state"], "nack");
        assert_eq!(shown["apis"][0]["reason"], "why");
        assert_eq!(
            (&shown["role"], &shown["lag"]),
            (&json!("sidecar"), &json!(1))
        );
        node.verdict(&verdict(verdict::Kind::Ack, 3));
        assert_eq!(registry.shown(&published)[0]["lag"], 0);
        drop(node);
        assert_eq!(registry.shown(&published)[0]["connected"], false);
        let later = SystemTime::now() + REMEMBERED * 2;
        make_room(&mut registry.nodes.lock(), later);
        assert!(registry.shown(&published).is_empty());
    }

    #[test]
    fn two_processes_of_one_name_are_both_shown_with_a_warning() {
        let registry = Registry::default();
        let identity: WorkloadId = "spiffe://shop/gateway/edge".parse().unwrap();
        let connect = |run| registry.connect(&description("a", run), &identity, String::new(), &[]);
        let first = connect("1");
        let second = connect("2");
        let shown = registry.shown(&BTreeMap::new());
        assert_eq!(shown.len(), 2);
        assert!(
            shown
                .iter()
                .all(|it| it["warnings"].as_array().unwrap().len() == 1)
        );
        drop(first);
        let shown = registry.shown(&BTreeMap::new());
        assert!(
            shown
                .iter()
                .all(|it| it["warnings"].as_array().unwrap().is_empty())
        );
        drop(second);
    }
}
