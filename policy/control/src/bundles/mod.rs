//! Bundles: what nodes compile APIs from, published by whoever validated them.
//!
//! Promises: a change is a higher generation, stored with its content before any node sees it; a generation is never given out twice, also
//! by a control plane that lost its store; an API is withdrawn from nodes only when somebody said so. Not here: what makes files good
//! (the role that publishes asks the engine), and the wire.

mod subscription;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tollgate_policy::access::ApiAccess;
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_proto::bundles::{check_files, content_hash, is_api_name};
use tollgate_proto::wire::verdict;
use tollgate_proto::wire::{Bundle, BundleFile, Held, Verdict};

use crate::Control;
use crate::api_limits::ApiLimits;
use crate::audit::Entry;
use crate::control::now;
use crate::refusal::Refusal;
use crate::store::{BundleCount, BundleRow};
use crate::text::hex;

pub use subscription::Subscription;

/// A node that served a generation this long did not die of it.
const TRUSTED_AFTER: Duration = Duration::from_secs(60);

/// Highest generation that is believed to be held: nobody publishes as often, and there must be room to count on.
const MOST: u64 = 1 << 53;

/// Nodes remembered per generation.
const MOST_NODES: usize = 10_000;

/// An API that was found good, to be published if it differs.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name.
    pub api: String,
    /// The API file first; see the wire's `Bundle`.
    pub files: Vec<BundleFile>,
    /// The service it stands before; empty: none.
    pub service: String,
    /// Who may call it, for whoever asks here; `None`: that is not known yet.
    pub access: Option<Arc<ApiAccess>>,
}

/// Why bundles were not published; what was published before stays.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not published: {0}")]
pub struct NotPublished(String);

impl From<Refusal> for NotPublished {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.to_string())
    }
}

/// What is published, in memory.
#[derive(Debug)]
pub(crate) struct Shelf {
    apis: RwLock<BTreeMap<String, Published>>,
    /// Whether the store was read: until then nothing is known to be missing.
    loaded: AtomicBool,
    /// Counts changes.
    changed: watch::Sender<u64>,
    /// One change at a time.
    publishing: Mutex<()>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            apis: RwLock::default(),
            loaded: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            publishing: Mutex::default(),
        }
    }
}

/// One API.
#[derive(Clone, Debug, Default)]
struct Published {
    current: Option<Arc<Bundle>>,
    /// The generation before, for nodes that have none while the current one is suspect.
    previous: Option<Arc<Bundle>>,
    since: Option<Timestamp>,
    /// The highest generation that was ever given out or is held anywhere.
    generation: u64,
    withdrawn: bool,
    /// Whom the current generation killed, and what they said.
    rolled_back: BTreeMap<String, String>,
    /// Who serves the current generation, and since when.
    acked: BTreeMap<String, Instant>,
    /// No further node gets it.
    quarantined: bool,
    /// What is wrong with its files now, or worth a warning.
    findings: Vec<String>,
    broken: bool,
    /// Whether there are files of it.
    owned: bool,
    /// Who may call the current generation, where its files were read by this process.
    access: Option<Arc<ApiAccess>>,
}

/// Publishes, and tells nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    control: Control,
}

impl Control {
    /// What nodes are given.
    pub fn bundles(&self) -> Publisher {
        Publisher {
            control: self.clone(),
        }
    }
}

impl Publisher {
    /// Publishes what differs from what is published, each API for itself, and says which these are.
    ///
    /// # Errors
    /// The store refuses, or a candidate cannot be a bundle. Candidates before it are published.
    pub async fn publish(&self, candidates: Vec<Candidate>) -> Result<Vec<String>, NotPublished> {
        let _one_at_a_time = self.shelf().publishing.lock().await;
        self.load().await?;
        let mut published = Vec::new();
        for candidate in candidates {
            let api = candidate.api.clone();
            if self.publish_one(candidate).await? {
                published.push(api);
            }
        }
        Ok(published)
    }

