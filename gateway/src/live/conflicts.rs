//! Two APIs that claim the same host and base path: the one that serves it keeps it, else the older file wins. The loser
//! stays on its previous version, where it has one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tollgate_policy::settings::HostPattern;

use crate::api::Api;

/// An API that wants to serve.
#[derive(Debug)]
pub(super) struct Claimant {
    /// Name.
    pub(super) name: String,
    /// When its file was written.
    pub(super) modified: SystemTime,
    /// The claims of the version just loaded; `None` where there is no new one.
    pub(super) wanted: Option<Vec<Claim>>,
    /// The claims of the version that serves now.
    pub(super) previous: Option<Vec<Claim>>,
}

/// A host (`None`: any) and a base path.
pub(super) type Claim = (Option<Arc<str>>, Arc<str>);

/// Which version of a claimant may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// The new one, or the previous one where there is no new one; nothing where there is neither.
    Granted,
    /// The new one is refused, in words; the previous one, where there is one, stays.
    Refused(String),
}

/// The claims of an API.
pub(super) fn claims(api: &Api) -> Vec<Claim> {
    let host = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => Arc::clone(host),
        HostPattern::Suffix(suffix) => Arc::from(format!("*{suffix}")),
    };
    let mut hosts: Vec<Option<Arc<str>>> = api
        .config
        .hosts
        .iter()
        .map(|pattern| Some(host(pattern)))
        .collect();
    if hosts.is_empty() {
        hosts.push(None);
    }
    let with_bases = |host: &Option<Arc<str>>| {
        api.bases
            .iter()
            .map(|base| (host.clone(), Arc::clone(base)))
            .collect::<Vec<_>>()
    };
    hosts.iter().flat_map(with_bases).collect()
}

/// Decides for all claimants at once, in their order.
pub(super) fn rule(claimants: &[Claimant]) -> Vec<Ruling> {
    let mut rulings = vec![Ruling::Granted; claimants.len()];
    // Every round refuses one new version, so this ends. Previous versions never collide with each other.
    while let Some((loser, winner, claim)) = collision(claimants, &rulings) {
        let Some(ruling) = rulings.get_mut(loser) else {
            break;
        };
        let winner = claimants
            .get(winner)
            .map(|winner| winner.name.as_str())
            .unwrap_or_default();
        let host = claim
            .0
            .as_deref()
            .map_or_else(|| "any host".to_owned(), |host| format!("host {host}"));
        let base = if claim.1.is_empty() { "/" } else { &claim.1 };
        *ruling = Ruling::Refused(format!(
            "API `{winner}` already serves {host} and base path {base}"
        ));
    }
    rulings
}

/// The first two that claim the same, as (loser, winner, claim).
fn collision<'c>(
    claimants: &'c [Claimant],
    rulings: &[Ruling],
) -> Option<(usize, usize, &'c Claim)> {
    let mut holders: HashMap<&Claim, (usize, &Claimant)> = HashMap::new();
    for (index, (claimant, ruling)) in claimants.iter().zip(rulings).enumerate() {
        let wanted = match ruling {
            Ruling::Granted => claimant.wanted.as_ref().or(claimant.previous.as_ref()),
            Ruling::Refused(_) => claimant.previous.as_ref(),
        };
        for claim in wanted.into_iter().flatten() {
            let Some(&(other_index, other)) = holders.get(claim) else {
                holders.insert(claim, (index, claimant));
                continue;
            };
            if other_index == index {
                continue;
            }
            return Some(if claimant.standing(claim) < other.standing(claim) {
                (other_index, index, claim)
            } else {
                (index, other_index, claim)
            });
        }
    }
    None
}

impl Claimant {
    /// Smaller wins: who serves the claim now, then the older file, then the name.
    fn standing(&self, claim: &Claim) -> (bool, SystemTime, &str) {
        let serves = self.previous.iter().flatten().any(|held| held == claim);
        (!serves, self.modified, &self.name)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn claimant(name: &str, age: u64, wanted: &[&str], previous: &[&str]) -> Claimant {
        let claims = |bases: &[&str]| {
            (!bases.is_empty()).then(|| {
                bases
                    .iter()
                    .map(|base| (None, Arc::from(*base)))
                    .collect::<Vec<Claim>>()
            })
        };
        Claimant {
            name: name.to_owned(),
            modified: UNIX_EPOCH + Duration::from_secs(age),
            wanted: claims(wanted),
            previous: claims(previous),
        }
    }

    fn refused(claimants: &[Claimant]) -> Vec<&str> {
        let rulings = rule(claimants);
        let pairs = claimants.iter().zip(rulings);
        pairs
            .filter(|(_, r)| *r != Ruling::Granted)
            .map(|(c, _)| c.name.as_str())
            .collect()
    }

    #[test]
    fn at_start_the_older_file_wins_and_then_the_name() {
        assert_eq!(
            refused(&[
                claimant("a", 9, &["/v1"], &[]),
                claimant("b", 1, &["/v1"], &[])
            ]),
            ["a"]
        );
        assert_eq!(
            refused(&[
                claimant("b", 1, &["/v1"], &[]),
                claimant("a", 1, &["/v1"], &[])
            ]),
            ["b"]
        );
    }

    #[test]
    fn who_serves_keeps_it_against_an_older_file() {
        let serving = claimant("a", 9, &[], &["/v1"]);
        assert_eq!(refused(&[serving, claimant("b", 1, &["/v1"], &[])]), ["b"]);
        let reloaded = claimant("a", 9, &["/v1", "/v2"], &["/v1"]);
        assert_eq!(refused(&[reloaded, claimant("b", 1, &["/v1"], &[])]), ["b"]);
    }

    #[test]
    fn two_may_exchange_their_base_paths_at_once() {
        let a = claimant("a", 1, &["/two"], &["/one"]);
        let b = claimant("b", 2, &["/one"], &["/two"]);
        assert_eq!(refused(&[a, b]), Vec::<&str>::new().as_slice());
    }

    #[test]
    fn a_refused_newcomer_that_stays_on_its_previous_version_keeps_that_claim() {
        let a = claimant("a", 1, &["/held"], &["/old"]);
        let b = claimant("b", 0, &["/old"], &[]);
        let c = claimant("c", 5, &[], &["/held"]);
        assert_eq!(refused(&[a, b, c]), ["a", "b"]);
    }
}
