//! What a node says about itself, held against its certificate: whose a node's name is, and whose a holder of leases.
//!
//! A name belongs to the identity that joined under it; one that nobody is known to have joined under, as after a store was lost, to the
//! identity that uses it first. A holder belongs to who uses it, until it is silent. Promises: what is said in another's name is refused,
//! counted, and says whose it is. Several nodes may have one identity: among these this tells nothing apart. Not here: certificates.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::HolderId;

use crate::Control;
use crate::store::JoinTokenRow;

/// Names known at once. Of more, those count whose join is on record.
const NAMES: usize = 20_000;
/// Holders known at once; of more, those of nobody known are refused.
const HOLDERS: usize = 20_000;
/// How long a silent holder is somebody's: longer than anything it was granted is kept for it.
const SILENT: Duration = Duration::from_secs(60);

/// What was refused, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Records of what was served.
    Usage,
    /// Quota.
    Quota,
    /// Who it is, and what became of its policy.
    Status,
    /// A certificate.
    Join,
}

impl About {
    const ALL: [Self; 4] = [Self::Usage, Self::Quota, Self::Status, Self::Join];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Quota => "quota",
            Self::Status => "status",
            Self::Join => "join",
        }
    }
}

/// What is whose.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    names: Mutex<HashMap<Arc<str>, WorkloadId>>,
    holders: Mutex<HashMap<HolderId, (WorkloadId, Instant)>>,
    refused: [AtomicU64; 4],
}

impl Claims {
    /// Counts and logs something that `peer` may not say; `why`, once more.
    pub(crate) fn refuse(&self, about: About, peer: &WorkloadId, why: String) -> String {
        let counters = About::ALL.iter().zip(&self.refused);
        for (_, counter) in counters.filter(|(it, _)| **it == about) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        tracing::warn!(%peer, about = about.as_str(), "refused: {why}");
        why
    }

    /// Whether `peer` may use a holder of leases. Using it keeps it.
    ///
    /// # Errors
    /// It is another's, or there are too many: why, for the node.
    pub(crate) fn holder(
        &self,
        peer: &WorkloadId,
        holder: HolderId,
        now: Instant,
    ) -> Result<(), String> {
        let silent = |since: Instant| now.saturating_duration_since(since) >= SILENT;
        let mut holders = self.holders.lock();
        if let Some((owner, since)) = holders.get_mut(&holder)
            && (owner == peer || silent(*since))
        {
            (*owner, *since) = (peer.clone(), now);
            return Ok(());
        }
        let why = match holders.contains_key(&holder) {
            true => format!("these leases are held by another node, not by {peer}"),
            false => {
                if holders.len() >= HOLDERS {
                    holders.retain(|_, (_, since)| !silent(*since));
                }
                if holders.len() < HOLDERS {
                    holders.insert(holder, (peer.clone(), now));
                    return Ok(());
                }
                "there are too many holders of leases".to_owned()
            }
        };
        drop(holders);
        Err(self.refuse(About::Quota, peer, why))
    }

    /// Whose a name is, as far as it is known here.
    fn owner(&self, name: &str) -> Option<WorkloadId> {
        self.names.lock().get(name).cloned()
    }

    /// Notes whose a name is; whoever was noted before stays it. `None`: there is no room.
    fn note(&self, name: &str, owner: &WorkloadId) -> Option<WorkloadId> {
        let mut names = self.names.lock();
        if names.len() >= NAMES && !names.contains_key(name) {
            return None;
        }
        let owner = names.entry(name.into()).or_insert_with(|| owner.clone());
        Some(owner.clone())
    }

    /// Adds the numbers to a page of metrics.
    pub(crate) fn write_page(&self, page: &mut String) {
        let name = "tollgate_node_claims_refused_total";
        let _ = writeln!(
            page,
            "# HELP {name} What nodes said in the name of others.\n# TYPE {name} counter"
        );
        for (about, counter) in About::ALL.iter().zip(&self.refused) {
            let about = about.as_str();
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(page, "{name}{{about=\"{about}\"}} {value}");
        }
    }
}

impl Control {
    /// Whether `peer` may speak as the node of this name, about this.
    ///
    /// # Errors
    /// It is another's: whose, for the node.
    pub(crate) async fn may_be(
        &self,
        peer: &WorkloadId,
        node: &str,
        about: About,
    ) -> Result<(), String> {
        let claims = &self.inner.claims;
        let owner = match claims.owner(node) {
            Some(owner) => Some(owner),
            None => {
                let joined = self.joined_as(node).await;
                claims
                    .note(node, joined.as_ref().unwrap_or(peer))
                    .or(joined)
            }
        };
        let why = match owner {
            Some(owner) if owner == *peer => return Ok(()),
            Some(owner) => format!("the node `{node}` is {owner}, not {peer}"),
            None => format!("the node `{node}` is not known, and there are too many already"),
        };
        Err(claims.refuse(about, peer, why))
    }

    /// Who joined last under a name. Nobody, where the store cannot say.
    async fn joined_as(&self, node: &str) -> Option<WorkloadId> {
        let store = self.store().ok()?;
        let found = async { JoinTokenRow::used_by(&mut *store.read().await?, node).await };
        match found.await {
            Ok(identity) => identity?.parse().ok(),
            Err(error) => {
                tracing::warn!(%error, node, "who joined under this name is not known");
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_whose_it_was_first_until_it_is_silent() {
        let claims = Claims::default();
        let edge: WorkloadId = "spiffe://d/gateway/edge".parse().unwrap();
        let shop: WorkloadId = "spiffe://d/service/shop".parse().unwrap();
        let begun = Instant::now();
        let of = HolderId(7);
        claims.holder(&edge, of, begun).unwrap();
        let why = claims.holder(&shop, of, begun + SILENT / 2).unwrap_err();
        assert!(why.contains("another node"), "{why}");
        claims.holder(&edge, of, begun + SILENT / 2).unwrap();
        assert!(claims.holder(&shop, of, begun + SILENT).is_err());
        claims.holder(&shop, HolderId(8), begun).unwrap();
        claims.holder(&shop, of, begun + 2 * SILENT).unwrap();
        let mut page = String::new();
        claims.write_page(&mut page);
        assert!(
            page.contains("refused_total{about=\"quota\"} 2\n"),
            "{page}"
        );
    }

    #[test]
    fn holders_are_bounded() {
        let claims = Claims::default();
        let edge: WorkloadId = "spiffe://d/gateway/edge".parse().unwrap();
        let begun = Instant::now();
        for number in 0..HOLDERS {
            let holder = HolderId(u64::try_from(number).unwrap());
            claims.holder(&edge, holder, begun).unwrap();
        }
        assert!(claims.holder(&edge, HolderId(u64::MAX), begun).is_err());
        claims.holder(&edge, HolderId(1), begun).unwrap();
        let later = begun + SILENT;
        claims.holder(&edge, HolderId(u64::MAX), later).unwrap();
    }
}