    /// Withdraws an API for good, because its owner removed it: nodes that hold it stop serving it. Does nothing where it is unknown.
    ///
    /// # Errors
    /// The store refuses: nothing is withdrawn.
    pub async fn withdraw(&self, api: &str) -> Result<bool, NotPublished> {
        let _one_at_a_time = self.shelf().publishing.lock().await;
        self.load().await?;
        let known = self.shelf().apis.read().get(api).cloned();
        let Some(known) = known.filter(|it| !it.withdrawn && it.current.is_some()) else {
            return Ok(false);
        };
        let mut change = self.control.begin().await?;
        let stored = BundleCount::put(change.on(), api, known.generation, true).await;
        stored.map_err(Refusal::from)?;
        change.note(entry(
            "bundle.withdraw",
            api,
            json!({ "generation": known.generation }),
        ));
        change.commit().await?;
        self.change(api, |it| {
            *it = Published {
                generation: known.generation,
                withdrawn: true,
                ..Published::default()
            };
        });
        tracing::warn!(%api, "API {api}: withdrawn from all nodes");
        Ok(true)
    }

    /// Says where limits of APIs are asked for from now on.
    pub fn knows_apis(&self, limits: ApiLimits) {
        self.control.knows_apis(limits);
    }

    /// What was found in the files of each API: (API, whether it can be published, findings). Shown beside what is published.
    pub fn found(&self, all: Vec<(String, bool, Vec<String>)>) {
        let mut apis = self.shelf().apis.write();
        let names: BTreeSet<&String> = all.iter().map(|(api, _, _)| api).collect();
        for (api, known) in apis.iter_mut() {
            known.owned = names.contains(api);
            known.broken = false;
            known.findings.clear();
        }
        for (api, good, findings) in all {
            let known = apis.entry(api).or_default();
            known.broken = !good;
            known.findings = findings;
            known.owned = true;
        }
        // What was never published and is gone.
        apis.retain(|_, known| known.owned || known.generation > 0);
    }

    /// What `peer` is to have, given what it holds: all APIs for a gateway, those of its service for a sidecar.
    pub fn subscribe(&self, peer: WorkloadId, held: Vec<Held>) -> Subscription {
        Subscription::new(self.clone(), peer, held)
    }

    /// What became of a bundle at a node. A generation that killed more nodes than live with it goes to no further one.
    pub fn verdict(&self, node: &str, verdict: &Verdict) {
        let (api, generation) = (&verdict.api, verdict.generation);
        let mut apis = self.shelf().apis.write();
        let Some(known) = apis.get_mut(api) else {
            return;
        };
        if generation <= MOST {
            known.generation = known.generation.max(generation);
        }
        if known.current.as_ref().map(|it| it.generation) != Some(generation) {
            return;
        }
        let full = known.acked.len() + known.rolled_back.len() >= MOST_NODES;
        match verdict.kind() {
            verdict::Kind::Ack if !full => {
                known
                    .acked
                    .entry(node.to_owned())
                    .or_insert_with(Instant::now);
            }
            verdict::Kind::RolledBack if !full => {
                known.acked.remove(node);
                known
                    .rolled_back
                    .insert(node.to_owned(), verdict.reason.clone());
            }
            verdict::Kind::Ack
            | verdict::Kind::RolledBack
            | verdict::Kind::Nack
            | verdict::Kind::Unspecified => return,
        }
        let trusted = known
            .acked
            .values()
            .filter(|since| since.elapsed() >= TRUSTED_AFTER);
        let quarantined = known.rolled_back.len() > trusted.count();
        if quarantined && !known.quarantined {
            tracing::error!(%api, "API {api}: generation {generation} is quarantined, no further node gets it: node {node} died of it: {}", verdict.reason);
        }
        known.quarantined |= quarantined;
    }

    /// Whether `peer` may have been given an API: it is, or was a generation ago, one of its own, or is not known here.
    pub(crate) fn concerns(&self, peer: &WorkloadId, api: &str) -> bool {
        let apis = self.shelf().apis.read();
        let Some(known) = apis.get(api) else {
            return true;
        };
        let mut given = known.current.iter().chain(&known.previous).peekable();
        given.peek().is_none() || given.any(|bundle| is_for(peer, bundle))
    }

    /// The current generation of each API.
    pub(crate) fn generations(&self) -> BTreeMap<String, (u64, String)> {
        let apis = self.shelf().apis.read();
        let current = apis.iter().filter_map(|(api, known)| {
            let bundle = known.current.as_ref()?;
            Some((api.clone(), (bundle.generation, bundle.service.clone())))
        });
        current.collect()
    }

    /// Whether an API is given to nodes; `None`: the store was not read yet.
    pub(crate) fn publishes(&self, api: &str) -> Option<bool> {
        let known = |apis: &BTreeMap<String, Published>| {
            let known = apis.get(api);
            known.is_some_and(|it| it.current.is_some() && !it.withdrawn)
        };
        self.is_loaded().then(|| known(&self.shelf().apis.read()))
    }

    /// Who may call an API; `None`: that is not known in this process.
    pub(crate) fn access(&self, api: &str) -> Option<Arc<ApiAccess>> {
        self.shelf().apis.read().get(api)?.access.clone()
    }

    /// Every API, for administration.
    pub(crate) fn shown(&self) -> Vec<Value> {
        let apis = self.shelf().apis.read();
        apis.iter().map(|(api, known)| shown(api, known)).collect()
    }

    fn shelf(&self) -> &Shelf {
        &self.control.inner.bundles
    }

    fn change(&self, api: &str, change: impl FnOnce(&mut Published)) {
        change(self.shelf().apis.write().entry(api.to_owned()).or_default());
        self.shelf()
            .changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn is_loaded(&self) -> bool {
        self.shelf().loaded.load(Ordering::Acquire)
    }

    /// Reads what was published before, once.
    pub(crate) async fn load(&self) -> Result<(), Refusal> {
        if self.is_loaded() {
            return Ok(());
        }
        let store = self.control.store()?;
        let mut snapshot = store.snapshot().await?;
        let rows = BundleRow::all(&mut snapshot).await?;
        let counts = BundleCount::all(&mut snapshot).await?;
        {
            let mut apis = self.shelf().apis.write();
            for BundleRow {
                bundle,
                published_at,
            } in rows
            {
                let known = apis.entry(bundle.api.clone()).or_default();
                known.since = Some(published_at);
                known.generation = known.generation.max(bundle.generation);
                known.previous = known.current.replace(Arc::new(bundle));
            }
            for count in counts {
                let known = apis.entry(count.api).or_default();
                known.generation = known.generation.max(count.generation);
                known.withdrawn = count.withdrawn;
            }
        }
        self.shelf().loaded.store(true, Ordering::Release);
        self.shelf()
            .changed
            .send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    async fn publish_one(&self, candidate: Candidate) -> Result<bool, NotPublished> {
        let Candidate {
            api,
            files,
            service,
            access,
        } = candidate;
        if !is_api_name(&api) {
            return Err(NotPublished(format!("`{api}` is no name of an API")));
        }
        check_files(&files).map_err(|why| NotPublished(format!("API {api}: {why}")))?;
        let hash = content_hash(&files);
        let known = self
            .shelf()
            .apis
            .read()
            .get(&api)
            .cloned()
            .unwrap_or_default();
        let same = |current: &Arc<Bundle>| current.hash == hash && current.service == service;
        if known.current.as_ref().is_some_and(same) {
            self.judge_by(&api, access);
            return Ok(false);
        }
        // Until the new rules are there nobody is judged by the old ones.
        self.judge_by(&api, None);
        let name = api.clone();
        let bundle = Bundle {
            generation: known.generation,
            api,
            hash,
            files,
            service,
        };
        let put = self.put(bundle, known.generation, "bundle.publish").await;
        self.judge_by(&name, if put.is_ok() { access } else { known.access });
        put?;
        Ok(true)
    }

    fn judge_by(&self, api: &str, access: Option<Arc<ApiAccess>>) {
        if let Some(known) = self.shelf().apis.write().get_mut(api) {
            known.access = access;
        }
    }

    /// Gives a bundle the generation after `above`, stores it, and offers it to nodes.
    async fn put(
        &self,
        mut bundle: Bundle,
        above: u64,
        action: &'static str,
    ) -> Result<(), Refusal> {
        let at = now();
        let mut change = self.control.begin().await?;
        // During a hand-over another process counts too.
        let stored = BundleCount::of(change.on(), &bundle.api).await?;
        bundle.generation = stored.max(above) + 1;
        BundleRow::put(change.on(), &bundle, at).await?;
        let detail = json!({ "generation": bundle.generation, "hash": hex(&bundle.hash) });
        change.note(entry(action, &bundle.api, detail));
        change.commit().await?;
        let (api, generation) = (bundle.api.clone(), bundle.generation);
        tracing::info!(%api, generation, "API {api}: generation {generation} is published");
        self.change(&api, |known| {
            known.generation = known.generation.max(generation);
            known.previous = known.current.replace(Arc::new(bundle));
            known.since = Some(at);
            known.withdrawn = false;
            known.quarantined = false;
            known.acked.clear();
            known.rolled_back.clear();
        });
        Ok(())
    }

    /// A node holds this, maybe from a control plane that forgot it: what it is given is counted above it.
    async fn count_above(&self, held: &Held) -> Result<(), Refusal> {
        let (api, generation) = (&held.api, held.generation);
        if generation > MOST || !is_api_name(api) {
            tracing::warn!("a node holds what cannot be: API {api:?} in generation {generation}");
            return Ok(());
        }
        let _one_at_a_time = self.shelf().publishing.lock().await;
        let current = {
            let mut apis = self.shelf().apis.write();
            let known = apis.entry(api.clone()).or_default();
            known.generation = known.generation.max(generation);
            known.current.clone()
        };
        let Some(current) = current else {
            return Ok(());
        };
        let same = current.hash == held.hash;
        if generation < current.generation || (same && generation == current.generation) {
            return Ok(());
        }
        // The same content keeps the generation the node has.
        let above = generation - u64::from(same);
        self.put(Bundle::clone(&current), above, "bundle.renumber")
            .await
    }
}

/// Whether a node serves an API.
fn is_for(peer: &WorkloadId, bundle: &Bundle) -> bool {
    match peer.kind() {
        Kind::Gateway => true,
        Kind::Service => bundle.service == **peer.name(),
        Kind::Control => false,
    }
}

fn entry(action: &'static str, api: &str, detail: Value) -> Entry {
    Entry {
        at: now(),
        actor: "tollgate".to_owned(),
        action,
        subject: api.to_owned(),
        detail,
        from: None,
    }
}

fn shown(api: &str, known: &Published) -> Value {
    let state = match known {
        Published {
            withdrawn: true, ..
        } => "withdrawn",
        Published {
            quarantined: true, ..
        } => "quarantined",
        Published { broken: true, .. } => "broken",
        Published { owned: false, .. } => "no_file",
        Published { current: None, .. } => "unpublished",
        _ => "ok",
    };
    let current = known.current.as_ref();
    let rolled_back = known.rolled_back.iter();
    let rolled_back = rolled_back.map(|(node, reason)| format!("node {node}: {reason}"));
    let findings = rolled_back.chain(known.findings.iter().cloned());
    json!({
        "api": api,
        "generation": current.map_or(0, |it| it.generation),
        "hash": current.map(|it| hex(&it.hash)),
        "service": current.map(|it| it.service.clone()).filter(|it| !it.is_empty()),
        "since": known.since.filter(|_| current.is_some()).map(|it| it.to_string()),
        "state": state,
        "findings": findings.collect::<Vec<_>>(),
    })
}
